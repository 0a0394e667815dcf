"""What the studies on small data keep, show and repeat."""

import json

import pytest

from experiments import ablations, adaptive_squeeze, attention_recipe, distillation_teachers, runs, study
from seaformer_jax import config_check
from seaformer_jax.models.registry import model_config


@pytest.fixture
def options(tmp_path):
    return study.parser("", "x").parse_args(
        [f"--out={tmp_path}", "--seeds=3", "--steps=30", f"--root={tmp_path}"]
    )


def finishing(options, score: float):
    """Returns a stand-in for training, which writes the metrics of a finished run, and the list of its runs."""
    trained = []

    def only_train(folder, recipe, *flags):
        folder.mkdir()
        rows = [{"step": 10, "val/mIoU": 1.0}, {"step": options.steps, "val/mIoU": score}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        trained.append((folder.name, recipe))

    return only_train, trained


def test_columns_have_the_scores_their_mean_and_their_spread():
    expected = {"mIoU by seed": "50.00, 53.00", "mean": "51.50", "largest - smallest": "3.00"}
    assert study.cells({"2": 53.0, "0": 50.0}) == expected
    assert study.cells({}) == dict.fromkeys(expected, "")
    assert study.cells({"0": 50.0})["largest - smallest"] == ""


def test_differences_are_those_of_the_seeds_that_both_have():
    assert study.differences({"2": 53.0, "10": 50.0, "0": 1.0}, {"10": 51.5, "2": 50.0}) == "+3.00, -1.50"


def test_finished_runs_are_not_repeated_and_one_seed_comes_after_the_other(options, monkeypatch):
    only_train, trained = finishing(options, 53.004)
    monkeypatch.setattr(runs, "only_train", only_train)
    options.seeds = 2
    scores, saved = {"sea": {"0": 50.0}}, []
    study.train(
        {"sea": ("a.py",), "none": ("b.py", "--x=1")}, options, scores, lambda: saved.append(str(scores))
    )
    assert trained == [("none_30_0", "b.py"), ("sea_30_1", "a.py"), ("none_30_1", "b.py")]
    assert scores == {"sea": {"0": 50.0, "1": 53.0}, "none": {"0": 53.0, "1": 53.0}}
    assert len(set(saved)) == 4  # At first, and after every run.


def test_the_metric_of_the_study_is_kept(options, monkeypatch):
    monkeypatch.setattr(runs, "only_train", lambda *_: None)
    monkeypatch.setattr(runs, "last_scores", lambda _: {"mIoU": 1.0, "top1": 81.004})
    options.seeds, scores = 1, {}
    study.train({"sea": ("a.py",)}, options, scores, lambda: None, "top1")
    assert scores == {"sea": {"0": 81.0}}
    assert study.cells(scores["sea"], "top1")["top1 by seed"] == "81.00"


def test_scores_come_from_the_result_file_if_the_runs_were_as_long(tmp_path, monkeypatch):
    monkeypatch.setattr(study.measure, "RESULTS", tmp_path)
    assert study.recorded("x", 30) == {}
    (tmp_path / "x.json").write_text(json.dumps({"steps": 30, "scores": {"sea": {"0": 50.0}}}))
    assert study.recorded("x", 30) == {"sea": {"0": 50.0}}
    with pytest.raises(
        SystemExit, match="has scores of runs of 30 steps, and --steps is 40; give --steps=30"
    ):
        study.recorded("x", 40)


def test_without_data_nothing_is_trained_and_the_table_is_written(options, monkeypatch):
    monkeypatch.setattr(runs, "only_train", lambda *_: pytest.fail("trained"))
    options.root, saved = None, []
    study.train({"sea": ("a.py",)}, options, {}, lambda: saved.append("table"))
    assert saved == ["table"]


def runs_of(experiment, monkeypatch, *arguments: str) -> list[tuple]:
    """Returns folder, recipe and flags of every run of a command of a study."""
    trained = []
    monkeypatch.setattr(runs, "only_train", lambda folder, *recipe: trained.append((folder.name, *recipe)))
    monkeypatch.setattr(runs, "last_scores", lambda _: {"mIoU": 60.0, "top1": 80.0})
    monkeypatch.setattr("sys.argv", [experiment.__name__, *arguments])
    experiment.main()
    return trained


def test_the_adaptive_block_is_compared_in_the_same_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(study.measure, "RESULTS", tmp_path)
    found = runs_of(adaptive_squeeze, monkeypatch, "camvid", "--root=r", "--init=i", "--seeds=1", "--out=o")
    assert [run[:2] for run in found] == [
        ("SeaFormer-Tiny_6000_0", "configs/camvid.py:tiny"),
        ("SeaFormer++-Tiny_6000_0", "configs/camvid.py:tiny"),
    ]
    first, second = (set(run[2:]) for run in found)
    assert first ^ second == {
        "--config.model.name=seaformer_tiny",
        "--config.model.name=seaformer_plus_tiny",
    }
    assert {"--config.init_from=i", "--config.data.root=r", "--config.total_steps=6000"} <= first & second
    assert (
        "| SeaFormer++-Tiny | 60.00 | 60.00 |  | +0.00 |"
        in (tmp_path / "adaptive_squeeze_camvid.md").read_text()
    )


@pytest.mark.parametrize("arguments", [("camvid", "--root=r"), ("trashnet", "--root=r", "--init=i")])
def test_only_camvid_starts_from_a_classifier(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        runs_of(adaptive_squeeze, monkeypatch, *arguments)
    assert "camvid starts from the classifier of --init, and trashnet from scratch" in capsys.readouterr().err


def test_every_teacher_is_compared_with_the_same_student_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(study.measure, "RESULTS", tmp_path)
    arguments = ("--root=r", "--tiny=t", "--base=b", "--init=i", "--seeds=1", "--steps=9")
    alone, taught, *others = (set(run[1:]) for run in runs_of(distillation_teachers, monkeypatch, *arguments))
    assert alone - taught == {"--config.distillation.feature_weight=0"} and taught < alone
    assert {"configs/distill_camvid.py:tiny", "--config.teacher.source=t", "--config.init_from=i"} < taught
    assert {"--config.teacher.source=b"} == others[0] - alone == others[1] - alone
    lines = (tmp_path / "distillation_teachers.md").read_text().splitlines()
    assert "| teacher base | 1.153 | 60.00 | 60.00 |  |  |" in lines
    assert "| student of base | 0.360 | 60.00 | 60.00 |  | +0.00 |" in lines
    # A table of what is there needs neither data nor teachers.
    assert runs_of(distillation_teachers, monkeypatch, "--steps=9") == []
    assert (tmp_path / "distillation_teachers.md").read_text().splitlines() == lines


def test_teachers_are_needed_for_training(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        runs_of(distillation_teachers, monkeypatch, "--root=r", "--tiny=t", "--init=i")
    assert "training needs both teachers, and --init" in capsys.readouterr().err


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
