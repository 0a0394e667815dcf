"""Breaks the code in one place after another, and counts how often the tests notice.

    python -m experiments.mutations [--only TEXT]

`experiments/mutations.toml` lists the mutations: a text, its replacement, and the tests that should fail. Each is
applied to a copy of the repository. A mutation is
- caught: a test fails, or the tests take more than five minutes;
- survived: all tests pass, so a test is missing;
- equivalent: all tests pass, and the file says why the mutation changes nothing that a test could see;
- broken: the text is not in the file exactly once, or the tests cannot be run, so `mutations.toml` has to be mended.

Writes experiments/results/mutations.json and .md, and ends with status 1 if a mutation survived or is broken. With
`--only TEXT` only mutations whose file or tests contain TEXT run, and nothing is written.

The mutations are a list of our own, because a test run here takes seconds only if its tests are chosen for the
mutation: cosmic-ray has one test command for all, and mutmut leaves out module-level tables, recipes and C.
"""

import argparse
import collections
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments import measure

REPOSITORY = pathlib.Path(__file__).parents[1]
TABLE = pathlib.Path(__file__).with_suffix(".toml")
KINDS = ("caught", "survived", "equivalent", "broken")
_SECONDS = 300  # A mutation may make the code wait forever.
# What git ignores, and git's own folder.
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs")
_OUTPUT = "output.txt"  # File in the copy: what pytest printed.
_FAILED = 1  # Status of pytest if it ran and a test failed.


class Mutation(NamedTuple):
    """One entry of the table.

    Attributes:
        file: Path of the changed file in the repository.
        old: Text that occurs exactly once in it.
        new: Its replacement.
        tests: Arguments of pytest, separated by blanks.
        equivalent: Why the mutation cannot be noticed; "" if it can.
    """

    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT")
    only = parser.parse_args().only
    mutations = [m for m in read(TABLE) if only in f"{m.file} {m.tests}"]
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        shutil.copytree(REPOSITORY, copy, ignore=_NOT_COPIED)
        check_tests(copy, mutations)
        rows = [row(copy, mutation) for mutation in mutations]
    counts = collections.Counter(found["kind"] for found in rows)
    print(", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    if not only:
        measure.write("mutations", {"counts": {kind: counts[kind] for kind in KINDS}, "mutations": rows})
        (measure.RESULTS / "mutations.md").write_text(markdown(rows))
    return int(counts["survived"] + counts["broken"] > 0)


def read(path: pathlib.Path) -> list[Mutation]:
    """Returns the mutations in the file `path`, whose tables are named after the changed files."""
    table = tomllib.loads(path.read_text())
    return [Mutation(file, **fields) for file, entries in table.items() for fields in entries]


def check_tests(copy: pathlib.Path, mutations: Sequence[Mutation]) -> None:
    """Ends the script if a test fails without a mutation: it would catch every mutation."""
    names = sorted({name for mutation in mutations for name in mutation.tests.split()})
    if run(copy, names, seconds=None):
        sys.exit(
            f"{(copy / _OUTPUT).read_text()}\nthe tests fail without any mutation; expected that all pass"
        )


def row(copy: pathlib.Path, mutation: Mutation) -> dict[str, Any]:
    """Applies a mutation to the folder `copy`, runs its tests, takes it back; returns its row of the results."""
    began = time.monotonic()
    kind = kind_of(copy, mutation)
    seconds = round(time.monotonic() - began, 1)
    print(f"{kind:10} {seconds:6.1f} s  {mutation.file}: {mutation.old!r} -> {mutation.new!r}", flush=True)
    return {"kind": kind, "seconds": seconds, **mutation._asdict()}


def kind_of(copy: pathlib.Path, mutation: Mutation) -> str:
    """Returns how the tests take a mutation, one of `KINDS`; `copy` is the same afterwards."""
    path = copy / mutation.file
    content = path.read_text() if path.exists() else ""
    if content.count(mutation.old) != 1:
        return "broken"
    path.write_text(content.replace(mutation.old, mutation.new))
    try:
        status = run(copy, mutation.tests.split(), _SECONDS)
    except subprocess.TimeoutExpired:
        status = _FAILED
    finally:
        path.write_text(content)
    if status == 0:
        return "equivalent" if mutation.equivalent else "survived"
    return "caught" if status == _FAILED else "broken"


def run(copy: pathlib.Path, tests: Sequence[str], seconds: float | None) -> int:
    """Runs tests in the folder `copy` up to the first that fails; returns pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=short", *tests]
    # Compiled Python is only told apart by size and second, so that a mutation could go unnoticed.
    # The options of a pytest that runs this script are not for its tests.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    # A file and no pipe: a process that a test has started may keep a pipe open.
    with (copy / _OUTPUT).open("w") as output:
        return subprocess.run(
            command, cwd=copy, env=environment, stdout=output, timeout=seconds, check=False
        ).returncode


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the results as Markdown: counts, and every mutation that was not caught."""
    counts = collections.Counter(found["kind"] for found in rows)
    noticeable = counts["caught"] + counts["survived"]
    lines = [
        "# Mutations that the tests notice",
        "",
        f"{len(rows)} changes of one place each (`experiments/mutations.toml`), every one with its own tests: "
        + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
        + f". Caught: {100 * counts['caught'] / max(noticeable, 1):.1f} % of those that are not equivalent. The run "
        f"took {sum(found['seconds'] for found in rows) / 60:.0f} minutes.",
        "",
        "| | file | before | after | why |",
        "|---|---|---|---|---|",
    ]
    for found in rows:
        if found["kind"] != "caught":
            texts = f"{_code(found['old'])} | {_code(found['new'])}"
            lines.append(f"| {found['kind']} | `{found['file']}` | {texts} | {found['equivalent']} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Returns text as code in one cell of a table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
