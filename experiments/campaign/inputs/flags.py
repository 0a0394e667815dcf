"""Wrong command lines, written by hand."""

import pathlib

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case
from experiments.campaign.inputs.materials import PAIRS

PART = "wrong command lines"

_CONFIG = f"--config={recipe.RECIPE}"
_SEGMENTATION, _STUDENT = f"{_CONFIG}:segmentation", f"{_CONFIG}:distilled_segmentation"
_TRAIN = "seaformer_jax.train --workdir={here}/new"
_EVALUATE = "seaformer_jax.evaluate"
_PREDICT = "seaformer_jax.predict --out={here}/out"
_TO_TORCH = "convert.to_torch"
_FROM_TORCH = "convert.from_torch"
_EXPORT = "convert.export --weights={made}/model.pth --out={here}/bundle"
_ONNX = f"{_EXPORT} --format=onnx --input-size=64x64"
_LATENCY = "convert.latency"

_ALWAYS = {
    "train": f"{_TRAIN} {_CONFIG}",
    "evaluate": f"{_EVALUATE} --workdir={{made}}/run --out={{here}}/out",
    "predict": f"{_PREDICT} --workdir={{made}}/run --images={{made}}/images",
    "to_torch": f"{_TO_TORCH} --workdir={{made}}/run --out={{here}}/model.pth",
    "from_torch": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth {_CONFIG} --workdir={{here}}/new",
    "export": _ONNX,
    "latency": f"{_LATENCY} {{made}}/bundle --out={{here}}/x",
}
# Added to the right command line of every command.
_ADDED = {
    "an unknown flag": "--wrkdir=x",
    "a flag without its value": "--out",
    "a flag with two dashes too many": "----out=x",
}
_STRAY = {"a stray argument": "tiny"}  # `latency` takes them for bundles.

