"""Measures a detector's training step and its inference against the same model in PyTorch.

    python -m experiments.detection_speed [--models tiny] [--batch 2] [--size 384x512] [--heads 64x2,256x4]

Both sides have the same weights, normalised images and labelled boxes. A step is forward pass, assignment of the
anchors, focal and L1 loss, backward pass and AdamW; PyTorch assigns as mmdetection does, with a matrix of all anchors
and boxes. An inference is one image: forward pass, the 1000 best pairs of each level, decoding and non-maximum
suppression, without a threshold, so that all candidates take part. PyTorch suppresses with a matrix of all candidates
(`torch_retinanet`). A head is its width and the number of convolutions in a tower: 64x2 is that of `configs/bccd.py`,
256x4 the published one. Each side has its own process, and the processes take turns (`measure.in_turn`). Ratios are
those of the medians. The table also has the share of the targets in our step, and what everything after the forward
pass of an image costs, as a share of our inference and of a step's time per image; each is compiled alone.

Prints a table and writes experiments/results/detection_speed_cpu.json. On a CPU set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment, as for training.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from convert import torch_detection, weights
from experiments import measure, torch_retinanet
from experiments.sides import LEARNING_RATE
from seaformer_jax.detection import anchors, losses, postprocess
from seaformer_jax.models.registry import create_model
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step

CLASSES, BOXES = 80, 20
SETTINGS = postprocess.Settings(score_threshold=0.0)
Size = tuple[int, int]


def examples(batch: int, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images [batch, 3, H, W], boxes [batch, BOXES, 4] and labels [batch, BOXES]; the same for both sides."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (batch, BOXES, 2))
    shares = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, (batch, BOXES, 2))], -1)
    images = rng.standard_normal((batch, 3, *size)).astype(np.float32)
    return (
        images,
        (shares * np.tile(size[::-1], 2)).astype(np.float32),
        rng.integers(0, CLASSES, (batch, BOXES)),
    )


def targets(batch: dict[str, jax.Array], size: Size) -> losses.Targets:
    everywhere = jnp.ones((len(batch["boxes"]), len(anchors.anchors(*size))), bool)
    valid = jnp.ones(batch["labels"].shape, bool)
    return losses.targets(anchors.anchors(*size), everywhere, batch["boxes"], batch["labels"], valid)


def our_batch(batch: int, size: Size) -> dict[str, jax.Array]:
    images, boxes, labels = examples(batch, size)
    arrays = {"image": images.transpose(0, 2, 3, 1), "boxes": boxes, "labels": labels.astype(np.int32)}
    return jax.tree.map(jnp.asarray, arrays)


def our_step(name: str, batch: int, size: Size, options: dict):
    """Returns (a training step that waits for its end, no facts)."""

    def loss(model, data, key):
        logits, deltas = model(data["image"], train=True, rngs=nnx.Rngs(dropout=key))
        wanted = targets(data, size)
        total = losses.focal_loss(logits, wanted.classes, wanted.weights) + losses.box_loss(deltas, wanted)
        return total / wanted.divisor(), {}

    model, optimizer = create_model(name, "detection", CLASSES, **options), optax.adamw(LEARNING_RATE)
    state = states.create(model, optimizer, use_ema=False)
    step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
    data = our_batch(batch, size)
    compiled = jax.jit(step, donate_argnums=0).lower(state, data).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, data)
        return float(metrics["loss"])

    return run, {}


def our_targets(batch: int, size: Size):
    """Returns (the assignment and the targets of a step alone, no facts)."""
    compute, data = jax.jit(lambda data: targets(data, size)), our_batch(batch, size)
    return lambda: jax.block_until_ready(compute(data)), {}


def our_inference(name: str, size: Size, options: dict, only_forward: bool = False):
    """Returns (one image's boxes, or only the outputs of the network, no facts)."""
    graphdef, state = nnx.split(create_model(name, "detection", CLASSES, **options))
    image, sizes, ones = our_batch(1, size)["image"], jnp.asarray([size]), jnp.ones((1, 2))

    @jax.jit
    def infer(state, image):
        logits, deltas = nnx.merge(graphdef, state)(image)
        if only_forward:
            return logits, deltas
        return postprocess.detect(logits, deltas, size, sizes, ones, 4.0, SETTINGS)

    return lambda: jax.block_until_ready(infer(state, image)), {}


def their_model(name: str, state_dict: dict[str, np.ndarray], options: dict, cores: int) -> torch.nn.Module:
    torch.set_num_threads(cores)
    model = torch_detection.create_model(name, CLASSES, **options)
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    return model.to(memory_format=torch.channels_last)


def their_step(name: str, batch: int, size: Size, options: dict, state_dict: dict, cores: int):
    """Returns (a training step in PyTorch, no facts)."""
    model = their_model(name, state_dict, options, cores).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    images, boxes, labels = map(torch.from_numpy, examples(batch, size))
    images = images.to(memory_format=torch.channels_last)
    grid = torch.tensor(anchors.anchors(*size))

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss = torch_retinanet.loss(*model(images), grid, boxes, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run, {}


def their_inference(name: str, size: Size, options: dict, state_dict: dict, cores: int):
    """Returns (one image's boxes in PyTorch, no facts)."""
    model = their_model(name, state_dict, options, cores).eval()
    image = torch.from_numpy(examples(1, size)[0]).to(memory_format=torch.channels_last)
    grid, counts = torch.tensor(anchors.anchors(*size)), list(anchors.level_counts(*size))

    def run():
        with torch.inference_mode():
            logits, deltas = model(image)
            return torch_retinanet.detect(logits[0], deltas[0], grid, counts, size)

    return run, {}


def compare(name: str, batch: int, size: Size, options: dict, rounds: int) -> dict:
    """Measures one model; returns its row of the table."""
    state_dict, cores = weights.to_torch(create_model(name, "detection", CLASSES, **options)), measure.cores()
    part = functools.partial
    step = measure.in_turn(
        {
            "jax": part(our_step, name, batch, size, options),
            "torch": part(their_step, name, batch, size, options, state_dict, cores),
            "targets": part(our_targets, batch, size),
        },
        rounds,
    )
    inference = measure.in_turn(
        {
            "jax": part(our_inference, name, size, options),
            "torch": part(their_inference, name, size, options, state_dict, cores),
            "forward": part(our_inference, name, size, options, only_forward=True),
        },
        rounds,
    )
    row = {"model": name, "image": f"{size[0]}x{size[1]}", "batch": batch, **options}
    for kind, found in (("step", step), ("inference", inference)):
        row |= {f"{side}_{kind}_ms": 1e3 * found[side].seconds for side in ("jax", "torch")}
        row[f"{kind}_ratio"] = found["torch"].seconds / found["jax"].seconds
        row |= {f"{side}_{kind}_peak_gb": found[side].peak_bytes / 1e9 for side in ("jax", "torch")}
    row["targets_share_of_step"] = step["targets"].seconds / step["jax"].seconds
    boxes = inference["jax"].seconds - inference["forward"].seconds
    row["boxes_share_of_inference"] = boxes / inference["jax"].seconds
    row["boxes_share_of_step"] = boxes * batch / step["jax"].seconds
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", default="384x512")
    parser.add_argument("--heads", default="64x2,256x4")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = tuple(int(side) for side in options.size.split("x"))
    heads = [tuple(int(part) for part in head.split("x")) for head in options.heads.split(",")]
    rows = [
        compare(
            f"seaformer_{model}",
            options.batch,
            size,
            {"neck_width": width, "tower_convs": convs},
            options.rounds,
        )
        for model in options.models.split(",")
        for width, convs in heads
    ]
    measure.print_table(rows)
    measure.write(f"detection_speed_{jax.default_backend()}", {"rows": rows})


if __name__ == "__main__":
    main()
