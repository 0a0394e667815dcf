"""The sides of the deployment tables: our bundles, the official ONNX graph and PyTorch's eager mode.

All sides of a table have the same weights. They take float32 images [1, H, W, 3] and return NumPy arrays.
"""

import copy
import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from convert.graph import rewrites
from convert.latency.devices.base import STEPS, Samples, Schedule, timed_schedule
from convert.latency.devices.host import Host, HostJob
from convert.runtimes import registry
from convert.runtimes.base import Graph

EAGER, PLAIN, PLAIN_LABELS, ONNX_LABELS = "eager", "plain onnx", "plain onnx labels", "onnx labels"
INT8 = ("onnx", "litert", "executorch", "openvino")  # The runtimes that have int8.


class EagerJob:
    """Runs a PyTorch module in this process with one thread on the device's core; a `devices.base.Job`."""

    def __init__(self, model: nn.Module, bundle: Bundle, cores: Sequence[int]):
        self._model, self._cores = model, cores
        self._path = seeded_bundles.LabelsPath(bundle.input_size)
        self._image, _ = bundle.reference()

    @torch.no_grad()
    def measure(self, warmup: int, runs: int) -> Samples:
        """Returns the samples of `runs` runs after `warmup` uncounted ones, in milliseconds."""
        samples: Samples = {step: [] for step in STEPS}
        # The process goes on with other work, so its cores and threads are restored at the end.
        before = os.sched_getaffinity(0), torch.get_num_threads()
        os.sched_setaffinity(0, self._cores)
        torch.set_num_threads(1)
        for number in range(warmup + runs):
            began = time.perf_counter_ns()
            logits = self._network()
            done = time.perf_counter_ns()
            (self._path(logits) if logits.ndim == 4 else logits.argmax(1)).numpy()
            ended = time.perf_counter_ns()
            if number >= warmup:
                # There is no pre-processing: the image is normalised already.
                for step, span in zip(STEPS, (0, done - began, ended - done, ended - began), strict=True):
                    samples[step].append(span / 1e6)
        os.sched_setaffinity(0, before[0])
        torch.set_num_threads(before[1])
        return samples

    @torch.no_grad()
    def output(self) -> np.ndarray:
        """Returns the logits, channels last as in a bundle's reference output."""
        logits = self._network()
        return (logits.permute(0, 2, 3, 1) if logits.ndim == 4 else logits).numpy()

    def peak_bytes(self) -> None:
        return None

    def close(self) -> None:
        pass

    def _network(self) -> Tensor:
        return self._model(torch.from_numpy(self._image).permute(0, 3, 1, 2).contiguous())


class HostWithEager(Host):
    """This machine with one thread; runs some bundles as PyTorch modules.

    Args:
        eager: Name of a bundle's folder -> the module that runs in its place.
    """

    def __init__(self, eager: Mapping[str, nn.Module]):
        super().__init__(threads=1)
        self._eager = eager

    def schedule(self, runs: int) -> Schedule:
        return timed_schedule(runs, warmup=2)

    def job(self, bundle: Bundle) -> HostJob | EagerJob:
        module = self._eager.get(bundle.folder.name)
        return HostJob(bundle, self.cores) if module is None else EagerJob(module, bundle, self.cores)


def write(
    folder: pathlib.Path, original: nn.Module, task: str, name: str, size: tuple[int, int], int8: bool
) -> list[Bundle]:
    """Writes a bundle for every side of a model, each in its own folder below `folder`.

    Only the latency of int8 means something, because random weights do not survive 8 bits.

    Args:
        folder: Existing folder for the bundles.
        original: Model from `seeded_networks.trained`.
        task: Task of the model.
        name: Name of the model.
        size: Height and width of the image.
        int8: Also write the int8 sides.
    """
    ours = rewrites.deploy(original, size)
    bundles = {
        kind: seeded_bundles.write_bundle(ours, folder / kind, task, name, kind, size) for kind in NATIVE
    }
    # The baselines are made from the ONNX bundle, whose reference input and output they keep.
    onnx = bundles["onnx"]
    sides = [sibling(onnx, EAGER, format="eager"), plain(sibling(onnx, PLAIN), original)]
    if task == "segmentation":
        # Both ONNX graphs that end in labels are compared with PyTorch's labels, so they share that reference.
        path = nn.Sequential(original, seeded_bundles.LabelsPath(size)).eval()
        labels = plain(sibling(onnx, PLAIN_LABELS, output="labels", tail="", output_layout=""), path)
        _expect(labels, path)
        sides += [labels, export(sibling(labels, ONNX_LABELS), ours)]
    sides += bundles.values()
    for kind in INT8 if int8 else ():
        sides.append(
            seeded_bundles.write_bundle(ours, folder / f"{kind} int8", task, name, kind, size, "int8")
        )
    return sides


def sibling(bundle: Bundle, name: str, **changes: object) -> Bundle:
    """Creates a bundle in the folder `name` next to another bundle; returns it.

    It has the other bundle's reference and fields except for `changes`, but no model yet.
    """
    new = dataclasses.replace(bundle, folder=bundle.folder.with_name(name), **changes)
    new.folder.mkdir()
    new.write_card()
    new.write_reference(*bundle.reference())
    return new


def plain(bundle: Bundle, model: nn.Module) -> Bundle:
    """Writes the graph of a module into the bundle as the official conversion to ONNX does; returns the bundle."""
    seeded_bundles.write_plain_graph(model, bundle.model, bundle.input_size)
    return bundle


@torch.no_grad()
def _expect(bundle: Bundle, path: nn.Module) -> None:
    """Sets PyTorch's labels as the expected output of a bundle."""
    image, _ = bundle.reference()
    labels = path(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    bundle.write_reference(image, labels.astype(np.uint8))


def export(bundle: Bundle, model: nn.Module) -> Bundle:
    """Writes `model`, from images [1, 3, H, W] to logits, into the bundle with our exporter; returns the bundle."""
    graph = Graph(copy.deepcopy(model), bundle.task, bundle.output, bundle.input_size)
    registry.find(bundle.format).export(graph, {bundle.precision: bundle.folder}, [])
    return bundle
