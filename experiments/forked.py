"""Runs the project's commands in processes that need not import JAX, Flax and PyTorch anew.

A server imports them once and forks for every command: 0.1 CPU seconds instead of 3. It never touches a device, so
each command initialises JAX by itself. From there on a command is the real one: `runpy` runs its module as `__main__`
with arguments, flags, output, a process group and an exit status of its own. The compilation cache also keeps what
compiles in no time.

A server is a module that calls `serve`, after it has registered models of its own: `tests/forked.py` for the tests,
`experiments/campaign/server.py` for the campaign.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

_REPOSITORY = pathlib.Path(__file__).parents[1]
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def free_port() -> int:
    """Returns a port of this machine that no process listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Server:
    """A server process; it starts with the first command and ends with this process.

    Args:
        module: Full name of the module that calls `serve` when it is run.

    Attributes:
        cpu_seconds: CPU seconds of the server's imports and of all its commands that have ended.
    """

    def __init__(self, module: str):
        self._module = module
        self.cpu_seconds = 0.0

    @functools.cached_property
    def requests(self) -> socket.socket:
        """The socket for requests; the server ends when it is closed."""
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", self._module, str(theirs.fileno())]
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=os.environ | _ENVIRONMENT, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.cpu_seconds += json.loads(ours.recv(1000))["cpu_seconds"]

        def stop() -> None:
            ours.close()
            process.wait(60)

        atexit.register(stop)
        return ours


class Command:
    """A command that runs, after the manner of `subprocess.Popen`."""

    def __init__(
        self,
        server: Server,
        module: str,
        arguments: Sequence[object],
        devices: int = 1,
        merged: bool = False,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts `python -m module arguments`.

        Args:
            server: Server that runs it.
            module: Full name of the module.
            arguments: Command line.
            devices: Number of CPU devices.
            merged: Whether stderr goes into stdout.
            environment: Environment variables besides those of the server.
        """
        self._server = server
        self.returncode: int | None = None
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115
        self._stderr = self._stdout if merged else tempfile.TemporaryFile()  # noqa: SIM115
        request = {"module": module, "arguments": [*map(str, arguments)], "devices": devices}
        request["environment"] = dict(environment or {})
        self._replies, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), self._stdout.fileno(), self._stderr.fileno()]
        socket.send_fds(server.requests, [json.dumps(request).encode()], descriptors)
        theirs.close()
        self._lines = self._replies.makefile()
        self.pid = json.loads(self._lines.readline())["pid"]

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._replies], [], [], 0)[0]:
            self._end()
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits for the end; returns stdout and stderr."""
        if self.returncode is None:
            if not select.select([self._replies], [], [], timeout)[0]:
                os.killpg(self.pid, signal.SIGKILL)
                self._end()
                raise subprocess.TimeoutExpired(str(self.pid), timeout, *self._outputs())
            self._end()
        return self._outputs()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _end(self) -> None:
        end = json.loads(self._lines.readline())
        self.returncode = end["status"]
        self._server.cpu_seconds += end["cpu_seconds"]

    def _outputs(self) -> tuple[str, str]:
        for file in (self._stdout, self._stderr):
            file.seek(0)
        return tuple(file.read().decode() for file in (self._stdout, self._stderr))


def _imports() -> None:
    """Imports all that commands import, but not the commands: their flags belong to one process each."""
    import seaformer_jax.evaluation.evaluator
    import seaformer_jax.evaluation.prediction
    import seaformer_jax.evaluation.visualizer
    import seaformer_jax.training.loop
    import seaformer_jax.training.trained  # noqa: F401
    from seaformer_jax import command

    setup_jax = command.setup_jax

    def keep_all(config) -> None:
        import jax

        setup_jax(config)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    command.setup_jax = keep_all


def _serve(requests: socket.socket) -> dict:
    """Forks for every request; returns the request in the process that is to run it."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return _supervise(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass  # Supervisors of commands that have ended.


def _supervise(request: dict, replies: int, *outputs: int) -> dict:
    """Forks once more and reports how that process ends; returns the request in it."""
    if (pid := os.fork()) == 0:
        os.setsid()
        os.close(replies)
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
            os.close(output)
        return request
    os.write(replies, b'{"pid": %d}\n' % pid)
    _, status, usage = os.wait4(pid, 0)
    end = {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": usage.ru_utime + usage.ru_stime}
    os.write(replies, json.dumps(end).encode() + b"\n")
    os._exit(0)


def serve(register: Callable[[], None]) -> None:
    """Serves the commands of a `Server`, whose module calls this.

    Args:
        register: Makes models known to the commands; it is called once, before the first of them.
    """
    import jax

    _imports()
    register()
    gc.freeze()  # A collection in a command would copy all pages that it shares with the server.
    requests = socket.socket(fileno=int(sys.argv[1]))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    requests.send(json.dumps({"cpu_seconds": usage.ru_utime + usage.ru_stime}).encode())
    request = _serve(requests)
    jax.config.update("jax_num_cpu_devices", request["devices"])
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
