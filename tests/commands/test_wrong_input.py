"""What a user can get wrong, through the real command lines: one line that says what, and exit status 2."""

import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from convert import weights
from convert.checkpoints import files
from seaformer_jax import config as configs
from seaformer_jax import config_file, create_model
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, workdir
from seaformer_jax.training.state import TrainState
from tests import forked
from tests.data.detection import files as coco_files
from tests.paths import REPOSITORY

QUICKSTART = "--config=configs/quickstart.py"
NANO = "--config.model.name=nano"  # Where the command comes as far as a model and its size does not matter.
HOME = os.path.expanduser("~")
PATCH = "smb1.layer1.conv.0.c.weight"


class Case(NamedTuple):
    """A command line (words; {place} is the folder of `place`), and what its error has to say."""

    command: str
    says: tuple[str, ...]
    devices: int = 1


def train(options: str, *says: str, recipe: str = QUICKSTART, devices: int = 1) -> Case:
    return Case(f"seaformer_jax.train {recipe} --workdir={{place}}/new {options}", says, devices)


def evaluate(options: str, *says: str) -> Case:
    return Case(f"seaformer_jax.evaluate {options}", says)


def predict(options: str, *says: str) -> Case:
    return Case(f"seaformer_jax.predict {options}", says)


def to_torch(options: str, *says: str) -> Case:
    return Case(f"convert.to_torch {options}", says)


def from_torch(options: str, *says: str) -> Case:
    return Case(f"convert.from_torch {options}", says)


CAMVID = "--config=configs/camvid.py"
FOLDER = f"{QUICKSTART} --config.data.source=folder --config.data.root={{place}}"
OTHER_MODEL = (
    "1 missing (linear.bias)",
    "1 unexpected (extra)",
    f"1 misshaped ({PATCH}: found (3,), expected (16, 1",
)

