"""The tools in build/arm, where `make arm-setup` puts them, that make and run aarch64 programs on this machine."""

import hashlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

from seaformer_jax.errors import UserError

BUILD = pathlib.Path(__file__).parents[3] / "build" / "arm"
CPU = "cortex-a76"


def compiler(name: str) -> list[str]:
    """Returns the command of the cross compiler `name`, "gcc", "g++" or "readelf". Run it with `environment()`."""
    return [str(BUILD / "host" / "usr" / "bin" / f"aarch64-linux-gnu-{name}"), f"--sysroot={BUILD / 'host'}"]


def environment() -> dict[str, str]:
    """Returns the environment variables with which the unpacked programs find their libraries."""
    return os.environ | {"LD_LIBRARY_PATH": str(BUILD / "host" / "usr" / "lib" / "x86_64-linux-gnu")}


def once(step: Callable[[], None], made_of: tuple[pathlib.Path, ...]) -> None:
    """Runs a step, unless it has already finished with the same sources."""
    stamp = BUILD / f".{step.__name__}"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"{step.__name__.replace('_', ' ')} ...", flush=True)
    step()
    stamp.write_text(digest)


def emptied(name: str) -> pathlib.Path:
    """Returns the folder `name` of build/arm, new and empty."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(command: list, folder: pathlib.Path | None = None) -> str:
    """Runs a command in `folder`, by default the current one, and returns what it prints.

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
