"""SEA attention against the paper's equations as loops, its initial state, position tables and ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from seaformer_jax.models.attention.sea import SeaAttention, SqueezeAxialPositionEmbedding
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.blocks import ConvBN

HEADS, KEY, VALUE, WIDTH = 3, 4, 8, 10  # Key and value channels are per head.


def build(seed: int = 0) -> SeaAttention:
    rng = np.random.default_rng(seed)
    return SeaAttention(WIDTH, key_dim=KEY, heads=HEADS, value_ratio=2, bn_groups=1, rng=rng)


def build_trained(seed: int = 0) -> SeaAttention:
    """An attention block with random BatchNorms whose values are wide enough to reach both ends of every ReLU6."""
    attention, rng = build(seed), np.random.default_rng(seed + 1)
    for _, bn in nnx.iter_graph(attention):
        if isinstance(bn, BatchNorm):
            for variable in (bn.scale, bn.bias, bn.mean):
                variable[...] = jnp.asarray(3 * rng.standard_normal(variable.shape), jnp.float32)
            bn.var[...] = jnp.asarray(rng.uniform(0.5, 2, bn.var.shape), jnp.float32)
    return attention


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(shape).astype(np.float32)


# The reference: float64, one image [H, W, C], loops over positions.


def array(variable: nnx.Variable) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def normalize(y: np.ndarray, bn: BatchNorm) -> np.ndarray:
    return (y - array(bn.mean)) / np.sqrt(array(bn.var) + 1e-5) * array(bn.scale) + array(bn.bias)


def pointwise(x: np.ndarray, layer: ConvBN) -> np.ndarray:
    return normalize(x @ array(layer.conv.kernel), layer.bn)


def depthwise_3x3(x: np.ndarray, layer: ConvBN) -> np.ndarray:
    kernel, y = array(layer.conv.kernel), np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        for di, dj in np.ndindex(3, 3):
            row, column = i + di - 1, j + dj - 1
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                y[i, j] += x[row, column] * kernel[di, dj]
    return normalize(y, layer.bn)


def positions(table: np.ndarray, count: int) -> np.ndarray:
    """Interpolates linearly between the centres of the entries; constant before the first and after the last."""
    entries = np.arange(len(table)) + 0.5
    centres = (np.arange(count) + 0.5) * len(table) / count
    return np.stack([np.interp(centres, entries, channel) for channel in table.T], axis=1)


def relu6(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, 0), 6)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, axis) -> np.ndarray:
    """One sum of equation 5 and its encoder, for squeezed q, k, v [N, channels]."""
    q = q + positions(array(axis.query_position.table), len(q))
    k = k + positions(array(axis.key_position.table), len(k))
    out = np.zeros_like(v)
    for head in range(HEADS):
        of_key, of_value = (slice(head * size, (head + 1) * size) for size in (KEY, VALUE))
        for i in range(len(q)):
            weights = np.exp([q[i, of_key] @ k[p, of_key] / np.sqrt(KEY) for p in range(len(k))])
            for p in range(len(k)):
                out[i, of_value] += weights[p] / weights.sum() * v[p, of_value]
    return pointwise(relu6(out), axis.encode)


def slow_attention(x: np.ndarray, attention: SeaAttention) -> np.ndarray:
    q, k, v = (pointwise(x, layer) for layer in (attention.to_q, attention.to_k, attention.to_v))
    height, width = x.shape[:2]
    rows = attend(*(np.stack([t[i].mean(0) for i in range(height)]) for t in (q, k, v)), attention.row)
    columns = attend(
        *(np.stack([t[:, j].mean(0) for j in range(width)]) for t in (q, k, v)), attention.column
    )
    attended = np.zeros_like(v)
    for i, j in np.ndindex(height, width):
        attended[i, j] = v[i, j] + rows[i] + columns[j]
    gate = relu6(pointwise(relu6(attended), attention.project) + 3) / 6
    detail = relu6(depthwise_3x3(np.concatenate([q, k, v], axis=2), attention.detail_depthwise))
    return gate * pointwise(detail, attention.detail_pointwise)


@pytest.mark.parametrize("size", [(5, 7), (4, 4), (1, 3), (20, 2)])
def test_attention_equals_loops(size):
    attention, x = build_trained(), images(2, *size, WIDTH)
    found = nnx.jit(lambda attention, x: attention(x, train=False))(attention, jnp.asarray(x))
    expected = [slow_attention(image.astype(np.float64), attention) for image in x]
    assert np.std(expected) > 0.1  # If every gate were shut, the test would compare zeros.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


# Initialisation.


@pytest.mark.parametrize("train", [False, True])
def test_fresh_attention_is_half_the_detail(train):
    attention, x = build(), jnp.asarray(images(2, 5, 7, WIDTH))
    qkv = [layer(x, train) for layer in (attention.to_q, attention.to_k, attention.to_v)]
    hidden = jax.nn.relu6(attention.detail_depthwise(jnp.concatenate(qkv, axis=-1), train))
    detail = attention.detail_pointwise(hidden, train)
    assert detail.std() > 0.01
    np.testing.assert_allclose(attention(x, train), 0.5 * detail, rtol=1e-6, atol=1e-6)


def test_scales_that_start_at_zero():
    zero = {
        path
        for path, node in nnx.iter_graph(build())
        if isinstance(node, BatchNorm) and not node.scale[...].any()
    }
    assert zero == {("project", "bn"), ("row", "encode", "bn"), ("column", "encode", "bn")}


def test_tables_start_as_standard_normal():
    rng = np.random.default_rng(0)
    tables = np.stack([SqueezeAxialPositionEmbedding(64, rng).table[...] for _ in range(8)])
    assert tables.shape == (8, 16, 64)
    assert abs(tables.mean()) < 0.05  # 4.5 standard errors
    assert tables.std() == pytest.approx(1, abs=0.04)


# Position tables.


@pytest.mark.parametrize("count", [1, 4, 7, 15, 16, 17, 32, 53])
def test_table_is_interpolated_as_pytorch_does(count):
    embedding = SqueezeAxialPositionEmbedding(6, np.random.default_rng(0))
    table = torch.from_numpy(np.array(embedding.table[...]).T[None])  # [1, C, 16]
    expected = F.interpolate(table, size=count, mode="linear", align_corners=False)[0].T
    tokens = jnp.asarray(images(2, count, 6))
    np.testing.assert_allclose(embedding(tokens), tokens + expected.numpy(), rtol=0, atol=5e-6)


def test_table_takes_the_dtype_of_the_tokens():
    embedding = SqueezeAxialPositionEmbedding(6, np.random.default_rng(0))
    assert embedding(jnp.zeros((1, 5, 6), jnp.bfloat16)).dtype == jnp.bfloat16


# The ablations of detail enhancement.


def test_fresh_attention_without_detail_adds_nothing():
    attention = SeaAttention(WIDTH, KEY, HEADS, 2, 1, np.random.default_rng(0), detail_input="none")
    assert not attention(jnp.asarray(images(2, 5, 7, WIDTH)), train=False).any()


def test_parameters_of_the_ablations():
    def count(**options) -> int:
        attention = SeaAttention(WIDTH, KEY, HEADS, 2, 1, np.random.default_rng(0), **options)
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(attention, nnx.Param)))

    qkv, published = HEADS * (2 * KEY + VALUE), count()
    # Depthwise and pointwise convolution, each with BatchNorm.
    branch = (9 * qkv + 2 * qkv) + (qkv * WIDTH + 2 * WIDTH)
    narrow = (9 * WIDTH + 2 * WIDTH) + (WIDTH * WIDTH + 2 * WIDTH)
    assert published - count(detail_input="none") == branch
    assert count(detail_input="upconv") - published == WIDTH * qkv + 2 * qkv
    assert count(detail_input="conv") == published - branch + narrow + (WIDTH * WIDTH + 2 * WIDTH)
    assert count(detail_combine="add") == published
    assert published - count(position_embedding=False) == 4 * 16 * HEADS * KEY
