"""The time of every operator in a bundle, as its runtime counts it: `onnx`, `web`, `litert`, `openvino`, `mnn`.

The operators are those that the runtime makes of the graph when it loads it: a convolution has its activation in it.
Profiling takes time, too, so that the sum is above the time of the network.
"""

import collections
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from convert.bundle import Bundle
from convert.latency import litert_profiler
from convert.runtimes import base, mnn, onnx, openvino, registry
from seaformer_jax.errors import UserError

_WARM_UP = 5


class Operator(NamedTuple):
    """An operator of a network: its name and its kind in the runtime, and the median milliseconds of a run.

    LiteRT does not tell names and counts means. ONNX Runtime alone tells the shape of the second input, which is that
    of the weights.
    """

    name: str
    kind: str
    ms: float
    weights: tuple[int, ...] = ()


def operators(bundle: Bundle, runs: int, threads: int) -> list[Operator]:
    """Returns the operators of a bundle in the order of their runs, timed in `runs` runs.

    Raises:
        UserError: The runtime of the bundle does not tell the time of operators.
    """
    match bundle.format:
        case "onnx" | "web":
            return _in_onnxruntime(bundle, runs, threads)
        case "litert":
            registry.run_module("litert", "ai_edge_litert")  # Tells if it is not installed.
            rows = litert_profiler.rows(bundle, _WARM_UP, runs, threads)
            return [Operator("", kind, ms) for kind, ms in rows]
        case "openvino":
            return _in_openvino(bundle, runs, threads)
        case "mnn":
            return _in_mnn(bundle, runs, threads)
    raise UserError(
        f"--by operator: {bundle.format} does not tell the time of its operators in Python; export {bundle.folder} "
        "with --format onnx, litert, openvino or mnn"
    )


def _in_onnxruntime(bundle: Bundle, runs: int, threads: int) -> list[Operator]:
    with tempfile.TemporaryDirectory() as folder:
        session = onnx.opened(bundle, threads, profile=f"{folder}/profile")
        image = base.in_layout(bundle.reference()[0], bundle.layout)
        for _ in range(_WARM_UP + runs):
            session.run(None, {base.INPUT: image})
        return from_events(json.loads(pathlib.Path(session.end_profiling()).read_text()), _WARM_UP)


def from_events(events: Iterable[Mapping[str, Any]], warmup: int) -> list[Operator]:
    """Returns the operators in ONNX Runtime's profile; it lists them in the order of their runs, run after run."""
    ending = "_kernel_time"
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(ending)]
    timed = [
        (event["name"].removesuffix(ending), event["args"]["op_name"], event["dur"] / 1000) for event in nodes
    ]
    shapes = {
        event["name"].removesuffix(ending): _second_shape(event["args"].get("input_type_shape", []))
        for event in nodes
    }
    return [each._replace(weights=shapes[each.name]) for each in _medians(timed, warmup)]


def _second_shape(inputs: Sequence[Mapping[str, list[int]]]) -> tuple[int, ...]:
    """Returns the shape of the second input; each of `inputs` is type -> shape."""
    return tuple(*inputs[1].values()) if len(inputs) > 1 else ()


def _in_openvino(bundle: Bundle, runs: int, threads: int) -> list[Operator]:
    module = registry.run_module("openvino", "openvino")
    network = module.Core().compile_model(
        bundle.model, "CPU", openvino.options(threads) | {"PERF_COUNT": True}
    )
    request = network.create_infer_request()
    image, timed = base.in_layout(bundle.reference()[0], bundle.layout), []
    for _ in range(_WARM_UP + runs):
        request.infer(image)
        timed += [
            (each.node_name, each.node_type, each.real_time.total_seconds() * 1000)
            for each in request.profiling_info
            if each.status == module.ProfilingInfo.Status.EXECUTED
        ]
    return _medians(timed, _WARM_UP)


def _in_mnn(bundle: Bundle, runs: int, threads: int) -> list[Operator]:
    module = registry.run_module("mnn", "MNN")
    network = module.Interpreter(str(bundle.model))
    session = network.createSession(mnn.options(bundle, threads))
    image = base.in_layout(bundle.reference()[0], bundle.layout)
    planes = module.Tensor(image.shape, module.Halide_Type_Float, image, module.Tensor_DimensionType_Caffe)
    timed, started = [], 0.0

    def begin(tensors: Sequence[Any], operator: Any) -> bool:
        nonlocal started
        started = time.perf_counter()
        return True  # Go on.

    def end(tensors: Sequence[Any], operator: Any) -> bool:
        spent = time.perf_counter() - started
        timed.append((operator.getName(), operator.getType(), 1000 * spent))
        return True

    for _ in range(_WARM_UP + runs):
        network.getSessionInput(session, base.INPUT).copyFrom(planes)
        network.runSessionWithCallBackInfo(session, begin, end)
    return _medians(timed, _WARM_UP)


def _medians(timed: Iterable[tuple[str, str, float]], warmup: int) -> list[Operator]:
    """Returns the operators of (name, kind, milliseconds) of many runs, without the first `warmup`."""
    spent = collections.defaultdict(list)
    for name, kind, milliseconds in timed:
        spent[name, kind].append(milliseconds)
    return [
        Operator(name, kind, statistics.median(values[warmup:])) for (name, kind), values in spent.items()
    ]
