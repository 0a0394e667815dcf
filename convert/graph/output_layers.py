"""Last layers of an exported ONNX graph: they turn logits at 1/8 of the image into logits or labels of its size.

PyTorch and its exporter keep the channels first. The logits of one pixel are then far apart in memory, and ONNX
Runtime's resize and argmax take 0.6 s for 150 classes at 512x512. With the channels last the logits of a pixel are
neighbours, and the same two operators take a twentieth of that time.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OPSET = 18  # The first with Resize's `antialias`, and the oldest that PyTorch's exporter writes.


class LogitsTail(nn.Module):
    """Logits [B, C, h, w] -> logits [B, H, W, C], resized bilinearly (`align_corners=False`).

    Args:
        size: H and W of the result.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, logits: Tensor) -> Tensor:
        # The exporter would write PyTorch's interpolation with the channels first.
        if torch.onnx.is_in_onnx_export():
            return self._resize(logits.permute(0, 2, 3, 1).contiguous())
        resized = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)

    def _resize(self, logits: Tensor) -> Tensor:
        """Applies ONNX's Resize to the middle axes of [B, h, w, C]; no PyTorch operator is exported to that."""
        shape = (logits.shape[0], *self.size, logits.shape[3])
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "antialias": 0}
        attributes |= {"axes": [1, 2]}
        inputs = (logits, None, None, torch.tensor(self.size))  # The inputs `roi` and `scales` are left out.
        return torch.onnx.ops.symbolic(
            "Resize", inputs, attributes, dtype=logits.dtype, shape=shape, version=_OPSET
        )


class LabelsTail(LogitsTail):
    """Logits [B, C, h, w] -> labels uint8 [B, H, W]: the argmax of the resized logits, for at most 256 classes.

    Ties go to the lowest class id.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return super().forward(logits).argmax(dim=3).to(torch.uint8)
