"""Only the first of several hosts writes files."""

import jax
import optax
import pytest

from seaformer_jax import tasks
from seaformer_jax.training import checkpoint, lock, scalars, workdir
from seaformer_jax.training import state as states
from tests import forked
from tests.training import nano, small


def test_another_host_prepares_no_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    folder = tmp_path / "run"
    with lock.held(folder):
        workdir.prepare_workdir(folder, small.config(), ["a"])
        reporter = scalars.Reporter(folder, 0)
        reporter.scalars(1, {"train/loss": 1.0})
        reporter.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory, compile_cache):
    """The workdir of a nano model that was saved before its first step."""
    folder = tmp_path_factory.mktemp("run")
    config = nano.get_config()
    config.compilation_cache = compile_cache
    task = tasks.create(config)
    workdir.prepare_workdir(folder, config, task.class_names)
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, task.best_metric)
    checkpoints.save(states.create(task.create_model(), optax.sgd(0.1), use_ema=True), 0, {}, None)
    checkpoints.close()
    return folder


@pytest.mark.parametrize(
    ("index", "written"), [(0, {"results.json", "per_class.md", "confusion_matrix.png"}), (1, set())]
)
def test_only_the_first_host_writes_results(run, tmp_path, index, written):
    out = tmp_path / "out"
    done = forked.run("tests.commands.evaluate_on_host", index, f"--workdir={run}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert " val loss " in done.stderr
    assert {path.name for path in out.glob("*")} >= written and bool(written) == out.exists()
