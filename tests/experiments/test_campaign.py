"""The campaign: its plans, its judgement, and a kill and some wrong inputs with real commands."""

import collections
import json
import pathlib
import signal

import pytest

from experiments.campaign import hosts, kills, outcome, parts, report, server
from experiments.campaign import run as runs
from experiments.campaign.inputs import case as inputs
from experiments.campaign.inputs import config_values, flags
from experiments.campaign.outcome import Outcome, Verdict
from experiments.campaign.server import Ended
from seaformer_jax.config_ranges import RANGES
from tests import forked

ERROR = "error: x is 3; expected 4"


@pytest.fixture
def shared_server(monkeypatch):
    """Starts the campaign's commands in the server of the tests, whose imports are paid for."""
    monkeypatch.setattr(server, "_SERVER", forked.SERVER)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_makes_one_plan_of_all_kinds(seed):
    plan = kills.plan(200, seed)
    assert plan == kills.plan(200, seed) != kills.plan(200, seed + 1)
    counts = collections.Counter(kill.kind for run in plan for kill in run)
    assert counts.total() == 200
    # A kind that is listed twice comes twice as often.
    assert counts.keys() == set(kills.KINDS) and min(counts.values()) >= 200 // len(kills.KINDS)
    assert all(len(run) <= 4 and len({kill.kind.workers for kill in run}) == 1 for run in plan)
    assert {loss.kind for loss in hosts.plan(10, seed)} == set(hosts.KINDS)


def test_every_key_of_the_config_has_wrong_values():
    cases = config_values.cases(seed=0)
    assert len({case.name for case in cases}) == len(cases)
    in_file = {case.name.split(" is ")[0] for case in cases if case.part == config_values.IN_FILE}
    given = {case.name.split("=")[0] for case in cases if case.part == config_values.ON_COMMAND_LINE}
    assert in_file == set(RANGES)
    text = {key for key in RANGES if key not in given}  # Any text may be right there.
    assert all(RANGES[key][0]("any text") for key in text), text
    assert len(parts.cases(seed=0)) > 300


@pytest.mark.parametrize(
    ("status", "stderr", "expected", "verdict"),
    [
        (2, f"step 3\n{ERROR}\n", (2,), Verdict.GOOD),
        (0, "done\n", (0,), Verdict.GOOD),
        (-9, "", (-9,), Verdict.GOOD),
        (0, "done\n", (2,), Verdict.ACCEPTED),
        (1, f"{ERROR}\n", (2,), Verdict.STATUS),
        (-6, "", (2,), Verdict.STATUS),
        (None, f"{ERROR}\n", (2,), Verdict.NO_END),
        (2, f"{ERROR}\n{ERROR}\n", (2,), Verdict.NOT_ONE_LINE),
        (2, f"{ERROR}\nand more\n", (2,), Verdict.NOT_ONE_LINE),
        (2, "", (2,), Verdict.NOT_ONE_LINE),
        (2, f"E1121 17:55:18.123456 1 service.cc:1] x\n{ERROR}\n", (2,), Verdict.NOT_ONE_LINE),
        (1, "Traceback (most recent call last):\n", (1,), Verdict.TRACEBACK),
        (0, "Traceback (most recent call last):\n", (0,), Verdict.TRACEBACK),
    ],
)
def test_how_a_command_has_to_end(status, stderr, expected, verdict):
    assert outcome.verdict_of(Ended(status, "", stderr), expected) is verdict


@pytest.mark.parametrize(
    ("before", "newest", "last_row", "verdict"),
    [
        (3, 6, 6, Verdict.GOOD),
        (9, 6, 6, Verdict.LOST),  # A checkpoint is gone.
        (3, 6, 7, Verdict.LOST),  # It says that it saved its last step, and has not.
        (3, 9, 9, Verdict.LOST),  # It has another checkpoint than it says.
    ],
)
def test_a_stopped_run_has_the_checkpoint_that_it_names(tmp_path, before, newest, last_row, verdict):
    run, kind = runs.Run(tmp_path, tmp_path), kills.Kind(0, kills.STEP, signal.SIGTERM, kills.PROCESS)
    (tmp_path / f"checkpoints/{newest}").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": {last_row}}}\n{{"step": 99')
    said = "stopped by SIGTERM with a checkpoint at step 6; run the same command to resume"
    assert kills.judge(run, kind, Ended(143, "", said), before)[0] is verdict


