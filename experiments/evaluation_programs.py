"""Measures a first evaluation of photos of many sizes: a program for every size against buckets.

    python -m experiments.evaluation_programs [--images 500] [--subset 10] [--rounds 11]

The recipe is `configs/pascal_context.py:tiny_59` with fresh weights, on generated photos whose longer side has 500
pixels, as in Pascal VOC, and whose shorter side is drawn from 250 to 500. With buckets, all images are evaluated.
With a program for every size only a subset is, of images of different sizes; its time is multiplied by the number of
sizes over that of the subset, because compiling takes nearly all of it. Nothing is cached. CPU seconds count all
threads, so other load on the machine hardly affects them.

It also measures what the sizes of padded images cost in a forward pass: the same program with and without them takes
turns. Prints the tables and writes experiments/results/evaluation_programs.json and .md.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from configs import pascal_context
from experiments import measure
from seaformer_jax import create_model, mesh, tasks
from seaformer_jax.data.segmentation import buckets
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.models.variables import split_model

CLASSES = 59
# Model, task, batch and side of the image.
FORWARD = (
    ("seaformer_tiny", "segmentation", 2, 512),
    ("seaformer_plus_tiny", "segmentation", 2, 512),
    ("seaformer_tiny", "classification", 16, 224),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--subset", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    forward = [cost(*case, rounds=options.rounds) for case in FORWARD]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sizes = write_photos(root, options.images, options.subset)
        passes = first_passes(root, sizes, options.subset)
    measure.write("evaluation_programs", {"passes": passes, "forward": forward})
    text = "\n\n".join(
        [
            "# Evaluation of images of many sizes",
            f"`python -m experiments.evaluation_programs` on {measure.cores()} CPU cores. The time of a program for "
            f"every size is extrapolated from {options.subset} sizes.",
            f"## First pass over {options.images} images",
            measure.table(passes),
            "## Forward pass with the sizes of padded images, over the one without; medians of turns",
            measure.table(forward),
        ]
    )
    (measure.RESULTS / "evaluation_programs.md").write_text(text + "\n")
    print(text)


def write_photos(root: pathlib.Path, count: int, subset: int) -> list[tuple[int, int]]:
    """Writes photos and masks in the layout `pairs`, as the splits `all` and `subset`; returns the photos' sizes.

    The photos of `subset` have different sizes.
    """
    rng, sizes = np.random.default_rng(0), []
    for index in range(count):
        short, tall = int(rng.integers(250, 501)), rng.random() < 0.3
        size = (500, short) if tall else (short, 500)
        new = size not in sizes and len(set(sizes)) < subset
        sizes.append(size)
        coarse = rng.integers(256, size=(8, 8, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        mask = Image.fromarray(coarse[..., 0] % CLASSES).resize(size[::-1], Image.Resampling.NEAREST)
        for split in ("all", "subset") if new else ("all",):
            for kind, picture, name in (("images", image, "jpg"), ("annotations", mask, "png")):
                path = root / kind / split / f"{index:03}.{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    return sizes


def first_passes(root: pathlib.Path, sizes: list[tuple[int, int]], subset: int) -> list[dict]:
    """Returns the rows of both kinds of programs."""
    distinct = len(set(sizes))
    bucketed = first_pass(root, "all", buckets.LIMIT)
    alone = first_pass(root, "subset", len(sizes))
    scaled = [value * distinct / subset for value in alone]
    rows = [
        {"programs": "one for every size", "number": distinct, "wall s": scaled[0], "CPU s": scaled[1]},
        {"programs": "buckets", "number": buckets.LIMIT, "wall s": bucketed[0], "CPU s": bucketed[1]},
    ]
    shares = {kind: bucketed[k] / scaled[k] for k, kind in enumerate(("wall s", "CPU s"))}
    return [*rows, {"programs": "ratio", "number": buckets.LIMIT / distinct, **shares}]


def first_pass(root: pathlib.Path, split: str, limit: int) -> tuple[float, float]:
    """Returns the wall and CPU seconds of a first evaluation with at most `limit` programs."""
    config = pascal_context.get_config("tiny_59")
    config.data.update({"source": "pairs", "root": str(root), "val_split": split, "workers": 0})
    config.data.class_names = tuple(f"class {k}" for k in range(CLASSES))
    task = tasks.create(config, config.data.class_names)
    model = task.create_model()
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, mesh.create_mesh())
    before, buckets.LIMIT = buckets.LIMIT, limit
    # A program for every size has as many images in a batch as share it: one.
    config.eval.batch_size = 1 if limit > before else config.eval.batch_size
    wall, cpu = time.perf_counter(), time.process_time()
    evaluator(*split_model(model))
    buckets.LIMIT = before
    return time.perf_counter() - wall, time.process_time() - cpu


def cost(name: str, task: str, batch: int, side: int, rounds: int) -> dict:
    """Returns the row of a forward pass with and without sizes."""
    graphdef, state = nnx.split(create_model(name, task, 150))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((batch, side, side, 3)), jnp.float32)
    sizes = jnp.full((batch, 2), side - 13)
    run = jax.jit(lambda state, images, *sizes: nnx.merge(graphdef, state)(images, False, None, *sizes))
    forms = {
        "plain ms": lambda: run(state, images).block_until_ready(),
        "with sizes ms": lambda: run(state, images, sizes).block_until_ready(),
    }
    medians = {form: 1000 * s for form, s in measure.interleaved(forms, rounds).items()}
    ratio = medians["with sizes ms"] / medians["plain ms"]
    return {"model": name, "task": task, "images": f"{batch} x {side} x {side}", **medians, "ratio": ratio}


if __name__ == "__main__":
    main()
