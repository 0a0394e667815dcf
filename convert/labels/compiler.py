"""Compiles a C source of this folder for this machine and loads it."""

import ctypes
import pathlib
import platform
import shutil
import subprocess
import tempfile

_COMPILERS = ("cc", "gcc", "clang")


def library(name: str) -> ctypes.CDLL:
    """Compiles `name`.c for this machine and returns the loaded library.

    Raises:
        OSError: There is no C compiler, or compiling fails.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise OSError(f"no C compiler: found none of {', '.join(_COMPILERS)} on the path")
    source = pathlib.Path(__file__).with_name(f"{name}.c")
    tuned = ["-march=native"] if platform.machine() in ("x86_64", "AMD64") else []  # for fused multiply-add
    # The library is not kept: another machine with the same file system may lack this machine's instructions.
    with tempfile.TemporaryDirectory() as folder:
        built = pathlib.Path(folder) / f"{name}.so"
        options = ["-O2", "-ftree-vectorize", *tuned, "-shared", "-fPIC"]
        command = [compiler, *options, str(source), "-o", str(built), "-lm"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise OSError(f"{' '.join(command)}: {result.stderr.strip()}")
        return ctypes.CDLL(str(built))
