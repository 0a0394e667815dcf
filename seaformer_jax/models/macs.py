"""Multiply-accumulate operations of a model, counted on its traced program."""

import math
from typing import NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx


class Macs(NamedTuple):
    """Multiply-accumulates for one image, in the classes of fvcore, which the official code counts with."""

    conv: int = 0
    matmul: int = 0  # products of two activations: attention scores and their sums of values
    linear: int = 0

    @property
    def total(self) -> int:
        return sum(self)


def count_macs(model: nnx.Module, height: int, width: int) -> Macs:
    """Counts `model` on one image of `height` x `width` pixels in evaluation mode.

    Element-wise work, normalisation, pooling and interpolation are left out, as fvcore leaves them out of its
    conv, matmul and linear rows.
    """
    graphdef, state = nnx.split(model)

    def forward(state, images):
        return nnx.merge(graphdef, state)(images, train=False)

    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return _count(jax.make_jaxpr(forward)(jax.eval_shape(lambda: state), images).jaxpr)


def _count(jaxpr) -> Macs:
    totals = [_count_equation(equation) for equation in jaxpr.eqns]
    return Macs(*(sum(column) for column in zip(*totals, strict=True))) if totals else Macs()


def _count_equation(equation) -> Macs:
    operation = equation.params.get("name", equation.primitive.name)
    if operation == "resize_linear":  # interpolation, written as products with constant matrices
        return Macs()
    if operation in ("depthwise_conv", "conv_general_dilated"):
        return Macs(conv=_conv(operation, equation))
    if operation == "dot_general":
        return _dot(equation)
    inner = [
        value.jaxpr for value in equation.params.values() if isinstance(value, jax.extend.core.ClosedJaxpr)
    ]
    return (
        Macs(*(sum(column) for column in zip(*(_count(j) for j in inner), strict=True))) if inner else Macs()
    )


def _conv(operation: str, equation) -> int:
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval
    per_output = kernel[0] * kernel[1] if operation == "depthwise_conv" else math.prod(kernel[:3])  # HWIO
    return out.size * per_output


def _dot(equation) -> Macs:
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    left = equation.invars[0].aval
    macs = equation.outvars[0].aval.size * math.prod(left.shape[axis] for axis in contracted)
    if batch:
        return Macs(matmul=macs)
    # 1x1 convolutions are products too; of one image they have a row for every position.
    return Macs(linear=macs) if left.size == left.shape[contracted[0]] else Macs(conv=macs)
