"""Compares an exported model with the trained one, and holds the tolerances."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.labels.class_map import classes
from seaformer_jax.errors import UserError


class ExportTolerance(NamedTuple):
    """How far an exported model may be from the trained one.

    Attributes:
        largest: Limit for the largest difference of a logit, as a fraction of the largest logit.
        relative_rms: Limit for the root mean square of the differences, as a fraction of that of the logits.
        agreement: Smallest share of images or pixels whose class must agree. One of them may always differ.
    """

    largest: float
    relative_rms: float
    agreement: float


class Tolerance(NamedTuple):
    """The tolerances of one precision.

    Attributes:
        export: Tolerance at export, against the trained model in JAX. None if a loss of accuracy that the user sets
            decides instead.
        on_device: Tolerance on a device, against the same model file at export: limit for the largest difference, as
            a fraction of the largest logit.
    """

    export: ExportTolerance | None
    on_device: float


# At export:
#   fp32 rounds in another order, at most 3e-5 apart in five runtimes;
#   fp16 has ten bits of mantissa;
#   int8 has no limit: random weights lose their meaning in it, and for trained ones the user limits the loss.
# On a device: fp32 sums in another order; int8 and fp16 kernels round differently on each instruction set.
TOLERANCES = {
    "fp32": Tolerance(ExportTolerance(5e-5, 1e-5, 0.9999), on_device=1e-4),
    "fp16": Tolerance(ExportTolerance(5e-2, 2e-2, 0.99), on_device=5e-2),
    "int8": Tolerance(None, on_device=1e-1),
}


class Comparison(NamedTuple):
    """Differences between two models, over all images.

    The three fields about logits are None if the exported model returns labels.

    Attributes:
        images: Number of images.
        classes: Number of compared classes: one per image, or one per pixel of the input size for segmentation.
        largest: Largest difference of a logit.
        magnitude: Largest absolute logit of the trained model.
        relative_rms: Root mean square of the differences, divided by that of the trained model's logits.
        agreement: Share of the compared classes that are equal.
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
    """Compares the outputs of the trained and of the exported model for the same images.

    Args:
        trained: Logits [1, C], logits8 [1, h, w, C] or logits [1, H, W, C], one array per image.
        exported: The same, or labels uint8 [1, H, W].
        size: H and W of the input.
    """
    equal = [classes(t, size) == classes(e, size) for t, e in zip(trained, exported, strict=True)]
    counts = len(equal), np.size(equal)
    agreement = float(np.mean(equal))
    if exported[0].dtype == np.uint8:
        return Comparison(*counts, None, None, None, agreement)
    # float64, so that the sums do not add rounding errors of their own.
    expected = np.stack(trained).astype(np.float64)
    difference = np.stack(exported) - expected
    relative_rms = np.sqrt(np.mean(difference**2) / np.mean(expected**2))
    largest, magnitude = np.abs(difference).max(), np.abs(expected).max()
    return Comparison(*counts, float(largest), float(magnitude), float(relative_rms), agreement)


def check(found: Comparison, precision: str) -> None:
    """Raises UserError if an exported model is out of the tolerance of its precision."""
    allowed = TOLERANCES[precision].export
    if allowed is None:
        return
    # The comparisons are negated so that NaN is out of tolerance.
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
            f"the {precision} model differs too much from the trained one: {'; '.join(wrong)}. Nothing was written; "
            "choose another precision or format"
        )


def on_device(found: np.ndarray, expected: np.ndarray, output: str, precision: str) -> dict[str, Any]:
    """Compares a device's output for a bundle's reference image with the output at export.

    Args:
        found: Output on the device, channels last.
        expected: Output at export, channels last.
        output: See `Bundle.output`.
        precision: See `Bundle.precision`.

    Returns:
        A dictionary with
        "difference": largest difference as a fraction of the largest expected magnitude; for labels 1 if any differ,
            else 0;
        "agreement": share of equal classes;
        "ok": True if the difference is within `Tolerance.on_device`; for labels, if at least 999 in 1000 agree.

    Raises:
        UserError: The shapes differ.
    """
    if found.shape != expected.shape:
        raise UserError(
            f"found an output of shape {found.shape}; expected {expected.shape}; export the bundle anew"
        )
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
