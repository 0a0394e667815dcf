"""Writes the input files and arguments of the runners (runner/main.cpp), and reads their output file."""

import pathlib

import numpy as np

from convert.bundle import Bundle
from convert.labels.boxes import Decoding
from convert.latency.on_device import image_pipeline
from convert.runtimes import base

_TAILS = {"classification": "class", "segmentation": "labels", "detection": "boxes"}


class RunnerInput:
    """The files and arguments that a runner needs to run one bundle."""

    def __init__(self, bundle: Bundle):
        self._bundle = bundle

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes the image and the reference input into `folder`.

        Returns:
            All files that the runner reads: the model, the image and the reference input.
        """
        image, reference = folder / "image", folder / "input"
        image.write_bytes(image_pipeline.picture(self._bundle).tobytes())
        # The runner copies the file into the network's input as it is.
        reference.write_bytes(base.in_layout(self._bundle.reference()[0], self._bundle.layout).tobytes())
        return [*self._bundle.model_files(), image, reference]

    def arguments(
        self, folder: str, threads: int, warmup: int, runs: int, counting: bool = False
    ) -> list[str]:
        """Returns the runner's arguments, as "key=value".

        Args:
            folder: Folder of the runner's files on the device.
            threads: Number of threads of the runtime.
            warmup: Number of runs before those that are measured.
            runs: Number of measured runs.
            counting: Set marks for the counting plugin (count.c) instead of reading the clock.
        """
        arguments = {key: f"{folder}/{key}" for key in ("image", "input", "output", "result")}
        arguments["model"] = f"{folder}/{self._bundle.model.name}"
        arguments |= {"threads": threads, "warmup": warmup, "runs": runs, "marks": int(counting)}
        return [f"{key}={value}" for key, value in (arguments | self._description()).items()]

    def _description(self) -> dict[str, object]:
        """Returns the arguments that describe the model."""
        bundle = self._bundle
        height, width = bundle.input_size
        arguments = {
            "height": height,
            "width": width,
            "input_type": bundle.input_type,
            "layout": bundle.layout,
            "output_layout": bundle.output_layout,
            "names": ",".join((base.INPUT, *base.names(bundle.output))),
            "half": int(bundle.precision == "fp16"),
            "tail": "none" if bundle.output == "labels" else _TAILS[bundle.task],
        }
        if bundle.decoding:
            arguments["decoding"] = ",".join(str(bundle.decoding[name]) for name in Decoding.settings())
        if bundle.normalization:
            mean, std = bundle.normalization
            arguments |= {"mean": ",".join(map(str, mean)), "std": ",".join(map(str, std))}
        return arguments

    def output(self, path: pathlib.Path) -> np.ndarray:
        """Reads the network's output for the reference input, in the layout of the expected output: channels last."""
        expected = self._bundle.reference()[1]
        shape, values = expected.shape, np.fromfile(path, expected.dtype)
        if self._bundle.output == "head":  # All logits, and then all box deltas.
            anchors = shape[1]
            logits, deltas = np.split(values, [values.size - 4 * anchors])
            return np.concatenate([logits.reshape(1, anchors, -1), deltas.reshape(1, anchors, 4)], axis=-1)
        if self._bundle.output_layout != "NCHW":
            return values.reshape(shape)
        # The runner writes the model's own layout, [1, C, H, W].
        _, height, width, classes = shape
        return values.reshape(1, classes, height, width).transpose(0, 2, 3, 1)
