"""The parameters and statistics of a model as nested dictionaries, and back."""

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax.types import Tree


def split_model(model: nnx.Module) -> tuple[Tree, Tree]:
    """Returns (params, batch_stats) of `model` as nested dictionaries of arrays."""
    params, stats = nnx.state(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def update_model(model: nnx.Module, params: Tree, batch_stats: Tree) -> None:
    """Sets the arrays of `model` to `params` and `batch_stats`, as `split_model` returns them."""
    for kind, tree in ((nnx.Param, params), (nnx.BatchStat, batch_stats)):
        state = nnx.state(model, kind)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, tree))
        nnx.update(model, state)
