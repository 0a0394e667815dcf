"""A source that keeps a run going long enough to be interrupted."""

import time

from seaformer_jax.data import shapes


class SlowShapes(shapes.Shapes):
    """`shapes`, read slowly."""

    def __getitem__(self, index: int) -> dict:
        time.sleep(0.02)
        return super().__getitem__(index)
