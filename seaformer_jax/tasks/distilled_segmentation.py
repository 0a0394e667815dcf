"""Distilled segmentation: the student sees a smaller image, the frozen teacher the whole one."""

import jax
from flax import nnx

from seaformer_jax.distillation_losses import class_shares, feature_distance, output_divergence
from seaformer_jax.losses import pixel_cross_entropy, soft_cross_entropy
from seaformer_jax.tasks.distillation import Distillation
from seaformer_jax.tasks.segmentation import Segmentation
from seaformer_jax.types import Batch


class DistilledSegmentation(Distillation, Segmentation):
    """Distilled segmentation; see `tasks.base.Task`.

    The student's logits are at 1/8 of the teacher's image, in training and in evaluation.
    """

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the weighted sum of the four `distillation_losses`; the metrics are the four terms and `accuracy`.

        The student's cross-entropy is taken at every pixel, as in plain training. The other terms are taken at 1/8 of
        the image, so no logits or features exist at its full size. The sums of `ce`, `cross` and `output` have the
        same divisor (`task.loss_divisor`).
        """
        views = self.views(model, batch, self.training_images(batch), key)
        labels = batch["label"]
        own = pixel_cross_entropy(views.logits, labels)
        # A cell is the stride x stride pixels behind one logit. It counts by the share of its pixels with a label.
        stride = labels.shape[1] // views.logits.shape[1]
        classes = class_shares(labels, self.num_classes, stride)
        shares = classes.sum(-1)
        divergence = output_divergence(
            views.logits, views.teacher_logits, self.config.distillation.temperature
        )
        # Terms per cell are multiplied by the cell's area, because the divisor counts pixels.
        divisor, area = self.divisor(own, batch), stride**2
        loss, terms = self.total(
            ce=own.loss / divisor,
            cross=area * soft_cross_entropy(views.crossed, classes).sum() / divisor,
            feature=feature_distance(views.features, views.teacher_features, shares),
            output=area * (shares * divergence).sum() / divisor,
        )
        return loss, {"accuracy": own.accuracy(), **terms}

    def model_input(self, images: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the smaller images of the student and their sizes."""
        return self.shrink_padded(images, sizes)
