"""Drives a headless Chromium through chromedriver and the protocol that W3C calls WebDriver."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from convert.latency.devices.base import DeviceError

_INSTALL = "install Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without a window, and without the connections that browsers make in the background. Root has no sandbox to use.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_SECONDS = 300  # For a script, such as fifty runs of a large model, on a slow machine.


class Session:
    """A browser with one page; a context manager that closes it.

    Args:
        cores: Cores that the browser may use; () for all.
        options: Further command line options of Chromium.

    Attributes:
        browser: Name and version of the browser.

    Raises:
        DeviceError: Chromium or its driver is missing or does not start.
    """

    def __init__(self, cores: Sequence[int] = (), options: Sequence[str] = ()):
        driver = shutil.which("chromedriver")
        binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
        if driver is None or binary is None:
            raise DeviceError(f"there is no {'chromedriver' if binary else 'Chromium'} here; {_INSTALL}")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = pathlib.Path(self._profile.name) / "driver.log"
        command = [driver, "--port=0", f"--log-path={self._log}"]
        self._driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            if cores:
                os.sched_setaffinity(self._driver.pid, cores)  # The browser's processes inherit them.
            self._base = f"http://127.0.0.1:{self._port()}/session"
            arguments = [*_OPTIONS, f"--user-data-dir={self._profile.name}/profile", *options]
            wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments, "binary": binary}}
            made = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            self._base += f"/{made['sessionId']}"
            self.browser = f"Chromium {made['capabilities']['browserVersion']}"
            self._call("POST", "/timeouts", {"script": 1000 * _SECONDS, "pageLoad": 1000 * _SECONDS})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str) -> None:
        """Loads a page."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *values: Any) -> Any:
        """Runs JavaScript and returns what it passes to its last argument, a function."""
        return self._call("POST", "/execute/async", {"script": script, "args": list(values)})

    def type_into(self, selector: str, text: str) -> None:
        """Types into an element; a file input takes the path of a file."""
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        (name,) = found.values()
        self._call("POST", f"/element/{name}/value", {"text": text})

    def screenshot(self) -> bytes:
        """Returns what the window shows, as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def close(self) -> None:
        """Ends the browser and its driver."""
        try:
            if "/session/" in getattr(self, "_base", ""):
                self._call("DELETE", "")
        except DeviceError:
            pass  # It has ended already.
        self._driver.terminate()
        self._driver.wait()
        self._driver.stdout.close()
        self._profile.cleanup()

    def _port(self) -> int:
        """Returns the port that the driver chose, which it prints."""
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip(". \n").split()[-1])
        raise DeviceError(f"chromedriver did not start; {_INSTALL}")

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._base + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.load(error)["value"]["message"].splitlines()[0]
            raise DeviceError(f"Chromium: {said}") from error
        except OSError as error:
            raise DeviceError(f"chromedriver does not answer: {error}; {_INSTALL}") from error
