"""The ways to compute that the part `golden` compares, and how far each may deviate.

By default XLA multiplies float32 in TF32 on a GPU, with 10 bits of mantissa, so float32 is measured both ways.
"""

from typing import NamedTuple


class Precision(NamedTuple):
    """A way to compute.

    Attributes:
        dtype: Compute type of the model.
        products: JAX's precision of matrix products and convolutions; None is the platform's default.
        absolute: Largest deviation that is right.
        relative: The same, as a share of the largest logit.
    """

    dtype: str
    products: str | None
    absolute: float = 0.0
    relative: float = 0.0


PRECISIONS = {
    "float32 highest": Precision("float32", "highest", absolute=1e-4),
    "float32 default": Precision("float32", None, absolute=1e-4, relative=0.01),
    "bfloat16": Precision("bfloat16", None, relative=0.03),
}
