"""Packs an image data set into records, which are read several times as fast as its photographs.

python -m seaformer_jax.prepare --source=folder --root=/data/imagenet --split=train --out=/data/records
python -m seaformer_jax.train ... --config.data.source=records --config.data.root=/data/records
"""

from absl import flags, logging
from ml_collections import ConfigDict

from seaformer_jax import command
from seaformer_jax.data import images
from seaformer_jax.data.classification import prepare, records, sources

_SOURCE = flags.DEFINE_enum("source", "folder", ["folder", "tfds"], "Kind of the data set, as data.source.")
_ROOT = command.define_path("root", "The data set, as data.root.")
_NAME = flags.DEFINE_string("name", "imagenet2012", "tfds: name of the data set.")
_SPLIT = flags.DEFINE_string("split", "train", "Split to pack, as data.train_split or data.val_split.")
_OUT = command.define_path("out", "Folder for the records; each split gets a folder in it.", required=True)
_STORE = flags.DEFINE_enum("store", "jpeg", list(records.SUFFIXES), "Store JPEG files, or pixels (uint8).")
_SHORT_SIDE = flags.DEFINE_integer("short_side", 256, "Larger images get this short side.", lower_bound=32)
_QUALITY = flags.DEFINE_integer("quality", 90, "JPEG quality.", lower_bound=1, upper_bound=100)
_SHARD = flags.DEFINE_integer("shard_images", 4096, "Images in a file.", lower_bound=1)
_ON_CORRUPT = flags.DEFINE_enum("on_corrupt", "error", ["error", "skip"], "What a broken image causes.")
_CHECK = flags.DEFINE_bool("check", False, "Only compare the files in --out with their hashes.")


def main() -> int:
    """Packs one split as the flags say; returns the exit status."""
    folder = records.local(command.output_folder("out", _OUT.value) / _SPLIT.value)
    if _CHECK.value:
        logging.info("%d files of %s are as they were written", prepare.check(folder), folder)
        return 0
    split = {"train_split": _SPLIT.value}
    config = ConfigDict({"source": _SOURCE.value, "root": _ROOT.value or "", "name": _NAME.value, **split})
    source = sources.create(config, "train", images.decode_pillow)
    folder.mkdir(parents=True, exist_ok=True)
    skip = _ON_CORRUPT.value == "skip"
    settings = prepare.Settings(_STORE.value, _SHORT_SIDE.value, _QUALITY.value, _SHARD.value, skip)
    count = prepare.prepare(source, folder, settings)
    logging.info("%d images in %s; read them with", count, folder)
    logging.info("--config.data.source=records --config.data.root=%s", _OUT.value)
    return 0


if __name__ == "__main__":
    command.run(main)
