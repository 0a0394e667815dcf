"""The result files: gpu_campaign.json, which also says what is measured already, and gpu_campaign.md.

    {"machines": [facts, ...],
     "parts": {part: {"note": ..., "command": ..., "summary": [...],
                      "units": {unit: {"machine": index, "date": ..., "seconds": ..., "row": {...}}},
                      "failed": {unit: {"machine": index, "date": ..., "error": ...}}}}}

Both are written after every unit, so that a campaign that is killed loses one unit at most.
"""

import datetime
import json
import pathlib
from collections.abc import Sequence

from experiments import measure
from experiments.gpu_campaign.part import Part, Row
from experiments.gpu_campaign.worker import Ended
from seaformer_jax import json_files


class Record:
    """The results in a folder, and those of this machine as they come.

    Args:
        folder: Folder of the result files.
        machine: Facts of the machine that measures now.
        command: The command that runs.
    """

    def __init__(self, folder: pathlib.Path, machine: dict[str, object], command: str):
        self._path, self._command = folder / "gpu_campaign.json", command
        found = json.loads(self._path.read_text()) if self._path.exists() else {"machines": [], "parts": {}}
        self._machines, self._parts = found["machines"], found["parts"]
        if machine not in self._machines:
            self._machines.append(machine)
        self._machine = self._machines.index(machine)

    def has(self, name: str, unit: str, failures: bool) -> bool:
        """Returns whether the unit of part `name` is measured, or, if `failures` count, failed before."""
        section = self._parts.get(name, {"units": {}, "failed": {}})
        return unit in section["units"] or (failures and unit in section["failed"])

    def add(self, name: str, part: Part, unit: str, ended: Ended, seconds: float) -> None:
        """Adds how a unit ended and writes the files."""
        section = self._parts.setdefault(name, {"units": {}, "failed": {}})
        section |= {"note": part.note, "command": self._command}
        made = {"machine": self._machine, "date": datetime.date.today().isoformat()}
        section["failed"].pop(unit, None)
        if ended.row is None:
            section["failed"][unit] = made | {"error": ended.error}
        else:
            section["units"][unit] = made | {"seconds": round(seconds, 1), "row": ended.row}
        section["summary"] = part.summary(_rows(section))
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        json_files.write(self._path, {"machines": self._machines, "parts": self._parts})
        self._path.with_suffix(".md").write_text(markdown(self._machines, self._parts))


def _rows(section: dict) -> list[Row]:
    return [unit["row"] for unit in section["units"].values()]


def markdown(machines: Sequence[dict], parts: dict[str, dict]) -> str:
    """Returns the report: the machines, and a section with its tables for every part."""
    sections = [f"## {name}\n\n{_section(section)}" for name, section in parts.items()]
    lines = [f"{number}. {_described(machine)}" for number, machine in enumerate(machines)]
    return "\n\n".join(["# Measured on a GPU", "Machines:\n\n" + "\n".join(lines), *sections]) + "\n"


def _described(machine: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def _section(section: dict) -> str:
    """Returns note, command, dates, tables and failures of a part."""
    made = [*section["units"].values(), *section["failed"].values()]
    when = sorted({f"machine {unit['machine']} on {unit['date']}" for unit in made})
    paragraphs = [section["note"], f"`{section['command']}`, {'; '.join(when)}."]
    paragraphs += [measure.table(rows) for rows in _tables(section["summary"] or _rows(section))]
    paragraphs += [f"Failed: {unit}: {found['error']}" for unit, found in section["failed"].items()]
    return "\n\n".join(paragraphs)


def _tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the rows in groups of equal columns."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    return list(groups.values())
