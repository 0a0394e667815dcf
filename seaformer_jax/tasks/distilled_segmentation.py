"""Segmentation by a student on a smaller image, taught by a frozen model on the whole one."""

import jax
from flax import nnx

from seaformer_jax.distillation_losses import class_shares, feature_distance, output_divergence
from seaformer_jax.losses import pixel_cross_entropy, soft_cross_entropy
from seaformer_jax.tasks.distillation import Distillation
from seaformer_jax.tasks.segmentation import Segmentation
from seaformer_jax.types import Batch


class DistilledSegmentation(Distillation, Segmentation):
    """See `tasks.base.Task`. Logits come at 1/8 of the teacher's image, in training and in evaluation."""

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The four terms of `distillation_losses`, each divided as the cross-entropy is; accuracy.

        The student's cross-entropy is that of every pixel, as in plain training; the other terms are taken at 1/8 of
        the image. No logits or features exist at its full size.
        """
        views = self.views(model, batch, self.training_images(batch), key)
        labels = batch["label"]
        own = pixel_cross_entropy(views.logits, labels)
        stride = labels.shape[1] // views.logits.shape[1]
        classes = class_shares(labels, self.num_classes, stride)
        shares = classes.sum(-1)
        divergence = output_divergence(
            views.logits, views.teacher_logits, self.config.distillation.temperature
        )
        divisor, area = self.divisor(own, batch), stride**2
        loss, terms = self.total(
            ce=own.loss / divisor,
            cross=area * soft_cross_entropy(views.crossed, classes).sum() / divisor,
            feature=feature_distance(views.features, views.teacher_features, shares),
            output=area * (shares * divergence).sum() / divisor,
        )
        return loss, {"accuracy": own.accuracy(), **terms}

    def predict_classes(self, model: nnx.Module, batch: Batch) -> jax.Array:
        return super().predict_classes(lambda images: model(self.shrink(images)), batch)
