"""RandAugment as timm does it: `rand-m9-mstd0.5` and its relatives.

Cubuk et al. 2019 (https://arxiv.org/abs/1909.13719) with timm's additions, after
`seaformer-cls/timm/data/auto_augment.py`: `n` operations are drawn per image, each is applied with
probability 0.5, and its magnitude is normal around `m` with deviation `mstd`.

A level function turns a magnitude into the operation's argument; an operation takes the image, that argument
and the `Warp` with which the geometric ones resample and fill. A `share` is a magnitude divided by 10.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from seaformer_jax.data.classification.augment import resampling
from seaformer_jax.errors import UserError

PROBABILITY = 0.5  # That an operation, once drawn, is applied.
_UNIFORM_ABOVE = 100  # An mstd above this draws the magnitude uniformly from [0, m].


class Warp(NamedTuple):
    """How a geometric operation samples: Pillow's filter, and the colour outside the image (RGB, 0..255)."""

    resample: Image.Resampling
    fillcolor: tuple[int, int, int]


# --- Level functions: (share, rng) -> argument ---


def _none(share, rng):
    return None


def _signed(limit):
    return lambda share, rng: limit * share if rng.random() < 0.5 else -limit * share


def _truncated(limit):
    return lambda share, rng: int(limit * share)


def _falling(limit):
    return lambda share, rng: limit - int(limit * share)


def _factor(share, rng):
    return 0.1 + 1.8 * share  # Factor 1 changes nothing, so magnitude 5 is the mildest.


def _factor_increasing(share, rng):
    return max(0.1, 1 + _signed(0.9)(share, rng))


# --- Operations: (image, argument, warp) -> image ---


def _plain(function):
    return lambda image, _, warp: function(image)


def _enhance(kind):
    return lambda image, factor, warp: kind(image).enhance(factor)


def _affine(matrix):
    """An affine warp; `matrix(argument, width, height)` maps pixels of the result to pixels of the source."""
    return lambda image, argument, warp: image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix(argument, *image.size),
        warp.resample,
        fillcolor=warp.fillcolor,
    )


def _rotate(image, degrees, warp):
    return image.rotate(degrees, warp.resample, fillcolor=warp.fillcolor)


def _posterize(image, bits, warp):
    # Not ImageOps.posterize: it refuses the 0 bits that magnitudes below 2.5 ask for.
    mask = 0xFF & -(1 << max(0, 8 - bits))
    return image.point([value & mask for value in range(256)] * 3)


def _solarize(image, threshold, warp):
    return ImageOps.solarize(image, threshold)


def _solarize_add(image, added, warp):
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


class Op(NamedTuple):
    """One row of the table: the operation, its level function, that of `inc1`, and its weight under `w0`."""

    apply: Callable[[Image.Image, Any, Warp], Image.Image]
    level: Callable[[float, np.random.Generator], Any]
    level_increasing: Callable[[float, np.random.Generator], Any]
    weight: float


def _same(apply, level, weight):
    return Op(apply, level, level, weight)


