"""Pictures of class maps: colour masks, overlays, heat maps, legends."""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_OPACITY = 0.5  # Of colours over an image, as mmseg's `show_result`.
_LINE = 26  # Pixels of a legend's line.


def overlay(image: np.ndarray, classes: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """Blends the classes' colours into an image; pixels that are no class (255) keep their own colours.

    Args:
        image: uint8 [H, W, 3].
        classes: uint8 [H, W].
        palette: colour of each class.
    Returns:
        uint8 [H, W, 3].
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    opacity = np.where(classes < len(palette), np.float32(_OPACITY), np.float32(0))[..., None]
    return np.round(image * (1 - opacity) + table[classes] * opacity).astype(np.uint8)


def heat_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends a heat map into an image: scaled to 0..255, upsampled bilinearly, coloured from blue to red.

    The papers' appendix has such maps of the last attention output's channel mean.

    Args:
        image: uint8 [H, W, 3].
        heat: float [h, w].
    Returns:
        uint8 [H, W, 3].
    """
    low, high = float(heat.min()), float(heat.max())
    scaled = np.round(255 * (heat - low) / (high - low)) if high > low else np.zeros(heat.shape)
    height, width = image.shape[:2]
    upsampled = Image.fromarray(scaled.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps["jet"](np.asarray(upsampled), bytes=True)[..., :3]
    return np.round(image * (1 - _OPACITY) + colours * _OPACITY).astype(np.uint8)


def save(picture: np.ndarray, path: pathlib.Path) -> None:
    """Writes uint8 [H, W, 3] as PNG."""
    Image.fromarray(picture).save(path)


def save_mask(classes: np.ndarray, palette: Sequence[Colour], path: pathlib.Path) -> None:
    """Writes uint8 [H, W] as PNG whose pixel values are the classes and whose colours those of the palette."""
    mask = Image.fromarray(classes)
    mask.putpalette([channel for colour in palette for channel in colour])  # Makes the mode "P".
    mask.save(path)


def save_legend(entries: Sequence[tuple[str, Colour]], path: pathlib.Path) -> None:
    """Writes a PNG with one line per (name, colour)."""
    font = ImageFont.load_default(_LINE * 0.6)
    width = max((font.getlength(name) for name, _ in entries), default=0)
    picture = Image.new("RGB", (int(width) + 2 * _LINE + 12, _LINE * len(entries) + 8), "white")
    draw = ImageDraw.Draw(picture)
    for line, (name, colour) in enumerate(entries):
        top = 4 + line * _LINE
        draw.rectangle((4, top + 3, 4 + _LINE, top + _LINE - 3), fill=colour, outline="black")
        draw.text((12 + _LINE, top + _LINE / 2), name, fill="black", font=font, anchor="lm")
    picture.save(path)
