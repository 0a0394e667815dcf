"""Creates optimisers by name, with no-decay groups and learning-rate multipliers chosen by parameter path.

A parameter's path is its keys in the nested dictionary, joined by slashes, e.g.
`backbone/stages/3/sea/0/attention/to_q/bn/scale`. Patterns are regular expressions that match whole paths.
"""

import re
from collections.abc import Callable

import jax
import ml_collections
import optax

from seaformer_jax.errors import UserError
from seaformer_jax.training import schedules
from seaformer_jax.types import Tree

# Learned tables of positions, of every kind of attention, and ACmix's rates of its two paths.
_TABLES = re.compile(r".*(_position/table|bias_table|relative|rate[12])")


def create(
    config: ml_collections.ConfigDict, total_steps: int, params: Tree
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimiser of `config.optim` and its learning-rate schedule.

    The optimiser is a chain of three stages:

    1. clipping by the global norm `clip_norm` (0 switches it off);
    2. the named optimiser, see below;
    3. multiplication of the updates by the factors of `lr_multipliers`. This equals multiplying the learning rate,
       because every update is linear in it.

    The named optimisers:

    - `rmsprop_tf`: timm's RMSpropTF (optim/rmsprop_tf.py): L2 weight decay, mean square starting at 1, eps
      inside the root, the learning rate inside the momentum buffer.
    - `adamw`: decoupled weight decay, as `torch.optim.AdamW`.
    - `sgd`: Nesterov momentum and L2 weight decay, as `torch.optim.SGD(nesterov=True)` and timm's `sgd`.
    - `lamb` (You et al. 2020, arXiv 1904.00962) and `lars` (You et al. 2017, arXiv 1708.03888; trust
      coefficient 0.001): as in optax, but the trust ratio applies to decayed parameters only, as in the
      authors' code.

    Args:
        config: `config.optim` of a config that `config_check` has checked. `no_decay` lists patterns of parameters
            without weight decay, and `decay_tables` False adds those of positions. `lr_multipliers` lists pairs
            (pattern, factor); the first match counts. `accumulate` and `ema_decay` belong to the training step and
            are not used here.
        total_steps: Steps of the whole run, >= 1.
        params: Nested dictionary of arrays or `jax.ShapeDtypeStruct`s; only its structure is used.

    Raises:
        UserError: A pattern matches no parameter.
    """
    # 1. What applies to each parameter, as trees of booleans and factors. Patterns are resolved here, before the
    #    run, so that a misspelt one is an error now.
    schedule = schedules.create(config.schedule, config.lr, total_steps)
    paths = parameter_paths(params)
    multipliers = [(_compile("lr_multipliers", p, paths), factor) for p, factor in config.lr_multipliers]
    no_decay = [_compile("no_decay", pattern, paths) for pattern in config.no_decay]
    no_decay += [] if config.decay_tables else [_TABLES]
    decayed = jax.tree.map(lambda path: not any(p.fullmatch(path) for p in no_decay), paths)
    factors = jax.tree.map(lambda path: _factor(multipliers, path), paths)

    # 2. The chain. A stage without effect is left out.
    stages = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    stages.append(_OPTIMISERS[config.name](config, schedule, decayed))
    if multipliers:
        stages.append(optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, factors)))
    return optax.chain(*stages), schedule


def parameter_paths(params: Tree) -> Tree:
    """Returns the tree of `params` with each parameter replaced by its path."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: jax.tree_util.keystr(keys, simple=True, separator="/"), params
    )


def _compile(key: str, pattern: str, paths: Tree) -> re.Pattern:
    """Compiles a pattern of the config key `optim.<key>`; raises UserError if it matches no path."""
    names = jax.tree.leaves(paths)
    compiled = re.compile(pattern)
    if not any(compiled.fullmatch(name) for name in names):
        # Up to three paths, evenly spaced, show different parts of the model.
        examples = ", ".join(names[:: -(-len(names) // 3)])
        raise UserError(
            f"optim.{key}: {pattern!r} matches none of the {len(names)} parameter paths, e.g. {examples}; "
            "correct the pattern (it must match the whole path) or remove it"
        )
    return compiled


def _factor(multipliers: list[tuple[re.Pattern, float]], path: str) -> float:
    """Returns the factor of the first pattern that matches `path`, or 1."""
    return next((factor for pattern, factor in multipliers if pattern.fullmatch(path)), 1.0)


def _rmsprop_tf(config, schedule, decayed) -> optax.GradientTransformation:
    # Weight decay comes first: L2 decay is added to the gradient.
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.rmsprop(
            schedule,
            decay=config.rms_decay,
            eps=config.eps,
            initial_scale=1.0,
            eps_in_sqrt=True,
            momentum=config.momentum,
        ),
    )


def _adamw(config, schedule, decayed) -> optax.GradientTransformation:
    return optax.adamw(
        schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed
    )


def _sgd(config, schedule, decayed) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.sgd(schedule, momentum=config.momentum, nesterov=True),
    )


def _lamb(config, schedule, decayed) -> optax.GradientTransformation:
    # optax.lamb would apply the trust ratio to every parameter.
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.masked(optax.scale_by_trust_ratio(), decayed),
        optax.scale_by_learning_rate(schedule),
    )


def _lars(config, schedule, decayed) -> optax.GradientTransformation:
    return optax.lars(
        schedule,
        weight_decay=config.weight_decay,
        weight_decay_mask=decayed,
        trust_ratio_mask=decayed,
        momentum=config.momentum,
    )


# `config_ranges.NAMES` has the same names, so that an unknown one is an error before a model is built.
_OPTIMISERS: dict[str, Callable] = {
    "rmsprop_tf": _rmsprop_tf,
    "adamw": _adamw,
    "sgd": _sgd,
    "lamb": _lamb,
    "lars": _lars,
}
