"""Compiles one program in a process of its own, and keeps the compiler's text of it.

    python -m experiments.programs.compiling PLATFORM NAME FILE

The commands start this with the environment of `targets.environment`. Compiling takes minutes, and the text is all
that the figures are read from. It is kept, so that they can be read again without compiling again.
"""

import gzip
import json
import pathlib
import re
import resource
import subprocess
import sys
import time
from typing import Any, NamedTuple

from experiments.programs import catalogue, targets
from seaformer_jax import versions
from seaformer_jax.errors import UserError

FOLDER = pathlib.Path(__file__).parents[2] / "build" / "programs"
_MEMORY = ("argument", "output", "alias", "temp", "generated_code")
_COMPILERS = {"tpu": ("jax", "libtpu"), "cuda": ("jax", "jax-cuda13-plugin")}


class Compiled(NamedTuple):
    """What the compiler says of a program.

    Attributes:
        text: The program in XLA's HLO text.
        memory: Bytes on each chip by kind: argument, output, alias (arguments whose memory holds outputs), temp,
            generated_code and peak_memory.
        facts: CPU seconds of lowering and compiling, and the versions of the compilers.
    """

    text: str
    memory: dict[str, int]
    facts: dict[str, Any]


def compile_apart(platform: str, name: str, folder: pathlib.Path = FOLDER) -> Compiled:
    """Compiles the program `name` in a new process; it writes to a file in `folder`, which is kept.

    Raises:
        UserError: The compiler for `platform` is not installed, or compiling failed.
    """
    if not targets.installed(platform):
        raise UserError(f"there is no compiler for {platform}; run make aot")
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, name)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", __name__, platform, name, str(path)]
    # Both compilers write warnings that mean nothing here, so the messages are shown only if there is no result.
    done = subprocess.run(
        command, env=targets.environment(platform), cwd=FOLDER.parents[1], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{name!r} was not compiled, status {done.returncode}: {_error(done.stderr)}")
    return load(name, folder)


def _error(messages: str) -> str:
    """Returns the line of a process's messages that names its error: the last Python error, else the last line."""
    lines = messages.strip().splitlines() or ["no message"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception): ", line)), lines[-1])


def load(name: str, folder: pathlib.Path = FOLDER) -> Compiled:
    """Returns the program `name` as it was compiled last; raises FileNotFoundError if it was not."""
    with gzip.open(_path(folder, name), "rt") as file:
        return Compiled(**json.load(file))


def _path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / (re.sub(r"[^\w]+", "_", name) + ".json.gz")


def _compile(platform: str, name: str) -> Compiled:
    program = catalogue.programs(platform)[name]
    began = time.monotonic()
    lowered = program.lower(program.target.mesh())
    compiled = lowered.compile()
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory = compiled.memory_analysis()
    return Compiled(
        compiled.as_text(),
        {kind: getattr(memory, f"{kind}_size_in_bytes", 0) for kind in _MEMORY}
        | {"peak_memory": getattr(memory, "peak_memory_in_bytes", 0)},
        {
            "cpu_seconds": round(used.ru_utime + used.ru_stime),
            "seconds": round(time.monotonic() - began),
            "versions": {package: versions.installed(package) for package in _COMPILERS[platform]},
        },
    )


def main() -> None:
    platform, name, path = sys.argv[1:]
    with gzip.open(path, "wt") as file:
        json.dump(_compile(platform, name)._asdict(), file)


if __name__ == "__main__":
    main()
