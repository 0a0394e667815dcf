"""Windows of a feature map, as in Swin; see `seaformer_jax/models/attention/windows.py`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.torch_attention.layers import attend, merge_heads, split_heads

_MASKED = -100.0


def bias_table(window: int, heads: int) -> nn.Parameter:
    """Returns a table [(2 * window - 1)^2, heads] of relative positions."""
    return nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))


def pad(x: Tensor, window: int) -> Tensor:
    """Pads [B, H, W, C] with zeros, below and right, to multiples of `window`."""
    below, right = (-side % window for side in x.shape[1:3])
    return F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x


def enter(x: Tensor, window: int, shifted: bool) -> tuple[Tensor, int]:
    """Returns [B, H, W, C] padded and, for shifted windows, rolled up and left by half a window, and this shift."""
    shift = window // 2 if shifted and min(x.shape[1:3]) > window else 0
    padded = pad(x, window)
    return torch.roll(padded, (-shift, -shift), (1, 2)) if shift else padded, shift


def leave(x: Tensor, shift: int, shape: torch.Size) -> Tensor:
    """Undoes `enter`: rolls back and crops to `shape` [B, H, W, C]."""
    rolled = torch.roll(x, (shift, shift), (1, 2)) if shift else x
    return rolled[:, : shape[1], : shape[2]]


def attend_in_windows(qkv: Tensor, table: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """Attention inside each window: qkv [B, H, W, 3 * heads * d] -> [B, H, W, heads * d]."""
    batch, height, width, _ = qkv.shape
    q, k, v = (split_heads(t, heads) for t in _partition(qkv, window).chunk(3, dim=-1))
    bias = table[relative_index(window).flatten()].reshape(window**2, window**2, heads).permute(2, 0, 1)
    if shift:
        bias = bias + shift_mask(height, width, window, shift).unsqueeze(1)
    windows = merge_heads(attend(q, k, v, bias))  # [B, windows, window^2, heads * d]
    channels = windows.shape[-1]
    rows = windows.reshape(batch * height // window, width // window, window, window * channels)
    return rows.transpose(1, 2).reshape(batch, height, width, channels)


def relative_index(window: int) -> Tensor:
    """Returns the entry of the table for each query and key, [window^2, window^2]."""
    y, x = (axis.flatten() for axis in torch.meshgrid(*(torch.arange(window),) * 2, indexing="ij"))
    rows, columns = y[:, None] - y + window - 1, x[:, None] - x + window - 1
    return rows * (2 * window - 1) + columns


def shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """Returns the mask of a rolled map: [windows, window^2, window^2], 0 or -100."""
    rows, columns = (
        (torch.arange(side) >= side - window).int() + (torch.arange(side) >= side - shift).int()
        for side in (height, width)
    )
    regions = (3 * rows[:, None] + columns).reshape(1, height, width, 1)
    regions = _partition(regions, window)[0, :, :, 0]
    return torch.where(regions[:, :, None] == regions[:, None], 0.0, _MASKED)


def _partition(x: Tensor, window: int) -> Tensor:
    """Splits [B, H, W, C] into windows, [B, windows, window^2, C]."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch * height // window, window, width // window, window * channels).transpose(1, 2)
    return rows.reshape(batch, height * width // window**2, window**2, channels)
