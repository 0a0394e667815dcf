"""The Swin Transformer in plain PyTorch, with the official parameter names and a choice of attention."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.torch_attention import bare
from convert.torch_attention.layers import ChannelsLast, Setting
from convert.torch_attention.windows import pad
from convert.torch_model import DropPath
from seaformer_jax.models.swin_config import SWINS, SwinConfig


class PatchEmbedding(nn.Module):
    """4x4 convolution of stride 4, then LayerNorm: [B, 3, H, W] -> [B, ceil(H/4), ceil(W/4), C]."""

    def __init__(self, width: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, width, 4, stride=4), nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        below, right = (-side % 4 for side in images.shape[2:])
        return self.norm(self.proj(F.pad(images, (0, right, 0, below))).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Joins the channels of 2x2 positions and projects them: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2C]."""

    def __init__(self, width: int):
        super().__init__()
        self.reduction, self.norm = nn.Linear(4 * width, 2 * width, bias=False), nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, 2)
        parts = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class Mlp(nn.Module):
    """Linear layer, GELU, linear layer: [..., C] -> [..., C]."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """LayerNorm and attention, LayerNorm and MLP, each residual: [B, H, W, C] -> [B, H, W, C]."""

    def __init__(self, width: int, attention: nn.Module, mlp_ratio: int = 4, drop_path: float = 0.0):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        if isinstance(self.attn, ChannelsLast):
            return self.attn.attend(x)
        return self.attn(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Transformer blocks and, except in the last stage, the merging of patches that the next stage begins with."""

    def __init__(self, blocks: list[TransformerBlock], downsample: PatchMerging | None):
        super().__init__()
        self.blocks, self.downsample = nn.ModuleList(blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Swin(nn.Module):
    """The backbone: images [B, 3, H, W] -> four normalised feature maps [B, ceil(H/s), ceil(W/s), C_s]."""

    def __init__(self, config: SwinConfig):
        super().__init__()
        self.patch_embed = PatchEmbedding(config.width)
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            width, last = config.width << stage, stage == len(config.depths) - 1
            attentions = [create_attention(config, stage, block) for block in range(depth)]
            blocks = [TransformerBlock(width, a, config.mlp_ratio, next(rates)) for a in attentions]
            self.layers.append(Stage(blocks, None if last else PatchMerging(width)))
            self.add_module(f"norm{stage}", nn.LayerNorm(width))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Returns the four feature maps."""
        x, features = self.patch_embed(x), []
        for stage, layer in enumerate(self.layers):
            x = layer(x)
            features.append(self.get_submodule(f"norm{stage}")(x))
            x = x if layer.downsample is None else layer.downsample(x)
        return features

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.forward_features(x))


class Classifier(Swin):
    """Classifier: images [B, 3, H, W] -> logits [B, num_classes]."""

    def __init__(self, config: SwinConfig, num_classes: int):
        super().__init__(config)
        self.head = nn.Linear(config.last_width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x)[-1].mean(dim=(1, 2)))


def create_model(name: str, num_classes: int = 1000, **options: str | int | tuple[int, ...]) -> Classifier:
    """Returns a classifier with random weights, in training mode.

    Args:
        name: A key of `swin_config.SWINS`.
        num_classes: Number of classes.
        **options: Fields of `SwinConfig` to change.
    """
    return Classifier(dataclasses.replace(SWINS[name], **options), num_classes)


def create_attention(config: SwinConfig, stage: int, block: int) -> nn.Module:
    """Returns the attention of block number `block` of a stage."""
    kind, stride = config.attention, 4 << stage
    setting = Setting(
        window=config.attention_window,
        shift=block % 2 == 1 and kind in ("window_shift", "acmix_swin"),
        size=tuple(-(-side // stride) for side in config.attention_input) or None,
    )
    kind = "window" if kind == "window_shift" else kind
    return bare.build(kind, config.width << stage, config.heads[stage], setting)
