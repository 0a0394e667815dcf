"""RandAugment as timm does it, from strings such as `rand-m9-mstd0.5`.

The source is Cubuk et al. 2019 (https://arxiv.org/abs/1909.13719) with timm's additions, after
`seaformer-cls/timm/data/auto_augment.py`. `n` operations are drawn for each image. Each of them is applied with
probability 0.5, and its magnitude is normal with mean `m` and standard deviation `mstd`.

A `Level` turns a magnitude into the operation's argument. An operation takes the image, the argument and a `Warp`,
which says how geometric operations resample and fill. `on_device/randaugment.py` does the same for a batch in the
training step, from the same table.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from seaformer_jax.data.classification.augment import resampling
from seaformer_jax.errors import UserError

PROBABILITY = 0.5  # Probability that a drawn operation is applied.
UNIFORM_ABOVE = 100  # With an mstd above this, the magnitude is uniform in [0, m].


class Warp(NamedTuple):
    """How a geometric operation resamples and fills.

    Attributes:
        resample: Pillow's filter.
        fillcolor: Colour outside the image, RGB, 0..255.
    """

    resample: Image.Resampling
    fillcolor: tuple[int, int, int]


class Level(NamedTuple):
    """How a magnitude becomes the argument of an operation: `start + slope * share`, for the share magnitude / 10.

    Attributes:
        slope: The change of the argument from magnitude 0 to 10; 0 for operations without an argument.
        start: The argument at magnitude 0.
        signed: Whether the change has a random sign.
        whole: Whether the change is truncated to an integer.
        least: The smallest argument.
    """

    slope: float = 0.0
    start: float = 0
    signed: bool = False
    whole: bool = False
    least: float = -math.inf

    def __call__(self, share: float, rng: np.random.Generator) -> float:
        change = self.slope * share
        if self.signed and rng.random() >= 0.5:
            change = -change
        return max(self.least, self.start + (int(change) if self.whole else change))


def _signed(limit: float) -> Level:
    return Level(limit, signed=True)


def _rising(limit: int) -> Level:
    return Level(limit, whole=True)


def _falling(limit: int) -> Level:
    return Level(-limit, limit, whole=True)


_NONE = Level()
# The factor of an enhancement; 1 changes nothing, so magnitude 5 is the mildest.
_FACTOR = Level(1.8, 0.1)
# The factor under `inc1`; it moves away from 1 in a random direction as the magnitude grows.
_FACTOR_INCREASING = Level(0.9, 1.0, signed=True, least=0.1)


# --- Operations: (image, argument, warp) -> image ---


def _plain(function):
    """Returns the operation of a function that takes the image only."""
    return lambda image, _, warp: function(image)


def _enhance(kind):
    """Returns the operation of one of Pillow's enhancements, such as `ImageEnhance.Color`."""
    return lambda image, factor, warp: kind(image).enhance(factor)


def _affine(matrix):
    """Returns an affine warp; `matrix(argument, width, height)` maps pixels of the result to pixels of the source."""
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
    # Not ImageOps.posterize: magnitudes below 2.5 ask for 0 bits, which it refuses.
    mask = 0xFF & -(1 << max(0, 8 - bits))
    return image.point([value & mask for value in range(256)] * 3)


def _solarize(image, threshold, warp):
    return ImageOps.solarize(image, threshold)


def _solarize_add(image, added, warp):
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


class Op(NamedTuple):
    """One row of the table of operations.

    Attributes:
        apply: The operation.
        level: Its level.
        level_increasing: Its level under `inc1`.
        weight: Its weight under `w0`, not normalised.
    """

    apply: Callable[[Image.Image, Any, Warp], Image.Image]
    level: Level
    level_increasing: Level
    weight: float


def _same(apply, level, weight):
    """Returns an operation whose level is the same with and without `inc1`."""
    return Op(apply, level, level, weight)


