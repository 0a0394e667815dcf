"""The sides of `experiments.trajectory`: this code's training step and PyTorch's, on the same prepared batches."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict

from convert import torch_model, torch_segmentation, weights
from experiments import measure, torch_training
from seaformer_jax import tasks
from seaformer_jax.losses import pixel_cross_entropy, soft_cross_entropy
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim, state
from seaformer_jax.training.step import make_train_step

MODEL = "seaformer_tiny"
_LAST_BIT = 2.0**-23

Batch = dict[str, np.ndarray]  # `image` [B, H, W, 3] and `target` [B, classes] or `label` [B, H, W].
Arrays = dict[str, np.ndarray]  # Official parameter name -> array in PyTorch's layout.


class OurSide:
    """This code's training step."""

    def __init__(self, model: nnx.Module, loss: Callable, optimizer: Any):
        self.model, self.loss = model, loss
        self.state = state.create(model, optimizer, use_ema=False)
        step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
        self._step = jax.jit(step, donate_argnums=0)

    def step(self, batch: Batch, rate: float) -> float:
        """Trains on a batch and returns its loss; the optimiser computes the learning rate itself."""
        self.state, metrics = self._step(self.state, batch)
        return float(metrics["loss"])

    def weights(self) -> Arrays:
        return self._in_torch(self.state.params)

    def gradients(self, batch: Batch) -> Arrays:
        """Returns the gradients of the loss of a batch, and the statistics of BatchNorm before it."""

        def loss(params: Any) -> jax.Array:
            model = nnx.merge(nnx.graphdef(self.model), params, self.state.batch_stats)
            return self.loss(model, batch, jax.random.key(0))[0]

        return self._in_torch(jax.jit(jax.grad(loss))(self.state.params))

    def _in_torch(self, params: Any) -> Arrays:
        return weights.to_torch(nnx.merge(nnx.graphdef(self.model), params, self.state.batch_stats))


def our_side(model: nnx.Module, owner: tasks.Task, config: ConfigDict) -> tuple[OurSide, Callable]:
    """Returns this code's side and its schedule of learning rates."""

    def loss(model: nnx.Module, batch: dict, key: jax.Array) -> tuple[jax.Array, dict]:
        logits = model(batch["image"], train=True)
        if "target" in batch:
            return soft_cross_entropy(logits, batch["target"]).mean(), {}
        sums = pixel_cross_entropy(logits, batch["label"])
        return sums.loss / owner.divisor(sums, batch), {}

    optimizer, schedule = optim.create(config.optim, config.total_steps, split_model(model)[0])
    return OurSide(model, loss, optimizer), schedule


class TheirSide:
    """The mirror's training step in PyTorch, in the precision of the model.

    Attributes:
        layout: Memory format of the images. The official code has contiguous ones.
    """

    layout = torch.contiguous_format

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Callable):
        self.model, self.optimizer, self.loss = model.train(), optimizer, loss

    def step(self, batch: Batch, rate: float) -> float:
        """Trains on a batch with a learning rate and returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        loss = self._backward(batch)
        self.optimizer.step()
        return loss

    def weights(self) -> Arrays:
        return {name: value.numpy().copy() for name, value in self.model.state_dict().items()}

    def gradients(self, batch: Batch) -> Arrays:
        """Returns the gradients of the loss of a batch."""
        self._backward(batch)
        return {name: value.grad.numpy() for name, value in self.model.named_parameters()}

    def _backward(self, batch: Batch) -> float:
        dtype = next(self.model.parameters()).dtype
        tensors = {name: torch.tensor(value) for name, value in batch.items()}
        tensors = {
            name: value.long() if name == "label" else value.to(dtype) for name, value in tensors.items()
        }
        images = tensors["image"].permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(images), tensors)
        loss.backward()
        return loss.item()


def their_side(task: str, start: Arrays, classes: int, config: ConfigDict) -> TheirSide:
    """Returns PyTorch's side with the weights `start`."""
    torch.set_num_threads(measure.cores())
    o = config.optim
    if task == "classification":
        model = torch_model.create_model(MODEL, classes, drop_path_rate=0.0)
        groups = torch_training.classification_groups(model, o.weight_decay)
        optimizer = torch_training.RMSpropTF(
            groups, lr=o.lr, alpha=o.rms_decay, eps=o.eps, momentum=o.momentum
        )
        loss = torch_training.classification_loss
    else:
        model = torch_segmentation.create_model(MODEL, classes, drop_path_rate=0.0)
        model.decode_head.dropout.p = 0.0
        groups = torch_training.segmentation_groups(model, o.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=o.lr, betas=(o.b1, o.b2), eps=o.eps)
        loss = torch_training.segmentation_loss
    model.load_state_dict({name: torch.tensor(value) for name, value in start.items()})
    return TheirSide(model, optimizer, loss)


def watch_relus(model: torch.nn.Module) -> list[torch.Tensor]:
    """Returns a list to which each ReLU adds, when the model runs, a mask of the inputs that it passes on."""
    masks: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6):
            top = getattr(module, "max_val", math.inf)
            module.register_forward_hook(lambda _, __, y, top=top: masks.append((y > 0) & (y < top)))
    return masks


def nudged(start: Arrays) -> Arrays:
    """Returns the weights with their last bit changed at random."""
    rng = np.random.default_rng(0)
    return {
        name: value * (1 + _LAST_BIT * rng.integers(-1, 2, value.shape)).astype(value.dtype)
        if value.dtype == np.float32
        else value
        for name, value in start.items()
    }
