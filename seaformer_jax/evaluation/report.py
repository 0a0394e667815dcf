"""Writes the tables and pictures of an evaluation."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from seaformer_jax.metrics import ConfusionMatrix, mean_of_present

_NAMED_CLASSES = 60  # With more classes, the axis labels would be unreadable.


def write_classification(confusion: ConfusionMatrix, class_names: Sequence[str], folder: epath.Path) -> None:
    """Writes `per_class.md` (recall, precision and count of each class) and `confusion_matrix.png`."""
    rows = ["| class | images | recall % | precision % |", "|---|---:|---:|---:|"]
    columns = (confusion.counts.sum(1), 100 * confusion.recall(), 100 * confusion.precision())
    for name, count, recall, precision in zip(class_names, *columns, strict=True):
        rows.append(f"| {name} | {count} | {recall:.1f} | {precision:.1f} |")
    (folder / "per_class.md").write_text("\n".join(rows) + "\n")
    _draw(confusion.counts, class_names, folder / "confusion_matrix.png")


def write_segmentation(confusion: ConfusionMatrix, class_names: Sequence[str], folder: epath.Path) -> None:
    """Writes `per_class.md`: IoU, accuracy (recall) and share of the labelled pixels of each class, and the means.

    A class that occurs neither in the labels nor in the predictions has the IoU "nan" and is left out of the mean.
    """
    iou, recall = 100 * confusion.iou(), 100 * confusion.recall()
    pixels = confusion.counts.sum(1)
    shares = 100 * pixels / max(pixels.sum(), 1)
    rows = ["| class | IoU % | Acc % | pixels % |", "|---|---:|---:|---:|"]
    for name, *values in zip(class_names, iou, recall, shares, strict=True):
        rows.append("| " + " | ".join([name, *(f"{value:.2f}" for value in values)]) + " |")
    # mIoU and mAcc weigh all classes equally, aAcc all pixels.
    means = f"{mean_of_present(iou):.2f} | {mean_of_present(recall):.2f}"
    rows.append(f"| **mean (mIoU, mAcc)** | {means} | |")
    rows.append(f"| **all pixels (aAcc)** | | {100 * confusion.accuracy():.2f} | 100.00 |")
    (folder / "per_class.md").write_text("\n".join(rows) + "\n")


def _draw(counts: np.ndarray, class_names: Sequence[str], path: epath.Path) -> None:
    """Draws the confusion matrix. Each row is a true class and sums to 1, so the diagonal is the recall."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = len(class_names) <= _NAMED_CLASSES
    side = 3 + 0.35 * len(class_names) if named else 8
    # Without pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if named:
        ticks = range(len(class_names))
        axes.set_xticks(ticks, class_names, rotation=90)
        axes.set_yticks(ticks, class_names)
        # Only counts above 0 are written: most cells are empty.
        for row, column in np.argwhere(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=shade)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    _write(figure, path, dpi=100)


def draw_contact_sheet(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    path: epath.Path,
    colors: Sequence[str] | None = None,
) -> None:
    """Draws images in a grid, each under its title.

    Args:
        images: Images, uint8 [H, W, 3] each.
        titles: One title per image.
        path: Path of the PNG to write.
        colors: One colour per title; black by default.
    """
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    # For the whole grid: its last row may have cells without an image.
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title, color in zip(
        grid.flat, images, titles, colors or ["black"] * len(images), strict=False
    ):
        axes.imshow(image)
        axes.set_title(title, fontsize=8, color=color)
    _write(figure, path, dpi=90)


def _write(figure: Figure, path: epath.Path, dpi: int) -> None:
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=dpi)
