"""The exchange of weights with PyTorch: round trips, and the errors for checkpoints that do not fit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_model, weights
from seaformer_jax import create_model, list_models
from seaformer_jax.errors import UserError
from tests import golden, toys
from tests.convert.alive import alive

# Small inputs; on them PyTorch's threads spend a hundred times as long waiting for one another as working.
SIZE = (64, 80)
IMAGES = golden.images((2, 3, *SIZE), seed=0)
PATCH = "smb1.layer1.conv.0.c.weight"  # [16, 1, 3, 3] in tiny


def jax_logits(model: nnx.Module) -> np.ndarray:
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    return np.asarray(forward(state, IMAGES.transpose(0, 2, 3, 1)))


def torch_logits(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(IMAGES)).numpy()


def trained(name: str, num_classes: int = 9) -> nnx.Module:
    """Returns a model in which every part reaches the logits, as after training.

    In a fresh one BatchNorm scales of 0 and small features keep the axial attention from mattering.
    """
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes)
    weights.from_torch(model, alive(torch_model.create_model(name, num_classes), SIZE).state_dict())
    return model


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference as a fraction of the largest logit."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def tiny_state_dict() -> dict[str, np.ndarray]:
    state_dict = torch_model.create_model("seaformer_tiny", num_classes=9).state_dict()
    return golden.fill({name: tuple(value.shape) for name, value in state_dict.items()})


def snapshot(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Round trips.


@pytest.mark.parametrize(
    "name",
    [
        "seaformer_tiny",
        "seaformer_plus_tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in list_models()
            if "plus" not in name and name != "seaformer_tiny"
        ),
    ],
)
def test_pytorch_loads_ours_strictly_and_gives_the_same_logits(name):
    model, reference = trained(name), torch_model.create_model(name, num_classes=9)
    state_dict = weights.to_torch(model)
    found = {entry: torch.tensor(value) for entry, value in state_dict.items()}
    reference.load_state_dict(found, strict=True)
    assert {entry: value.dtype for entry, value in found.items()} == {
        entry: value.dtype for entry, value in reference.state_dict().items()
    }
    assert relative(jax_logits(model), torch_logits(reference)) < 1e-4

    copy = create_model(name, num_classes=9, seed=1)
    weights.from_torch(copy, state_dict)
    assert same(snapshot(copy), snapshot(model))


def test_parts_of_the_attention_cannot_be_confused():
    """The logits that are compared above differ by far more than their tolerance if two parts are exchanged."""
    reference = torch_model.create_model("seaformer_tiny", num_classes=9)
    found = {name: torch.tensor(value) for name, value in weights.to_torch(trained("seaformer_tiny")).items()}
    reference.load_state_dict(found)
    expected = torch_logits(reference)
    for parts in (
        ("encode_row", "encode_column"),
        ("rowq", "rowk"),
        ("columnq", "columnk"),
        ("rowk", "columnk"),
    ):
        swap = dict(zip(parts, reversed(parts), strict=True))
        names = {
            name: re.sub("|".join(parts), lambda match, swap=swap: swap[match[0]], name) for name in found
        }
        reference.load_state_dict({names[name]: value for name, value in found.items()})
        assert relative(torch_logits(reference), expected) > 0.1, parts


def test_statistics_moved_by_training_reach_pytorch():
    toys.register()
    model, reference = create_model("mini", num_classes=9), torch_model.create_model("mini", 9)
    fresh = jax_logits(model)
    nnx.jit(lambda model, x: model(x, train=True))(model, jnp.asarray(IMAGES.transpose(0, 2, 3, 1)))
    assert np.abs(jax_logits(model) - fresh).max() > 1e-3
    found = {name: torch.tensor(value) for name, value in weights.to_torch(model, batches_tracked=1).items()}
    reference.load_state_dict(found)
    np.testing.assert_allclose(jax_logits(model), torch_logits(reference), rtol=0, atol=1e-4)
    assert {value.item() for name, value in found.items() if name.endswith("num_batches_tracked")} == {1}


def test_state_dict_of_a_pytorch_model_is_taken_as_it_is():
    toys.register()
    reference = torch_model.create_model("mini", num_classes=9)
    reference.train()(torch.from_numpy(IMAGES))  # moves the statistics and the counters
    model = create_model("mini", num_classes=9)
    weights.from_torch(model, reference.state_dict())
    np.testing.assert_allclose(jax_logits(model), torch_logits(reference), rtol=0, atol=1e-4)


def test_values_keep_to_float32():
    model, state_dict = create_model("seaformer_tiny", num_classes=9), tiny_state_dict()
    halved = {name: value.astype(np.float16) for name, value in state_dict.items()}
    weights.from_torch(model, halved)
    assert {value.dtype for value in snapshot(model)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(weights.to_torch(model)[PATCH], halved[PATCH].astype(np.float32))


def test_model_does_not_share_memory_with_the_checkpoint():
    model, state_dict = create_model("seaformer_tiny", num_classes=9), tiny_state_dict()
    weights.from_torch(model, state_dict)
    before = snapshot(model)
    before = [value.copy() for value in before]
    for value in state_dict.values():
        value[...] = 0
    assert same(snapshot(model), before)


# Checkpoints that do not fit.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({PATCH: None}, rf"1 missing \({PATCH}\)$"),
        ({"smb1.layer1.conv.0.bn.num_batches_tracked": None}, r"1 missing \(\S+num_batches_tracked\)$"),
        ({"head.weight": np.zeros(3)}, r"1 unexpected \(head\.weight\)$"),
        (
            {PATCH: np.zeros((16, 1, 5, 5), np.float32)},
            rf"1 misshaped \({PATCH}: found \(16, 1, 5, 5\), expected \(16, 1, 3, 3\)\)$",
        ),
        (
            {"linear.weight": None, "linear.bias": np.zeros(5), "a": np.zeros(1), "b": np.zeros(1)},
            r"1 missing \(linear\.weight\); 2 unexpected \(a, b\); 1 misshaped \(linear\.bias: found \(5,\), .*\)$",
        ),
        ({f"extra{i}": np.zeros(1) for i in range(8)}, r"8 unexpected \(extra0, .*extra4, and 3 more\)$"),
    ],
    ids=["missing", "missing_counter", "unexpected", "misshaped", "all", "many"],
)
def test_other_models_are_refused_with_the_names(change, message):
    model = create_model("seaformer_tiny", num_classes=9)
    before = snapshot(model)
    state_dict = {name: value for name, value in (tiny_state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=re.compile(message)) as error:
        weights.from_torch(model, state_dict)
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)
    assert same(snapshot(model), before)


def test_transposed_kernel_is_misshaped_and_not_reshaped():
    model, state_dict = create_model("seaformer_tiny", num_classes=9), tiny_state_dict()
    state_dict["linear.weight"] = state_dict["linear.weight"].T
    with pytest.raises(UserError, match=r"linear\.weight: found \(160, 9\), expected \(9, 160\)"):
        weights.from_torch(model, state_dict)


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        (
            {"backbone.conv1.weight": np.zeros(3)},
            r"linear\.weight \[classes, channels\] is missing; its 1 names are back",
        ),
        ({"linear.weight": np.zeros(3)}, r"linear\.weight \[classes, channels\] has the shape \(3,\)"),
    ],
)
def test_class_count_of_no_classifier_is_an_error(state_dict, message):
    with pytest.raises(UserError, match=message):
        weights.class_count(state_dict, "classification")


# Fine-tuning.


def test_class_count_and_backbone_of_a_classifier():
    state_dict = tiny_state_dict()
    assert weights.class_count(state_dict, "classification") == 9
    outside = {name for name in state_dict if not weights.in_backbone(name)}
    assert {name for name in outside if not name.endswith("num_batches_tracked")} == {
        "linear.weight",
        "linear.bias",
    }
    assert len(state_dict) - len(outside) == len(snapshot(create_model("seaformer_tiny"))) - 2


def test_another_class_count_loads_all_but_the_head():
    model, state_dict = create_model("seaformer_tiny", num_classes=4, seed=3), tiny_state_dict()
    head = [np.array(variable[...]) for variable in (model.head.kernel, model.head.bias)]
    matching = weights.load_matching(model, state_dict)
    assert matching.missing == matching.unexpected == []
    assert sorted(matching.misshaped) == [
        "linear.bias: found (9,), expected (4,)",
        "linear.weight: found (9, 160), expected (4, 160)",
    ]
    counters = {name for name in state_dict if name.endswith("num_batches_tracked")}
    assert set(matching.matched) == state_dict.keys() - counters - {"linear.weight", "linear.bias"}
    loaded = weights.to_torch(model)
    for name in matching.matched:
        np.testing.assert_array_equal(loaded[name], state_dict[name], err_msg=name)
    assert same(head, [np.asarray(model.head.kernel[...]), np.asarray(model.head.bias[...])])


def test_partial_checkpoint_leaves_the_rest():
    model = create_model("seaformer_tiny", num_classes=9)
    before, part = weights.to_torch(model), {PATCH: tiny_state_dict()[PATCH]}
    matching = weights.load_matching(model, part)
    assert matching.matched == [PATCH]
    assert PATCH not in matching.missing
    after = weights.to_torch(model)
    assert {name for name, value in after.items() if not np.array_equal(value, before[name])} == {PATCH}


@pytest.mark.parametrize(
    "state_dict",
    [{}, {"backbone.conv1.weight": np.zeros(3)}, {PATCH: np.zeros(3)}],
    ids=["empty", "other_names", "other_shapes"],
)
def test_nothing_that_fits_is_an_error(state_dict):
    model = create_model("seaformer_tiny", num_classes=9)
    before = snapshot(model)
    with pytest.raises(UserError, match="nothing in the checkpoint fits the model: 0 names match"):
        weights.load_matching(model, state_dict)
    assert same(snapshot(model), before)
