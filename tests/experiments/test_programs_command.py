"""The command of the programs: what it compiles, skips and writes; the compiler is a stand-in."""

import re
import sys

import pytest

from experiments import measure
from experiments.programs import catalogue, command, compiling
from experiments.programs.catalogue import Program
from experiments.programs.compiling import Compiled
from experiments.programs.targets import Target
from seaformer_jax import json_files
from seaformer_jax.errors import UserError

TEXT = """ENTRY %main (x: f32[256]) -> f32[256] {
  %x = f32[256]{0:T(256)} parameter(0)
  ROOT %y = f32[256]{0:T(256)} negate(%x)
}"""
COMPILED = Compiled(TEXT, {"argument": 1024, "temp": 0, "peak_memory": 2048}, {"cpu_seconds": 3})
PROGRAMS = [Program(what, Target("v5e", "2x2"), 8, None) for what in ("first", "second", "large")]
FIRST, SECOND, LARGE = (program.name for program in PROGRAMS)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Returns a function that runs the command with flags; it returns what was compiled and the figures on disk."""
    monkeypatch.setattr(catalogue, "programs", lambda platform: {p.name: p for p in PROGRAMS})
    monkeypatch.setattr(measure, "RESULTS", tmp_path)

    def run(*flags: str) -> tuple[list[str], dict]:
        compiled = []

        def compile_apart(platform: str, name: str) -> Compiled:
            compiled.append(name)
            if name == LARGE:
                raise UserError("out of memory")
            return COMPILED

        monkeypatch.setattr(compiling, "compile_apart", compile_apart)
        monkeypatch.setattr(sys, "argv", ["programs", *flags])
        command.main("tpu", "programs", "Programs")
        path = tmp_path / "programs.json"
        return compiled, json_files.read(path)["programs"] if path.exists() else {}

    return run


def test_programs_with_figures_are_skipped_unless_asked_for(run):
    assert run("--only", "second")[0] == [SECOND]
    compiled, figures = run()
    assert compiled == [FIRST, LARGE]
    assert list(figures) == [FIRST, SECOND, LARGE]  # In the order of the catalogue.
    assert run() == ([], figures)
    assert run("--only", "first", "--only", "large", "--again")[0] == [FIRST, LARGE]


def test_a_program_that_cannot_be_compiled_is_noted_and_the_others_go_on(run, tmp_path):
    figures = run()[1]
    assert figures[LARGE] == {"error": "out of memory"}
    assert figures[FIRST]["hbm_padded"] == 2048
    page = (tmp_path / "programs.md").read_text()
    assert f"| {LARGE} | out of memory |" in page and f"### {FIRST}" in page


def test_figures_are_read_again_without_a_compiler(run, monkeypatch, capsys):
    def load(name: str) -> Compiled:
        if name != FIRST:
            raise FileNotFoundError
        return COMPILED

    monkeypatch.setattr(compiling, "load", load)
    compiled, figures = run("--read")
    assert compiled == [] and list(figures) == [FIRST]
    run("--list")
    listed = capsys.readouterr().out
    assert f"* {FIRST}\n" in listed and f"  {SECOND}\n" in listed


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        (
            "warning\njax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: hbm\nat x\n",
            "jax.errors.JaxRuntimeError: .*",
        ),
        ("ValueError: a\nthen\nKeyError: b\n", "KeyError: b"),
        ("killed\n", "killed"),
        ("", "no message"),
    ],
)
def test_the_line_that_names_an_error(messages, line):
    assert re.fullmatch(line, compiling._error(messages))