CELLS = "--config=configs/bccd.py --config.init_from= --config.data.root={place}/cells"
DISTILL = "--config=configs/distill_camvid.py"
CASES = {
    # Detection; what is no COCO format is in tests/data/detection/test_coco.py.
    "no_boxes_at_all": train("--config.data.train_split=none", "none of 3 images has a box", recipe=CELLS),
    "no_coco_format": train("--config.data.train_split=list", "is not in COCO's format", recipe=CELLS),
    "unknown_category": train("--config.data.train_split=category", "have the category_id 77", recipe=CELLS),
    "missing_image": train("--config.data.train_split=missing", "1 of 3 images", "(z.png)", recipe=CELLS),
    "too_many_boxes": train(
        "--config.data.max_boxes=1 --config.data.train_split=many",
        "has 2 boxes, but data.max_boxes is 1",
        recipe=CELLS,
    ),
    "no_annotations": train("--config.data.train_split=absent", "no folder 'images/absent'", recipe=CELLS),
    "no_bucket_is_large_enough": train(
        "--config.data.scale=(1024,384) --config.data.train_split=good --config.data.val_split=good",
        "none holds an image of 384 x 576 pixels",
        recipe=CELLS,
    ),
    "validation_without_boxes": train(
        "--config.data.train_split=good --config.data.val_split=none --config.data.buckets=((384,512),(512,384))",
        "data.val_split has no boxes",
        recipe=CELLS,
    ),
    "weights_of_another_number_of_classes": Case(
        "seaformer_jax.evaluate --config=configs/bccd.py --weights={place}/detector.safetensors "
        "--config.task.num_classes=3 --config.data.root={place}/cells",
        ("detector.safetensors has 2 classes, but task.num_classes is 3",),
    ),
    # Distillation; what may be a teacher is in tests/convert/test_distilled_students.py.
    "ratio_that_does_not_divide": train(
        "--config.model.upsample_ratio=3",
        "model.upsample_ratio is 3.0",
        "data.crop_size",
        "multiples of 8",
        recipe=DISTILL,
    ),
    "negative_weight": train(
        "--config.distillation.cross_weight=-1", "distillation.cross_weight is -1.0", recipe=DISTILL
    ),
    "no_teacher": train(
        "--config.data.source=shapes", "teacher.source is not set", "workdir", recipe=DISTILL
    ),
    "lost_teacher": train(
        "--config.data.source=shapes --config.teacher.source={place}/gone",
        "/gone does not exist",
        "expected a workdir or a file of weights",
        recipe=DISTILL,
    ),
    # The command line itself.
    "stray_argument": train("tiny", "unexpected argument 'tiny'", "--name=value"),
    "unknown_flag": train("--workdirs=x", "'workdirs'", "workdir"),
    "no_workdir": Case(f"seaformer_jax.train {QUICKSTART}", ("--workdir is missing", "Folder of the run")),
    "no_config": Case(
        "seaformer_jax.train --workdir={place}/new", ("--config is missing", "configs/imagenet.py:tiny")
    ),
    "override_without_config": evaluate(
        "--workdir={place}/run --config.eval.batch_size=3", "--config.eval.batch_size", "no recipe is given"
    ),
    # The recipe.
    "missing_file": train(
        "", "configs/imagnet.py: No such file", "'imagenet.py'", recipe="--config=configs/imagnet.py"
    ),
    "broken_file": train("", "--config", "line 1", recipe="--config={place}/broken.py"),
    "unknown_variant": train(
        "",
        "no variant 'tinny'",
        "one of tiny ",
        "Did you mean 'tiny'?",
        recipe="--config=configs/imagenet.py:tinny",
    ),
    "unknown_key": train(
        "--config.optim.lrr=1", "--config.optim.lrr", "no such value", "Did you mean 'optim.lr'?"
    ),
    "key_elsewhere": train("--config.lr=1", "--config.lr:", "Did you mean 'optim.lr'?"),
    "key_of_another_task": train(
        "--config.eval.mode=slide", "--config.eval.mode: the config has no such value", "another task's"
    ),
    "wrong_type": train("--config.optim.lr=fast", "--config.optim.lr is 'fast'", "type float", "0.004"),
    # Values.
    "image_too_small": train("--config.data.image_size=16", "data.image_size is 16", "at least 32"),
    "computed_from_batch_size": train(
        "--config.batch_size=0", "batch_size is 0", "at least 1", recipe="--config=configs/imagenet.py:tiny"
    ),
    "no_steps": train("--config.total_steps=0", "total_steps is 0", "at least 1"),
    "reversed_crop": train(
        "--config.augment.crop_scale=(1.0,0.5)", "augment.crop_scale is (1.0, 0.5)", "(0.08, 1.0)"
    ),
    "uneven_devices": train(
        "--config.batch_size=12", "batch_size = 12", "8 devices", "use 8 or 16", devices=8
    ),
    "crop_between_logits": train(
        "--config.data.crop_size=(100,200)", "data.crop_size is (100, 200)", "multiples of 8", recipe=CAMVID
    ),
    # Names.
    "unknown_model": train(
        "--config.model.name=seaformer_tinny", "'seaformer_tinny'", "Did you mean 'seaformer_tiny'?"
    ),
    "unknown_task": train(
        "--config.task.name=clasification", "'clasification'", "Did you mean 'classification'?"
    ),
    "unknown_optimizer": train(
        f"{NANO} --config.optim.name=adam", "'adam'", "rmsprop_tf", "Did you mean 'adamw'?"
    ),
    "unknown_on_corrupt": train(
        "--config.data.on_corrupt=skipp", "'skipp'", "error, skip", "Did you mean 'skip'?"
    ),
    # Data.
    "no_data": train(
        "--config.data.root={place}/nowhere", "/nowhere': no such folder", "<class>/*.jpg", recipe=FOLDER
    ),
    "empty_data": train(
        "--config.data.root={place}/empty", "/empty: no folder 'train' (found nothing)", recipe=FOLDER
    ),
    "other_class_count": train(
        "--config.task.num_classes=5", "has 8 classes", "num_classes is 5", "--config.task.num_classes=8"
    ),
    "one_class": train(
        "--config.data.train_split=uneven",
        "the data set has one class, 'a'",
        "expected at least two",
        recipe=FOLDER,
    ),
    "val_has_other_classes": train(
        "--config.data.val_split=uneven",
        "the validation data has 1 classes ('a' to 'a'), but the training data 2 classes ('a' to 'b')",
        "correct config.data",
        recipe=FOLDER,
    ),
    "val_has_other_names": train(
        "--config.data.val_split=renamed",
        "class 1 is 'c' in the validation data, but 'b' in the training data",
        "correct config.data",
        recipe=FOLDER,
    ),
    "corrupt_image_in_training": train(
        "--config.data.source=folder --config.data.root={place} --config.data.train_split=corrupt",
        "corrupt/a/broken.png: cannot identify image file (7 bytes)",
        recipe="--config=tests/training/nano.py",
    ),
    "corrupt_image_in_evaluation": evaluate(
        f"{FOLDER} --config.data.val_split=corrupt --weights={{place}}/two.safetensors --out={{place}}/out",
        "corrupt/a/broken.png: cannot identify image file (7 bytes)",
    ),
    # Where to write.
    "unwritable_workdir": Case(
        f"seaformer_jax.train {QUICKSTART} {NANO} --workdir={{place}}/file/run",
        ("cannot write", "/file/run", "choose another"),
    ),
    "unwritable_out": predict(
        "--workdir={place}/run --images={place}/val --out={place}/file/out",
        "cannot write to --out",
        "choose another",
    ),
    # Weights.
    "init_from_nowhere": train(
        f"{NANO} --config.init_from={{place}}/none.pth", "none.pth does not exist", "a workdir, a file"
    ),
    "init_from_other_model": train(
        "--config.init_from={place}/other.safetensors", "other.safetensors has another backbone", *OTHER_MODEL
    ),
    "evaluate_nothing": evaluate("", "give either --workdir, or --weights with --config"),
    "evaluate_weights_alone": evaluate("--weights={place}/two.safetensors", "--weights needs --config"),
    "evaluate_no_workdir": evaluate(
        "--workdir={place}/val", "/val is not the workdir of a run: no config.json"
    ),
    "evaluate_untrained": evaluate("--workdir={place}/run", "no checkpoint in", "train first"),
    "evaluate_other_model": evaluate(
        f"{QUICKSTART} --weights={{place}}/other.safetensors --out={{place}}/out",
        "of another model",
        *OTHER_MODEL,
    ),
    "evaluate_other_classes": evaluate(
        f"{FOLDER} --config.data.val_split=uneven --weights={{place}}/two.safetensors --out={{place}}/out",
        "the validation data has 1 classes ('a' to 'a'), but the weights 2 classes ('a' to 'b')",
    ),
    "evaluate_damaged_file": evaluate(
        f"{QUICKSTART} --weights={{place}}/damaged.safetensors --out={{place}}/out",
        "damaged.safetensors (7 bytes)",
    ),
    "predict_no_images": predict(
        "--workdir={place}/run --images={place}/*.jpg --out={place}/out",
        "/*.jpg matches no image (.jpg, .jpeg",
    ),
    "evaluate_no_such_checkpoint": evaluate(
        "--workdir={place}/trained --checkpoint=6",
        "--checkpoint is '6'; expected last, best or a step in",
        ": 5",
    ),
    "predict_no_such_checkpoint": predict(
        "--workdir={place}/trained --checkpoint=newest --images={place}/val --out={place}/out",
        "--checkpoint is 'newest'; expected last, best or a step in",
    ),
    "to_torch_no_such_checkpoint": to_torch(
        "--workdir={place}/trained --checkpoint=best --out={place}/x.pth",
        "was evaluated, so none is the best",
        ": 5",
    ),
    "evaluate_choice_without_a_run": evaluate(
        f"{QUICKSTART} --weights={{place}}/two.safetensors --no-ema",
        "choose among the weights of a --workdir",
    ),
    "predict_choice_without_a_run": predict(
        "--weights=camvid --checkpoint=best --images={place}/val --out={place}/out",
        "choose among the weights of a --workdir",
    ),
    # Damaged files of a run; more of them are in tests/training/test_workdir.py.
    "train_damaged_config": Case(
        f"seaformer_jax.train {QUICKSTART} --workdir={{place}}/bad_config",
        ("config.json is damaged: batch_size",),
    ),
    "evaluate_damaged_config": evaluate("--workdir={place}/bad_config", "config.json is damaged: batch_size"),
    "predict_damaged_labels": predict(
        "--workdir={place}/bad_labels --images={place}/val --out={place}/out",
        "labels.json is damaged: Expecting",
    ),
    "to_torch_damaged_config": to_torch(
        "--workdir={place}/bad_config --out={place}/x.pth",
        "config.json is damaged: batch_size is 0; expected",
    ),
    "train_damaged_metrics": Case(
        "seaformer_jax.train --config=tests/training/nano.py --workdir={place}/bad_metrics",
        ("metrics.jsonl is damaged: line 1 is '[1]', expected a step", "move it away"),
    ),
    "predict_broken_images": predict(
        "--weights=camvid --images={place}/corrupt/a --out={place}/out",
        "none of the images can be read; see the log",
    ),
    # Paths.
    "train_in_an_empty_path": Case(
        f"seaformer_jax.train {QUICKSTART} --workdir=", ("--workdir is empty", "expected a path")
    ),
    "evaluate_an_empty_path": evaluate("--workdir=", "--workdir is empty"),
    "predict_an_empty_path": predict(
        "--workdir={place}/run --out={place}/out --images=", "--images is empty"
    ),
    "to_torch_an_empty_path": to_torch("--workdir={place}/run --out=", "--out is empty"),
    "from_torch_an_empty_path": from_torch(
        f"--checkpoint= {QUICKSTART} --workdir=x", "--checkpoint is empty"
    ),
    "evaluate_at_home": evaluate("--workdir=~/no_such_run", f"--workdir {HOME}/no_such_run does not exist"),
    "predict_at_home": predict(
        "--workdir={place}/run --out={place}/out --images=~/no_such_image.jpg",
        f"--images {HOME}/no_such_image.jpg matches no image",
    ),
    "to_torch_at_home": to_torch(
        "--out=x.pth --workdir=~/no_such_run", f"--workdir {HOME}/no_such_run does not exist"
    ),
    "from_torch_at_home": from_torch(
        f"{QUICKSTART} --workdir={{place}}/new --checkpoint=~/no_such_file.pth", f"{HOME}/no_such_file.pth"
    ),
    "to_torch_unknown_suffix": to_torch(
        "--workdir={place}/run --out=model.onnx", "'model.onnx'", ".pth, .pth.tar"
    ),
    "from_torch_other_model": from_torch(
        f"--checkpoint={{place}}/other.safetensors {QUICKSTART} --workdir={{place}}/new",
        "of another model",
        *OTHER_MODEL,
    ),
    "from_torch_no_classifier": from_torch(
        f"--checkpoint={{place}}/headless.safetensors {QUICKSTART} --workdir={{place}}/new",
        "linear.weight [classes, channels] is missing",
        "its 426 names are",
    ),
    "from_torch_other_class_count": from_torch(
        f"--checkpoint={{place}}/two.safetensors {QUICKSTART} --config.task.num_classes=8 --workdir={{place}}/new",
        "two.safetensors has 2 classes, but task.num_classes is 8",
        "leave it at 0",
    ),
    "from_torch_into_a_run": from_torch(
        f"--checkpoint={{place}}/two.safetensors {QUICKSTART} --workdir={{place}}/trained",
        "steps [5]",
        "choose another",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """A folder with data sets, weights and runs that are wrong in one way each."""
    place = tmp_path_factory.mktemp("wrong")
    (place / "empty").mkdir()
    (place / "file").write_text("not a folder")
    (place / "broken.py").write_text("def get_config(:\n")
    (place / "damaged.safetensors").write_bytes(b"nothing")
    for name in ("train/a", "train/b", "val/a", "val/b", "uneven/a", "renamed/a", "renamed/c", "corrupt/b"):
        (place / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(place / name / "image.png")
    (place / "corrupt/a").mkdir()
    (place / "corrupt/a/broken.png").write_bytes(b"nothing")
    for name in ("run", "trained"):
        workdir.prepare_workdir(place / name, quickstart.get_config(), ("a", "b"))
    (place / "trained/checkpoints/5").mkdir(parents=True)
    damage(place)
    write_cells(place / "cells")

    two = weights.to_torch(create_model("seaformer_tiny", num_classes=2))
    other = weights.to_torch(create_model("seaformer_tiny", num_classes=8))
    del other["linear.bias"]
    headless = {name: value for name, value in two.items() if not name.startswith("linear")}
    detector = weights.to_torch(create_model("seaformer_tiny", "detection", 2, neck_width=64, tower_convs=2))
    found = {
        "detector": detector,
        "two": two,
        "headless": headless,
        "other": other | {"extra": np.zeros(1), PATCH: np.zeros(3)},
    }
    for name, state_dict in found.items():
        files.write_state_dict(place / f"{name}.safetensors", state_dict)
    return place


def write_cells(folder: pathlib.Path) -> None:
    """Writes data sets in COCO's format, one for each name of a split."""
    records = {name: coco_files.content() for name in ("good", "none", "category", "missing", "many")}
    records["none"]["annotations"] = []
    records["category"]["annotations"][0]["category_id"] = 77
    records["missing"]["images"][0]["file_name"] = "z.png"
    records["many"]["annotations"].append(records["many"]["annotations"][0] | {"id": 9})
    for split, record in (records | {"list": []}).items():
        coco_files.write(folder, record, split)


def damage(place: pathlib.Path) -> None:
    """Writes runs of which one file is damaged."""
    for name in ("bad_config", "bad_labels"):
        workdir.prepare_workdir(place / name, quickstart.get_config(), ("a", "b"))
        (place / name / "checkpoints/5").mkdir(parents=True)
    config = quickstart.get_config()
    config.batch_size = 0
    config_file.save(config, place / "bad_config/config.json")
    (place / "bad_labels/labels.json").write_text("")
    (place / "bad_metrics").mkdir()
    (place / "bad_metrics/metrics.jsonl").write_text("[1]\n[2]\n")


def run(case: Case, place: pathlib.Path, cache: str) -> subprocess.CompletedProcess[str]:
    # The compilation cache is for the cases that build a model.
    module, *arguments = case.command.format(place=place).split()
    if any(argument.startswith("--config=") for argument in arguments):
        arguments.append(f"--config.compilation_cache={cache}")
    return forked.run(module, *arguments, devices=case.devices)


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_status_2(name, place, compile_cache):
    done = run(CASES[name], place, compile_cache)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    # It is not found out after a minute of compilation.
    assert "training step compiled" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [done.stderr.splitlines()[-1]]
    for part in CASES[name].says:
        assert part in errors[0]


def test_a_command_of_a_process_of_its_own_ends_alike(place, compile_cache):
    """A command that imports everything itself says what one of `forked` says."""
    case = CASES["unknown_on_corrupt"]
    module, *arguments = case.command.format(place=place).split()
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    expected = run(case, place, compile_cache)
    assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr) == (2, done.stderr)


def test_mended_config_is_accepted_until_there_is_a_checkpoint(tmp_path):
    config = quickstart.get_config()
    workdir.prepare_workdir(tmp_path, config, ("a", "b"))
    config.optim.lr = 0.5
    workdir.prepare_workdir(tmp_path, config, ("a", "b"))
    assert workdir.read(tmp_path)[0].optim.lr == 0.5
    (tmp_path / "checkpoints/5").mkdir(parents=True)
    workdir.prepare_workdir(tmp_path, config, ("a", "b"))
    config.optim.lr = 0.25
    with pytest.raises(
        UserError, match=r"another config: optim\.lr was 0\.5, now 0\.25\. .* a new --workdir"
    ):
        workdir.prepare_workdir(tmp_path, config, ("a", "b"))


def test_full_disk(tmp_path, monkeypatch):
    state = TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(1_000_000)}, {}, {}, {})
    checkpoints = checkpoint.Checkpoints(tmp_path, configs.default().checkpoint, "top1")
    usage = checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=3_000_000))
    with pytest.raises(
        UserError, match=r"3\.0 MB free and a checkpoint takes 4\.7 MB; make room or choose another"
    ):
        checkpoints.save(state, 1, {}, None)
    assert checkpoints.steps() == []
    checkpoints.close()
