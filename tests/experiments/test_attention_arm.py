"""Instruction counts of attention modules on ARM: what is counted, kept, refused and shown, without an emulator."""

import json

import pytest
import torch
from torch import nn

from convert.latency.devices import registry
from experiments import attention_arm as arm
from experiments import attention_graphs as graphs
from seaformer_jax.errors import UserError

SIDE = 16


@pytest.fixture
def two_kinds(monkeypatch):
    """Leaves SEA, with the channels first, and windows, with the channels last."""
    monkeypatch.setattr(arm.latency, "LARGEST", {"sea": 32, "window": 32})
    arm.projection.cache_clear()
    yield
    arm.projection.cache_clear()


@pytest.mark.parametrize("last", [False, True])
def test_a_projection_comes_before_the_module(last):
    image = torch.randn(1, 3, SIDE, 8, generator=torch.Generator().manual_seed(0))
    network = arm.OfImage(nn.ReLU(), last)
    weight, bias = network.projection.weight.reshape(graphs.CHANNELS, 3), network.projection.bias
    expected = (torch.einsum("bihw,oi->bhwo", image, weight) + bias).relu()
    torch.testing.assert_close(network(image), expected if last else expected.permute(0, 3, 1, 2))


def test_the_projection_alone_is_subtracted(two_kinds, monkeypatch):
    def count(network, format_, side):
        return 1.5 if isinstance(network.module, nn.Identity) else 4.0

    monkeypatch.setattr(arm, "instructions", count)
    assert arm.counted("sea", "litert", SIDE) == {arm.COUNT: 2.5}


def test_modules_have_their_own_layout_except_in_ncnn(two_kinds, monkeypatch):
    networks = []

    def count(network, format_, side):
        networks.append(network)
        return 1.0

    monkeypatch.setattr(arm, "instructions", count)
    for format_ in ("onnx", "ncnn"):
        arm.counted("window", format_, SIDE)
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    alone_last, last, alone_first, first = (network(image) for network in networks)
    assert alone_last.shape == last.shape == (1, SIDE, SIDE, graphs.CHANNELS)
    assert alone_first.shape == first.shape == (1, graphs.CHANNELS, SIDE, SIDE)


def test_a_refusal_is_recorded_in_one_line(two_kinds, monkeypatch):
    def count(network, format_, side):
        if isinstance(network.module, graphs.InOwnLayout):
            raise UserError("XNNPACK leaves it out\nand more")
        return 2.0

    monkeypatch.setattr(arm, "instructions", count)
    assert arm.counted("window", "executorch", SIDE) == {arm.REFUSED: "UserError: XNNPACK leaves it out"}


def test_what_is_known_refused_or_too_large_is_not_counted(monkeypatch):
    largest = {"sea": 64, "window": 64, "axial_sum": 32, "vanilla": 64, "mixformer": 64}
    monkeypatch.setattr(arm.latency, "LARGEST", largest)
    counts = {"sea": 9.0, "axial_sum": 9.0, "vanilla": arm.MOST / 4 + 1, "mixformer": arm.MOST / 4}
    results = {
        "16": {"window": {arm.REFUSED: "no"}},
        "32": {kind: {arm.COUNT: count} for kind, count in counts.items()},
    }
    assert arm.missing({}, 16) == list(largest)
    assert arm.missing(results, 32) == []
    assert arm.missing(results, 64) == ["sea", "mixformer"]
    assert arm.missing(results | {"64": {"sea": {arm.COUNT: 36.0}}}, 64) == ["mixformer"]


def test_a_missing_runner_is_no_refusal(two_kinds, monkeypatch):
    def count(network, format_, side):
        raise UserError("there is no runner")

    monkeypatch.setattr(arm, "instructions", count)
    with pytest.raises(UserError, match="no runner"):
        arm.counted("sea", "litert", SIDE)


@pytest.mark.parametrize("kind", ["sea", "window"])
def test_a_module_is_exported_and_run_and_its_output_is_checked(kind, monkeypatch):
    pytest.importorskip("onnxruntime")
    # This machine in place of the emulator: milliseconds in place of instructions.
    monkeypatch.setattr(arm, "Qemu", lambda threads: registry.find("host", threads))
    module, _ = graphs.network(kind, SIDE)
    network = arm.OfImage(module, isinstance(module, graphs.InOwnLayout))
    assert arm.instructions(network, "onnx", SIDE) > 0
    monkeypatch.setattr(arm.turns.parity, "on_device", lambda *_: {"ok": False, "difference": 0.25})
    with pytest.raises(ValueError, match=r"differs by 2\.5e-01"):
        arm.instructions(network, "onnx", SIDE)


def test_ratios_stand_beside_those_of_time_on_x86(two_kinds, monkeypatch, tmp_path):
    monkeypatch.setattr(arm.measure, "RESULTS", tmp_path)
    times = {"litert": {"32": {"sea": {"ms": 2.0}, "window": {"ms": 3.0}}}}
    (tmp_path / "attention_latency.json").write_text(json.dumps({"results": times}))
    results = {
        "litert": {"32": {"sea": {arm.COUNT: 10.0}, "window": {arm.COUNT: 17.5}}},
        "ncnn": {"32": {"sea": {arm.COUNT: 8.0}, "window": {arm.REFUSED: "UserError: no operator"}}},
    }
    text = arm.markdown(results, {"cpu": "cortex-a76", "emulator": "qemu"})
    assert "| `window` | 1.75 | 1.5 |  | 1.78 |" in text
    assert "- `window` in ncnn: UserError: no operator" in text


def test_a_kind_has_one_colour_and_is_drawn_where_it_was_counted(two_kinds, monkeypatch):
    figures = []
    monkeypatch.setattr(arm.latency.Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    results = {
        "ncnn": {"16": {"sea": {arm.REFUSED: "no"}, "window": {arm.COUNT: 3.0}}},
        "LiteRT": {
            "16": {"sea": {arm.COUNT: 1.0}, "window": {arm.COUNT: 2.0}},
            "32": {"sea": {arm.COUNT: 4.0}},
        },
    }
    arm.latency.draw("x", results, arm.COUNT, "instructions")
    ncnn, litert = ({line.get_label(): line for line in axes.lines} for axes in figures[0].axes)
    assert list(ncnn) == ["window"] and list(litert) == ["sea", "window"]
    assert [*litert["sea"].get_xdata()] == [16, 32] and [*litert["sea"].get_ydata()] == [1.0, 4.0]
    assert ncnn["window"].get_color() == litert["window"].get_color() != litert["sea"].get_color()
