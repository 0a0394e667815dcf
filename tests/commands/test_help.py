"""What `--help` of the commands lists."""

import subprocess
import sys

import pytest

from tests.paths import REPOSITORY


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("convert.export", ["weights", "out", "images", "calibration", "validation", "precision"]),
        ("convert.latency", ["device", "out"]),
        ("seaformer_jax.predict", ["workdir", "checkpoint", "[no]ema", "images", "out"]),
    ],
)
def test_flags_that_are_defined_by_helpers_are_listed(command, flags):
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    listed = [line.split(":")[0].strip() for line in done.stdout.splitlines() if line.startswith("  --")]
    assert {f"--{flag}" for flag in flags} <= set(listed), listed
