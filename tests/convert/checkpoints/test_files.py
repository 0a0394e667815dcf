"""Weights in files: what is read from checkpoints, what is refused, and that writing is atomic."""

import argparse
import collections
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from convert import torch_model
from convert.checkpoints.files import beside, read_state_dict, write_state_dict
from seaformer_jax.errors import UserError
from tests.paths import REPOSITORY

SUFFIXES = ["pth", "pth.tar", "pt", "safetensors"]


def weights(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"linear.weight": torch.full((2, 3), value), "linear.bias": torch.arange(2.0)}


def official_checkpoint(**changes) -> dict:
    """Returns the content of a .pth.tar of timm's `CheckpointSaver`, with small weights."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.RMSprop([parameter], lr=0.064, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 599,
        "arch": "SeaFormer_T",
        "state_dict": collections.OrderedDict(weights(1.0)),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="SeaFormer_T", lr=0.064, mean=(0.485, 0.456), resume=None),
        "amp_scaler": {"scale": 65536.0, "_growth_tracker": 0},
        "state_dict_ema": collections.OrderedDict(weights(2.0)),
        "metric": 68.1,
    }
    return checkpoint | changes


class Writer:
    """An object whose unpickling creates the file `path`."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Plain:
    """A harmless object of a class that the reader does not know."""


# Round trips.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_keeps_names_values_dtypes_and_shapes(tmp_path, suffix):
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    state_dict = {
        "a.weight": kernel,
        "a.transposed": kernel.T,  # not contiguous
        "a.bn.num_batches_tracked": np.asarray(7, np.int64),
        "a.empty": np.zeros((0, 3), np.float32),
    }
    path = tmp_path / f"model.{suffix}"
    write_state_dict(path, state_dict)
    found = read_state_dict(str(path))
    assert found.keys() == state_dict.keys()
    for name, value in state_dict.items():
        assert isinstance(found[name], np.ndarray)
        np.testing.assert_array_equal(found[name], value, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
def test_pytorch_loads_what_was_written(tmp_path, suffix):
    source, target = (torch_model.create_model("seaformer_tiny", num_classes=3) for _ in range(2))
    path = tmp_path / f"model.{suffix}"
    write_state_dict(path, {name: value.numpy() for name, value in source.state_dict().items()})
    target.load_state_dict(torch.load(path), strict=True)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_safetensors_of_pytorch_and_ours_are_the_same_format(tmp_path):
    safetensors.torch.save_file(weights(), tmp_path / "theirs.safetensors")
    found = read_state_dict(tmp_path / "theirs.safetensors")
    write_state_dict(tmp_path / "ours.safetensors", found)
    loaded = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert loaded.keys() == weights().keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights().items())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_bfloat16_becomes_float32(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    save = torch.save if suffix == "pth" else safetensors.torch.save_file
    save({"x": torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)}, path)
    np.testing.assert_array_equal(read_state_dict(path)["x"], np.float32([1, 1.0078125]), strict=True)


# What is read from a checkpoint.


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before_1.6"])
def test_official_checkpoint_gives_the_averaged_weights(tmp_path, zipped):
    path = tmp_path / "model_best.pth.tar"
    torch.save(official_checkpoint(), path, _use_new_zipfile_serialization=zipped)
    found = read_state_dict(path)
    assert list(found) == ["linear.weight", "linear.bias"]
    np.testing.assert_array_equal(found["linear.weight"], np.full((2, 3), 2, np.float32), strict=True)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"model": 1, "state_dict": 2, "model_ema": 3, "state_dict_ema": 4}, 4),
        ({"model": 1, "state_dict": 2, "model_ema": 3}, 3),
        ({"model": 1, "state_dict": 2}, 2),
        ({"model": 1}, 1),
        ({"state_dict": 2, "state_dict_ema": None, "model_ema": None}, 2),
    ],
)
def test_first_key_of_the_official_order_is_taken(tmp_path, present, expected):
    content = {key: value and weights(float(value)) for key, value in present.items()}
    torch.save(content | {"epoch": 3}, tmp_path / "x.pth")
    assert read_state_dict(tmp_path / "x.pth")["linear.weight"][0, 0] == expected


def test_bare_state_dict_leaves_out_what_is_no_tensor(tmp_path):
    torch.save(weights() | {"epoch": 3}, tmp_path / "x.pth")
    assert list(read_state_dict(tmp_path / "x.pth")) == ["linear.weight", "linear.bias"]


def test_prefix_of_parallel_training_is_removed_once_and_in_front_only(tmp_path):
    names = ["module.linear.weight", "module.module.x", "a.module.b", "plain"]
    torch.save({"state_dict": {name: torch.zeros(1) for name in names}}, tmp_path / "x.pth")
    assert list(read_state_dict(tmp_path / "x.pth")) == ["linear.weight", "module.x", "a.module.b", "plain"]


def test_parameters_that_require_gradients_are_read(tmp_path):
    torch.save(dict(torch.nn.Linear(3, 2).named_parameters()), tmp_path / "x.pth")
    assert {name: value.shape for name, value in read_state_dict(tmp_path / "x.pth").items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }


def test_arrays_survive_the_file(tmp_path):
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
        write_state_dict(path, {"x": np.ones(100_000, np.float32)})
        found = read_state_dict(path)["x"]
        path.write_bytes(bytes(path.stat().st_size))  # In place: a mapped array would become zeros.
        assert found.min() == 1


