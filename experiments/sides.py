"""The two sides of a training-speed table: our jitted step, and PyTorch's eager or compiled step.

`our_step` and `their_step` run in separate processes (`measure.in_turn`). Each returns (a function that runs steps
and waits for the last one, facts for the table). Both sides see the same images and labels.
"""

import os

# Both sides and the process that starts them share the GPU. By default JAX would take three quarters of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.nn import functional as F

from convert import torch_model, torch_segmentation
from experiments import step_floor
from seaformer_jax.losses import cross_entropy, pixel_cross_entropy
from seaformer_jax.models.registry import create_model
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step

LEARNING_RATE = 1e-5  # So small that the weights hardly change and both sides compute the same thing.
CLASSES = {"classification": 1000, "segmentation": 150}
_TORCH = {"classification": torch_model, "segmentation": torch_segmentation}


def on_gpu() -> bool:
    """Returns whether JAX runs on a GPU."""
    return jax.default_backend() == "gpu"


def examples(task: str, batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [batch, 3, size, size] and labels [batch], or for segmentation [batch, size, size]."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    shape = (batch,) if task == "classification" else (batch, size, size)
    return images, rng.integers(0, CLASSES[task], shape)


def our_step(name: str, task: str, batch: int, size: int, steps: int = 1):
    """Returns our steps and their facts: on a GPU, the seconds that the memory traffic of one takes at least.

    Args:
        name: Name of the model.
        task: "classification" or "segmentation".
        batch: Images.
        size: Height and width of an image.
        steps: Steps of a run.
    """
    model = create_model(name, task, num_classes=CLASSES[task], dtype="bfloat16" if on_gpu() else "float32")

    def loss(model, batch, key):
        logits = model(batch["image"], train=True, rngs=nnx.Rngs(dropout=key))
        labels = batch["label"]
        if task == "classification":
            return cross_entropy(logits, labels).mean(), {}
        return pixel_cross_entropy(logits, labels).loss / labels.size, {}

    optimizer = optax.adamw(LEARNING_RATE)
    state = states.create(model, optimizer, use_ema=False)
    step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
    images, labels = examples(task, batch, size)
    data = {"image": jnp.asarray(images.transpose(0, 2, 3, 1)), "label": jnp.asarray(labels, jnp.int32)}
    compiled = jax.jit(step, donate_argnums=0).lower(state, data).compile()

    def run():
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, data)
        return float(metrics["loss"])

    return run, {
        "floor_seconds": step_floor.bytes_moved(compiled) / step_floor.bandwidth()
    } if on_gpu() else {}


def their_step(
    name: str,
    task: str,
    batch: int,
    size: int,
    state_dict: dict[str, np.ndarray],
    memory_format: str,
    cores: int,
    gpu: bool = False,
    steps: int = 1,
):
    """Returns PyTorch's steps and no facts.

    On a GPU they are the fastest that PyTorch has without tuning by hand: autocast to bfloat16, a fused optimiser,
    and model and loss in one compiled function, whose kernels are launched as a CUDA graph (as XLA launches its own).

    Args:
        name: Name of the model.
        task: "classification" or "segmentation".
        batch: Images.
        size: Height and width of an image.
        state_dict: Weights of our model, under the official names.
        memory_format: Name of a memory format of torch, such as "channels_last".
        cores: Number of CPU cores to use.
        gpu: Whether to run on a GPU, as our side does. It is an error if PyTorch has none.
        steps: Steps of a run.
    """
    device, layout = torch.device("cuda" if gpu else "cpu"), getattr(torch, memory_format)
    torch.set_num_threads(cores)
    model = _TORCH[task].create_model(name, num_classes=CLASSES[task])
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = model.to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=gpu)
    images, labels = examples(task, batch, size)
    x = torch.from_numpy(images).to(device, memory_format=layout)
    y = torch.from_numpy(labels).to(device)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = model(x)
        if task == "segmentation":
            logits = F.interpolate(logits, y.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, y)

    forward = torch.compile(loss_of, mode="reduce-overhead") if gpu else loss_of

    def run():
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
                loss = forward(x, y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return run, {}
