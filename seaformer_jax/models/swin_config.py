"""`SwinConfig`, and the config of Swin-Tiny (Liu et al. 2021, microsoft/Swin-Transformer)."""

import dataclasses
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """Everything that shapes a Swin Transformer; the defaults are Swin-Tiny.

    Attributes:
        width: Channels of the first stage; each stage has twice as many as the one before.
        depths: Blocks of each stage, at 1/4, 1/8, 1/16 and 1/32 of the image.
        heads: Attention heads of each stage.
        mlp_ratio: Hidden channels of the MLP / channels of the stage.
        drop_path_rate: Drop-path rate of the last block; it rises linearly from 0 over all blocks.
        bn_groups: BatchNorm groups of the batch, for the kinds of attention that have BatchNorm.
        dtype: Dtype of the computation; parameters are float32.
        attention: Kind of attention, one of `attention.KINDS`. "window_shift", the published model, shifts the
            windows of every second block, and so does "acmix_swin".
        attention_window: Side of a window, for kinds with windows.
        attention_input: (height, width) of the images in pixels, which the tables of axial_deeplab fix.
    """

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: int = 4
    drop_path_rate: float = 0.2
    bn_groups: int = 1
    dtype: str = "float32"
    attention: str = "window_shift"
    attention_window: int = 7
    attention_input: tuple[int, ...] = ()
    upsample_ratio: ClassVar[float] = 0.0  # A Swin is no distilled student.

    @property
    def last_width(self) -> int:
        """Channels of the last stage."""
        return self.width << len(self.depths) - 1

    @property
    def stride(self) -> int:
        """Side of a position of the last stage, in pixels of the image."""
        return 2 << len(self.depths)


SWINS = {"swin_tiny": SwinConfig()}
