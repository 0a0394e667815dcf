"""Small data sets in COCO's format, for tests."""

import copy
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

IMAGES = [
    {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
    {"id": 3, "file_name": "b.png", "width": 40, "height": 60},
    {"id": 5, "file_name": "c.png", "width": 60, "height": 40},
]
CATEGORIES = [{"id": 9, "name": "ant"}, {"id": 2, "name": "cat"}, {"id": 4, "name": "bee"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 3, "category_id": 9, "bbox": [5, 6, 20, 30], "area": 500, "iscrowd": 0},
    {"id": 2, "image_id": 7, "category_id": 2, "bbox": [1.5, 2, 30, 20.5], "area": 600, "iscrowd": 0},
    {"id": 3, "image_id": 7, "category_id": 4, "bbox": [0, 0, 50, 40], "area": 900, "iscrowd": 1},
]


def content() -> dict[str, Any]:
    """Returns three images, two of which have boxes, and three classes whose ids are not in order."""
    return copy.deepcopy({"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS})


def write(root: pathlib.Path, record: Any, split: str = "train") -> pathlib.Path:
    """Writes the JSON file of a split and random images for it; returns the folder."""
    (root / "annotations").mkdir(exist_ok=True, parents=True)
    (root / "images" / split).mkdir(exist_ok=True, parents=True)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(record))
    rng = np.random.default_rng(0)
    for image in IMAGES:
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / split / image["file_name"])
    return root
