"""First layer of an exported model that takes an image as a camera gives it."""

from torch import Tensor, nn


def from_camera(model: nn.Module) -> nn.Module:
    """Returns a model of images uint8 [B, H, W, 3]; `model` takes float32 [B, 3, H, W] in 0..255."""
    return nn.Sequential(CameraImage(), model)


class CameraImage(nn.Module):
    """Images uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in 0..255.

    The axes are moved first, while a value still is one byte.
    """

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).float()
