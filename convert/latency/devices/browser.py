"""Measures in Chromium on this machine: a server, the browser's driver, and the scripts of the bundle's page."""

import base64
import functools
import http.server
import os
import pathlib
import threading
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import probe
from convert.latency.devices.base import DeviceError, Samples, Schedule, choose_cores, timed_schedule
from convert.latency.devices.host import shell
from convert.latency.devices.webdriver import Session
from convert.latency.on_device import image_pipeline

_LOAD = """
const [backend, threads, pixels] = arguments, done = arguments[arguments.length - 1];
import('/measure.js')
  .then(({ Measurement }) => Measurement.load(backend, threads, pixels))
  .then((measurement) => { window.measurement = measurement; done([backend, crossOriginIsolated]); })
  .catch((error) => done({ error: String(error) }));
"""
_CALL = """
const [name, ...values] = [...arguments].slice(0, -1), done = arguments[arguments.length - 1];
window.measurement[name](...values).then(done).catch((error) => done({ error: String(error) }));
"""


_ADAPTER = """
const done = arguments[0];
const name = ({ vendor, architecture }) => `${vendor} ${architecture}`.trim();
Promise.resolve(navigator.gpu?.requestAdapter())
  .then((adapter) => done(adapter ? name(adapter.info) : ""), () => done(""));
"""
# On Linux Chromium offers WebGPU only if it is asked to. Without a GPU it emulates one on the processor.
OPTIONS = {"wasm": (), "webgpu": ("--enable-unsafe-webgpu",)}


class Browser:
    """Headless Chromium. See `base.Device`.

    Args:
        threads: Threads of WebAssembly, and cores that the browser may use.
        backend: "wasm" or "webgpu".

    Raises:
        DeviceError: There is no Chromium, or it has no such backend.
    """

    unit = "ms"

    def __init__(self, threads: int, backend: str = "wasm"):
        self.name = "browser" if backend == "wasm" else f"browser:{backend}"
        self.threads, self.backend = threads, backend
        self._facts = probe.facts(shell)
        self.cores = choose_cores(self._facts.pop("max_khz"), threads)
        with self.session() as session:  # Tells at once whether there is a browser.
            runs_on = f"webgpu on {_adapter(session)}" if backend == "webgpu" else backend
            self._facts["emulator"] = f"{session.browser}, {runs_on}"

    def session(self) -> Session:
        """Returns a browser that has the backend, on the chosen cores."""
        return Session(self.cores, OPTIONS[self.backend])

    def facts(self) -> dict[str, Any]:
        return {**self._facts, "cores": self.cores}

    def condition(self) -> dict[str, Any]:
        return probe.condition(shell, self.cores)

    def schedule(self, runs: int) -> Schedule:
        return timed_schedule(runs)

    def check(self, bundle: Bundle) -> None:
        if bundle.format != "web":
            raise DeviceError(
                f"{bundle.folder} is an {bundle.format} bundle; a browser runs web; export it with --format web"
            )

    def job(self, bundle: Bundle) -> "BrowserJob":
        return BrowserJob(bundle, self)


class BrowserJob:
    """A browser that has loaded the model of one bundle. See `base.Job`."""

    def __init__(self, bundle: Bundle, device: Browser):
        self._bundle = bundle
        self._server = serve(bundle.folder)
        self._session = device.session()
        self._session.open(f"http://localhost:{self._server.server_port}/measure.js")
        pixels = base64.b64encode(image_pipeline.picture(bundle).tobytes()).decode()
        self._ask(_LOAD, device.backend, device.threads, pixels)

    def measure(self, warmup: int, runs: int) -> Samples:
        return self._ask(_CALL, "measure", warmup, runs)

    def output(self) -> np.ndarray:
        reference, expected = self._bundle.reference()
        planes = reference.transpose(0, 3, 1, 2) if self._bundle.layout == "NCHW" else reference
        given = base64.b64encode(np.ascontiguousarray(planes).tobytes()).decode()
        found = np.frombuffer(base64.b64decode(self._ask(_CALL, "output", given)), expected.dtype)
        if self._bundle.output_layout != "NCHW":
            return found.reshape(expected.shape)
        batch, height, width, classes = expected.shape
        return found.reshape(batch, classes, height, width).transpose(0, 2, 3, 1)

    def peak_bytes(self) -> None:
        return None  # A browser is many processes, most of which do other work.

    def close(self) -> None:
        self._session.close()
        self._server.shutdown()
        self._server.server_close()

    def _ask(self, script: str, *values: Any) -> Any:
        answer = self._session.run(script, *values)
        if isinstance(answer, dict) and "error" in answer:
            raise DeviceError(f"{self._bundle.folder} does not run in the browser: {answer['error']}")
        return answer


def _adapter(session: Session) -> str:
    """Returns the name of the GPU, or of its emulation, that WebGPU uses."""
    # Any page of localhost will do; others may not ask for a GPU.
    server = serve(pathlib.Path(__file__).parent)
    try:
        session.open(f"http://localhost:{server.server_port}/")
        name = session.run(_ADAPTER)
    finally:
        server.shutdown()
        server.server_close()
    if not name:
        raise DeviceError(f"{session.browser} has no WebGPU here; measure with --device browser")
    return name


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files to a page that is isolated from others, which may then use several threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""


def serve(folder: os.PathLike) -> http.server.ThreadingHTTPServer:
    """Returns a server of the files in `folder` on a free port of this machine, in a thread of its own."""
    handler = functools.partial(_Handler, directory=os.fspath(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
