"""The request of an export, and the checks of it that need no model."""

import dataclasses
import re
from collections.abc import Sequence

from etils import epath

from convert.bundle import INPUT_TYPES, MODEL_FILES, OUTPUTS, PRECISIONS
from convert.labels import boxes, class_map
from convert.runtimes import registry
from convert.runtimes.base import Runtime
from seaformer_jax import paths
from seaformer_jax.config_ranges import LARGEST
from seaformer_jax.errors import UserError, suggest

# Task -> the outputs that its models can have, the default first.
_OUTPUTS = {
    "classification": ("logits",),
    "segmentation": ("logits8", "logits", "labels"),
    "detection": ("head",),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """The options of the command line.

    Attributes:
        weights: Path of the file of weights.
        format, precision: See `Bundle`.
        output: The wanted output, see `Bundle.output`; "" means logits for classifiers, logits8 for segmentation and
            head for detectors.
        input_size: H and W in pixels.
        inside: True if the exported model is to normalise its input.
        input_type, dynamic_batch: See `Bundle`.
        opset: Version of ONNX's operators; None for the default.
        images: Folder of images to compare on; "" for none, as in the next two.
        calibration: Folder of images to calibrate int8 on.
        validation: Folder of labelled images to score on.
        max_drop: Percentage points that int8 may lose on `validation`.
        class_names, mean, std, licence: Replace those that come with the weights; () or "" keeps them.
    """

    weights: epath.Path
    format: str
    input_size: tuple[int, int]
    precision: str = "fp32"
    output: str = ""
    inside: bool = True
    input_type: str = "float32"
    dynamic_batch: bool = False
    opset: int | None = None
    images: str = ""
    calibration: str = ""
    validation: str = ""
    max_drop: float = 1.0
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    licence: str = ""


def parse_size(text: str) -> tuple[int, int]:
    """Parses the value of `--input-size`, "HxW", to (height, width).

    Raises:
        UserError: `text` is not a size, or a side is too large.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise UserError(f"--input-size {text}; expected height x width in pixels, e.g. 512x512")
    height, width = map(int, text.split("x"))
    if max(height, width) > LARGEST:
        raise UserError(f"--input-size {text}; expected at most {LARGEST} pixels a side, e.g. 512x512")
    return height, width


def runtime_of(request: Request) -> Runtime:
    """Returns the module of the request's format, after checking everything that the weights do not decide.

    Raises:
        UserError: The runtime is not installed or does not have the requested precision, the output is unknown, the
            input is too small, a number is not one, or a folder is missing.
    """
    runtime = registry.find(request.format)
    _check_precision(request, runtime.PRECISIONS)
    _check_graph(request, runtime)
    if request.output not in ("", *OUTPUTS):
        known = f"expected one of {', '.join(OUTPUTS)}.{suggest(request.output, OUTPUTS)}"
        raise UserError(f"--output {request.output}; {known}")
    if not request.max_drop >= 0:  # Not a number is not, either.
        raise UserError(f"--max-drop {request.max_drop}; expected percentage points of at least 0, e.g. 1.0")
    # Imported here, because it needs PyTorch, which is known to be installed by now.
    from convert.graph.rewrites import check_input_size

    check_input_size(request.input_size)
    for flag in ("images", "calibration", "validation"):
        folder = getattr(request, flag)
        if folder and not paths.of(folder).is_dir():
            raise UserError(f"--{flag} {folder}: no such folder")
    return runtime


def _check_precision(request: Request, available: Sequence[str]) -> None:
    if request.precision not in PRECISIONS:
        known = f"expected one of {', '.join(PRECISIONS)}.{suggest(request.precision, PRECISIONS)}"
        raise UserError(f"--precision {request.precision}; {known}")
    if request.precision not in available:
        others = ", ".join(name for name in MODEL_FILES if name != request.format)
        raise UserError(
            f"--precision {request.precision} is not available for {request.format}, which has "
            f"{', '.join(available)}; choose one of these, or another format: {others}"
        )
    if request.precision == "int8" and not (request.calibration and request.validation):
        raise UserError(
            "int8 needs --calibration, a folder of images like those the model will see, and --validation, a folder "
            "of labelled images on which its loss of accuracy is measured (see --max-drop)"
        )


def _check_graph(request: Request, runtime: Runtime) -> None:
    """Raises UserError if the format does not have the type of input, the batch size or the opset."""
    if request.input_type not in INPUT_TYPES:
        known = f"expected one of {', '.join(INPUT_TYPES)}.{suggest(request.input_type, INPUT_TYPES)}"
        raise UserError(f"--input-type {request.input_type}; {known}")
    if request.input_type not in runtime.INPUT_TYPES:
        raise UserError(
            f"--input-type {request.input_type} is not available for {request.format}, which takes "
            f"{', '.join(runtime.INPUT_TYPES)}; choose that, or --format "
            + registry.choices(lambda each: request.input_type in each.INPUT_TYPES)
        )
    if request.input_type == "uint8" and not request.inside:
        raise UserError(
            "--no-normalize leaves no uint8 to take; leave it out, or choose --input-type float32"
        )
    if request.dynamic_batch and not runtime.DYNAMIC_BATCH:
        others = registry.choices(lambda each: each.DYNAMIC_BATCH)
        raise UserError(
            f"--dynamic-batch: {request.format} files have batch size 1; choose --format {others}"
        )
    if request.opset is not None and request.opset not in runtime.OPSETS:
        found = (
            f"{runtime.OPSETS[0]} to {runtime.OPSETS[-1]}" if runtime.OPSETS else "none, as it has no opsets"
        )
        raise UserError(f"--opset {request.opset}; expected for {request.format} {found}")


def outputs(wanted: str, task: str, classes: int, runtime: Runtime) -> tuple[str, str]:
    """Returns the output of the model file and the tail after it, see `Bundle.output` and `Bundle.tail`.

    Args:
        wanted: `Request.output`.
        task: The task of the weights, see `Bundle.task`.
        classes: Number of classes of the weights.
        runtime: The runtime of the request.
    Raises:
        UserError: The weights cannot have the wanted output.
    """
    # Every runtime has labels, in its graph or after it.
    known = tuple(
        name
        for name in _OUTPUTS[task]
        if task != "segmentation" or name in (*runtime.OUTPUT_LAYOUTS, "labels")
    )
    wanted = wanted or known[0]
    if wanted not in known:
        raise UserError(f"--output {wanted}: the outputs of {task} in this format are {', '.join(known)}")
    if wanted == "labels" and classes > class_map.MAX_CLASSES:
        raise UserError(
            f"--output labels: the weights have {classes} classes; expected at most {class_map.MAX_CLASSES}, because "
            f"a class map has one byte per pixel; use --output {known[0]}"
        )
    # A runtime that is slow at argmax, or lacks it, leaves the labels to the C source.
    if wanted == "labels" and not runtime.LABELS_IN_GRAPH:
        return "logits8", class_map.NAME
    return wanted, boxes.NAME if wanted == "head" else ""
