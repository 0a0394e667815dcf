"""Values that the commands refuse in one line: recipes that raise, damaged cards, options that no model can take."""

import sys
from unittest import mock

import numpy as np
import pytest
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from convert import weights
from convert.checkpoints import files, pretrained
from convert.export import request
from convert.latency import table
from convert.runtimes import onnx
from seaformer_jax import config as configs
from seaformer_jax import config_check, create_model, flag_errors, json_files
from seaformer_jax.errors import UserError
from tests import forked, toys
from tests.paths import REPOSITORY

IMAGENET = f"--config={REPOSITORY}/configs/imagenet.py:tiny"
CAMVID = f"--config={REPOSITORY}/configs/camvid.py:tiny"
DISTILL = f"--config={REPOSITORY}/configs/distill_camvid.py"


def error_of(module: str, *arguments: object) -> str:
    """Runs a command that must refuse its arguments; returns the line."""
    done = forked.run(module, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def explained(*arguments: str) -> str:
    """Returns what a command says of a config that it must refuse, without starting it."""
    found = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=found)
    # ml_collections defines the flags of the overrides that it finds in the command line of the process.
    command_line = mock.patch.object(sys, "argv", ["train", *arguments])
    with command_line, pytest.raises(Exception) as raised:
        found(sys.argv)
        config_check.check(found.config)
    return flag_errors.explain(raised.value, arguments)


@pytest.mark.parametrize(
    ("recipe", "option", "says"),
    [
        (IMAGENET, "seed=-1", "seed is -1; expected a whole number in [0, 4294967295]"),
        (IMAGENET, "seed=99999999999999999999", "seed is 99999999999999999999; expected a whole number in"),
        (IMAGENET, "data.mean=('a','b','c')", "data.mean is ('a', 'b', 'c'); expected three numbers"),
        (IMAGENET, "optim.lr=nan", "optim.lr is nan; expected a finite number above 0"),
        (IMAGENET, "optim.lr_multipliers=('x',1.0)", "optim.lr_multipliers is ('x', 1.0); expected pairs"),
        (IMAGENET, "optim.schedule.warmup_steps=10**9", "'10**9'; expected a value of type int"),
        (CAMVID, "data.id_map=(0,1)", "data.id_map is (0, 1); expected pairs (value in the files"),
        (IMAGENET, "task.name=segmentation", "task.name is 'segmentation'; expected 'classification', because"),
        (CAMVID, "task.name=classification", "task.name is 'classification'; expected 'segmentation', because"),
        (IMAGENET, "total_steps=20", "optim.schedule.warmup_steps is 12510; expected at most total_steps, 20"),
    ],
)  # fmt: skip
def test_values_on_the_command_line(recipe, option, says):
    assert says in explained(recipe, f"--config.{option}")


NO_SUCH_VALUE = ": the config has no such value"


@pytest.mark.parametrize(
    ("recipe", "option", "says"),
    [
        # The known keys are those of the recipe.
        (DISTILL, "distillation.cross_wait=1", f"{NO_SUCH_VALUE}. Did you mean 'distillation.cross_weight'?"),
        (DISTILL, "distillation.foo=1", f"{NO_SUCH_VALUE}. distillation contains distillation.cross_weight, "),
        (DISTILL, "distillation=1", f"{NO_SUCH_VALUE}. It contains distillation.cross_weight, "),
        (DISTILL, "distillation.temperature=hot", " is 'hot'; expected a value of type float, e.g. 1.0"),
        (IMAGENET, "teacher.source=x", f"{NO_SUCH_VALUE}; it belongs to another task's config: distilled_class"),
        (IMAGENET, "eval.mode=slide", f"{NO_SUCH_VALUE}; it belongs to another task's config: segmentation, "),
        (CAMVID, "augment.mixup=1", f"{NO_SUCH_VALUE}; it belongs to another task's config: classification, "),
        (CAMVID, "optim.lr=fast", " is 'fast'; expected a value of type float, e.g. 0.0006"),
        # Names of other trainers.
        (IMAGENET, "learning_rate=1", f"{NO_SUCH_VALUE}. Did you mean 'optim.lr'?"),
        (IMAGENET, "optim.learning_rate=1", f"{NO_SUCH_VALUE}. Did you mean 'optim.lr'?"),
        (CAMVID, "max_iters=1", f"{NO_SUCH_VALUE}. Did you mean 'total_steps'?"),
        (IMAGENET, "batch=1", f"{NO_SUCH_VALUE}. Did you mean 'batch_size'?"),
        (IMAGENET, "weight_decay=0", f"{NO_SUCH_VALUE}. Did you mean 'optim.weight_decay'?"),
    ],
)  # fmt: skip
def test_keys_on_the_command_line(recipe, option, says):
    assert says in explained(recipe, f"--config.{option}")


def test_other_names_lead_to_keys():
    keys = {key for default in configs.TASKS.values() for key in flatten_dict(default().to_dict(), sep=".")}
    assert flag_errors._OTHER_NAMES.keys() <= keys
    assert not keys & {name for names in flag_errors._OTHER_NAMES.values() for name in names.split()}


def test_two_recipes_are_refused(tmp_path):
    line = error_of("seaformer_jax.train", IMAGENET, CAMVID, f"--workdir={tmp_path / 'run'}")
    assert "--config is given 2 times, with" in line
    assert line.endswith("expected one recipe; change single values with --config.key=value")


