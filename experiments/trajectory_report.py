"""The text and the plot of `experiments.trajectory`."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import measure
from experiments.trajectory_sides import MODEL

NEAR, FAR = 0.01, 0.5  # Distances, as shares of the way from the start.


def markdown(results: dict[str, Any], name: str) -> str:
    """Returns the text of the result file `name`."""
    parts = [
        "# Training side by side with PyTorch",
        f"`python -m experiments.{name}` on {measure.machine()['cpu']}: `{MODEL}`, float32, the same "
        "weights, the same augmented batches of `shapes`, the official optimisers. Distances are L2, as "
        "a share of what PyTorch's weights have moved since the start. The control is PyTorch against "
        "PyTorch from weights that differ in the last bit.",
        f"![losses and distances]({name}.png)",
        "## The first gradient",
        "Distance from the gradients of PyTorch in float64, as a share of their norm, and the number of inputs of "
        "ReLU and ReLU6 that rounding puts on the other side of 0 or 6. A single one can be most of the distance, as "
        "in PyTorch's classifier.",
        measure.table(
            [
                {
                    "task": task,
                    "gradients": side,
                    **{key: row.get(key, "") for key in ("distance", "switched")},
                }
                for task, found in results.items()
                for side, row in found["gradients"].items()
            ]
        ),
        "With the channels last, PyTorch's BatchNorm rounds more on a CPU, so the runs below have contiguous images, "
        "as the official code does.",
        "## Where rounding takes over",
        "The first steps of the warm-up hardly move the weights, so the changed last bit of the control is large "
        "beside their way. Later both distances grow together: small differences of the weights change the "
        "gradients, and both optimisers divide a gradient by its size, so that rounding can turn the step of a "
        "weight whose gradient is nearly 0. From where the control is far off, single weights say nothing, not even "
        "about PyTorch and itself; only losses can be compared.",
        "\n".join(f"- {task}: {parting(found['distances'])}" for task, found in results.items()),
    ]
    for task, found in results.items():
        title = f"## {task}: {len(found['ours'])} steps of {found['batch']} images"
        text = "Losses and their distances are means over the last ten steps."
        parts += [title, text, measure.table(loss_rows(found))]
    return "\n\n".join(parts) + "\n"


def parting(rows: list[dict[str, float]]) -> str:
    """Says up to which step ours is near PyTorch, from which on the control is far from it, and how both compare."""
    near = [row for row in rows if row["parameters, ours"] < NEAR]
    far = [row for row in rows if row["step"] > 1 and row["parameters, control"] > FAR]
    ratios = [row["parameters, ours"] / row["parameters, control"] for row in rows if row["step"] > 1]
    last_near, first_far = near[-1]["step"] if near else 0, far[0]["step"] if far else "none"
    return (
        f"ours is within {NEAR:.0%} of the way up to step {last_near}; the control is more than {FAR:.0%} of the way "
        f"off from step {first_far} on. From step 2 on ours is {min(ratios):.2f} to {max(ratios):.2f} times as far "
        "from PyTorch as the control."
    )


def loss_rows(found: dict[str, Any]) -> list[dict[str, float]]:
    """Returns the rows of a task's table: the losses around each measured step, and the distances of the weights."""
    ours, theirs, control = (np.array(found[name]) for name in ("ours", "pytorch", "control"))
    rows = []
    for row in found["distances"]:
        last = slice(max(0, row["step"] - 10), row["step"])
        rows.append(
            {
                "step": row["step"],
                "loss": float(theirs[last].mean()),
                "loss, ours - PyTorch": float(np.abs(ours - theirs)[last].mean()),
                "loss, control - PyTorch": float(np.abs(control - theirs)[last].mean()),
                **{key: value for key, value in row.items() if key != "step"},
            }
        )
    return rows


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws, for each task, the losses of both sides and the distances on a logarithmic axis."""
    figure = Figure(figsize=(11, 3.6 * len(results)), layout="constrained")
    for axes, (task, found) in zip(
        figure.subplots(len(results), 2, squeeze=False), results.items(), strict=True
    ):
        for name, style in (("pytorch", "-"), ("ours", "--")):
            axes[0].plot(found[name], style, label=name, linewidth=1)
        axes[0].set(xlabel="step", ylabel="training loss", title=task)
        steps = [row["step"] for row in found["distances"]]
        for key in found["distances"][0]:
            if key != "step":
                axes[1].plot(steps, [row[key] for row in found["distances"]], marker=".", label=key)
        axes[1].set(xlabel="step", ylabel="distance / way from the start", xscale="log", yscale="log")
        for panel in axes:
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8)
    figure.savefig(path, dpi=100)
