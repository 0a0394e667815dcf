"""Shapes: a procedural data set of textured geometric objects on textured backgrounds.

Every image holds one main object, which gives the class, and up to two much smaller objects of any class. Image
i of a split depends on (seed, split, i) alone. The design is this project's own. The data set needs no download,
and the same images have labels, masks and boxes, so every task can be tried on it.
"""

import numpy as np
from PIL import Image

from seaformer_jax import errors
from seaformer_jax.data import labels

_SPLITS = ("train", "val")
# Range of the main object's diameter, as a share of the image's side.
_MAIN_DIAMETER = (0.35, 0.8)
# Range of a small object's diameter, as a share of the main object's. A small object then covers less than 0.6 of
# the main object's area, whatever the two classes are.
_SMALL_DIAMETER = (0.3, 0.45)
# Least distance between the mean colours of object and ground in the RGB cube [0, 1]^3.
_CONTRAST = 0.6


def _convex(sides: int):
    """Returns the distance function of a regular polygon with circumradius 1.

    The distance to a convex polygon is taken as the largest distance to the line through one of its sides.
    """
    angles = np.pi / sides + 2 * np.pi * np.arange(sides) / sides
    normals = [(np.float32(np.cos(a)), np.float32(np.sin(a))) for a in angles]
    inradius = np.cos(np.pi / sides)
    return lambda u, v: np.max([x * u + y * v for x, y in normals], axis=0) - inradius


def _star(u, v):
    """Returns the distance to a star with five tips at radius 1 and five notches at radius 0.42."""
    # The star is symmetric: fold every direction into the tenth from a tip (angle 0) to a notch (angle pi / 5).
    angle = np.abs((np.arctan2(v, u) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(u, v)
    # The result is the signed distance to the straight edge from the tip (1, 0) to the notch.
    notch = 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    edge = notch - (1, 0)
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return radius * (normal[0] * np.cos(angle) + normal[1] * np.sin(angle)) - normal[0]


def _cross(u, v):
    """Returns the distance to a plus sign: two bars of half length 0.95 and half width 0.31."""
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 0.95, v - 0.31), np.maximum(u - 0.31, v - 0.95))


# Distance of a point (u, v) to the outline in units of the circumradius, negative inside. The diamond is narrow
# because objects are rotated at random: a rotated square would be a diamond with equal axes.
_OUTLINES = {
    "circle": lambda u, v: np.hypot(u, v) - 1,
    "square": _convex(4),
    "triangle": _convex(3),
    "star": _star,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.78) - 0.22,
    "cross": _cross,
    "diamond": lambda u, v: (np.abs(u) + np.abs(v) / 0.55 - 1) / np.hypot(1, 1 / 0.55),
    "hexagon": _convex(6),
}
CLASS_NAMES = tuple(_OUTLINES)


