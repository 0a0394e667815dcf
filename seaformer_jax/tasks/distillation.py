"""What distillation has in common for all kinds of labels: the frozen teacher, the small image, the weighted terms.

The teacher sees the image of the batch, the student the same image made smaller on the device. The terms and their
formulas are in `distillation_losses`.
"""

import copy
import hashlib
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.resize import apply_taps, linear_taps
from seaformer_jax.tasks.image_task import ImageTask
from seaformer_jax.types import Batch


class Views(NamedTuple):
    """What student and teacher make of the same images; no gradient flows into what is the teacher's own."""

    logits: jax.Array
    crossed: jax.Array  # Logits of the teacher's head, in evaluation mode, on the student's features.
    features: jax.Array  # [B, h, w, C], upsampled
    teacher_logits: jax.Array
    teacher_features: jax.Array


class Distillation(ImageTask):
    """Goes before `Segmentation` or `Classification` among the bases of a task."""

    _teacher: nnx.GraphDef | None = None
    _weights: Batch

    def with_teacher(self, model: nnx.Module) -> Self:
        """Returns this task with `model` (of `create_model`) as its teacher; call it before the student is made.

        The config of the result is a copy that also says which teacher it is: `model.upsample_width` is the width of
        the features that both compare, `teacher.sha256` the hash of the weights. So resuming a run with another
        teacher is resuming it with another config, which is refused.

        Raises:
            UserError: the config already names another width or hash.
        """
        taught = copy.copy(self)
        taught._teacher, state = nnx.split(model)
        taught._weights = nnx.to_pure_dict(state)
        taught.config = self.config.copy_and_resolve_references()
        found = {("model", "upsample_width"): model.width, ("teacher", "sha256"): digest(taught._weights)}
        for (section, key), value in found.items():
            self._check_teacher(section, key, value)
            taught.config[section][key] = value
        return taught

    def _check_teacher(self, section: str, key: str, value: int | str) -> None:
        before = self.config[section][key]
        if before and before != value:
            raise UserError(
                f"{section}.{key} is {before!r}, but the teacher {self.config.teacher.source} has {value!r}; it is "
                f"another teacher, or {section}.{key} should be left out"
            )

    def constants(self) -> Batch:
        """The teacher's weights; UserError where there is no teacher."""
        if self._teacher is None:
            raise UserError(
                "there is no teacher to distil from; set teacher.source to a workdir or a checkpoint"
            )
        return {"teacher": self._weights}

    def shrink(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, H / r, W / r, 3] for the student (r = `model.upsample_ratio`; rounded).

        Bilinear with half-pixel centres, as `interpolate(align_corners=False)`: for r = 2 the mean of 2 x 2 pixels.
        """
        small = images.astype(jnp.float32)
        for axis in (1, 2):
            size = round(images.shape[axis] / self.config.model.upsample_ratio)
            small = apply_taps(linear_taps(images.shape[axis], size, size), small, axis)
        return small.astype(images.dtype)

    def prepare(self, images: jax.Array) -> jax.Array:
        return self.shrink(self.normalize(images))

    def views(self, model: nnx.Module, batch: Batch, images: jax.Array, key: jax.Array) -> Views:
        """Runs teacher and student on the same images.

        Args:
            model: the student, in training mode.
            batch: with the teacher's weights.
            images: [B, H, W, 3], what the teacher takes.
            key: of the student's dropout and stochastic depth.
        """
        teacher, rngs = nnx.merge(self._teacher, batch["teacher"]), nnx.Rngs(dropout=key)
        target = jax.lax.stop_gradient(teacher.features(images))
        features = model.features(self.shrink(images), train=True, rngs=rngs)
        return Views(
            logits=model.classify(features, train=True, rngs=rngs),
            crossed=teacher.classify(features),
            features=features,
            teacher_logits=jax.lax.stop_gradient(teacher.classify(target)),
            teacher_features=target,
        )

    def total(self, **terms: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the weighted sum of `ce`, `cross`, `feature` and `output`, and the terms that count, unweighted.

        A term of weight 0 is neither reported nor, within `jax.jit`, computed.
        """
        chosen = self.config.distillation
        weights = {"ce": 1.0, **{name: chosen[f"{name}_weight"] for name in ("cross", "feature", "output")}}
        used = {name: value for name, value in terms.items() if weights[name]}
        return sum(weights[name] * value for name, value in used.items()), used


def digest(weights: Batch) -> str:
    """Returns the SHA-256 of names, shapes and float32 values of nested dictionaries of arrays."""
    found = hashlib.sha256()
    for path, value in jax.tree_util.tree_flatten_with_path(weights)[0]:
        array = np.ascontiguousarray(value, np.float32)
        found.update(f"{jax.tree_util.keystr(path)}{array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()
