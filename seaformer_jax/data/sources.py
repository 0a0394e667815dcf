"""What all data sources share: the interface, a check of the classes and the handling of broken images.

A source gives random access to labelled images. It has a length, `labels` (a `LabelSpec`) and `source[i] ->
{"image": uint8 [height, width, 3], "label": int}`. It can be pickled, and it opens its files only when an element
is read, because worker processes are spawned. With another `decode` of `data/images.py`, a source of files may return
RGB Pillow images instead of arrays. The transforms of classification take both, and this saves a conversion.
"""

from typing import Protocol

import numpy as np
from absl import logging

from seaformer_jax import errors
from seaformer_jax.data import labels

_ON_CORRUPT = ("error", "skip")


class Source(Protocol):
    """What the pipeline needs from a data set."""

    labels: labels.LabelSpec

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def check_num_classes(source: Source, expected: int, least: int = 2) -> None:
    """Raises `errors.UserError` if the data set does not have the `expected` number of classes, or less than `least`.

    A detector may have a single class, because it also tells objects from the background.
    """
    names = source.labels.class_names
    if len(names) < least:
        raise errors.UserError(
            f"the data set has one class, {names[0]!r}, so there is nothing to learn; expected at least two; correct "
            "config.data"
        )
    if len(names) != expected:
        raise errors.UserError(
            f"the data set has {len(names)} classes ({names[0]!r} to {names[-1]!r}), but task.num_classes is "
            f"{expected}; set --config.task.num_classes={len(names)}, or correct config.data"
        )


class SkipCorrupt:
    """Wraps a source and handles its broken images; adds the field "skipped" (int) to every element.

    "skipped" is the number of broken images that were skipped to get the element.

    Args:
        source: The data set.
        on_corrupt: "error": a file that cannot be decoded ends the run. "skip": it is logged and skipped.
        replace: What takes the place of a skipped image. True (training): the next readable element. False
            (evaluation): a black image [32, 32, 3] with label 0 and skipped 1, which no metric may count.

    Raises:
        UserError: The policy is unknown; when reading: the whole data set has no readable image.
    """

    def __init__(self, source: Source, on_corrupt: str, replace: bool = True):
        if on_corrupt not in _ON_CORRUPT:
            raise errors.UserError(
                f"data.on_corrupt is {on_corrupt!r}; expected one of {', '.join(_ON_CORRUPT)}."
                + errors.suggest(on_corrupt, _ON_CORRUPT)
            )
        self.labels = source.labels
        self._source = source
        self._skip = on_corrupt == "skip"
        self._replace = replace

    def __len__(self) -> int:
        return len(self._source)

    def size(self, index: int) -> tuple[int, int] | None:
        """Returns (height, width) of an image of a segmentation source; None if its broken header is skipped."""
        try:
            return self._source.size(index)
        except errors.CorruptImageError:
            if not self._skip:
                raise
            return None

    def __getitem__(self, index: int) -> dict:
        # Each failure moves on to the next element, and from the last one to the first.
        for skipped in range(len(self)):
            try:
                return {**self._source[(index + skipped) % len(self)], "skipped": skipped}
            except errors.CorruptImageError as error:
                if not self._skip:
                    raise
                logging.warning("skipped a broken image: %s", error)
            if not self._replace:
                return {"image": np.zeros([32, 32, 3], np.uint8), "label": 0, "skipped": 1}
        raise errors.UserError(f"none of the {len(self)} images of the data set can be decoded; see the log")
