"""Android phones over adb, the debug bridge of Android's platform tools."""

import pathlib
import shutil
import subprocess

from convert.latency.devices.base import DeviceError

_INSTALL = "install Android's platform tools (Debian: apt-get install adb)"
_WITHOUT = "or count ARM instructions without a phone with --device qemu"


def connect(serial: str) -> "Adb":
    """Returns the phone with this serial number, or the only attached phone if `serial` is "".

    Raises:
        DeviceError: adb is not installed, the phone is not attached or not ready, several phones are attached and
            `serial` is "", or the phone does not authorise this machine.
    """
    if shutil.which("adb") is None:
        raise DeviceError(f"adb is not on this machine; {_INSTALL}, {_WITHOUT}")
    states = _attached()
    if not states:
        raise DeviceError(f"adb sees no device; attach a phone with USB debugging on, {_WITHOUT}")
    if serial and serial not in states:
        raise DeviceError(f"adb sees no device {serial}; it sees {', '.join(states)}")
    if not serial and len(states) > 1:
        raise DeviceError(f"adb sees {len(states)} devices; name one, as in --device adb:{next(iter(states))}"
                          f" (there are {', '.join(states)})")  # fmt: skip
    serial = serial or next(iter(states))
    if states[serial] == "unauthorized":
        raise DeviceError(f"device {serial} is unauthorized; confirm USB debugging on its screen")
    if states[serial] != "device":
        raise DeviceError(f"device {serial} is {states[serial]}; expected the state 'device'; reconnect it")
    return Adb(serial)


class Adb:
    """See `remote.Transport`."""

    folder = "/data/local/tmp/seaformer_jax"  # The only folder in which adb's shell may run programs.

    def __init__(self, serial: str):
        self.serial = serial
        self.name = f"adb:{serial}"

    def shell(self, command: str) -> str:
        return self._adb("shell", command)

    def push(self, files: list[pathlib.Path], folder: str) -> None:
        self._adb("push", *map(str, files), folder + "/")

    def pull(self, path: str, to: pathlib.Path) -> None:
        self._adb("pull", path, str(to))

    def _adb(self, *arguments: str) -> str:
        return call(["adb", "-s", self.serial, *arguments], self.name).decode()


def call(command: list[str], device: str, given: bytes | None = None) -> bytes:
    """Runs a command that talks to a device and returns what it prints.

    Args:
        command: Program and arguments.
        device: Name of the device, for error messages.
        given: Standard input of the command; None to inherit that of this process.

    Raises:
        DeviceError: The command failed. The message is one line: the last line that the command printed, or the
            line that says that the device's storage is full.
    """
    done = subprocess.run(command, input=given, capture_output=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
        # Looked for in all lines, because tools print others after it.
        disk_full = [line for line in lines if "No space left on device" in line]
        if disk_full:
            raise DeviceError(
                f"{device} has no space left: {disk_full[0]}; delete something there and try again"
            )
        raise DeviceError(f"{device}: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return done.stdout


def _attached() -> dict[str, str]:
    """Returns serial number -> state of every attached device; only a device in state "device" is ready."""
    lines = call(["adb", "devices"], "adb").decode().splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)
