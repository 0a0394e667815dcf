"""Of the ARM set-up what needs no emulator: the drift of counts, the plugin's source, the pinned versions."""

import subprocess

import numpy as np
import pytest

from convert.arm import check, cpu, setup
from seaformer_jax.errors import UserError


def test_drift_by_hand():
    expected = {"a": {"network": 100.0, "post": 0.02}, "gone": {"network": 1.0}}
    found = {"a": {"network": 100.9, "post": 0.0205}, "new": {"network": 5.0}}
    assert check.drift(found, expected) == [
        "gone: not counted",
        "new, network: 5.0 M instructions, no baseline; add it with --update",
    ]
    assert check.drift({"a": {"network": 98.9}}, {"a": {"network": 100.0}}) == [
        "a, network: 98.9 M instructions, -1.1% off 100.0"
    ]


def test_the_plugin_compiles(tmp_path):
    flags = ["-Wall", "-Wno-unused-parameter", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    library = tmp_path / "count.so"
    subprocess.run(["gcc", *flags, setup.SOURCES / "count.c", "-o", library], check=True)
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == {
        "qemu_plugin_install",
        "qemu_plugin_version",
    }


def test_the_described_processor(tmp_path):
    cpu.describe(tmp_path, setup.CPU)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count("CPU part\t: 0xd0b") == cpu.CORES and "asimddp" in text
    assert (tmp_path / "sys/devices/system/cpu/present").read_text() == f"0-{cpu.CORES - 1}\n"


def test_steps_run_once_per_source(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "BUILD", tmp_path / "build")
    monkeypatch.setattr(setup, "SOURCES", tmp_path)
    source, calls = tmp_path / "source.c", []
    source.write_text("1")

    def step() -> None:
        calls.append(source.read_text())

    for content in ("1", "1", "2"):
        source.write_text(content)
        setup._once(step, ("source.c",))
    assert calls == ["1", "2"]


def test_a_missing_program_is_told():
    with pytest.raises(UserError, match="no-such-program is not on this machine; the set-up needs Debian 12"):
        setup._run(["no-such-program"])
    with pytest.raises(UserError, match="failed: no such thing"):
        setup._run(["sh", "-c", "echo no such thing >&2; exit 1"])


def test_numpy_on_arm_is_ours():
    pinned = dict(wheel.split("==") for wheel in setup.WHEELS)
    assert pinned["numpy"].split(".")[0] == np.__version__.split(".")[0]
