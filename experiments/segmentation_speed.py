"""Measures time and peak memory of class maps of whole images, against the PyTorch model with the same weights.

    python -m experiments.segmentation_speed [--models tiny,small] [--rounds 5]

A run goes from one image of 512x512 or 1024x2048 pixels to the class of every pixel, for every size of the model.
Our side is the code of `evaluate` (`evaluation/inference.py`). PyTorch's side is the model of
`convert/torch_segmentation.py` with the test path of mmseg: resize the logits to the image, softmax, argmax. On a GPU
both compute in bfloat16, and PyTorch's side is compiled, with CUDA graphs. Each side has its own process, and the
processes take turns. `python -m experiments.train_speed --task segmentation`
measures the training step at 512x512.

Prints a table and writes experiments/results/segmentation_speed_<backend>.json.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn import functional as F

from convert import torch_segmentation, weights
from experiments import measure, sides
from seaformer_jax import config as configs
from seaformer_jax.evaluation import inference
from seaformer_jax.models.registry import create_model

SIZES = ((512, 512), (1024, 2048))  # Height and width of the image.
CLASSES = 150


def our_classes(name: str, height: int, width: int):
    """Returns (a function that makes the class map of one image in JAX and waits for it, no facts)."""
    model = create_model(
        name, "segmentation", num_classes=CLASSES, dtype="bfloat16" if sides.on_gpu() else "float32"
    )
    graphdef, state = nnx.split(model)
    settings = configs.segmentation().eval

    @jax.jit
    def classes(state, images, size):
        model = nnx.merge(graphdef, state)
        # Without the sizes, because the image has no padding.
        return inference.predict(
            lambda images, sizes: (model(images), model.extent(images, sizes).sizes),
            [images],
            [size],
            size,
            (height, width),
            settings,
        )

    image = jnp.asarray(examples(height, width).transpose(0, 2, 3, 1))
    size = jnp.asarray([[height, width]])
    return lambda: np.asarray(classes(state, image, size)), {}


def examples(height: int, width: int) -> np.ndarray:
    """Returns one image of noise, float32 [1, 3, height, width]; the same for both sides."""
    return np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)


def their_classes(
    name: str, height: int, width: int, state_dict: dict[str, np.ndarray], cores: int, gpu: bool
):
    """Returns (a function that makes the class map of one image in PyTorch and waits for it, no facts)."""
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_num_threads(cores)
    model = torch_segmentation.create_model(name, num_classes=CLASSES)
    model.load_state_dict({key: torch.tensor(value) for key, value in state_dict.items()})
    model = model.to(device, memory_format=torch.channels_last).eval()
    image = torch.from_numpy(examples(height, width)).to(device, memory_format=torch.channels_last)

    def classes(image: torch.Tensor) -> torch.Tensor:
        logits = F.interpolate(model(image), (height, width), mode="bilinear", align_corners=False)
        return logits.softmax(1).argmax(1).int()  # As ours: less to copy to the host.

    forward = torch.compile(classes, mode="reduce-overhead") if gpu else classes

    def run():
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=gpu):
            return forward(image).cpu().numpy()

    return run, {}


def compare(name: str, height: int, width: int, rounds: int) -> dict:
    """Measures one model at one image size; returns its row of the table."""
    state_dict = weights.to_torch(create_model(name, "segmentation", num_classes=CLASSES))
    gpu, cores = sides.on_gpu(), measure.cores()
    both = {
        "jax": functools.partial(our_classes, name, height, width),
        "torch": functools.partial(their_classes, name, height, width, state_dict, cores, gpu),
    }
    results = measure.in_turn(both, rounds)
    row = {"model": name, "image": f"{height}x{width}"}
    row |= {f"{side}_ms": 1e3 * results[side].seconds for side in both}
    row["ratio"] = results["torch"].seconds / results["jax"].seconds
    if not gpu:  # The peak is that of the host's memory.
        row |= {f"{side}_peak_gb": results[side].peak_bytes / 1e9 for side in both}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="tiny,small,base,large")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = [f"seaformer_{model}" for model in options.models.split(",")]
    rows = [compare(name, *size, options.rounds) for name in names for size in SIZES]
    measure.print_table(rows)
    measure.write(f"segmentation_speed_{jax.default_backend()}", {"rows": rows})


if __name__ == "__main__":
    main()
