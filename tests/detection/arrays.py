"""Arrays of the golden files of detection, in the layout of the detector's outputs."""

import numpy as np

from seaformer_jax.detection.anchors import PER_CELL


def flat(maps: list[np.ndarray]) -> np.ndarray:
    """[9 * K, h, w] per level, or with a first axis B -> [A, K]."""
    parts = []
    for m in maps:
        last = np.moveaxis(m, -3, -1)  # [..., h, w, 9 * K]
        parts.append(last.reshape(*m.shape[:-3], -1, m.shape[-3] // PER_CELL))
    return np.concatenate(parts, axis=-2)


def levels(arrays: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """Returns `<prefix>_0` to `<prefix>_4`."""
    return [arrays[f"{prefix}_{level}"] for level in range(5)]
