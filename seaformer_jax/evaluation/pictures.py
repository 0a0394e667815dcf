"""Draws class maps: colour masks, overlays, heat maps and legends."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_OPACITY = 0.5  # Opacity of colours over an image, as in mmseg's `show_result`.
_LINE = 26  # Height of a legend's line in pixels.


def overlay(image: np.ndarray, classes: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """Blends the classes' colours into an image. Pixels without a class (255) keep their own colours.

    Args:
        image: Image, uint8 [H, W, 3].
        classes: Class map, uint8 [H, W].
        palette: Colour of each class.
    Returns:
        uint8 [H, W, 3].
    """
    # A table of all 256 values, so that 255 can be looked up too; its opacity is 0.
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    opacity = np.where(classes < len(palette), np.float32(_OPACITY), np.float32(0))[..., None]
    return np.round(image * (1 - opacity) + table[classes] * opacity).astype(np.uint8)


def heat_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends a heat map into an image.

    The heat map is scaled to 0..255, upsampled bilinearly and coloured from blue to red. The papers' appendix shows
    such maps of the channel mean of the last attention output.

    Args:
        image: Image, uint8 [H, W, 3].
        heat: Heat map, float [h, w].
    Returns:
        uint8 [H, W, 3].
    """
    # A constant map has no range to scale to and is drawn as 0.
    low, high = float(heat.min()), float(heat.max())
    scaled = np.round(255 * (heat - low) / (high - low)) if high > low else np.zeros(heat.shape)
    height, width = image.shape[:2]
    upsampled = Image.fromarray(scaled.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps["jet"](np.asarray(upsampled), bytes=True)[..., :3]
    return np.round(image * (1 - _OPACITY) + colours * _OPACITY).astype(np.uint8)


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, titles: Sequence[str], colours: Sequence[Colour]
) -> np.ndarray:
    """Draws boxes with titles over an image; earlier boxes come on top.

    Args:
        image: Image, uint8 [H, W, 3].
        boxes: (x1, y1, x2, y2) in pixels, [n, 4].
        titles: Text of each box.
        colours: Colour of each box.
    Returns:
        uint8 [H, W, 3].
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    # Lines and letters grow with the image, so that they can be seen when it is shown smaller.
    line = max(round(max(image.shape) / 400), 1)
    font = ImageFont.load_default(max(max(image.shape) / 50, 10))
    for box, title, colour in reversed(list(zip(boxes.tolist(), titles, colours, strict=True))):
        draw.rectangle(box, outline=colour, width=line)
        # The title stands above the box, or inside it at the upper edge of the image.
        corner = (box[0], max(box[1], font.size + 2 * line))
        draw.rectangle(draw.textbbox(corner, title, font=font, anchor="lb"), fill=colour)
        dark = sum(colour) < 384
        draw.text(corner, title, fill="white" if dark else "black", font=font, anchor="lb")
    return np.asarray(picture)


def distinct_names(paths: Sequence[epath.Path]) -> list[str]:
    """Returns the file names without extension; a name that is taken gets the first free suffix of -2, -3, ..."""
    taken, result = set(), []
    for path in paths:
        number, candidate = 1, path.stem
        while candidate in taken:
            number += 1
            candidate = f"{path.stem}-{number}"
        taken.add(candidate)
        result.append(candidate)
    return result


def save(picture: np.ndarray, path: epath.Path) -> None:
    """Writes a picture, uint8 [H, W, 3], as PNG."""
    _write(Image.fromarray(picture), path)


def save_mask(classes: np.ndarray, palette: Sequence[Colour], path: epath.Path) -> None:
    """Writes a class map, uint8 [H, W], as PNG: pixel values are the classes, colours those of the palette."""
    mask = Image.fromarray(classes)
    mask.putpalette([channel for colour in palette for channel in colour])  # Also sets the mode to "P".
    _write(mask, path)


def save_legend(entries: Sequence[tuple[str, Colour]], path: epath.Path) -> None:
    """Writes a PNG with one line per entry (name, colour)."""
    font = ImageFont.load_default(_LINE * 0.6)
    width = max((font.getlength(name) for name, _ in entries), default=0)
    picture = Image.new("RGB", (int(width) + 2 * _LINE + 12, _LINE * len(entries) + 8), "white")
    draw = ImageDraw.Draw(picture)
    for line, (name, colour) in enumerate(entries):
        top = 4 + line * _LINE
        draw.rectangle((4, top + 3, 4 + _LINE, top + _LINE - 3), fill=colour, outline="black")
        draw.text((12 + _LINE, top + _LINE / 2), name, fill="black", font=font, anchor="lm")
    _write(picture, path)


def _write(picture: Image.Image, path: epath.Path) -> None:
    with path.open("wb") as file:
        picture.save(file, "PNG")
