"""Training step of every size against the PyTorch model with the same weights.

    python -m experiments.train_speed [--models tiny,small] [--batch 16] [--size 224]

Both sides take the same normalised images and labels through forward pass, cross-entropy, backward pass and AdamW.
Ours is the jitted step of `training/step.py`. PyTorch's is `convert.torch_model` in channels_last, and on a CPU in
its default layout, too, which is how the official code runs; on a GPU under autocast to bfloat16 and
`torch.compile`. The sides are processes of their own that take turns (`measure.in_turn`); ratios are those of the
medians. On a GPU the share of the memory-bandwidth floor is the bytes that XLA counts for our step, over the
measured bandwidth of a large copy, over the step's time.

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


def our_step(name: str, batch: int, size: int):
    """Returns (a function that runs one step and waits for it, facts)."""
    model = create_model(name, dtype="bfloat16" if _on_gpu() else "float32")

    def loss(model, batch, key):
        logits = model(batch["image"], train=True, rngs=nnx.Rngs(dropout=key))
        return cross_entropy(logits, batch["label"]).mean(), {}

    optimizer = optax.adamw(LEARNING_RATE)
    state = states.create(model, optimizer, use_ema=False)
    step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
    images, labels = examples(batch, size)
    data = {"image": jnp.asarray(images.transpose(0, 2, 3, 1)), "label": jnp.asarray(labels)}
    compiled = jax.jit(step, donate_argnums=0).lower(state, data).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, data)
        return float(metrics["loss"])

    moved = compiled.cost_analysis()["bytes accessed"]
    return run, {"floor_seconds": moved / bandwidth()} if _on_gpu() else {}


def examples(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [batch, 3, size, size] and labels [batch], the same for every side."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    return images, rng.integers(0, 1000, batch)


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def their_step(
    name: str, state_dict: dict[str, np.ndarray], batch: int, size: int, memory_format: str, cores: int
):
    """Returns (a function that runs one PyTorch step and waits for it, facts)."""
    gpu = torch.cuda.is_available()
    device, layout = torch.device("cuda" if gpu else "cpu"), getattr(torch, memory_format)
    torch.set_num_threads(cores)
    model = torch_model.create_model(name)
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = model.to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    images, labels = examples(batch, size)
    x = torch.from_numpy(images).to(device, memory_format=layout)
    y = torch.from_numpy(labels).to(device)
    forward = torch.compile(model) if gpu else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run, {}


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
    state_dict = weights.to_torch(create_model(name))
    theirs = functools.partial(their_step, name, state_dict, batch, size, cores=measure.cores())
    sides = {"jax": functools.partial(our_step, name, batch, size)}
    sides |= {layout: functools.partial(theirs, memory_format=layout) for layout in _layouts()}
    found = measure.in_turn(sides, rounds)
    row = {"model": name, "batch": batch}
    row |= {f"{side}_images_per_second": batch / found[side].seconds for side in sides}
    row |= {f"over_{layout}": found[layout].seconds / found["jax"].seconds for layout in _layouts()}
    row |= {f"{side}_peak_gb": found[side].peak_bytes / 1e9 for side in sides if not _on_gpu()}
    if _on_gpu():
        row["share_of_bandwidth_floor"] = found["jax"].facts["floor_seconds"] / found["jax"].seconds
    return row


def _layouts() -> tuple[str, ...]:
    return ("channels_last",) if _on_gpu() else ("channels_last", "contiguous_format")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,small,base,large")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    one = functools.partial(compare, batch=options.batch, size=options.size, rounds=options.rounds)
    rows = [one(f"seaformer_{model}") for model in options.models.split(",")]
    measure.print_table(rows)
    measure.write(f"train_speed_{jax.default_backend()}", {"size": options.size, "rows": rows})


if __name__ == "__main__":
    main()
