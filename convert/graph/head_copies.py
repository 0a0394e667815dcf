"""The head of a detector with weights of its own for each level.

This is for ExecuTorch in int8, which cannot load a file in which several convolutions share their weights.
"""

import copy

import torch
from torch import Tensor, nn

from convert.graph.replacing import replace
from convert.torch_detection import LEVELS, RetinaHead


class HeadCopies(nn.Module):
    """Calls a copy of a head for each map; arguments and result are those of `RetinaHead`."""

    def __init__(self, head: RetinaHead):
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(head) for _ in range(LEVELS))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        levels = [head.level(x) for head, x in zip(self.copies, maps, strict=True)]
        logits, deltas = zip(*levels, strict=True)
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


def with_copies(model: nn.Module) -> nn.Module:
    """Returns a copy of `model` in which `HeadCopies` replaces the head of a detector."""
    model = copy.deepcopy(model)
    replace(model, RetinaHead, HeadCopies)
    return model
