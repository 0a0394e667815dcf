"""The figures of the compiled programs as rows of a result file and as Markdown tables."""

from collections.abc import Mapping
from typing import Any

from experiments import measure
from experiments.programs import hlo, summary
from experiments.programs.catalogue import Program
from experiments.programs.compiling import Compiled
from experiments.programs.targets import CHIPS

_GB, _MB = 1e9, 1e6
Row = Mapping[str, Any]


def row(program: Program, compiled: Compiled) -> dict[str, Any]:
    """Returns all figures of a program: sizes in bytes, of one chip; times in seconds."""
    figures = summary.summarize(hlo.parse(compiled.text))
    images = program.images / program.target.size
    seconds = figures["hbm_padded"] / CHIPS[program.target.chip].bandwidth
    return {
        "chips": program.target.size,
        "images_per_chip": images,
        "memory": compiled.memory,
        **figures,
        "seconds_at_bandwidth": seconds,
        "images_per_second_at_most": images / seconds,
        "floor": images * program.floor() if program.floor else None,
        **compiled.facts,
    }


def markdown(rows: Mapping[str, Row], title: str) -> str:
    """Returns the page of a result file."""
    done = {name: row for name, row in rows.items() if "error" not in row}
    parts = [f"# {title}", _EXPLANATION]
    if done:
        parts += ["## Memory and traffic", measure.table([_memory(name, row) for name, row in done.items()])]
        parts += [measure.table([_traffic(name, row) for name, row in done.items()])]
        if collectives := [line for name, row in done.items() for line in _collectives(name, row)]:
            parts += ["## Collectives", measure.table(collectives)]
        parts += [
            "## The ten most expensive instructions",
            *(_expensive(name, row) for name, row in done.items()),
        ]
    if failed := {name: row["error"] for name, row in rows.items() if "error" in row}:
        lines = [{"program": name, "error": error} for name, error in failed.items()]
        parts += ["## Not compiled", measure.table(lines)]
    return "\n\n".join(parts) + "\n"


_EXPLANATION = """Nothing was run: these are counts of what the compiler made, for one chip. `docs/accelerators.md`
explains them. Times are bytes over the bandwidth of the memory, so speeds are upper bounds, not measurements. The
floor is seven passes over the outputs of the convolutions before BatchNorm. 1 GB is 10^9 bytes."""


def _memory(name: str, row: Row) -> dict[str, object]:
    memory = row["memory"]
    return {
        "program": name,
        "images a chip": f"{row['images_per_chip']:g}",
        "arguments MB": f"{memory['argument'] / _MB:.1f}",
        "temporaries MB": f"{memory['temp'] / _MB:.0f}",
        "peak MB": f"{memory['peak_memory'] / _MB:.0f}",
        "float32 written GB": f"{row['float32_written'] / _GB:.2f}",
        "largest float32 MB": f"{row['float32_largest'] / _MB:.1f}",
        "layout copies": row["layout_copies"]["count"],
        "copied GB": f"{row['layout_copies']['bytes'] / _GB:.2f}",
        "loops": row["loops"],
        "CPU s to compile": row["cpu_seconds"],
    }


def _traffic(name: str, row: Row) -> dict[str, object]:
    floor = row["floor"]
    return {
        "program": name,
        "HBM GB, padded": f"{row['hbm_padded'] / _GB:.2f}",
        "raw": f"{row['hbm_raw'] / _GB:.2f}",
        "written, padded / raw": f"{row['written_padded'] / row['written_raw']:.3f}",
        "floor GB": f"{floor / _GB:.2f}" if floor else "",
        "x floor": f"{row['hbm_padded'] / floor:.2f}" if floor else "",
        "MB an image": f"{row['hbm_padded'] / row['images_per_chip'] / _MB:.1f}",
        "ms at the bandwidth": f"{1e3 * row['seconds_at_bandwidth']:.2f}",
        "images/s a chip, at most": f"{row['images_per_second_at_most']:,.0f}",
    }


def _collectives(name: str, row: Row) -> list[dict[str, object]]:
    return [
        {
            "program": name,
            "kind": line["kind"],
            "type": line["dtype"],
            "operations": line["count"],
            "arrays": line["arrays"],
            "MB": f"{line['bytes'] / _MB:.3f}",
        }
        for line in row["collectives"]
    ]


def _expensive(name: str, row: Row) -> str:
    lines = [
        {
            "MB read": f"{line['read'] / _MB:.1f}",
            "written": f"{line['written'] / _MB:.1f}",
            "times": line["times"],
            "instruction": f"`{line['instruction']}`",
            "largest result": f"`{line['result']}`",
            "from": f"`{line['op_name']}`" if line["op_name"] else "",
        }
        for line in row["most_expensive"]
    ]
    return f"### {name}\n\n{measure.table(lines)}"
