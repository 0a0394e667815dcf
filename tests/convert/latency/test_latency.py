"""The latency command: on this machine with a stand-in runtime, and its errors for wrong input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from convert.export import parity
from convert.latency import by_operator, litert_profiler, profilers, table, turns
from convert.latency.devices.host import Host
from convert.latency.devices.qemu import read_marks
from convert.latency.devices.registry import DeviceError
from convert.latency.on_device.image_pipeline import ImagePipeline, picture
from convert.runtimes import registry
from convert.runtimes.base import Graph
from seaformer_jax.errors import UserError
from tests.convert.latency import device_standins as standins
from tests.paths import REPOSITORY

HOME = os.path.expanduser("~")


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A stand-in for ONNX Runtime, in this process and in those that it starts."""
    standins.write_onnxruntime(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    # Another test of this process may have imported the real one, and later tests may need it.
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "onnxruntime"}
    yield
    sys.modules.pop("onnxruntime", None)
    sys.modules.update(real)


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "convert.latency", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def test_bundles_are_measured_on_this_machine(runtime, tmp_path):
    folders = [standins.write_bundle(tmp_path / name, "onnx").folder for name in ("one", "two")]
    done = run(*folders, "--runs=50", f"--out={tmp_path / 'figures'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert [record["bundle"] for record in report["bundles"]] == ["one", "two"]
    assert report["facts"]["cores"] == [max(os.sched_getaffinity(0))]
    for record in report["bundles"]:
        samples = record["samples"]
        assert [len(samples[step]) for step in samples] == [50] * 4
        apart = sum(np.array(samples[step]) for step in ("pre", "network", "post"))
        np.testing.assert_allclose(apart, samples["together"], rtol=1e-6)
        assert record["parity"] == {"difference": pytest.approx(0, abs=1e-6), "agreement": 1.0, "ok": True}
        assert 2**20 < record["peak_bytes"] < 2**27  # Less than this process, which holds JAX and PyTorch.
    text = (tmp_path / "figures.md").read_text()
    assert "| two | network: `logits` |" in text and text.strip() in done.stdout


def test_another_output_is_told(runtime, tmp_path):
    folder = standins.write_bundle(tmp_path / "wrong", "onnx", off=0.01).folder
    done = run(folder, f"--out={tmp_path / 'figures'}")
    assert done.returncode == 1
    assert done.stderr == "error: wrong: the output on this device differs from the output at export\n"
    assert "OUTPUT DIFFERS FROM EXPORT" in (tmp_path / "figures.md").read_text()


def test_a_bundle_that_does_not_load(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "onnxruntime.py").write_text("raise ImportError('not for this processor')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    folder = standins.write_bundle(tmp_path / "bundle", "onnx").folder
    done = run(folder, f"--out={tmp_path / 'figures'}")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "does not run on this machine" in line and "not for this processor" in line
    assert not list(tmp_path.glob("figures*"))


def test_a_format_that_does_not_exist_here(tmp_path):
    folder = standins.write_bundle(tmp_path / "bundle", "coreml").folder
    done = run(folder, f"--out={tmp_path / 'figures'}")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder} is a coreml bundle, which does not run on this machine")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "no bundle is given"),
        (["{folder}"], 2, "is no bundle"),
        (
            ["{folder}/damaged"],
            2,
            "model.pte was damaged or edited: its checksum differs; export the model again",
        ),
        (["{folder}/bundle", "--runs=10"], 2, "--runs=10"),
        (["{folder}/bundle", "--out="], 2, "--out is empty; expected a path"),
        (
            ["{folder}/bundle", "--out=~/no/such/x"],
            2,
            f"--out {HOME}/no/such/x: the folder {HOME}/no/such does",
        ),
        (["{folder}/bundle", "--devise=host"], 2, "devise"),
        (["{folder}/bundle", "--out={folder}/no/x"], 2, "does not exist; create it first"),
        (["{folder}/bundle", "--device=phone"], 2, "expected one of host, qemu"),
        (["{folder}/bundle", "--threads=999"], 3, "--threads 999, but only"),
        (["{folder}/bundle", "--device=adb"], 3, "adb sees no device"),
    ],
)
def test_wrong_command_lines(tmp_path, monkeypatch, arguments, status, message):
    standins.Device(tmp_path / "device", monkeypatch).attached.write_text("")
    standins.write_bundle(tmp_path / "bundle")
    standins.write_bundle(tmp_path / "damaged").model.write_bytes(b"modem")
    done = run(*(argument.format(folder=tmp_path) for argument in arguments))
    (line,) = done.stderr.splitlines()
    assert done.returncode == status and line.startswith("error: ") and message in line, line


