"""The bundle format: a folder that holds one exported model and everything that is needed to run and check it.

    model.onnx | model.tflite | model.pte | model.ncnn.param and model.ncnn.bin |
    model.xml and model.bin | model.mnn | model.mlpackage (a folder)
                            the model file, one format per bundle
    model.json              the fields of `Bundle`, without `folder`; and checksums of them and of the files
    reference.npz           an input image and the model's output for it, to check the model on another machine
    report.json, report.md  how far the exported model is from the trained one
    README.md               how to prepare an image, run the model and read its output, with code
    index.html, *.js, ...   web bundles only: the page that runs the model in a browser, and ONNX Runtime Web
    argmax_upsample.{h,c}   only if `tail` is "argmax_upsample": C source that turns logits8 into labels
    decode_boxes.{h,c}      only for detectors: C source that turns logits and deltas into boxes

The bundles of `convert/export/seeded_bundles.py`, which are for measurements only, have no report and no C source.
This module needs no package but NumPy, so that bundles can be read on a device.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from seaformer_jax import json_files
from seaformer_jax.errors import UserError

MODEL_FILES = {
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "executorch": "model.pte",
    "ncnn": "model.ncnn.param",
    "openvino": "model.xml",
    "mnn": "model.mnn",
    "coreml": "model.mlpackage",
    "web": "model.onnx",
}
FORMATS = tuple(MODEL_FILES)
# Those that a program on this machine runs. A browser runs "web", whose model file is that of "onnx"; only Apple's
# systems run "coreml".
NATIVE = tuple(name for name in FORMATS if name not in ("coreml", "web"))
PRECISIONS = ("fp32", "fp16", "int8")
OUTPUTS = ("logits8", "logits", "labels", "head")
INPUT_TYPES = ("float32", "uint8")
CARD = "model.json"
_REFERENCE = "reference.npz"
_CHECKSUMS = "checksums"  # Further entry of the card: file name -> CRC-32; that of the card is of its fields.


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Describes the exported model in a folder; `model.json` stores every field except `folder`.

    Attributes:
        folder: Path of the bundle.
        task: "classification", "segmentation" or "detection".
        name: Name of the model size, such as "seaformer_tiny".
        format: Format of the model file, one of FORMATS.
        precision: Precision of the weights, one of PRECISIONS. An int8 model also computes in int8. Whether an fp16
            model computes in fp16 depends on the runtime (see the table in `convert/runtimes/registry.py`).
        output: What the model file returns, one of OUTPUTS.
            A classifier returns "logits", float32 [1, classes].
            A segmentation model returns one of three outputs. "logits8" are float32 logits at 1/8 of the input size,
            [1, ceil(H / 8), ceil(W / 8), classes]; a student with an up-sampling module of ratio r has r*H and r*W,
            rounded, in place of H and W. "logits" are the same logits resized to the input size, [1, H, W, classes].
            "labels" are class numbers at the input size, uint8 [1, H, W].
            A detector returns "head": two tensors, float32 logits [1, A, classes] and box deltas [1, A, 4] of the A
            anchors, by level, row, column and anchor.
        tail: Name of the C source in the bundle that has to follow the model. "argmax_upsample" turns logits8 into
            labels, uint8 [H, W]; "decode_boxes" turns the outputs of a detector into boxes. Otherwise "".
        input_size: Height H and width W of the input in pixels.
        input_type: "float32", or "uint8" for a model that takes an image as a camera gives it.
        dynamic_batch: True if the first axis of input and output may have any length; otherwise it is 1.
        tensors: Names in the model file of the "input" and the "output", and of the box "deltas", a detector's second
            output; "" in formats that have no names.
        preprocessing: How an image becomes the input: "resize" is "stretch" (to H x W, whatever its aspect ratio),
            "centre crop" (it is resized to just cover H / crop_fraction x W / crop_fraction, then cropped) or
            "pad" (it is resized as far as it fits, with its aspect ratio kept, and the mean colour fills the rest to
            the right and below), "crop_fraction", "interpolation", "channel_order" ("RGB") and "value_range", the
            smallest and the largest value of the image before the caller normalises it, if the caller has to.
        layout: Layout of the input: "NHWC" for [1, H, W, 3] or "NCHW" for [1, 3, H, W].
        output_layout: Layout of the "logits8" or "logits" of a segmentation model: "NHWC", as written above, or
            "NCHW" with the classes as the second axis. "" for labels and for classifiers.
        normalized_inside: True if the model normalises its input, which then holds values in [0, 1]. False if the
            caller has to pass (image - mean) / std, with the image in [0, 1]. A model that takes uint8 does it.
        mean, std: Mean and standard deviation of red, green and blue, for images in [0, 1].
        class_names: Name of class k at position k; empty if the names are unknown.
        palette: Colour (red, green, blue in 0..255) of class k at position k; only for segmentation models.
        masks: How the masks of the data set encode the classes: the fields of `LabelSpec` without names and colours,
            such as "ignore_label"; {} except for segmentation models.
        decoding: How the outputs of a detector become boxes: the fields of `labels.boxes.Decoding`, without
            `input_size`; {} for other models.
        licence: Terms of the weights; "" if they are unknown.
        score: "metric", "percent" and "images" of this model on labelled images; {} if it was not scored.
        source: The file of weights: "file" is its name, "sha256" the hash of its content.
        versions: Package name -> version, for the packages that made the bundle; None if one was not installed.
    """

    folder: pathlib.Path
    task: str
    name: str
    format: str
    precision: str
    output: str
    tail: str
    input_size: tuple[int, int]
    input_type: str
    dynamic_batch: bool
    tensors: dict[str, str]
    preprocessing: dict[str, Any]
    layout: str
    output_layout: str
    normalized_inside: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    masks: dict[str, Any]
    decoding: dict[str, float]
    licence: str
    score: dict[str, Any]
    source: dict[str, str]
    versions: dict[str, str | None]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "Bundle":
        """Reads the bundle in `folder`.

        Raises:
            UserError: `folder` is not a bundle, another version of this project wrote it, or a file is damaged or was
                edited, so that the card may describe another model.
        """
        folder = pathlib.Path(folder)
        try:
            fields = dict(json_files.read(folder / CARD))
            checksums = {CARD: None} | fields.pop(_CHECKSUMS, {})
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder} is no bundle: {CARD} is missing or damaged; make one with python -m convert.export"
            ) from error
        # Missing or additional fields mean another version: guessing values could give wrong results.
        names = {field.name for field in dataclasses.fields(cls)} - {"folder"}
        if fields.keys() != names:
            odd = ", ".join(sorted(names.symmetric_difference(fields)))
            raise UserError(
                f"{folder / CARD} is of another version of this project (fields {odd}); export the model again"
            )
        _check_files(folder, fields, checksums)
        return cls(folder, **fields)

    @property
    def model(self) -> pathlib.Path:
        """Returns the path of the model file; ncnn's and OpenVINO's weights are beside it, in a file .bin."""
        return self.folder / MODEL_FILES[self.format]

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Returns the (mean, std) that the caller has to apply to images in [0, 1]; None if the model does it."""
        return None if self.normalized_inside else (self.mean, self.std)

    def size(self) -> int:
        """Returns the size of the model in bytes, all its files together."""
        return sum(path.stat().st_size for path in self.model_files())

    def model_files(self) -> list[pathlib.Path]:
        """Returns the paths of the model's files, `model` among them."""
        # model.json matches the pattern but describes the model.
        found = [path for path in sorted(self.folder.glob("model.*")) if path.name != CARD]
        # Core ML's model file is a folder.
        return [file for path in found for file in ([path] if path.is_file() else files_below(path))]

    def write_card(self) -> None:
        """Writes model.json: the fields, and the checksums of the model and the reference, if they are written."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}
        files = [*self.model_files(), *self.folder.glob(_REFERENCE)]
        checksums = {
            path.relative_to(self.folder).as_posix(): zlib.crc32(path.read_bytes()) for path in files
        }
        json_files.write(self.folder / CARD, fields | {_CHECKSUMS: {CARD: _checksum(fields)} | checksums})

    def write_reference(self, image: np.ndarray, expected: np.ndarray) -> None:
        """Writes reference.npz, with the arrays "input" and "expected".

        Args:
            image: Input of the model, [1, H, W, 3] of `input_type` whatever `layout` says, normalised as the model
                takes it.
            expected: Output of the model file for `image`, channels last whatever `output_layout` says.
        """
        np.savez(self.folder / _REFERENCE, input=image, expected=expected)

    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (image, expected) that `write_reference` stored.

        Raises:
            UserError: reference.npz is missing or damaged.
        """
        try:
            with np.load(self.folder / _REFERENCE) as arrays:
                return arrays["input"], arrays["expected"]
        except Exception as error:  # Damaged bytes can raise almost anything.
            raise UserError(
                f"{self.folder / _REFERENCE} is missing or damaged; export the model again"
            ) from error

    def write_report(self, report: dict[str, Any], text: str) -> None:
        """Writes `report` to report.json and `text`, the same report for people, to report.md."""
        json_files.write(self.folder / "report.json", report)
        (self.folder / "report.md").write_text(text)

    def write_readme(self, text: str) -> None:
        """Writes README.md."""
        (self.folder / "README.md").write_text(text)

    def copy_tail(self) -> None:
        """Copies the C source of the tail, if there is one, into the bundle."""
        for source in (pathlib.Path(__file__).parent / "labels").glob(f"{self.tail}.[hc]"):
            shutil.copyfile(source, self.folder / source.name)


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of the files in `folder` and its subfolders, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_files(folder: pathlib.Path, fields: dict[str, Any], checksums: Mapping[str, int]) -> None:
    """Raises UserError if a file of the bundle is not the one whose checksum is in the card."""
    for name, expected in checksums.items():
        try:
            found = _checksum(fields) if name == CARD else zlib.crc32((folder / name).read_bytes())
        except OSError as error:
            raise UserError(
                f"{folder / name} cannot be read: {error.strerror}; export the model again"
            ) from error
        if found != expected:
            raise UserError(
                f"{folder / name} was damaged or edited: its checksum differs; export the model again"
            )


def _checksum(fields: dict[str, Any]) -> int:
    """Returns the CRC-32 of the fields of a card, whatever their order and the layout of the file."""
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())
