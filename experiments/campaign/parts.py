"""The parts of the campaign: what is done how often. A job is one run or one command, in a folder of its own."""

import functools
import itertools
import pathlib
import random
from collections.abc import Callable, Iterator

from experiments.campaign import disks, hosts, kills
from experiments.campaign.inputs import (
    boxes,
    bundles,
    config_values,
    damaged_runs,
    data,
    flags,
    materials,
    weights,
)
from experiments.campaign.inputs.case import Case, attempt
from experiments.campaign.outcome import Outcome

Job = Callable[[pathlib.Path], list[Outcome]]


def of_kills(count: int, seed: int, reference: kills.Reference, shared: pathlib.Path) -> Iterator[Job]:
    """Yields the runs that are killed, `count` times all together."""
    for plan in kills.plan(count, seed):
        yield functools.partial(kills.disturb, kills=plan, reference=reference)


def of_disks(count: int, seed: int, reference: kills.Reference, shared: pathlib.Path) -> Iterator[Job]:
    """Yields a flipped bit for every 5 kills; a full disk and a removed folder for every 50."""
    rng, half = random.Random(seed), shared / "half"
    disks.half_run(half, reference)
    for bit in disks.flips(_share(count, 5), seed):
        yield _one(disks.flip, half=half, bit=bit, reference=reference)
    yield _one(disks.too_small, reference=reference)
    for _ in range(_share(count, 50)):
        yield _one(disks.filled, share=rng.random(), reference=reference)
        yield _one(disks.removed, share=rng.random(), reference=reference)


def of_processes(count: int, seed: int, reference: kills.Reference, shared: pathlib.Path) -> Iterator[Job]:
    """Yields a run of two processes for every 20 kills."""
    expected = hosts.reference(shared / "two", reference.cache)
    for loss in hosts.plan(_share(count, 20), seed):
        yield _one(hosts.lose_one, loss=loss, cache=reference.cache, expected=expected)


def of_inputs(count: int, seed: int, reference: kills.Reference, shared: pathlib.Path) -> Iterator[Job]:
    """Yields all wrong inputs, whatever the number of kills."""
    made = shared / "made"
    materials.make(made, reference.folder)
    for case in cases(seed):
        yield lambda here, case=case: [attempt(case, here, made, reference.cache)]


# Name -> function of (number of kills, seed, undisturbed run, folder for what the jobs share).
PARTS = {"kills": of_kills, "disks": of_disks, "processes": of_processes, "inputs": of_inputs}


def cases(seed: int) -> list[Case]:
    """Returns all wrong inputs, after the right ones that have to be accepted."""
    wrong = (flags, weights, data, boxes, bundles, damaged_runs)
    return [
        *materials.CONTROLS,
        *config_values.cases(seed),
        *itertools.chain.from_iterable(module.cases() for module in wrong),
    ]


def _share(count: int, parts: int) -> int:
    return max(1, count // parts)


def _one(function: Callable[..., Outcome], **arguments) -> Job:
    return lambda folder: [function(folder, **arguments)]
