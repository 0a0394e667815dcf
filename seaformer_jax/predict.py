"""Runs a trained model on images and writes its predictions.

python -m seaformer_jax.predict --workdir runs/tiny --images 'photos/*.jpg' --out predictions
python -m seaformer_jax.predict --weights camvid --images photo.jpg --out masks
"""

import glob
import pathlib

from absl import flags, logging

from seaformer_jax import command
from seaformer_jax.data.images import IMAGE_EXTENSIONS
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained
from seaformer_jax.training import trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, f"Weights that ship with the package: {', '.join(pretrained.list_weights())}."
)
_IMAGES = flags.DEFINE_string("images", None, "An image, a folder or a quoted glob pattern.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the predictions.", required=True)
_HEATMAP = flags.DEFINE_bool("heatmap", False, "Segmentation: also draw where the last attention looks.")


def main() -> int:
    """Predicts as the flags say; returns the exit status."""
    if bool(_WORKDIR.value) == bool(_WEIGHTS.value):
        raise UserError("give either --workdir, the folder of a run, or --weights, e.g. --weights camvid")
    paths = _find_images(_IMAGES.value)
    out = command.output_folder("out", _OUT.value)
    config, _, task, model, _ = (
        trained.load_pretrained(_WEIGHTS.value)
        if _WEIGHTS.value
        else trained.load(command.existing("workdir", _WORKDIR.value))
    )
    command.setup_jax(config)
    task.predict(model, paths, out, _HEATMAP.value)
    logging.info("%d images, predictions in %s", len(paths), out)
    return 0


def _find_images(pattern: str) -> list[pathlib.Path]:
    """Returns the images that match, in alphabetical order; a folder includes its subfolders."""
    pattern = f"{pattern}/**" if pathlib.Path(pattern).is_dir() else pattern
    files = (pathlib.Path(path) for path in sorted(glob.glob(pattern, recursive=True)))
    paths = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not paths:
        raise UserError(f"--images {pattern} matches no image ({', '.join(IMAGE_EXTENSIONS)})")
    return paths


if __name__ == "__main__":
    command.run(main)
