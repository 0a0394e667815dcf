"""Values of the config reach the compiled step: a run with another value ends with other weights."""

import functools

import pytest

from seaformer_jax.training import checkpoint, loop
from tests.training import small

# No decay is near 0.5 or 1, and the moving averages follow them from the first step on.
BASE = {"total_steps": 2, "seed": 1, "optim__ema_decay": 0.02, "optim__schedule__warmup_steps": 0}


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Returns a function that gives the averaged weights of a run of two steps with the values `changes`."""

    @functools.cache
    def run(**changes):
        folder = tmp_path_factory.mktemp("run")
        task = small.StandIn(small.config(**BASE | changes))
        loop.train(task.config, task, task.create_model(), folder)
        return checkpoint.load_weights(folder)[1:]

    return run


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"optim__ema_decay": 0.04}, {"optim__accumulate": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_value_reaches_the_step(averaged, changes):
    assert not small.equal(averaged(**changes), averaged())


def test_the_warm_up_of_the_averages_reaches_the_step(averaged):
    changes = {"optim__ema_decay": 0.9}
    assert not small.equal(averaged(**changes, optim__ema_warmup=False), averaged(**changes))
