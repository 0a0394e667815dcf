"""The anchors of RetinaNet, in the order of the detector's outputs.

Source: `AnchorGenerator` of mmdetection 2.x and 3.x with the settings of `retinanet_r50_fpn.py`. Anchors are centred
on the upper left corner of their cell, not on its middle, and are neither rounded nor clipped to the image.
"""

import functools

import numpy as np

STRIDES = (8, 16, 32, 64, 128)  # Side of a cell of each level, in pixels of the image.
_OCTAVES = (0, 1 / 3, 2 / 3)  # An anchor's size is the level's size times two to this power.
_RATIOS = (0.5, 1.0, 2.0)  # Height / width.
PER_CELL = len(_OCTAVES) * len(_RATIOS)


def level_sizes(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns the (height, width) in cells of every level, for an image of `height` x `width` pixels.

    Every halving of the image rounds up, and so does one division by a power of two.
    """
    return tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)


@functools.cache
def anchors(height: int, width: int, scale: float = 4.0) -> np.ndarray:
    """Returns all anchors of an image.

    Args:
        height, width: Size of the image in pixels, padding included.
        scale: Side of the smallest square anchor of a level / stride of the level.
    Returns:
        Boxes (x1, y1, x2, y2) in pixels, float32 [A, 4], read-only. The order is that of the detector's outputs:
        level (finest first), row, column, and within a cell by ratio and then by size.
    """
    levels = [
        _level(stride, size, scale) for stride, size in zip(STRIDES, level_sizes(height, width), strict=True)
    ]
    boxes = np.concatenate(levels)
    boxes.setflags(write=False)
    return boxes


@functools.cache
def corners(height: int, width: int) -> np.ndarray:
    """Returns the upper left corner (y, x) of the cell of every anchor in pixels, int32 [A, 2], read-only."""
    grids = [
        stride * np.indices(size).reshape(2, -1).T
        for stride, size in zip(STRIDES, level_sizes(height, width), strict=True)
    ]
    result = np.repeat(np.concatenate(grids), PER_CELL, axis=0).astype(np.int32)
    result.setflags(write=False)
    return result


def level_counts(height: int, width: int) -> tuple[int, ...]:
    """Returns the number of anchors of every level."""
    return tuple(rows * columns * PER_CELL for rows, columns in level_sizes(height, width))


def _level(stride: int, size: tuple[int, int], scale: float) -> np.ndarray:
    """Returns the anchors of one level, float32 [rows * columns * PER_CELL, 4]."""
    rows, columns = (np.arange(cells, dtype=np.float32) * stride for cells in size)
    corners = np.stack(np.meshgrid(columns, rows), -1)  # (x, y) of every cell, [rows, columns, 2].
    shifts = np.concatenate([corners, corners], -1)[:, :, None]
    return (shifts + _base_anchors(stride, scale)).reshape(-1, 4)


def _base_anchors(stride: int, scale: float) -> np.ndarray:
    """Returns the anchors of a cell whose corner is at (0, 0), float32 [PER_CELL, 4]."""
    # In float32 and in mmdetection's order of operations, so that the results are equal to the last bit.
    sizes = np.array([scale * 2**octave for octave in _OCTAVES], np.float32)
    root = np.sqrt(np.array(_RATIOS, np.float32))
    widths = (np.float32(stride) * (1 / root)[:, None] * sizes).ravel()
    heights = (np.float32(stride) * root[:, None] * sizes).ravel()
    half = np.float32(0.5)
    return np.stack([-half * widths, -half * heights, half * widths, half * heights], -1)
