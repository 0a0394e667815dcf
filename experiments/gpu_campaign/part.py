"""What a part of the campaign is, and the list of the parts."""

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.gpu_campaign.settings import Settings

# The most valuable first: `--part all` runs them in this order, until the time is up.
NAMES = (
    "install",
    "golden",
    "train_speed",
    "evaluation",
    "bandwidth",
    "input",
    "camvid",
    "large_batch",
    "attention",
)

Row = dict[str, object]


def no_summary(rows: Sequence[Row]) -> list[Row]:
    """Returns nothing: the rows are the table."""
    return []


class Part(NamedTuple):
    """A part of the campaign; each is the `PART` of its module.

    Attributes:
        note: What the part measures and how, for the report.
        units: Settings -> {name: function that measures and returns one row}, the most valuable first. A unit is
            measured at once; the campaign stops and resumes between units.
        summary: Rows -> rows of the table for the report; none if the rows themselves are that table.
    """

    note: str
    units: Callable[[Settings], dict[str, Callable[[], Row]]]
    summary: Callable[[Sequence[Row]], list[Row]] = no_summary


def module(name: str) -> str:
    """Returns the full name of the module of part `name`."""
    return f"experiments.gpu_campaign.{name}"


def load(module: str) -> Part:
    """Imports a part. Only that of `install` can be imported where packages are missing."""
    return importlib.import_module(module).PART
