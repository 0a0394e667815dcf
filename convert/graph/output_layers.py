"""From logits at 1/8 of the image to logits or labels of its size, as modules for the end of an exported graph.

PyTorch and its exporter keep channels first, and ONNX Runtime then interpolates and searches across far apart
numbers: 0.6 s for 150 classes at 512x512. With the channels last each pixel's logits lie side by side, and the same
two operators take a twentieth of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OPSET = 18  # The first whose Resize is told not to smooth, and the oldest that PyTorch's exporter writes.


class LogitsTail(nn.Module):
    """Logits [1, C, h, w] -> logits [1, H, W, C], resized bilinearly (`align_corners=False`).

    Args:
        size: H and W, of the image that the labels are for.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, logits: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return self._resize(logits.permute(0, 2, 3, 1).contiguous())
        resized = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)

    def _resize(self, logits: Tensor) -> Tensor:
        """ONNX's Resize of [1, h, w, C] along the axes in the middle, which no PyTorch operator becomes."""
        shape = (1, *self.size, logits.shape[3])
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "antialias": 0}
        inputs = (logits, None, None, torch.tensor(shape))
        return torch.onnx.ops.symbolic(
            "Resize", inputs, attributes, dtype=logits.dtype, shape=shape, version=_OPSET
        )


class LabelsTail(LogitsTail):
    """Logits [1, C, h, w] -> uint8 [1, H, W]: resized, then the class of the largest, the lowest of equals.

    At most 256 classes.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return super().forward(logits).argmax(dim=3).to(torch.uint8)
