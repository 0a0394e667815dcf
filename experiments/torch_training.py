"""Training in PyTorch as the official code does it, for `experiments.trajectory`: optimisers, losses, groups."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = 255


class RMSpropTF(torch.optim.Optimizer):
    """RMSprop as TensorFlow and timm have it (timm/optim/rmsprop_tf.py).

    The mean square starts at 1, epsilon is inside the root, and the momentum buffer contains the learning rate.
    """

    def __init__(self, groups: list[dict], lr: float, alpha: float, eps: float, momentum: float):
        super().__init__(
            groups, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": 0.0}
        )

    @torch.no_grad()
    def step(self) -> None:
        """Updates the parameters by their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["square"] = torch.ones_like(parameter)
                    state["buffer"] = torch.zeros_like(parameter)
                gradient = parameter.grad + group["weight_decay"] * parameter
                state["square"].add_(gradient.square() - state["square"], alpha=1 - group["alpha"])
                root = (state["square"] + group["eps"]).sqrt()
                state["buffer"].mul_(group["momentum"]).addcdiv_(gradient, root, value=group["lr"])
                parameter.sub_(state["buffer"])


def classification_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Returns timm's groups: vectors and biases are not decayed."""
    kept = [p for name, p in model.named_parameters() if p.ndim == 1 or name.endswith(".bias")]
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith(".bias")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def segmentation_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Returns mmseg's groups: the head learns ten times as fast, and tables of positions are not decayed."""
    groups = []
    for name, parameter in model.named_parameters():
        decay = 0.0 if name.endswith("pos_embed") else weight_decay
        factor = 10.0 if name.startswith("decode_head.") else 1.0
        groups.append({"params": [parameter], "weight_decay": decay, "factor": factor})
    return groups


def classification_loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy with probabilities as targets."""
    return F.cross_entropy(logits, batch["target"])


def segmentation_loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """mmseg's loss: logits resized to the labels; the sum over the labelled pixels divided by all pixels."""
    labels = batch["label"]
    resized = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(resized, labels, ignore_index=IGNORED, reduction="none").mean()