# Without `inc1`, Posterize, Solarize and the four enhancements do not grow stronger with the magnitude: at 10
# they keep 4 bits, invert nothing and enhance by 1.9; at 0 they keep 0 bits, invert all and enhance by 0.1.
OPS = {
    "AutoContrast": _same(_plain(ImageOps.autocontrast), _none, 0.025),
    "Equalize": _same(_plain(ImageOps.equalize), _none, 0.005),
    "Invert": _same(_plain(ImageOps.invert), _none, 0.0),
    "Rotate": _same(_rotate, _signed(30), 0.3),  # Degrees, counter-clockwise.
    "Posterize": Op(_posterize, _truncated(4), _falling(4), 0.0),  # Bits kept per channel.
    "Solarize": Op(_solarize, _truncated(256), _falling(256), 0.005),  # Values from here on are inverted.
    "SolarizeAdd": _same(_solarize_add, _truncated(110), 0.005),  # Added to values below 128.
    "Color": Op(_enhance(ImageEnhance.Color), _factor, _factor_increasing, 0.025),
    "Contrast": Op(_enhance(ImageEnhance.Contrast), _factor, _factor_increasing, 0.005),
    "Brightness": Op(_enhance(ImageEnhance.Brightness), _factor, _factor_increasing, 0.005),
    "Sharpness": Op(_enhance(ImageEnhance.Sharpness), _factor, _factor_increasing, 0.025),
    "ShearX": _same(_affine(lambda k, w, h: (1, k, 0, 0, 1, 0)), _signed(0.3), 0.2),
    "ShearY": _same(_affine(lambda k, w, h: (1, 0, 0, k, 1, 0)), _signed(0.3), 0.2),
    # Shares of the width or height.
    "TranslateXRel": _same(_affine(lambda k, w, h: (1, 0, k * w, 0, 1, 0)), _signed(0.45), 0.1),
    "TranslateYRel": _same(_affine(lambda k, w, h: (1, 0, 0, 0, 1, k * h)), _signed(0.45), 0.1),
}
_OPS = tuple(OPS.values())
_WEIGHTS = np.array([op.weight for op in _OPS]) / sum(op.weight for op in _OPS)
_WEIGHTED = np.count_nonzero(_WEIGHTS)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """The policy: `policy(image, rng)` returns the augmented RGB Pillow image, of the same size.

    Attributes:
        magnitude: mean magnitude, `m`.
        layers: operations drawn per image, `n`.
        std: deviation of the magnitude, `mstd`; above 100 the magnitude is uniform in [0, m].
        limit: magnitudes are clipped to [0, limit], `mmax`.
        weighted: `w0`: operations are drawn with the weights of the table, without replacement; else
            uniformly and with replacement.
        increasing: `inc1`: the level functions whose severity grows with the magnitude.
        fill: colour outside the image after a geometric operation, RGB, 0..255.
        interpolation: `random` (per operation), `bilinear` or `bicubic`, for the geometric operations.
    """

    magnitude: int
    layers: int
    std: float
    limit: int
    weighted: bool
    increasing: bool
    fill: tuple[int, int, int]
    interpolation: str = "random"

    @classmethod
    def parse(cls, config: str, fill: tuple[int, int, int], interpolation: str = "random") -> "RandAugment":
        """Reads timm's notation: `rand`, then any of `m9`, `n2`, `mstd0.5`, `mmax10`, `inc1`, `w0`.

        The defaults are m10, n2, mstd0, mmax10, uniform weights, not increasing. timm ignores a section
        without a number and reads `inc0` as `inc1`; here both are errors.

        Raises:
            UserError: the string does not start with `rand`, a section is unknown, repeated or malformed, or
                `n` asks `w0` for more operations than have a weight.
        """
        values = _sections(config)
        policy = cls(
            magnitude=int(values.get("m", 10)),
            layers=int(values.get("n", 2)),
            std=float(values.get("mstd", 0)),
            limit=int(values.get("mmax", 10)),
            weighted="w" in values,
            increasing="inc" in values,
            fill=fill,
            interpolation=interpolation,
        )
        if policy.weighted and policy.layers > _WEIGHTED:
            raise UserError(f"RandAugment {config!r} draws {policy.layers} operations; w0 has {_WEIGHTED}.")
        return policy

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for op in self._draw(rng):
            if rng.random() < PROBABILITY:
                share = self._magnitude(rng) / 10
                argument = (op.level_increasing if self.increasing else op.level)(share, rng)
                image = op.apply(image, argument, Warp(resampling(self.interpolation, rng), self.fill))
        return image

    def _draw(self, rng: np.random.Generator) -> list[Op]:
        if self.weighted:
            drawn = rng.choice(len(_OPS), self.layers, replace=False, p=_WEIGHTS)
        else:
            drawn = rng.integers(len(_OPS), size=self.layers)  # `choice` takes 2 % of an image's time.
        return [_OPS[i] for i in drawn]

    def _magnitude(self, rng: np.random.Generator) -> float:
        uniform = self.std > _UNIFORM_ABOVE
        drawn = rng.uniform(0, self.magnitude) if uniform else rng.normal(self.magnitude, self.std)
        return min(max(drawn, 0.0), self.limit)


_SECTION = re.compile(r"(m(?=\d+$)|n(?=\d+$)|mstd|mmax(?=[1-9]\d*$)|inc(?=1$)|w(?=0$))(\d+(?:\.\d+)?)")


def _sections(config: str) -> dict[str, str]:
    """The sections of a RandAugment string: name -> digits."""
    head, *sections = config.split("-")
    if head != "rand":
        raise UserError(f"RandAugment {config!r} starts with {head!r}; expected e.g. 'rand-m9-mstd0.5'.")
    values = {}
    for section in sections:
        match = _SECTION.fullmatch(section)
        if not match or match[1] in values:
            problem = "repeats" if match else "has the unknown or malformed section"
            expected = "m<int>, n<int>, mstd<number>, mmax<positive int>, inc1, w0, each at most once"
            raise UserError(f"RandAugment {config!r} {problem} {section!r}; expected {expected}.")
        values[match[1]] = match[2]
    return values
