"""Draws the last attention of SeaFormer-T with and without detail enhancement, side by side.

    python -m experiments.heatmaps --root PATH/TO/camvid [--with WORKDIR --without WORKDIR]

The papers' heat map is the mean of the last attention's output over its channels, scaled to 0..255. The weights are
those that ship with the package. "attention alone" is the attention of the same layer before it gates the detail;
"with enhancement" is the output of the layer. --with and --without add the outputs of two models that were trained
alike, with and without detail enhancement, such as runs of `experiments.ablations`. Writes
experiments/results/heatmaps.jpg, .md and .json.
"""

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from experiments import measure
from seaformer_jax import create_model
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD
from seaformer_jax.evaluation import pictures
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.training import trained

FRAMES = (5, 40, 75)  # Indices among the validation frames, as in `experiments.camvid`.
WIDTH = 1800  # Of the picture, in pixels.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    for trained_how in ("with", "without"):
        help_ = f"workdir of a model {trained_how} detail enhancement"
        parser.add_argument(f"--{trained_how}", type=pathlib.Path, help=help_)
    options = parser.parse_args()
    files = sorted((options.root / "images" / "val").iterdir())
    frames = [np.asarray(Image.open(files[index]).convert("RGB")) for index in FRAMES]
    model = create_model("seaformer_tiny", "segmentation", weights="camvid")
    columns = {
        "frame": frames,
        "attention alone": [heat(alone(model), frame) for frame in frames],
        "with enhancement": [heat(model, frame) for frame in frames],
    }
    steps = {}
    for trained_how in ("with", "without"):
        if folder := vars(options)[trained_how]:
            run = trained.load(folder)
            steps[f"trained {trained_how}"] = run.step
            columns[f"trained {trained_how}"] = [heat(run.model, frame) for frame in frames]
    rows = [np.concatenate(row, axis=1) for row in zip(*columns.values(), strict=True)]
    picture = Image.fromarray(np.concatenate(rows))
    picture.thumbnail((WIDTH, WIDTH))
    picture.save(measure.RESULTS / "heatmaps.jpg", quality=80)
    measure.write("heatmaps", {"frames": [files[index].name for index in FRAMES], "steps": steps})
    shown = [f"{column} ({steps[column]} steps)" if column in steps else column for column in columns]
    text = (
        "# The last attention with and without detail enhancement\n\n"
        "`python -m experiments.heatmaps` on CamVid, the weights `camvid` of SeaFormer-T if no steps are named. "
        f"Columns: {', '.join(shown)}. A heat map is the mean of the channels, scaled to the range of the picture; "
        "the attention is at 1/64 and upsampled bilinearly.\n\n![heat maps](heatmaps.jpg)\n"
    )
    (measure.RESULTS / "heatmaps.md").write_text(text)


def alone(model: nnx.Module) -> nnx.Module:
    """Returns a copy of `model` whose last attention returns its gate before the hard sigmoid, without the detail."""
    copy = nnx.clone(model)
    last: SeaAttention = copy.backbone.stages[-1].sea[-1].attention
    last.detail_input = "none"
    return copy


def heat(model: nnx.Module, frame: np.ndarray) -> np.ndarray:
    """Returns the frame, uint8 [H, W, 3], with the heat map of `model` over it."""
    image = jnp.asarray(((frame / 255.0 - IMAGENET_MEAN) / IMAGENET_STD)[None], jnp.float32)
    attended = model.backbone.last_attention(image)
    return pictures.heat_overlay(frame, np.asarray(attended[0].mean(-1)))


if __name__ == "__main__":
    main()
