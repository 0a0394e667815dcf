"""Attacks the commands: nothing may be lost, and every failure has to be one line.

    python -m experiments.campaign [--kills 200] [--seed 0] [--parts kills,disks,processes,inputs] [--jobs 1]

- kills: Short runs are killed again and again: the process, its group or a data worker, while it starts, trains or
  saves. Then they finish, and have to equal the run that nothing disturbed, bit for bit.
- disks: Bits of checkpoints are flipped, disks are filled (where a small file system can be mounted), and folders of
  checkpoints are removed.
- processes: One of two processes is killed.
- inputs: Every command gets wrong inputs: command lines, values of every config key, weights, data, bundles, damaged
  runs.

The same seed makes the same campaign, but for the moments, which depend on the machine. Writes
experiments/results/campaign.json and .md, keeps the folders of the cases that failed below --out, and exits with
status 1 if there are any.
"""

import argparse
import concurrent.futures
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

from experiments import measure
from experiments.campaign import kills, recipe, report, server
from experiments.campaign.outcome import Outcome
from experiments.campaign.parts import PARTS, Job

_REPOSITORY = pathlib.Path(__file__).parents[2]


def main() -> int:
    """Runs the campaign and returns the exit status."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=options.out.absolute()))
    began = time.monotonic()
    outcomes = list(_outcomes(options, folder))
    minutes = (time.monotonic() - began) / 60
    command = f"python -m experiments.campaign --kills {options.kills} --seed {options.seed}"
    if options.parts != list(PARTS):
        command += f" --parts {','.join(options.parts)}"
    measure.write("campaign", report.figures(outcomes, command, minutes))
    text = report.markdown(outcomes, command, minutes)
    (measure.RESULTS / "campaign.md").write_text(text)
    print(text)
    if failed := report.failures(outcomes):
        print(f"the folders of the {len(failed)} failures are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=1, help="runs and commands at the same time")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/campaign"))
    return parser.parse_args()


def _outcomes(options: argparse.Namespace, folder: pathlib.Path) -> Iterator[Outcome]:
    """Yields the outcomes and prints them as they come."""
    recipe.register()
    server.start()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda item: item[1](folder / f"{item[0]:04d}"), enumerate(_jobs(options, folder)))
        for number, outcome in enumerate((outcome for outcomes in found for outcome in outcomes), 1):
            # The paths of this machine mean nothing to a reader.
            detail = outcome.detail.replace(f"{folder}/", "").replace(f"{_REPOSITORY}/", "")
            print(f"{number:4} {outcome.part}: {outcome.case}: {outcome.verdict}", flush=True)
            yield outcome._replace(detail=detail)


def _jobs(options: argparse.Namespace, folder: pathlib.Path) -> Iterator[Job]:
    reference = kills.reference(folder / "reference", folder / "xla")
    for part in options.parts:
        yield from PARTS[part](options.kills, options.seed, reference, folder)


if __name__ == "__main__":
    sys.exit(main())
