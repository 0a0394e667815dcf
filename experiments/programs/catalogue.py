"""The programs of the tables, by name."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from experiments.programs import floor, micro, steps
from experiments.programs.targets import Target
from seaformer_jax.models.registry import create_model

MODELS = ("tiny", "small", "base", "large", "plus_tiny")


class Program(NamedTuple):
    """A program to compile.

    Attributes:
        what: Name of the program without its target.
        target: Chips to compile for.
        images: Images of the global batch.
        lower: Mesh -> the program, ready to be compiled.
        floor: Returns the bytes per image that a training step has to move at least; None for other programs.
    """

    what: str
    target: Target
    images: int
    lower: Callable[[Mesh], jax.stages.Lowered]
    floor: Callable[[], int] | None = None

    @property
    def name(self) -> str:
        """For example "imagenet:tiny, 1024 images, v5e:2x2"."""
        return f"{self.what}, {self.images} images, {self.target.name}"


FRONT = "stem and two blocks of tiny"  # The program that holds the gains, see tests/experiments/test_tpu_program.py.
_FOUR, _WHOLE_POD, _NEWER = Target("v5e", "2x2"), Target("v5e", "16x16"), Target("v6e", "2x2")
_ONE = Target("v5e", "2x2", used=1)
_BUCKET = (896, 1344)  # Height and width of COCO's landscape images with padding, as docs/pods.md advises.
_FEW = (8, 16, 32, 64, 96, 128, 192)  # Images a chip: what a batch costs that does not fill the lanes.


def programs(platform: str) -> dict[str, Program]:
    """Returns the programs for "tpu" or "cuda" by name, the cheap ones first."""
    chosen = _tpu() if platform == "tpu" else _gpu()
    return {program.name: program for program in chosen}


def _tpu() -> Iterator[Program]:
    yield _front(256, 224, _ONE)
    yield _front(32, 512, _FOUR)
    for images in _FEW:
        yield _front(images, 224, _ONE)
    for groups in (1, 4):
        yield _conv_bn(groups, _FOUR)
    yield _pixel_loss(_FOUR)
    yield from _preparations(_ONE)
    yield _detection("tiny", 32, _FOUR)
    yield _classification("tiny", 256, _FOUR)  # 64 images a chip: half of the lanes, but for the bands.
    for model in MODELS:
        yield _classification(model, 1024, _FOUR)
        yield _segmentation(model, 32, _FOUR)
        yield _evaluation(model, 8, _FOUR)
        yield _segmentation(model, 128, _FOUR)
        yield _classification(model, 1024, _NEWER)
        yield _classification(model, 32768, _WHOLE_POD)


def _gpu() -> Iterator[Program]:
    four, eight = Target("h100", "4"), Target("h100", "8")
    one = Target("h100", "1")
    yield _front(256, 224, one)
    yield _pixel_loss(four)
    yield from _preparations(one)
    for model in MODELS:
        yield _classification(model, 1024, eight)
        yield _segmentation(model, 32, four)
        yield _evaluation(model, 8, four)


def _front(images: int, side: int, target: Target) -> Program:
    """The first blocks of tiny: many small images, or few large ones."""
    lower = functools.partial(micro.front, batch_size=images, side=side)
    return Program(f"{FRONT}, {side} x {side}", target, images, lower)


def _conv_bn(groups: int, target: Target) -> Program:
    """One layer on 256 images a chip, with statistics of `groups` groups."""
    lower = functools.partial(micro.conv_bn, batch_size=1024, groups=groups)
    return Program(f"1x1 convolution and BatchNorm in {groups} groups", target, 1024, lower)


def _pixel_loss(target: Target) -> Program:
    """The loss of 8 crops a chip with 150 classes, and the layer before it."""
    lower = functools.partial(micro.pixel_loss, batch_size=32)
    return Program("last layer and loss of pixels", target, 32, lower)


def _preparations(target: Target) -> Iterator[Program]:
    """What happens to 128 images before the model: as little as possible, mixup, RandAugment, and crops as well."""
    kinds = {
        "images from the host": {"on_device": False},
        "images with mixup": {"on_device": False, "size": "small"},
        "images with RandAugment": {"on_device": True},
        "crops with RandAugment": {"on_device": True, "crops": True},
    }
    for name, options in kinds.items():
        yield Program(name, target, 128, functools.partial(micro.preparation, batch_size=128, **options))


def _classification(model: str, images: int, target: Target) -> Program:
    """The step of configs/imagenet.py, from 8192 images on with LAMB."""
    variant = _variant(model) + (",lamb" if images >= 8192 else "")
    values = functools.partial(steps.config, "imagenet", variant, f"seaformer_{model}", images)
    least = functools.partial(_floor, model, "classification", 224)
    return Program(f"imagenet:{model}", target, images, lambda mesh: steps.training(values(), mesh), least)


def _segmentation(model: str, images: int, target: Target) -> Program:
    """The step of configs/ade20k.py, with crops of 512 x 512."""
    values = functools.partial(steps.config, "ade20k", f"{_variant(model)}_4x8", f"seaformer_{model}", images)
    least = functools.partial(_floor, model, "segmentation", 512)
    return Program(f"ade20k:{model}", target, images, lambda mesh: steps.training(values(), mesh), least)


def _detection(model: str, images: int, target: Target) -> Program:
    """The step of configs/coco.py on landscape images, padded to a height that bands divide."""

    def lower(mesh: Mesh) -> jax.stages.Lowered:
        values = steps.config("coco", _variant(model), f"seaformer_{model}", images)
        values.data.buckets = (_BUCKET,)
        return steps.training(values, mesh)

    return Program(f"coco:{model}, {_BUCKET[0]} x {_BUCKET[1]}", target, images, lower)


def _evaluation(model: str, images: int, target: Target) -> Program:
    """The class maps of whole images of 2048 x 1024 by configs/cityscapes.py, and their confusion matrix."""
    variant = f"{_variant(model)}_1024x1024"
    values = functools.partial(steps.config, "cityscapes", variant, f"seaformer_{model}", images)
    return Program(
        f"cityscapes:{model} evaluation", target, images, lambda mesh: steps.evaluation(values(), mesh)
    )


def _variant(model: str) -> str:
    """Returns the recipe's name of the size; the plus models take the recipe of their size."""
    return model.removeprefix("plus_")


def _floor(model: str, task: str, side: int) -> int:
    return floor.floor_bytes(create_model(f"seaformer_{model}", task), side, side)
