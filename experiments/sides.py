"""The two sides of a training-speed table: our jitted step, and PyTorch's eager or compiled step.

`our_step` and `their_step` run in separate processes (`measure.in_turn`). Each returns (a function that runs one step
and waits for it, facts for the table). Both sides see the same images and labels.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.nn import functional as F

from convert import torch_model, torch_segmentation
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


def our_step(name: str, task: str, batch: int, size: int):
    """Returns our step and its facts: on a GPU, the seconds that its memory traffic takes at least.

    Args:
        name: Name of the model.
        task: "classification" or "segmentation".
        batch: Images.
        size: Height and width of an image.
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
        state, metrics = compiled(state, data)
        return float(metrics["loss"])

    # XLA's count of bytes over the measured bandwidth is a floor for the time of the step.
    moved = compiled.cost_analysis()["bytes accessed"]
    return run, {"floor_seconds": moved / _bandwidth()} if on_gpu() else {}


def _bandwidth() -> float:
    """Returns the device's memory bandwidth in bytes per second, read plus written, from copying a large array."""
    x = jnp.ones((256, 1024, 1024), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    jax.block_until_ready(copy(x))  # Compiles.
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(copy(x))
        seconds.append(time.perf_counter() - began)
    return 2 * x.nbytes / float(np.median(seconds))


def their_step(
    name: str,
    task: str,
    batch: int,
    size: int,
    state_dict: dict[str, np.ndarray],
    memory_format: str,
    cores: int,
):
    """Returns PyTorch's step and no facts.

    Args:
        name: Name of the model.
        task: "classification" or "segmentation".
        batch: Images.
        size: Height and width of an image.
        state_dict: Weights of our model, under the official names.
        memory_format: Name of a memory format of torch, such as "channels_last".
        cores: Number of CPU cores to use.
    """
    gpu = torch.cuda.is_available()
    device, layout = torch.device("cuda" if gpu else "cpu"), getattr(torch, memory_format)
    torch.set_num_threads(cores)
    model = _TORCH[task].create_model(name, num_classes=CLASSES[task])
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = model.to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    images, labels = examples(task, batch, size)
    x = torch.from_numpy(images).to(device, memory_format=layout)
    y = torch.from_numpy(labels).to(device)
    forward = torch.compile(model) if gpu else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            logits = forward(x)
            if task == "segmentation":
                logits = F.interpolate(logits, y.shape[1:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run, {}
