"""The page of a web bundle, in headless Chromium: it gives what the bundle gives in Python."""

import re
import subprocess
import sys
from http.client import HTTPConnection

import numpy as np
import pytest
from PIL import Image

from convert.bundle import Bundle
from convert.export import parity
from convert.export.preparation import Preparation
from convert.labels.class_map import argmax_upsample, classes
from convert.latency.devices.base import DeviceError
from convert.latency.devices.browser import OPTIONS, Browser, serve
from convert.latency.devices.webdriver import Session
from convert.runtimes import registry
from convert.web import library
from experiments.web_page import Page, compare, export
from seaformer_jax.errors import UserError
from tests.convert import small_bundles
from tests.convert.latency import device_standins
from tests.convert.small_bundles import NAMES
from tests.paths import REPOSITORY

DATA = REPOSITORY.parent / "shared/data/camvid/images/val"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module", autouse=True)
def browser() -> None:
    try:
        Session().close()
        library.fetched()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Bundle:
    folder, trained = tmp_path_factory.mktemp("segmenter"), small_bundles.network("segmentation")
    return small_bundles.write(folder, trained, "segmentation", "web", "logits8")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Bundle:
    folder, trained = tmp_path_factory.mktemp("classifier"), small_bundles.network("classification")
    return small_bundles.write(folder, trained, "classification", "web", "logits", input_type="uint8")


def photograph(folder, height: int, width: int):
    """Writes a smooth picture, because the filters round noise differently."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.mark.parametrize("backend, options", [("wasm", ()), ("webgpu", OPTIONS["webgpu"])])
@pytest.mark.parametrize("size", [(64, 96), (150, 111)])
def test_labels_and_legend(tmp_path, segmenter, size, backend, options):
    photo, preparation = photograph(tmp_path, *size), Preparation.of_bundle(segmenter)
    logits = registry.load(segmenter)(preparation.exported(preparation.read(photo)))
    labels = classes(logits, segmenter.input_size)
    with Page(segmenter, options) as page:
        status = page.show(photo)
        times = rf"photo\.png: preparation [\d.]+ ms, network [\d.]+ ms \({backend}\), labels [\d.]+ ms"
        assert re.fullmatch(times, status)
        expected = np.array(segmenter.palette, np.uint8)[labels]
        agree = np.mean((page.colours() == expected).all(-1))
        assert agree > (0.9999 if size == segmenter.input_size else 0.99)
        found = dict(
            re.fullmatch(r"(.*) ([\d.]+) %", line).groups() for line in page.text("legend").splitlines()
        )
    shares = {NAMES[k]: 100 * np.mean(labels == k) for k in np.unique(labels)}
    for name, share in shares.items():
        assert float(found.get(name, 0)) == pytest.approx(share, abs=1.5)


def test_classes(tmp_path, classifier):
    photo, preparation = photograph(tmp_path, 150, 111), Preparation.of_bundle(classifier)
    (logits,) = registry.load(classifier)(preparation.exported(preparation.read(photo)))
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    with Page(classifier) as page:
        page.show(photo)
        lines = [re.fullmatch(r"(.*) ([\d.]+) %", line).groups() for line in page.text("legend").splitlines()]
    assert [name for name, _ in lines] == [NAMES[k] for k in np.argsort(-shares)]
    np.testing.assert_allclose([float(share) for _, share in lines], 100 * np.sort(shares)[::-1], atol=2)


def test_camera(segmenter):
    """Chromium has a camera for tests, which shows a moving pattern."""
    with Page(segmenter, options=CAMERA) as page:
        page.session.run("camera.click(); arguments[0]()")
        assert re.search(r"[1-9][\d.]* frames per second", page.wait_for("frames per second"))
        assert page.text("camera") == "stop the camera" and page.text("legend")
        page.session.run("camera.click(); arguments[0]()")
        assert page.text("camera") == "start the camera"


def test_files_that_are_no_images(tmp_path, segmenter):
    (tmp_path / "text.png").write_text("no image")
    with Page(segmenter) as page:
        assert page.show(tmp_path / "text.png").startswith("text.png cannot be shown: ")


@pytest.mark.parametrize(
    "shape, size",
    [
        ((8, 12, 5), (64, 96)),
        ((7, 9, 40), (50, 71)),
        ((1, 3, 2), (5, 20)),
        ((9, 9, 1), (4, 4)),
        ((2, 3, 300), (16, 24)),
    ],
)
def test_labels_are_those_of_the_c_kernel(segmenter, shape, size):
    """Random logits, so that many classes meet in a cell; and integers, of which many are equal at eighths."""
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape)] + [rng.integers(0, 3, shape)] * (size == (64, 96))
    script = """
      const [logits, dims, size, done] = arguments;
      import("/labels.js").then(({ upsampledLabels }) => done(Array.from(upsampledLabels(logits, dims, size))));
    """
    server = serve(segmenter.folder)
    with Session() as session:
        session.open(f"http://localhost:{server.server_port}/model.json")
        for logits in given:
            planes = logits.transpose(2, 0, 1)
            found = session.run(script, planes.ravel().tolist(), planes.shape, size)
            np.testing.assert_array_equal(np.reshape(found, size), argmax_upsample(logits, size))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("shape", [(90, 150), (150, 90), (40, 60), (64, 96)])
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_images_are_resized_as_in_python(segmenter, shape, task):
    """OpenCV and Pillow round in fixed point, which makes a difference of one at most."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    script = """
      const [pixels, width, height, size, preprocessing, done] = arguments;
      const image = new ImageData(new Uint8ClampedArray(pixels), width, height);
      import("/resample.js").then(({ fit }) => done(Array.from(fit(image, size, preprocessing))));
    """
    rgba = np.concatenate([pixels, np.full((*shape, 1), 255, np.uint8)], -1)
    server = serve(segmenter.folder)
    for interpolation in ("bilinear", "bicubic"):
        prepare = Preparation(task, (64, 96), (), (), True, 0.875, interpolation)
        with Session() as session:
            session.open(f"http://localhost:{server.server_port}/model.json")
            size = rgba.ravel().tolist(), shape[1], shape[0], (64, 96)
            found = session.run(script, *size, prepare.described())
        difference = np.reshape(found, (64, 96, 3)) - prepare.fit(pixels).astype(int)
        assert np.abs(difference).max() <= 1
    server.shutdown()
    server.server_close()


def test_any_server_of_files_will_do(segmenter):
    """`python -m http.server` sends no headers that isolate the page, so that it has one thread."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=segmenter.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = int(re.search(r"port (\d+)", server.stdout.readline())[1])
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")
        assert b"page.js" in connection.getresponse().read()
        with Session() as session:
            session.open(f"http://localhost:{port}/")
            page = Page.__new__(Page)
            page.session = session
            page.wait_for("drop a photograph")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize("threads, backend", [(1, "wasm"), (2, "wasm"), (1, "webgpu")])
