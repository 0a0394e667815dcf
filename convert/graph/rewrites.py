"""Rewrites a trained PyTorch model into its inference form: the same function in fewer and simpler operators.

There are eight rewrites, each exact except for rounding. They are applied in the order of `REWRITES`, and each needs
the result of those before it. The inference form has batch size 1 and a fixed input size, as on a phone.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from convert.graph.doubling import double
from convert.graph.layers import AxialAttention, MergedAttention, Shift, SplitAxialAttention, Squeeze
from convert.graph.replacing import parts, replace
from convert.torch_attention import layers as swapped
from convert.torch_model import (
    AdaptiveMap,
    ConvBN,
    SeaAttention,
    SqueezeAxialPositionalEmbedding,
)
from convert.torch_segmentation import ConvModule, FusionBlock, LightHead
from convert.torch_swin import Swin
from seaformer_jax.errors import UserError

STRIDE = 64  # Stride of the last stage, in pixels of the input.

Size = tuple[int, int]  # height, width
Normalization = tuple[Sequence[float], Sequence[float]]  # mean, std of the three channels


def deploy(model: nn.Module, input_size: Size, normalize: Normalization | None = None) -> nn.Module:
    """Returns the inference form of `model`; `model` itself is unchanged.

    The result takes float32 images [1, 3, H, W]. It returns the logits, [1, num_classes] for a classifier and
    [1, num_classes, ceil(H / 8), ceil(W / 8)] for a segmentation model; a detector returns logits [1, A, num_classes]
    and box deltas [1, A, 4].

    Args:
        model: A model of the `create_model` of `torch_model`, `torch_segmentation` or `torch_detection`.
        input_size: H and W in pixels.
        normalize: Mean and standard deviation, in the unit of the images, if the result is to normalise its input.
            None if its input is normalised already.

    Raises:
        UserError: The input is smaller than the stride of the last stage.
    """
    check_input_size(input_size)
    model = rewritten(model, input_size, REWRITES)
    return model if normalize is None else include_normalization(model, *normalize)


def check_input_size(size: Size) -> None:
    """Raises UserError if an input of `size` is smaller than the stride of the last stage."""
    if min(size) < STRIDE:
        height, width = size
        raise UserError(
            f"input size {height}x{width} is below the model's stride of {STRIDE}; choose at least {STRIDE}x{STRIDE}"
        )


@torch.no_grad()
def rewritten(model: nn.Module, input_size: Size, rewrites: Sequence["Rewrite"]) -> nn.Module:
    """Returns a copy of `model` in evaluation mode with `rewrites` applied, the first few of `REWRITES`."""
    model = copy.deepcopy(model).eval()
    for rewrite in rewrites:
        rewrite(model, input_size)
    return model.requires_grad_(False)


def fold_batch_norm(model: nn.Module, input_size: Size) -> None:
    """Folds every BatchNorm, and the constant factor of SeaFormer++'s maps, into the convolution before it."""
    replace(model, ConvBN, lambda layer: _folded(layer.c, layer.bn))
    replace(model, ConvModule, lambda layer: _folded(layer.conv, layer.bn))
    replace(model, AdaptiveMap, _scaled)
    # Projections of other kinds of attention.
    replace(model, swapped.ConvBN, lambda layer: _folded(layer.c, layer.bn))
    replace(model, swapped.LinearBN, _folded_linear)


def merge_qkv(model: nn.Module, input_size: Size) -> None:
    """Computes q, k and v in one 1x1 convolution; its output is also the input of detail enhancement."""
    replace(model, SeaAttention, _merged)


def bake_positions(model: nn.Module, input_size: Size) -> None:
    """Replaces the tables of positions by constants, resized to their lengths at this input size."""
    for stage, (height, width) in _attention_stages(model, input_size):
        for attention in parts(stage, SeaAttention):
            if attention.proj is None:
                continue
            lengths = {"rowq": height, "rowk": height, "columnq": width, "columnk": width}
            for name, length in lengths.items():
                embedding = attention.get_submodule(f"pos_emb_{name}")
                if isinstance(embedding, SqueezeAxialPositionalEmbedding):
                    # The embedding adds its resized table, so applied to zeros it returns the table.
                    table = embedding(embedding.pos_embed.new_zeros(1, 1, length))
                    setattr(attention, f"pos_emb_{name}", Shift(table))


def rearrange_attention(model: nn.Module, input_size: Size) -> None:
    """Uses one mean per axis for q, k and v together, and one addition per axis for the positions of q and k."""
    replace(model, SplitAxialAttention, lambda split: AxialAttention(split.attention, split.widths))


def absorb_hard_sigmoid(model: nn.Module, input_size: Size) -> None:
    """Reduces every hard sigmoid relu6(x + 3) / 6 that gates a product to a plain ReLU6.

    The 3 is added to the bias of the convolution that computes x. The 1/6 scales the weights of the other factor. In
    the head a resize lies between the sigmoid and the product; it is linear, so it commutes with the 1/6.
    """
    # 1. Attention: the gate multiplies the detail.
    for attention in parts(model, MergedAttention):
        if attention.gate is not None:
            attention.axial.proj[-1].bias += 3
            _scale(attention.detail[-1], 1 / 6)
            attention.gate = nn.ReLU6()
    # 2. Head: the context multiplies the local embedding.
    for block in parts(model, FusionBlock):
        if block.method == "sigmoid_multiply":
            block.global_act.bias += 3
            _scale(block.local_embedding, 1 / 6)
            block.global_act = nn.Sequential(block.global_act, nn.ReLU6())
            block.method = "multiply"


