"""Counts the multiply-accumulate operations of a model in its traced program (jaxpr)."""

import math
from typing import NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx


class Macs(NamedTuple):
    """Multiply-accumulates for one image, divided as fvcore divides them; the official code counts with fvcore.

    Attributes:
        conv: Convolutions, 1x1 ones included.
        matmul: Products of two activations: attention scores and the weighted sums of values.
        linear: Linear layers that are applied once per image.
    """

    conv: int = 0
    matmul: int = 0
    linear: int = 0

    @property
    def total(self) -> int:
        return sum(self)


def count_macs(model: nnx.Module, height: int, width: int) -> Macs:
    """Counts the operations of `model` for one image of `height` x `width` pixels in evaluation mode.

    Element-wise operations, normalisation, pooling and interpolation are not counted; fvcore's conv, matmul and
    linear rows do not contain them either. The model is traced with abstract arrays, so nothing is computed.
    """
    return count_on_map(model, height, width, 3)


def count_on_map(module: nnx.Module, height: int, width: int, channels: int) -> Macs:
    """As `count_macs`, for a module on one feature map [1, height, width, channels]."""
    graphdef, state = nnx.split(module)

    def forward(state, images):
        return nnx.merge(graphdef, state)(images, train=False)

    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    return _count(jax.make_jaxpr(forward)(jax.eval_shape(lambda: state), images).jaxpr)


def _count(jaxpr) -> Macs:
    totals = [_count_equation(equation) for equation in jaxpr.eqns]
    return Macs(*(sum(column) for column in zip(*totals, strict=True))) if totals else Macs()


def _count_equation(equation) -> Macs:
    # A jitted function is an equation that carries its name: `depthwise_conv`, `grouped_conv`, `resize_linear`.
    operation = equation.params.get("name", equation.primitive.name)
    if operation == "resize_linear":  # Interpolation: XLA gets it as products with constant matrices.
        return Macs()
    if operation in ("depthwise_conv", "grouped_conv", "conv_general_dilated"):
        return Macs(conv=_conv(operation, equation))
    if operation == "dot_general":
        return _dot(equation)
    # Any other equation counts as much as the programs inside it, such as the body of a jitted function. Of branches
    # the first counts: they are the forms of one function for different platforms.
    values = [*equation.params.values(), *equation.params.get("branches", ())[:1]]
    inner = [_count(value.jaxpr) for value in values if isinstance(value, jax.extend.core.ClosedJaxpr)]
    return Macs(*(sum(column) for column in zip(*inner, strict=True))) if inner else Macs()


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
    # A 1x1 convolution is a product with a row for every position; a linear layer has one row per image.
    return Macs(linear=macs) if left.size == left.shape[contracted[0]] else Macs(conv=macs)
