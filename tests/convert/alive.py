"""Networks with random weights whose logits depend on the image."""

import torch


def alive(model: torch.nn.Module, size: tuple[int, int]) -> torch.nn.Module:
    """Returns `model` in evaluation mode, with BatchNorm statistics of noise images and classes far apart."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, 3, *size))
        if hasattr(model, "bbox_head"):
            for conv in (*model.bbox_head.cls_convs.modules(), model.bbox_head.retina_cls):
                if isinstance(conv, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(conv.weight)
            torch.nn.init.zeros_(model.bbox_head.retina_cls.bias)
            return model.eval()
        last = model.linear if hasattr(model, "linear") else model.decode_head.conv_seg
        last.weight *= 20
    return model.eval()
