"""Runs a trained model on images and writes its predictions.

python -m seaformer_jax.predict --workdir runs/tiny --images 'photos/*.jpg' --out predictions [--checkpoint=best]
python -m seaformer_jax.predict --weights camvid --images photo.jpg --out masks
"""

from absl import flags, logging

from seaformer_jax import command
from seaformer_jax.data import files
from seaformer_jax.data.images import IMAGE_EXTENSIONS
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained

_WORKDIR = command.define_path("workdir", "Folder of a run.")
_CHOICE = command.ChoiceOfWeights()
_WEIGHTS = flags.DEFINE_string(
    "weights", None, f"Weights that ship with the package: {', '.join(pretrained.list_weights())}."
)
_IMAGES = command.define_path("images", "An image, a folder or a quoted glob pattern.", required=True)
_OUT = command.define_path("out", "Folder for the predictions.", required=True)
_HEATMAP = flags.DEFINE_bool("heatmap", False, "Segmentation: also draw where the last attention looks.")


def main() -> int:
    """Predicts as the flags say; returns the exit status."""
    paths = files.matching_images(_IMAGES.value)
    if not paths:
        raise UserError(f"--images {_IMAGES.value} matches no image ({', '.join(IMAGE_EXTENSIONS)})")
    out = command.output_folder("out", _OUT.value)
    config, _, task, model, _ = _CHOICE.load(_WORKDIR.value, _WEIGHTS.value)
    command.setup_jax(config)
    count = task.predict(model, paths, out, _HEATMAP.value)
    skipped = f" ({len(paths) - count} skipped)" if count < len(paths) else ""
    logging.info("%d images%s, predictions in %s", count, skipped, out)
    return 0


if __name__ == "__main__":
    command.run(main)
