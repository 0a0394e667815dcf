"""Segmentation weights: official names, round trips, mmseg's files, and fine-tuning from a classifier."""

import ast
import inspect

import jax
import numpy as np
import pytest
import torch
from absl import logging
from flax import nnx

from convert import torch_model, torch_segmentation, weights
from convert.checkpoints import files, starting_weights
from seaformer_jax import create_model, list_models
from seaformer_jax.errors import UserError
from tests import golden

CLASSES = 6
HEAD = "decode_head.conv_seg.weight"  # [CLASSES, 96, 1, 1] in tiny
STEM = "smb1.stem_block.0.c.weight"


def segmenter(name: str = "seaformer_tiny", seed: int = 0, **options) -> nnx.Module:
    return create_model(name, "segmentation", CLASSES, seed, **options)


def mirror(name: str = "seaformer_tiny", num_classes: int = CLASSES) -> torch.nn.Module:
    return torch_segmentation.create_model(name, num_classes)


def filled(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return golden.fill({name: tuple(value.shape) for name, value in model.state_dict().items()})


def classifier_weights(name: str = "seaformer_tiny") -> dict[str, np.ndarray]:
    return filled(torch_model.create_model(name, num_classes=9))


def snapshot(model: nnx.Module) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# The official names.


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_names_and_shapes_are_the_official_ones(size):
    expected = golden.state_dict_shapes(f"seg_{size}")
    found = mirror(f"seaformer_{size}", num_classes=150).state_dict()
    assert [(name, tuple(value.shape)) for name, value in found.items()] == list(expected.items())
    ours = weights.to_torch(create_model(f"seaformer_{size}", "segmentation", 150))
    assert {name: value.shape for name, value in ours.items()} == expected


BY_SIZE = [
    pytest.param(name, marks=() if name.endswith(("tiny", "large")) else pytest.mark.slow)
    for name in list_models()
]


@pytest.mark.parametrize("name", BY_SIZE)
def test_there_and_back(name):
    reference, model = mirror(name), segmenter(name)
    state_dict = filled(reference)
    weights.from_torch(model, state_dict)
    found = weights.to_torch(model)
    assert_same(found, state_dict)
    reference.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in found.items()}, strict=True)


def test_some_official_names():
    shapes = {name: value.shape for name, value in weights.to_torch(segmenter()).items()}
    expected = {
        f"backbone.{STEM}": (16, 3, 3, 3),
        "backbone.trans2.transformer_blocks.1.attn.pos_emb_columnk.pos_embed": (1, 96, 16),
        "decode_head.fuse1.local_embedding.conv.weight": (64, 32, 1, 1),
        "decode_head.fuse2.global_act.bn.running_var": (96,),
        "decode_head.linear_fuse.conv.weight": (96, 1, 1, 1),
        HEAD: (CLASSES, 96, 1, 1),
        "decode_head.conv_seg.bias": (CLASSES,),
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_mirror_needs_torch_and_the_other_file_alone():
    nodes = list(ast.walk(ast.parse(inspect.getsource(torch_segmentation))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"torch", "torch.nn", "convert.torch_model"}


def test_mirror_starts_as_mmseg_does():
    torch.manual_seed(0)
    head = mirror(num_classes=150).decode_head
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.conv_seg.bias.any()
    assert head.fuse2.local_embedding.conv.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.05)
    assert head.linear_fuse.conv.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.3)


# Files.


def test_mmseg_checkpoint_is_read(tmp_path):
    state_dict = filled(mirror())
    best = {"best_score": np.float64(0.35), "best_ckpt": "best_mIoU.pth"}
    meta = {
        "CLASSES": ("a", "b"),
        "PALETTE": [[1, 2, 3], [4, 5, 6]],
        "config": "model = dict()",
        "hook_msgs": best,
    }
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    torch.save({"meta": meta, "state_dict": tensors, "optimizer": {"state": {}}}, tmp_path / "latest.pth")
    read = files.read_state_dict(tmp_path / "latest.pth")
    assert weights.class_count(read, "segmentation") == CLASSES
    model = segmenter()
    weights.from_torch(model, read)
    assert_same(weights.to_torch(model), state_dict)


