"""Runs of distillation: they resume exactly, and their checkpoints are the student's alone."""

import jax
import numpy as np
import pytest

from seaformer_jax import config_file, tasks
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import checkpoint, loop, trained, workdir
from tests.training import distilled, small

STEPS = 4
# `make test` has test_resume.py, because the loop resumes every task alike.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def one_compilation():
    """All runs of a problem take the same steps."""
    compiled = {}

    def compile_once(config, task, *rest, compile_=loop._compile):
        return compiled.get(task.task_type) or compiled.setdefault(
            task.task_type, compile_(config, task, *rest)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_compile", compile_once)
        yield


def train(task, folder) -> None:
    workdir.prepare_workdir(folder, task.config, task.class_names)
    loop.train(task.config, task, task.create_model(), folder)


@pytest.fixture(scope="module", params=["segmentation", "classification"])
def runs(request, tmp_path_factory):
    """(task, folder of an uninterrupted run, folder of one that ended halfway and went on)."""
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"eval__every": 0, "checkpoint__every": 2, "total_steps": STEPS, "log_every": 1}
    changes |= {"optim__lr": 1e-2, "optim__schedule__warmup_steps": 0}
    if request.param == "segmentation":
        changes |= {"optim__accumulate": 2}
    task = distilled.make_task(request.param, **changes)
    weights = jax.tree.map(np.array, task.constants())
    train(task, folder / "whole")
    assert small.equal(task.constants(), weights)  # Frozen.

    save = checkpoint.Checkpoints.save

    def save_and_end(self, state, step, *rest):
        save(self, state, step, *rest)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", save_and_end)
        with pytest.raises(InterruptedError):
            train(distilled.make_task(request.param, **changes), folder / "halves")
    assert checkpoint.saved_steps(folder / "halves") == [STEPS // 2]
    train(distilled.make_task(request.param, **changes), folder / "halves")
    return task, folder / "whole", folder / "halves"


def test_a_run_goes_on_bit_for_bit(runs):
    _, whole, halves = runs
    for use_ema in (False, True):
        assert small.equal(checkpoint.load_weights(halves, use_ema), checkpoint.load_weights(whole, use_ema))
    names = ("train/loss", "train/ce", "train/cross", "train/feature", "train/output")
    for name in names:
        assert small.curve(halves, name) == small.curve(whole, name)
        assert sorted(small.curve(whole, name)) == list(range(1, STEPS + 1))


def test_the_student_learns_and_the_checkpoint_has_nothing_else(runs):
    task, whole, _ = runs
    fresh = split_model(task.create_model())
    step, *weights = checkpoint.load_weights(whole, use_ema=False)
    assert step == STEPS and jax.tree.structure(tuple(weights)) == jax.tree.structure(fresh)
    assert small.distance(tuple(weights), fresh) > 1e-4
    assert np.abs(weights[0]["upsample"]["block"]["project"]["bn"]["scale"]).max() > 0


def test_another_teacher_is_refused(runs):
    task, whole, _ = runs
    changed = distilled.make_config(task.task_type)
    changed.update(config_file.load(whole / "config.json"))
    changed.teacher.sha256 = ""
    other = tasks.create(changed).with_teacher(distilled.teacher(task.task_type, seed=10))
    with pytest.raises(UserError, match=r"teacher\.sha256 was '[0-9a-f]{64}', now '[0-9a-f]{64}'"):
        workdir.prepare_workdir(whole, other.config, other.class_names)


def test_a_run_is_read_without_its_teacher(runs):
    _, whole, _ = runs
    loaded = trained.load(whole)
    assert loaded.model.upsample.ratio == 2
    assert (
        loaded.model.width
        == loaded.config.model.upsample_width
        == (12 if loaded.task.task_type == "segmentation" else 16)
    )