_LINES = {
    # The config.
    "train without flags": "seaformer_jax.train",
    "train without a config": _TRAIN,
    "train without a workdir": f"seaformer_jax.train {_CONFIG}",
    "train, empty workdir": f"seaformer_jax.train {_CONFIG} --workdir=",
    "train, workdir is a file": f"seaformer_jax.train {_CONFIG} --workdir={{made}}/model.pth",
    "train, workdir below a file": f"seaformer_jax.train {_CONFIG} --workdir={{made}}/model.pth/run",
    "train, empty config": f"{_TRAIN} --config=",
    "train, a config that is not there": f"{_TRAIN} --config=configs/imagnet.py",
    "train, a config that is a folder": f"{_TRAIN} --config=configs",
    "train, a config that is no program": f"{_TRAIN} --config={{made}}/model.json",
    "train, an unknown variant": f"{_TRAIN} {_CONFIG}:detection",
    "train, the variant of a recipe without one": f"{_TRAIN} --config=configs/quickstart.py:enormous",
    "train, two configs": f"{_TRAIN} {_CONFIG} --config=configs/imagenet.py:tiny",
    "train, a misspelt key": f"{_TRAIN} {_CONFIG} --config.optim.lrr=1",
    "train, a key of another section": f"{_TRAIN} {_CONFIG} --config.lr=1",
    "train, a key of another task": f"{_TRAIN} {_CONFIG} --config.eval.mode=slide",
    "train, a key of distillation": f"{_TRAIN} {_CONFIG} --config.distillation.temperature=2",
    "train, a section as a value": f"{_TRAIN} {_CONFIG} --config.optim=3",
    "train, a value as a section": f"{_TRAIN} {_CONFIG} --config.seed.value=3",
    "train, a key without a name": f"{_TRAIN} {_CONFIG} --config.=3",
    "train, a key without a value": f"{_TRAIN} {_CONFIG} --config.seed",
    "train, a key in place of the config": f"{_TRAIN} --config.seed=3",
    # Values that contradict each other.
    "warm-up longer than the run": f"{_TRAIN} {_CONFIG} --config.total_steps=3",
    "groups that do not divide the batch": f"{_TRAIN} {_CONFIG} --config.model.bn_groups=3",
    "microbatches that do not divide the batch": f"{_TRAIN} {_CONFIG} --config.optim.accumulate=3",
    "a process that is none of all": f"{_TRAIN} {_CONFIG} --config.distributed.num_processes=2 "
    "--config.distributed.process_id=2",
    "steps wider than the window": f"{_TRAIN} {_SEGMENTATION} --config.eval.slide_crop=(64,64) "
    "--config.eval.slide_stride=(65,64)",
    "a ratio that does not divide": f"{_TRAIN} {_STUDENT} --config.model.upsample_ratio=3",
    "a student without a teacher": f"{_TRAIN} {_STUDENT}",
    "more classes than the data": f"{_TRAIN} {_CONFIG} --config.task.num_classes=9",
    "masks without names": f"{_TRAIN} {_SEGMENTATION} --config.data.source=pairs "
    "--config.data.root={made}/scenes",
    "more colours than classes": f"{_TRAIN} {_SEGMENTATION} {PAIRS} "
    "--config.data.palette=((0,0,0),(1,1,1),(2,2,2))",
    "classes beyond the names": f"{_TRAIN} {_SEGMENTATION} {PAIRS} --config.data.id_map=((0,0),(1,2))",
    "a coordinator without a port": f"{_TRAIN} {_CONFIG} --config.distributed.enabled=True "
    "--config.distributed.coordinator=localhost --config.distributed.num_processes=1 "
    "--config.distributed.process_id=0",
    "a port that is no number": f"{_TRAIN} {_CONFIG} --config.distributed.enabled=True "
    "--config.distributed.coordinator=localhost:many --config.distributed.num_processes=1 "
    "--config.distributed.process_id=0",
    "processes without a coordinator": f"{_TRAIN} {_CONFIG} --config.distributed.enabled=True "
    "--config.distributed.num_processes=2 --config.distributed.process_id=0",
    # evaluate
    "evaluate nothing": _EVALUATE,
    "evaluate both": f"{_EVALUATE} --workdir={{made}}/run --weights={{made}}/model.pth",
    "evaluate weights alone": f"{_EVALUATE} --weights={{made}}/model.pth",
    "evaluate an empty workdir": f"{_EVALUATE} --workdir=",
    "evaluate a lost workdir": f"{_EVALUATE} --workdir={{made}}/nowhere",
    "evaluate a folder of images": f"{_EVALUATE} --workdir={{made}}/images",
    "evaluate a file": f"{_EVALUATE} --workdir={{made}}/model.pth",
    "evaluate lost weights": f"{_EVALUATE} {_CONFIG} --weights={{made}}/lost.pth --out={{here}}/out",
    "evaluate a folder as weights": f"{_EVALUATE} {_CONFIG} --weights={{made}}/run --out={{here}}/out",
    "evaluate an unknown step": f"{_EVALUATE} --workdir={{made}}/run --checkpoint=7 --out={{here}}/out",
    "evaluate an unknown choice": f"{_EVALUATE} --workdir={{made}}/run --checkpoint=newest --out={{here}}/out",
    "evaluate, an empty choice": f"{_EVALUATE} --workdir={{made}}/run --checkpoint= --out={{here}}/out",
    "evaluate, --ema is not a switch": f"{_EVALUATE} --workdir={{made}}/run --ema=some --out={{here}}/out",
    "evaluate, out below a file": f"{_EVALUATE} --workdir={{made}}/run --out={{made}}/model.pth/x",
    "evaluate, show-dir is empty": f"{_EVALUATE} --workdir={{made}}/run --out={{here}}/out --show-dir=",
    "evaluate with another model": f"{_EVALUATE} --workdir={{made}}/run {_CONFIG} "
    "--config.model.name=seaformer_tiny --out={here}/out",
    "evaluate with another task": f"{_EVALUATE} --workdir={{made}}/run {_SEGMENTATION} --out={{here}}/out",
    "evaluate with a choice among weights": f"{_EVALUATE} --weights={{made}}/model.pth {_CONFIG} "
    "--checkpoint=best --out={here}/out",
    # predict
    "predict nothing": f"{_PREDICT} --images={{made}}/images",
    "predict both": f"{_PREDICT} --workdir={{made}}/run --weights=camvid --images={{made}}/images",
    "predict without images": f"{_PREDICT} --workdir={{made}}/run",
    "predict, empty images": f"{_PREDICT} --workdir={{made}}/run --images=",
    "predict lost images": f"{_PREDICT} --workdir={{made}}/run --images={{made}}/*.jpg",
    "predict a file that is no image": f"{_PREDICT} --workdir={{made}}/run --images={{made}}/model.pth",
    "predict with unknown weights": f"{_PREDICT} --weights=ade20k --images={{made}}/images",
    "predict with a lost workdir": f"{_PREDICT} --workdir={{made}}/nowhere --images={{made}}/images",
    "predict without out": "seaformer_jax.predict --workdir={made}/run --images={made}/images",
    "predict, out is a file": "seaformer_jax.predict --workdir={made}/run --images={made}/images "
    "--out={made}/model.pth",
    "predict, an unknown step": f"{_PREDICT} --workdir={{made}}/run --checkpoint=-1 --images={{made}}/images",
    "predict a heat map of classes": f"{_PREDICT} --workdir={{made}}/run --images={{made}}/images --heatmap",
    # to_torch and from_torch
    "to_torch without out": f"{_TO_TORCH} --workdir={{made}}/run",
    "to_torch without a workdir": f"{_TO_TORCH} --out={{here}}/x.pth",
    "to_torch, empty out": f"{_TO_TORCH} --workdir={{made}}/run --out=",
    "to_torch, unknown suffix": f"{_TO_TORCH} --workdir={{made}}/run --out={{here}}/x.onnx",
    "to_torch, no suffix": f"{_TO_TORCH} --workdir={{made}}/run --out={{here}}/x",
    "to_torch below a file": f"{_TO_TORCH} --workdir={{made}}/run --out={{made}}/model.pth/x.pth",
    "to_torch, a lost folder": f"{_TO_TORCH} --workdir={{made}}/run --out={{here}}/lost/x.pth",
    "to_torch, unknown step": f"{_TO_TORCH} --workdir={{made}}/run --out={{here}}/x.pth --checkpoint=1.5",
    "from_torch without a checkpoint": f"{_FROM_TORCH} {_CONFIG} --workdir={{here}}/new",
    "from_torch without a config": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth --workdir={{here}}/new",
    "from_torch into a run": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth {_CONFIG} --workdir={{made}}/run",
    "from_torch into a file": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth {_CONFIG} "
    "--workdir={made}/model.pth",
    "from_torch of another size": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth "
    "--config=configs/quickstart.py --workdir={here}/new",
    "from_torch of another task": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth {_SEGMENTATION} "
    "--workdir={here}/new",
    "from_torch of other classes": f"{_FROM_TORCH} --checkpoint={{made}}/model.pth {_CONFIG} "
    "--config.task.num_classes=5 --workdir={here}/new",
    # export
    "export without flags": "convert.export",
    "export, lost weights": "convert.export --weights={made}/lost.pth --format=onnx --input-size=64x64 "
    "--out={here}/bundle",
    "export, unknown format": f"{_EXPORT} --format=onx --input-size=64x64",
    "export, format that is not installed": f"{_EXPORT} --format=ncnn --input-size=64x64",
    "export, size is no size": f"{_EXPORT} --format=onnx --input-size=big",
    "export, size of one side": f"{_EXPORT} --format=onnx --input-size=64",
    "export, size of nothing": f"{_EXPORT} --format=onnx --input-size=0x64",
    "export, negative size": f"{_EXPORT} --format=onnx --input-size=-64x64",
    "export, absurd size": f"{_EXPORT} --format=onnx --input-size=100000x100000",
    "export, size below the stride": f"{_EXPORT} --format=onnx --input-size=32x32",
    "export, unknown precision": f"{_ONNX} --precision=int4",
    "export, int8 without images": f"{_ONNX} --precision=int8",
    "export, int8 without validation": f"{_ONNX} --precision=int8 --calibration={{made}}/images",
    "export, lost calibration": f"{_ONNX} --precision=int8 --calibration={{made}}/lost "
    "--validation={made}/classes/val",
    "export, calibration without images": f"{_ONNX} --precision=int8 --calibration={{made}}/run "
    "--validation={made}/classes/val",
    "export, validation of other classes": f"{_ONNX} --validation={{made}}/classes/val",
    "export, validation without classes": f"{_ONNX} --validation={{made}}/images",
    "export, unknown output": f"{_ONNX} --output=logitz",
    "export, output of another task": f"{_ONNX} --output=labels",
    "export, drop is no number": f"{_ONNX} --max-drop=little",
    "export, drop is nan": f"{_ONNX} --max-drop=nan",
    "export, negative drop": f"{_ONNX} --max-drop=-1",
    "export, two means": f"{_ONNX} --mean=0.5,0.5",
    "export, means that are no numbers": f"{_ONNX} --mean=a,b,c",
    "export, deviations of 0": f"{_ONNX} --std=0,0,0",
    "export, lost class names": f"{_ONNX} --class-names={{made}}/lost.txt",
    "export, class names that are a folder": f"{_ONNX} --class-names={{made}}/images",
    "export, class names that are a picture": f"{_ONNX} --class-names={{made}}/images/0.png",
    "export, class names of other classes": f"{_ONNX} --class-names={{made}}/model.json",
    "export, images are a file": f"{_ONNX} --images={{made}}/model.pth",
    "export, out is a file": "convert.export --weights={made}/model.pth --format=onnx --input-size=64x64 "
    "--out={made}/model.json",
    "export, out holds other files": "convert.export --weights={made}/model.pth --format=onnx "
    "--input-size=64x64 --out={made}/images",
    # latency
    "latency of nothing": _LATENCY,
    "latency of a lost folder": f"{_LATENCY} {{made}}/lost --out={{here}}/x",
    "latency of a file": f"{_LATENCY} {{made}}/model.pth --out={{here}}/x",
    "latency of a run": f"{_LATENCY} {{made}}/run --out={{here}}/x",
    "latency, no threads": f"{_LATENCY} {{made}}/bundle --threads=0 --out={{here}}/x",
    "latency, threads are no number": f"{_LATENCY} {{made}}/bundle --threads=all --out={{here}}/x",
    "latency, too few runs": f"{_LATENCY} {{made}}/bundle --runs=1 --out={{here}}/x",
    "latency, unknown device": f"{_LATENCY} {{made}}/bundle --device=phone --out={{here}}/x",
    "latency, a host with an address": f"{_LATENCY} {{made}}/bundle --device=host:1 --out={{here}}/x",
    "latency, ssh without a host": f"{_LATENCY} {{made}}/bundle --device=ssh: --out={{here}}/x",
    "latency, empty out": f"{_LATENCY} {{made}}/bundle --out=",
    "latency, out in a lost folder": f"{_LATENCY} {{made}}/bundle --out={{here}}/lost/x",
}
# What only shows when the devices or the model are there, and a new workdir too.
_IN_A_NEW_WORKDIR = ("microbatches that do not divide the batch",)
# The documented status of a device that is missing is 3.
_DEVICES = {
    "latency, a host that is not there": "--device=ssh:nobody@host.invalid",
    "latency, a phone that is not there": "--device=adb:0000",
    "latency, more threads than cores": "--threads=4096",
}
_RECIPES = {
    "a recipe that is no Python": "def get_config(:\n",
    "a recipe without get_config": "x = 1\n",
    "a recipe that returns nothing": "def get_config():\n    return None\n",
    "a recipe that returns a dictionary": "def get_config():\n    return {'seed': 1}\n",
    "a recipe that raises": "def get_config():\n    return 1 // 0\n",
    "a recipe that imports what is not there": "import no_such_module\n",
    "a recipe with a key too many": "from seaformer_jax import config\n\n\ndef get_config():\n"
    "    c = config.default()\n    c.sede = 1\n    return c\n",
    "a recipe with a key too few": "from seaformer_jax import config\n\n\ndef get_config():\n"
    "    c = config.default()\n    del c.seed\n    return c\n",
    "a recipe with a wrong type": "from seaformer_jax import config\n\n\ndef get_config():\n"
    "    c = config.default()\n    c.seed = 'one'\n    return c\n",
    "a recipe of zeros": "\0\0\0",
}


def cases() -> list[Case]:
    """Returns the wrong command lines."""
    lines = dict(_LINES)
    for command, line in _ALWAYS.items():
        added = _ADDED | ({} if command == "latency" else _STRAY)
        lines |= {f"{command}, {name}": f"{line} {words}" for name, words in added.items()}
    found = [
        Case(PART, name, line, writes=("new/",) if name in _IN_A_NEW_WORKDIR else ())
        for name, line in lines.items()
    ]
    found += [
        Case(PART, name, f"{_LATENCY} {{made}}/bundle --out={{here}}/x {words}", status=3)
        for name, words in _DEVICES.items()
    ]
    train = f"{_TRAIN} --config={{here}}/recipe.py"
    return found + [Case(PART, name, train, _recipe(code)) for name, code in _RECIPES.items()]


def _recipe(code: str) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        (here / "recipe.py").write_text(code)

    return build
