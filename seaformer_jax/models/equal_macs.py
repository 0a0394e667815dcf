"""Widths at which another attention costs as many multiply-accumulates as SEA attention."""

import dataclasses

import numpy as np
from flax import nnx

from seaformer_jax.models.macs import count_on_map
from seaformer_jax.models.seaformer import create_attention
from seaformer_jax.models.variants import SeaFormerConfig


def attention_widths(config: SeaFormerConfig, height: int, width: int) -> tuple[int, ...]:
    """Returns the `attention_widths` with which `config.attention` costs what SEA attention costs, stage by stage.

    Each is the multiple of the heads that comes closest, for one image of height x width pixels.

    Args:
        config: A config with a kind of attention that reads `attention_widths`.
        height, width: Size of the image in pixels.
    """
    sea = dataclasses.replace(config, attention="sea", attention_widths=(), attention_window=7)
    heads, found = config.heads, []
    for index in range(len(config.depths)):
        # The operations of all these kinds are proportional to the width.
        of_one = dataclasses.replace(config, attention_widths=(heads,) * len(config.depths))
        ratio = _macs(sea, index, height, width) / _macs(of_one, index, height, width)
        found.append(heads * max(1, round(ratio)))
    return tuple(found)


def _macs(config: SeaFormerConfig, index: int, height: int, width: int) -> int:
    """Returns the operations of one attention of the stage that is number `index` of those with attention."""
    stride, channels = 4 << len(config.stages) - len(config.depths) + index, _channels(config, index)
    module = nnx.eval_shape(lambda: create_attention(config, index, channels, np.random.default_rng(0)))
    return count_on_map(module, -(-height // stride), -(-width // stride), channels).total


def _channels(config: SeaFormerConfig, index: int) -> int:
    return config.stages[len(config.stages) - len(config.depths) + index][-1].channels
