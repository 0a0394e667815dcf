"""The inference form of a model: the same function of an image, in fewer and simpler operators.

Seven rewrites, each exact but for rounding. They apply in the order of `REWRITES`, each to what those before it
have made. Batch 1 and a fixed input size, as phones run it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from convert.graph.layers import AxialAttention, MergedAttention, Shift, SplitAxialAttention
from convert.torch_model import (
    AdaptiveMap,
    AttentionStage,
    ConvBN,
    SeaAttention,
    SqueezeAxialPositionalEmbedding,
)
from convert.torch_segmentation import ConvModule, FusionBlock, LightHead, Segmenter
from seaformer_jax.errors import UserError

Part = TypeVar("Part", bound=nn.Module)

STRIDE = 64  # Pixels of the input along one side of a cell of the last stage.

Size = tuple[int, int]  # height, width
Normalization = tuple[Sequence[float], Sequence[float]]  # mean, std of the three channels


def deploy(model: nn.Module, input_size: Size, normalize: Normalization | None = None) -> nn.Module:
    """Returns the inference form of `model`, which stays as it is.

    The result takes float32 images [1, 3, H, W] and returns logits, [1, num_classes] of a classifier or
    [1, num_classes, ceil(H / 8), ceil(W / 8)] of a segmentation model.

    Args:
        model: of `torch_model.create_model` or `torch_segmentation.create_model`.
        input_size: H and W.
        normalize: mean and standard deviation in the unit of the images, to be part of the result; None where
            it is to take images that are normalised already.

    Raises:
        UserError: the input is smaller than the stride of the last stage.
    """
    if min(input_size) < STRIDE:
        height, width = input_size
        raise UserError(
            f"input size {height}x{width} is below the model's stride of {STRIDE}; choose at least {STRIDE}x{STRIDE}"
        )
    model = rewritten(model, input_size, REWRITES)
    return model if normalize is None else include_normalization(model, *normalize)


@torch.no_grad()
def rewritten(model: nn.Module, input_size: Size, rewrites: Sequence["Rewrite"]) -> nn.Module:
    """Returns a copy of `model` in evaluation mode with the first few of `REWRITES` applied."""
    model = copy.deepcopy(model).eval()
    for rewrite in rewrites:
        rewrite(model, input_size)
    return model.requires_grad_(False)


def fold_batch_norm(model: nn.Module, input_size: Size) -> None:
    """Every BatchNorm, and the constant factor of SeaFormer++'s maps, becomes part of the convolution before it."""
    _replace(model, ConvBN, lambda layer: _folded(layer.c, layer.bn))
    _replace(model, ConvModule, lambda layer: _folded(layer.conv, layer.bn))
    _replace(model, AdaptiveMap, _scaled)


def merge_qkv(model: nn.Module, input_size: Size) -> None:
    """One 1x1 convolution for q, k and v, which detail enhancement then finds side by side."""
    _replace(model, SeaAttention, _merged)


def bake_positions(model: nn.Module, input_size: Size) -> None:
    """Tables of positions at the length that they have at this input size."""
    for stage, (height, width) in _attention_stages(model, input_size):
        for attention in _parts(stage, SeaAttention):
            lengths = {"rowq": height, "rowk": height, "columnq": width, "columnk": width}
            for name, length in lengths.items():
                embedding = attention.get_submodule(f"pos_emb_{name}")
                if isinstance(embedding, SqueezeAxialPositionalEmbedding):
                    table = embedding(embedding.pos_embed.new_zeros(1, 1, length))
                    setattr(attention, f"pos_emb_{name}", Shift(table))


def rearrange_attention(model: nn.Module, input_size: Size) -> None:
    """One mean per axis for q, k and v, one addition for the positions of q and k."""
    for stage, size in _attention_stages(model, input_size):
        _replace(
            stage,
            SplitAxialAttention,
            lambda split, size=size: AxialAttention(split.attention, split.widths, size),
        )


def absorb_hard_sigmoid(model: nn.Module, input_size: Size) -> None:
    """relu6(x + 3) / 6: 3 joins the bias that makes x, 1/6 the weights of the factor; a plain ReLU6 stays.

    In the head the resize lies between the sigmoid and the product; being linear it commutes with 1/6.
    """
    for attention in _parts(model, MergedAttention):
        if attention.gate is not None:
            attention.axial.proj[-1].bias += 3
            _scale(attention.detail[-1], 1 / 6)
            attention.gate = nn.ReLU6()
    for block in _parts(model, FusionBlock):
        if block.method == "sigmoid_multiply":
            block.global_act.bias += 3
            _scale(block.local_embedding, 1 / 6)
            block.global_act = nn.Sequential(block.global_act, nn.ReLU6())
            block.method = "multiply"


