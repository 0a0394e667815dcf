"""The training step against loops written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from seaformer_jax.models.variables import split_model, update_model
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step
from tests.training import small

OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def make(model: nnx.Module, loss_fn=small.loss, seed: int = 5, ema_decay: float = 0.0, **options):
    """Returns (compiled step, initial state)."""
    step = make_train_step(nnx.graphdef(model), loss_fn, OPTIMIZER, seed=seed, ema_decay=ema_decay, **options)
    return jax.jit(step), states.create(model, OPTIMIZER, ema_decay > 0)


def whole_loss(model, batch, key):
    """Without drop path, whose draws depend on the shape of the batch."""
    del key
    value = optax.softmax_cross_entropy_with_integer_labels(model(batch["image"], True), batch["label"])
    return value.mean(), {}


def test_microbatches_without_batch_norm_equal_one_batch():
    model, batch = small.Net(norm=False), small.batch(0, 16)
    one, state = make(model, whole_loss)
    four, _ = make(model, whole_loss, accumulate=4)
    expected, metrics = one(state, batch)
    found, accumulated = four(state, batch)
    assert small.distance(found.params, expected.params) < 1e-6
    assert small.distance(state.params, expected.params) > 1e-2
    assert accumulated["loss"] == pytest.approx(float(metrics["loss"]), abs=1e-6)
    assert accumulated["grad_norm"] == pytest.approx(float(metrics["grad_norm"]), abs=1e-6)


def test_microbatches_with_batch_norm_are_a_loop():
    model, count = small.Net(), 4
    step, state = make(model, seed=5, accumulate=count)
    graphdef, (params, stats) = nnx.graphdef(model), split_model(model)
    batch, total, losses = small.batch(0, 16), small.zeros_like(params), []
    keys = jax.random.split(jax.random.fold_in(jax.random.key(5), 0), count)

    def compute(params, stats, rows, key):
        merged = nnx.merge(graphdef, params, stats)
        value, _ = small.loss(merged, rows, key)
        return value, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    gradient = jax.jit(jax.value_and_grad(compute, has_aux=True))
    for i in range(count):
        rows = {name: value[i::count] for name, value in batch.items()}
        (loss, stats), grads = gradient(params, stats, rows, keys[i])
        total = jax.tree.map(jnp.add, total, grads)
        losses.append(float(loss))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g / count, params, total)

    found, metrics = step(state, batch)
    assert small.distance(found.params, expected) < 1e-6
    assert small.distance(found.batch_stats, stats) < 1e-6
    assert metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(total)) / count, abs=1e-6)


def test_moving_averages_of_parameters_and_statistics():
    step, state = make(small.Net(), ema_decay=0.7)
    expected = {"params": state.params, "batch_stats": state.batch_stats}
    for number in range(3):
        state, _ = step(state, small.batch(number))
        new = {"params": state.params, "batch_stats": state.batch_stats}
        expected = jax.tree.map(lambda old, new: 0.7 * np.asarray(old) + 0.3 * np.asarray(new), expected, new)
    assert small.distance(state.ema, expected) < 1e-6
    assert small.distance(state.ema["batch_stats"], state.batch_stats) > 0.01
    assert states.weights(state, use_ema=True) == (state.ema["params"], state.ema["batch_stats"])
    assert states.weights(state, use_ema=False) == (state.params, state.batch_stats)


def test_the_decay_of_the_averages_rises_to_its_limit():
    """Decays by hand: 1/10, 2/11, then 0.2 instead of 3/12."""
    step, state = make(small.Net(), ema_decay=0.2, ema_warmup=True)
    expected = state.params
    for number, decay in enumerate((1 / 10, 2 / 11, 0.2)):
        state, _ = step(state, small.batch(number))
        new = state.params
        expected = jax.tree.map(
            lambda old, new, decay=decay: decay * np.asarray(old) + (1 - decay) * np.asarray(new),
            expected,
            new,
        )
    assert small.distance(state.ema["params"], expected) < 1e-6


def test_without_moving_average_the_weights_are_evaluated():
    step, state = make(small.Net(), ema_decay=0.0)
    state, _ = step(state, small.batch(0))
    assert state.ema == {}
    assert states.weights(state, use_ema=True) == (state.params, state.batch_stats)


def drawing_loss(model, batch, key):
    return whole_loss(model, batch, key)[0], {"draw": jax.random.uniform(key)}


def test_randomness_is_a_function_of_seed_and_step():
    step, state = make(small.Net(), drawing_loss, seed=5)
    draws = []
    for number in range(3):
        state, metrics = step(state, small.batch(number))
        draws.append(float(metrics["draw"]))
    keys = [jax.random.fold_in(jax.random.key(5), number) for number in range(3)]
    assert draws == [float(jax.random.uniform(key)) for key in keys]
    assert len(set(draws)) == 3
    other, state = make(small.Net(), drawing_loss, seed=6)
    assert float(other(state, small.batch(0))[1]["draw"]) not in draws


def test_the_state_holds_numbers_only():
    step, state = make(small.Net(), ema_decay=0.7)
    state, _ = step(state, small.batch(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert state.step == 1
    assert [leaf.shape for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32] == [()]


@pytest.mark.parametrize("part", ["params", "batch_stats", "ema", "opt_state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_is_found(part, value):
    state = states.create(small.Net(), OPTIMIZER, use_ema=True)
    assert states.is_finite(state)
    leaves, structure = jax.tree.flatten(getattr(state, part))
    leaves[-1] = leaves[-1].at[(-1,) * leaves[-1].ndim].set(value)
    assert not states.is_finite(state._replace(**{part: jax.tree.unflatten(structure, leaves)}))


def test_a_model_takes_back_what_was_split():
    model, other = small.Net(), small.Net()
    step, state = make(model)
    state, _ = step(state, small.batch(0))
    update_model(other, state.params, state.batch_stats)
    assert small.equal(split_model(other), (state.params, state.batch_stats))
