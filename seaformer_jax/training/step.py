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
    ema_warmup: bool = False,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the function `step(state, batch, constants) -> (state, metrics)`.

    `batch` is the global batch. `constants` (default: none) are entries that do not change and are added to the batch
    and to each of its microbatches. The metrics are `loss`, `grad_norm` (before clipping) and those of `loss_fn`.

    Args:
        graphdef: The model's structure, from `nnx.graphdef`.
        loss_fn: (model, batch, key) -> (scalar loss, scalar metrics); it runs `model` in training mode.
        optimizer: Turns gradients into updates of the parameters.
        seed: Seed of everything random in a step. The key of step t is folded from the seed and t, so that a
            checkpoint needs no random state.
        ema_decay: Decay of the moving averages of parameters and statistics.
        ema_warmup: Whether the decay rises to `ema_decay`, see `_decay`; without it, it is constant, as in timm's
            ModelEmaV2.
        accumulate: Number of microbatches; the mean of their gradients makes one update. BatchNorm sees them one
            after another.
    """

    def gradients(params: Tree, batch_stats: Tree, batch: Batch, constants: Batch, key: jax.Array):
        """Returns (gradients, new batch_stats, metrics) of one batch."""

        def compute(params):
            # A model object exists only inside this function. The step passes plain dictionaries of arrays, so it is
            # pure and its state can be saved without our classes.
            model = nnx.merge(graphdef, params, batch_stats)
            loss, metrics = loss_fn(model, batch | constants, key)
            # The forward pass has updated the model's BatchNorm statistics in place; they must leave as a result.
            return loss, (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), metrics)

        (loss, (batch_stats, metrics)), grads = jax.value_and_grad(compute, has_aux=True)(params)
        return grads, batch_stats, {"loss": loss, **metrics}

    def accumulated(params: Tree, batch_stats: Tree, batch: Batch, constants: Batch, key: jax.Array):
        """As `gradients`, averaged over the microbatches; the activations of only one exist at a time."""

        def add(carry, inputs):
            # The parameters stay the same, but each microbatch updates the statistics that the one before it left.
            total, stats = carry
            grads, stats, metrics = gradients(params, stats, inputs[0], constants, inputs[1])
            return (jax.tree.map(jnp.add, total, grads), stats), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        # One key per microbatch, so that they do not all draw the same dropout and augmentation.
        inputs = (_microbatches(batch, accumulate), jax.random.split(key, accumulate))
        (total, batch_stats), metrics = jax.lax.scan(add, (zeros, batch_stats), inputs)
        mean = jax.tree.map(lambda g: g / accumulate, total)
        return mean, batch_stats, jax.tree.map(lambda m: m.mean(0), metrics)

    def step(
        state: TrainState, batch: Batch, constants: Batch | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        # 1. Random key, from the seed and the step alone: a resumed run draws what the uninterrupted one would have.
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        # 2. Gradients. One microbatch needs no loop and no sum of gradients.
        compute = gradients if accumulate == 1 else accumulated
        grads, batch_stats, metrics = compute(state.params, state.batch_stats, batch, constants or {}, key)
        # 3. Update. The learning rate is part of the optimiser, which counts its own steps.
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # 4. Moving averages. The statistics are averaged too: evaluation needs them with the averaged parameters.
        new = {"params": params, "batch_stats": batch_stats}
        decay = _decay(state.step, ema_decay) if ema_warmup else ema_decay
        ema = optax.incremental_update(new, state.ema, 1 - decay) if state.ema else {}
        # 5. Gradient norm before clipping, so that it shows divergence. One that is not finite ends the run.
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, batch_stats, ema, opt_state), metrics

    return step


def _decay(step: jax.Array, limit: float) -> jax.Array:
    """Returns the decay of the moving averages, min(limit, (1 + t) / (10 + t)) after t updates.

    With a constant decay the random initial weights, and the initial variances of BatchNorm, stay in the average for
    about 5 / (1 - limit) steps, and validation reads chance until then. With this one their share is below 1e-8 after
    31 steps. Source: `num_updates` of TensorFlow's ExponentialMovingAverage.
    """
    return jnp.minimum(limit, (1 + step) / (10 + step))


def _microbatches(batch: Batch, count: int) -> Batch:
    """[B, ...] -> [count, B / count, ...]; microbatch i has the rows i, i + count, ... of the batch.

    Each device has a run of consecutive rows, so every microbatch has rows of every device and none has to move.
    """
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)