def test_classifier_is_refused_as_a_segmentation_model():
    state_dict, model = classifier_weights(), segmenter()
    before = snapshot(model)
    with pytest.raises(UserError, match=r"0 names match; 458 missing \(backbone\.smb1.*361"):
        weights.from_torch(model, {k: v for k, v in state_dict.items() if "num_batches" not in k})
    with pytest.raises(
        UserError,
        match=r"other model than one for segmentation: decode_head\.conv_seg\.weight .* is missing; its",
    ):
        weights.class_count(state_dict, "segmentation")
    assert all(np.array_equal(a, b) for a, b in zip(before, snapshot(model), strict=True))


# init_from


@pytest.fixture
def log(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *values: lines.append(message % values))
    return lines


@pytest.mark.parametrize("wrapped", ["state_dict_ema", "state_dict", "model", None])
def test_backbone_of_a_classifier_is_loaded_and_the_head_stays_fresh(tmp_path, log, wrapped):
    state_dict = classifier_weights()
    content = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    torch.save({"epoch": 3, wrapped: content} if wrapped else content, tmp_path / "cls.pth.tar")
    model, fresh = segmenter(), weights.to_torch(segmenter())
    starting_weights.load_into(model, str(tmp_path / "cls.pth.tar"))
    found = weights.to_torch(model)
    for name, value in found.items():
        expected = (
            fresh[name] if name.startswith("decode_head.") else state_dict[name.removeprefix("backbone.")]
        )
        np.testing.assert_array_equal(value, expected, err_msg=name)

    _, matched, missing, unexpected, misshaped = log[-1].splitlines()
    assert matched == "359 matched: smb1 45, smb2 30, smb3 30, smb4 15, trans1 112, smb5 15, trans2 112"
    heads = sorted(name for name in found if name.startswith("decode_head."))
    assert missing == f"{len(heads)} missing: {', '.join(heads)}"
    assert unexpected == "2 unexpected: linear.bias, linear.weight"
    assert misshaped == "0 misshaped"


def test_segmentation_weights_of_other_classes_keep_all_but_the_last_layer(tmp_path, log):
    state_dict = filled(mirror(num_classes=9))
    files.write_state_dict(tmp_path / "seg.safetensors", state_dict)
    model, fresh = segmenter(), weights.to_torch(segmenter())
    starting_weights.load_into(model, str(tmp_path / "seg.safetensors"))
    last = {HEAD: fresh[HEAD], "decode_head.conv_seg.bias": fresh["decode_head.conv_seg.bias"]}
    assert_same(weights.to_torch(model), state_dict | last)
    assert "\n2 misshaped: decode_head.conv_seg.bias: found (9,), expected (6,), " in log[-1]
    assert log[-1].endswith(f"{HEAD}: found (9, 96, 1, 1), expected (6, 96, 1, 1)")


@pytest.mark.parametrize("source", ["another_size", "nothing", "a_name_short"])
def test_other_backbones_are_refused_and_leave_the_model(tmp_path, source):
    state_dict = classifier_weights("seaformer_small" if source == "another_size" else "seaformer_tiny")
    if source == "nothing":
        state_dict = {f"layer{i}.weight": np.zeros(3, np.float32) for i in range(3)}
    if source == "a_name_short":
        del state_dict[STEM]
    files.write_state_dict(tmp_path / "m.safetensors", state_dict)
    model = segmenter()
    before = snapshot(model)
    count = {"another_size": r"\d+", "nothing": "0", "a_name_short": "358"}[source]
    with pytest.raises(
        UserError, match=rf"m\.safetensors has another backbone than the model.*: {count} names match"
    ):
        starting_weights.load_into(model, str(tmp_path / "m.safetensors"))
    assert all(np.array_equal(a, b) for a, b in zip(before, snapshot(model), strict=True))


def test_ablation_without_positions_takes_the_published_backbone(tmp_path, log):
    files.write_state_dict(tmp_path / "m.safetensors", classifier_weights())
    starting_weights.load_into(segmenter(position_embedding=False), str(tmp_path / "m.safetensors"))
    assert "\n343 matched: " in log[-1]
    assert "\n18 unexpected: backbone.trans1." in log[-1]
