"""The command line of `tpu_program` and `gpu_program`: which programs to compile, and what becomes of the figures."""

import argparse
import functools
from collections.abc import Iterator

from experiments import measure
from experiments.programs import catalogue, compiling, rows
from experiments.programs.catalogue import Program
from seaformer_jax import json_files
from seaformer_jax.errors import UserError


def main(platform: str, result: str, title: str) -> None:
    """Compiles the programs that the command line asks for; writes results/<result>.json and .md after each of them.

    Args:
        platform: "tpu" or "cuda".
        result: Name of the result files.
        title: Title of the page.
    """
    options = _options(title)
    programs = catalogue.programs(platform)
    figures = _saved(result)
    chosen = {
        name: program
        for name, program in programs.items()
        if any(text in name for text in options.only or [""])
    }
    if options.list:
        print(*(f"{'*' if name in figures else ' '} {name}" for name in chosen), sep="\n")
        return
    for name, row in _rows(platform, chosen, figures, options):
        figures[name] = row
        ordered = {name: figures[name] for name in programs if name in figures}
        measure.write(result, {"programs": ordered})
        (measure.RESULTS / f"{result}.md").write_text(rows.markdown(ordered, title))


def _options(title: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--only", action="append", metavar="TEXT", help="only names with this text in them")
    parser.add_argument("--again", action="store_true", help="also those that have figures")
    parser.add_argument(
        "--read", action="store_true", help="read the figures of what was compiled here; no compiling"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names; * marks those that have figures"
    )
    return parser.parse_args()


def _saved(result: str) -> dict[str, dict]:
    path = measure.RESULTS / f"{result}.json"
    return json_files.read(path)["programs"] if path.exists() else {}


def _rows(
    platform: str, programs: dict[str, Program], figures: dict[str, dict], options: argparse.Namespace
) -> Iterator[tuple[str, dict]]:
    """Yields (name, figures) of one program after the other."""
    get = compiling.load if options.read else functools.partial(compiling.compile_apart, platform)
    for name, program in programs.items():
        if name in figures and not options.again and not options.read:
            continue
        print(name, flush=True)
        try:
            yield name, rows.row(program, get(name))
        except FileNotFoundError:
            print("was not compiled here")
        except UserError as error:
            # Not to fit into the memory is a result, too; the others are compiled all the same.
            print(error, flush=True)
            yield name, {"error": str(error)}
