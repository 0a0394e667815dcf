"""The Swin Transformer as a backbone (Liu et al. 2021), with a choice of attention.

Sizes that the strides do not divide are padded with zeros on the right and below, as in the authors' code for dense
prediction (SwinTransformer/Swin-Transformer-Semantic-Segmentation).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models import attention as kinds
from seaformer_jax.models import extents
from seaformer_jax.models.attention.layers import LayerNorm, Linear, Setting
from seaformer_jax.models.attention.windows import pad
from seaformer_jax.models.blocks import add_parameter
from seaformer_jax.models.convolution import product
from seaformer_jax.models.swin_config import SwinConfig

_PATCH = 4  # Side of the patches that the first layer embeds.
_STD = 0.02  # Standard deviation of the initial weights of linear layers.


class PatchEmbedding(nnx.Module):
    """4x4 convolution of stride 4, then LayerNorm: [B, H, W, 3] -> [B, ceil(H/4), ceil(W/4), C]."""

    def __init__(self, width: int, rng: np.random.Generator):
        bound = (3 * _PATCH**2) ** -0.5  # PyTorch's default for a convolution.
        kernel = rng.uniform(-bound, bound, (_PATCH, _PATCH, 3, width))
        self.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(rng.uniform(-bound, bound, width), jnp.float32))
        self.norm = LayerNorm(width)

    def __call__(self, images: jax.Array) -> jax.Array:
        patches = _blocks(pad(images, _PATCH), _PATCH)
        kernel = self.kernel[...].reshape(patches.shape[-1], -1)
        return self.norm(add_parameter(product(patches, kernel), self.bias[...]))


class PatchMerging(nnx.Module):
    """Joins the channels of 2x2 positions and projects them: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2C]."""

    def __init__(self, width: int, rng: np.random.Generator):
        self.norm, self.reduction = LayerNorm(4 * width), Linear(4 * width, 2 * width, rng)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, _ = (padded := pad(x, 2)).shape
        blocks = _blocks(padded, 2).reshape(batch, height // 2, width // 2, 2, 2, -1)
        # The official code puts the second row before the second column.
        joined = blocks.swapaxes(3, 4).reshape(batch, height // 2, width // 2, -1)
        return self.reduction(self.norm(joined))


class Mlp(nnx.Module):
    """Linear layer, exact GELU, linear layer: [..., C] -> [..., C]."""

    def __init__(self, width: int, hidden: int, rng: np.random.Generator):
        self.fc1, self.fc2 = (
            Linear(width, hidden, rng, use_bias=True),
            Linear(hidden, width, rng, use_bias=True),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class TransformerBlock(nnx.Module):
    """LayerNorm and attention, LayerNorm and MLP, each a residual branch: the block of Swin and of MixFormer.

    Args:
        width: Channels.
        attention: Module that is called as `attention(x, train)`.
        mlp_ratio: Hidden channels of the MLP / width.
        drop_path_rate: Probability that a branch is dropped for an image.
        rng: Source of the initial values.
    """

    def __init__(
        self,
        width: int,
        attention: nnx.Module,
        mlp_ratio: int,
        drop_path_rate: float,
        rng: np.random.Generator,
    ):
        self.norm1, self.attention = LayerNorm(width), attention
        self.norm2, self.mlp = LayerNorm(width), Mlp(width, mlp_ratio * width, rng)
        self.drop_path = nnx.Dropout(drop_path_rate, broadcast_dims=(1, 2, 3))

    def __call__(self, x: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape; with `rngs` None, both branches of every image are kept."""
        keep_all = rngs is None
        x = x + self.drop_path(self.attention(self.norm1(x), train), deterministic=keep_all, rngs=rngs)
        return x + self.drop_path(self.mlp(self.norm2(x)), deterministic=keep_all, rngs=rngs)


class Stage(nnx.Module):
    """Merging of patches, except in the first stage, and transformer blocks."""

    def __init__(self, merge: PatchMerging | None, blocks: list[TransformerBlock]):
        self.merge, self.blocks = merge, nnx.List(blocks)

    def __call__(self, x: jax.Array, train: bool, rngs: nnx.Rngs | None) -> jax.Array:
        x = x if self.merge is None else self.merge(x)
        for block in self.blocks:
            x = block(x, train, rngs)
        return x


class Swin(nnx.Module):
    """The backbone: maps images to the normalised feature maps of four stages."""

    takes_sizes = False  # As in `SeaFormer`.

    def __init__(self, config: SwinConfig, rng: np.random.Generator):
        self.patch = PatchEmbedding(config.width, rng)
        rates = iter(np.linspace(0, config.drop_path_rate, sum(config.depths)))
        self.stages, self.norms = nnx.List([]), nnx.List([])
        for index, depth in enumerate(config.depths):
            width = config.width << index
            blocks = [
                TransformerBlock(
                    width, _attention(config, index, i, rng), config.mlp_ratio, float(next(rates)), rng
                )
                for i in range(depth)
            ]
            self.stages.append(Stage(PatchMerging(width // 2, rng) if index else None, blocks))
            self.norms.append(LayerNorm(width))
        self.dtype = jnp.dtype(config.dtype)
        _initialise(self, rng)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Returns the output of every stage, normalised.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: BatchNorm, which some kinds of attention have, uses batch statistics and updates the running ones.
            rngs: Random numbers with a `dropout` stream for stochastic depth; None keeps every branch.
            sizes: None; the other models take the sizes of padded images.
        Returns:
            Four feature maps [B, ceil(H/s), ceil(W/s), C_s] for s = 4, 8, 16, 32.
        Raises:
            UserError: There are `sizes`.
        """
        if sizes is not None:
            raise extents.not_taken()
        x, features = self.patch(images.astype(self.dtype)), []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x, train, rngs)
            features.append(norm(x))
        return tuple(features)


def _attention(config: SwinConfig, stage: int, block: int, rng: np.random.Generator) -> nnx.Module:
    """Creates the attention of block number `block` of a stage."""
    kind, width, heads = config.attention, config.width << stage, config.heads[stage]
    stride = _PATCH << stage
    setting = Setting(
        window=config.attention_window,
        shift=block % 2 == 1 and kind in ("window_shift", "acmix_swin"),
        size=tuple(-(-side // stride) for side in config.attention_input) or None,
        bn_groups=config.bn_groups,
    )
    return kinds.build("window" if kind == "window_shift" else kind, width, heads, rng, setting)


def _initialise(model: nnx.Module, rng: np.random.Generator) -> None:
    """Gives linear layers the official initial values: weights from N(0, 0.02^2), biases 0."""
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Linear):
            layer.kernel[...] = jnp.asarray(_STD * rng.standard_normal(layer.kernel.shape), jnp.float32)
            if layer.bias is not None:
                layer.bias[...] = jnp.zeros(layer.bias.shape)


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """Joins side x side positions of x [B, H, W, C] into [B, H / side, W / side, side * side * C]."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch * height // side, side, width // side, side * channels).swapaxes(1, 2)
    return rows.reshape(batch, height // side, width // side, side * side * channels)
