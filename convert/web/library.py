"""Fetches ONNX Runtime Web from the npm registry, once, and puts the page of a web bundle together."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from seaformer_jax.errors import UserError

VERSION = "1.30.0"
_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# The scripts and programs of WebAssembly, with SIMD and threads, and of WebGPU. The other half is for other uses.
_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
PAGE = ("index.html", "page.js", "network.js", "labels.js", "resample.js", "measure.js")


def write_page(folder: pathlib.Path) -> None:
    """Copies the page and ONNX Runtime Web into a bundle.

    Raises:
        UserError: The library is not here yet and cannot be fetched.
    """
    here = pathlib.Path(__file__).parent
    for path in (*(here / name for name in PAGE), *(fetched() / name for name in _FILES)):
        shutil.copyfile(path, folder / path.name)


def fetched() -> pathlib.Path:
    """Returns the folder of the library's files, in the user's cache; fetches them with npm if they are not there."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = cache / "seaformer_jax" / f"onnxruntime-web-{VERSION}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when complete, so that a killed export leaves nothing half.
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _unpack(_packed(pathlib.Path(scratch)), pathlib.Path(scratch) / "files")
            (pathlib.Path(scratch) / "files").replace(folder)
    return folder


def _packed(scratch: pathlib.Path) -> pathlib.Path:
    """Returns the package as npm packs it."""
    package = f"onnxruntime-web@{VERSION}"
    if shutil.which("npm") is None:
        raise UserError(
            f"--format web needs npm, to fetch {package} once; install Node.js (Debian: apt-get install npm)"
        )
    done = subprocess.run(["npm", "pack", package], cwd=scratch, capture_output=True, text=True)
    found = list(scratch.glob("*.tgz"))
    if done.returncode or not found:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("npm error")), "no file")
        raise UserError(f"npm cannot fetch {package}: {reason}; is the npm registry within reach?")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != _SHA256:
        raise UserError(
            f"{package} has the SHA-256 {digest[:16]}...; expected {_SHA256[:16]}...; try again later"
        )
    return found[0]


def _unpack(package: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in _FILES:
            (folder / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
