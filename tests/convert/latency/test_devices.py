"""Devices over stand-ins for `adb` and `ssh`, which run their commands on this machine."""

import json
import os

import numpy as np
import pytest

from convert.latency.devices import adb, probe, registry, toolchain
from convert.latency.devices.base import STEPS, choose_cores
from convert.latency.devices.registry import DeviceError
from convert.latency.turns import measure
from seaformer_jax.errors import UserError
from tests.convert.latency import device_standins as standins


@pytest.fixture
def device(tmp_path, monkeypatch) -> standins.Device:
    monkeypatch.setattr(toolchain, "BUILD", tmp_path / "build")
    for kind in ("executorch", "litert"):
        standins.write_runner(tmp_path / "build", kind)
    return standins.Device(tmp_path / "device", monkeypatch)


@pytest.mark.parametrize("spec", ["adb", "adb:emulator-1", "ssh:user@board"])
@pytest.mark.parametrize(("kind", "layout"), [("executorch", "NCHW"), ("litert", "NHWC")])
def test_a_bundle_runs_on_a_remote_device(device, tmp_path, spec, kind, layout):
    bundle = standins.write_bundle(tmp_path / "bundle", kind, layout=layout)
    there = registry.find(spec, threads=1)
    job = there.job(bundle)
    samples = job.measure(warmup=1, runs=3)
    # In milliseconds; the runner prints nanoseconds.
    assert samples == dict(zip(STEPS, ([1.0] * 3, [5.0] * 3, [0.5] * 3, [6.5] * 3), strict=True))
    np.testing.assert_allclose(job.output(), bundle.reference()[0].mean((1, 2)), rtol=1e-6)
    assert job.peak_bytes() == 2048 * 1024
    assert there.name == ("adb:emulator-1" if spec == "adb" else spec)
    (cores,) = device.root.rglob("cores")
    assert json.loads(cores.read_text()) == there.cores == [max(os.sched_getaffinity(0))]
    assert there.facts()["abi"] == "aarch64" and there.facts()["soc"] == "SM8250"
    job.close()


@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
def test_files_travel_once(device, tmp_path, spec):
    bundle = standins.write_bundle(tmp_path / "bundle")
    registry.find(spec, threads=1).job(bundle)
    before = device.calls.read_text()
    registry.find(spec, threads=1).job(bundle)
    again = device.calls.read_text()[len(before) :]
    marker = "emulator-1 push " if spec == "adb" else "tar -x"
    assert before.count(marker) == 2 and marker not in again  # One for the runner and one for the bundle.


def test_an_interrupted_push_is_made_again(device, tmp_path):
    bundle = standins.write_bundle(tmp_path / "bundle")
    registry.find("adb", threads=1).job(bundle)
    # "complete" is written after the files, so an interrupted push has none.
    for complete in device.root.rglob("complete"):
        complete.unlink()
    registry.find("adb", threads=1).job(bundle)
    assert device.calls.read_text().count("emulator-1 push ") == 4


@pytest.mark.parametrize(
    ("attached", "spec", "message"),
    [
        ("", "adb", "adb sees no device; attach a phone with USB debugging on"),
        ("a\tdevice\nb\tdevice\n", "adb", "adb sees 2 devices; name one, as in --device adb:a"),
        ("a\tdevice\n", "adb:b", "adb sees no device b; it sees a"),
        ("a\tunauthorized\n", "adb", "device a is unauthorized; confirm USB debugging on its screen"),
        ("a\toffline\n", "adb:a", "device a is offline"),
    ],
)
def test_phones_that_cannot_be_used(device, attached, spec, message):
    device.attached.write_text(attached)
    with pytest.raises(DeviceError, match=message):
        registry.find(spec, threads=1)


@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
def test_missing_tools(tmp_path, monkeypatch, spec):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=f"{spec.partition(':')[0]} is not on this machine; install"):
        registry.find(spec, threads=1)


def test_a_board_that_does_not_let_us_in(device):
    device.refusal.write_text("Warning: added a key.\nuser@board: Permission denied (publickey).\n")
    with pytest.raises(DeviceError, match=r"^ssh:user@board: user@board: Permission denied \(publickey\)\.$"):
        registry.find("ssh:user@board", threads=1)


def refused(device, spec: str, bundles, message: str) -> None:
    """Checks that measuring `bundles` is refused with `message` before anything is brought to the device."""
    with pytest.raises(DeviceError, match=message):
        measure(registry.find(spec, threads=1), bundles, runs=50)
    calls = device.calls.read_text()
    assert calls and "push" not in calls and "mkdir" not in calls and not any(device.root.iterdir())


@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
def test_a_device_of_another_kind(device, tmp_path, spec):
    device.program("uname", "echo armv7l")
    refused(device, spec, [standins.write_bundle(tmp_path / "b")], "is armv7l; the runner is for aarch64")


