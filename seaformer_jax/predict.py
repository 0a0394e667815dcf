"""Predicts on images with the weights of a run.

python -m seaformer_jax.predict --workdir runs/tiny --images 'photos/*.jpg' --out predictions
"""

import glob
import pathlib

from absl import flags, logging

from seaformer_jax import command
from seaformer_jax.data.images import IMAGE_EXTENSIONS
from seaformer_jax.errors import UserError
from seaformer_jax.training import trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "An image, a folder or a quoted pattern.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the predictions.", required=True)
_HEATMAP = flags.DEFINE_bool("heatmap", False, "Segmentation: draw where the last attention looks, too.")


def main() -> int:
    folder = command.existing("workdir", _WORKDIR.value)
    paths = _find_images(_IMAGES.value)
    out = command.output_folder("out", _OUT.value)
    config, _, task, model, _ = trained.load(folder)
    command.setup_jax(config)
    task.predict(model, paths, out, _HEATMAP.value)
    logging.info("%d images, predictions in %s", len(paths), out)
    return 0


def _find_images(pattern: str) -> list[pathlib.Path]:
    pattern = f"{pattern}/**" if pathlib.Path(pattern).is_dir() else pattern
    found = (pathlib.Path(path) for path in sorted(glob.glob(pattern, recursive=True)))
    paths = [path for path in found if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not paths:
        raise UserError(f"--images {pattern} matches no image ({', '.join(IMAGE_EXTENSIONS)})")
    return paths


if __name__ == "__main__":
    command.run(main)
