"""Makes a data set with all 150 classes of ADE20K for `--config.data.source=tfds`, from the official archive.

python -m seaformer_jax.prepare_ade20k --archive ADEChallengeData2016.zip --out DATA_DIR
"""

import pathlib

from absl import logging

from seaformer_jax import command
from seaformer_jax.data.segmentation import ade20k_archive

_ARCHIVE = command.define_path("archive", "The file ADEChallengeData2016.zip.", required=True)
_OUT = command.define_path("out", "Folder for the data set, the data.root of runs.", required=True)


def main() -> int:
    """Prepares the data set as the flags say; returns the exit status."""
    folder = command.output_folder("out", _OUT.value)
    counts = ade20k_archive.prepare(pathlib.Path(_ARCHIVE.value), folder)
    logging.info(
        "%s in %s; read it with --config.data.source=tfds --config.data.root=%s --config.data.train_split=train "
        "--config.data.val_split=test",
        " and ".join(f"{count} images of {split}" for split, count in counts.items()),
        folder / "scene_parse150",
        folder,
    )
    return 0


if __name__ == "__main__":
    command.run(main)
