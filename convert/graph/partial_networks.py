"""A network as far as each of its parts: stem, context branch, attention, fusion, head."""

import copy
from collections.abc import Callable

from torch import Tensor, nn

from convert.torch_model import AttentionStage, Backbone, Block
from convert.torch_segmentation import Segmenter


def up_to(model: nn.Module) -> dict[str, nn.Module]:
    """The inference form as far as each part, images [1, 3, H, W] -> one feature map or logits.

    The stem is the two stages that context and spatial branch share (author, issue 13 of the official repository).
    """
    backbone = model.backbone if isinstance(model, Segmenter) else model
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
    """Images -> the feature map of the last stage."""

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
    """Images -> what the fusion blocks hand to the head."""

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
    backbone = copy.deepcopy(backbone)
    for stage in backbone.modules():
        if isinstance(stage, AttentionStage):
            stage.transformer_blocks = nn.Sequential(*map(replace, stage.transformer_blocks))
    return backbone
