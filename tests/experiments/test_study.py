"""What the studies on CamVid keep, show and repeat."""

import json

import pytest

from experiments import ablations, attention_recipe, runs, study
from seaformer_jax import config_check
from seaformer_jax.models.registry import model_config


@pytest.fixture
def options(tmp_path):
    return study.parser("", "x").parse_args(
        [f"--out={tmp_path}", "--seeds=3", "--steps=30", f"--root={tmp_path}"]
    )


def record(options, name: str, seed: int, step: int, score: float) -> None:
    """Writes the metrics of a run that has come to `step`."""
    folder = study.workdir(options.out, name, seed, options.steps)
    folder.mkdir()
    rows = [{"step": 10, "val/mIoU": 1.0}, {"step": step, "val/mIoU": score}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_only_finished_runs_count(options):
    record(options, "sea", 0, 30, 50.0)
    record(options, "sea", 1, 20, 99.0)  # Killed before the end.
    record(options, "sea", 2, 30, 53.0)
    expected = {"mIoU by seed": "50.00, 53.00", "mean": "51.50", "largest - smallest": "3.00"}
    assert study.cells("sea", options) == expected
    assert study.cells("none", options) == dict.fromkeys(expected, "")


def test_finished_runs_are_not_repeated_and_one_seed_comes_after_the_other(options, monkeypatch):
    record(options, "sea", 0, 30, 50.0)
    trained = []
    monkeypatch.setattr(
        runs, "only_train", lambda folder, recipe, *flags: trained.append((folder.name, recipe))
    )
    options.seeds = 2
    study.train({"sea": ("a.py",), "none": ("b.py", "--x=1")}, options)
    assert trained == [("none_30_0", "b.py"), ("sea_30_1", "a.py"), ("none_30_1", "b.py")]


def test_without_data_nothing_is_trained(options, monkeypatch):
    monkeypatch.setattr(runs, "only_train", lambda *_: pytest.fail("trained"))
    options.root = None
    study.train({"sea": ("a.py",)}, options)


def test_folders_of_the_ablations_differ():
    names = [ablations.folder((kind, name)) for kind, rows in ablations.STUDIES.items() for name in rows]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() for name in names)


@pytest.mark.parametrize("kind", attention_recipe.KINDS)
def test_recipes_of_the_kinds_can_be_trained(kind):
    config = attention_recipe.get_config(kind)
    config_check.check(config)
    assert config.model.attention == kind
    options = {key: value for key, value in config.model.items() if key != "name"}
    found = model_config(attention_recipe.NAME, "segmentation", **options)
    assert (found.attention_widths != ()) == (kind in ("window", "axial_sum", "vanilla"))
