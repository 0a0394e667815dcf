"""Measures the time of one attention block at growing image sizes: SEA, axial and full (the paper's O(HW) claim).

    python -m experiments.attention_cost

The feature maps are at 1/16 of square images from 256 to 2048 pixels and have 64 channels. There are 4 heads with
keys of 16 and values of 32 channels. A run is the forward pass of one image. All three blocks project to queries,
keys and values and back with the same 1x1 convolutions:

- SEA: `models/attention/sea.py`, the block of the models, including detail enhancement;
- axial: every position attends to its row and to its column, and the two results are added;
- full: every position attends to all positions; only up to 1024 pixels, beyond which the scores take more than 4 GB.

Prints a table and writes experiments/results/attention_cost_<backend>.json and .png.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments import measure
from seaformer_jax.models.attention.sea import SeaAttention

SIZES = (256, 384, 512, 768, 1024, 1536, 2048)
STRIDE, WIDTH, HEADS, KEY, VALUE = 16, 64, 4, 16, 32
LARGEST = {"sea": 2048, "axial": 2048, "full": 1024}  # Largest image of each block, in pixels along a side.
ROUNDS = 9


def projections(rng: np.random.Generator) -> tuple[jax.Array, ...]:
    """Returns the kernels that project to queries, keys and values, and the one that projects back."""
    shapes = ((WIDTH, HEADS * KEY), (WIDTH, HEADS * KEY), (WIDTH, HEADS * VALUE), (HEADS * VALUE, WIDTH))
    return tuple(jnp.asarray(rng.standard_normal(shape) / 8, jnp.float32) for shape in shapes)


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns softmax attention over N; the arguments are [..., N, heads, d] with their own d each."""
    scores = jnp.einsum("...nhd,...mhd->...hnm", q, k) * KEY**-0.5
    return jnp.einsum("...hnm,...mhd->...nhd", jax.nn.softmax(scores, axis=-1), v)


def heads_of(x: jax.Array, kernels: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Returns queries, keys and values of x [1, H, W, C], each [1, H, W, heads, d]."""
    return tuple((x @ kernel).reshape(*x.shape[:3], HEADS, -1) for kernel in kernels[:3])


def axial(x: jax.Array, kernels: tuple[jax.Array, ...]) -> jax.Array:
    """Returns axial attention of x [1, H, W, C], in the same shape."""
    q, k, v = heads_of(x, kernels)
    columns = attend(*(t.swapaxes(1, 2) for t in (q, k, v))).swapaxes(1, 2)
    return (attend(q, k, v) + columns).reshape(*x.shape[:3], -1) @ kernels[3]


def full(x: jax.Array, kernels: tuple[jax.Array, ...]) -> jax.Array:
    """Returns full attention of x [1, H, W, C], in the same shape."""
    flat = (t.reshape(1, -1, HEADS, t.shape[-1]) for t in heads_of(x, kernels))
    return attend(*flat).reshape(*x.shape[:3], -1) @ kernels[3]


def runs_of(size: int) -> dict:
    """Compiles the blocks that are measured at this image size; returns name -> function that runs it and waits."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, size // STRIDE, size // STRIDE, WIDTH)), jnp.float32)
    kernels = projections(rng)
    graphdef, state = nnx.split(SeaAttention(WIDTH, KEY, HEADS, VALUE // KEY, 1, rng))
    sides = {
        "sea": (lambda x, state: nnx.merge(graphdef, state)(x, train=False), state),
        "axial": (axial, kernels),
        "full": (full, kernels),
    }
    compiled = {
        name: (jax.jit(function).lower(x, weights).compile(), weights)
        for name, (function, weights) in sides.items()
        if size <= LARGEST[name]
    }
    return {
        name: lambda run=run, weights=weights: jax.block_until_ready(run(x, weights))
        for name, (run, weights) in compiled.items()
    }


def draw(rows: list[dict], backend: str) -> None:
    """Draws the time of each block over the image size, with a line proportional to HW for comparison."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in LARGEST:
        points = [(row["pixels_a_side"], row[f"{name}_ms"]) for row in rows if row[f"{name}_ms"] is not None]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    first = rows[0]
    axes.plot(
        SIZES,
        [first["sea_ms"] * (size / SIZES[0]) ** 2 for size in SIZES],
        color="grey",
        linestyle=":",
        label="proportional to HW",
    )
    axes.set(xscale="log", yscale="log", xlabel="input, pixels a side", ylabel="milliseconds")
    axes.set_xticks(SIZES, SIZES)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(measure.RESULTS / f"attention_cost_{backend}.png", dpi=100)


def main() -> None:
    rows = []
    for size in SIZES:
        seconds = measure.interleaved(runs_of(size), ROUNDS)
        rows.append({"pixels_a_side": size})
        rows[-1] |= {f"{name}_ms": 1e3 * seconds[name] if name in seconds else None for name in LARGEST}
    measure.print_table(rows)
    measure.write(f"attention_cost_{jax.default_backend()}", {"rows": rows})
    draw(rows, jax.default_backend())


if __name__ == "__main__":
    main()
