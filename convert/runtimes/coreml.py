"""Core ML, for Apple's systems: converted and evaluated here, not run.

Core ML exists on Apple's systems only. So `load` evaluates the program in the file in PyTorch, see `mil_evaluation`;
that shows that the file has the right operators and weights, but not what Core ML makes of them.

int8 is not offered: coremltools quantises activations by running the model in Core ML.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, mil_evaluation
from convert.runtimes.base import Graph, Network
from seaformer_jax.errors import UserError

LAYOUT = "NCHW"
OUTPUT_LAYOUTS = {"logits8": "NCHW", "logits": "NCHW"}
PRECISIONS = ("fp32", "fp16")
LABELS_IN_GRAPH = False
INPUT_TYPES = ("float32",)  # Core ML has no tensors of bytes.
NAMED, DYNAMIC_BATCH, OPSETS = True, False, ()
RUNS_HERE = False

_PARTS = Path("Data/com.apple.CoreML")  # The folder in a package with the model and its weights.


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`. The program is for iOS 16 and macOS 13 and later.

    fp16: weights and arithmetic are in half precision, input and output in float32. The Neural Engine needs it.

    Raises:
        UserError: coremltools gave the file another input or output than was asked for.
    """
    import coremltools
    import torch

    from convert.graph.rewrites import for_half_arithmetic

    logging.getLogger("torch.export").setLevel(logging.ERROR)
    model = base.upsampled(graph).eval()
    image = coremltools.TensorType(name=base.INPUT, shape=(1, 3, *graph.input_size), dtype=np.float32)
    outputs = [coremltools.TensorType(name=name, dtype=np.float32) for name in base.names(graph.output)]
    types = {"fp32": coremltools.precision.FLOAT32, "fp16": coremltools.precision.FLOAT16}
    for precision, folder in folders.items():
        path = folder / MODEL_FILES["coreml"]
        written = for_half_arithmetic(model) if precision == "fp16" else model
        coremltools.convert(
            torch.export.export(written, (graph.example(),)).run_decompositions({}),
            inputs=[image],
            outputs=outputs,
            compute_precision=types[precision],
            minimum_deployment_target=coremltools.target.iOS16,
        ).save(str(path))
        # A debugger's; no part of the package.
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        _check(path, graph)


def _check(path: Path, graph: Graph) -> None:
    """Raises UserError unless input and output have the names and types of `graph`, and the input its shape."""
    from coremltools.models import utils

    description = utils.load_spec(str(path)).description
    found = {
        feature.name: feature.type.multiArrayType for feature in (*description.input, *description.output)
    }
    names = {base.INPUT, *base.names(graph.output)}
    kinds = {array.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[array.dataType].name
             for array in found.values()}  # fmt: skip
    shape = list(found[base.INPUT].shape) if base.INPUT in found else []
    if found.keys() != names or kinds != {"FLOAT32"} or shape != [1, 3, *graph.input_size]:
        raise UserError(
            f"coremltools wrote {', '.join(sorted(found))} in {', '.join(sorted(kinds))}, with an input of {shape}; "
            f"expected {', '.join(sorted(names))} in FLOAT32, with an input of {[1, 3, *graph.input_size]}; choose "
            "another format"
        )


def annotate(bundle: Bundle) -> None:
    """See `Runtime`: `userDefined`, which Xcode shows, an entry for each field; and the licence."""
    from coremltools.models import utils

    spec = utils.load_spec(str(bundle.model))
    about = spec.description.metadata
    about.userDefined.update(base.metadata(bundle))
    about.shortDescription, about.license = f"{bundle.name}, {bundle.task}", bundle.licence
    (bundle.model / _PARTS / "model.mlmodel").write_bytes(spec.SerializeToString())


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime` and `mil_evaluation`; `threads` has no effect."""
    program = mil_evaluation.read(bundle.model, bundle.model / _PARTS / "weights")

    def network(images: np.ndarray) -> np.ndarray:
        outputs = mil_evaluation.evaluate(program, {base.INPUT: base.channels_first(images)})
        return base.joined([outputs[name] for name in base.names(bundle.output)], bundle.output_layout)

    return network


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. Nothing is known: Core ML decides on the device which processor takes an operator."""
    return {}


def remark(bundle: Bundle) -> str:
    """See `Runtime`."""
    return (
        "**Converted, not run.** Core ML exists on Apple's systems only. The figures come from the program in the "
        "file, which was evaluated in PyTorch, operator by operator. Compare the file on a Mac with reference.npz "
        "before you rely on it."
    )
