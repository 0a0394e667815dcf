"""Exports a file of weights to a bundle and checks it; `convert/export/__main__.py` is the command line."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging
from etils import epath

from convert.bundle import PRECISIONS, Bundle
from convert.checkpoints import pretrained
from convert.export import calibration, parity, preparation, readme
from convert.export import report as export_report
from convert.export.accuracy import Validation
from convert.export.average_precision import BoxValidation
from convert.export.card import new_bundle
from convert.export.quiet import quiet
from convert.export.request import Request, outputs, runtime_of
from convert.labels.boxes import Decoding
from convert.runtimes import registry
from convert.runtimes.base import Graph, Network
from seaformer_jax import versions
from seaformer_jax.detection.postprocess import Settings
from seaformer_jax.errors import UserError
from seaformer_jax.resize import resize_linear

if TYPE_CHECKING:
    import torch

# Flag -> the most images that are read from its folder.
_MOST_IMAGES = {"images": 50, "validation": 50, "calibration": 100}


class Export:
    """One export: the constructor loads everything and checks the request, `run` writes the bundle.

    Raises:
        UserError: The request contradicts itself or the weights, or it names a file or folder that does not exist.
    """

    def __init__(self, request: Request):
        # 1. The request is checked before anything is read, and against the weights before a model is built.
        self.request, self.runtime = request, runtime_of(request)
        stored = pretrained.read(request.weights)
        self.output, self.tail = outputs(request.output, stored.task, stored.classes, self.runtime)
        # 2. The trained model in JAX, which is the reference for all comparisons.
        self.source = pretrained.load(stored, request.class_names, request.mean, request.std)
        self.trained = pretrained.in_jax(self.source)
        # 3. The network to export, and the preparation of its images.
        self.preparation = preparation.Preparation.of(
            self.source.card,
            task=self.source.task,
            size=request.input_size,
            mean=self.source.mean,
            std=self.source.std,
            inside=request.inside,
            input_type=request.input_type,
        )
        self.graph = Graph(
            self._deployed(),
            self.source.task,
            self.output,
            request.input_size,
            request.input_type,
            request.dynamic_batch,
            request.opset,
        )
        self.decoding = _decoding(self.source) if self.output == "head" else {}
        # 4. Images to compare on, to calibrate with and to score on. The seeded ones come first: the first image also
        # becomes the reference of the bundle.
        chosen = {flag: self._chosen(flag) for flag in _MOST_IMAGES}
        if request.validation:
            calibration.check_apart(chosen["calibration"], request.validation)
        compared = map(self.preparation.read, [*chosen["images"], *chosen["validation"]])
        self.images = [*preparation.seeded(request.input_size), *compared]
        self.calibration = [
            self.preparation.exported(self.preparation.read(path)) for path in chosen["calibration"]
        ]
        self.validation = None
        if request.validation:
            about = request.validation, self.source.labels, self.preparation
            self.validation = BoxValidation(*about, self.decoding) if self.decoding else Validation(*about)
        # int8 is reported beside the other precisions, so they are exported, too.
        self.precisions = PRECISIONS if request.precision == "int8" else (request.precision,)

    def run(self, folder: pathlib.Path) -> dict[str, Any]:
        """Writes the bundle to `folder` and returns its report.

        Raises:
            UserError: The runtime cannot take the model, or the exported model differs too much from the trained one.
        """
        # The precisions that were not asked for are written to `scratch`, and are gone after the comparison.
        with tempfile.TemporaryDirectory() as scratch:
            # 1. Export, and load the results in the runtime.
            bundles = self._write(folder, pathlib.Path(scratch))
            with quiet():
                networks = {precision: self.runtime.load(bundle) for precision, bundle in bundles.items()}
            # 2. Compare with the trained model, then score and time the results.
            comparisons = self._compare(networks)
            trained_score, scores = self._scores(networks)
            milliseconds = {}
            if self.runtime.RUNS_HERE:
                milliseconds = export_report.medians(networks, self.preparation.exported(self.images[0]))
            rows = [
                export_report.record(
                    bundle,
                    comparisons[precision],
                    milliseconds.get(precision),
                    self.runtime.outside(bundle),
                    scores.get(precision),
                )
                for precision, bundle in bundles.items()
            ]
        # 3. Report, and complete the bundle that was asked for.
        report = self._report(bundles[self.request.precision], rows, trained_score)
        self._finish(bundles[self.request.precision], networks[self.request.precision], report)
        return report

    def _deployed(self) -> "torch.nn.Module":
        """Returns the inference form of the trained model in PyTorch."""
        # PyTorch is known to be installed by now.
        from convert.graph.input_layers import from_camera
        from convert.graph.rewrites import deploy

        most = 255 if self.request.input_type == "uint8" else 1  # The largest value of an image.
        scaled = [[most * value for value in values] for values in (self.source.mean, self.source.std)]
        size, normalization = self.request.input_size, scaled if self.request.inside else None
        model = deploy(pretrained.in_torch(self.source), size, normalization)
        return from_camera(model) if self.request.input_type == "uint8" else model

    def _write(self, folder: pathlib.Path, scratch: pathlib.Path) -> dict[str, Bundle]:
        """Writes the model in every precision; those that were not asked for go to folders in `scratch`."""
        bundles = {}
        for precision in self.precisions:
            place = folder if precision == self.request.precision else scratch / precision
            place.mkdir(exist_ok=True)
            bundles[precision] = self._bundle(place, precision)
        folders = {precision: bundle.folder for precision, bundle in bundles.items()}
        logging.info("writing %s for %s", ", ".join(folders), self.request.format)
        with _one_line(self.request.format):
            self.runtime.export(self.graph, folders, self.calibration)
            for bundle in bundles.values():
                self.runtime.annotate(bundle)
        return bundles

    def _bundle(self, folder: pathlib.Path, precision: str) -> Bundle:
        """Returns the description of the model in one precision."""
        source, request = self.source, self.request
        packages = ("seaformer-jax", "jax", "torch", *registry.packages(request.format))
        return new_bundle(
            folder,
            self.graph,
            source.name,
            request.format,
            precision=precision,
            tail=self.tail,
            preparation=self.preparation,
            labels=source.labels,
            decoding=self.decoding,
            licence=request.licence or source.card.get("licence", ""),
            source={"file": source.path.name, "sha256": source.sha256},
            versions={package: versions.installed(package) for package in packages},
        )

    def _compare(self, networks: Mapping[str, Network]) -> dict[str, parity.Comparison]:
        """Compares every precision with the trained model; raises UserError if one is out of tolerance."""
        logging.info("comparing with the trained model on %d images", len(self.images))
        expected, size = [self._expected(image) for image in self.images], self.request.input_size
        agreement = parity.same_classes(size)
        if self.decoding:
            agreement = parity.same_boxes(Decoding(size, **self.decoding))
        comparisons = {}
        for precision, network in networks.items():
            found = [network(self.preparation.exported(image)) for image in self.images]
            comparisons[precision] = parity.compare(expected, found, agreement)
            parity.check(comparisons[precision], precision)
        return comparisons

    def _expected(self, image: np.ndarray) -> np.ndarray:
        """Returns the logits of the trained model, resized to the input size if the exported model does that."""
        logits = self.trained(self.preparation.trained(image))
        if self.source.task == "segmentation" and self.output == "logits":
            return np.asarray(resize_linear(logits, (1, *self.request.input_size, logits.shape[3])))
        return logits

    def _scores(self, networks: Mapping[str, Network]) -> tuple[float | None, dict[str, float]]:
        """Returns the scores of the trained model and of every precision on the validation set, in percent.

        Raises:
            UserError: int8 loses more than `max_drop`.
        """
        if self.validation is None:
            return None, {}
        logging.info(
            "scoring the trained model and %s on %d images", ", ".join(networks), len(self.validation)
        )
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

    def _report(self, bundle: Bundle, rows: Sequence[dict[str, Any]], score: float | None) -> dict[str, Any]:
        """Returns the content of report.json; `score` is that of the trained model."""
        fields = ("name", "task", "format", "precision", "output", "tail", "input_size", "input_type")
        return {
            **{field: getattr(bundle, field) for field in (*fields, "source", "versions")},
            "metric": self.validation.metric if self.validation else None,
            "trained_score": score,
            "precisions": rows,
            "calibration": self.request.calibration,
            "calibration_images": len(self.calibration),
            "validation": self.request.validation,
            "validation_images": len(self.validation) if self.validation else 0,
            "max_drop": self.request.max_drop,
            "runs_here": self.runtime.RUNS_HERE,
            "remark": self.runtime.remark(bundle),
        }

    def _finish(self, bundle: Bundle, network: Network, report: dict[str, Any]) -> None:
        """Writes everything but the model file, which the runtime has written."""
        image = self.preparation.exported(self.images[0])
        bundle.write_reference(image, network(image))
        bundle = dataclasses.replace(bundle, score=export_report.score(report))
        bundle.write_card()  # After the files of which it holds the checksums.
        bundle.write_report(report, export_report.text(report))
        bundle.write_readme(readme.text(bundle))
        bundle.copy_tail()

    def _chosen(self, flag: str) -> list[epath.Path]:
        """Returns the images to read from the folder of `flag`; [] if the flag is not given."""
        folder = getattr(self.request, flag)
        return preparation.of_folder(flag, folder, _MOST_IMAGES[flag]) if folder else []


def _decoding(source: pretrained.Pretrained) -> dict[str, float]:
    """Returns `Bundle.decoding` for a detector: the settings of its evaluation, or those of mmdetection."""
    settings = {name: source.card.get(name, value) for name, value in Settings()._asdict().items()}
    return {"anchor_scale": source.model.anchor_scale, **settings}


@contextlib.contextmanager
def _one_line(name: str):
    """Turns any error of a converter into a UserError of one line, and suppresses the converter's output."""
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:  # Converters can raise almost anything.
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{name} cannot take the model: {type(error).__name__}: {reason[:300]}") from error
