"""What the labels of a data set mean, and the check that a mask is encoded so."""

import dataclasses
import functools

import numpy as np

from seaformer_jax import errors
from seaformer_jax.data import files

IGNORED = 255  # Of encoded masks: neither trained on nor counted, as in the official code.
_WRONG = 254  # Of the look-up table alone; so there are at most 254 classes.


@dataclasses.dataclass(frozen=True)
class LabelSpec:
    """The encoding of a data set's labels; all but the names is about masks.

    Attributes:
        class_names: The name of class k at position k; labels are 0 .. len(class_names) - 1.
        palette: The colour (red, green, blue in 0..255) of class k at position k.
        ignore_label: The value of ignored pixels in the files; None where they hold none.
        reduce_zero_label: In the files 0 is ignored and 1 .. C are the classes.
        id_map: Pairs (value in the files, class or IGNORED); None where the values are the classes.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    ignore_label: int | None = IGNORED
    reduce_zero_label: bool = False
    id_map: tuple[tuple[int, int], ...] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def encode(self, raw: np.ndarray, name: str) -> np.ndarray:
        """Translates a mask as it is in the file.

        Args:
            raw: [height, width], of integers or booleans.
            name: what error messages call the mask: its path.

        Returns:
            uint8 [height, width] of classes 0 .. C - 1 and IGNORED; read-only.

        Raises:
            UserError: the mask has colours instead of numbers or holds values that are no class, or the
                specification contradicts itself.
        """
        if raw.ndim != 2 or raw.dtype.kind not in "bui":
            raise errors.UserError(
                f"{name}: a mask with {_kind(raw)}; expected one channel of integers, the number of the class "
                f"({self._expected()}). Convert colours to class numbers."
            )
        if raw.dtype not in (np.uint8, np.bool_) and raw.size and (raw.min() < 0 or raw.max() > 255):
            raise self._wrong_values(raw, name)
        narrow = raw.astype(np.uint8, copy=False)
        # Twice as fast as indexing, and without the index array of eight bytes a pixel.
        encoded = np.frombuffer(narrow.tobytes().translate(self._table), np.uint8).reshape(raw.shape)
        if (encoded == _WRONG).any():
            raise self._wrong_values(raw, name)
        self._check_binary(narrow, name)
        return encoded

    def check(self) -> None:
        """Raises UserError where the specification of masks contradicts itself; `encode` does so, too."""
        classes = {k for _, k in self.id_map or ()} - {IGNORED}
        first = int(self.reduce_zero_label)
        if self.num_classes > _WRONG:
            raise errors.UserError(f"{self.num_classes} classes; masks may have at most {_WRONG}")
        if self.palette and len(self.palette) != self.num_classes:
            raise errors.UserError(f"{len(self.palette)} colours for {self.num_classes} classes")
        if self.id_map is not None and self.reduce_zero_label:
            raise errors.UserError(
                "id_map and reduce_zero_label are given; id_map alone says which value is what"
            )
        if not self._meaning.keys() <= set(range(256)):
            raise errors.UserError(
                f"values {sorted(self._meaning)} in masks; expected values of a byte, 0..255"
            )
        if not classes <= set(range(self.num_classes)):
            raise errors.UserError(
                f"id_map has the classes {sorted(classes)}; expected some of 0..{self.num_classes - 1} and "
                f"{IGNORED} for ignored"
            )
        if self.id_map is None and self.ignore_label in range(first, first + self.num_classes):
            name = self.class_names[self.ignore_label - first]
            raise errors.UserError(
                f"ignore_label {self.ignore_label} is the class {name!r}, too; give another one, set "
                "reduce_zero_label, or give an id_map"
            )

    @functools.cached_property
    def _meaning(self) -> dict[int, int]:
        """Values in the files that are right, and the class of each or IGNORED."""
        if self.id_map is not None:
            meaning = dict(self.id_map)
        else:
            first = int(self.reduce_zero_label)
            meaning = {first + k: k for k in range(self.num_classes)}
            if self.reduce_zero_label:
                meaning[0] = IGNORED
        return {self.ignore_label: IGNORED, **meaning} if self.ignore_label is not None else meaning

    @functools.cached_property
    def _table(self) -> bytes:
        """The encoded value of each of the 256 values of a byte; _WRONG where it is none."""
        self.check()
        return bytes(self._meaning.get(value, _WRONG) for value in range(256))

    def _check_binary(self, raw: np.ndarray, name: str) -> None:
        """Masks of two classes are often stored as 0 and 255, which ignores the second one without a word."""
        if self.num_classes == 2 and self.id_map is None and not self.reduce_zero_label:
            values = set(np.unique(raw).tolist())
            if IGNORED in values and 1 not in values:
                raise errors.UserError(
                    f"{name}: 255 occurs but not the class {self.class_names[1]!r}; set data.id_map to "
                    "((0, 0), (255, 1)) if 255 is that class, to ((0, 0), (1, 1), (255, 255)) if it is ignored"
                )

    def _wrong_values(self, raw: np.ndarray, name: str) -> errors.UserError:
        wrong = [str(value) for value in np.unique(raw).tolist() if value not in self._meaning]
        return errors.UserError(
            f"{name}: the mask holds {files.some(wrong)}; expected {self._expected()}. These may be raw ids, "
            "masks that were converted already, or those of another data set"
        )

    def _expected(self) -> str:
        classes = sorted(value for value, k in self._meaning.items() if k != IGNORED)
        ignored = sorted(value for value, k in self._meaning.items() if k == IGNORED)
        return f"{_ranges(classes)} ({_ranges(ignored)} ignored)" if ignored else _ranges(classes)


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for classes that have none: those of Pascal VOC, the bits of the number dealt out in turn."""
    places = [(channel, bit) for bit in range(3) for channel in range(3)]

    def colour(k: int) -> tuple[int, int, int]:
        channels = [0, 0, 0]
        for position, (channel, bit) in enumerate(places):
            channels[channel] |= (k >> position & 1) << 7 - bit
        return tuple(channels)

    return tuple(colour(k) for k in range(count))


def _kind(raw: np.ndarray) -> str:
    if raw.ndim == 3:
        return f"{raw.shape[2]} channels (colours)"
    return f"{raw.ndim} axes of {raw.dtype}"


def _ranges(values: list[int]) -> str:
    """Writes sorted numbers as "0..3, 7"."""
    starts = [v for v in values if v - 1 not in values]
    ends = [v for v in values if v + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