class Shapes:
    """The data set as a source: `source[i] -> {"image": uint8 [S, S, 3], "label": int}`.

    Attributes:
        labels: `LabelSpec` with the names of the eight classes.
    """

    labels = labels.LabelSpec(CLASS_NAMES)

    def __init__(self, split: str, size: int, image_size: int = 96, seed: int = 0):
        """Describes the split; images are rendered when they are read.

        Args:
            split: "train" or "val".
            size: Number of images in the split.
            image_size: Side S of the images in pixels, at least 32.
            seed: Seed of the whole data set.

        Raises:
            UserError: The split is unknown, or one of the sizes is too small.
        """
        if split not in _SPLITS:
            raise errors.UserError(f"shapes has no split {split!r}; expected one of {', '.join(_SPLITS)}")
        if size < 1 or image_size < 32:  # At 32 pixels, the smallest star covers one pixel.
            raise errors.UserError(
                f"shapes: size {size}, image size {image_size}; expected at least 1 image of at least 32 pixels"
            )
        self._key = (seed, _SPLITS.index(split))
        self._size = size
        self._side = image_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict:
        element = self.render(index)
        return {"image": element["image"], "label": element["label"]}

    def render(self, index: int) -> dict:
        """Renders image `index` with all its annotations.

        Returns:
            image: uint8 [S, S, 3].
            label: int, the class of the main object.
            mask: uint8 [S, S]; 0 for the ground, 1 + class inside an object.
            boxes: float32 [n, 4]; (x0, y0, x1, y1) in pixels around the mask of each object, x1 and y1
                exclusive; the main object comes first.
            box_labels: int64 [n], the classes of the objects.

        Raises:
            IndexError: The split has no such image.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"index {index} of {self._size} images")
        # The order of the draws below defines the data set: a change to it changes every image.
        rng = np.random.default_rng((*self._key, index))
        # 1. The textured ground.
        ground = rng.random(3, np.float32)
        canvas = _texture(rng, self._side, self._side, ground)
        # 2. The objects, painted into the canvas and the mask.
        mask = np.zeros([self._side, self._side], np.uint8)
        objects = [_paint(rng, canvas, mask, place, ground) for place in _places(rng, self._side)]
        boxes, box_labels = zip(*objects, strict=True)
        # 3. Noise of a random strength, the same in all channels, then rounding to 8 bits.
        sensor_noise = rng.standard_normal(mask.shape, np.float32)
        canvas += rng.uniform(0, 0.04) * sensor_noise[..., None]
        image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
        return {
            "image": image,
            "label": box_labels[0],
            "mask": mask,
            "boxes": np.array(boxes, np.float32),
            "box_labels": np.array(box_labels),
        }


def _places(rng: np.random.Generator, side: int) -> list[tuple[float, float, float]]:
    """Draws the positions of the main object and of 0 to 2 small ones that do not touch any other object.

    Returns:
        (x, y, radius) of each object in pixels, the main object first.
    """
    radius = rng.uniform(*_MAIN_DIAMETER) * side / 2
    places = [(*rng.uniform(radius, side - radius, 2), radius)]
    for _ in range(rng.integers(3)):
        small = rng.uniform(*_SMALL_DIAMETER) * radius
        x, y = rng.uniform(small, side - small, 2)
        # A small object that is less than a pixel away from another one is dropped, not drawn again.
        if all(np.hypot(x - x2, y - y2) > small + r2 + 1 for x2, y2, r2 in places):
            places.append((x, y, small))
    return places


def _paint(rng, canvas: np.ndarray, mask: np.ndarray, place, ground: np.ndarray):
    """Paints one object into canvas [S, S, 3] and mask [S, S]; returns its box and class."""
    # 1. Only the window around the object is computed.
    x, y, radius = place
    x0, y0 = int(x - radius), int(y - radius)
    window = np.s_[y0 : int(y + radius) + 1, x0 : int(x + radius) + 1]
    kind = int(rng.integers(len(CLASS_NAMES)))
    # 2. Positions relative to the object's centre, measured from pixel centres, then rotated and scaled.
    height, width = mask[window].shape
    right = np.arange(x0, x0 + width, dtype=np.float32) + np.float32(0.5 - x)
    down = np.arange(y0, y0 + height, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    cos, sin = np.float32(_unit(rng) / radius)
    outline = _OUTLINES[CLASS_NAMES[kind]]
    distance = radius * outline(cos * right + sin * down, cos * down - sin * right)
    texture = _texture(rng, height, width, _contrasting(rng, ground))
    # 3. The opacity falls from 1 to 0 across one pixel at the outline, which makes smooth edges.
    canvas[window] += np.clip(0.5 - distance, 0, 1)[..., None] * (texture - canvas[window])
    # 4. The mask and the box hold the pixels whose centre is inside the outline.
    inside = distance < 0
    mask[window][inside] = 1 + kind
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    return (x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1), kind


def _contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Draws a colour [3] at a distance of at least _CONTRAST from `ground` [3].

    The result is the first of eight draws that is far enough, or the farthest of the eight if none is.
    """
    candidates = rng.random((8, 3), np.float32)
    distances = np.linalg.norm(candidates - ground, axis=1)
    good = distances >= _CONTRAST
    return candidates[np.argmax(good) if good.any() else np.argmax(distances)]


def _texture(rng: np.random.Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """Draws a texture [height, width, 3]: a mean colour plus a pattern times a random tint.

    Patterns lie in [-1, 1]; a gradient reaches up to 1.41 in two corners.
    """
    tint = rng.uniform(-0.2, 0.2, 3).astype(np.float32)
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))](rng, height, width)
    return colour + pattern[..., None] * tint


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws smooth noise: a coarse random grid, interpolated bilinearly."""
    cells = int(rng.integers(3, 12))
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a linear ramp in a random direction."""
    cos, sin = _unit(rng)
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(cos)
    return across + np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(sin)


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a sine wave in a random direction."""
    return np.sin(np.float32(rng.uniform(6, 30)) * _gradient(rng, height, width))


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws the sign of the product of two waves: checks in the shape of parallelograms."""
    return np.sign(_stripes(rng, height, width) * _stripes(rng, height, width))


def _unit(rng: np.random.Generator) -> np.ndarray:
    """Draws a unit vector [2]: the cosine and sine of a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


_PATTERNS = (_noise, _gradient, _stripes, _checks)