# Without `inc1`, Posterize, Solarize and the four enhancements do not grow stronger with the magnitude. At 10 they
# keep 4 bits, invert nothing and enhance by 1.9; at 0 they keep 0 bits, invert everything and enhance by 0.1.
OPS = {
    "AutoContrast": _same(_plain(ImageOps.autocontrast), _NONE, 0.025),
    "Equalize": _same(_plain(ImageOps.equalize), _NONE, 0.005),
    "Invert": _same(_plain(ImageOps.invert), _NONE, 0.0),
    "Rotate": _same(_rotate, _signed(30), 0.3),  # Degrees, counter-clockwise.
    "Posterize": Op(_posterize, _rising(4), _falling(4), 0.0),  # Bits kept per channel.
    "Solarize": Op(_solarize, _rising(256), _falling(256), 0.005),  # Values from this one on are inverted.
    "SolarizeAdd": _same(_solarize_add, _rising(110), 0.005),  # The amount added to values below 128.
    "Color": Op(_enhance(ImageEnhance.Color), _FACTOR, _FACTOR_INCREASING, 0.025),
    "Contrast": Op(_enhance(ImageEnhance.Contrast), _FACTOR, _FACTOR_INCREASING, 0.005),
    "Brightness": Op(_enhance(ImageEnhance.Brightness), _FACTOR, _FACTOR_INCREASING, 0.005),
    "Sharpness": Op(_enhance(ImageEnhance.Sharpness), _FACTOR, _FACTOR_INCREASING, 0.025),
    "ShearX": _same(_affine(lambda k, w, h: (1, k, 0, 0, 1, 0)), _signed(0.3), 0.2),
    "ShearY": _same(_affine(lambda k, w, h: (1, 0, 0, k, 1, 0)), _signed(0.3), 0.2),
    # The argument is a share of the width or height.
    "TranslateXRel": _same(_affine(lambda k, w, h: (1, 0, k * w, 0, 1, 0)), _signed(0.45), 0.1),
    "TranslateYRel": _same(_affine(lambda k, w, h: (1, 0, 0, 0, 1, k * h)), _signed(0.45), 0.1),
}
_OPS = tuple(OPS.values())
WEIGHTS = np.array([op.weight for op in _OPS]) / sum(op.weight for op in _OPS)
_WEIGHTED = np.count_nonzero(WEIGHTS)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """The policy: `policy(image, rng)` returns the augmented RGB Pillow image, with its size unchanged.

    Attributes:
        magnitude: Mean magnitude, `m`.
        layers: Number of operations drawn per image, `n`.
        std: Standard deviation of the magnitude, `mstd`; above 100 the magnitude is uniform in [0, m].
        limit: Magnitudes are clipped to [0, limit], `mmax`.
        weighted: Whether operations are drawn with the weights of the table and without replacement, `w0`;
            otherwise uniformly and with replacement.
        increasing: Whether to use the levels whose severity grows with the magnitude, `inc1`.
        fill: Colour outside the image after a geometric operation, RGB, 0..255.
        interpolation: `random` (drawn for each operation), `bilinear` or `bicubic`, for the geometric operations.
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

        Args:
            config: The string, its sections separated by "-".
            fill: Colour outside the image after a geometric operation, RGB, 0..255.
            interpolation: `random`, `bilinear` or `bicubic`.

        Raises:
            UserError: The string does not start with `rand`; a section is unknown, repeated or malformed; `m` is
                larger than `mmax`; `n` is 0; or, under `w0`, `n` is larger than the number of operations that have a
                weight.
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
        if policy.magnitude > policy.limit:
            raise UserError(
                f"RandAugment {config!r} has the magnitude {policy.magnitude}; expected 0..{policy.limit}, the "
                "range that magnitudes are clipped to (mmax)."
            )
        if policy.layers < 1:
            raise UserError(
                f"RandAugment {config!r} draws no operation; expected n of at least 1, or '' for no RandAugment."
            )
        if policy.weighted and policy.layers > _WEIGHTED:
            raise UserError(
                f"RandAugment {config!r} draws {policy.layers} operations without replacement, but w0 gives only "
                f"{_WEIGHTED} operations a weight; use a smaller n."
            )
        return policy

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after each drawn operation, applied with probability 0.5 and its own magnitude."""
        for op in self._draw(rng):
            if rng.random() < PROBABILITY:
                share = self._magnitude(rng) / 10
                argument = (op.level_increasing if self.increasing else op.level)(share, rng)
                image = op.apply(image, argument, Warp(resampling(self.interpolation, rng), self.fill))
        return image

    def _draw(self, rng: np.random.Generator) -> list[Op]:
        """Draws the operations for one image."""
        if self.weighted:
            drawn = rng.choice(len(_OPS), self.layers, replace=False, p=WEIGHTS)
        else:
            # Not `choice`, which would take 2 % of an image's time.
            drawn = rng.integers(len(_OPS), size=self.layers)
        return [_OPS[i] for i in drawn]

    def _magnitude(self, rng: np.random.Generator) -> float:
        """Draws a magnitude in [0, limit]."""
        uniform = self.std > UNIFORM_ABOVE
        drawn = rng.uniform(0, self.magnitude) if uniform else rng.normal(self.magnitude, self.std)
        return min(max(drawn, 0.0), self.limit)


# One section of the notation: a key, then its number. The look-aheads say which numbers a key accepts.
_SECTION = re.compile(r"(m(?=\d+$)|n(?=\d+$)|mstd|mmax(?=[1-9]\d*$)|inc(?=1$)|w(?=0$))(\d+(?:\.\d+)?)")


def _sections(config: str) -> dict[str, str]:
    """Returns the sections of a RandAugment string: key -> digits."""
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