def rearrange_head(model: nn.Module, input_size: Size) -> None:
    """The depthwise 1x1 convolution behind the last product becomes part of a factor, and a bias.

    Not behind an up-sampling module, which is no product.
    """
    if getattr(model, "upsample", None) is not None:
        return
    for head in _parts(model, LightHead):
        block = head.get_submodule(f"fuse{head.depth}")
        if block.method == "multiply":
            _scale(block.local_embedding, head.linear_fuse.weight.flatten())
            head.linear_fuse = Shift(head.linear_fuse.bias.reshape(1, -1, 1, 1))


def pool_for_delegates(model: nn.Module, input_size: Size) -> None:
    """What XNNPACK takes: average pooling for the mean over one axis, products of three axes instead of four."""
    for stage, (height, width) in _attention_stages(model, input_size):
        for axial in _parts(stage, AxialAttention):
            axial.row_mean, axial.column_mean = nn.AvgPool2d((1, width)), nn.AvgPool2d((height, 1))
            axial.lead, axial.product = axial.lead[1:], torch.bmm


def products_of_four_axes(model: nn.Module) -> None:
    """Takes the products of attention back to four axes, as ncnn has them: with three it needs half as much again."""
    for axial in _parts(model, AxialAttention):
        axial.lead, axial.product = (1, *axial.lead[-1:]), torch.matmul


@torch.no_grad()
def include_normalization(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Returns `model` for images as they are: minus the mean, and the first weights over the deviation.

    The mean stays a subtraction: as a bias it would miss the padding, which is 0 behind the normalisation.
    """
    stem = next(_parts(model, nn.Conv2d))
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
)


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Convolution without bias and BatchNorm -> convolution with bias; the arithmetic is float64."""
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return _like(conv, conv.weight.double() * scale.reshape(-1, 1, 1, 1), bias)


def _scaled(conv: AdaptiveMap) -> nn.Conv2d:
    return _like(conv, conv.weight.double() * conv.scale, conv.weight.new_zeros(conv.out_channels))


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """`conv` with other weights [C_out, C_in / groups, k, k] and biases [C_out], in its dtype."""
    inputs = weight.shape[1] * conv.groups
    new = nn.Conv2d(inputs, len(weight), conv.kernel_size, conv.stride, conv.padding, groups=conv.groups).to(
        conv.weight
    )
    new.weight.copy_(weight), new.bias.copy_(bias)
    return new


def _scale(conv: nn.Conv2d, factor: Tensor | float) -> None:
    """Multiplies what `conv` returns, by a number or by one for each of its channels."""
    factor = torch.as_tensor(factor, dtype=conv.weight.dtype).reshape(-1)
    conv.weight *= factor.reshape(-1, 1, 1, 1)
    conv.bias *= factor


def _merged(attention: SeaAttention) -> MergedAttention:
    convs = attention.to_q, attention.to_k, attention.to_v
    weight, bias = (torch.cat([getattr(conv, name) for conv in convs]) for name in ("weight", "bias"))
    return MergedAttention(
        attention, _like(convs[0], weight, bias), tuple(len(conv.weight) for conv in convs)
    )


def _attention_stages(model: nn.Module, input_size: Size) -> Iterator[tuple[AttentionStage, Size]]:
    """The attention stages of `model`, each with height and width of its feature map."""
    backbone = model.backbone if isinstance(model, Segmenter) else model
    for i in range(backbone.mobile_only, len(backbone.channels)):
        stage = backbone.get_submodule(f"trans{i - backbone.mobile_only + 1}")
        yield stage, tuple(-(-length // (4 << i)) for length in input_size)


def _parts(model: nn.Module, kind: type[Part]) -> Iterator[Part]:
    return (module for module in model.modules() if isinstance(module, kind))


def _replace(model: nn.Module, kind: type[Part], build: Callable[[Part], nn.Module]) -> None:
    """Puts `build(part)` in the place of every part of a kind."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, build(child))
