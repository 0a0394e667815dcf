"""What a training step carries from one step to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from seaformer_jax.types import Tree


class TrainState(NamedTuple):
    """Pytrees only, so that a checkpoint can be read without our classes."""

    step: jax.Array  # int32 scalar: updates done
    params: Tree
    batch_stats: Tree
    ema: Tree  # {"params", "batch_stats"}: their moving averages; {} where there are none
    opt_state: Any


def split_model(model: nnx.Module) -> tuple[Tree, Tree]:
    """Returns (params, batch_stats) of `model` as nested dictionaries of arrays."""
    params, stats = nnx.state(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def update_model(model: nnx.Module, params: Tree, batch_stats: Tree) -> None:
    """Puts the arrays of `split_model` back into `model`."""
    for kind, tree in ((nnx.Param, params), (nnx.BatchStat, batch_stats)):
        state = nnx.state(model, kind)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, tree))
        nnx.update(model, state)


def create(model: nnx.Module, optimizer: optax.GradientTransformation, use_ema: bool) -> TrainState:
    """Returns the state before the first step; the moving averages start at the values themselves, as timm's."""
    params, batch_stats = split_model(model)
    # Copies: the step donates its state, and one buffer cannot be donated twice.
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if use_ema else {}
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, ema, optimizer.init(params))
    # No weak types (`jnp.full(shape, 1.0)` has one): a checkpoint does not keep them, and the step of a resumed run
    # would be another program, to be compiled anew.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


def weights(state: TrainState, use_ema: bool) -> tuple[Tree, Tree]:
    """Returns the (params, batch_stats) to evaluate with: the averaged ones where wanted and there."""
    if use_ema and state.ema:
        return state.ema["params"], state.ema["batch_stats"]
    return state.params, state.batch_stats
