"""The runners: C++ programs that run the bundles of one runtime on phones, boards and in the emulator.

A runner is on_device/runner/main.cpp and pipeline.cpp, which are the same for every runtime, with the runtime's own
file. Its folder, build/arm/runners/FORMAT, holds everything that it loads, the C library included, because phones
have another one; so it needs nothing of the device but a Linux kernel for aarch64. runner.json in it is its card:
"abi", the processor it is for, and "start", the command that starts it in its folder.
"""

import json
import pathlib
import shutil
import zipfile
from typing import Any, NamedTuple

from convert.bundle import Bundle
from convert.labels.class_map import MAX_CLASSES
from convert.latency.devices import toolchain
from convert.latency.devices.base import DeviceError

_CONVERT = pathlib.Path(__file__).parents[2]
SOURCES = _CONVERT / "latency" / "on_device" / "runner"
PLUGIN = SOURCES.with_name("count.c")
SHARED = ("main.cpp", "pipeline.cpp")
KERNELS = tuple(_CONVERT / "labels" / f"{name}.c" for name in ("argmax_upsample", "decode_boxes"))
_ABI = "aarch64"
_C_LIBRARIES = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)


class Runtime(NamedTuple):
    """How the runner of a runtime is built. Paths are patterns below build/arm.

    Attributes:
        wheel: The aarch64 wheel that holds the libraries. Its version is that of the extra in setup.cfg.
        linked: Libraries that the program is linked with.
        loaded: Files that it loads besides.
        headers: Folders with headers.
        flags: Further flags of the compiler.
        modules: Python modules of this project that it loads.
    """

    wheel: str
    linked: tuple[str, ...]
    loaded: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    modules: tuple[pathlib.Path, ...] = ()


_EXECUTORCH = ("executorch", "executorch_backend_xnnpack", "executorch_kernels_optimized",
               "executorch_kernels_quantized", "executorch_threadpool")  # fmt: skip
# Format of a bundle -> its runtime.
RUNTIMES = {
    "onnx": Runtime("onnxruntime==1.31.1", ("wheels/onnxruntime/capi/libonnxruntime.so.1.*",)),
    "litert": Runtime("ai-edge-litert==2.3.0", ("wheels/ai_edge_litert/libLiteRt.so",)),
    "executorch": Runtime(
        "executorch==1.5.1",
        tuple(f"wheels/executorch/lib/lib{name}.so" for name in _EXECUTORCH),
        headers=("wheels/executorch/include", "wheels/executorch/include/executorch/runtime/core/portable_type/c10"),
        flags=("-DC10_USING_CUSTOM_GENERATED_MACROS",),
    ),
    "ncnn": Runtime(
        "ncnn==1.0.20261020",
        ("root/usr/lib/*/libpython3.11.so.1.0",),
        loaded=(
            "root/lib/*/libz.so.1",
            "root/lib/*/libexpat.so.1",
            "wheels/ncnn/ncnn.*.so",
            "wheels/ncnn.libs/*.so.*",
        ),
        headers=("root/usr/include/python3.11", "root/usr/include"),
        modules=(_CONVERT / "runtimes" / "ncnn_net.py",),
    ),
}  # fmt: skip


def check(bundle: Bundle, device: str) -> None:
    """Checks that there is a runner for a bundle.

    Raises:
        DeviceError: No runner runs such bundles, or it is not built.
    """
    if bundle.format not in RUNTIMES:
        raise DeviceError(
            f"{bundle.folder} is a {bundle.format} bundle and {device} runs {', '.join(RUNTIMES)}; "
            "export it in one of these formats"
        )
    if not (folder(bundle.format) / "runner.json").exists():
        raise DeviceError(f"there is no runner in {folder(bundle.format)}; build it with `make arm-setup`")
    classes = bundle.reference()[1].shape[-1]
    if bundle.task == "segmentation" and bundle.output != "labels" and classes > MAX_CLASSES:
        raise DeviceError(
            f"{bundle.folder} has {classes} classes; the class maps of {device} have at most {MAX_CLASSES}; "
            "measure it with --device host"
        )