@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
def test_bundles_of_other_runtimes(device, tmp_path, spec):
    """The first bundle would run there."""
    bundles = [standins.write_bundle(tmp_path / kind, kind) for kind in ("litert", "web")]
    refused(device, spec, bundles, "is a web bundle and .* runs onnx, litert, executorch, ncnn; export it in")


def test_a_runner_that_is_not_built(device, tmp_path):
    bundles = [standins.write_bundle(tmp_path / kind, kind) for kind in ("litert", "ncnn")]
    refused(device, "adb", bundles, "there is no runner in .*ncnn; build it with `make arm-setup`")


def test_class_maps_of_many_classes(device, tmp_path):
    bundle = standins.write_bundle(tmp_path / "b", task="segmentation", output="logits8")
    bundle.write_reference(bundle.reference()[0], np.zeros((1, 1, 1, 257), np.float32))
    refused(device, "adb", [bundle], "has 257 classes; the class maps of adb:emulator-1 have at most 256")


@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
def test_a_full_disk(device, tmp_path, spec):
    device.program(
        "df", "echo Filesystem 1K-blocks Used Available Use% Mounted on; echo /dev/x 9 9 0 100% /data"
    )
    with pytest.raises(DeviceError, match="has no space left: 0 kB free"):
        registry.find(spec, threads=1).job(standins.write_bundle(tmp_path / "b"))


def test_a_disk_that_fills_up(device, tmp_path):
    device.program("touch", "echo 'touch: complete: No space left on device' >&2; exit 1")
    with pytest.raises(DeviceError, match=r"has no space left: .*; delete something there"):
        registry.find("adb", threads=1).job(standins.write_bundle(tmp_path / "b"))


def test_a_program_that_dies(device, tmp_path):
    there = registry.find("adb", threads=1)
    job = there.job(standins.write_bundle(tmp_path / "bundle"))
    for image in device.root.rglob("image"):
        image.write_bytes(b"short")
    with pytest.raises(DeviceError, match=r"^adb:emulator-1: AssertionError: 5$"):
        job.measure(warmup=1, runs=1)


def test_no_emulator(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "BUILD", tmp_path / "nothing")
    with pytest.raises(DeviceError, match="build it with `make arm-setup`"):
        registry.find("qemu", threads=1)


@pytest.mark.parametrize("spec", ["phone", "host:x", "ssh", "qemu:a76", ""])
def test_unknown_devices(spec):
    with pytest.raises(
        UserError, match=r"expected one of host, qemu, browser\[:webgpu\], adb\[:SERIAL\], ssh:USER@HOST"
    ) as error:
        registry.find(spec, threads=1)
    assert not isinstance(error.value, DeviceError)  # The command line is wrong, and not the device.


def test_an_address_is_no_option(device):
    with pytest.raises(DeviceError, match="expected USER@HOST"):
        registry.find("ssh:-oProxyCommand=touch x", threads=1)


def test_the_emulator_counts_one_thread():
    with pytest.raises(DeviceError, match="counts one thread"):
        registry.find("qemu", threads=2)


def test_the_big_cores_are_chosen():
    phone = {0: 1800, 1: 1800, 2: 1800, 3: 1800, 4: 2400, 5: 2400, 6: 2400, 7: 2840}
    # Cores 4 to 6 are equally fast: the highest numbers win.
    assert choose_cores(phone, 1) == [7]
    assert choose_cores(phone, 3) == [5, 6, 7]
    assert choose_cores({0: 2840, 1: 1800, 2: 1800}, 2) == [0, 2]
    with pytest.raises(DeviceError, match="--threads 9, but only 8 cores of the device may be used"):
        choose_cores(phone, 9)


def test_facts_and_condition_are_read():
    told = "abi aarch64\nkernel Linux 5.10\nsoc SM8250\nsystem\nHardware\t: Qualcomm\ncore 0 1800000\n"
    told += "core 1 2840000\ncore 2 2840000\nallowed Cpus_allowed_list: 0-1\n"
    facts = probe.facts(lambda command: told)
    assert facts["max_khz"] == {0: 1800000, 1: 2840000}
    assert (facts["abi"], facts["soc"], facts["system"], facts["cpu"]) == (
        "aarch64",
        "SM8250",
        "",
        "Qualcomm",
    )
    told = "core 0 powersave 1 1\ncore 7 performance 2000000 2840000\nzone 41500 cpu big\nzone 38 battery\nzone x\n"
    assert probe.condition(lambda command: told, [7]) == {
        "governor": "performance",
        "limited": True,
        "celsius": {"cpu big": 41.5, "battery": 38.0},
    }
    assert probe.condition(lambda command: "", [0]) == {}


def test_what_a_tool_says_is_one_line(tmp_path):
    tool = tmp_path / "tool"
    standins.script(tool, "#!/bin/sh\nexit 7\n")
    with pytest.raises(DeviceError, match=r"^phone: exit status 7$"):
        adb.call([str(tool)], "phone")
