"""Compares two forms of the depthwise convolution: XLA's grouped convolution and the sum of shifted products.

    python -m experiments.depthwise_speed [--batch 8]

Measures the forward pass and the gradients on shapes of SeaFormer-Tiny and -Base at 224 pixels. `models/forms.py`
chooses the form of each platform by this table. Prints it and writes
experiments/results/depthwise_speed_<backend>.json.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import measure
from seaformer_jax.models.convolution import grouped_depthwise_conv
from seaformer_jax.models.depthwise import shifted_depthwise_conv

FORMS = {"grouped": grouped_depthwise_conv, "shifted": shifted_depthwise_conv}
# Side of the feature map, channels, kernel, stride.
SHAPES = ((112, 64, 3, 2), (56, 96, 5, 1), (56, 96, 5, 2), (28, 192, 3, 1), (14, 384, 5, 2), (7, 512, 3, 1))


def compare(batch: int, side: int, channels: int, kernel: int, stride: int, dtype: jnp.dtype) -> dict:
    """Returns one row of the table: milliseconds of both forms and their ratio, grouped / shifted."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, side, side, channels)), dtype)
    w = jnp.asarray(rng.standard_normal((kernel, kernel, channels)), dtype)
    row = {"input": f"{batch}x{side}x{side}x{channels}", "kernel": kernel, "stride": stride}
    # The forms take turns, so that load on the machine affects both.
    for what, wrap in (("forward", _forward), ("gradient", _gradient)):
        runs = {name: _ready(wrap(form, stride), x, w) for name, form in FORMS.items()}
        seconds = measure.interleaved(runs, rounds=9)
        row |= {f"{what}_{name}_ms": 1e3 * seconds[name] for name in FORMS}
        row[f"{what}_ratio"] = seconds["grouped"] / seconds["shifted"]
    return row


def _forward(form: Callable, stride: int) -> Callable:
    return lambda x, w: form(x, w, stride)


def _gradient(form: Callable, stride: int) -> Callable:
    """Returns a function for the gradient of the output's mean square by input and kernel."""
    return jax.grad(lambda x, w: jnp.square(form(x, w, stride)).mean(), argnums=(0, 1))


def _ready(function: Callable, *arguments: jax.Array) -> Callable[[], object]:
    """Returns a function that runs the compiled `function` and waits for it."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    batch = parser.parse_args().batch
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    rows = [compare(batch, *shape, dtype) for shape in SHAPES]
    measure.print_table(rows)
    measure.write(f"depthwise_speed_{jax.default_backend()}", {"dtype": jnp.dtype(dtype).name, "rows": rows})


if __name__ == "__main__":
    main()
