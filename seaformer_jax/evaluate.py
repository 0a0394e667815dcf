"""Evaluates the weights of a run or of a checkpoint file and writes tables and pictures.

python -m seaformer_jax.evaluate --workdir runs/tiny [--checkpoint=best] [--no-ema] [--show-dir overlays]
python -m seaformer_jax.evaluate --config configs/imagenet.py:tiny --weights seaformer_tiny.pth --out results
"""

import jax
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax import command, json_files, mesh, paths, processes
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.models import pretrained
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import reporting, trained, workdir

_CONFIG = command.define_config(required=False)
_WORKDIR = command.define_path("workdir", "Folder of a run.")
_CHOICE = command.ChoiceOfWeights()
_WEIGHTS = command.define_path(
    "weights",
    "A .pth, .pth.tar or .safetensors file with the official names, or weights of the package (camvid).",
)
_OUT = command.define_path(
    "out", "Folder for the results (default: the workdir, or the folder of the weights)."
)
_SHOW_DIR = command.define_path(
    "show-dir", "Folder for pictures of every validation image with its labels and predictions."
)


def main() -> int:
    """Evaluates as the flags say; returns the exit status."""
    # 1. The flags: where weights, config and results are.
    if bool(_WORKDIR.value) == bool(_WEIGHTS.value):
        raise UserError("give either --workdir, or --weights with --config")
    if _WEIGHTS.value and not _CONFIG.value:
        raise UserError("--weights needs --config, which defines the model and the data")
    if _WEIGHTS.value:
        _CHOICE.refuse()
    config = _CONFIG.value or workdir.read(command.existing("workdir", _WORKDIR.value))[0]

    # 2. JAX, the output folder and the model. The hosts have to connect before JAX uses a device. All of them get the
    #    same results; only the first one writes them.
    processes.connect(config.distributed)
    command.setup_jax(config)
    out = _OUT.value or _WORKDIR.value or paths.of(_WEIGHTS.value).parent
    folder = command.output_folder("out", out) if jax.process_index() == 0 else None
    _, _, task, model, step = _load(config)

    # 3. The evaluation and its results.
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, mesh.create_mesh())
    metrics = evaluator(*split_model(model))
    results = task.summarize(metrics)
    logging.info("%s", reporting.results_line(step, results))
    if folder:
        weights = _WEIGHTS.value or _WORKDIR.value
        record = {"step": step, "model": config.model.name, "weights": weights, **results}
        json_files.write(folder / "results.json", record)
        task.write_report(metrics, folder)
        if _SHOW_DIR.value:
            task.show(model, command.output_folder("show-dir", _SHOW_DIR.value))
        logging.info("written to %s", folder)
    return 0


def _load(config: ConfigDict) -> trained.Trained:
    """Returns the model with the weights that the flags name."""
    if _WORKDIR.value:
        return trained.load(command.existing("workdir", _WORKDIR.value), config, **_CHOICE.arguments())
    if _WEIGHTS.value in pretrained.list_weights():
        return trained.load_pretrained(_WEIGHTS.value, config)
    # Imported here, because only commands may import `convert`, and PyTorch may not be installed.
    from convert.checkpoints import starting_weights

    return starting_weights.load(paths.of(_WEIGHTS.value), config)


if __name__ == "__main__":
    command.run(main)
