"""Networks with random weights whose logits depend on the image."""

import json
import pathlib
from collections.abc import Sequence

import torch

from convert import torch_detection


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


def write_detector(folder: pathlib.Path, names: Sequence[str], size: tuple[int, int]) -> pathlib.Path:
    """Writes the weights of a detector that finds boxes, and the JSON that `convert.to_torch` puts beside them."""
    torch.manual_seed(0)
    options = {"neck_width": 8, "tower_convs": 1, "anchor_scale": 2.0}
    model = alive(torch_detection.create_model("nano_detection", len(names), **options), size)
    card = {"model": "nano_detection", "options": options, "class_names": names, "score_threshold": 0.1}
    (folder / "detection.json").write_text(json.dumps(card))
    torch.save(model.state_dict(), folder / "detection.pth")
    return folder / "detection.pth"
