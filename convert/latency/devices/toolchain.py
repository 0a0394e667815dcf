"""Fetches and builds what this machine needs to run aarch64 programs; `make arm-setup` calls it.

python -m convert.latency.devices.toolchain

Everything is written to build/arm (0.7 GB), and nothing is installed into the system:

- host, bin: qemu-user and the cross compiler, unpacked from Debian packages;
- root: an arm64 Debian with Python; the emulator uses it as the root of the file system;
- site: the aarch64 wheels of the runtimes;
- count.so: the plugin that counts instructions (on_device/count.c);
- runner: the ExecuTorch runner with its libraries; `--device adb` and `--device ssh` push it to the device.

Needs Debian 12 on x86-64 with apt-get, gcc and pip. The versions of the wheels are those of the extras in setup.cfg.
"""

import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

from convert.latency.devices import emulated_cpu
from seaformer_jax.errors import UserError

_SETUP = pathlib.Path(__file__)
_HERE = _SETUP.parent
_CONVERT = _HERE.parents[1]
SOURCES = _HERE.parent / "on_device"  # The C++ runner and the C plugin are here.
_KERNELS = tuple(_CONVERT / "labels" / f"{name}.c" for name in ("argmax_upsample", "decode_boxes"))
BUILD = _CONVERT.parent / "build" / "arm"
CPU = "cortex-a76"
PROGRAMS = ("qemu-user", "g++-aarch64-linux-gnu")
ROOT_PACKAGES = ("python3.11", "libstdc++6")
# Installed without their dependencies: to run a model the runtimes import only NumPy. PyTorch is left out, because
# its aarch64 wheel is the CUDA build.
WHEELS = (
    "absl-py==2.5.1",
    "numpy==2.4.6",
    "onnxruntime==1.31.1",
    "ai-edge-litert==2.3.0",
    "ncnn==1.0.20261020",
)
EXECUTORCH = "executorch==1.5.1"
# Minor versions of the manylinux platforms that run with the root's glibc 2.36.
_GLIBC = (17, 24, 26, 27, 28)
_LIBRARIES = ("executorch", "executorch_backend_xnnpack", "executorch_kernels_optimized",
              "executorch_kernels_quantized", "executorch_threadpool")  # fmt: skip


def main() -> int:
    """Runs the steps whose sources have changed since they last ran, and returns exit status 0."""
    _once(fetch_programs, (_SETUP,))
    _once(fetch_root, (_SETUP, _HERE / "emulated_cpu.py"))
    _once(fetch_wheels, (_SETUP,))
    _once(build_plugin, (_SETUP, SOURCES / "count.c"))
    _once(build_runner, (_SETUP, SOURCES / "runner.cpp", *_KERNELS))
    print(f"aarch64 emulation is ready in {BUILD}")
    return 0


def fetch_programs() -> None:
    """Makes build/arm/host, and a `cc` in build/arm/bin.

    Emulated programs call this `cc` to compile the class-map kernel. It starts the cross compiler, which is not
    emulated.
    """
    _unpack(PROGRAMS, _package_lists("amd64"), _emptied("host"))
    cc, libraries = _emptied("bin") / "cc", environment()["LD_LIBRARY_PATH"]
    words = " ".join(map(shlex.quote, compiler("gcc")))
    cc.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={shlex.quote(libraries)} exec {words} "$@"\n')
    cc.chmod(0o755)


def fetch_root() -> None:
    """Makes build/arm/root, with the /proc/cpuinfo and /sys of the emulated processor."""
    options = _package_lists("arm64")
    # An empty list of installed packages makes apt-get fetch everything that the packages depend on.
    nothing = BUILD / "lists-arm64" / "status"
    nothing.touch()
    root = _emptied("root")
    _unpack(ROOT_PACKAGES, [*options, "-o", f"Dir::State::status={nothing}"], root)
    # qemu 7.2 shows the emulated program the x86 /proc/cpuinfo, on which the runtimes' cpuinfo library fails.
    emulated_cpu.describe(root, CPU)


def fetch_wheels() -> None:
    """Makes build/arm/site, and build/arm/executorch for the headers and libraries of ExecuTorch."""
    # pip accepts only the platforms that it is given, so each older glibc is named as well.
    platforms = [word for glibc in _GLIBC for word in ("--platform", f"manylinux_2_{glibc}_aarch64")]
    platforms += ["--platform", "manylinux2014_aarch64"]
    for folder, packages in (("site", WHEELS), ("executorch", (EXECUTORCH,))):
        _run([
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--no-compile", *platforms,
            f"--target={_emptied(folder)}", *packages,
        ])  # fmt: skip