def test_browser_is_a_device(classifier, segmenter, threads, backend):
    device = Browser(threads, backend)
    assert re.fullmatch(rf"Chromium [\d.]+, {backend}( on .+)?", device.facts()["emulator"])
    for bundle in (classifier, segmenter):
        job = device.job(bundle)
        samples = job.measure(1, 3)
        assert [len(samples[step]) for step in samples] == [3] * 4
        expected = bundle.reference()[1]
        np.testing.assert_allclose(job.output(), expected, atol=1e-4 * np.abs(expected).max())
        job.close()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_files_in_webassembly(tmp_path, precision):
    bundle = small_bundles.write(
        tmp_path, small_bundles.network("segmentation"), "segmentation", "web", "logits8", precision=precision
    )
    job = Browser(1).job(bundle)
    job.measure(0, 1)
    assert parity.on_device(job.output(), bundle.reference()[1], bundle.output, precision)["ok"]
    job.close()


def test_other_bundles_are_refused(tmp_path):
    made = device_standins.write_bundle(tmp_path / "b", "onnx")
    with pytest.raises(
        DeviceError, match="is an onnx bundle; a browser runs web; export it with --format web"
    ):
        Browser(1).check(made)


@pytest.mark.slow
def test_real_frames(tmp_path):
    if not DATA.exists():
        pytest.skip(f"{DATA} is missing")
    bundle = export(tmp_path, (360, 480))
    result = compare(bundle, sorted(DATA.iterdir())[::34], tmp_path / "page.png")
    assert result["different"] <= 1e-4 * result["pixels"] and result["frames"] == 3
