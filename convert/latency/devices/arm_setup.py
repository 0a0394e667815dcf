"""Fetches and builds what this machine needs to run aarch64 programs; `make arm-setup` calls it.

python -m convert.latency.devices.arm_setup

Everything is written to build/arm (0.7 GB), and nothing is installed into the system:

- host: qemu-user and the cross compiler, unpacked from Debian packages;
- root: an arm64 Debian with Python's library; the emulator uses it as the root of the file system;
- wheels: the aarch64 wheels of the runtimes;
- count.so: the plugin that counts instructions (on_device/count.c);
- runners: a runner for each runtime, see runners.py; `--device qemu` runs them here, and `--device adb` and
  `--device ssh` push them to the device.

Needs Debian 12 on x86-64 with apt-get, gcc and pip. The versions of the wheels are those of the extras in setup.cfg.
"""

import pathlib
import shutil
import sys

from convert.latency.devices import emulated_cpu, runners
from convert.latency.devices.toolchain import BUILD, CPU, emptied, once, run

_SETUP = pathlib.Path(__file__)
PROGRAMS = ("qemu-user", "g++-aarch64-linux-gnu")
ROOT_PACKAGES = ("libpython3.11-dev", "libstdc++6")
# Minor versions of the manylinux platforms that run with the root's glibc 2.36.
_GLIBC = (17, 24, 26, 27, 28)


def main() -> int:
    """Runs the steps whose sources have changed since they last ran, and returns exit status 0."""
    once(fetch_programs, (_SETUP,))
    once(fetch_root, (_SETUP, _SETUP.with_name("emulated_cpu.py")))
    once(fetch_wheels, (_SETUP, _SETUP.with_name("runners.py")))
    once(build_plugin, (_SETUP, runners.PLUGIN))
    once(runners.build_runners, (_SETUP, _SETUP.with_name("runners.py"), *runners.sources()))
    print(f"aarch64 emulation is ready in {BUILD}")
    return 0


def fetch_programs() -> None:
    """Makes build/arm/host."""
    _unpack(PROGRAMS, _package_lists("amd64"), emptied("host"))


def fetch_root() -> None:
    """Makes build/arm/root, with the /proc/cpuinfo and /sys of the emulated processor."""
    options = _package_lists("arm64")
    # An empty list of installed packages makes apt-get fetch everything that the packages depend on.
    nothing = BUILD / "lists-arm64" / "status"
    nothing.touch()
    root = emptied("root")
    _unpack(ROOT_PACKAGES, [*options, "-o", f"Dir::State::status={nothing}"], root)
    # qemu 7.2 shows the emulated program the x86 /proc/cpuinfo, on which the runtimes' cpuinfo library fails.
    emulated_cpu.describe(root, CPU)


def fetch_wheels() -> None:
    """Makes build/arm/wheels: the runtimes without what they depend on, because the runners need their libraries."""
    # pip accepts only the platforms that it is given, so each older glibc is named as well.
    platforms = [word for glibc in _GLIBC for word in ("--platform", f"manylinux_2_{glibc}_aarch64")]
    platforms += ["--platform", "manylinux2014_aarch64"]
    run([
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--no-compile", *platforms,
        f"--target={emptied('wheels')}", *(runtime.wheel for runtime in runners.RUNTIMES.values()),
    ])  # fmt: skip


def build_plugin() -> None:
    """Makes build/arm/count.so, the emulator's plugin: a library for this machine, not for ARM."""
    run(["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", runners.PLUGIN, "-o", BUILD / "count.so"])


def _package_lists(architecture: str) -> list[str]:
    """Fetches the system's package lists for an architecture into build/arm; returns the options that use them."""
    folder = emptied(f"lists-{architecture}")
    (folder / "partial").mkdir()
    settings = (
        f"APT::Architecture={architecture}",
        f"APT::Architectures={architecture}",
        f"Dir::State::Lists={folder}",
        f"Dir::Cache={folder}",
        "APT::Sandbox::User=root",
    )
    options = [word for setting in settings for word in ("-o", setting)]
    run(["apt-get", *options, "-qq", "update"])
    return options


def _unpack(packages: tuple[str, ...], options: list[str], folder: pathlib.Path) -> None:
    """Downloads packages with their missing dependencies and unpacks them into `folder`, without installing them."""
    # apt-get itself says which dependencies are missing: a simulated installation prints a line "Inst NAME ..." each.
    plan = run(["apt-get", *options, "--simulate", "--no-install-recommends", "install", *packages])
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    downloads = emptied("downloads")
    run(["apt-get", *options, "-qq", "download", *needed], downloads)
    for package in sorted(downloads.glob("*.deb")):
        run(["dpkg", "-x", package, folder])
    shutil.rmtree(downloads)


if __name__ == "__main__":
    sys.exit(main())
