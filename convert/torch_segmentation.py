"""SeaFormer segmentation models in plain PyTorch, with the parameter names of the official release.

To use them in another project, copy this file and `torch_model.py`. The code follows the JAX model and the official
`seaformer-seg/mmseg/models/decode_heads/light_head.py`. `state_dict` has the names of an mmseg checkpoint.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.torch_model import Backbone, Upsampling, Variant, find, h_sigmoid

DROPOUT = 0.1  # Rate at which whole channels are zeroed before the last layer (official `dropout_ratio`).


class ConvModule(nn.Module):
    """1x1 convolution and BatchNorm, with mmcv's names: [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class FusionBlock(nn.Module):
    """Fuses a local map [B, C_local, H, W] and a context map [B, C_context, h, w] -> [B, width, H, W].

    `method` is "sigmoid_multiply" (official), "multiply", "add" or "sigmoid_add". The sigmoid is a hard sigmoid of
    the context, before the upsampling.
    """

    def __init__(self, local: int, context: int, width: int, method: str):
        super().__init__()
        self.local_embedding = ConvModule(local, width)
        self.global_act = ConvModule(context, width)
        self.method = method

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        local, context = self.local_embedding(local), self.global_act(context)
        if self.method in ("sigmoid_multiply", "sigmoid_add"):
            context = h_sigmoid(context)
        context = F.interpolate(context, size=local.shape[2:], mode="bilinear", align_corners=False)
        return local * context if self.method in ("sigmoid_multiply", "multiply") else local + context


class LightHead(nn.Module):
    """Head from the five feature maps to logits at 1/8 of the image, [B, num_classes, ceil(H / 8), ceil(W / 8)].

    A model may have an up-sampling module between `fuse` and `classify`; `width` is the number of channels that
    `classify` receives.
    """

    def __init__(self, variant: Variant, width: int, num_classes: int):
        super().__init__()
        channels = [rows[-1][2] for rows in variant.stages]
        self.depth = len(variant.fusion_widths)
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.linear_fuse = ConvModule(width, width, groups=width)
        local = channels[1]
        for i, fused in enumerate(variant.fusion_widths):
            context = channels[i - self.depth]
            self.add_module(f"fuse{i + 1}", FusionBlock(local, context, fused, variant.fusion))
            local = fused
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Fuses the five feature maps -> [B, fusion_widths[-1], ceil(H / 8), ceil(W / 8)]."""
        # Start from the map at 1/8; each fusion block brings in the context of one of the last stages.
        x = features[1]
        for i in range(self.depth):
            x = self.get_submodule(f"fuse{i + 1}")(x, features[i - self.depth])
        return x

    def classify(self, x: Tensor) -> Tensor:
        """Turns the fused map [B, width, h, w] into logits [B, num_classes, h, w]."""
        return self.conv_seg(self.dropout(torch.relu(self.linear_fuse(x))))


class Segmenter(nn.Module):
    """Segmentation model: images [B, 3, H, W] -> logits [B, num_classes, ceil(H / 8), ceil(W / 8)].

    With an up-sampling module of ratio r (`upsample_ratio`), r*H and r*W take the place of H and W.

    Images are RGB, scaled to [0, 1] and then normalised with the ImageNet mean and standard deviation. To get labels
    of the image's size, resize the logits bilinearly (`align_corners=False`) and then take the argmax.
    """

    def __init__(self, variant: Variant, num_classes: int = 150, drop_path_rate: float = 0.1):
        super().__init__()
        self.backbone = Backbone(variant, drop_path_rate)
        fused = variant.fusion_widths[-1]
        width = variant.upsample_width or fused
        self.decode_head = LightHead(variant, width, num_classes)
        self.upsample = (
            Upsampling(fused, width, variant.upsample_ratio, 8) if variant.upsample_ratio else None
        )

    def forward(self, x: Tensor) -> Tensor:
        fused = self.decode_head.fuse(self.backbone.forward_features(x))
        return self.decode_head.classify(
            fused if self.upsample is None else self.upsample(fused, x.shape[2:])
        )


def create_model(
    name: str,
    num_classes: int = 150,
    drop_path_rate: float = 0.1,
    **options: str | bool | tuple[int, ...],
) -> Segmenter:
    """Returns a SeaFormer segmentation model with random weights, in training mode.

    Args:
        name: A key of `torch_model.VARIANTS`, such as "seaformer_tiny" or "seaformer_plus_tiny".
        num_classes: Number of classes.
        drop_path_rate: Rate of stochastic depth in the last block of each attention stage, in [0, 1).
        **options: Fields of `torch_model.Variant` to change, such as `fusion="add"`.

    Raises:
        ValueError: The name or an option is unknown.
    """
    return Segmenter(find(name)._replace(**options), num_classes, drop_path_rate)
