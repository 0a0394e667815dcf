"""Window attention, with Swin's names."""

from torch import Tensor

from convert.torch_attention.layers import ChannelsLast, Setting
from convert.torch_attention.windows import attend_in_windows, bias_table, enter, leave


class WindowAttention(ChannelsLast):
    """Every position attends to its window."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        inner = setting.inner or width
        self.relative_position_bias_table = bias_table(setting.window, heads)
        self.qkv, self.proj = setting.project(width, 3 * inner), setting.project_back(inner, width)
        self.heads, self.window, self.shift = heads, setting.window, setting.shift

    def attend(self, x: Tensor) -> Tensor:
        padded, shift = enter(x, self.window, self.shift)
        table = self.relative_position_bias_table
        out = attend_in_windows(self.qkv(padded), table, self.heads, self.window, shift)
        return leave(self.proj(out), shift, x.shape)
