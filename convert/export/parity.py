"""How far an exported model is from the trained one, and how far it may be."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.labels.class_map import classes
from seaformer_jax.errors import UserError


class ExportTolerance(NamedTuple):
    """How far an export may be from the trained model.

    Attributes:
        largest: Of the largest difference, as a fraction of the largest logit.
        relative_rms: Of the root mean square of the differences, as a fraction of that of the logits.
        agreement: Least share of equal classes, of images or of pixels; but one may always differ.
    """

    largest: float
    relative_rms: float
    agreement: float


class Tolerance(NamedTuple):
    """What a precision must keep to.

    Attributes:
        export: Against the trained model in JAX; None where a drop of accuracy that the user gives decides.
        on_device: Against the same file at export: the largest difference, as a fraction of the largest logit.
    """

    export: ExportTolerance | None
    on_device: float


# At export. fp32: rounding in another order, 3e-5 at most in five runtimes. fp16: ten bits of mantissa. int8: random
# weights leave nothing of it, and trained ones are held by a drop of accuracy that the user gives.
# On a device. fp32 is order of summation; int8 and fp16 kernels round differently on each instruction set.
TOLERANCES = {
    "fp32": Tolerance(ExportTolerance(5e-5, 1e-5, 0.9999), on_device=1e-4),
    "fp16": Tolerance(ExportTolerance(5e-2, 2e-2, 0.99), on_device=5e-2),
    "int8": Tolerance(None, on_device=1e-1),
}


class Comparison(NamedTuple):
    """Differences over all images and elements; None of logits where the model gives labels.

    Attributes:
        images: How many were compared.
        classes: How many classes were compared, of images or of pixels.
        largest: Largest difference of a logit.
        magnitude: Largest logit of the trained model.
        relative_rms: Root mean square of the differences over that of the trained model's logits.
        agreement: Share of equal classes; of pixels at the size of the input.
    """

    images: int
    classes: int
    largest: float | None
    magnitude: float | None
    relative_rms: float | None
    agreement: float


def compare(
    trained: Sequence[np.ndarray], exported: Sequence[np.ndarray], size: tuple[int, int]
) -> Comparison:
    """Compares what the trained and the exported model give for the same images.

    Args:
        trained: logits [1, C], logits8 [1, h, w, C] or logits [1, H, W, C], one per image.
        exported: the same, or labels uint8 [1, H, W].
        size: H and W of the input.
    """
    equal = [classes(t, size) == classes(e, size) for t, e in zip(trained, exported, strict=True)]
    counts = len(equal), np.size(equal)
    agreement = float(np.mean(equal))
    if exported[0].dtype == np.uint8:
        return Comparison(*counts, None, None, None, agreement)
    expected = np.stack(trained).astype(np.float64)
    difference = np.stack(exported) - expected
    relative_rms = np.sqrt(np.mean(difference**2) / np.mean(expected**2))
    largest, magnitude = np.abs(difference).max(), np.abs(expected).max()
    return Comparison(*counts, float(largest), float(magnitude), float(relative_rms), agreement)


def check(found: Comparison, precision: str) -> None:
    """Raises UserError where an export of a precision is further from the trained model than it may be."""
    allowed = TOLERANCES[precision].export
    if allowed is None:
        return
    wrong = []
    if not found.agreement >= min(allowed.agreement, 1 - 1 / found.classes):
        wrong.append(f"{found.agreement:.6f} of the classes agree, at least {allowed.agreement} must")
    if found.largest is not None:
        largest = found.largest / found.magnitude
        if not largest <= allowed.largest:
            wrong.append(
                f"the largest difference is {largest:.1e} of the largest logit, limit {allowed.largest:.0e}"
            )
        if not found.relative_rms <= allowed.relative_rms:
            wrong.append(f"the relative RMS is {found.relative_rms:.1e}, limit {allowed.relative_rms:.0e}")
    if wrong:
        raise UserError(
            f"the {precision} model is not the trained one: {'; '.join(wrong)}. Nothing was written; choose "
            "another precision or format"
        )


def on_device(found: np.ndarray, expected: np.ndarray, output: str, precision: str) -> dict[str, Any]:
    """Compares what a device computes of a bundle's reference image with what was computed at export, channels last.

    Returns:
        difference: largest one as a fraction of the largest expected magnitude (of labels: 1 where they differ).
        agreement: fraction of equal classes.
        ok: whether the difference is within `Tolerance.on_device` (of labels: all but 1 in 1000 agree).
    """
    if found.shape != expected.shape:
        raise UserError(f"output of shape {found.shape}; expected {expected.shape}; export the bundle anew")
    if output == "labels":
        agreement = float((found == expected).mean())
        return {"difference": float(agreement < 1), "agreement": agreement, "ok": agreement >= 0.999}
    difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    agreement = float((found.argmax(-1) == expected.argmax(-1)).mean())
    return {
        "difference": difference,
        "agreement": agreement,
        "ok": difference <= TOLERANCES[precision].on_device,
    }