def test_nothing_is_written_before_the_values_are_checked(tmp_path):
    line = error_of("seaformer_jax.train", IMAGENET, f"--workdir={tmp_path / 'run'}", "--config.seed=-1")
    assert "seed is -1" in line
    assert not (tmp_path / "run").exists()


def test_randaugment_is_refused_before_anything_is_written(tmp_path):
    options = ("--config=configs/quickstart.py", "--config.augment.rand_augment=rand-m99-n0")
    line = error_of("seaformer_jax.train", *options, f"--workdir={tmp_path / 'run'}")
    assert "RandAugment 'rand-m99-n0' has the magnitude 99; expected 0..10" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def get_config():\n    return 1 // 0\n", "line 2: ZeroDivisionError: integer division"),
        ("def get_config():\n    raise RuntimeError('no\\nway')\n", "line 2: RuntimeError: no way"),
        ("def get_config():\n    return {}['lr']\n", "line 2: KeyError: lr"),
        ("def get_config():\n    return int('ten')\n", "line 2: ValueError: invalid literal"),
        (
            "def get_config():\n    try:\n        {}['lr']\n    except KeyError:\n        raise OSError('no lr')\n",
            "line 5: OSError: no lr",
        ),
        (
            "def get_config():\n    return rate()\n\ndef rate():\n    return 1 // 0\n",
            "line 5: ZeroDivisionError: integer division",
        ),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
@pytest.mark.parametrize("form", ["--config={}", "--config={}:tiny", "--config {}"])
def test_recipes_that_raise(code, says, form, tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(code.replace("get_config()", "get_config(variant='')"))
    line = explained(*form.format(recipe).split())
    assert line.startswith(f"--config {recipe}, {says}")
    assert line.endswith("correct the recipe")


def test_a_command_ends_with_the_line_of_a_recipe_that_raises(tmp_path):
    (tmp_path / "recipe.py").write_text("def get_config():\n    return 1 // 0\n")
    options = f"--config={tmp_path}/recipe.py", f"--workdir={tmp_path}/run"
    assert "line 2: ZeroDivisionError" in error_of("seaformer_jax.train", *options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--input-size=100000x100000"], "--input-size 100000x100000; expected at most 8192 pixels a side"),
        (["--input-size=64x8193"], "--input-size 64x8193; expected at most 8192"),
        (["--input-size=64x64", "--class-names={place}"], "Is a directory; expected a UTF-8 text file"),
        (["--input-size=64x64", "--class-names={place}/latin.txt"], "not UTF-8; expected a UTF-8 text file"),
        (["--input-size=64x64", "--mean=nan,0,0"], "--mean nan,0,0; expected three numbers"),
        (["--input-size=64x64", "--std=0,1,1"], "--std 0,1,1; expected three positive numbers"),
    ],
)
def test_options_of_the_export(options, says, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("Bäume\n".encode("latin-1"))
    options = [option.format(place=tmp_path) for option in options]
    weights, out = f"--weights={tmp_path / 'weights.pth'}", f"--out={tmp_path / 'bundle'}"
    assert says in error_of("convert.export", weights, "--format=onnx", out, *options)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 3),
        ("mean", "abc"),
        ("mean", ["a", "b", "c"]),
        ("std", [0.0, 1.0, 1.0]),
        ("crop_fraction", "all"),
        ("interpolation", 2),
        ("options", "none"),
        ("labels", {"names": []}),
        ("labels", {"palette": [[0, 0, 256]]}),
        ("class_names", "ab"),
    ],
)
def test_cards_of_weights(field, value, tmp_path):
    weights = tmp_path / "weights.safetensors"
    files.write_state_dict(weights, {"linear.weight": np.zeros((2, 3), np.float32)})
    json_files.write(tmp_path / "weights.json", {"model": "seaformer_tiny", field: value})
    with pytest.raises(UserError, match=rf'weights\.json: "{field}" is .*; expected .*convert\.to_torch'):
        pretrained.read(weights)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "linear.weight",
            lambda array: np.where(array > 0, np.nan, array),
            "values of .* that are not finite",
        ),
        ("linear.bias", lambda array: array.astype(np.float64) + 1e300, "2 values of 2 that are not finite"),
        (
            "smb1.layer1.conv.0.bn.running_var",
            lambda array: array * np.inf,
            "values of .* that are not finite",
        ),
        (
            "smb1.layer1.conv.0.bn.running_var",
            lambda array: -array,
            "is -1 at its smallest; expected variances of at",
        ),
        (
            "linear.weight",
            lambda array: array.astype(np.int64),
            "numbers of type int64; expected floating-point",
        ),
    ],
)
def test_weights_that_no_training_makes(name, change, says):
    toys.register()
    model = create_model("nano", num_classes=2)
    before = weights.to_torch(model)
    with pytest.raises(UserError, match=f"{name} .*{says}"):
        weights.from_torch(model, before | {name: change(before[name])})
    assert all(np.array_equal(array, before[key]) for key, array in weights.to_torch(model).items())


@pytest.mark.parametrize("path", [".", "/"])
def test_results_of_a_measurement_without_a_name(path):
    with pytest.raises(UserError, match=f"--out is '{path}'; expected a path without suffix"):
        table.location(path)


def test_more_classes_than_a_class_map_can_name():
    assert request.outputs("labels", "segmentation", 256, onnx) == ("labels", "")
    assert request.outputs("logits", "segmentation", 257, onnx) == ("logits", "")
    with pytest.raises(
        UserError, match="--output labels: the weights have 257 classes; expected at most 256"
    ):
        request.outputs("labels", "segmentation", 257, onnx)
