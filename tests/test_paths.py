"""Paths of users, local and in buckets; `tests/commands/test_buckets.py` has the commands."""

import os
import pickle
import sys

import pytest
from etils import epath

from seaformer_jax import json_files, paths
from seaformer_jax.errors import UserError

TREE = {"a.txt": "1", "deep/b.txt": "2", "deep/er/c.txt": "3"}


@pytest.fixture
def bucket_folder(bucket, request):
    return epath.Path(bucket) / request.node.name.partition("[")[0]


@pytest.fixture(params=["local", "gs", "s3"])
def folder(request, tmp_path, open_bucket):
    """A local folder and one in each bucket."""
    if request.param == "local":
        return epath.Path(tmp_path)
    return epath.Path(open_bucket(request.param)) / request.node.name.partition("[")[0]


def write_tree(folder: epath.Path) -> None:
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_local_path_has_its_home_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.of("~/runs") == epath.Path("/home/me/runs")
    assert not paths.in_bucket("gs:/x") and paths.in_bucket(epath.Path("gs://x/y"))


def test_paths_outlive_pickling(bucket_folder):
    assert str(pickle.loads(pickle.dumps(paths.of(bucket_folder)))) == str(bucket_folder)


@pytest.mark.parametrize("path", ["az://b/x", "http://b/x", "hdfs://x"])
def test_unknown_kinds_are_refused(path):
    with pytest.raises(
        UserError, match=f"^{path}: unknown kind of path; expected a local path, gs:// or s3://$"
    ):
        paths.of(path)


@pytest.mark.parametrize(
    ("path", "package", "extra"), [("gs://b/x", "gcsfs", "gcs"), ("s3://b/x", "s3fs", "s3")]
)
def test_a_missing_package_names_its_extra(path, package, extra, monkeypatch):
    monkeypatch.setattr(paths.importlib.util, "find_spec", {}.get)
    with pytest.raises(UserError) as error:
        paths.of(path)
    assert str(error.value) == f'{path} needs the package {package}: pip install "seaformer-jax[{extra}]"'


def test_a_bucket_that_does_not_exist_is_not_created(bucket):
    path = bucket.replace("bucket", "misspelt") + "/run"
    for _ in range(2):
        with pytest.raises(
            UserError, match=f"^{path}: there is no bucket 'misspelt'; create it or correct the path$"
        ):
            paths.of(path)


def test_a_path_without_a_bucket(bucket):
    with pytest.raises(UserError, match="names no bucket"):
        paths.of(bucket.removesuffix("bucket"))


def test_entries(folder):
    write_tree(folder)
    assert [sorted(names) for names in paths.entries(folder)] == [["deep"], ["a.txt"]]
    assert [sorted(names) for names in paths.entries(folder / "deep")] == [["er"], ["b.txt"]]


def test_a_file_written_by_others_is_seen_at_once(bucket_folder):
    """Fsspec remembers listings unless it is told not to; tensorstore writes without its knowledge."""
    import fsspec

    write_tree(bucket_folder)
    paths.of(bucket_folder)
    assert paths.entries(bucket_folder)[1] == ["a.txt"] and (bucket_folder / "a.txt").exists()
    other, key = fsspec.core.url_to_fs(str(bucket_folder), skip_instance_cache=True)
    other.pipe_file(f"{key}/new.txt", b"")
    assert (
        sorted(paths.entries(bucket_folder)[1]) == ["a.txt", "new.txt"]
        and (bucket_folder / "new.txt").exists()
    )
    assert len(list(bucket_folder.glob("*.txt"))) == 2
    other.rm_file(f"{key}/a.txt")
    assert not (bucket_folder / "a.txt").exists()


def test_read_bytes(folder):
    write_tree(folder)
    assert paths.read_bytes(os.fspath(folder / "deep/b.txt")) == b"2"
    with pytest.raises(FileNotFoundError):
        paths.read_bytes(folder / "nothing")


def test_append(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for text in ("one\n", "two\n"):
        paths.append(folder / "log", text)
    assert (folder / "log").read_text() == "one\ntwo\n"


def test_replacing_is_all_or_nothing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with paths.replacing(folder / "x") as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), paths.replacing(folder / "x") as file:
        file.write(b"new")
        1 / 0  # noqa: B018
    assert (folder / "x").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_json_files(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for content in ({"a": [1, 2]}, {"b": None}):
        json_files.write(folder / "x.json", content)
    assert json_files.read(folder / "x.json") == {"b": None}
    assert [path.name for path in folder.iterdir()] == ["x.json"]


def test_local_copies(folder):
    write_tree(folder)
    with paths.local_copy(folder / "a.txt") as copy:
        assert copy.read_text() == "1" and copy.name == "a.txt"
    with paths.local_copy(folder) as copy:
        assert {str(p.relative_to(copy)): p.read_text() for p in copy.rglob("*.txt")} == TREE
    assert copy.exists() != paths.in_bucket(folder)


def test_a_spool_copies_what_changed(folder, monkeypatch):
    folder.mkdir(parents=True, exist_ok=True)
    spool, copied = paths.Spool(folder), []
    (spool.folder / "log").write_text("one")
    (spool.folder / "deep").mkdir()
    (spool.folder / "deep/x").write_text("x")
    spool.sync()
    assert (folder / "log").read_text() == "one" and (folder / "deep/x").read_text() == "x"
    write = type(folder).write_bytes
    monkeypatch.setattr(
        type(folder), "write_bytes", lambda path, data: copied.append(path.name) or write(path, data)
    )
    with (spool.folder / "log").open("a") as file:
        file.write(" two")
    spool.close()
    assert (folder / "log").read_text() == "one two"
    assert copied == (["log"] if paths.in_bucket(folder) else [])
    assert spool.folder.exists() != paths.in_bucket(folder)


def test_failures_of_others_are_not_those_of_a_bucket():
    try:
        raise OSError("disk")
    except OSError as error:
        assert paths.failure(error) == ""


def test_real_follows_links(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert paths.real(tmp_path / "link") == epath.Path(tmp_path / "folder")
    assert paths.real("s3://b/x") == epath.Path("s3://b/x")


def test_epath_does_not_read_buckets_through_tensorflow(bucket_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert type(bucket_folder._backend).__name__ == "_FileSystemSpecBackend"
