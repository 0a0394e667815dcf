"""Installs a compiler into build/aot: the packages of an extra of setup.cfg, without the packages they ask for.

    python -m experiments.programs.install PLATFORM

PLATFORM is "tpu" (libtpu) or "cuda" (JAX's plug-in; neither CUDA nor cuDNN nor a driver is needed to compile).
"""

import configparser
import pathlib
import subprocess
import sys

from experiments.programs import targets

_SETUP = pathlib.Path(__file__).parents[2] / "setup.cfg"
_EXTRAS = {"tpu": "tpu-aot", "cuda": "gpu-aot"}


def requirements(platform: str) -> list[str]:
    """Returns the packages of the compiler for `platform`, such as ["libtpu==0.0.42.1"]."""
    parser = configparser.ConfigParser()
    parser.read(_SETUP)
    return parser["options.extras_require"][_EXTRAS[platform]].split()


def main() -> None:
    folder = targets.FOLDER / sys.argv[1]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *requirements(sys.argv[1])], check=True)


if __name__ == "__main__":
    main()
