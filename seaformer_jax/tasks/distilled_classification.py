"""Distilled classification: the student sees a smaller image, the frozen teacher the whole one."""

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax.distillation_losses import feature_distance, output_divergence
from seaformer_jax.losses import soft_cross_entropy
from seaformer_jax.tasks.classification import Classification
from seaformer_jax.tasks.distillation import Distillation
from seaformer_jax.types import Batch


class DistilledClassification(Distillation, Classification):
    """Distilled classification; see `tasks.base.Task`. The compared features are those of the last stage."""

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the weighted sum of the four `distillation_losses`; the metrics are the four terms and `accuracy`.

        The cross-entropies and the output divergence are means over the images. Teacher and student see the same
        mixed and erased images, and both cross-entropies use the mixed targets. The accuracy uses the labels of the
        batch.
        """
        images, targets, dropout_key = self.training_images(batch, key)
        views = self.views(model, batch, images, dropout_key)
        divergence = output_divergence(
            views.logits, views.teacher_logits, self.config.distillation.temperature
        )
        # Labels belong to whole images, so every position of the feature map counts fully.
        everywhere = jnp.ones(views.features.shape[:3])
        loss, terms = self.total(
            ce=soft_cross_entropy(views.logits, targets).mean(),
            cross=soft_cross_entropy(views.crossed, targets).mean(),
            feature=feature_distance(views.features, views.teacher_features, everywhere),
            output=divergence.mean(),
        )
        return loss, {"accuracy": (views.logits.argmax(-1) == batch["label"]).mean(), **terms}
