"""A run that diverged names the command that starts from its last checkpoint."""

import re
import shlex

import jax
import pytest

from seaformer_jax.training import checkpoint
from tests import forked
from tests.training import small

# `tests/training/test_failures.py` has the error itself.
pytestmark = pytest.mark.slow
RECIPE = "--config=tests/training/nano.py"
# The learning rate is 1e-6 at step 0, and at step 1 so high that the parameters are infinite after it.
DIVERGE = {
    "optim__name": "adamw",
    "optim__lr": 3e38,
    "optim__lr_multipliers": "(('.*', 10.0),)",
    "optim__schedule__warmup_steps": 1,
    "checkpoint__every": 1,
    "eval__every": 0,
}


def test_the_named_command_starts_from_the_last_checkpoint(tmp_path, compile_cache):
    folder = tmp_path / "my run"
    output = small.finish(small.start(folder, compile_cache, **DIVERGE), 2)
    line = output.splitlines()[-1]
    assert line.startswith(
        "error: the parameters are not finite after step 2; no checkpoint of that step was"
    )
    named = re.search("Start from its last checkpoint in a new folder: (.*?); or", line)[1]
    *folders, lower = shlex.split(named)
    assert folders == [f"--workdir={folder}_2", f"--config.init_from={folder}"]
    assert lower == "--config.optim.lr=1.5e+38"

    options = ["--config.optim.lr=1e-12", "--config.optim.schedule.warmup_steps=0", "--config.total_steps=1"]
    cache = f"--config.compilation_cache={compile_cache}"
    done = forked.run("seaformer_jax.train", RECIPE, *folders, *options, "--config.eval.every=0", cache)
    assert done.returncode == 0, done.stderr
    (_, before, _), (_, after, _) = (
        checkpoint.load_weights(folder),
        checkpoint.load_weights(tmp_path / "my run_2", use_ema=False),
    )
    assert small.distance(before, after) < 1e-6 < small.distance(after, jax.tree.map(abs, after))


def test_a_run_without_a_checkpoint_is_to_be_started_again(tmp_path, compile_cache):
    changes = DIVERGE | {"optim__schedule__warmup_steps": 0, "checkpoint__every": 0, "total_steps": 1}
    output = small.finish(small.start(tmp_path / "run", compile_cache, **changes), 2)
    assert "Run the same command with --config.optim.lr=1.5e+38; or lengthen" in output.splitlines()[-1]
