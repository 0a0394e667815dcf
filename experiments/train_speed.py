"""Training step of every size against the PyTorch model with the same weights, in one process.

    python -m experiments.train_speed [--models tiny,small] [--batch 16] [--size 224]

Both sides take the same normalised images and labels through forward pass, cross-entropy, backward pass and AdamW.
Ours is the jitted step of `training/step.py`. PyTorch's is `convert.torch_model` in channels_last; on a GPU under
autocast to bfloat16 and `torch.compile`. The sides take turns step by step, so that a change in the machine's
load meets both, and the ratio is that of their medians. On a GPU the share of the memory-bandwidth floor is the
bytes that XLA counts for our step, over the measured bandwidth of a large copy, over the step's time.

Prints a table and writes experiments/results/train_speed_<backend>.json.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from convert import torch_model, weights
from experiments import measure
from seaformer_jax.losses import cross_entropy
from seaformer_jax.models.registry import create_model
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step

LEARNING_RATE = 1e-5  # Small, so that both sides keep doing the same thing.


def our_step(model: nnx.Module, images: np.ndarray, labels: np.ndarray):
    """Returns (a function that runs one step and waits for it, the compiled program)."""

    def loss(model, batch, key):
        logits = model(batch["image"], train=True, rngs=nnx.Rngs(dropout=key))
        return cross_entropy(logits, batch["label"]).mean(), {}

    optimizer = optax.adamw(LEARNING_RATE)
    state = states.create(model, optimizer, use_ema=False)
    step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
    batch = {"image": jnp.asarray(images.transpose(0, 2, 3, 1)), "label": jnp.asarray(labels)}
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, batch)
        return float(metrics["loss"])

    return run, compiled


def their_step(name: str, state_dict: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray):
    """Returns a function that runs one PyTorch step and waits for it."""
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    device = torch.device("cuda" if gpu else "cpu")
    model = torch_model.create_model(name)
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    x = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
    y = torch.from_numpy(labels).to(device)
    forward = torch.compile(model) if gpu else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def bandwidth() -> float:
    """Bytes per second of a large copy on the device, read plus written."""
    x = jnp.ones((256, 1024, 1024), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    jax.block_until_ready(copy(x))
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(copy(x))
        seconds.append(time.perf_counter() - began)
    return 2 * x.nbytes / float(np.median(seconds))


def compare(name: str, batch: int, size: int, rounds: int) -> dict:
    """Measures one model; returns its row of the table."""
    gpu = jax.default_backend() == "gpu"
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    labels = rng.integers(0, 1000, batch)
    model = create_model(name, dtype="bfloat16" if gpu else "float32")
    state_dict = weights.to_torch(model)
    ours, compiled = our_step(model, images, labels)
    theirs = their_step(name, state_dict, images, labels)
    seconds = measure.interleaved({"jax": ours, "torch": theirs}, rounds=rounds)
    row = {
        "model": name,
        "batch": batch,
        "jax_images_per_second": batch / seconds["jax"],
        "torch_images_per_second": batch / seconds["torch"],
        "ratio": seconds["torch"] / seconds["jax"],
    }
    if gpu:
        moved = compiled.cost_analysis()["bytes accessed"]
        row["share_of_bandwidth_floor"] = moved / bandwidth() / seconds["jax"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,small,base,large")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(measure.cores())
    one = functools.partial(compare, batch=options.batch, size=options.size, rounds=options.rounds)
    rows = [one(f"seaformer_{model}") for model in options.models.split(",")]
    measure.print_table(rows)
    measure.write(f"train_speed_{jax.default_backend()}", {"size": options.size, "rows": rows})


if __name__ == "__main__":
    main()