# What is refused.


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before_1.6"])
@pytest.mark.parametrize("place", ["weights", "args", "whole"])
def test_code_in_a_file_does_not_run(tmp_path, zipped, place):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pth"
    attack = Writer(canary)
    content = {
        "weights": official_checkpoint(state_dict_ema={"linear.weight": attack}),
        "args": official_checkpoint(args=argparse.Namespace(model=attack)),
        "whole": attack,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match=r"hostile\.pth holds more than tensors: _?io\.open .*only its state dict"
    ):
        read_state_dict(path)
    assert not canary.exists()
    pickle.loads(pickle.dumps(attack)).close()
    assert canary.exists()  # The attack itself works.


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_plain_pickle_does_not_run(tmp_path, suffix, protocol):
    canary, path = tmp_path / "canary", tmp_path / f"hostile.{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Writer(canary)}, protocol=protocol))
    with pytest.raises(UserError, match="hostile"):
        read_state_dict(path)
    assert not canary.exists()


@pytest.mark.parametrize("value", [np.float64(68.1), np.float32(68.1)])
def test_scores_do_not_keep_a_file_from_being_read(tmp_path, value):
    torch.save(official_checkpoint(metric=value), tmp_path / "x.pth.tar")
    assert read_state_dict(tmp_path / "x.pth.tar")


def test_unknown_object_is_named(tmp_path):
    torch.save(official_checkpoint(metric=Plain()), tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match=r"holds more than tensors: \S*Plain could run code") as error:
        read_state_dict(tmp_path / "x.pth.tar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["empty", "text", "noise", "half", "no_end"])
def test_damaged_file(tmp_path, suffix, damage):
    path = tmp_path / f"x.{suffix}"
    write_state_dict(path, {"x": np.ones(1000, np.float32)})
    whole = path.read_bytes()
    content = {
        "empty": b"",
        "text": b"<html>404: Not Found</html>\n",
        "noise": np.random.default_rng(0).bytes(5000),
        "half": whole[: len(whole) // 2],
        "no_end": whole[:-8],
    }[damage]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.{suffix} \({len(content)} bytes\) is no readable") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_damaged_file_of_old_pytorch(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="no readable PyTorch file"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "found nothing"),
        ({"epoch": 3, "net": weights()}, "found the keys epoch, net;"),
        ({"state_dict": {}}, "found the keys state_dict;"),
        ({"model": 5}, "found the keys model;"),
        ({0: torch.zeros(2), 1: torch.zeros(3)}, "found the keys 0, 1;"),
        ([torch.zeros(2)], "found a list;"),
        (torch.zeros(2), "found a Tensor;"),
    ],
)
def test_file_without_a_state_dict(tmp_path, content, found):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"no tensors in .*x\.pth: {found}.* expected a state dict"):
        read_state_dict(tmp_path / "x.pth")


def test_empty_safetensors(tmp_path):
    write_state_dict(tmp_path / "x.safetensors", {})
    with pytest.raises(UserError, match="no tensors"):
        read_state_dict(tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file_and_directory(tmp_path, suffix):
    with pytest.raises(UserError, match=rf"nothing\.{suffix}: No such file"):
        read_state_dict(tmp_path / f"nothing.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(UserError, match=rf"folder\.{suffix}: Is a directory"):
        read_state_dict(tmp_path / f"folder.{suffix}")


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.tar", "model.pth.gz"])
def test_unknown_suffix(tmp_path, name):
    for action in (read_state_dict, lambda path: write_state_dict(path, {"x": np.ones(1)})):
        with pytest.raises(UserError, match=rf"'{name}'; expected .*\.pth, \.pth\.tar, \.pt, \.safetensors"):
            action(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# Writing.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"x.{suffix}"
    write_state_dict(path, {"x": np.ones(3, np.float32)})

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UserError, match=rf"cannot write .*x\.{suffix}: No space left on device"):
        write_state_dict(path, {"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(read_state_dict(path)["x"], np.ones(3, np.float32))
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    write_state_dict(path, {"x": np.ones(3, np.float32)})

    def interrupt(content, file):
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_state_dict(path, {"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(read_state_dict(path)["x"], np.ones(3, np.float32))
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.pth").mkdir()
    for place, reason in {
        "nothing/x.pth": "No such file or directory",
        "file/x.pth": "Not a directory",
        "folder.pth": "Is a directory",
    }.items():
        with pytest.raises(UserError, match=f"cannot write .*{place}: {reason}"):
            write_state_dict(tmp_path / place, {"x": np.ones(1, np.float32)})
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder.pth"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_name_beside(suffix):
    assert beside(pathlib.Path(f"a/model.v2.{suffix}"), ".json") == pathlib.Path("a/model.v2.json")


# PyTorch is not needed for safetensors.


def test_without_pytorch_its_own_files_name_the_extra(tmp_path, monkeypatch):
    torch.save(weights(), tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    for action in (read_state_dict, lambda path: write_state_dict(path, {"x": np.ones(1)})):
        with pytest.raises(UserError, match=r'pip install "seaformer-jax\[convert\]"'):
            action(tmp_path / "x.pth")


def test_safetensors_work_without_pytorch(tmp_path):
    code = """if True:
        import sys
        sys.modules["torch"] = None
        import numpy as np
        from convert.checkpoints.files import read_state_dict, write_state_dict
        write_state_dict(sys.argv[1], {"x": np.arange(3)})
        assert read_state_dict(sys.argv[1])["x"].tolist() == [0, 1, 2]
    """
    path = tmp_path / "x.safetensors"
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=REPOSITORY, timeout=120)
