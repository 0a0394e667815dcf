"""Cross-entropy losses for images and for pixels, computed in float32."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Interpolate = Callable[[jax.Array, jax.Array], jax.Array]


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns -sum_c targets_c log softmax(logits)_c.

    With smoothed one-hot targets this is timm's `LabelSmoothingCrossEntropy`, with mixed targets its
    `SoftTargetCrossEntropy` (timm/loss/cross_entropy.py).

    Args:
        logits: [B, num_classes].
        targets: Shares of the classes, [B, num_classes]; each row sums to 1.
    Returns:
        One loss per example, float32 [B], in nats.
    """
    return optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label], float32 [B], for logits [B, num_classes] and integer labels [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


class PixelSums(NamedTuple):
    """Sums over the pixels of a batch that have a label.

    Attributes:
        loss: Sum of -log softmax(logits)[label].
        right: Number of pixels whose label has the largest logit.
        pixels: Number of pixels that have a label.
    """

    loss: jax.Array
    right: jax.Array
    pixels: jax.Array

    def accuracy(self) -> jax.Array:
        """Returns the share of the pixels that are right; 0 if no pixel has a label."""
        return self.right / jnp.maximum(self.pixels, 1)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> PixelSums:
    """Sums the cross-entropy of logits upsampled bilinearly to the labels, as mmseg's `BaseDecodeHead.losses` does.

    Only a band of pixels, those between two neighbouring rows of logits, is upsampled at a time. Its gradient is
    computed in the same pass. So the upsampled logits of the whole image are neither stored nor computed twice.

    Args:
        logits: [B, h, w, C]. They are upsampled in float32; the gradient has their dtype.
        labels: Integer [B, f*h, f*w], f even; a pixel whose value is not in 0..C-1 has no label.
    Raises:
        ValueError: The labels are not of such a size.
    """
    (_, h, w, _), (_, height, width) = logits.shape, labels.shape
    if height % (2 * h) or height * w != width * h:
        raise ValueError(f"labels are {height}x{width}; expected an even multiple of the logits' {h}x{w}")
    return _sum_over_pixels(logits, labels)


@jax.custom_vjp
def _sum_over_pixels(logits: jax.Array, labels: jax.Array) -> PixelSums:
    # The form without a gradient; where a gradient is wanted, JAX calls `_forward` instead.
    interpolate = functools.partial(_between_rows, factor=labels.shape[1] // logits.shape[1])

    def step(above: jax.Array, band: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, PixelSums]:
        below = _row(logits, band[0])
        return below, _sum_over_band(interpolate, above, below, band[1])[1]

    _, sums = jax.lax.scan(step, _row(logits, 0), _bands(labels, logits.shape))
    return jax.tree.map(lambda values: values.sum(0), sums)


def _forward(logits: jax.Array, labels: jax.Array) -> tuple[PixelSums, jax.Array]:
    """Returns the sums, and the gradient of the loss [B, h, w, C], which is all that the backward pass needs."""
    h, factor = logits.shape[1], labels.shape[1] // logits.shape[1]

    def step(carry: tuple[jax.Array, ...], band: tuple[jax.Array, jax.Array]) -> tuple[tuple, PixelSums]:
        gradient, above, pending = carry
        number, labels_of_band = band
        below = _row(logits, number)
        (to_above, to_below), sums = _gradient_of_band(above, below, labels_of_band, factor)
        # In the first and in the last band, `above` and `below` are the same row. The first band completes no row:
        # what it writes is overwritten.
        done = (pending + to_above + jnp.where(number == h, to_below, 0)).astype(gradient.dtype)
        gradient = jax.lax.dynamic_update_index_in_dim(gradient, done, jnp.maximum(number - 1, 0), 1)
        return (gradient, below, to_below + jnp.where(number == 0, to_above, 0)), sums

    first = _row(logits, 0)
    start = (jnp.zeros_like(logits), first, jnp.zeros_like(first))
    (gradient, *_), sums = jax.lax.scan(step, start, _bands(labels, logits.shape))
    return jax.tree.map(lambda values: values.sum(0), sums), gradient


def _backward(gradient: jax.Array, cotangents: PixelSums) -> tuple[jax.Array, None]:
    # Only the loss has a gradient; the two counts and the labels have none.
    return (cotangents.loss * gradient).astype(gradient.dtype), None


_sum_over_pixels.defvjp(_forward, _backward)


def _row(rows: jax.Array, number: jax.Array | int) -> jax.Array:
    """Returns a row of logits [B, h, w, C] in float32, [B, w, C]; below the last one lies the last one again.

    So logits beyond an edge equal those at the edge, as in PyTorch's interpolation with `align_corners=False`.
    """
    number = jnp.minimum(number, rows.shape[1] - 1)
    return jax.lax.dynamic_index_in_dim(rows, number, 1, keepdims=False).astype(jnp.float32)


def _bands(labels: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Cuts labels [B, f*h, f*w] into bands, and these into cells: the pixels between four neighbouring logits.

    Returns:
        The numbers of the bands, [h+1], and their labels by pixel of a cell, [h+1, B, f*f, w+1].
    """
    batch, h, _, _ = shape
    f = labels.shape[1] // h
    # The centre of the first logit is f / 2 pixels from the edge. The padding has a value that is no label.
    half = (f // 2, f // 2)
    padded = jnp.pad(labels, ((0, 0), half, half), constant_values=jnp.iinfo(labels.dtype).max)
    rows = padded.reshape(batch, h + 1, f, -1).swapaxes(0, 1)
    # A TPU pads the innermost axis to 128 lanes and the one before it to 32: both must be long, and f is 8.
    cells = jnp.stack([rows[..., column::f] for column in range(f)], 3)
    return jnp.arange(h + 1), cells.reshape(h + 1, batch, f * f, -1)


def _between_rows(above: jax.Array, below: jax.Array, factor: int) -> jax.Array:
    """Interpolates first between two rows of logits [B, w, C], then between columns.

    Returns:
        The logits of the pixels between the rows, [B, f, f, w+1, C]; f is `factor`.
    """
    weight = _weights(factor)
    above, below = (jnp.pad(row, ((0, 0), (1, 1), (0, 0)), "edge")[:, None] for row in (above, below))
    rows = above * (1 - weight) + below * weight
    return rows[:, :, None, :-1] * (1 - weight) + rows[:, :, None, 1:] * weight


def _between_corners(above: jax.Array, below: jax.Array, factor: int) -> jax.Array:
    """Computes `_between_rows` as a sum of the four corners of each cell, each times its weight.

    The gradient of a corner is then one sum over the pixels of a cell. That of `_between_rows` is two, and what lies
    between them is large: on a TPU it was 6 of 12 GB of the loss of 32 images (`experiments.tpu_program`). On a CPU
    this form takes 1.7 times as long.
    """
    right, down = _weights(factor), _weights(factor)[:, None]
    above, below = (jnp.pad(row, ((0, 0), (1, 1), (0, 0)), "edge")[:, None, None] for row in (above, below))
    upper = (1 - down) * (1 - right) * above[..., :-1, :] + (1 - down) * right * above[..., 1:, :]
    return upper + down * (1 - right) * below[..., :-1, :] + down * right * below[..., 1:, :]


def _weights(factor: int) -> jax.Array:
    """Returns the weights of the right or lower of two neighbours at the pixels between them, [f, 1, 1]."""
    return ((jnp.arange(factor) + 0.5) / factor)[:, None, None]


def _gradient_of_band(
    above: jax.Array, below: jax.Array, labels: jax.Array, factor: int
) -> tuple[tuple[jax.Array, jax.Array], PixelSums]:
    """Returns the gradients of both rows, and the sums, of `_sum_over_band`, in the form of the platform."""

    def form(between: Callable[..., jax.Array]) -> Callable[..., Any]:
        interpolate = functools.partial(between, factor=factor)
        return jax.grad(functools.partial(_sum_over_band, interpolate), (0, 1), has_aux=True)

    forms = {"tpu": form(_between_corners), "default": form(_between_rows)}
    return jax.lax.platform_dependent(above, below, labels, **forms)


def _sum_over_band(
    interpolate: Interpolate, above: jax.Array, below: jax.Array, labels: jax.Array
) -> tuple[jax.Array, PixelSums]:
    """Sums over the pixels between two rows of logits.

    Args:
        interpolate: `_between_rows` or `_between_corners`, with its factor f.
        above, below: Neighbouring rows of logits, float32 [B, w, C].
        labels: Labels of the pixels between them, [B, f*f, w+1].
    Returns:
        The sum of the losses, which is differentiated, and all sums.
    """
    # 1. Bilinear upsampling.
    logits, classes = interpolate(above, below), above.shape[-1]
    labels = labels.reshape(logits.shape[:-1])
    # 2. The logit of each pixel's label, as a masked sum.
    is_label = jnp.arange(classes) == labels[..., None]
    label_logit = jnp.where(is_label, logits, 0).sum(-1)
    valid = (labels >= 0) & (labels < classes)
    # 3. The logarithm of the softmax's denominator. Subtracting the largest logit avoids an overflow of `exp`.
    largest = jax.lax.stop_gradient(logits.max(-1))
    log_total = jnp.log(jnp.exp(logits - largest[..., None]).sum(-1)) + largest
    loss = jnp.where(valid, log_total - label_logit, 0).sum()
    return loss, PixelSums(loss, (valid & (label_logit >= largest)).sum(), valid.sum())
