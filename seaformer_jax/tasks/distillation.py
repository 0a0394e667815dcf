"""The parts of distillation shared by all kinds of labels: frozen teacher, smaller image, weighted terms.

The teacher sees the image of the batch. The student sees the same image, made smaller on the device. The terms and
their formulas are in `distillation_losses`.
"""

import copy
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.extents import mapped_sizes
from seaformer_jax.resize import apply_taps, linear_taps
from seaformer_jax.tasks.image_task import ImageTask
from seaformer_jax.types import Batch


class Views(NamedTuple):
    """Outputs of student and teacher for the same images. No gradient flows into the teacher's own outputs.

    Attributes:
        logits: The student's logits.
        crossed: Logits of the teacher's head, in evaluation mode, on the student's features.
        features: The student's features [B, h, w, C], upsampled to the teacher's resolution.
        teacher_logits: The teacher's logits.
        teacher_features: The teacher's features [B, h, w, C].
    """

    logits: jax.Array
    crossed: jax.Array
    features: jax.Array
    teacher_logits: jax.Array
    teacher_features: jax.Array


class Distillation(ImageTask):
    """Mixin of the distilled tasks; comes before `Segmentation` or `Classification` in the list of bases."""

    _teacher: nnx.GraphDef | None = None
    _weights: Batch

    def with_teacher(self, model: nnx.Module) -> Self:
        """Returns a copy of this task with `model` as its teacher; call it before creating the student.

        The copy's config also identifies the teacher: `model.upsample_width` is the width of the features that are
        compared, and `teacher.sha256` is the hash of the teacher's weights. A run with another teacher therefore has
        another config, and resuming with another config is refused.

        Args:
            model: The teacher, from `create_model`.
        Raises:
            UserError: The config already has another width or hash.
        """
        copied = copy.copy(self)
        copied._teacher, state = nnx.split(model)
        copied._weights = nnx.to_pure_dict(state)
        copied.config = self.config.copy_and_resolve_references()
        properties = {
            ("model", "upsample_width"): model.width,
            ("teacher", "sha256"): digest(copied._weights),
        }
        for (section, key), value in properties.items():
            self._check_teacher(section, key, value)
            copied.config[section][key] = value
        return copied

    def _check_teacher(self, section: str, key: str, value: int | str) -> None:
        """Raises UserError if the config already has another value; 0 and "" mean that it has none."""
        before = self.config[section][key]
        if before and before != value:
            raise UserError(
                f"{section}.{key} is {before!r}, but the teacher {self.config.teacher.source} has {value!r}; choose "
                f"the teacher with {before!r}, or leave out {section}.{key}"
            )

    def constants(self) -> Batch:
        """Returns the teacher's weights; raises UserError if there is no teacher."""
        if self._teacher is None:
            raise UserError(
                "there is no teacher to distil from; set teacher.source to a workdir or a checkpoint"
            )
        return {"teacher": self._weights}

    def shrink(self, images: jax.Array) -> jax.Array:
        """Shrinks images [B, H, W, 3] to the student's size, [B, H / r, W / r, 3] with r = `model.upsample_ratio`.

        The new sides are rounded. Bilinear with half-pixel centres, as PyTorch's `interpolate(align_corners=False)`:
        for r = 2 each new pixel is the mean of 2 x 2 pixels.
        """
        # Interpolates in float32 and rounds to the images' dtype only once.
        small = images.astype(jnp.float32)
        for axis in (1, 2):
            size = self._small(images.shape[axis])
            small = apply_taps(linear_taps(images.shape[axis], size, size), small, axis)
        return small.astype(images.dtype)

    def shrink_padded(self, images: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shrinks padded images [B, H, W, 3] of sizes [B, 2] as `shrink` does each alone; gives their sizes, too."""
        new = mapped_sizes(sizes, self._small, max(images.shape[1:3]))
        small = images.astype(jnp.float32)
        for axis in (0, 1):
            length = self._small(images.shape[1 + axis])

            def along_axis(image: jax.Array, size: jax.Array, new: jax.Array) -> jax.Array:
                return apply_taps(linear_taps(size, new, length), image, axis)  # noqa: B023  Called at once.

            small = jax.vmap(along_axis)(small, sizes[:, axis], new[:, axis])
        return small.astype(images.dtype), new

    def heights(self) -> Sequence[int]:
        return [self._small(height) for height in super().heights()]

    def _small(self, side: int) -> int:
        return round(side / self.config.model.upsample_ratio)

    def prepare(self, images: jax.Array) -> jax.Array:
        return self.shrink(self.normalize(images))

    def views(self, model: nnx.Module, batch: Batch, images: jax.Array, key: jax.Array) -> Views:
        """Runs teacher and student on the same images.

        Args:
            model: The student, which runs in training mode.
            batch: Training batch with the teacher's weights as `teacher`.
            images: Input of the teacher, [B, H, W, 3].
            key: Random key of the student's dropout and stochastic depth.
        """
        teacher, rngs = nnx.merge(self._teacher, batch["teacher"]), nnx.Rngs(dropout=key)
        # The teacher is frozen and runs in evaluation mode.
        target = jax.lax.stop_gradient(teacher.features(images))
        features = model.features(self.shrink(images), train=True, rngs=rngs)
        return Views(
            logits=model.classify(features, train=True, rngs=rngs),
            crossed=teacher.classify(features),  # No stop_gradient: this term trains the student's features.
            features=features,
            teacher_logits=jax.lax.stop_gradient(teacher.classify(target)),
            teacher_features=target,
        )

    def total(self, **terms: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the weighted sum of the terms `ce`, `cross`, `feature` and `output`, and the unweighted terms.

        A term of weight 0 is left out of the result, so `jax.jit` does not compute it.
        """
        chosen = self.config.distillation
        weights = {"ce": 1.0, **{name: chosen[f"{name}_weight"] for name in ("cross", "feature", "output")}}
        used = {name: value for name, value in terms.items() if weights[name]}
        return sum(weights[name] * value for name, value in used.items()), used


def digest(weights: Batch) -> str:
    """Returns the SHA-256 of the names, shapes and float32 values in nested dictionaries of arrays."""
    hasher = hashlib.sha256()
    for path, value in jax.tree_util.tree_flatten_with_path(weights)[0]:
        array = np.ascontiguousarray(value, np.float32)
        hasher.update(f"{jax.tree_util.keystr(path)}{array.shape}".encode())
        hasher.update(array.data)
    return hasher.hexdigest()
