"""Readers of the folder layouts of segmentation data sets; they find the mask of each image."""

import os
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging
from etils import epath

from seaformer_jax import errors, paths
from seaformer_jax.data import files, images
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.data.segmentation import label_sets, masks

_FOLDER_KEYS = "data.root (or data.images and data.annotations if data.source is pairs)"
_SPLIT_KEYS = "data.root, data.train_split or data.val_split"


class MaskedImages:
    """A source of image files with one mask file each.

    Args:
        root: Folder that the paths are relative to.
        image_paths: Paths of the images, relative to `root`.
        mask_paths: Paths of their masks, in the same order, relative to `root`.
        labels: Encoding of the masks.
    """

    def __init__(
        self, root: epath.Path, image_paths: Sequence[str], mask_paths: Sequence[str], labels: LabelSpec
    ):
        self.labels = labels
        self._root = root
        # Paths are kept as bytes in one array to save memory, as in `classification.sources.ImageFolder`.
        self._paths = np.array(
            [[os.fsencode(p) for p in pair] for pair in zip(image_paths, mask_paths, strict=True)]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict:
        image, mask = (self._root / os.fsdecode(path) for path in self._paths[index])
        return decode_pair(image, mask, str(image), str(mask), self.labels.encode)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (height, width) of an image from the header of its file."""
        path = self._root / os.fsdecode(self._paths[index, 0])
        return masks.image_size(path, str(path))


def decode_pair(
    image: bytes | os.PathLike,
    mask: bytes | os.PathLike,
    image_name: str,
    mask_name: str,
    encode: Callable[[np.ndarray, str], np.ndarray],
) -> dict:
    """Decodes an image and its mask; `encode` turns the values of the mask into classes.

    Args:
        image: The bytes of the image file, or its path.
        mask: The bytes of the mask file, or its path.
        image_name: Name of the image in error messages.
        mask_name: Name of the mask in error messages.
        encode: Takes the values of the mask and its name; returns classes, as `LabelSpec.encode` does.

    Returns:
        {"image": uint8 [height, width, 3], "label": uint8 [height, width]}.

    Raises:
        UserError: Image and mask differ in size, the mask is encoded wrongly, or a file cannot be read.
        CorruptImageError: One of them cannot be decoded.
    """
    pixels, raw = images.decode(image, image_name), masks.decode(mask, mask_name)
    if raw.shape[:2] != pixels.shape[:2]:
        height, width = raw.shape[:2]
        raise errors.UserError(
            f"{mask_name}: the mask is {width} x {height} pixels, but its image {image_name} is "
            f"{pixels.shape[1]} x {pixels.shape[0]}; they must be equal"
        )
    return {"image": pixels, "label": encode(raw, mask_name)}


def pairs(
    root: str | os.PathLike,
    split: str,
    labels: LabelSpec,
    image_folder: str = "images",
    mask_folder: str = "annotations",
) -> MaskedImages:
    """Opens `<root>/<image_folder>/<split>/**/x.jpg` and `<root>/<mask_folder>/<split>/**/x.png`.

    This is the layout of ADE20K, of CamVid in SegNet's version and of many private data sets.

    Args:
        root: `data.root`.
        split: Name of the split's folder.
        labels: Encoding of the masks.
        image_folder: Name of the folder of images.
        mask_folder: Name of the folder of masks.

    Raises:
        UserError: A folder is missing or empty, or an image has no mask.
    """
    root = files.root_folder(root, f"{image_folder}/{split}/*.jpg and {mask_folder}/{split}/*.png")
    found = _images_of_split(root, image_folder, split)
    # Without this check, a missing folder would be reported as one missing mask per image.
    files.subfolder(files.subfolder(root, mask_folder, _FOLDER_KEYS), split, _SPLIT_KEYS)
    names = [os.path.splitext(path)[0] for path in found]
    return _masked(
        root,
        [os.path.join(image_folder, split, path) for path in found],
        [os.path.join(mask_folder, split, f"{name}.png") for name in names],
        labels,
    )


def cityscapes(root: str | os.PathLike, split: str) -> MaskedImages:
    """Opens `leftImg8bit/<split>/<city>/x_leftImg8bit.png` and the masks of `gtFine`.

    If every image of the split has a mask `x_gtFine_labelTrainIds.png`, these are read, as in the official code.
    Otherwise the masks are `x_gtFine_labelIds.png`. The log says which.

    Args:
        root: `data.root`.
        split: Name of the split's folder.

    Raises:
        UserError: A folder is missing or empty, or an image has no mask.
    """
    # 1. The images.
    root = files.root_folder(root, f"leftImg8bit/{split}/<city>/*_leftImg8bit.png and gtFine")
    suffix = "_leftImg8bit.png"
    found = _images_of_split(root, "leftImg8bit", split)
    found = [path.removesuffix(suffix) for path in found if path.endswith(suffix)]
    if not found:
        raise errors.UserError(
            f"{root / 'leftImg8bit' / split}: no file ends in {suffix}; the layout of Cityscapes is expected"
        )
    # 2. The masks: encoded as train ids if all of them exist, else as raw ids.
    files.subfolder(files.subfolder(root, "gtFine", "data.root"), split, _SPLIT_KEYS)
    pictures = [os.path.join("leftImg8bit", split, name + suffix) for name in found]
    train_ids, ids = (
        [os.path.join("gtFine", split, f"{name}_gtFine_{kind}.png") for name in found]
        for kind in ("labelTrainIds", "labelIds")
    )
    if not _missing(root, train_ids):
        logging.info("Cityscapes %s: masks from *_labelTrainIds.png", split)
        return MaskedImages(root, pictures, train_ids, label_sets.cityscapes())
    logging.info("Cityscapes %s: masks from *_labelIds.png", split)
    return _masked(root, pictures, ids, label_sets.cityscapes_ids())


def pascal_context(root: str | os.PathLike, split: str, labels: LabelSpec) -> MaskedImages:
    """Opens the images named in `ImageSets/SegmentationContext/<split>.txt`.

    Images are in `JPEGImages`, masks in `SegmentationClassContext`. The root is `VOCdevkit/VOC2010`.

    Args:
        root: `data.root`.
        split: Name of the list file.
        labels: Encoding of the masks.

    Raises:
        UserError: The list is missing or empty, or one of its images or masks is missing.
    """
    root = files.root_folder(root, "JPEGImages, SegmentationClassContext and ImageSets/SegmentationContext")
    names = _listed(root, os.path.join("ImageSets", "SegmentationContext", f"{split}.txt"))
    pictures = [os.path.join("JPEGImages", f"{name}.jpg") for name in names]
    _check_present(root, pictures, "listed images")
    return _masked(
        root, pictures, [os.path.join("SegmentationClassContext", f"{n}.png") for n in names], labels
    )


def coco_stuff(root: str | os.PathLike, split: str) -> MaskedImages:
    """Opens COCO-Stuff-10K as mmseg converts it, for the names in `imageLists/train.txt` or `test.txt`.

    The files are `images/<split>/x.jpg` and `annotations/<split>/x_labelTrainIds.png`.

    Args:
        root: `data.root`.
        split: "train2014" or "test2014".

    Raises:
        UserError: The list is missing or empty, or one of its images or masks is missing.
    """
    root = files.root_folder(root, f"images/{split}, annotations/{split} and imageLists")
    names = _listed(root, os.path.join("imageLists", f"{split.removesuffix('2014')}.txt"))
    pictures = [os.path.join("images", split, f"{name}.jpg") for name in names]
    _check_present(root, pictures, "listed images")
    annotations = [os.path.join("annotations", split, f"{name}_labelTrainIds.png") for name in names]
    return _masked(root, pictures, annotations, label_sets.coco_stuff())


def _images_of_split(root: epath.Path, folder: str, split: str) -> list[str]:
    """Lists the images below `root/folder/split`, relative to it; UserError if there are none."""
    path = files.subfolder(files.subfolder(root, folder, _FOLDER_KEYS), split, _SPLIT_KEYS)
    found = files.image_files(path)
    if not found:
        raise errors.UserError(
            f"{path}: no image (found {files.listing(path)}); add files that end in "
            f"{', '.join(images.IMAGE_EXTENSIONS)}"
        )
    return found


def _listed(root: epath.Path, path: str) -> list[str]:
    """Reads the names in a list file, one per line."""
    try:
        names = (root / path).read_text().split()
    except OSError as error:
        found = files.listing(root)
        raise errors.UserError(
            f"{root / path}: cannot be read: {errors.reason(error)}; {root} holds {found}; correct {_SPLIT_KEYS}"
        ) from error
    if not names:
        raise errors.UserError(f"{root / path}: the list is empty; expected one image name per line")
    return names


def _masked(root: epath.Path, pictures: list[str], annotations: list[str], labels: LabelSpec) -> MaskedImages:
    """Opens images and masks; UserError if a mask is missing."""
    _check_present(root, annotations, "masks")
    return MaskedImages(root, pictures, annotations, labels)


def _check_present(root: epath.Path, paths: list[str], what: str) -> None:
    """Raises UserError if one of the files does not exist."""
    if missing := _missing(root, paths):
        raise errors.UserError(
            f"{root}: {len(missing)} of {len(paths)} {what} are missing ({files.some(missing)}); add them, or "
            "remove their images"
        )


def _missing(root: epath.Path, wanted: list[str]) -> list[str]:
    """Returns the paths that do not exist.

    Each folder is listed once: asking a network file system about every single file takes minutes.
    """
    folders = {os.path.dirname(path) for path in wanted}
    present = {
        os.path.join(folder, name)
        for folder in folders
        if (root / folder).is_dir()
        for name in paths.entries(root / folder)[1]
    }
    return [path for path in wanted if path not in present]
