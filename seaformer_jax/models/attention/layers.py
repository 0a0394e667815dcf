"""What the attention modules share: linear layers, LayerNorm, multi-head attention, and how a module is built."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.blocks import ConvBN, Pointwise

_EPSILON = 1e-5  # PyTorch's default, which all the modules keep.


class Linear(Pointwise):
    """A linear layer that is called as `ConvBN` is, so that either can project: [..., inputs] -> [..., outputs]."""

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return super().__call__(x)


class LayerNorm(nnx.Module):
    """Normalises each position over its channels, in float32: [..., C] -> the same shape and dtype."""

    def __init__(self, features: int):
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        values = x.astype(jnp.float32)
        centred = values - values.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
        return (centred * factor * self.scale[...] + self.bias[...]).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What shapes an attention module besides its width and its heads.

    Attributes:
        inner: Channels of queries, keys and values each; 0 takes the width of the module. Only some kinds read it.
        window: Side of a window, for the kinds that have windows.
        shift: Moves the windows by half their side, so that neighbours of other windows meet; not for `mixformer`.
        size: (height, width) of the feature map; only `axial_deeplab` needs it, because its tables fix it.
        bn_groups: BatchNorm groups of the batch, see `BatchNorm`.
        normalized: False builds the published module, with linear layers. With True every projection to queries, keys
            and values and back has a BatchNorm instead of a bias, and the module starts at 0: a SeaFormer layer has
            no norm of its own.
    """

    inner: int = 0
    window: int = 7
    shift: bool = False
    size: tuple[int, int] | None = None
    bn_groups: int = 1
    normalized: bool = False

    @property
    def start(self) -> float:
        """Initial strength of the module's output: 0 in a SeaFormer, 1 as published."""
        return 0.0 if self.normalized else 1.0

    def project(
        self, inputs: int, outputs: int, rng: np.random.Generator, *, use_bias: bool = True
    ) -> Linear | ConvBN:
        """Returns a projection to queries, keys or values; call it as `layer(x, train)`."""
        return self._layer(inputs, outputs, rng, use_bias, 1.0)

    def project_back(self, inputs: int, outputs: int, rng: np.random.Generator) -> Linear | ConvBN:
        """Returns the projection of the attended values, whose output is that of the module."""
        return self._layer(inputs, outputs, rng, True, self.start)

    def _layer(
        self, inputs: int, outputs: int, rng: np.random.Generator, use_bias: bool, scale: float
    ) -> Linear | ConvBN:
        if not self.normalized:
            return Linear(inputs, outputs, rng, use_bias=use_bias)
        conv = Pointwise(inputs, outputs, rng)
        return ConvBN(conv, outputs, groups=self.bn_groups, initial_scale=scale)


def check_heads(channels: int, heads: int) -> None:
    """Raises UserError unless `heads` divides `channels`."""
    if heads < 1 or channels % heads:
        raise UserError(
            f"attention has {heads} heads for {channels} channels; expected a divisor of {channels}"
        )


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Reshapes [..., heads * d] to [..., heads, d]."""
    return x.reshape(*x.shape[:-1], heads, -1)


def merge_heads(x: jax.Array) -> jax.Array:
    """Reshapes [..., heads, d] to [..., heads * d]."""
    return x.reshape(*x.shape[:-2], -1)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Multi-head attention, softmax(q k^T / sqrt(d) + bias) v.

    Logits and softmax are in float32, whatever the dtype of the model.

    Args:
        q, k, v: [..., N, heads, d].
        bias: float32, broadcast to the logits [..., heads, N queries, N keys].
    Returns:
        [..., N, heads, d].
    """
    logits = jnp.einsum("...nhd,...mhd->...hnm", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits if bias is None else logits + bias, axis=-1)
    return jnp.einsum("...hnm,...mhd->...nhd", weights.astype(v.dtype), v)
