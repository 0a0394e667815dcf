"""The ARM parts that need no emulator: counts and their ratios, the plugin's source, the pinned versions."""

import configparser
import json
import pathlib
import subprocess

import numpy as np
import pytest

from convert.arm import counts
from convert.export import seeded_bundles
from convert.latency.devices import emulated_cpu, runners, toolchain
from convert.runtimes import registry
from seaformer_jax.errors import UserError


def test_drift_by_hand():
    expected = {"a": {"network": 100.0, "post": 0.02}, "gone": {"network": 1.0}}
    found = {"a": {"network": 100.9, "post": 0.0205}, "new": {"network": 5.0}}
    assert counts.drift(found, expected) == [
        "gone: has a baseline but was not counted",
        "new, network: 5.0 M instructions, but no baseline; add it with --update",
    ]
    assert counts.drift({"a": {"network": 98.9}}, {"a": {"network": 100.0}}) == [
        "a, network: 98.9 M instructions, -1.1% from baseline 100.0"
    ]


def test_every_case_has_a_baseline():
    baselines = json.loads(counts.BASELINES.read_text())
    assert baselines.keys() == {case.folder for case in counts.CASES} | {counts.PLAIN}
    assert all(steps["together"] > steps["network"] > 1 for steps in baselines.values())
    assert not [ratio for ratio in counts.ratios(baselines) if ratio.found > ratio.target]


def test_ratios_by_hand():
    base = "segmentation_seaformer_base"
    found = {f"{base}_{kind}": {"together": 20.0, "network": 10.0} for kind in counts.FORMATS}
    found |= {f"{base}_{kind}_int8": {"together": 9.0, "network": 4.5} for kind in counts.INT8_FORMATS}
    found[f"{base}_onnx_plain"] = {"together": 200.0, "network": 199.0}
    ratios = counts.ratios(found)
    assert [ratio.found for ratio in ratios] == [0.1, 0.1, 0.1, 0.1, 0.45, 0.45]
    assert [ratio.found > ratio.target for ratio in ratios] == [False, False, False, False, True, True]
    assert "| logits8, litert, int8 against fp32 | 0.450 | 0.40 |" in counts.ratio_table(ratios)


def test_the_plain_graph(tmp_path):
    """The graph contains resize, softmax and argmax, and its labels equal PyTorch's."""
    onnx = pytest.importorskip("onnx", reason="pip install 'seaformer-jax[onnx]'")
    made = seeded_bundles.write_plain_bundle(tmp_path / "b", "seaformer_tiny", (64, 96))
    image, expected = made.reference()
    assert expected.shape == (1, 64, 96) and len(np.unique(expected)) > 1
    found = registry.find("onnx").load(made)(image)
    assert np.mean(found == expected) > 0.999
    model = onnx.load(made.model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[-4:] == ["Transpose", "Softmax", "Transpose", "ArgMax"] and "Resize" in kinds
    assert model.opset_import[0].version == 11


def test_the_plugin_compiles(tmp_path):
    flags = ["-Wall", "-Wno-unused-parameter", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    library = tmp_path / "count.so"
    subprocess.run(["gcc", *flags, runners.PLUGIN, "-o", library], check=True)
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == {
        "qemu_plugin_install",
        "qemu_plugin_version",
    }


def test_the_described_processor(tmp_path):
    emulated_cpu.describe(tmp_path, toolchain.CPU)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count("CPU part\t: 0xd0b") == emulated_cpu.CORES and "asimddp" in text
    assert (tmp_path / "sys/devices/system/cpu/present").read_text() == f"0-{emulated_cpu.CORES - 1}\n"


def test_steps_run_once_per_source(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "BUILD", tmp_path / "build")
    source, calls = tmp_path / "source.c", []
    source.write_text("1")

    def step() -> None:
        calls.append(source.read_text())

    # The second time nothing has changed, so the step is not run.
    for content in ("1", "1", "2"):
        source.write_text(content)
        toolchain.once(step, (source,))
    assert calls == ["1", "2"]


def test_a_missing_program_is_told():
    with pytest.raises(UserError, match="no-such-program is not on this machine; the set-up needs Debian 12"):
        toolchain.run(["no-such-program"])
    with pytest.raises(UserError, match="failed: no such thing"):
        toolchain.run(["sh", "-c", "echo no such thing >&2; exit 1"])


def test_the_versions_on_arm_are_those_of_the_extras():
    setup = configparser.ConfigParser()
    setup.read(pathlib.Path(runners.__file__).parents[3] / "setup.cfg")
    for kind, runtime in runners.RUNTIMES.items():
        assert runtime.wheel in setup["options.extras_require"][kind].split()