def build_plugin() -> None:
    """Makes build/arm/count.so, the emulator's plugin: a library for this machine, not for ARM."""
    flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
    _run(["gcc", *flags, SOURCES / "count.c", "-o", BUILD / "count.so"])


def build_runner() -> None:
    """Makes build/arm/runner: the program, its libraries, and the loader that starts them without Debian's paths."""
    # 1. The kernels of class maps and boxes, which are C, and then the runner.
    folder, package = _emptied("runner"), BUILD / "executorch" / "executorch"
    headers = [
        _KERNELS[0].parent,
        package / "include",
        package / "include" / "executorch" / "runtime" / "core" / "portable_type" / "c10",
    ]
    objects = [BUILD / f"{source.stem}.o" for source in _KERNELS]
    for source, built in zip(_KERNELS, objects, strict=True):
        _run([*compiler("gcc"), "-std=c99", "-O2", "-ftree-vectorize", "-c", source, "-o", built])
    sources = [*(f"-I{path}" for path in headers), SOURCES / "runner.cpp", *objects]
    libraries = [f"-L{package / 'lib'}", *(f"-l{name}" for name in _LIBRARIES)]
    # The back ends register themselves when they are loaded. Nothing calls them, so the linker would leave them out.
    linking = ["-Wl,--no-as-needed", *libraries, "-Wl,--allow-shlib-undefined"]
    flags = ["-O2", "-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    _run([*compiler("g++"), *flags, *sources, "-o", folder / "runner", *linking])
    # 2. All that it loads, because devices such as phones have other C libraries.
    for name in _LIBRARIES:
        shutil.copy(package / "lib" / f"lib{name}.so", folder)
    for name in ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
                 "libgcc_s.so.1", "libstdc++.so.6"):  # fmt: skip
        shutil.copy(next((BUILD / "root").rglob(name)), folder)
    # 3. How to start it.
    start = ["./ld-linux-aarch64.so.1", "--library-path", ".", "./runner"]
    card = {"abi": "aarch64", "format": "executorch", "start": start}
    (folder / "runner.json").write_text(json.dumps(card) + "\n")


def compiler(name: str) -> list[str]:
    """Returns the command of the cross compiler `name`, "gcc" or "g++". Run it with `environment()`."""
    return [str(BUILD / "host" / "usr" / "bin" / f"aarch64-linux-gnu-{name}"), f"--sysroot={BUILD / 'host'}"]


def environment() -> dict[str, str]:
    """Returns the environment variables with which the unpacked programs find their libraries."""
    return os.environ | {"LD_LIBRARY_PATH": str(BUILD / "host" / "usr" / "lib" / "x86_64-linux-gnu")}


def _once(step: Callable[[], None], made_of: tuple[pathlib.Path, ...]) -> None:
    """Runs a step, unless it has already finished with the same sources."""
    stamp = BUILD / f".{step.__name__}"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"{step.__name__.replace('_', ' ')} ...", flush=True)
    step()
    stamp.write_text(digest)


def _emptied(name: str) -> pathlib.Path:
    """Returns the folder `name` of build/arm, new and empty."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _package_lists(architecture: str) -> list[str]:
    """Fetches the system's package lists for an architecture into build/arm; returns the options that use them."""
    folder = _emptied(f"lists-{architecture}")
    (folder / "partial").mkdir()
    settings = (
        f"APT::Architecture={architecture}",
        f"APT::Architectures={architecture}",
        f"Dir::State::Lists={folder}",
        f"Dir::Cache={folder}",
        "APT::Sandbox::User=root",
    )
    options = [word for setting in settings for word in ("-o", setting)]
    _run(["apt-get", *options, "-qq", "update"])
    return options


def _unpack(packages: tuple[str, ...], options: list[str], folder: pathlib.Path) -> None:
    """Downloads packages with their missing dependencies and unpacks them into `folder`, without installing them."""
    # apt-get itself says which dependencies are missing: a simulated installation prints a line "Inst NAME ..." each.
    plan = _run(["apt-get", *options, "--simulate", "--no-install-recommends", "install", *packages])
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    downloads = _emptied("downloads")
    _run(["apt-get", *options, "-qq", "download", *needed], downloads)
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg", "-x", package, folder])
    shutil.rmtree(downloads)


def _run(command: list, folder: pathlib.Path = SOURCES) -> str:
    """Runs a command in `folder` and returns what it prints.

    Raises:
        UserError: The program is not installed, or it failed; the message ends with the last line of its errors.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"{words[0]} is not on this machine; the set-up needs Debian 12 with gcc") from error
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"`{' '.join(words[:4])} ...` failed: {errors[-1]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
