"""The GPU campaign on a CPU: every part with a tiny setting, stops and resumes, and the report."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from configs import quickstart
from experiments import attention_recipe, measure, runs
from experiments.campaign import recipe, server
from experiments.gpu_campaign import __main__ as campaign
from experiments.gpu_campaign import attention, camvid, golden, install, large_batch, photos, worker
from experiments.gpu_campaign import input as input_part
from experiments.gpu_campaign import part as parts
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.record import Record
from experiments.gpu_campaign.settings import Scaling, Settings
from experiments.gpu_campaign.worker import Ended
from seaformer_jax import config_check
from tests.paths import REPOSITORY, SHARED

MACHINE = {"device": "cpu", "platform": "cpu"}
CLASSIFY, SEGMENT = (f"{recipe.RECIPE}:{task}" for task in ("classification", "segmentation"))


@pytest.fixture
def small(tmp_path):
    recipe.register()
    return Settings(
        tmp_path,
        models=(recipe.MODEL,),
        rounds=1,
        images={"classification": (2, 32), "segmentation": (2, 32)},
        frame=(32, 64),
        recipes={"classification": (CLASSIFY, 8), "segmentation": (SEGMENT, 8)},
        copied_megabytes=1,
        photos=(16, 48),
        input=(CLASSIFY, 8, 5),
        camvid=SEGMENT,
        scaling={"shapes": Scaling(CLASSIFY, 72, 3, (16,), {"eval.batch_size": 16})},
    )


@pytest.fixture
def one_process(monkeypatch):
    """Measures sides in this process, where models of the tests are known."""

    def in_turn(sides, rounds, warm_up=2):
        results = {}
        for name, prepare in sides.items():
            run, facts = prepare()
            seconds = measure.interleaved({name: run}, rounds, 0)[name]
            results[name] = measure.Side(seconds, seconds, 0.0, 1, facts)
        return results

    monkeypatch.setattr(measure, "in_turn", in_turn)


@pytest.fixture
def commands(monkeypatch, compile_cache):
    """Runs the commands of trainings in a fork server that knows the model."""

    def call(module, *arguments):
        ended = server.Command(module, [*arguments, f"--config.compilation_cache={compile_cache}"]).end(300)
        if ended.status:
            print(ended.stderr)
            raise SystemExit(ended.status)

    monkeypatch.setattr(runs, "call", call)


class Clock:
    """Counts the seconds that are left; every unit takes ten."""

    def __init__(self, seconds: float):
        self.seconds, self.measured = seconds, []

    def left(self) -> float:
        return self.seconds

    def measure(self, name: str, unit: str, settings: Settings, seconds: float) -> Ended:
        assert seconds == self.seconds
        self.measured.append(unit)
        self.seconds -= 10
        if self.seconds < 0:
            return Ended()
        return Ended(error="error: no") if unit == "b" else Ended({"unit": unit, "score": 0.5})


@pytest.fixture
def three_units(monkeypatch):
    units = {name: None for name in "abc"}
    monkeypatch.setattr(parts, "load", lambda module: Part("Letters.", lambda settings: units))


def test_a_call_ends_when_its_time_is_up_and_the_next_one_goes_on(three_units, tmp_path):
    statuses, measured = [], []
    for seconds in (15, 10, 100, 100):  # The first stops within b, the second before c.
        clock = Clock(seconds)
        record = Record(tmp_path, MACHINE, "command")
        statuses.append(campaign.run(["letters"], Settings(tmp_path), record, clock.measure, clock.left))
        measured.append(clock.measured)
    assert measured == [["a", "b"], ["b"], ["c"], []]
    assert statuses == [campaign.TIME_UP, campaign.TIME_UP, 0, 0]
    found = json.loads((tmp_path / "gpu_campaign.json").read_text())
    assert list(found["parts"]["letters"]["units"]) == ["a", "c"]
    assert found["parts"]["letters"]["failed"]["b"]["error"] == "error: no"


def test_failed_units_are_tried_again_when_asked(three_units, tmp_path):
    clock, settings = Clock(1000), Settings(tmp_path)
    for again in (False, False, True):
        record = Record(tmp_path, MACHINE, "command")
        status = campaign.run(["letters"], settings, record, clock.measure, clock.left, again)
    assert clock.measured == ["a", "b", "c", "b"] and status == campaign.FAILED


def test_the_report_names_machines_dates_and_failures(tmp_path):
    part = Part("Letters.", lambda settings: {})
    for device, unit in (("H1", "a"), ("H2", "b"), ("H1", "c")):
        record = Record(tmp_path, {"device": device}, "python -m x")
        record.add("letters", part, unit, Ended(error="error: at first"), 1.0)
        record.add("letters", part, unit, Ended({"unit": unit, "score": 0.123456}), 12.34)
    record.add("letters", part, "d", Ended(error="error: d is wrong"), 1.0)
    text = (tmp_path / "gpu_campaign.md").read_text()
    assert "0. device H1\n1. device H2\n" in text and "machine 0 on 20" in text and "machine 1 on 20" in text
    assert "| unit | score |\n|---|---|\n| a | 0.123 |\n| b | 0.123 |\n| c | 0.123 |" in text
    assert "`python -m x`" in text and "Failed: d: error: d is wrong" in text
    assert "at first" not in text


SLOW_PART = "tests.experiments.slow_part"


@pytest.mark.parametrize(
    ("unit", "error"),
    [
        ("wrong", "ZeroDivisionError: division by zero"),
        ("killed", "the process was killed"),
        ("refused", "error: no data"),  # By a command; its exit status alone would say nothing.
    ],
)
def test_a_unit_that_fails_says_why(tmp_path, unit, error):
    assert worker.measure(SLOW_PART, unit, Settings(tmp_path), 60) == Ended(error=error)


def test_a_unit_has_a_process_group_of_its_own(tmp_path):
    row = worker.measure(SLOW_PART, "measured", Settings(tmp_path), 60).row
    assert row["process"] == row["leader"] != os.getpid()


def test_a_training_saves_when_time_is_up(tmp_path):
    saved = tmp_path / "checkpoint"
    limits = iter([0.5, 2, 8, 30])
    while not saved.exists():  # The limit was too short for Python to start.
        assert worker.measure(SLOW_PART, "training", Settings(tmp_path), next(limits)) == Ended()
    assert saved.read_text() == "saved"


def test_a_unit_that_goes_on_after_the_grace_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "GRACE", 0.1)
    assert worker.measure(SLOW_PART, "stubborn", Settings(tmp_path), 0.5) == Ended()
    assert not (tmp_path / "finished").exists()


@pytest.mark.slow  # It imports everything anew.
def test_the_command(tmp_path):
    command = [sys.executable, "-m", "experiments.gpu_campaign", "--part=install", f"--out={tmp_path}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    for measured_now in (True, False):
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("install, machine: {'device': 'cpu'") == measured_now
    assert "| platform | cpu |" in (tmp_path / "gpu_campaign.md").read_text()


def test_all_parts_have_units_of_different_names_and_notes(tmp_path):
    for name in parts.NAMES:
        part = parts.load(parts.module(name))
        assert part.note and part.units(Settings(tmp_path)), name
    assert {path.stem for path in pathlib.Path(large_batch.__file__).parent.glob("*.py")} >= {*parts.NAMES}


def measured(name: str, settings: Settings) -> list[dict]:
    """The rows of all units of a part, measured in this process."""
    part = parts.load(parts.module(name))
    rows = [unit() for unit in part.units(settings).values()]
    json.dumps(rows)  # As the record needs them.
    assert measure.table(part.summary(rows) or rows[:1])
    return rows


def test_install_names_what_is_missing(small, monkeypatch):
    (row,) = measured("install", small)
    assert row["jax"] and row["torch"] and row["platform"] == "cpu" and row["cores"] >= 1
    monkeypatch.setattr(
        install.versions, "installed", lambda name: {"grain": None, "jax": "0.9"}.get(name, "99")
    )
    with pytest.raises(RuntimeError, match=r"python -m pip install grain>=0\.2\.18 jax>=0\.10\.2$"):
        install.machine()


def test_golden_measures_a_deviation(small, monkeypatch):
    monkeypatch.setattr(golden, "OFFICIAL", {})
    monkeypatch.setattr(golden.golden_training, "CASES", {})
    monkeypatch.delitem(golden.MIRRORS, "segmentation")
    (row,) = measured("golden", small)
    assert row["float32 highest"] < 1e-5 < row["bfloat16"] < 0.03 * row["largest logit"]
    assert row["within tolerance"] == "yes"


def test_golden_notices_another_result(small, monkeypatch):
    monkeypatch.setattr(golden, "PRECISIONS", {"float32 highest": golden.PRECISIONS["float32 highest"]})
    reference = golden.mirrored("classification", recipe.MODEL, (1, 3, 32, 32))
    row = golden.row("case", reference._replace(logits=reference.logits + 2e-4))
    assert row["float32 highest"] == pytest.approx(2e-4, rel=0.1) and row["within tolerance"] == "**no**"


@pytest.mark.slow
def test_golden_vectors(small):
    if not (SHARED / "golden").is_dir():
        pytest.skip("the golden vectors of the official models are absent")
    rows = measured("golden", small)
    assert {row["within tolerance"] for row in rows} == {"yes", ""} and len(rows) == 5 + 2 + 4


TASKS = ["classification", pytest.param("segmentation", marks=pytest.mark.slow)]


@pytest.mark.parametrize("task", TASKS)
def test_train_speed(small, one_process, task):
    (row,) = measured("train_speed", dataclasses.replace(small, images={task: (2, 32)}))
    assert row["task"] == task and row["jax_images_per_second"] > 0
    ratio = row["jax_images_per_second"] / row["channels_last_images_per_second"]
    assert row["over_channels_last"] == pytest.approx(ratio)


def test_evaluation(small, one_process):
    (row,) = measured("evaluation", small)
    assert row["image"] == "32x64"
    assert row["jax_images_per_second"] == pytest.approx(1e3 / row["jax_ms"])
    assert row["ratio"] == pytest.approx(row["torch_ms"] / row["jax_ms"])


@pytest.mark.parametrize("task", TASKS)
def test_bandwidth(small, task):
    (row,) = measured("bandwidth", dataclasses.replace(small, recipes={task: small.recipes[task]}))
    floor = row["GB a step"] / row["copy TB/s"]  # GB over TB/s are milliseconds.
    assert row["floor ms"] == pytest.approx(floor)
    assert row["share of floor"] == pytest.approx(row["floor ms"] / row["step ms"])
    assert row["images/s"] == pytest.approx(1e3 * 8 / row["step ms"]) and row["temporaries MB"] > 0


def test_the_speed_of_a_training_leaves_out_its_first_window(small, monkeypatch):
    def train(module, *arguments):
        assert "--config.total_steps=5" in arguments
        (small.out / "input").mkdir()
        windows = [(1, 0.9), (100, 0.5), (200, 0.2), (100, 0.5), (200, 0.2)]
        rows = [{"train/images_per_second": speed, "train/data_share": share} for speed, share in windows]
        lines = [json.dumps(row) + "\n" for row in [*rows, {"val/top1": 1}]]
        (small.out / "input/metrics.jsonl").write_text("".join(lines))

    monkeypatch.setattr(runs, "call", train)
    monkeypatch.setattr(photos, "write", lambda root, count, side: root)
    row = input_part.together(small)
    # Windows of n images take n/100, n/200, n/100 and n/200 s, of which half, a fifth, half and a fifth are waiting.
    assert row["images/s"] == pytest.approx(4 / 0.03)
    assert row["data_share"] == pytest.approx((2 * 0.5 / 100 + 2 * 0.2 / 200) / 0.03)


@pytest.mark.slow
def test_input(small, commands):
    rows = {row["what"]: row for row in measured("input", small)}
    assert rows.keys() == {"together", "pipeline alone", "step alone"}
    assert all(row["images/s"] > 0 for row in rows.values())
    assert 0 < rows["together"]["data_share"] < 1
    files = sorted(path.relative_to(small.out / "photos") for path in small.out.glob("photos/*/*/*"))
    assert len(files) == 16 + 8 and {path.suffix for path in files} == {".jpg"}


@pytest.mark.slow
def test_camvid_goes_on_after_a_stop(small, commands, monkeypatch):
    unit = parts.load(parts.module("camvid")).units(small)["seed 0"]
    to_the_end = runs.call

    def stopped(module, *arguments):
        command = server.Command(module, arguments)
        while not any("train/loss" in row for row in runs.curve(small.out / "camvid_0")):
            time.sleep(0.01)
        command.send_signal(signal.SIGTERM)
        raise SystemExit(command.end(300).status)

    monkeypatch.setattr(runs, "call", stopped)
    with pytest.raises(SystemExit) as end:
        unit()
    assert end.value.code == 128 + signal.SIGTERM
    before = len(runs.curve(small.out / "camvid_0"))
    monkeypatch.setattr(runs, "call", to_the_end)
    row = unit()
    curve = runs.curve(small.out / "camvid_0")
    steps = [line["step"] for line in curve if "train/loss" in line]
    assert steps == list(range(1, recipe.STEPS + 1)) and 0 < before < len(curve)
    assert row["mIoU"] == round(curve[-1]["val/mIoU"], 2) and row["start"] == "scratch"


def test_mean_and_spread_of_the_seeds():
    scores = [(0, 58.0, 70.0, 90.0), (1, 60.0, 71.0, 90.5), (2, 59.0, 75.0, 91.0)]
    rows = [dict(zip(("seed", "mIoU", "mAcc", "aAcc"), values, strict=True)) for values in scores]
    *same, mean, spread = camvid.summary(rows)
    assert same == rows
    assert mean == {"seed": "mean", "mIoU": 59.0, "mAcc": 72.0, "aAcc": 90.5}
    assert spread == {"seed": "spread", "mIoU": 1.0, "mAcc": round(7**0.5, 2), "aAcc": 0.5}
    assert camvid.summary(rows[:1]) == rows[:1]


def test_every_kind_of_attention_is_trained_with_every_seed(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(runs, "only_train", lambda run, *flags: trained.append((run.name, *flags)))
    monkeypatch.setattr(runs, "last_scores", lambda run: {"mIoU": float(run.name[-1])})
    units = attention.units(Settings(tmp_path, shared=pathlib.Path("shared"), seeds=(1, 2)))
    rows = [unit() for unit in units.values()]
    assert list(units)[:2] == ["sea seed 1", "window seed 1"] and len(units) == 2 * len(
        attention_recipe.KINDS
    )
    assert trained[0] == (
        "attention_sea_1",
        "experiments/attention_recipe.py:sea",
        "--config.data.root=shared/data/camvid",
        "--config.data.crop_size=(352, 480)",
        "--config.seed=1",
    )
    expected = {"kind": "`sea`", "mIoU by seed": "1.00, 2.00", "mean": "1.50", "largest - smallest": "1.00"}
    assert attention.summary(rows)[0] == expected and len(attention.summary(rows)) == len(
        attention_recipe.KINDS
    )


@pytest.mark.parametrize(
    ("optimiser", "batch", "rate", "steps", "groups"),
    [
        ("rmsprop_tf", 256, 0.016, 3906, 2),
        ("rmsprop_tf", 8192, 0.512, 122, 64),
        ("lamb", 8192, 0.02, 122, 64),
        ("lamb", 512, 0.005, 1953, 4),
        ("lars", 2048, 8.0, 488, 16),
    ],
)
def test_rates_and_steps_of_a_batch_size(optimiser, batch, rate, steps, groups):
    keys = large_batch.config_of(Settings(pathlib.Path()).scaling["shapes"], batch, optimiser)
    assert keys["optim.lr"] == pytest.approx(rate) and keys["optim.name"] == optimiser
    assert (keys["batch_size"], keys["total_steps"], keys["model.bn_groups"]) == (batch, steps, groups)
    assert keys["optim.schedule.warmup_steps"] == keys["checkpoint.every"] == steps // 10
    config = quickstart.get_config()
    config.update_from_flattened_dict(keys)
    config_check.check(config)


def test_scores_of_the_optimisers_are_side_by_side():
    common = {"data": "shapes", "epochs": 10}
    rows = [
        common | {"batch": batch, "optimiser": name, "steps": steps, "top1": top1}
        for batch, name, steps, top1 in [
            (8192, "lars", 122, 50.0),
            (256, "lamb", 3906, 70.0),
            (256, "lars", 3906, 60.0),
        ]
    ]
    assert large_batch.summary(rows) == [
        common | {"batch": 256, "steps": 3906, "rmsprop_tf": "", "lamb": 70.0, "lars": 60.0},
        common | {"batch": 8192, "steps": 122, "rmsprop_tf": "", "lamb": "", "lars": 50.0},
    ]


@pytest.mark.slow
def test_large_batch(small, commands, monkeypatch):
    monkeypatch.setattr(large_batch, "VARIANTS", {"lars": ",lars"})
    (row,) = measured("large_batch", small)
    curve = runs.curve(small.out / "large_batch_shapes_16_lars")
    assert row["steps"] == curve[-1]["step"] == round(3 * 72 / 16)
    assert row["top1"] == round(curve[-1]["val/top1"], 2)
