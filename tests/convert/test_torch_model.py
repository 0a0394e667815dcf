"""The PyTorch models against outputs of the official models, and against values that are known without them."""

import ast
import inspect
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convert import torch_model
from tests import golden

OFFICIAL = {"seaformer_tiny": "T", "seaformer_small": "S", "seaformer_base": "B", "seaformer_large": "L"}
PARAMETERS = {
    "seaformer_tiny": 1_781_096,
    "seaformer_small": 4_105_656,
    "seaformer_base": 8_742_664,
    "seaformer_large": 14_046_504,
}


def filled(name: str, drop_path_rate: float = 0.1) -> torch_model.SeaFormer:
    model = torch_model.create_model(name, drop_path_rate=drop_path_rate)
    arrays = golden.fill({entry: tuple(value.shape) for entry, value in model.state_dict().items()})
    model.load_state_dict({entry: torch.from_numpy(array) for entry, array in arrays.items()})
    return model


def eval_logits(name: str, shape: tuple[int, int, int, int], seed: int) -> np.ndarray:
    with torch.inference_mode():
        return filled(name).eval()(torch.from_numpy(golden.images(shape, seed))).numpy()


# Against the official models.


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_has_official_names_shapes_and_order(name):
    state_dict = torch_model.create_model(name).state_dict()
    found = [(entry, tuple(value.shape)) for entry, value in state_dict.items()]
    assert found == list(golden.state_dict_shapes(f"cls_{OFFICIAL[name]}").items())


@pytest.mark.parametrize(
    ("case", "name", "shape", "seed"),
    [
        ("cls_T_eval_224", "seaformer_tiny", (2, 3, 224, 224), 0),
        ("cls_S_eval_160x256", "seaformer_small", (2, 3, 160, 256), 1),
        ("cls_T_eval_203x261", "seaformer_tiny", (1, 3, 203, 261), 2),
    ],
)
def test_eval_logits_equal_official(case, name, shape, seed):
    expected = golden.load(case)["logits"]
    np.testing.assert_allclose(eval_logits(name, shape, seed), expected, rtol=0, atol=1e-4)


def test_eval_logits_equal_some_official_values():
    # The first six logits of `cls_T_eval_203x261`, so that a checkout without the vectors still tests against the
    # official model.
    expected = [-0.5814459, 0.0263955, -0.06700593, 0.34868345, 0.25380117, 0.38996246]
    logits = eval_logits("seaformer_tiny", (1, 3, 203, 261), seed=2)
    np.testing.assert_allclose(logits[0, :6], expected, rtol=0, atol=1e-4)


def test_train_step_equals_official():
    expected = golden.load("cls_T_train_96")
    model = filled("seaformer_tiny", drop_path_rate=0.0).train()
    logits = model(torch.from_numpy(golden.images((8, 3, 96, 96), seed=3)))
    loss = F.cross_entropy(logits, torch.arange(8) * 100)
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected["loss"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits.detach().numpy(), expected["logits"], rtol=0, atol=1e-4)

    grads = {entry: p.grad.double().norm().item() for entry, p in model.named_parameters()}
    assert list(grads) == expected["param_names"].tolist()
    # A shift that the next BatchNorm removes has gradient 0. atol allows for its rounding noise (norms reach 51).
    np.testing.assert_allclose(list(grads.values()), expected["grad_norms"], rtol=1e-3, atol=1e-5)

    buffers = {entry: b.double().norm().item() for entry, b in model.named_buffers() if "running" in entry}
    assert list(buffers) == expected["buffer_names"].tolist()
    np.testing.assert_allclose(list(buffers.values()), expected["buffer_norms"], rtol=1e-4)


# Without the golden vectors.


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    assert sum(p.numel() for p in torch_model.create_model(name).parameters()) == PARAMETERS[name]


def test_some_official_names():
    shapes = {
        entry: tuple(v.shape) for entry, v in torch_model.create_model("seaformer_tiny").state_dict().items()
    }
    expected = {
        "smb1.stem_block.0.c.weight": (16, 3, 3, 3),
        "smb1.layer1.conv.0.bn.running_mean": (16,),  # expansion 1: the depthwise convolution comes first
        "smb1.layer2.conv.0.c.weight": (64, 16, 1, 1),
        "smb5.layer1.conv.4.c.weight": (160, 768, 1, 1),
        "trans1.transformer_blocks.0.attn.to_q.c.weight": (64, 128, 1, 1),
        "trans1.transformer_blocks.0.attn.proj_encode_row.1.bn.weight": (128,),
        "trans1.transformer_blocks.1.attn.pos_emb_columnk.pos_embed": (1, 64, 16),
        "trans2.transformer_blocks.1.mlp.dwconv.bias": (640,),
        "linear.weight": (1000, 160),
    }
    assert {entry: shapes.get(entry) for entry in expected} == expected


@pytest.mark.parametrize("name", OFFICIAL)
def test_stage_outputs_and_class_count(name):
    model = torch_model.create_model(name, num_classes=7).eval()
    images = torch.zeros(1, 3, 70, 130)
    with torch.inference_mode():
        shapes = [tuple(feature.shape) for feature in model.forward_features(images)]
        assert model(images).shape == (1, 7)
    sizes = [(math.ceil(70 / stride), math.ceil(130 / stride)) for stride in (4, 8, 16, 32, 64)]
    assert shapes == [(1, c, *size) for c, size in zip(model.channels, sizes, strict=True)]


def test_attention_is_half_the_detail_at_initialisation():
    torch.manual_seed(0)
    attention = torch_model.SeaAttention(channels=12, key_dim=4, heads=2)
    x = torch.randn(2, 12, 5, 7)
    detail = attention.detail(torch.cat([attention.to_q(x), attention.to_k(x), attention.to_v(x)], dim=1))
    torch.testing.assert_close(attention(x), 0.5 * detail, rtol=0, atol=1e-6)


def test_attend_equals_a_loop_over_heads_and_queries():
    heads, key, value, tokens = 3, 2, 4, 5
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, heads * key, tokens, generator=generator)
    v = torch.randn(1, heads * value, tokens, generator=generator)
    expected = torch.zeros_like(v)
    for head in range(heads):
        qk, out = slice(head * key, (head + 1) * key), slice(head * value, (head + 1) * value)
        for i in range(tokens):
            weights = torch.stack([(q[0, qk, i] @ k[0, qk, p]) / key**0.5 for p in range(tokens)]).softmax(0)
            expected[0, out, i] = sum(weights[p] * v[0, out, p] for p in range(tokens))
    attention = torch_model.SeaAttention(channels=8, key_dim=key, heads=heads)
    torch.testing.assert_close(attention.attend(q, k, v), expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    drop_path, x = torch_model.DropPath(0.25), torch.ones(4000, 2, 3, 1)
    torch.manual_seed(0)
    y = drop_path(x)
    assert torch.equal(y, y[:, :1, :1, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean().item() == pytest.approx(1, abs=0.05)  # 5 standard errors
    assert torch.equal(drop_path.eval()(x), x)


def test_drop_path_restarts_in_each_stage():
    model = torch_model.create_model("seaformer_large", drop_path_rate=0.2)
    rates = [module.rate for module in model.modules() if isinstance(module, torch_model.DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2] * 3)


def test_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'seaformer_huge'.*seaformer_tiny"):
        torch_model.create_model("seaformer_huge")


def test_file_needs_torch_alone():
    nodes = list(ast.walk(ast.parse(inspect.getsource(torch_model))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} == {"torch", "typing"}
