"""Cuts a network off after each of its parts, to measure what each part costs."""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from convert.torch_model import AttentionStage, Backbone, Block
from convert.torch_segmentation import Segmenter


def up_to(model: nn.Module) -> dict[str, nn.Module]:
    """Returns networks that end after each part of `model`: part -> network.

    The parts are stem, context branch, FFN, SEA attention, fusion (of segmentation models) and head, and each network
    also has the parts before its own. Their input is images [1, 3, H, W], their output one feature map or the logits.
    The stem is the two stages that context branch and spatial branch share (author, issue 13 of the official
    repository).

    Args:
        model: The inference form of a model, see `rewrites.deploy`.
    """
    backbone = model.backbone if isinstance(model, Segmenter) else model
    # Attention and FFN alternate in the layers, so their costs come from whole backbones without one or both of them.
    networks = {
        "stem": nn.Sequential(backbone.smb1, backbone.smb2),
        "context branch": LastMap(_with_blocks(backbone, nn.Identity)),
        "FFN": LastMap(_with_blocks(backbone, OnlyFFN)),
        "SEA attention": LastMap(backbone),
    }
    if isinstance(model, Segmenter):
        networks["fusion"] = Fused(model)
    return {**networks, "head": model}


class LastMap(nn.Module):
    """Network from images to the feature map of the last stage."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.forward_features(x)[-1]


class OnlyFFN(nn.Module):
    """A SeaFormer layer without its attention."""

    def __init__(self, block: Block):
        super().__init__()
        self.mlp = block.mlp

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Fused(nn.Module):
    """Network from images to the fused map, the input of the head's last layers."""

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features, head = self.model.backbone.forward_features(x), self.model.decode_head
        x = features[1]
        for i in range(head.depth):
            x = head.get_submodule(f"fuse{i + 1}")(x, features[i - head.depth])
        return x


def _with_blocks(backbone: Backbone, replace: Callable[[Block], nn.Module]) -> Backbone:
    """Returns a copy of `backbone` with `replace(block)` in place of every SeaFormer layer."""
    backbone = copy.deepcopy(backbone)
    for stage in backbone.modules():
        if isinstance(stage, AttentionStage):
            stage.transformer_blocks = nn.Sequential(*map(replace, stage.transformer_blocks))
    return backbone
