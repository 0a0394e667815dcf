"""Compares an exported model with the trained one, and holds the tolerances."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from convert.labels.boxes import Decoding, decode, found_again
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
        classes: Number of compared classes: one per image, one per pixel of the input size for segmentation, or one
            per box of either model for detection.
        largest: Largest difference of a logit; for detectors, of a logit or a box delta.
        magnitude: Largest absolute logit of the trained model.
        relative_rms: Root mean square of the differences, divided by that of the trained model's logits.
        agreement: Share of the compared classes that are equal, or of the boxes that the other model finds, too.
    """

    images: int
    classes: int
    largest: float | None
    magnitude: float | None
    relative_rms: float | None
    agreement: float


Agreement = Callable[[np.ndarray, np.ndarray], np.ndarray]  # Two outputs -> bool per compared class or box.


def same_classes(size: tuple[int, int]) -> Agreement:
    """Returns a function that compares the classes of two outputs; `size` is H and W of the input."""
    return lambda a, b: np.atleast_1d(classes(a, size) == classes(b, size)).ravel()


def same_boxes(decoding: Decoding) -> Agreement:
    """Returns a function that tells for every box of either of two outputs if the other one has it, too."""

    def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        ours, theirs = decode(a[0], decoding), decode(b[0], decoding)
        return np.concatenate([found_again(ours, theirs, decoding), found_again(theirs, ours, decoding)])

    return same


def compare(
    trained: Sequence[np.ndarray], exported: Sequence[np.ndarray], agreement: Agreement
) -> Comparison:
    """Compares the outputs of the trained and of the exported model for the same images.

    Args:
        trained: One array per image: logits [1, C], logits8 [1, h, w, C], logits [1, H, W, C] or a detector's head
            [1, A, C + 4].
        exported: The same, or labels uint8 [1, H, W].
        agreement: `same_classes` or `same_boxes`.
    """
    equal = np.concatenate([agreement(t, e) for t, e in zip(trained, exported, strict=True)])
    counts = len(trained), len(equal)
    share = float(np.mean(equal)) if len(equal) else 1.0  # Neither detector finds a box.
    if exported[0].dtype == np.uint8:
        return Comparison(*counts, None, None, None, share)
    # float64, so that the sums do not add rounding errors of their own.
    expected = np.stack(trained).astype(np.float64)
    difference = np.stack(exported) - expected
    relative_rms = np.sqrt(np.mean(difference**2) / np.mean(expected**2))
    largest, magnitude = np.abs(difference).max(), np.abs(expected).max()
    return Comparison(*counts, float(largest), float(magnitude), float(relative_rms), share)


def check(found: Comparison, precision: str) -> None:
    """Raises UserError if an exported model is out of the tolerance of its precision."""
    allowed = TOLERANCES[precision].export
    if allowed is None:
        return
    # The comparisons are negated so that NaN is out of tolerance.
    wrong = []
    if not found.agreement >= min(allowed.agreement, 1 - 1 / max(found.classes, 1)):
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
    end = -4 if output == "head" else None  # The last four of an anchor are its box deltas.
    agreement = float((found[..., :end].argmax(-1) == expected[..., :end].argmax(-1)).mean())
    return {
        "difference": difference,
        "agreement": agreement,
        "ok": difference <= TOLERANCES[precision].on_device,
    }
