"""A pytest plugin that measures the CPU seconds of every test, those of its child processes included.

    python -m pytest --cpu-seconds FILE.md

writes the total and the slowest 30 tests. CPU seconds say the same on a busy machine; wall time does not.
"""

import collections
import pathlib
import resource

import pytest

from tests import forked

SLOWEST = 30
_KEY = "cpu seconds"
_started = 0.0
_seconds: dict[str, float] = collections.defaultdict(float)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu-seconds", metavar="FILE.md", help="write a table of the slowest tests to this file"
    )


def used() -> float:
    """CPU seconds of this process and of all children that have ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(who)[:2]) for who in whose) + forked.cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    global _started
    _started = used()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Adds what was used since the last report, so that fixtures count for the test that needs them first."""
    global _started
    report, now = (yield), used()
    report.user_properties.append((_KEY, now - _started))
    _started = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # The reports of one test share their list, so the newest entry is this report's.
    _seconds[report.nodeid] += next(value for key, value in reversed(report.user_properties) if key == _KEY)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--cpu-seconds")
    if path and not hasattr(session.config, "workerinput"):
        pathlib.Path(path).write_text(table(_seconds))


def table(seconds: dict[str, float]) -> str:
    """Returns the total and the slowest tests in Markdown; `seconds` maps node ids to CPU seconds."""
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:SLOWEST]
    lines = [
        f"{sum(seconds.values()):.0f} CPU seconds in {len(seconds)} tests. The slowest {len(slowest)}:",
        "",
    ]
    lines += ["| CPU seconds | test |", "| ---: | --- |"]
    return "\n".join([*lines, *(f"| {value:.1f} | `{name}` |" for name, value in slowest)]) + "\n"
