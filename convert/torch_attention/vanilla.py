"""Full attention of the Transformer, with timm's names."""

from torch import Tensor

from convert.torch_attention.layers import ChannelsLast, Setting, attend, merge_heads, split_heads


class VanillaAttention(ChannelsLast):
    """Every position attends to every position."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        inner = setting.inner or width
        self.qkv, self.proj = setting.project(width, 3 * inner), setting.project_back(inner, width)
        self.heads = heads

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).flatten(1, 2).chunk(3, dim=-1))
        return self.proj(merge_heads(attend(q, k, v)).unflatten(1, x.shape[1:3]))
