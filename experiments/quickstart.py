"""The first run: trains, evaluates, predicts with and converts SeaFormer-Tiny, with the commands a user would type.

    make quickstart        (or: python -m experiments.quickstart [--out runs/quickstart])

A second call resumes the training, or finds it complete, and repeats the other steps.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image

from convert import torch_model
from convert.checkpoints import files
from experiments import runs
from seaformer_jax.data.classification.transforms import EvalTransform
from seaformer_jax.data.shapes import Shapes
from seaformer_jax.evaluation.report import draw_contact_sheet
from seaformer_jax.models.registry import create_model
from seaformer_jax.models.variables import update_model
from seaformer_jax.training import checkpoint, workdir

CONFIG = "configs/quickstart.py"
IMAGES = 24  # Validation images to predict on.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/quickstart"))
    run = parser.parse_args().out
    command("1/4 train", "seaformer_jax.train", f"--config={CONFIG}", f"--workdir={run}")
    command("2/4 evaluate", "seaformer_jax.evaluate", f"--workdir={run}")
    write_images(run / "images")
    command(
        "3/4 predict",
        "seaformer_jax.predict",
        f"--workdir={run}",
        f"--images={run}/images",
        f"--out={run}/predictions",
    )
    draw_predictions(run)
    command("4/4 convert to PyTorch", "convert.to_torch", f"--workdir={run}", f"--out={run}/model.pth")
    difference = compare_logits(run)
    print_summary(run, difference)


def command(title: str, module: str, *arguments: str) -> None:
    """Prints a title and runs `python -m module arguments`."""
    print(f"\n=== {title}", flush=True)
    runs.call(module, *arguments)


def write_images(folder: pathlib.Path) -> None:
    """Writes the first validation images as PNG files named <number>_<true class>.png."""
    config, class_names = workdir.read(folder.parent)
    source = Shapes("val", config.data.val_size, config.data.image_size)
    folder.mkdir(exist_ok=True)
    for i in range(IMAGES):
        element = source[i]
        Image.fromarray(element["image"]).save(folder / f"{i:02d}_{class_names[element['label']]}.png")


def draw_predictions(run: pathlib.Path) -> None:
    """Draws the images below their true and predicted labels; wrong predictions are red."""
    rows = [json.loads(line) for line in (run / "predictions/predictions.jsonl").read_text().splitlines()]
    images, titles, colors = [], [], []
    for row in rows:
        path = pathlib.Path(row["image"])
        true, predicted = path.stem.split("_")[1], row["top"][0]["label"]
        images.append(np.asarray(Image.open(path)))
        titles.append(f"true {true}\npredicted {predicted} {100 * row['top'][0]['probability']:.0f}%")
        colors.append("black" if true == predicted else "red")
    draw_contact_sheet(images, titles, run / "predictions.png", colors)


def compare_logits(run: pathlib.Path) -> float:
    """Returns the largest absolute difference between the JAX and the PyTorch model's logits on the images."""
    # 1. The images, prepared as for evaluation.
    config, class_names = workdir.read(run)
    crop = EvalTransform(config.data.image_size, config.eval.crop_fraction, config.eval.interpolation)
    crops = [
        crop.map({"image": np.asarray(Image.open(path)), "label": 0})["image"]
        for path in sorted((run / "images").glob("*.png"))
    ]
    images = (np.stack(crops) / 255 - config.data.mean) / config.data.std
    images = images.astype(np.float32)  # [B, H, W, 3]

    # 2. The JAX model with the weights of the checkpoint, PyTorch's with the converted ones.
    ours = create_model(config.model.name, num_classes=len(class_names))
    _, params, batch_stats = checkpoint.load_weights(run, config.eval.use_ema)
    update_model(ours, params, batch_stats)
    theirs = torch_model.create_model(config.model.name, num_classes=len(class_names)).eval()
    weights = files.read_state_dict(run / "model.pth")
    theirs.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return float(np.abs(np.asarray(ours(images)) - expected).max())


def print_summary(run: pathlib.Path, difference: float) -> None:
    """Prints the results and where they are; ends the script with an error if the logits differ too much."""
    results = runs.results(run)
    if difference > 1e-4:
        sys.exit(f"JAX and PyTorch differ by {difference:.1e} in the logits; at most 1e-4 was expected")
    print(f"""
=== done
top-1 {results["top1"]:.1f} % of {results["images"]} validation images
JAX and PyTorch logits differ by at most {difference:.1e}

{run}/predictions.png          inputs with true and predicted labels
{run}/confusion_matrix.png     which classes are mistaken for which
{run}/per_class.md             recall and precision of every class
{run}/metrics.jsonl            the training curve; also: tensorboard --logdir {run}
{run}/model.pth                the weights for PyTorch, with the official names

Next: train on a folder of your own images, <root>/train/<class>/*.jpg and <root>/val/<class>/*.jpg:
  {sys.executable} -m seaformer_jax.train --config configs/trashnet.py:tiny \\
      --workdir runs/mine --config.data.root=<root>
""")


if __name__ == "__main__":
    main()
