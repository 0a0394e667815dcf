"""Batches of images of several sizes: only images that get equal shapes share a batch.

The sizes are known without decoding an image, so the batches are the same on every host.
"""

import concurrent.futures
import functools
import sys
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from seaformer_jax.data.sources import SkipCorrupt

Size = tuple[int, int]  # (height, width)
Element = dict[str, Any]


def sizes(source: SkipCorrupt) -> Sequence[Size | None]:
    """Returns the size of every image, read in threads: each read mostly waits for a file."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(source.size, range(len(source))))


class Shuffled:
    """Endless elements for training: every `batch_size` of them, from a multiple of it on, are of one group.

    Every epoch has its own order, of the images in their groups and of the batches. The last batch of a group is
    filled with images from the start of its order, as mmdetection's `GroupSampler` does.

    Args:
        source: Random access to elements.
        groups: Group of every element, int [N].
        batch_size: Global batch size.
        seed: Seed of the order.
    """

    def __init__(self, source: Sequence[Element], groups: np.ndarray, batch_size: int, seed: int):
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        self._epoch = sum(-(-len(members) // batch_size) for members in self._members) * batch_size
        self._order = functools.lru_cache(maxsize=2)(self._order_of)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> Element:
        epoch, place = divmod(int(position), self._epoch)
        return self._source[int(self._order(epoch)[place])]

    def __reduce__(self):  # The cache cannot be pickled for the workers.
        groups = np.empty(sum(map(len, self._members)), np.int32)
        for group, members in enumerate(self._members):
            groups[members] = group
        return Shuffled, (self._source, groups, self._batch_size, self._seed)

    def _order_of(self, epoch: int) -> np.ndarray:
        """Returns the indices of an epoch's elements, in the order of the batches."""
        rng = np.random.default_rng((self._seed, epoch))
        batches = [
            np.resize(rng.permutation(members), (-(-len(members) // self._batch_size), self._batch_size))
            for members in self._members
        ]
        return rng.permutation(np.concatenate(batches)).ravel()


class Layout(Protocol):
    """How an image becomes an element of a batch. It can be pickled."""

    def shapes_of(self, size: Size) -> Hashable:
        """Returns what an image of this size has in common with the others of its batches."""

    def make(self, element: Element, shapes: Any) -> Element:
        """Returns the element of a batch; its arrays have the same shapes in the whole batch."""

    def blank(self, shapes: Any) -> Element:
        """Returns an element without an image that is stacked with others."""


class InBatches:
    """Elements for validation in the order of the batches; every group of equal shapes is padded to whole batches.

    `mask` is False on padding and on images that could not be read; `skipped` is 1 for the latter.

    Args:
        source: A source with sizes in `SkipCorrupt(..., replace=False)`.
        all_sizes: The `sizes` of the source.
        batch_size: Global batch size.
        layout: Makes the elements.
    """

    def __init__(
        self, source: SkipCorrupt, all_sizes: Sequence[Size | None], batch_size: int, layout: Layout
    ):
        self._source, self._batch_size, self._layout = source, batch_size, layout
        self._indices: list[int | None] = []  # Index in the source at each position; None is padding.
        self._shapes: list[Any] = []  # The shapes of each batch.
        for shapes, members in _group(all_sizes, layout).items():
            empty = -len(members) % batch_size
            self._indices += [*members, *[None] * empty]
            self._shapes += [shapes] * ((len(members) + empty) // batch_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Element:
        index, shapes = self._indices[position], self._shapes[position // self._batch_size]
        element = self._source[index] if index is not None else None
        if element is None or element["skipped"]:
            skipped = 0 if element is None else 1
            return self._layout.blank(shapes) | {"mask": np.bool_(False), "skipped": skipped}
        return self._layout.make(element, shapes) | {"mask": np.bool_(True), "skipped": 0}


def _group(all_sizes: Sequence[Size | None], layout: Layout) -> dict[Hashable, list[int]]:
    """Returns the images of each combination of shapes, in the order of the source.

    An image whose header is broken has no size and will be skipped; it takes the size of the first image that has
    one.
    """
    groups: dict[Hashable, list[int]] = {}
    known = next((size for size in all_sizes if size), (128, 128))
    for index, size in enumerate(all_sizes):
        groups.setdefault(layout.shapes_of(size or known), []).append(index)
    return groups
