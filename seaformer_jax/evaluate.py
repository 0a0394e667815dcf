"""Evaluates a run, or converted weights, and writes tables and pictures.

python -m seaformer_jax.evaluate --workdir runs/tiny
python -m seaformer_jax.evaluate --config configs/imagenet.py:tiny --weights seaformer_tiny.pth --out results
"""

import json
import pathlib

from absl import flags, logging
from flax import nnx

from seaformer_jax import command, mesh, tasks
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.training import checkpoint, reporting, state, workdir

_CONFIG = command.define_config(required=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run; its averaged weights are evaluated.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "A .pth, .pth.tar or .safetensors file with the official names."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the results (default: the workdir).")


def main() -> int:
    if bool(_WORKDIR.value) == bool(_WEIGHTS.value):
        raise UserError("give either --workdir, or --weights with --config")
    if _WEIGHTS.value and not (_CONFIG.value and _OUT.value):
        raise UserError("--weights needs --config (the data and the model) and --out (for the results)")
    config = _CONFIG.value or workdir.read(command.existing("workdir", _WORKDIR.value))[0]
    mesh.initialize_distributed(config.distributed)
    command.setup_jax(config)
    mesh.check_batch_size("eval.batch_size", config.eval.batch_size)
    task = tasks.create(config)
    model = task.create_model()
    step = _load(model, config.eval.use_ema)
    folder = pathlib.Path(_OUT.value or _WORKDIR.value)
    folder.mkdir(parents=True, exist_ok=True)

    evaluator = Evaluator(nnx.graphdef(model), task.count, task.eval_batches, mesh.create_mesh())
    counts = evaluator(*state.split_model(model))
    results = task.summarize(counts)
    logging.info("%s", reporting.results_line(step, results))
    record = {
        "step": step,
        "model": config.model.name,
        "weights": _WEIGHTS.value or _WORKDIR.value,
        **results,
    }
    (folder / "results.json").write_text(json.dumps(record, indent=2) + "\n")
    task.write_report(counts, folder)
    logging.info("written to %s", folder)
    return 0


def _load(model: nnx.Module, use_ema: bool) -> int:
    """Puts the weights that the flags name into `model`; returns the step they are of (0: unknown)."""
    if _WORKDIR.value:
        step, params, batch_stats = checkpoint.load_weights(pathlib.Path(_WORKDIR.value), use_ema)
        state.update_model(model, params, batch_stats)
        return step
    from convert import files, weights  # Only commands may reach for the room that knows PyTorch.

    weights.from_torch(model, files.read_state_dict(_WEIGHTS.value))
    return 0


if __name__ == "__main__":
    command.run(main)
