"""Finds the device of `--device`: this machine, its browser, an emulated ARM processor, a phone, a board."""

from convert.latency.devices.base import Device, DeviceError
from seaformer_jax.errors import UserError

__all__ = ["Device", "DeviceError", "find"]

_KINDS = "host, qemu, browser[:webgpu], adb[:SERIAL], ssh:USER@HOST"


def find(spec: str, threads: int) -> Device:
    """Returns the device that `--device` names, ready to use.

    Args:
        spec: host, qemu, browser[:webgpu], adb[:SERIAL] or ssh:USER@HOST.
        threads: Number of threads of the runtimes.

    Raises:
        UserError: `spec` names no device.
        DeviceError: The device is missing or cannot be used.
    """
    kind, _, address = spec.partition(":")
    # Imported when needed, because no device needs the tools of another.
    match kind, address:
        case "host", "":
            from convert.latency.devices.host import Host

            return Host(threads)
        case "qemu", "":
            from convert.latency.devices.qemu import Qemu

            return Qemu(threads)
        case "browser", "" | "webgpu":
            from convert.latency.devices.browser import Browser

            return Browser(threads, address or "wasm")
        case "adb", _:
            from convert.latency.devices import adb, remote

            return remote.Remote(adb.connect(address), threads)
        case "ssh", _ if address:
            from convert.latency.devices import remote, ssh

            return remote.Remote(ssh.Ssh(address), threads)
    raise UserError(f"--device {spec}: expected one of {_KINDS}")
