"""Writes the weights of a run under the official PyTorch names.

python -m convert.to_torch --workdir runs/tiny --out tiny.pth
"""

import importlib.metadata
import json
import pathlib
from typing import Any

from absl import flags, logging

from convert import files, weights
from seaformer_jax import command
from seaformer_jax.training import trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "File to write: .pth, .pth.tar, .pt or .safetensors; a .json is put beside it.",
    required=True,
)


def main() -> int:
    workdir, out = command.existing("workdir", _WORKDIR.value), pathlib.Path(_OUT.value)
    card = files.beside(out, ".json")
    run = trained.load(workdir)
    files.write_state_dict(out, weights.to_torch(run.model, batches_tracked=run.step))
    card.write_text(json.dumps(_describe(run, workdir), indent=2) + "\n")
    logging.info("%s and %s: %s, %s", out, card.name, run.config.model.name, _which(run))
    logging.info("%s", _usage(run, out))
    return 0


def _describe(run: trained.Trained, workdir: pathlib.Path) -> dict[str, Any]:
    """What a user of the weights has to know besides them."""
    config = run.config
    return {
        "model": config.model.name,
        "task": config.task.name,
        "num_classes": len(run.class_names),
        "class_names": list(run.class_names),
        "image_size": config.data.image_size,
        "mean": config.data.mean,
        "std": config.data.std,
        "crop_fraction": config.eval.crop_fraction,
        "interpolation": config.eval.interpolation,
        "step": run.step,
        "weights": _which(run),
        "workdir": workdir.resolve().name,
        "versions": {name: _version(name) for name in ("seaformer-jax", "jax", "flax", "numpy")},
    }


def _which(run: trained.Trained) -> str:
    averaged = run.config.eval.use_ema and run.config.optim.ema_decay > 0
    return f"{'averaged' if averaged else 'last'} weights of step {run.step}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # A checkout that is not installed.
        return None


def _usage(run: trained.Trained, out: pathlib.Path) -> str:
    load = "safetensors.torch.load_file" if out.suffix == ".safetensors" else "torch.load"
    size = run.config.data.image_size
    return (
        f'model = convert.torch_model.create_model("{run.config.model.name}", num_classes={len(run.class_names)})\n'
        f'model.load_state_dict({load}("{out}"))\n'
        f"logits = model.eval()(images)  # float [B, 3, {size}, {size}]: RGB in [0, 1], minus mean, over std"
    )


if __name__ == "__main__":
    command.run(main)
