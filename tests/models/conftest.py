"""`mini`, a SeaFormer that has every part and compiles in seconds."""

import pytest

from tests import toys


@pytest.fixture
def mini() -> str:
    """Returns the name of a small model with attention in the last two of four stages.

    It is registered both here and in the PyTorch mirror.
    """
    toys.register()
    return "mini"
