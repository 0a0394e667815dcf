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
experiments/results/campaign.json and .md after every part; a part that is not run keeps its rows there. Keeps the
folders of the cases that failed below --out, and exits with status 1 if there are any.
"""

import argparse
import concurrent.futures
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

from experiments import measure
from experiments.campaign import kills, recipe, report, server
from experiments.campaign.outcome import Outcome
from experiments.campaign.parts import PARTS, Job
from seaformer_jax import json_files

_REPOSITORY = pathlib.Path(__file__).parents[2]


def main() -> int:
    """Runs the campaign and returns the exit status."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=options.out.absolute()))
    recipe.register()
    server.start()
    reference = kills.reference(folder / "reference", folder / "xla")
    found = {part: _run(part, options, reference, folder) for part in options.parts}
    if failed := report.failures(found):
        print(f"the folders of the {len(failed)} failures are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _run(
    part: str, options: argparse.Namespace, reference: kills.Reference, folder: pathlib.Path
) -> report.Record:
    """Runs a part, writes it into the result files beside the other parts, and returns its record."""
    began = time.monotonic()
    jobs = PARTS[part](options.kills, options.seed, reference, folder)
    (folder / part).mkdir()
    outcomes = list(_outcomes(jobs, options.jobs, folder, part))
    command = f"python -m experiments.campaign --kills {options.kills} --seed {options.seed} --parts {part}"
    record = report.record(outcomes, command, (time.monotonic() - began) / 60)
    path = measure.RESULTS / "campaign.json"
    records = json_files.read(path)["parts"] if path.exists() else {}
    records = {name: records[name] for name in PARTS if name in records} | {part: record}
    measure.write("campaign", {"parts": records})
    text = report.markdown(records)
    path.with_suffix(".md").write_text(text)
    print(text)
    return record


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=1, help="runs and commands at the same time")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/campaign"))
    return parser.parse_args()


def _outcomes(jobs: Iterable[Job], at_once: int, folder: pathlib.Path, part: str) -> Iterator[Outcome]:
    """Yields the outcomes and prints them as they come; the jobs get folders below `folder/part`."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        found = pool.map(lambda item: item[1](folder / part / f"{item[0]:04d}"), enumerate(jobs))
        for number, outcome in enumerate((outcome for outcomes in found for outcome in outcomes), 1):
            # The paths of this machine mean nothing to a reader.
            detail = outcome.detail.replace(f"{folder}/", "").replace(f"{_REPOSITORY}/", "")
            print(f"{number:4} {outcome.part}: {outcome.case}: {outcome.verdict}", flush=True)
            yield outcome._replace(detail=detail)


if __name__ == "__main__":
    sys.exit(main())