def test_a_worker_that_dies_is_told(runtime, tmp_path):
    job = Host(threads=1).job(standins.write_bundle(tmp_path / "bundle", "onnx"))
    job._process.kill()
    with pytest.raises(DeviceError, match="does not run on this machine: exit status -9"):
        job.measure(1, 1)
    job.close()


def test_pre_processing_gives_what_the_reference_holds(runtime, tmp_path):
    for inside in (False, True):
        bundle = standins.write_bundle(tmp_path / str(inside), "onnx", normalized_inside=inside)
        image = picture(bundle)
        scaled = image.astype(np.float64) / 255
        expected = scaled if inside else (scaled - bundle.mean) / bundle.std
        np.testing.assert_allclose(ImagePipeline(bundle, 1).prepare(image), expected[None], atol=2e-6)
    # The picture is at most half a grey level from the reference, except for values that no picture can hold.
    closest = np.clip(bundle.reference()[0][0], 0, 1)
    assert np.abs(picture(bundle) / 255 - closest).max() <= 0.5 / 255 + 1e-6


def test_post_processing_follows_the_output(runtime, tmp_path):
    logits = np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype(np.float32)
    fields = {"task": "segmentation", "input_size": (2, 3), "output_layout": "NCHW"}
    steps = {
        output: ImagePipeline(standins.write_bundle(tmp_path / output, "onnx", output=output, **fields), 1)
        for output in ("logits8", "logits", "labels")
    }
    expected = logits[0].argmax(-1)
    assert (
        steps["logits8"].finish(logits) == expected
    ).all()  # The input is as large as the logits, so the resize changes nothing.
    assert (steps["logits"].finish(logits) == expected).all()
    labels = expected.astype(np.uint8)[None]
    assert steps["labels"].finish(labels) is labels


def test_parity_by_hand():
    expected = np.array([[4.0, -2.0, 1.0]])
    near = expected + np.array([0, 0.002, 0])
    found = parity.on_device(near, expected, "logits", "fp32")
    assert found == {"difference": pytest.approx(0.0005), "agreement": 1.0, "ok": False}
    assert parity.on_device(near, expected, "logits", "fp16")["ok"]
    labels = np.zeros((1, 40, 50), np.uint8)
    other = labels.copy()
    other[0, 0, :2] = 1
    assert parity.on_device(other, labels, "labels", "fp32") == {
        "difference": 1.0,
        "agreement": 0.999,
        "ok": True,
    }
    other[0, 0, 2] = 1
    assert not parity.on_device(other, labels, "labels", "fp32")["ok"]
    assert not parity.on_device(np.full((1, 3), np.nan), expected, "logits", "int8")["ok"]
    with pytest.raises(UserError, match="export the bundle anew"):
        parity.on_device(expected[:, :2], expected, "logits", "fp32")


def test_summary_by_hand():
    figures = table.summary([float(i) for i in range(11, 0, -1)])
    assert figures == {"min": 1.0, "median": 6.0, "p90": 10.0, "spread": 5 / 6}


def test_the_markdown_table():
    slow = {"min": 1.0, "median": 2.0, "p90": 3.0, "spread": 0.25}
    fast = {"min": 1.0, "median": 1.0, "p90": 1.0, "spread": 0.0}
    before = {"governor": "schedutil", "limited": True, "celsius": {"big": 41.5, "skin": 30.0}}
    report = {
        "device": "adb:1",
        "unit": "ms",
        "date": "now",
        "facts": {"cpu": "x", "cores": [7]},
        "schedule": {"rounds": 10, "runs": 5, "warmup": 5},
        "condition": {"before": before, "after": {}},
        "bundles": [
            _record("tiny", slow),
            _record("half", fast),
            _record("whole", fast) | {"output": "labels"},
        ],
    }
    text = table.markdown(report)
    assert "| tiny | network: `logits8` | 1 | 2 | 3 | 25.0 | 1.000 |" in text
    assert "| half | together: `labels` | 1 | 1 | 1 | 0.0 | 0.500 |" in text
    assert "| whole | network: `labels` | 1 | 1 | 1 | 0.0 | - |" in text
    assert "Before: governor schedutil, frequency limited: throttled, hottest zone 41.5 C." in text
    assert "After: no governor or temperature reported." in text
    assert "peak memory 3 MiB" in text


