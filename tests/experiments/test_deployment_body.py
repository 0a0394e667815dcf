"""What is left in the body: layers and their times from made-up profiles, strips, and the text of the result."""

import collections

import pytest
import torch

from convert import torch_model
from convert.graph import rewrites
from convert.latency.profilers import Operator
from experiments import body_forms, body_layers, body_report
from experiments.body_layers import Layer

SIZE = (64, 96)
NETWORK = [
    Layer("stem", "dense", 10, 1, (16, 3, 3, 3)),
    Layer("expand 1x1", "pointwise", 20, 1, (32, 16, 1, 1)),
    Layer("depthwise 3x3", "depthwise", 5, 1, (32, 1, 3, 3)),
    Layer("head", "pointwise", 20, 1, (11, 32)),
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return rewrites.deploy(torch_model.create_model("seaformer_tiny"), SIZE)


def operators(*kinds_and_times: tuple[str, float]) -> list[Operator]:
    return [Operator(f"node_conv2d_{n}", kind, ms) for n, (kind, ms) in enumerate(kinds_and_times)]


def test_layers_are_those_of_the_network(model):
    found = body_layers.layers(model, torch.zeros(1, 3, *SIZE))
    stem, *rest = found
    assert stem == Layer(
        "stem", "dense", 27 * 16 * 32 * 48, 3 * 64 * 96 + 27 * 16 + 16 * 32 * 48, (16, 3, 3, 3)
    )
    # 8 of 9 inverted residuals expand; an attention has one depthwise and five 1x1 convolutions.
    expected = {"expand 1x1": 8 + 4, "project 1x1": 9 + 4, "depthwise 3x3": 6 + 4 + 4, "depthwise 5x5": 3}
    assert collections.Counter(layer.kind for layer in rest) == expected | {"attention 1x1": 20, "head": 1}


def test_times_go_to_layers_by_form_and_order():
    litert = operators(("Convolution (NHWC, F32) DWConv", 3.0), ("Add (ND)", 9.0), ("Convolution IGEMM", 1.0))
    litert += operators(("Fully Connected (NC, F32) GEMM", 2.0), ("Fully Connected (NC, F32) GEMM", 4.0))
    assert body_layers.times("litert", litert, NETWORK) == [1.0, 2.0, 3.0, 4.0]
    one_more = [*litert, Operator("", "Fully Connected", 5.0)]
    with pytest.raises(ValueError, match="5 convolutions in litert, 4 in PyTorch"):
        body_layers.times("litert", one_more, NETWORK)
    openvino = operators(("Convolution", 1.0), ("Convolution", 2.0), ("GroupConvolution", 3.0))
    shuffled = [openvino[2], Operator("logits", "FullyConnected", 4.0), openvino[0], openvino[1]]
    assert body_layers.times("openvino", shuffled, NETWORK) == [1.0, 2.0, 3.0, 4.0]


def test_rows_add_up_and_take_the_fastest_runtime_of_each_layer():
    kinds = ("Conv", "Conv", "Conv", "Gemm", "Add")
    onnx = operators(*zip(kinds, (1.0, 2.0, 3.0, 4.0, 0.5), strict=True))
    shapes = [layer.weights for layer in NETWORK[:3]]
    onnx[:3] = [each._replace(weights=shape) for each, shape in zip(onnx, shapes, strict=False)]
    profiles = {
        "onnx": [onnx[2], onnx[0], *onnx[3:], onnx[1]],  # In another order.
        "openvino": operators(*zip(("Convolution",) * 4 + ("Add",), (2.0, 1.0, 5.0, 4.0, 0.25), strict=True)),
    }
    found = {row["layers"]: row for row in body_layers.rows(NETWORK, profiles)}
    assert found["whole"]["onnx ms"] == 10.5 and found["all else"]["onnx ms"] == 0.5
    assert found["whole"]["fastest of all ms"] == 1 + 1 + 3 + 4 + 0.25
    assert found["depthwise 3x3"]["openvino %"] == pytest.approx(100 * 5 / 12.25)
    assert found["stem"]["onnx GFLOP/s"] == pytest.approx(2 * 10 / 1e6)


def test_the_bound_is_that_of_the_slower_resource():
    compute, memory = Layer("a", "dense", 5 * 10**9, 1, ()), Layer("b", "dense", 1, 10**9, ())
    assert body_layers.bound([compute, memory], rate=100, bandwidth=40) == pytest.approx(100 + 100)


@pytest.mark.parametrize("size", [SIZE, (72, 66)])
def test_strips_compute_the_same(size):
    torch.manual_seed(0)
    deployed = rewrites.deploy(torch_model.create_model("seaformer_tiny").double(), size)
    strips = body_forms.in_strips(deployed, size, most=2**12)
    assert sum(isinstance(part, body_forms.Strips) for part in strips.modules()) > 4
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(strips(x), deployed(x), rtol=0, atol=1e-12)


def test_the_text_says_whether_the_target_is_met():
    figures = {
        "machine": {"cpu": "a processor"},
        "sides": {
            "a": {"eager": 9.0, "litert": 2.0, "onnx": 3.0},
            "b": {"eager": 9.0, "litert": 6.0, "onnx": 3.0},
        },
        "layers": {
            "b": {
                "bound ms": 1.5,
                "highest GFLOP/s": 99.0,
                "rows": [{"whole": "", "onnx ms": 3.0, "fastest of all ms": 2.4}],
            }
        },
    }
    figures["layers"]["b"]["output channels that are no multiple of 16"] = 1
    text = body_report.markdown(figures)
    assert "4.50 times by litert, met." in text and "3.00 times by onnx, **missed**." in text
    assert "at 99 GFLOP/s" in text and "1.5 ms, which is 6.00 times eager; onnx takes 2.00 times that" in text
    assert "would take 20 % less" in text
