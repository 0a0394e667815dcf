"""A bundle: a folder with an exported model and all that its user has to know.

    model.onnx | model.tflite | model.pte | model.ncnn.param, model.ncnn.bin
    model.json              the fields of `Bundle`
    reference.npz           one image and what the model made of it, to check the model elsewhere
    report.json, report.md  how far the exported model is from the trained one
    argmax_upsample.{h,c}   C source that makes labels of logits8, where `tail` says so

Needs NumPy alone, so that bundles can be read on a device.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from seaformer_jax import json_files
from seaformer_jax.errors import UserError

MODEL_FILES = {
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "executorch": "model.pte",
    "ncnn": "model.ncnn.param",
}
FORMATS = tuple(MODEL_FILES)
PRECISIONS = ("fp32", "fp16", "int8")
OUTPUTS = ("logits8", "logits", "labels")
KERNEL = "argmax_upsample"
_CARD = "model.json"
_REFERENCE = "reference.npz"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An exported model in a folder; `model.json` holds all fields but the folder.

    Attributes:
        folder: Where it is.
        task: "classification" or "segmentation".
        name: Of the size, such as "seaformer_tiny".
        format: One of FORMATS.
        precision: One of PRECISIONS: of the weights; of int8 the arithmetic is, too.
        output: What the model file gives. Of classifiers "logits" [1, classes]. Of segmentation "logits8", at 1/8 of
            the input; "logits" and "labels" (uint8 [1, H, W]) of the input's size.
        tail: "argmax_upsample" where its C source makes labels of the model's logits8; else "".
        input_size: H and W of the input: RGB, float32 [1, H, W, 3] or [1, 3, H, W].
        layout: Of the input: "NHWC" or "NCHW".
        output_layout: Of logits8 and logits of segmentation, likewise; "" of outputs without such axes.
        normalized_inside: The model takes images in [0, 1]. Otherwise these minus `mean`, over `std`.
        mean, std: Of the three channels, of images in [0, 1].
        class_names: Of class k at position k.
        palette: Colours (red, green, blue in 0..255) of the classes; empty of classifiers.
        source: "file" and "sha256" of the weights that it was made of.
        versions: Package -> version, of those that made it.
    """

    folder: pathlib.Path
    task: str
    name: str
    format: str
    precision: str
    output: str
    tail: str
    input_size: tuple[int, int]
    layout: str
    output_layout: str
    normalized_inside: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    source: dict[str, str]
    versions: dict[str, str | None]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "Bundle":
        """Reads a bundle; UserError where `folder` is none, or one of another version."""
        folder = pathlib.Path(folder)
        try:
            fields = dict(json_files.read(folder / _CARD))
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder} is no bundle: {_CARD} is missing or damaged; make one with python -m convert.export"
            ) from error
        names = {field.name for field in dataclasses.fields(cls)} - {"folder"}
        if fields.keys() != names:
            odd = ", ".join(sorted(names.symmetric_difference(fields)))
            raise UserError(
                f"{folder / _CARD} is of another version of this project (fields {odd}); export the model again"
            )
        return cls(folder, **fields)

    @property
    def model(self) -> pathlib.Path:
        """The model file; ncnn's weights are beside it, in model.ncnn.bin."""
        return self.folder / MODEL_FILES[self.format]

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation that the caller has to apply to images in [0, 1]; None where the model does."""
        return None if self.normalized_inside else (self.mean, self.std)

    def size(self) -> int:
        """Bytes of the model, all its files together."""
        return sum(path.stat().st_size for path in self.folder.glob("model.*") if path.name != _CARD)

    def write_card(self) -> None:
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}
        json_files.write(self.folder / _CARD, fields)

    def write_reference(self, image: np.ndarray, expected: np.ndarray) -> None:
        """Stores an input, float32 [1, H, W, 3], and what the model made of it in its own runtime, channels last."""
        np.savez(self.folder / _REFERENCE, input=image, expected=expected)

    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `write_reference` stored; UserError where it is missing or damaged."""
        try:
            with np.load(self.folder / _REFERENCE) as arrays:
                return arrays["input"], arrays["expected"]
        except Exception as error:  # Damaged bytes end in almost any exception.
            raise UserError(
                f"{self.folder / _REFERENCE} is missing or damaged; export the model again"
            ) from error

    def write_report(self, report: dict[str, Any], text: str) -> None:
        """Writes `report` as report.json, and `text`, the same for people, as report.md."""
        json_files.write(self.folder / "report.json", report)
        (self.folder / "report.md").write_text(text)

    def copy_kernel(self) -> None:
        """Puts the C source of `argmax_upsample` beside the model."""
        for suffix in (".h", ".c"):
            source = pathlib.Path(__file__).parent / "labels" / (KERNEL + suffix)
            shutil.copyfile(source, self.folder / source.name)


@contextlib.contextmanager
def writing(out: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a folder that becomes `out` when all went well, and is removed otherwise.

    A bundle that is there already is then replaced; a folder of anything else is not.

    Raises:
        UserError: `out` holds something else, or cannot be written to.
    """
    out = pathlib.Path(out)
    _check_replaceable(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to --out {out}: {reason}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(out: pathlib.Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder to make")
    if out.exists() and any(out.iterdir()) and not (out / _CARD).exists():
        raise UserError(f"--out {out} holds other things than a bundle; choose another folder")
