"""Runs a bundle on images, with its runtime alone: neither JAX nor PyTorch is imported.

    python -m convert.run BUNDLE --images 'photos/*.jpg' --out predictions
    python -m convert.run BUNDLE --validation camvid/images/val

The first writes the files that `seaformer_jax.predict` writes, the second prints top-1 accuracy, mIoU or AP.
ExecuTorch is the exception to the first line: its Python runtime is part of PyTorch.
"""

from collections.abc import Callable, Sequence

import numpy as np
from absl import flags, logging
from etils import epath

from convert import bundle_folder
from convert.bundle import Bundle
from convert.export.accuracy import Validation
from convert.export.average_precision import BoxValidation
from convert.export.preparation import Preparation
from convert.export.quiet import quiet
from convert.labels import boxes
from convert.labels.class_map import MAX_CLASSES, classes
from convert.runtimes import registry
from seaformer_jax import command
from seaformer_jax.data import files, images
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.data.segmentation.augment import resize_label
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import box_lists, class_maps, top_classes

_IMAGES = command.define_path("images", "An image, a folder or a quoted glob pattern.")
_OUT = command.define_path("out", "Folder for the predictions.")
_VALIDATION = command.define_path(
    "validation",
    "Folder of labelled images: <class>/*.jpg; images/val beside annotations/val, or for detectors beside "
    "annotations/instances_val.json.",
)
_LEAST_SCORE = flags.DEFINE_float(
    "least-score", 0.3, "Detection: least score of the boxes that are drawn and listed.", 0.0, 1.0
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime.", lower_bound=1)


def main(folders: Sequence[str]) -> int:
    """Predicts and scores as the flags say; returns the exit status."""
    if len(folders) != 1:
        raise UserError(f"found {len(folders)} bundles; expected one folder that convert.export wrote")
    if not (_IMAGES.value or _VALIDATION.value) or bool(_IMAGES.value) != bool(_OUT.value):
        raise UserError("give --images with --out, to predict, or --validation, to score, or all three")
    with bundle_folder.reading(folders) as (bundle,):
        return _run(bundle)


def _run(bundle: Bundle) -> int:
    labels = LabelSpec(bundle.class_names, bundle.palette, **bundle.masks)
    preparation = Preparation.of_bundle(bundle)
    if bundle.task == "segmentation" and labels.num_classes > MAX_CLASSES:
        raise UserError(
            f"{bundle.folder} has {labels.num_classes} classes; masks have one byte, at most {MAX_CLASSES}; take the "
            "logits of the model, as its README shows"
        )
    # Everything that can be wrong with the flags comes before the model is loaded.
    paths = files.matching_images(_IMAGES.value) if _IMAGES.value else []
    if _IMAGES.value and not paths:
        raise UserError(f"--images {_IMAGES.value} matches no image ({', '.join(images.IMAGE_EXTENSIONS)})")
    validation = None
    if _VALIDATION.value:
        about = _VALIDATION.value, labels, preparation
        validation = BoxValidation(*about, bundle.decoding) if bundle.decoding else Validation(*about)
    out = command.output_folder("out", _OUT.value) if _OUT.value else None
    with quiet():
        network = registry.load(bundle, _THREADS.value)
    if out:
        count = predict(bundle, lambda image: network(preparation.exported(image)), preparation, paths, out)
        logging.info("%d of %d images, predictions in %s", count, len(paths), out)
    if validation:
        score = validation.score(lambda image: network(preparation.exported(image)))
        logging.info("%s %.2f %% on %d images", validation.metric, score, len(validation))
    return 0


def predict(
    bundle: Bundle,
    network: Callable[[np.ndarray], np.ndarray],
    preparation: Preparation,
    paths: Sequence[epath.Path],
    out: epath.Path,
) -> int:
    """Writes the predictions for image files; returns the number of images that could be read.

    The class map of an image has the size of the model's input; it is resized to the size of the image by repeating
    pixels.

    Args:
        bundle: The model.
        network: Turns an image of the input's size, uint8 [H, W, 3], into the model's output for it.
        preparation: Preparation of the model's input.
        paths: Paths of the images.
        out: Folder to write into.
    """
    if bundle.task == "segmentation":
        return class_maps.write(
            paths,
            out,
            lambda image: resize_label(
                classes(network(preparation.fit(image)), bundle.input_size), image.shape[:2]
            ),
            bundle.class_names,
            bundle.palette,
        )
    if bundle.task == "detection":
        return box_lists.write(
            paths, out, lambda image: _boxes(bundle, network, preparation, image), bundle.class_names
        )
    fitted = ((path, preparation.fit(image)) for path, image in images.readable(paths))
    return top_classes.write(
        ((path, crop, _softmax(network(crop)[0])) for path, crop in fitted), out, bundle.class_names
    )


def _boxes(
    bundle: Bundle,
    network: Callable[[np.ndarray], np.ndarray],
    preparation: Preparation,
    image: np.ndarray,
) -> boxes.Boxes:
    """Returns the boxes in an image uint8 [h, w, 3] whose scores reach --least-score."""
    decoding = boxes.Decoding(bundle.input_size, **bundle.decoding)
    (head,) = network(preparation.fit(image))
    found = boxes.decode(head, decoding, preparation.photograph(image))
    return boxes.Boxes(*(values[found.scores >= _LEAST_SCORE.value] for values in found))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


if __name__ == "__main__":
    command.run(main, operands="BUNDLE")