def folder(kind: str) -> pathlib.Path:
    """Returns the folder of the runner of a format."""
    return toolchain.BUILD / "runners" / kind


def card(kind: str) -> dict[str, Any]:
    """Returns the card of the runner of a format: "abi" and "start"."""
    return json.loads((folder(kind) / "runner.json").read_text())


def sources() -> tuple[pathlib.Path, ...]:
    """Returns the sources of all runners."""
    modules = [module for runtime in RUNTIMES.values() for module in runtime.modules]
    return (*sorted(SOURCES.iterdir()), *KERNELS, *modules)


def build_runners() -> None:
    """Makes the folders of all runners, in build/arm/runners."""
    objects = toolchain.emptied("objects")
    shared = [_compiled(source, objects) for source in (*KERNELS, *(SOURCES / name for name in SHARED))]
    for kind, runtime in RUNTIMES.items():
        here = toolchain.emptied(f"runners/{kind}")
        _link(kind, runtime, [*shared, _compiled(SOURCES / f"{kind}.cpp", objects, runtime)], here)
        for pattern in (*runtime.linked, *runtime.loaded):
            _copy(_found(pattern), here)
        for name in _C_LIBRARIES:
            shutil.copy(next((toolchain.BUILD / "root").rglob(name)), here)
        for module in runtime.modules:
            shutil.copy(module, here)
        if runtime.modules:
            _zip_encodings(here / "python.zip")
        start = ["./ld-linux-aarch64.so.1", "--library-path", ".", "./runner"]
        (here / "runner.json").write_text(json.dumps({"abi": _ABI, "start": start}) + "\n")


def _compiled(source: pathlib.Path, objects: pathlib.Path, runtime: Runtime | None = None) -> pathlib.Path:
    """Compiles a C or C++ source and returns the object file."""
    built = objects / f"{source.stem}.o"
    # -O3, because with it the loops of the pre-processing become vector instructions.
    flags = ["-O3", "-std=c++17", f"-I{KERNELS[0].parent}"]
    if runtime:
        headers = [toolchain.BUILD / path for path in runtime.headers]
        flags += [*runtime.flags, *(word for path in headers for word in ("-idirafter", path))]
    if source.suffix == ".c":
        command = [*toolchain.compiler("gcc"), "-std=c99", "-O2", "-ftree-vectorize"]
    else:
        command = [*toolchain.compiler("g++"), *flags]
    toolchain.run([*command, "-c", source, "-o", built])
    return built


def _link(kind: str, runtime: Runtime, objects: list[pathlib.Path], here: pathlib.Path) -> None:
    libraries = [_found(pattern) for pattern in runtime.linked]
    # ExecuTorch's back ends register themselves when they are loaded. Nothing calls them, so the linker would leave
    # them out.
    linking = ["-Wl,--no-as-needed", *libraries, "-Wl,--allow-shlib-undefined"]
    toolchain.run([*toolchain.compiler("g++"), *objects, "-o", here / "runner", *linking])


def _found(pattern: str) -> pathlib.Path:
    """Returns the only file below build/arm that fits a pattern."""
    (path,) = toolchain.BUILD.glob(pattern)
    return path


def _copy(library: pathlib.Path, here: pathlib.Path) -> None:
    """Copies a library under the name by which programs load it, its "soname", if it has one."""
    lines = toolchain.run([*toolchain.compiler("readelf")[:1], "-d", library]).splitlines()
    names = [line.partition("[")[2].rstrip("]") for line in lines if "(SONAME)" in line]
    shutil.copy(library, here / (names or [library.name])[0])


def _zip_encodings(path: pathlib.Path) -> None:
    """Writes the only package of its library without which Python does not start."""
    library = _found("root/usr/lib/python3.11")
    with zipfile.ZipFile(path, "w") as archive:  # Not compressed: that would need another package.
        for name in ("__init__", "aliases", "utf_8", "latin_1", "ascii"):
            archive.write(library / "encodings" / f"{name}.py", f"encodings/{name}.py")
