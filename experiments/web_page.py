"""Segments real frames in a browser, compares the labels with the bundle's, and keeps a screenshot of the page.

    python -m experiments.web_page --frames PATH/TO/camvid/images/val [--count 20]

Exports the weights `camvid` that come with the package for the web, opens the page in headless Chromium, and gives it
frame after frame as a user does: all in WebAssembly, and a few in WebGPU, which Chromium emulates where there is no
GPU. Writes experiments/results/web_page.json and .png. Needs Chromium with its driver, and npm once.
"""

import argparse
import base64
import io
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from convert import weights
from convert.bundle import Bundle
from convert.checkpoints import files
from convert.export.exporter import Export
from convert.export.preparation import Preparation
from convert.export.request import Request
from convert.labels.class_map import classes
from convert.latency.devices.browser import OPTIONS, serve
from convert.latency.devices.webdriver import Session
from convert.runtimes import registry
from experiments import measure
from seaformer_jax import json_files
from seaformer_jax.data.segmentation import label_sets
from seaformer_jax.training import trained

_TEXT = "arguments[1](document.getElementById(arguments[0]).innerText)"
_PIXELS = """
const { width, height } = overlay, data = overlay.getContext("2d").getImageData(0, 0, width, height).data;
let text = "";
for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
arguments[0]([height, width, btoa(text)]);
"""
_WINDOW = "--window-size=900,1000"
_WEBGPU_FRAMES = 2  # Ten seconds a frame if WebGPU is emulated.
_SECONDS = 120  # Until a photograph is segmented, on a busy machine.


class Page:
    """The page of a web bundle in a browser, used as a person uses it. A context manager that closes it."""

    def __init__(self, bundle: Bundle, options: tuple[str, ...] = (_WINDOW,)):
        self._server = serve(bundle.folder)
        self.session = Session(options=options)
        self.session.open(f"http://localhost:{self._server.server_port}/")
        self.wait_for("drop a photograph")

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self._server.shutdown()
        self._server.server_close()

    def text(self, element: str) -> str:
        """Returns the text of the element with an id, such as "status" or "legend"."""
        return self.session.run(_TEXT, element)

    def wait_for(self, words: str) -> str:
        """Waits until the status has the given words and returns it."""
        end = time.monotonic() + _SECONDS
        while words not in (status := self.text("status")):
            if time.monotonic() > end or "cannot" in status:
                raise RuntimeError(f"the page says {status!r}, not {words!r}")
            time.sleep(0.1)
        return status

    def show(self, photo: pathlib.Path) -> str:
        """Chooses a photograph and returns the status when the page shows it."""
        self.session.type_into("#file", str(photo))
        return self.wait_for(photo.name)

    def colours(self) -> np.ndarray:
        """Returns the colours of the class map that is drawn, uint8 [H, W, 3]."""
        height, width, text = self.session.run(_PIXELS)
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 3)


def export(folder: pathlib.Path, size: tuple[int, int]) -> Bundle:
    """Exports the weights `camvid` for the web, to folder/web."""
    config, _, _, model, _ = trained.load_pretrained("camvid")
    labels = label_sets.camvid()
    files.write_state_dict(folder / "camvid.pth", weights.to_torch(model))
    card = {"model": config.model.name, "mean": config.data.mean, "std": config.data.std}
    encoding = {name: getattr(labels, name) for name in ("palette", "ignore_label")}
    json_files.write(folder / "camvid.json", card | {"class_names": labels.class_names, "labels": encoding})
    (folder / "web").mkdir()
    Export(Request(folder / "camvid.pth", "web", size)).run(folder / "web")
    return Bundle.open(folder / "web")


def compare(
    bundle: Bundle, frames: list[pathlib.Path], screenshot: pathlib.Path, *options: str
) -> dict[str, object]:
    """Returns how many pixels of the frames have another class on the page than the bundle gives in Python.

    Args:
        bundle: A web bundle.
        frames: Photographs.
        screenshot: File for a picture of the page with the last frame.
        *options: Further command line options of Chromium.
    """
    preparation, network = Preparation.of_bundle(bundle), registry.load(bundle)
    different, pixels = 0, 0
    with Page(bundle, (_WINDOW, *options)) as page:
        for frame in frames:
            status = page.show(frame)
            labels = classes(network(preparation.exported(preparation.read(frame))), bundle.input_size)
            expected = np.array(bundle.palette, np.uint8)[labels]
            different += int((page.colours() != expected).any(-1).sum())
            pixels += labels.size
        picture = Image.open(io.BytesIO(page.session.screenshot())).convert("RGB")
        picture.thumbnail((560, 560))
        picture.save(screenshot, optimize=True)
        facts = {"browser": page.session.browser, "status": status}
    return {"frames": len(frames), "pixels": pixels, "different": different, **facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames", type=pathlib.Path, required=True, help="folder of photographs of 480 x 360"
    )
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    found = sorted(options.frames.iterdir())
    frames = found[:: max(1, len(found) // options.count)][: options.count]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = export(pathlib.Path(scratch), (360, 480))
        other = pathlib.Path(scratch) / "webgpu.png"
        results = {
            "wasm": compare(bundle, frames, measure.RESULTS / "web_page.png"),
            "webgpu": compare(bundle, frames[:_WEBGPU_FRAMES], other, *OPTIONS["webgpu"]),
        }
    measure.write("web_page", results)
    for backend, result in results.items():
        print("{}: {different} of {pixels} pixels differ; {status}".format(backend, **result))


if __name__ == "__main__":
    main()
