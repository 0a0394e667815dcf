"""Draws the last attention of SeaFormer-T with and without detail enhancement, side by side.

    python -m experiments.heatmaps --root PATH/TO/camvid [--without WORKDIR]

The papers' heat map is the mean of the last attention's output over its channels, scaled to 0..255. The weights are
those that ship with the package. "attention alone" is the attention of the same layer before it gates the detail;
"with enhancement" is the output of the layer. --without adds the output of a model that was trained without detail
enhancement, such as a run of `experiments.ablations`. Writes experiments/results/heatmaps.jpg and .md.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--without", type=pathlib.Path, help="workdir of a model without detail enhancement")
    options = parser.parse_args()
    files = sorted((options.root / "images" / "val").iterdir())
    frames = [np.asarray(Image.open(files[index]).convert("RGB")) for index in FRAMES]
    model = create_model("seaformer_tiny", "segmentation", weights="camvid")
    columns = {
        "frame": frames,
        "attention alone": [heat(alone(model), frame) for frame in frames],
        "with enhancement": [heat(model, frame) for frame in frames],
    }
    if options.without:
        other = trained.load(options.without).model
        columns["trained without"] = [heat(other, frame) for frame in frames]
    rows = [np.concatenate(row, axis=1) for row in zip(*columns.values(), strict=True)]
    Image.fromarray(np.concatenate(rows)).save(measure.RESULTS / "heatmaps.jpg", quality=80)
    text = (
        "# The last attention with and without detail enhancement\n\n"
        f"`python -m experiments.heatmaps` on CamVid, the weights `camvid` of SeaFormer-T. Columns: "
        f"{', '.join(columns)}. A heat map is the mean of the channels, scaled to the range of the picture; the "
        "attention is at 1/64 and upsampled bilinearly.\n\n![heat maps](heatmaps.jpg)\n"
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
