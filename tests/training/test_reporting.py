"""Progress lines and the window of steps that each is about."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from seaformer_jax.errors import UserError
from seaformer_jax.training import reporting

VALUES = {
    "loss": 1.2344,
    "lr": 4.6e-4,
    "images_per_second": 812.3,
    "data_share": 0.021,
    "skipped": 0,
    "eta_seconds": 5 * 3600 + 12 * 60 + 59,
}


def test_progress_line():
    line = reporting.progress_line(12500, 160000, VALUES)
    assert line == "step 12500/160000 (7.8%) loss 1.234 lr 4.6e-04 img/s 812 data 2% ETA 5h12m"


@pytest.mark.parametrize(
    "speed, text", [(24.74, "24.7"), (99.9, "99.9"), (1430.2, "1430"), (61234.0, "61234")]
)
def test_speed_is_written_without_exponent(speed, text):
    assert f" img/s {text} data" in reporting.progress_line(1, 2, VALUES | {"images_per_second": speed})


def test_progress_line_tells_of_skipped_files():
    assert " data 2% skipped 3 ETA" in reporting.progress_line(1, 2, VALUES | {"skipped": 3})


@pytest.mark.parametrize(
    "seconds, text", [(12.9, "12s"), (187, "3m07s"), (3600, "1h00m"), (18779, "5h12m"), (360000, "100h00m")]
)
def test_duration(seconds, text):
    assert reporting.duration(seconds) == text


def test_results_line():
    results = {"loss": 1.02149, "top1": 71.234, "top5": 100.0, "images": 50000}
    assert reporting.results_line(500, results) == "step 500 val loss 1.021 top1 71.23 top5 100 images 50000"


@pytest.fixture
def clock(monkeypatch):
    """A clock of hand-set time: `clock.pass_(seconds, purpose)`."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now.seconds)
    clock = reporting.Clock({"train": 1000.0})

    def pass_(seconds: float, purpose: str) -> None:
        now.seconds += seconds
        clock.charge(purpose)

    clock.pass_ = pass_
    return clock


def metrics(loss: float, grad_norm: float = 1.0) -> dict:
    return {"loss": jnp.float32(loss), "grad_norm": jnp.float32(grad_norm)}


def test_a_window_counts_data_and_training_only(clock):
    window = reporting.Window(total_steps=100, batch_size=32, start_step=6, clock=clock)
    for loss in (1.0, 3.0):
        clock.pass_(1.0, "data")
        window.add_skipped(np.array([0, 2]))
        window.add(metrics(loss))
        clock.pass_(3.0, "train")
    clock.pass_(500.0, "evaluate")
    assert window.steps == 2
    values = window.close(8)
    assert values["loss"] == 2.0 and values["grad_norm"] == 1.0 and values["skipped"] == 4
    assert values["images_per_second"] == 2 * 32 / 8
    assert values["data_share"] == 0.25
    assert values["eta_seconds"] == 92 * 4
    assert window.steps == 0
    window.add(metrics(5.0))
    clock.pass_(2.0, "train")
    values = window.close(9)
    assert (values["loss"], values["skipped"], values["images_per_second"]) == (5.0, 0, 16.0)
    assert clock.seconds == {"train": 1008.0, "data": 2.0, "evaluate": 500.0}


@pytest.mark.parametrize("bad", [{"loss": np.nan}, {"loss": np.inf}, {"loss": 1.0, "grad_norm": np.nan}])
def test_a_window_that_is_not_finite_is_an_error(clock, bad):
    window = reporting.Window(100, 32, 6, clock)
    for values in ({"loss": 1.0}, bad, {"loss": np.nan}):
        window.add(metrics(**values))
    name = "gradient" if "grad_norm" in bad else "loss"
    with pytest.raises(
        UserError, match=f"the {name} is not finite: first at step 8, in the window of steps 7-9"
    ):
        window.close(9)


def compiled(memory: object, cost: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(memory_analysis=lambda: memory, cost_analysis=lambda: cost)


MEMORY = types.SimpleNamespace(
    argument_size_in_bytes=70.5e6,
    output_size_in_bytes=31.9e6,
    temp_size_in_bytes=2933e6,
)


@pytest.mark.parametrize(
    ("memory", "cost", "text"),
    [
        (
            MEMORY,
            {"flops": 183e9, "bytes accessed": 34.5e9},
            "argument 70 MB, output 32 MB, temp 2933 MB, 183.00 GFLOP, 34.50 GB accessed",
        ),
        (None, {"flops": 0.0}, "0.00 GFLOP"),
        (None, None, "not reported"),
    ],
)
def test_what_a_compiled_step_costs_is_logged_as_far_as_the_platform_reports_it(caplog, memory, cost, text):
    with caplog.at_level("INFO", logger="absl"):
        reporting.log_compiled(compiled(memory, cost), 12.34)
    assert caplog.messages == [f"training step compiled in 12.3 s; per device: {text}"]
