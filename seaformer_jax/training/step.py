"""The training step, as a pure function for `jax.jit`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from seaformer_jax.training.state import TrainState
from seaformer_jax.types import Batch, Tree

LossFn = Callable[[nnx.Module, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def make_train_step(
    graphdef: nnx.GraphDef,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns `step(state, batch, constants) -> (state, metrics)`.

    `constants` (nothing, if left out) are entries that the batch and all its microbatches have besides.

    Args:
        graphdef: of the model, as `nnx.graphdef` gives it.
        loss_fn: (model, batch, key) -> (scalar loss, scalar metrics); it runs `model` in training mode.
        optimizer: makes updates of the parameters.
        seed: of all that is random in a step; the key of step t is folded from it and t, so that nothing random
          needs to be in a checkpoint.
        ema_decay: of the moving averages of parameters and statistics (no ramp, as timm's ModelEmaV2).
        accumulate: microbatches whose mean gradient makes one update; BatchNorm sees them one after another.
    """

    def gradients(params: Tree, batch_stats: Tree, batch: Batch, constants: Batch, key: jax.Array):
        def compute(params):
            model = nnx.merge(graphdef, params, batch_stats)
            loss, metrics = loss_fn(model, batch | constants, key)
            return loss, (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), metrics)

        (loss, (batch_stats, metrics)), grads = jax.value_and_grad(compute, has_aux=True)(params)
        return grads, batch_stats, {"loss": loss, **metrics}

    def accumulated(params: Tree, batch_stats: Tree, batch: Batch, constants: Batch, key: jax.Array):
        def add(carry, inputs):
            total, stats = carry
            grads, stats, metrics = gradients(params, stats, inputs[0], constants, inputs[1])
            return (jax.tree.map(jnp.add, total, grads), stats), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        inputs = (_microbatches(batch, accumulate), jax.random.split(key, accumulate))
        (total, batch_stats), metrics = jax.lax.scan(add, (zeros, batch_stats), inputs)
        mean = jax.tree.map(lambda g: g / accumulate, total)
        return mean, batch_stats, jax.tree.map(lambda m: m.mean(0), metrics)

    def step(
        state: TrainState, batch: Batch, constants: Batch | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        compute = gradients if accumulate == 1 else accumulated
        grads, batch_stats, metrics = compute(state.params, state.batch_stats, batch, constants or {}, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = {"params": params, "batch_stats": batch_stats}
        ema = optax.incremental_update(new, state.ema, 1 - ema_decay) if state.ema else {}
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, batch_stats, ema, opt_state), metrics

    return step


def _microbatches(batch: Batch, count: int) -> Batch:
    """[B, ...] -> [count, B / count, ...], every device keeping rows of its own."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)
