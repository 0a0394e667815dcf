"""The workdir belongs to one run."""

import fnmatch
import functools
import json
import operator

import jax
import pytest
from flax.traverse_util import flatten_dict

from seaformer_jax import config as configs
from seaformer_jax import config_ranges
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, loop, workdir
from tests.training import small

NAMES = ("left", "right")


def changed(**changes):
    config = configs.default()
    config.optim.lr_multipliers = ((".*bias", 2.0),)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


@pytest.fixture
def run(tmp_path):
    """The workdir of a run with a checkpoint; made with its parents."""
    folder = tmp_path / "runs/first"
    workdir.prepare_workdir(folder, changed(), NAMES)
    (folder / "checkpoints/500").mkdir(parents=True)
    return folder


def test_it_says_what_is_in_it(run):
    config, names = workdir.read(run)
    assert config.to_dict() == changed().to_dict()
    assert names == list(NAMES)


def test_the_same_config_may_go_on(run):
    before = (run / "config.json").read_bytes()
    workdir.prepare_workdir(run, changed(), NAMES)
    assert (run / "config.json").read_bytes() == before


def test_another_config_is_refused_with_the_differences(run):
    other = changed(optim__lr=0.5, model__name="seaformer_base", optim__lr_multipliers=((".*bias", 3.0),))
    with pytest.raises(UserError) as error:
        workdir.prepare_workdir(run, other, NAMES)
    assert str(error.value) == (
        f"{run} belongs to a run with another config: "
        "model.name was 'seaformer_tiny', now 'seaformer_base'; "
        "optim.lr was 0.001, now 0.5; "
        "optim.lr_multipliers was (('.*bias', 2.0),), now (('.*bias', 3.0),). "
        "Use its values to resume it, or a new --workdir"
    )
    assert workdir.read(run)[0].optim.lr == 0.001


def test_what_no_step_depends_on_may_change(run, caplog):
    other = changed(data__root="/new", data__workers=2, eval__every=100, checkpoint__keep=5, log_every=10)
    with caplog.at_level("INFO", logger="absl"):
        workdir.prepare_workdir(run, other, NAMES)
    assert caplog.messages == [
        "the run goes on with other values: checkpoint.keep was 2, now 5; data.root was '', now '/new'; "
        "data.workers was 0, now 2; eval.every was 500, now 100; log_every was 50, now 10"
    ]
    assert workdir.read(run)[0].to_dict() == other.to_dict()
    (run / "checkpoints/700").mkdir()
    workdir.prepare_workdir(run, changed(data__root="/newer", data__workers=2), NAMES)
    rows = [json.loads(row) for row in (run / "config_changes.jsonl").read_text().splitlines()]
    assert rows[1] == {"step": 500, "key": "data.root", "before": "", "now": "/new"}
    assert rows[6] == {"step": 700, "key": "data.root", "before": "/new", "now": "/newer"}


def test_what_stays_the_same_is_not_recorded(run):
    workdir.prepare_workdir(run, changed(), NAMES)
    assert not (run / "config_changes.jsonl").exists()


def test_resumable_keys_exist():
    keys = set().union(*(flatten_dict(default().to_dict(), sep=".") for default in configs.TASKS.values()))
    assert all(fnmatch.filter(keys, pattern) for pattern in config_ranges.RESUMABLE)
    locked = {
        "optim.lr",
        "batch_size",
        "seed",
        "data.train_split",
        "data.image_size",
        "init_from",
        "model.name",
    }
    assert not any(workdir._is_resumable(key) for key in locked)


@pytest.mark.parametrize(
    ("schedule", "total", "says"),
    [
        ("step", 2000, ""),
        ("step", 500, ""),
        (
            "step",
            499,
            "total_steps was 1000, now 499, and .* has a checkpoint of step 500; expected at least 500",
        ),
        (
            "cosine",
            2000,
            "now 2000, which would stretch the schedule 'cosine': the 500 steps so far .*init_from=",
        ),
        (
            "poly",
            1001,
            "now 1001, which would stretch the schedule 'poly'.* Resume with total_steps=1000, or",
        ),
    ],
)
def test_a_run_may_become_longer_if_its_steps_stay_the_same(tmp_path, caplog, schedule, total, says):
    workdir.prepare_workdir(tmp_path, changed(optim__schedule__name=schedule), NAMES)
    (tmp_path / "checkpoints/500").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    longer = changed(optim__schedule__name=schedule, total_steps=total)
    if says:
        with pytest.raises(UserError, match=says):
            workdir.prepare_workdir(tmp_path, longer, NAMES)
        assert (tmp_path / "config.json").read_bytes() == before
        return
    with caplog.at_level("INFO", logger="absl"):
        workdir.prepare_workdir(tmp_path, longer, NAMES)
    assert (
        caplog.messages[0] == f"the schedule 'step' goes on as in a run that was started with {total} steps"
    )
    assert workdir.read(tmp_path)[0].total_steps == total


def test_a_longer_run_is_the_one_that_would_have_been_started(tmp_path):
    short, long = (
        small.config(optim__schedule__name="step", optim__schedule__decay_steps=3.0, total_steps=steps)
        for steps in (6, 9)
    )
    for folder, config in (("resumed", short), ("resumed", long), ("whole", long)):
        task = small.StandIn(config)
        workdir.prepare_workdir(tmp_path / folder, config, task.class_names)
        loop.train(config, task, task.create_model(), tmp_path / folder)
    resumed, whole = (checkpoint.load_weights(tmp_path / folder) for folder in ("resumed", "whole"))
    assert resumed[0] == 9 and small.equal(resumed, whole)