def _record(name: str, figures: dict[str, float]) -> dict:
    return {
        "bundle": name,
        "task": "segmentation",
        "format": "litert",
        "precision": "int8",
        "output": "logits8",
        "input_size": [512, 512],
        "peak_bytes": 3 * 2**20,
        "parity": {"difference": 0.01, "agreement": 0.999, "ok": True},
        "summary": {step: figures for step in turns.STEPS},
        "samples": {step: [2.0] for step in turns.STEPS},
    }


def test_marks_of_the_counting_plugin():
    runs = [(0, 10, 40, 45), (100, 1_000_100, 3_000_100, 3_500_100)]
    log = "".join(f"{tag} {count} 7 7\n" for run in runs for tag, count in enumerate(run, start=1))
    assert read_marks(log, warmup=1) == {"pre": [1.0], "network": [2.0], "post": [0.5], "together": [3.5]}
    with pytest.raises(DeviceError, match=r"set the marks \(2, 3, 4, 1\)"):
        read_marks(log[log.index("\n") + 1 :] + "1 5 5 5\n", warmup=0)


@pytest.mark.parametrize("kind", ["onnx", "litert", "openvino", "mnn"])
def test_operators_are_those_of_the_graph(tmp_path, kind):
    """Both convolutions are one kind; the runtime puts the activation into them."""
    convolutions = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten(1)]
    graph = Graph(torch.nn.Sequential(*convolutions).eval(), "classification", "logits", standins.SIZE)
    bundle = standins.write_bundle(tmp_path / "b", kind)
    try:
        registry.find(kind).export(graph, {"fp32": bundle.folder}, [])
    except UserError as error:
        pytest.skip(str(error))
    found = by_operator.measure(bundle, 3, threads=1)
    assert sum(figures["count"] for kind, figures in found.items() if "Conv" in kind) == 2
    assert all(figures["ms"] >= 0 for figures in found.values()) and "Relu" not in found


def test_operators_are_added_up_without_the_warm_up():
    def event(name: str, kind: str, microseconds: int) -> dict:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": kind}}

    runs = [(9000, 9000, 9000), (1000, 2000, 100), (3000, 2000, 100), (2000, 8000, 100)]
    events = [{"cat": "Session", "name": "load", "dur": 5}]
    for first, second, third in runs:
        events += [event("a", "Conv", first), event("b", "Conv", second), event("c", "Add", third)]
    found = by_operator.summary(profilers.from_events(events, warmup=1))
    assert found == {"Conv": {"count": 2, "ms": 4.0}, "Add": {"count": 1, "ms": 0.1}}
    assert "| Conv | 2 | 4 | 97.6 |" in by_operator.table(found)


def test_operators_of_litert_in_the_order_of_their_runs():
    """LiteRT's summary has several tables; the first is in the order of the runs."""
    row = "{}      0.000      0.671      {:.3f}     2.591%     7.238%      0.000             10   [Delegate]:2\n"
    heading = "================= {} =================\n"
    first = row.format(" Delegate/Convolution (NHWC, F32) DWConv", 0.676) + row.format("   RESHAPE", 0.067)
    summary = heading.format("Run Order") + "   [node type]    [start]    [first]   [avg ms]   [%]\n" + first
    summary += heading.format("Top by Computation Time") + row.format("   RESHAPE", 0.067)
    assert litert_profiler.parsed(summary) == [("Convolution (NHWC, F32) DWConv", 0.676), ("RESHAPE", 0.067)]


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("ncnn", [], "--by operator: ncnn does not tell the time of its operators"),
        ("onnx", ["--device=qemu"], "--by operator measures on this machine, not on --device qemu"),
    ],
)
def test_operators_that_cannot_be_told(tmp_path, kind, flags, said):
    bundle = standins.write_bundle(tmp_path / "b", kind)
    done = run(bundle.folder, "--by=operator", f"--out={tmp_path / 'figures'}", *flags)
    assert done.returncode == 2 and said in done.stderr
