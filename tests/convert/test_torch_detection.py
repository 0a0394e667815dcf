"""The PyTorch detectors against outputs of mmdetection, and against values that are known without them."""

import ast
import inspect
import math

import numpy as np
import pytest
import torch

from convert import torch_detection
from tests import golden

OFFICIAL = {"seaformer_tiny": "T", "seaformer_small": "S", "seaformer_base": "B", "seaformer_large": "L"}
PARAMETERS = {
    "seaformer_tiny": 10_911_860,
    "seaformer_small": 13_306_820,
    "seaformer_base": 18_064_148,
    "seaformer_large": 23_516_980,
}
LEVELS = 5
FILES = "detection"


def filled(module: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    """Returns `module` with the weights of `golden.fill` for its names, each with `prefix` before it."""
    shapes = {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}
    arrays = golden.fill(shapes)
    module.load_state_dict({n.removeprefix(prefix): torch.from_numpy(value) for n, value in arrays.items()})
    return module


def detector(**options) -> torch_detection.Detector:
    return filled(torch_detection.create_model("seaformer_tiny", 3, drop_path_rate=0.0, **options))


def by_anchor(expected: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Returns the stored maps name_0 ... name_4, [B, 9 * n, h, w], in the order of the model: [B, A, n]."""
    maps = [expected[f"{name}_{i}"] for i in range(LEVELS)]
    rows = [m.transpose(0, 2, 3, 1).reshape(len(m), -1, m.shape[1] // torch_detection.ANCHORS) for m in maps]
    return np.concatenate(rows, axis=1)


def assert_outputs(found: tuple[torch.Tensor, torch.Tensor], expected, prefix: str, within: float) -> None:
    for output, name in zip(found, ("cls", "box"), strict=True):
        reference = by_anchor(expected, prefix + name)
        np.testing.assert_allclose(
            output.detach().numpy()[: len(reference)], reference, rtol=0, atol=within, err_msg=name
        )


# Against mmdetection.


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_has_official_names_shapes_and_order(name):
    state_dict = torch_detection.create_model(name).state_dict()
    found = [(entry, tuple(v.shape)) for entry, v in state_dict.items() if "num_batches" not in entry]
    assert found == list(golden.state_dict_shapes(f"det_{OFFICIAL[name]}", FILES).items())


@pytest.mark.parametrize("case", ["neck_head_96x160", "neck_head_61x93_80"])
def test_neck_and_head_equal_official(case):
    expected = golden.load(case, FILES)
    rng, (height, width) = np.random.default_rng(int(expected["seed"])), expected["batch_shape"]
    channels = expected["channels"].tolist()
    features = [
        torch.from_numpy(rng.standard_normal((1, c, -(-height // s), -(-width // s))).astype(np.float32))
        for c, s in zip(channels, (8, 16, 32, 64), strict=True)
    ]
    neck = filled(torch_detection.FPN(channels, 256), "neck.")
    head = filled(torch_detection.RetinaHead(256, 4, int(expected["num_classes"])), "bbox_head.")
    with torch.no_grad():
        pyramid = neck(features)
        outputs = head(pyramid)
    assert_outputs(outputs, expected, "", within=2e-5)
    for i, level in enumerate(pyramid):
        if f"fpn_{i}" in expected:
            np.testing.assert_allclose(level, expected[f"fpn_{i}"], rtol=0, atol=5e-5)
        else:
            assert level.norm().item() == pytest.approx(expected[f"fpn_{i}_norm"], rel=1e-5)


def test_outputs_in_evaluation_equal_official():
    expected = golden.load("detector_T_eval_203x261", FILES)
    images = torch.from_numpy(golden.images((1, 3, 203, 261), int(expected["seed"])))
    with torch.no_grad():
        assert_outputs(detector().eval()(images), expected, "eval_", within=2e-5)


def test_outputs_in_training_equal_official():
    expected = golden.load("detector_T_train_128x160", FILES)
    model, images = detector(), torch.from_numpy(golden.images((4, 3, 128, 160), int(expected["seed"])))
    assert [name for name, _ in model.named_parameters()] == expected["param_names"].tolist()
    with torch.no_grad():
        assert_outputs(model.train()(images), expected, "train_", within=2e-4)


# Without the golden vectors.


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    """The papers give 10.9 million for the smallest."""
    model = torch_detection.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_anchor_comes_before_class_in_the_channels():
    head = torch_detection.RetinaHead(8, 1, num_classes=5)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    head.retina_cls.bias.data = torch.arange(45.0)
    head.retina_reg.bias.data = torch.arange(36.0)
    logits, deltas = head([torch.zeros(2, 8, 3, 4)])
    assert logits.shape == (2, 108, 5) and deltas.shape == (2, 108, 4)
    assert (logits == torch.arange(45.0).reshape(9, 5).repeat(12, 1)).all()
    assert (deltas == torch.arange(36.0).reshape(9, 4).repeat(12, 1)).all()


def test_starts_as_mmdetection_does():
    torch.manual_seed(0)
    model = torch_detection.create_model("seaformer_tiny")
    head, bound = model.bbox_head, math.sqrt(6 / (9 * 512))
    assert head.retina_cls.bias.unique().item() == pytest.approx(-4.59512)
    assert head.reg_convs[2].conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
    weight = model.neck.fpn_convs[1].conv.weight
    assert 0.99 * bound < weight.abs().max().item() <= bound and not model.neck.fpn_convs[4].conv.bias.any()


def test_sizes_of_the_head_are_options():
    model = torch_detection.create_model("seaformer_tiny", 2, neck_width=32, tower_convs=1, anchor_scale=2.0)
    assert model.neck.lateral_convs[3].conv.weight.shape == (32, 160, 1, 1)
    assert len(model.bbox_head.cls_convs) == 1 and model.bbox_head.retina_cls.weight.shape == (18, 32, 3, 3)


def test_mirror_needs_torch_and_the_other_file_alone():
    nodes = list(ast.walk(ast.parse(inspect.getsource(torch_detection))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"math", "torch", "torch.nn", "convert.torch_model"}
