"""Exports a trained model to a runtime's format, and checks the result in that runtime against the trained model.

python -m convert.export --weights model.pth --format onnx --input-size 512x512 --output labels --out bundle

The result is a bundle, see `convert/bundle.py`. int8 also needs --calibration and --validation; its report compares
fp32, fp16 and int8.
"""

from absl import flags, logging

from convert import bundle, bundle_folder
from convert.export import exporter
from convert.export import report as export_report
from convert.export.request import Request, parse_size
from seaformer_jax import command
from seaformer_jax.config_ranges import RANGES
from seaformer_jax.errors import UserError

_WEIGHTS = command.define_path(
    "weights",
    "File of weights with the official names, e.g. of convert.to_torch: .pth, .pth.tar, .pt or .safetensors.",
    required=True,
)
_FORMAT = flags.DEFINE_string("format", None, f"Runtime format: {', '.join(bundle.FORMATS)}.", required=True)
_INPUT_SIZE = flags.DEFINE_string(
    "input-size", None, "HxW: height and width of the input in pixels, e.g. 512x512.", required=True
)
_PRECISION = flags.DEFINE_string(
    "precision",
    "fp32",
    f"Precision: {', '.join(bundle.PRECISIONS)}. fp16 halves the file in onnx, openvino and web, which compute in "
    "fp32; coreml, executorch and (on ARMv8.2) litert, mnn and ncnn compute in fp16, and executorch's file stays as "
    "large. int8 computes in 8 bits; coreml, mnn and ncnn lack it.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "Segmentation: logits8 (at 1/8, the default), logits (full size) or labels (full-size class map). "
    "Classification: logits. Detection: head (logits and box deltas; C source in the bundle makes boxes of them).",
)
_OUT = command.define_path("out", "Folder to create: the bundle.", required=True)
_NORMALIZE = flags.DEFINE_bool(
    "normalize",
    True,
    "Normalise in the model, which then takes images in [0, 1]; if off, the caller normalises.",
)
_INPUT_TYPE = flags.DEFINE_string(
    "input-type",
    "float32",
    "float32, or uint8: the image as a camera gives it, [1, H, W, 3] in 0..255 (onnx, litert, openvino, web).",
)
_DYNAMIC_BATCH = flags.DEFINE_bool(
    "dynamic-batch",
    False,
    "onnx, openvino, web: any number of images at once. The image size is fixed in every format.",
)
_OPSET = flags.DEFINE_integer("opset", None, "onnx, web: version of the operators, 18 to 23 (default: 20).")
_LICENCE = flags.DEFINE_string("licence", "", "Terms of the weights, e.g. 'CC BY-NC 4.0'; for the bundle.")
_IMAGES = command.define_path("images", "Folder of images for the comparison, in addition to seeded ones.")
_CALIBRATION = command.define_path("calibration", "Folder of images to calibrate int8 on.")
_VALIDATION = command.define_path(
    "validation",
    "Folder of labelled images: <class>/*.jpg; images/val beside annotations/val, or for detectors beside "
    "annotations/instances_val.json.",
)
_MAX_DROP = flags.DEFINE_float(
    "max-drop", 1.0, "Percentage points of accuracy, mIoU or AP that int8 may lose on --validation."
)
_CLASS_NAMES = command.define_path(
    "class-names", "File with one class name per line; replaces the names of the checkpoint."
)
_MEAN = flags.DEFINE_list("mean", [], "Three numbers, for images in [0, 1]; replace the checkpoint's.")
_STD = flags.DEFINE_list("std", [], "Three numbers, for images in [0, 1]; replace the checkpoint's.")


def main() -> int:
    """Checks the request, writes the bundle and prints its report."""
    # The request and the folder are checked before any weights are read.
    request = _request()
    bundle_folder.check_out(_OUT.value)
    export = exporter.Export(request)
    with bundle_folder.writing(_OUT.value) as folder:
        report = export.run(folder)
    logging.info("%s\n\n%s", _OUT.value, export_report.text(report))
    return 0


def _request() -> Request:
    return Request(
        weights=command.existing("weights", _WEIGHTS.value),
        format=_FORMAT.value,
        input_size=parse_size(_INPUT_SIZE.value),
        precision=_PRECISION.value,
        output=_OUTPUT.value,
        inside=_NORMALIZE.value,
        input_type=_INPUT_TYPE.value,
        dynamic_batch=_DYNAMIC_BATCH.value,
        opset=_OPSET.value,
        images=_IMAGES.value or "",
        calibration=_CALIBRATION.value or "",
        validation=_VALIDATION.value or "",
        max_drop=_MAX_DROP.value,
        class_names=_names(_CLASS_NAMES.value or ""),
        mean=_numbers("mean", _MEAN.value),
        std=_numbers("std", _STD.value),
        licence=_LICENCE.value,
    )


def _names(path: str) -> tuple[str, ...]:
    if not path:
        return ()
    try:
        return tuple(command.existing("class-names", path).read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"cannot read --class-names {path}: {reason}; expected a UTF-8 text file with one name per line"
        ) from error


def _numbers(flag: str, texts: list[str]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(text) for text in texts)
    except ValueError as error:
        raise UserError(f"--{flag} {','.join(texts)}; expected numbers, e.g. --{flag}=0.5,0.5,0.5") from error
    holds, expected = RANGES[f"data.{flag}"]
    if texts and not holds(numbers):
        raise UserError(f"--{flag} {','.join(texts)}; expected {expected}, e.g. --{flag}=0.5,0.5,0.5")
    return numbers


if __name__ == "__main__":
    command.run(main)
