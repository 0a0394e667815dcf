"""Widths for equal operations, against those computed from the formulas of the modules' costs."""

import pytest

from seaformer_jax.models.equal_macs import attention_widths
from seaformer_jax.models.registry import model_config

# Widths of seaformer_tiny at 512x512 in its two stages, before rounding to a multiple of the four heads.
EXACT = {"vanilla": (85, 217), "window": (82, 74), "axial_sum": (80, 127)}


@pytest.mark.parametrize("kind", EXACT)
def test_widths_of_tiny_at_512(kind):
    found = attention_widths(model_config("seaformer_tiny", attention=kind), 512, 512)
    assert all(width % 4 == 0 for width in found)
    assert found == pytest.approx(EXACT[kind], abs=2.5)
