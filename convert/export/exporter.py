"""From a file of weights to a verified bundle; `convert/export.py` is its command line."""

import contextlib
import dataclasses
import io
import logging as python_logging
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from convert.bundle import KERNEL, MODEL_FILES, OUTPUTS, PRECISIONS, Bundle
from convert.checkpoints import pretrained
from convert.export import parity, preparation
from convert.export import report as export_report
from convert.export.accuracy import Validation
from convert.export.card import new_bundle
from convert.runtimes import registry
from convert.runtimes.base import Graph, Network, Runtime
from seaformer_jax import versions
from seaformer_jax.errors import UserError, suggest
from seaformer_jax.resize import resize_linear

if TYPE_CHECKING:
    import torch

_MOST_IMAGES = {"images": 50, "validation": 50, "calibration": 100}


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line; paths and folders as they are given there, "" where they are not.

    Attributes:
        weights: File.
        format, precision: See `Bundle`.
        output: Likewise; "" for logits of classifiers and logits8 of segmentation.
        input_size: H and W.
        inside: The model is to normalise.
        images, calibration, validation: Folders.
        max_drop: Points that int8 may lose on `validation`.
        class_names, mean, std: In place of those that are known of the weights; () keeps these.
    """

    weights: pathlib.Path
    format: str
    input_size: tuple[int, int]
    precision: str = "fp32"
    output: str = ""
    inside: bool = True
    images: str = ""
    calibration: str = ""
    validation: str = ""
    max_drop: float = 1.0
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Export:
    """One export, step by step.

    Raises:
        UserError: the request contradicts itself or the weights, or something that it names is not there.
    """

    def __init__(self, request: Request):
        self.request, self.runtime = request, _runtime(request)
        self.source = pretrained.load(request.weights, request.class_names, request.mean, request.std)
        self.trained = pretrained.in_jax(self.source)
        self.output, self.tail = _outputs(request.output, self.source.task, self.runtime)
        self.preparation = preparation.Preparation.of(
            self.source.card,
            task=self.source.task,
            size=request.input_size,
            mean=self.source.mean,
            std=self.source.std,
            inside=request.inside,
        )
        self.graph = Graph(self._deployed(), self.source.task, self.output, request.input_size)
        self.images = [
            *preparation.seeded(request.input_size),
            *self._fitted("images"),
            *self._fitted("validation"),
        ]
        self.calibration = [self.preparation.exported(image) for image in self._fitted("calibration")]
        self.validation = None
        if request.validation:
            self.validation = Validation(request.validation, self.source, self.preparation)
        self.precisions = PRECISIONS if request.precision == "int8" else (request.precision,)

    def run(self, folder: pathlib.Path) -> dict[str, Any]:
        """Fills `folder` with the bundle and returns its report.

        Raises:
            UserError: the runtime cannot take the model, or the result is too far from the trained one.
        """
        with tempfile.TemporaryDirectory() as scratch:
            bundles = self._write(folder, pathlib.Path(scratch))
            networks = {precision: self.runtime.load(made) for precision, made in bundles.items()}
            comparisons = self._compare(networks)
            trained_score, scores = self._scores(networks)
            milliseconds = export_report.medians(networks, self.preparation.exported(self.images[0]))
            rows = [
                export_report.record(
                    made,
                    comparisons[precision],
                    milliseconds[precision],
                    self.runtime.outside(made),
                    scores.get(precision),
                )
                for precision, made in bundles.items()
            ]
        report = self._report(bundles[self.request.precision], rows, trained_score)
        self._finish(bundles[self.request.precision], networks[self.request.precision], report)
        return report

    def _deployed(self) -> "torch.nn.Module":
        from convert.graph.rewrites import deploy  # PyTorch is known to be installed by now.

        normalization = (self.source.mean, self.source.std) if self.request.inside else None
        return deploy(pretrained.in_torch(self.source), self.request.input_size, normalization)

    def _write(self, folder: pathlib.Path, scratch: pathlib.Path) -> dict[str, Bundle]:
        """Writes the model in every precision, those that were not asked for below `scratch`."""
        bundles = {}
        for precision in self.precisions:
            place = folder if precision == self.request.precision else scratch / precision
            place.mkdir(exist_ok=True)
            bundles[precision] = self._bundle(place, precision)
        folders = {precision: made.folder for precision, made in bundles.items()}
        logging.info("writing %s for %s", ", ".join(folders), self.request.format)
        with _one_line(self.request.format):
            self.runtime.export(self.graph, folders, self.calibration)
        return bundles

    def _bundle(self, folder: pathlib.Path, precision: str) -> Bundle:
        source, request = self.source, self.request
        packages = ("seaformer-jax", "jax", "torch", *registry.packages(request.format))
        return new_bundle(
            folder,
            self.graph,
            source.name,
            request.format,
            precision=precision,
            tail=self.tail,
            normalized_inside=request.inside,
            mean=source.mean,
            std=source.std,
            class_names=source.labels.class_names,
            palette=source.labels.palette,
            source={"file": source.path.name, "sha256": source.sha256},
            versions={package: versions.installed(package) for package in packages},
        )

    def _compare(self, networks: Mapping[str, Network]) -> dict[str, parity.Comparison]:
        expected = [self._expected(image) for image in self.images]
        comparisons = {}
        for precision, network in networks.items():
            found = [network(self.preparation.exported(image)) for image in self.images]
            comparisons[precision] = parity.compare(expected, found, self.request.input_size)
            parity.check(comparisons[precision], precision)
        return comparisons

    def _expected(self, image: np.ndarray) -> np.ndarray:
        logits = self.trained(self.preparation.trained(image))
        if self.source.task == "segmentation" and self.output == "logits":
            return np.asarray(resize_linear(logits, (1, *self.request.input_size, logits.shape[3])))
        return logits

    def _scores(self, networks: Mapping[str, Network]) -> tuple[float | None, dict[str, float]]:
        """Scores on the validation set of the trained model and of every precision; checks the drop of int8."""
        if self.validation is None:
            return None, {}
        prepare = self.preparation
        best = self.validation.score(lambda image: self.trained(prepare.trained(image)))
        scores = {
            precision: self.validation.score(lambda image, network=network: network(prepare.exported(image)))
            for precision, network in networks.items()
        }
        if "int8" in scores and not best - scores["int8"] <= self.request.max_drop:
            raise UserError(
                f"int8 drops {self.validation.metric} from {best:.2f} to {scores['int8']:.2f} %, by more than "
                f"--max-drop {self.request.max_drop}; calibrate with more images, allow more, or choose fp16"
            )
        return best, scores

    def _report(self, made: Bundle, rows: Sequence[dict[str, Any]], score: float | None) -> dict[str, Any]:
        fields = ("name", "task", "format", "precision", "output", "tail", "input_size", "source", "versions")
        return {
            **{field: getattr(made, field) for field in fields},
            "metric": self.validation.metric if self.validation else None,
            "trained_score": score,
            "precisions": rows,
            "calibration": self.request.calibration,
            "calibration_images": len(self.calibration),
            "validation": self.request.validation,
            "validation_images": len(self.validation) if self.validation else 0,
            "max_drop": self.request.max_drop,
        }

    def _finish(self, made: Bundle, network: Network, report: dict[str, Any]) -> None:
        image = self.preparation.exported(self.images[0])
        made.write_card()
        made.write_reference(image, network(image))
        made.write_report(report, export_report.text(report))
        if made.tail:
            made.copy_kernel()

    def _fitted(self, flag: str) -> list[np.ndarray]:
        folder = getattr(self.request, flag)
        found = preparation.of_folder(flag, folder, _MOST_IMAGES[flag]) if folder else []
        return [self.preparation.fit(image) for image in found]


def _runtime(request: Request) -> Runtime:
    """The module of the request's format; UserError where it cannot do what is asked."""
    runtime = registry.find(request.format)
    if request.precision not in PRECISIONS:
        known = f"expected one of {', '.join(PRECISIONS)}.{suggest(request.precision, PRECISIONS)}"
        raise UserError(f"--precision {request.precision}; {known}")
    if request.precision not in runtime.PRECISIONS:
        others = ", ".join(name for name in MODEL_FILES if name != request.format)
        raise UserError(
            f"--precision {request.precision} is not there for {request.format}, which has "
            f"{', '.join(runtime.PRECISIONS)}; choose one of these, or one of {others}"
        )
    if request.precision == "int8" and not (request.calibration and request.validation):
        raise UserError(
            "int8 needs --calibration, a folder of images like those to come, and --validation, labelled ones on "
            "which the drop is measured (--max-drop)"
        )
    return runtime


def _outputs(wanted: str, task: str, runtime: Runtime) -> tuple[str, str]:
    """Returns what the model file is to give and the tail behind it, see `Bundle.output` and `Bundle.tail`."""
    known = ("logits",) if task == "classification" else OUTPUTS
    wanted = wanted or known[0]
    if wanted not in known:
        raise UserError(f"--output {wanted}: the weights are for {task}, which has {', '.join(known)}")
    if wanted == "labels" and not runtime.LABELS_IN_GRAPH:
        return "logits8", KERNEL
    return wanted, ""


@contextlib.contextmanager
def _one_line(name: str):
    """Makes whatever a converter raises a UserError, and keeps its remarks to itself."""
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        python_logging.disable(python_logging.WARNING)
        with silent[0], silent[1]:
            yield
    except UserError:
        raise
    except Exception as error:  # Converters raise almost anything.
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{name} cannot take the model: {type(error).__name__}: {reason[:300]}") from error
    finally:
        python_logging.disable(python_logging.NOTSET)