def test_checkpoints_without_a_config_are_refused(run):
    (run / "config.json").unlink()
    with pytest.raises(
        UserError, match=r"has checkpoints but no config\.json.*; restore a copy of config\.json, or"
    ):
        workdir.prepare_workdir(run, changed(), NAMES)
    assert not (run / "config.json").exists()


def test_a_run_without_checkpoints_leaves_its_folder(tmp_path):
    workdir.prepare_workdir(tmp_path, changed(), NAMES)
    workdir.prepare_workdir(tmp_path, changed(optim__lr=0.5), NAMES)
    assert workdir.read(tmp_path)[0].optim.lr == 0.5


def test_how_hosts_find_each_other_is_no_part_of_the_run(run):
    other = changed(distributed__enabled=True, distributed__coordinator="a:1", distributed__process_id=1)
    workdir.prepare_workdir(run, other, NAMES)
    assert other.distributed.enabled
    assert not workdir.read(run)[0].distributed.enabled


def test_a_run_of_several_hosts_is_recorded_as_one_of_any_number(tmp_path):
    config = changed(distributed__enabled=True, distributed__num_processes=4)
    workdir.prepare_workdir(tmp_path, config, NAMES)
    assert not json.loads((tmp_path / "config.json").read_text())["distributed"]["enabled"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    workdir.prepare_workdir(tmp_path / "run", changed(), NAMES)
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match=r"is not the workdir of a run: no config\.json"):
        workdir.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --workdir"):
        workdir.prepare_workdir(tmp_path / "file/run", changed(), NAMES)


def without(name: str) -> str:
    """The config of `run` as JSON, without one key."""
    record = changed().to_dict()
    *sections, key = name.split(".")
    del functools.reduce(operator.getitem, sections, record)[key]
    return json.dumps(record)


@pytest.mark.parametrize("name", ["batch_size", "optim.lr", "optim.schedule", "eval"])
def test_a_key_that_is_missing_has_its_default(run, name):
    (run / "config.json").write_text(without(name))
    assert workdir.read(run)[0].to_dict() == changed().to_dict()
    workdir.prepare_workdir(run, changed(), NAMES)  # The run can go on.


def test_a_whole_number_is_a_number(run):
    """Other programs write 1.0 as 1."""
    (run / "config.json").write_text(with_value("optim__clip_norm", 1.0).replace(": 1.0", ": 1"))
    assert workdir.read(run)[0].optim.clip_norm == 1


def with_value(name: str, value) -> str:
    return json.dumps(changed(**{name: value}).to_dict())


DAMAGE = {
    "empty": ("", "Expecting value"),
    "broken": ('{"seed": 0', "Expecting ',' delimiter"),
    "not_utf8": (b"\xff\xfe", "can't decode"),
    "number": ("3", "found 3, expected an? "),
}
CONFIG_DAMAGE = DAMAGE | {
    "list": ("[1, 2]", r"found \(1, 2\), expected an object"),
    "no_task": (without("task.name"), "task.name is ''; expected one of classification"),
    "unknown_task": (with_value("task__name", "sorting"), "task.name is 'sorting'; expected one of"),
    "no_section": (without("optim")[:-1] + ', "optim": 3}', "optim is 3; expected a section"),
    "wrong_type": (without("seed")[:-1] + ', "seed": "x"}', "seed is 'x'; expected a value of type int"),
    "wrong_type_below": (
        with_value("optim__lr", 0.5).replace('"lr": 0.5', '"lr": "x"'),
        "optim.lr is 'x'; expected a value of type float",
    ),
    "none": (without("seed")[:-1] + ', "seed": null}', "seed is None; expected a value of type int"),
    "out_of_range": (with_value("batch_size", -1), "batch_size is -1; expected a whole number of at least 1"),
    "wrong_numbers": (with_value("data__std", ("a", "b", "c")), "expected three positive numbers"),
}
LABELS_DAMAGE = DAMAGE | {
    "object": ('{"0": "left"}', "expected a list of class names"),
    "no_names": ("[]", r"found \[\], expected a list of class names"),
    "numbers": ("[1, 2]", r"found \[1, 2\], expected a list of class names"),
}


@pytest.mark.parametrize("name", CONFIG_DAMAGE)
def test_a_damaged_config_is_an_error(run, name):
    content, says = CONFIG_DAMAGE[name]
    write(run / "config.json", content)
    with pytest.raises(
        UserError, match=rf"config\.json is damaged: .*{says}.*; correct it, or restore a copy"
    ):
        workdir.read(run)
    with pytest.raises(UserError, match=rf"config\.json is damaged: .*{says}"):
        workdir.prepare_workdir(run, changed(), NAMES)


@pytest.mark.parametrize("name", LABELS_DAMAGE)
def test_damaged_labels_are_an_error(run, name):
    content, says = LABELS_DAMAGE[name]
    write(run / "labels.json", content)
    with pytest.raises(
        UserError, match=rf"labels\.json is damaged: .*{says}.*; correct it, or restore a copy"
    ):
        workdir.read(run)


def write(path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", ["config.json", "labels.json"])
def test_a_folder_in_place_of_a_file_is_an_error(run, name):
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} cannot be read: Is a directory"):
        workdir.read(run)
    with pytest.raises(UserError, match="Is a directory"):
        workdir.prepare_workdir(run, changed(), NAMES)
