"""The campaign's runs: the smallest SeaFormer that has every part, trained on `shapes` for some seconds.

    python -m seaformer_jax.train --config experiments/campaign/recipe.py:TASK --workdir DIR

TASK is one of `seaformer_jax.config.TASKS`.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from convert import torch_model
from seaformer_jax import config as configs
from seaformer_jax.models.variants import VARIANTS, InvertedResidualSpec, SeaFormerConfig

RECIPE = "experiments/campaign/recipe.py"
MODEL = "campaign"
STEPS = 60
SMALLEST = SeaFormerConfig(
    stem=8,
    stages=(
        (InvertedResidualSpec(3, 1, 8, 2),),
        (InvertedResidualSpec(3, 1, 8, 2),),
        (InvertedResidualSpec(3, 1, 12, 2),),
    ),
    depths=(1,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
    fusion_widths=(8,),
)
SMALLEST_DETECTOR = SeaFormerConfig(
    stem=8,
    stages=tuple((InvertedResidualSpec(3, 1, channels, 2),) for channels in (8, 8, 12, 16, 16)),
    depths=(1,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
)
_RUN = {
    "total_steps": STEPS,
    "batch_size": 16,
    "log_every": 1,  # The campaign reads from metrics.jsonl how far a run is.
    "model.name": MODEL,
    "data.image_size": 32,
    "data.train_size": 72,  # Four and a half batches: epochs end within batches.
    "data.val_size": 37,
    "optim.lr": 1e-3,
    "optim.eps": 1e-3,
    "optim.ema_decay": 0.9,
    "optim.schedule.warmup_steps": 4,
    "eval.every": 20,
    "eval.batch_size": 16,
    "checkpoint.every": 3,  # Saves are short, so there have to be many to be hit.
}
# Last word of a task's name -> what its runs need besides.
_OF_TASK = {
    "classification": {"model.drop_path_rate": 0.5, "optim.name": "rmsprop_tf"},
    "segmentation": {"data.base_scale": (32, 32), "data.crop_size": (32, 32), "eval.scale": (32, 32)},
    "detection": {
        "model.name": f"{MODEL}_detector",
        "model.neck_width": 8,
        "model.tower_convs": 1,
        "data.scale": (32, 32),
        "data.buckets": ((32, 32),),
        "eval.scale": (32, 32),
    },
}
_STUDENT_OF_64_PIXELS = {
    "classification": {"data.image_size": 64},
    "segmentation": {"data.base_scale": (64, 64), "data.crop_size": (64, 64), "eval.scale": (64, 64)},
}


def make_known(models: Mapping[str, SeaFormerConfig]) -> None:
    """Makes models, by name, known to `seaformer_jax` and to the PyTorch mirror."""
    VARIANTS.update(models)
    for name, model in models.items():
        sizes = {field: getattr(model, field) for field in torch_model.Variant._fields}
        torch_model.VARIANTS[name] = torch_model.Variant(**sizes)


def register() -> None:
    """Makes the models of the runs known."""
    make_known({MODEL: SMALLEST, f"{MODEL}_detector": SMALLEST_DETECTOR})


def get_config(task: str = "classification") -> ConfigDict:
    """Returns the config of a short run of `task`."""
    register()
    config = configs.for_task(configs.choose(RECIPE, task, configs.TASKS))
    config.update_from_flattened_dict(_RUN | _of_task(config))
    return config


def _of_task(config: ConfigDict) -> dict[str, Any]:
    kind = config.task.name.split("_")[-1]
    return _OF_TASK[kind] | (_STUDENT_OF_64_PIXELS[kind] if "teacher" in config else {})
