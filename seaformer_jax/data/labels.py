"""The label encoding of a data set, and the check that its masks follow it."""

import dataclasses
import functools

import numpy as np

from seaformer_jax import errors
from seaformer_jax.data import files

# Value of ignored pixels in encoded masks. They are not trained on and not counted, as in the official code.
IGNORED = 255
# Marks invalid values. Only the look-up table holds it; therefore masks may have at most 254 classes.
_WRONG = 254


@dataclasses.dataclass(frozen=True)
class LabelSpec:
    """How a data set encodes its labels; all fields but `class_names` are about masks.

    Attributes:
        class_names: The name of class k at position k; labels are 0 .. len(class_names) - 1.
        palette: The colour (red, green, blue in 0..255) of class k at position k.
        ignore_label: The value of ignored pixels in the files; None if the files have no such value.
        reduce_zero_label: Whether, in the files, 0 is ignored and 1 .. C are the classes.
        id_map: Pairs (value in the files, class or IGNORED); None if the values in the files are the classes.
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
        """Translates a mask from the values in its file to classes.

        Args:
            raw: [height, width], of integers or booleans.
            name: Name of the mask in error messages: its path.

        Returns:
            uint8 [height, width] of classes 0 .. C - 1 and IGNORED; read-only.

        Raises:
            UserError: The mask has colours instead of numbers, it holds values that are no class, or the
                specification contradicts itself.
        """
        # 1. Only one channel of integers, each in 0..255, can be looked up in a table of bytes.
        if raw.ndim != 2 or raw.dtype.kind not in "bui":
            raise errors.UserError(
                f"{name}: a mask with {_kind(raw)}; expected one channel of integers, the number of the class "
                f"({self._expected()}). Convert colours to class numbers."
            )
        if raw.dtype not in (np.uint8, np.bool_) and raw.size and (raw.min() < 0 or raw.max() > 255):
            raise self._wrong_values(raw, name)
        narrow = raw.astype(np.uint8, copy=False)
        # 2. `bytes.translate` is twice as fast as indexing the table, and it needs no index array of eight bytes
        # per pixel.
        encoded = np.frombuffer(narrow.tobytes().translate(self._table), np.uint8).reshape(raw.shape)
        # 3. A wrong encoding must not pass: the model would silently train on wrong classes.
        if (encoded == _WRONG).any():
            raise self._wrong_values(raw, name)
        self._check_binary(narrow, name)
        return encoded

    def check(self) -> None:
        """Raises UserError if the specification of the masks contradicts itself; `encode` checks this, too."""
        classes = {k for _, k in self.id_map or ()} - {IGNORED}
        first = int(self.reduce_zero_label)
        if self.num_classes > _WRONG:
            raise errors.UserError(f"{self.num_classes} classes; masks may have at most {_WRONG}")
        if self.palette and len(self.palette) != self.num_classes:
            raise errors.UserError(
                f"{len(self.palette)} colours for {self.num_classes} classes; give one colour per class, or none"
            )
        if self.id_map is not None and self.reduce_zero_label:
            raise errors.UserError(
                "id_map and reduce_zero_label are both set; set id_map only, and map 0 to 255 in it to ignore 0"
            )
        if not self._meaning.keys() <= set(range(256)):
            raise errors.UserError(
                f"values {sorted(self._meaning)} in masks; expected values of a byte, 0..255; correct id_map or "
                "ignore_label"
            )
        if not classes <= set(range(self.num_classes)):
            raise errors.UserError(
                f"id_map has the classes {sorted(classes)}; expected some of 0..{self.num_classes - 1} and "
                f"{IGNORED} for ignored"
            )
        # One value cannot be both a class and ignored. An id_map decides for itself what each value means.
        if self.id_map is None and self.ignore_label in range(first, first + self.num_classes):
            name = self.class_names[self.ignore_label - first]
            raise errors.UserError(
                f"ignore_label {self.ignore_label} is the class {name!r}, too; give another one, set "
                "reduce_zero_label, or give an id_map"
            )

    @functools.cached_property
    def _meaning(self) -> dict[int, int]:
        """All valid values in the files, each with its class or IGNORED."""
        if self.id_map is not None:
            meaning = dict(self.id_map)
        else:
            first = int(self.reduce_zero_label)
            meaning = {first + k: k for k in range(self.num_classes)}
            if self.reduce_zero_label:
                meaning[0] = IGNORED
        # The entries of `meaning` win, so an id_map may give the ignore label's value to a class.
        return {self.ignore_label: IGNORED, **meaning} if self.ignore_label is not None else meaning

    @functools.cached_property
    def _table(self) -> bytes:
        """The encoded value of each of the 256 values of a byte; _WRONG for invalid values."""
        self.check()
        return bytes(self._meaning.get(value, _WRONG) for value in range(256))

    def _check_binary(self, raw: np.ndarray, name: str) -> None:
        """Raises UserError if the mask of two classes holds 255 but not 1.

        Such masks are often stored as 0 and 255; the second class would then be ignored silently.
        """
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
            "already converted masks, or masks of another data set"
        )

    def _expected(self) -> str:
        classes = sorted(value for value, k in self._meaning.items() if k != IGNORED)
        ignored = sorted(value for value, k in self._meaning.items() if k == IGNORED)
        return f"{_ranges(classes)} ({_ranges(ignored)} ignored)" if ignored else _ranges(classes)


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Returns Pascal VOC's colours, for classes that have none.

    The bits of the class number go to red, green and blue in turn. They fill each channel from its highest bit down.
    """
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
    """Formats sorted numbers as "0..3, 7"."""
    starts = [v for v in values if v - 1 not in values]
    ends = [v for v in values if v + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
