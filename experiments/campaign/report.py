"""What the campaign found, as a table for people and as JSON."""

import collections
from collections.abc import Sequence
from typing import Any

from experiments import measure
from experiments.campaign.outcome import HARMLESS, Outcome, Verdict


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the outcomes that are wrong."""
    return [outcome for outcome in outcomes if outcome.verdict not in HARMLESS]


def figures(outcomes: Sequence[Outcome], command: str, minutes: float) -> dict[str, Any]:
    """Returns the content of the JSON file: counts of each part, and everything that was not good."""
    return {
        "command": command,
        "minutes": round(minutes, 1),
        "counts": {
            part: dict(collections.Counter(outcome.verdict.value for outcome in found))
            for part, found in _parts(outcomes).items()
        },
        "not good": [outcome._asdict() for outcome in outcomes if outcome.verdict is not Verdict.GOOD],
    }


def markdown(outcomes: Sequence[Outcome], command: str, minutes: float) -> str:
    """Returns the text of the result file."""
    failed = failures(outcomes)
    texts = [
        "# The hostile campaign",
        f"`{command}`: {minutes:.0f} minutes. After every disturbance, the finished run has to equal the "
        "undisturbed one bit for bit; every wrong input has to end in one line with its exit status, and to change "
        'nothing. "too late" are disturbances of a command that had already ended.',
        measure.table(_rows(outcomes)),
        f"{len(failed)} of {len(outcomes)} failed." if failed else f"None of {len(outcomes)} failed.",
    ]
    texts += [f"- {outcome.part}: {outcome.case}: **{outcome.verdict}**" for outcome in failed]
    skipped = {outcome.case: outcome.detail for outcome in outcomes if outcome.verdict is Verdict.NOT_RUN}
    texts += [f"- not run: {case}: {reason}" for case, reason in skipped.items()]
    return "\n\n".join(texts) + "\n"


def _rows(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Returns a row for each part and their sum, with a column for each verdict that occurs."""
    verdicts = [verdict for verdict in Verdict if any(outcome.verdict is verdict for outcome in outcomes)]
    parts = {**_parts(outcomes), "**all**": outcomes}
    return [
        {"part": part, "cases": len(found)}
        | {verdict.value: sum(outcome.verdict is verdict for outcome in found) for verdict in verdicts}
        for part, found in parts.items()
    ]


def _parts(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    parts: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        parts.setdefault(outcome.part, []).append(outcome)
    return parts
