"""Writes the weights of a run, or those that ship with the package, under the official PyTorch names.

python -m convert.to_torch --workdir runs/tiny --out tiny.pth [--checkpoint=best] [--no-ema]
python -m convert.to_torch --weights camvid --out camvid.pth
"""

import dataclasses
from typing import Any

from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict

from convert import weights
from convert.checkpoints import files
from seaformer_jax import command, json_files, paths, tasks, versions
from seaformer_jax.detection.postprocess import Settings
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained
from seaformer_jax.models.registry import model_config
from seaformer_jax.training import trained

_MIRRORS = {
    "classification": "torch_model",
    "segmentation": "torch_segmentation",
    "detection": "torch_detection",
}
# Config keys under `model` that the PyTorch models take as options, too.
_OPTIONS = (
    "attention",
    "attention_widths",
    "attention_window",
    "attention_input",
    "detail_input",
    "detail_combine",
    "position_embedding",
    "adaptive",
    "adaptive_source",
    "adaptive_shared",
    "adaptive_expansion",
    "fusion_widths",
    "fusion",
    "upsample_ratio",
    "upsample_width",
    "neck_width",
    "tower_convs",
    "anchor_scale",
)

_WORKDIR = command.define_path("workdir", "Folder of the run.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, f"Weights that ship with the package: {', '.join(pretrained.list_weights())}."
)
_CHOICE = command.ChoiceOfWeights()
_OUT = command.define_path(
    "out",
    "File to write: .pth, .pth.tar, .pt or .safetensors. A .json that describes the weights is put beside it.",
    required=True,
)


def main() -> int:
    """Writes the weights and the JSON beside them, and prints the code that loads them."""
    out = paths.of(_OUT.value)
    card = files.beside(out, ".json")  # Before the run is loaded: a wrong suffix is refused at once.
    run = _CHOICE.load(_WORKDIR.value, _WEIGHTS.value)
    files.write_state_dict(out, weights.to_torch(run.model, batches_tracked=run.step))
    json_files.write(card, {**_describe(run), **_origin()})
    logging.info("%s and %s: %s, %s", out, card.name, run.config.model.name, _which(run))
    logging.info("%s", _usage(run, out))
    return 0


def _describe(run: trained.Trained) -> dict[str, Any]:
    """Returns the content of the JSON file: everything but the weights that is needed to use the model."""
    config = run.config
    return {
        "model": config.model.name,
        "options": _options(config),
        "task": run.task.task_type,
        "num_classes": len(run.class_names),
        "class_names": list(run.class_names),
        "mean": config.data.mean,
        "std": config.data.std,
        **_input(run),
        **_labels(run),
        "step": run.step,
        "weights": _which(run),
        "versions": {name: versions.installed(name) for name in ("seaformer-jax", "jax", "flax", "numpy")},
    }


def _origin() -> dict[str, str]:
    """Returns where the weights are from: the name of the workdir, or what the card of shipped weights says."""
    if not _WEIGHTS.value:
        return {"workdir": paths.real(paths.of(_WORKDIR.value)).name}
    card = pretrained.read_card(_WEIGHTS.value)
    return {"shipped": _WEIGHTS.value, "data": card["data"], "licence": card["licence"]}


def _options(config: ConfigDict) -> dict[str, Any]:
    """Returns the model options that differ from those of the published model."""
    published = model_config(config.model.name, tasks.task_type(config))
    # A config has the options of all models. Empty values mean "as published".
    return {
        option: value
        for option in _OPTIONS
        if hasattr(published, option)
        and (value := config.model.get(option, "")) not in ("", (), getattr(published, option))
    }


def _input(run: trained.Trained) -> dict[str, Any]:
    """Returns how evaluation prepares an image; a student's image is then reduced by `upsample_ratio`."""
    config = run.config
    if run.task.task_type == "segmentation":
        evaluation = {key: config.eval[key] for key in ("scale", "size_divisor", "mode")}
        return {"crop_size": config.data.crop_size, **evaluation}
    if run.task.task_type == "detection":
        return {key: config.eval[key] for key in ("scale", "pad_multiple", *Settings._fields)}
    evaluation = {key: config.eval[key] for key in ("crop_fraction", "interpolation")}
    return {"image_size": config.data.image_size, **evaluation}


def _labels(run: trained.Trained) -> dict[str, Any]:
    """Returns the colours of the classes and the encoding of masks; {} for classifiers or without the data."""
    if run.task.task_type != "segmentation":
        return {}
    if _WEIGHTS.value:  # Their card has what the data set says of its masks.
        return {"labels": {key: run.config.data[key] for key in ("palette", "ignore_label")}}
    try:
        spec = dataclasses.asdict(run.task.train_source.labels)
    except UserError as error:  # The weights are useful without the data.
        logging.warning(
            "%s lacks colours and the encoding of masks, which convert.export needs: %s", _OUT.value, error
        )
        return {}
    return {"labels": {name: value for name, value in spec.items() if name != "class_names"}}


def _which(run: trained.Trained) -> str:
    averaged = run.config.eval.use_ema and run.config.optim.ema_decay > 0
    return f"{'averaged' if averaged else 'last'} weights of step {run.step}"


def _usage(run: trained.Trained, out: epath.Path) -> str:
    """Returns Python code that loads the file into the PyTorch model and runs it."""
    load = "safetensors.torch.load_file" if out.suffix == ".safetensors" else "torch.load"
    task, size = run.task.task_type, run.config.data.image_size
    size = round(size / (run.config.model.get("upsample_ratio") or 1))  # A student sees a smaller image.
    options = "".join(f", {option}={value!r}" for option, value in _options(run.config).items())
    sides = f"{size}, {size}" if task == "classification" else "H, W"
    outputs = "logits, deltas" if task == "detection" else "logits"
    return (
        f'model = convert.{_MIRRORS[task]}.create_model("{run.config.model.name}", '
        f"num_classes={len(run.class_names)}{options})\n"
        f'model.load_state_dict({load}("{out}"))\n'
        f"{outputs} = model.eval()(images)  # float [B, 3, {sides}]: RGB in [0, 1], minus mean, over std"
    )


if __name__ == "__main__":
    command.run(main)
