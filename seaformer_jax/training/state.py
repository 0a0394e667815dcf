"""The state that a training step passes to the next one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from seaformer_jax.models.variables import split_model
from seaformer_jax.types import Tree


class TrainState(NamedTuple):
    """The state of a run. It holds only pytrees, so that a checkpoint can be read without our classes.

    Attributes:
        step: Number of updates done, int32 scalar.
        params: Parameters.
        batch_stats: Running statistics of BatchNorm.
        ema: Moving averages {"params", "batch_stats"}; {} if the run has none.
        opt_state: State of the optimiser.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    ema: Tree
    opt_state: Any


def create(model: nnx.Module, optimizer: optax.GradientTransformation, use_ema: bool) -> TrainState:
    """Returns the state before the first step; the moving averages start at the model's own values, as in timm."""
    params, batch_stats = split_model(model)
    # Copies, because the step donates its state and one buffer cannot be donated twice.
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if use_ema else {}
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, ema, optimizer.init(params))
    # Removes weak types (`jnp.full(shape, 1.0)` has one). A checkpoint does not keep them, so the step of a resumed
    # run would be another program and would have to be compiled again.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


@jax.jit
def _finite(tree: Tree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def is_finite(state: TrainState) -> bool:
    """Returns whether no array of the state, the optimiser's included, has an infinity or a NaN."""
    return bool(_finite(state._asdict()))


def weights(state: TrainState, use_ema: bool) -> tuple[Tree, Tree]:
    """Returns the (params, batch_stats) to evaluate: the averaged ones if `use_ema` and the run has them."""
    if use_ema and state.ema:
        return state.ema["params"], state.ema["batch_stats"]
    return state.params, state.batch_stats
