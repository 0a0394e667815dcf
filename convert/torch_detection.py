"""SeaFormer detectors (RetinaNet) in plain PyTorch, with the parameter names of an mmdetection checkpoint.

To use them in another project, copy this file and `torch_model.py`. The papers' detector is mmdetection's
`retinanet_r50_fpn_1x_coco` on a SeaFormer backbone. The neck follows `necks/fpn.py` with
`add_extra_convs="on_input"`, the head `dense_heads/retina_head.py` (mmdetection 3.3.0).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.torch_model import Backbone, Variant, find

ANCHORS = 9  # Anchors of a position: three ratios times three scales.
MAPS = 4  # Feature maps that the neck takes from the backbone: those at 1/8 to 1/64.
LEVELS = MAPS + 1  # Maps of the pyramid, at 1/8 to 1/128.
PRIOR = 0.01  # Probability of every class at the start of the training (focal loss, section 4.1).


class ConvModule(nn.Module):
    """Convolution with bias, with mmcv's name: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Enlarge(nn.Module):
    """Nearest interpolation, [B, C, h, w] -> [B, C, H, W]: row i is row i * h // H, and columns likewise."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="nearest")


class FPN(nn.Module):
    """Feature pyramid: the maps at 1/8, 1/16, 1/32 and 1/64 -> maps of `width` channels at 1/8 to 1/128.

    The last map is a convolution of the backbone's last one, not of the pyramid's.
    """

    def __init__(self, channels: list[int], width: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(count, width, 1) for count in channels)
        self.fpn_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in channels)
        self.fpn_convs.append(ConvModule(channels[-1], width, 3, stride=2))
        self.enlarge, self.width = Enlarge(), width
        for module in (*self.lateral_convs, *self.fpn_convs):
            nn.init.xavier_uniform_(module.conv.weight)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        # From coarse to fine: each map adds the one below it, enlarged to its size.
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + self.enlarge(maps[i], maps[i - 1].shape[2:])
        extra = self.fpn_convs[-1](features[-1])
        return [*(conv(x) for conv, x in zip(self.fpn_convs, maps, strict=False)), extra]


class RetinaHead(nn.Module):
    """Head that all levels share: maps [B, width, h, w] -> logits [B, A, K] and box deltas [B, A, 4] of all anchors.

    The A anchors are ordered by level, row, column and anchor of a cell. Each of the two has a tower of `convs`
    convolutions with ReLU before its last convolution.
    """

    def __init__(self, width: int, convs: int, num_classes: int):
        super().__init__()
        self.cls_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in range(convs))
        self.reg_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in range(convs))
        self.retina_cls = nn.Conv2d(width, ANCHORS * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(width, ANCHORS * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.retina_cls.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits, deltas = zip(*(self.level(x) for x in maps), strict=True)
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)

    def level(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits and box deltas of one map."""
        logits, deltas = x, x
        for conv in self.cls_convs:
            logits = torch.relu(conv(logits))
        for conv in self.reg_convs:
            deltas = torch.relu(conv(deltas))
        return _by_anchor(self.retina_cls(logits)), _by_anchor(self.retina_reg(deltas))


def _by_anchor(x: Tensor) -> Tensor:
    """Turns [B, 9*n, h, w] into [B, h*w*9, n]: row, column, anchor."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height * width * ANCHORS, channels // ANCHORS)


class Detector(nn.Module):
    """Detector: images [B, 3, H, W] -> logits [B, A, num_classes] and box deltas [B, A, 4].

    The A anchors are ordered by level (1/8 to 1/128), row, column and anchor. Logits are those of independent
    sigmoids; there is no class for the background. Images are RGB, scaled to [0, 1] and then normalised with the
    ImageNet mean and standard deviation.
    """

    def __init__(self, variant: Variant, num_classes: int = 80, drop_path_rate: float = 0.1):
        super().__init__()
        self.backbone = Backbone(variant, drop_path_rate)
        self.neck = FPN(self.backbone.channels[-MAPS:], variant.neck_width)
        self.bbox_head = RetinaHead(variant.neck_width, variant.tower_convs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bbox_head(self.neck(self.backbone.forward_features(x)[-MAPS:]))


def create_model(
    name: str, num_classes: int = 80, drop_path_rate: float = 0.1, **options: str | bool | int | float
) -> Detector:
    """Returns a SeaFormer detector with random weights, in training mode.

    Args:
        name: A key of `torch_model.VARIANTS`, such as "seaformer_tiny" or "seaformer_plus_tiny".
        num_classes: Number of classes, without the background (80 in COCO).
        drop_path_rate: Rate of stochastic depth in the last block of each attention stage, in [0, 1).
        **options: Fields of `torch_model.Variant` to change, such as `neck_width=64`.

    Raises:
        ValueError: The name or an option is unknown.
    """
    return Detector(find(name)._replace(**options), num_classes, drop_path_rate)
