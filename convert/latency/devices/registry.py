"""Finds the device of `--device`: this machine, its browser, an emulated ARM processor, a phone, a board."""

from convert.latency.devices.base import Device, DeviceError
from seaformer_jax.errors import UserError

__all__ = ["Device", "DeviceError", "find"]

_KINDS = "host, qemu, browser, adb[:SERIAL], ssh:USER@HOST"


def find(spec: str, threads: int) -> Device:
    """Returns the device that `--device` names, ready to use.

    Args:
        spec: host, qemu, browser, adb[:SERIAL] or ssh:USER@HOST.
        threads: Number of threads of the runtimes.

    Raises:
        UserError: `spec` names no device.
        DeviceError: The device is missing or cannot be used.
    """
    kind, _, address = spec.partition(":")
    if (kind in ("host", "qemu", "browser") and address) or (kind == "ssh" and not address):
        raise UserError(f"--device {spec}: expected one of {_KINDS}")
    # Imported when needed, because no device needs the tools of another.
    match kind:
        case "host":
            from convert.latency.devices.host import Host

            return Host(threads)
        case "qemu":
            from convert.latency.devices.qemu import Qemu

            return Qemu(threads)
        case "browser":
            from convert.latency.devices.browser import Browser

            return Browser(threads)
        case "adb":
            from convert.latency.devices import adb, remote

            return remote.Remote(adb.connect(address), threads)
        case "ssh":
            from convert.latency.devices import remote, ssh

            return remote.Remote(ssh.Ssh(address), threads)
    raise UserError(f"--device {spec}: expected one of {_KINDS}")