def test_files_that_a_refused_command_changes(tmp_path, monkeypatch):
    class Command:
        """Writes the files that its arguments name, and refuses them."""

        def __init__(self, module, arguments):
            for name in arguments:
                pathlib.Path(name).write_text("new")

        def end(self, limit):
            return Ended(2, "", ERROR)

    def attempt(name: str, *writes: str) -> Outcome:
        case = inputs.Case("part", name, f"module {{here}}/{name}", build, writes=writes)
        return inputs.attempt(case, tmp_path / "here", tmp_path / "made", tmp_path)

    def build(here, made):
        (here / "run").mkdir()
        for name in ("run/lock", "run/config.json"):
            (here / name).write_text("old")

    monkeypatch.setattr(inputs, "Command", Command)
    assert attempt("run/lock").verdict is Verdict.GOOD
    assert attempt("out.json", "out.").verdict is Verdict.GOOD
    assert not (tmp_path / "here").exists()
    changed = attempt("run/config.json")
    assert changed.verdict is Verdict.CHANGED
    assert changed.detail.splitlines()[1] == str(tmp_path / "here/run/config.json")


def test_the_report_counts_everything_and_names_the_failures():
    found = [
        Outcome("kills", "SIGKILL", Verdict.GOOD),
        Outcome("kills", "SIGTERM", Verdict.LOST, "step 3 is gone"),
        Outcome("full disk", "filled", Verdict.NOT_RUN, "mount: permission denied"),
    ]
    records = {
        "kills": report.record(found[:2], "command", 3.21),
        "disks": report.record(found[2:], "other", 1),
    }
    assert records["kills"]["counts"] == {"kills": {"good": 1, "lost": 1}}
    assert records["kills"]["minutes"] == 3.2
    assert [row["case"] for row in records["kills"]["not good"]] == ["SIGTERM"]
    assert report.failures(json.loads(json.dumps(records))) == [found[1]]
    text = report.markdown(json.loads(json.dumps(records)))
    assert "| **all** | 3 | 1 | 1 | 1 |" in text and "1 of 3 failed" in text
    assert "- kills: SIGTERM: **lost**" in text and "- not run: filled: mount: permission denied" in text
    assert "- `command`: 3 minutes" in text and "- `other`: 1 minutes" in text


def test_wrong_inputs_with_real_commands(shared_server, tmp_path, compile_cache):
    names = ("train, a misspelt key", "train, workdir below a file", "a recipe that raises")
    chosen = [case for case in flags.cases() if case.name in names]
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.pth").write_bytes(b"")
    for number, case in enumerate(chosen):
        found = inputs.attempt(case, tmp_path / str(number), made, compile_cache)
        assert found == Outcome(flags.PART, case.name, Verdict.GOOD), found.detail


@pytest.mark.slow
def test_a_killed_run_and_one_that_began_anew(shared_server, tmp_path, compile_cache):
    reference = kills.reference(tmp_path / "reference", pathlib.Path(compile_cache))
    kill = kills.Kill(kills.Kind(0, kills.SAVE, signal.SIGKILL, kills.PROCESS), 0.5)
    (found,) = kills.disturb(tmp_path / "killed", [kill], reference)
    assert found == Outcome(kills.PART, str(kill.kind), Verdict.GOOD), found.detail
    run = runs.Run(reference.folder, pathlib.Path(compile_cache))
    assert runs.compared(run, reference.result) == (Verdict.GOOD, "")
    other = reference.result | {"losses": [], "weights": {}}
    assert runs.compared(run, other) == (Verdict.LOST, "other weights and losses")
