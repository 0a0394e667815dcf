"""ONNX Runtime Web comes from the npm registry once, and errors are one line."""

import hashlib
import io
import tarfile

import pytest

from convert.web import library
from seaformer_jax.errors import UserError
from tests.convert.latency.device_standins import script


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm, which packs a file for every file of the library; returns the package."""
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in library._FILES:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    script(tmp_path / "npm", f"#!/bin/sh\necho $* >>{tmp_path}/calls\ncp {package} .\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    return package


def test_the_library_is_fetched_once(tmp_path, npm):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        library.write_page(tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {*library.PAGE, *library._FILES}
    assert (tmp_path / "one/ort.wasm.min.mjs").read_text() == "ort.wasm.min.mjs"
    assert (tmp_path / "calls").read_text() == f"pack onnxruntime-web@{library.VERSION}\n"


def test_another_package_is_refused(tmp_path, npm, monkeypatch):
    monkeypatch.setattr(library, "_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"onnxruntime-web@.* has the SHA-256 .*; expected 0000"):
        library.fetched()
    assert not list((tmp_path / "cache/seaformer_jax").iterdir())


def test_a_registry_out_of_reach(tmp_path, npm):
    script(tmp_path / "npm", "#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"npm cannot fetch onnxruntime-web.*: npm error network"):
        library.fetched()


def test_no_npm(tmp_path, npm, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="--format web needs npm, to fetch onnxruntime-web"):
        library.fetched()
