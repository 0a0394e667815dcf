"""What the campaign measures, and how much of it. The defaults are for a real device; the tests have small ones."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

SHARED = pathlib.Path(__file__).parents[3] / "shared"


class Scaling(NamedTuple):
    """A data set on which `large_batch` compares optimisers.

    Attributes:
        recipe: Recipe and variant.
        images: Images of the training split.
        epochs: Epochs of every run.
        batches: Batch sizes, the most telling first.
        flags: Config keys of the data set, such as its size.
    """

    recipe: str
    images: int
    epochs: int
    batches: tuple[int, ...]
    flags: Mapping[str, object]


def _scaling() -> dict[str, Scaling]:
    shapes = {"data.train_size": 100_000, "data.val_size": 4096, "eval.batch_size": 512}
    return {
        "shapes": Scaling("configs/quickstart.py", 100_000, 10, (8192, 256, 1024, 4096, 2048, 512), shapes),
        # A batch of more than its 1773 photos would hold some of them twice.
        "trashnet": Scaling("configs/trashnet.py:tiny", 1773, 200, (1024, 256, 512), {}),
    }


def _images() -> dict[str, tuple[int, int]]:
    return {"classification": (256, 224), "segmentation": (32, 512)}


def _recipes() -> dict[str, tuple[str, int]]:
    return {
        "classification": ("configs/imagenet.py:{}", 1024),
        "segmentation": ("configs/ade20k.py:{}_4x8", 32),
    }


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parts' sizes, and where they read and write.

    Attributes:
        out: Folder for trainings, images, compiled programs and logs.
        shared: Folder with golden/ (vectors of the official models) and data/ (camvid/ and trashnet/).
        init: Workdir or checkpoint of a classifier from which CamVid starts; "" starts from scratch.
        models: Names of the models.
        rounds: Counted turns of each side.
        images: Task -> images of a step and pixels along a side, for `train_speed`.
        frame: Height and width of the image of `evaluation`.
        recipes: Task -> recipe, with {} for the model's size, and images of a step, for `bandwidth`.
        copied_megabytes: Size of the array whose copy gives the bandwidth.
        photos: Number of JPEG files and pixels along a side, for `input`.
        input: Recipe, images of a step and number of steps, for `input`.
        camvid: Recipe of `camvid`.
        seeds: Seeds of `camvid` and `attention`.
        attention: Recipe of `attention`, with {} for the kind.
        attention_crop: Height and width of its crops.
        scaling: Name of a data set -> runs of `large_batch`.
    """

    out: pathlib.Path
    shared: pathlib.Path = SHARED
    init: str = ""
    models: tuple[str, ...] = ("seaformer_tiny", "seaformer_base", "seaformer_small", "seaformer_large")
    rounds: int = 9
    images: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=_images)
    frame: tuple[int, int] = (1024, 2048)
    recipes: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=_recipes)
    copied_megabytes: int = 1024
    photos: tuple[int, int] = (8192, 400)
    input: tuple[str, int, int] = ("configs/imagenet.py:tiny", 1024, 100)
    camvid: str = "configs/camvid.py:tiny"
    seeds: tuple[int, ...] = (0, 1, 2)
    attention: str = "experiments/attention_recipe.py:{}"
    attention_crop: tuple[int, int] = (352, 480)
    scaling: Mapping[str, Scaling] = dataclasses.field(default_factory=_scaling)
