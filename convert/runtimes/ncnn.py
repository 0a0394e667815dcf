"""ncnn, written by pnnx. It needs the fewest instructions on ARM and has half precision arithmetic there.

int8 is not offered, because ncnn quantises with separate programs, which its Python package does not contain.
"""

import copy
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, registry
from convert.runtimes.base import Graph, Network
from seaformer_jax.errors import UserError

LAYOUT = "NCHW"
OUTPUT_LAYOUTS = {"logits8": "NCHW", "logits": "NCHW"}
PRECISIONS = ("fp32", "fp16")
LABELS_IN_GRAPH = False  # ncnn has no ArgMax along one axis.
INPUT_TYPES = ("float32",)  # ncnn::Mat::from_pixels makes floats of a camera's bytes.
NAMED, DYNAMIC_BATCH, OPSETS = True, False, ()
RUNS_HERE = True


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: the file is half as large. The arithmetic is in half precision on processors that have it (ARMv8.2); on
    others ncnn computes in float32.
    """
    import torch

    from convert.graph.rewrites import for_half_arithmetic, products_of_four_axes

    model = copy.deepcopy(base.upsampled(graph))  # The rewrite works in place.
    products_of_four_axes(model)
    for precision, folder in folders.items():
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            traced, param = Path(scratch) / "traced.pt", folder / MODEL_FILES["ncnn"]
            written = for_half_arithmetic(model) if precision == "fp16" else model
            torch.jit.trace(written, graph.example()).save(traced)
            _convert(traced, graph.input_size, precision, param)
        # pnnx calls the tensors in0, out0 and out1.
        named = re.sub(r"\bin0\b", base.INPUT, param.read_text())
        for number, name in enumerate(base.names(graph.output)):
            named = re.sub(rf"\bout{number}\b", name, named)
        param.write_text(named)


def annotate(bundle: Bundle) -> None:
    """See `Runtime`. ncnn's files have no place for it."""


def _convert(traced: Path, size: tuple[int, int], precision: str, param: Path) -> None:
    """Runs pnnx on a traced model; writes `param` and the weights beside it."""
    import pnnx

    height, width = size
    command = [
        pnnx.EXEC_PATH,
        traced.name,
        f"inputshape=[1,3,{height},{width}]",
        f"ncnnparam={param.resolve()}",
        f"ncnnbin={param.resolve().with_suffix('.bin')}",
        f"fp16={int(precision == 'fp16')}",
    ]
    done = subprocess.run(command, cwd=traced.parent, capture_output=True, text=True)
    if done.returncode or not param.exists():
        raise UserError(f"pnnx ended with status {done.returncode}: {(done.stderr + done.stdout)[-300:]}")
    # pnnx writes an operator that ncnn lacks under PyTorch's name, such as torch.foo, and ncnn then fails silently.
    kinds = {line.split()[0] for line in param.read_text().splitlines()[2:]}
    if unknown := sorted(kind for kind in kinds if not re.fullmatch(r"[A-Z]\w*", kind)):
        raise UserError(f"ncnn has no operator for {', '.join(unknown)}; choose another format")


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    registry.run_module("ncnn", "ncnn")  # Tells if it is not installed.
    from convert.runtimes import ncnn_net

    try:
        net = ncnn_net.opened(str(bundle.model), threads, bundle.precision == "fp16")
    except OSError as error:
        raise UserError(f"{error}; export the model again") from error
    names = [base.INPUT, *base.names(bundle.output)]

    def network(images: np.ndarray) -> np.ndarray:
        planes = base.channels_first(images)[0]  # Kept in a variable: a `Mat` does not keep its memory alive.
        outputs = ncnn_net.outputs(net, planes, names)
        return base.joined([np.array(output)[None] for output in outputs], bundle.output_layout)

    return network


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. There are none: ncnn has no delegates, and it does not load operators that it lacks."""
    return {}


def remark(bundle: Bundle) -> str:
    """See `Runtime`. There is nothing."""
    return ""
