"""Predicts labels with probabilities for image files."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data import images
from seaformer_jax.evaluation import top_classes

_BATCH = 16


def classify(
    model: nnx.Module,
    paths: Sequence[epath.Path],
    folder: epath.Path,
    transform: Callable[[dict], dict],
    normalize: Callable[[jax.Array], jax.Array],
    class_names: Sequence[str],
) -> int:
    """Writes what the model predicts for every image, see `top_classes.write`.

    Images that cannot be read are logged and left out.

    Args:
        model: Classifier.
        paths: Paths of the images.
        folder: Folder to write into.
        transform: Evaluation transform of an element {"image": uint8 [H, W, 3], "label"}.
        normalize: Turns images uint8 [B, S, S, 3] into the model's input.
        class_names: Names of the classes, in the order of the logits.
    Returns:
        The number of images that were classified.
    Raises:
        UserError: None of the images can be read.
    """
    graphdef, state = nnx.split(model)
    probabilities = jax.jit(
        lambda state, batch: jax.nn.softmax(nnx.merge(graphdef, state)(normalize(batch), train=False))
    )

    def predicted() -> Iterator[top_classes.Predicted]:
        # The transform takes elements of a data set, which have a label; 0 is never used.
        elements = (
            (path, transform({"image": image, "label": 0})["image"]) for path, image in images.readable(paths)
        )
        while batch := list(itertools.islice(elements, _BATCH)):
            chunk, crops = zip(*batch, strict=True)
            padded = np.stack(
                [*crops, *[crops[0]] * (_BATCH - len(crops))]
            )  # One shape needs one compilation.
            yield from zip(chunk, crops, np.asarray(probabilities(state, padded)), strict=False)

    return top_classes.write(predicted(), folder, class_names)
