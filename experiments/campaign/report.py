"""What the campaign found, as a table for people and as JSON.

A record is what one part of the campaign found, in JSON: the command, its minutes, the counts and what was not good.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import measure
from experiments.campaign.outcome import HARMLESS, Outcome, Verdict

Record = dict[str, Any]


def record(outcomes: Sequence[Outcome], command: str, minutes: float) -> Record:
    """Returns the record of a part."""
    counts = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        counts[outcome.part][outcome.verdict.value] += 1
    return {
        "command": command,
        "minutes": round(minutes, 1),
        "counts": {name: dict(found) for name, found in counts.items()},
        "not good": [outcome._asdict() for outcome in outcomes if outcome.verdict is not Verdict.GOOD],
    }


def failures(records: Mapping[str, Record]) -> list[Outcome]:
    """Returns the outcomes that are wrong."""
    return [outcome for outcome in _not_good(records) if outcome.verdict not in HARMLESS]


def markdown(records: Mapping[str, Record]) -> str:
    """Returns the text of the result file, from the records of the parts by name."""
    failed, rows = failures(records), _rows(records)
    cases = rows[-1]["cases"]
    texts = [
        "# The hostile campaign",
        "After every disturbance, the finished run has to equal the undisturbed one bit for bit; every wrong input "
        'has to end in one line with its exit status, and to change nothing. "too late" are disturbances of a '
        "command that had already ended. A part that is run again replaces its own rows.",
        measure.table(rows),
        f"{len(failed)} of {cases} failed." if failed else f"None of {cases} failed.",
    ]
    texts += [f"- {outcome.part}: {outcome.case}: **{outcome.verdict}**" for outcome in failed]
    skipped = {
        outcome.case: outcome.detail for outcome in _not_good(records) if outcome.verdict is Verdict.NOT_RUN
    }
    texts += [f"- not run: {case}: {reason}" for case, reason in skipped.items()]
    texts += [f"- `{part['command']}`: {part['minutes']:.0f} minutes" for part in records.values()]
    return "\n\n".join(texts) + "\n"


def _not_good(records: Mapping[str, Record]) -> list[Outcome]:
    rows = [row for part in records.values() for row in part["not good"]]
    return [Outcome(row["part"], row["case"], Verdict(row["verdict"]), row["detail"]) for row in rows]


def _rows(records: Mapping[str, Record]) -> list[dict[str, object]]:
    """Returns a row for each kind of case and their sum, with a column for each verdict that occurs."""
    kinds = {
        name: collections.Counter(found)
        for part in records.values()
        for name, found in part["counts"].items()
    }
    kinds["**all**"] = sum(kinds.values(), collections.Counter())
    verdicts = [verdict.value for verdict in Verdict if kinds["**all**"][verdict.value]]
    return [
        {"part": name, "cases": found.total()} | {verdict: found[verdict] for verdict in verdicts}
        for name, found in kinds.items()
    ]