def rearrange_head(model: nn.Module, input_size: Size) -> None:
    """Folds the depthwise 1x1 convolution after the last product of the head into a factor of the product and a bias.

    A model with an up-sampling module is left as it is: the module lies between the product and the convolution.
    """
    if getattr(model, "upsample", None) is not None:
        return
    for head in parts(model, LightHead):
        block = head.get_submodule(f"fuse{head.depth}")
        if block.method == "multiply":
            _scale(block.local_embedding, head.linear_fuse.weight.flatten())
            head.linear_fuse = Shift(head.linear_fuse.bias.reshape(1, -1, 1, 1))


def pool_for_delegates(model: nn.Module, input_size: Size) -> None:
    """Uses operators that XNNPACK takes: average pooling as the mean over one axis, and products of three axes."""
    for stage, (height, width) in _attention_stages(model, input_size):
        for axial in parts(stage, AxialAttention):
            axial.squeeze.row_mean = nn.AvgPool2d((1, width))
            axial.squeeze.column_mean = nn.AvgPool2d((height, 1))
            axial.lead, axial.product = axial.lead[1:], torch.bmm  # Without the batch axis of size 1.


def products_of_four_axes(model: nn.Module) -> None:
    """Restores attention's products of four axes for ncnn, where products of three axes cost half as much again."""
    for axial in parts(model, AxialAttention):
        axial.lead, axial.product = (1, *axial.lead[-1:]), torch.matmul


def for_half_arithmetic(model: nn.Module) -> nn.Module:
    """Returns a copy of a float32 graph for a runtime that computes it in half precision: nothing overflows there."""
    model = copy.deepcopy(model)
    for squeeze in parts(model, Squeeze):
        squeeze.arithmetic = torch.float16
    return model


def any_batch(model: nn.Module) -> None:
    """Lets attention take any number of images at once, in products of four axes."""
    products_of_four_axes(model)
    for axial in parts(model, AxialAttention):
        axial.batch, axial.lead = -1, (-1, axial.lead[-1])


@torch.no_grad()
def include_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Returns `model` with normalisation included: a subtraction of the mean, and 1/std in the first convolution.

    The mean is not folded into a bias, because that would be wrong at the borders: the convolution pads normalised
    images with 0.
    """
    stem = next(parts(model, nn.Conv2d))
    stem.weight /= torch.tensor(std).to(stem.weight).reshape(1, -1, 1, 1)
    return nn.Sequential(Shift(-torch.tensor(mean).to(stem.weight).reshape(1, -1, 1, 1)), model)


Rewrite = Callable[[nn.Module, Size], None]
REWRITES: tuple[Rewrite, ...] = (
    fold_batch_norm,
    merge_qkv,
    bake_positions,
    rearrange_attention,
    absorb_hard_sigmoid,
    rearrange_head,
    pool_for_delegates,
    double,
)


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Merges a convolution without bias and a BatchNorm into a convolution with bias, computed in float64."""
    scale, bias = _affine(bn)
    return _like(conv, conv.weight.double() * scale.reshape(-1, 1, 1, 1), bias)


def _folded_linear(layer: swapped.LinearBN) -> nn.Linear:
    """Merges a linear layer without bias and a BatchNorm into a linear layer with bias, computed in float64."""
    scale, bias = _affine(layer.bn)
    new = nn.Linear(layer.c.in_features, layer.c.out_features).to(layer.c.weight)
    new.weight.copy_(layer.c.weight.double() * scale.reshape(-1, 1)), new.bias.copy_(bias)
    return new


def _affine(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns what a BatchNorm multiplies by and what it adds, in float64."""
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def _scaled(conv: AdaptiveMap) -> nn.Conv2d:
    """Returns a convolution that includes the constant factor of `conv`."""
    return _like(conv, conv.weight.double() * conv.scale, conv.weight.new_zeros(conv.out_channels))


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Returns a convolution like `conv` with other weights [C_out, C_in / groups, k, k] and biases [C_out]."""
    inputs = weight.shape[1] * conv.groups
    new = nn.Conv2d(inputs, len(weight), conv.kernel_size, conv.stride, conv.padding, groups=conv.groups).to(
        conv.weight
    )
    new.weight.copy_(weight), new.bias.copy_(bias)
    return new


def _scale(conv: nn.Conv2d, factor: Tensor | float) -> None:
    """Scales the output of `conv`, in place, by one number or by one number per output channel."""
    factor = torch.as_tensor(factor, dtype=conv.weight.dtype).reshape(-1)
    conv.weight *= factor.reshape(-1, 1, 1, 1)
    conv.bias *= factor


def _merged(attention: SeaAttention) -> MergedAttention:
    """Returns `attention` with the folded convolutions to q, k and v concatenated into one."""
    convs = attention.to_q, attention.to_k, attention.to_v
    weight, bias = (torch.cat([getattr(conv, name) for conv in convs]) for name in ("weight", "bias"))
    return MergedAttention(
        attention, _like(convs[0], weight, bias), tuple(len(conv.weight) for conv in convs)
    )


def _attention_stages(model: nn.Module, input_size: Size) -> Iterator[tuple[nn.Module, Size]]:
    """Yields the attention stages of `model`, each with the (height, width) of its feature map.

    For an attention module in an `nn.Sequential`, `input_size` is that of its feature map.
    """
    if isinstance(model, Swin):
        for i, stage in enumerate(model.layers):
            yield stage, tuple(-(-length // (4 << i)) for length in input_size)
        return
    if isinstance(model, nn.Sequential):  # An attention module on its own.
        yield model, input_size
        return
    backbone = getattr(model, "backbone", model)  # A classifier is its own backbone.
    for i in range(backbone.mobile_only, len(backbone.channels)):
        stage = backbone.get_submodule(f"trans{i - backbone.mobile_only + 1}")
        # Stage i has stride 4 * 2**i; sizes are rounded up.
        yield stage, tuple(-(-length // (4 << i)) for length in input_size)
