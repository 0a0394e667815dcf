"""The language of the ExecuTorch runner (arm/runner.cpp): its files and arguments."""

import pathlib

import numpy as np

from convert.bundle import Bundle
from convert.latency.on_device import image_pipeline


class RunnerInput:
    """What the runner needs to run a bundle."""

    def __init__(self, bundle: Bundle):
        self._bundle = bundle

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Puts image and reference input into a folder; returns these files and the model."""
        image, reference = folder / "image.u8", folder / "input.f32"
        image.write_bytes(image_pipeline.picture(self._bundle).tobytes())
        planes = self._bundle.reference()[0].transpose(0, 3, 1, 2)
        reference.write_bytes(np.ascontiguousarray(planes, np.float32).tobytes())
        return [self._bundle.model, image, reference]

    def arguments(
        self, folder: str, threads: int, warmup: int, runs: int, counting: bool = False
    ) -> list[str]:
        """The arguments for files in `folder`; counting: set marks for arm/count.c and read no clock."""
        bundle = self._bundle
        height, width = bundle.input_size
        arguments = {
            "model": f"{folder}/{bundle.model.name}",
            "image": f"{folder}/image.u8",
            "input": f"{folder}/input.f32",
            "output": f"{folder}/output.f32",
            "height": height,
            "width": width,
            "tail": "class" if bundle.task == "classification" else "labels",
            "warmup": warmup,
            "runs": runs,
            "threads": threads,
            "marks": int(counting),
        }
        if bundle.normalization:
            mean, std = bundle.normalization
            arguments |= {"mean": ",".join(map(str, mean)), "std": ",".join(map(str, std))}
        return [f"{key}={value}" for key, value in arguments.items()]

    def output(self, path: pathlib.Path) -> np.ndarray:
        """Reads the network's output of the reference input; laid out like the expected output."""
        shape = self._bundle.reference()[1].shape
        values = np.fromfile(path, np.float32)
        if self._bundle.output_layout != "NCHW":
            return values.reshape(shape)
        _, height, width, classes = shape
        return values.reshape(1, classes, height, width).transpose(0, 2, 3, 1)
