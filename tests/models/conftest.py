"""A SeaFormer of every part that compiles in seconds."""

import pytest

from convert import torch_model
from seaformer_jax.models.variants import VARIANTS, InvertedResidualSpec, SeaFormerConfig

_ROWS = (((3, 1, 8, 2),), ((3, 2, 16, 2),), ((5, 2, 24, 2),), ((3, 2, 20, 2),))
_SIZES = {
    "stem": 8,
    "depths": (1, 2),
    "key_dims": (4, 6),
    "ffn_ratios": (2, 2),
    "heads": 2,
    "fusion_widths": (12, 16),
}


@pytest.fixture
def mini(monkeypatch) -> str:
    """The name of that model, with us and in the PyTorch mirror: attention in the last two of four stages."""
    stages = tuple(tuple(InvertedResidualSpec(*row) for row in rows) for rows in _ROWS)
    monkeypatch.setitem(VARIANTS, "mini", SeaFormerConfig(stages=stages, **_SIZES))
    monkeypatch.setitem(torch_model.VARIANTS, "mini", torch_model.Variant(stages=_ROWS, **_SIZES))
    return "mini"
