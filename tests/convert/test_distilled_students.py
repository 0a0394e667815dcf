"""Distilled students in PyTorch and back, and which models may be a teacher."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from configs import distill_camvid, distill_imagenet
from convert import torch_model, torch_segmentation, weights
from convert.checkpoints import files, starting_weights, teacher
from convert.graph import rewrites
from seaformer_jax import config as configs
from seaformer_jax import create_model, tasks
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import state, workdir
from seaformer_jax.training.checkpoint import Checkpoints
from tests import golden

CLASSES = 9
MIRRORS = {"segmentation": torch_segmentation, "classification": torch_model}
STUDENT = {"upsample_ratio": 2.0, "upsample_width": 160}


def filled(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return golden.fill({name: tuple(value.shape) for name, value in model.state_dict().items()})


def mirror(task_type: str, **options) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    model = MIRRORS[task_type].create_model("seaformer_tiny", CLASSES, **(STUDENT | options))
    state_dict = filled(model)
    model.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in state_dict.items()})
    return model.eval(), state_dict


@pytest.mark.parametrize("task_type", MIRRORS)
@pytest.mark.parametrize("width", [160, 0])
def test_a_student_has_equal_logits_in_pytorch(task_type, width):
    reference, state_dict = mirror(task_type, upsample_width=width)
    model = create_model("seaformer_tiny", task_type, CLASSES, **(STUDENT | {"upsample_width": width}))
    weights.from_torch(model, state_dict)
    back = weights.to_torch(model)
    assert back.keys() == state_dict.keys()
    assert all(np.array_equal(back[n], value) for n, value in state_dict.items() if "num_batches" not in n)

    images = np.random.default_rng(0).standard_normal((2, 68, 104, 3)).astype(np.float32)
    graphdef, arrays = nnx.split(model)
    found = jax.jit(lambda arrays, x: nnx.merge(graphdef, arrays)(x))(arrays, images)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images).permute(0, 3, 1, 2))
    if task_type == "segmentation":
        expected = expected.permute(0, 2, 3, 1)
        assert expected.shape == (2, 17, 26, CLASSES)  # At 1/8 of 136 x 208.
    assert np.abs(expected.numpy()).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("task_type", MIRRORS)
def test_a_student_is_deployed(task_type):
    reference, _ = mirror(task_type)
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = rewrites.deploy(reference, (96, 128))(images), reference(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_names_of_the_module():
    _, state_dict = mirror("segmentation")
    names = {name for name in state_dict if name.startswith("upsample.") and name.endswith("weight")}
    convolutions = ("block.conv.0", "block.conv.2", "block.conv.4", "project")
    assert names == {f"upsample.{name}.{leaf}.weight" for name in convolutions for leaf in ("c", "bn")}
    assert state_dict["upsample.block.conv.2.c.weight"].shape == (384, 1, 5, 5)
    assert state_dict["decode_head.conv_seg.weight"].shape == (CLASSES, 160, 1, 1)


@pytest.mark.parametrize("task_type", MIRRORS)
def test_a_file_of_a_student_tells_its_width(tmp_path, task_type):
    recipe = distill_camvid if task_type == "segmentation" else distill_imagenet
    config = recipe.get_config("tiny")
    _, state_dict = mirror(task_type)
    files.write_state_dict(tmp_path / "student.safetensors", state_dict)
    loaded = starting_weights.load(tmp_path / "student.safetensors", config)
    assert (loaded.model.width, loaded.task.task_type, len(loaded.class_names)) == (160, task_type, CLASSES)


def test_a_student_starts_from_a_run_without_module(tmp_path):
    plain = create_model("seaformer_tiny", "segmentation", CLASSES, seed=4)
    files.write_state_dict(tmp_path / "plain.safetensors", weights.to_torch(plain))
    student = create_model("seaformer_tiny", "segmentation", CLASSES, upsample_ratio=2.0)
    starting_weights.load_into(student, str(tmp_path / "plain.safetensors"))
    found = weights.to_torch(student)
    assert all(np.array_equal(found[name], value) for name, value in weights.to_torch(plain).items())


# Teachers.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, weights) of a segmentation run on `shapes`, in which the averaged weights are used."""
    folder, config = tmp_path_factory.mktemp("teacher") / "run", configs.segmentation()
    task = tasks.create(config)
    model = task.create_model()
    workdir.prepare_workdir(folder, config, task.class_names)
    params, batch_stats = split_model(model)
    checkpoints = Checkpoints(folder, config.checkpoint, task.best_metric)
    checkpoints.save(state.TrainState(np.int32(7), params, batch_stats, {}, {}), 7, {}, None)
    checkpoints.close()
    return folder, weights.to_torch(model)


def student_config(**changes) -> configs.ConfigDict:
    config = configs.distillation(configs.segmentation())
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def load(config: configs.ConfigDict) -> nnx.Module:
    return teacher.load(config, tasks.create(config).class_names)


def test_the_teacher_of_a_run_and_of_a_file_are_one(run, tmp_path):
    folder, state_dict = run
    files.write_state_dict(tmp_path / "teacher.pth", state_dict)
    hashes = []
    for source, name in ((folder, ""), (tmp_path / "teacher.pth", "seaformer_tiny")):
        config = student_config(teacher__source=str(source), teacher__model=name, dtype="bfloat16")
        task = tasks.create(config)
        model = load(config)
        config = task.with_teacher(model).config
        assert model.backbone.dtype == "bfloat16" and model.width == config.model.upsample_width == 96
        hashes.append(config.teacher.sha256)
    assert hashes[0] == hashes[1] and len(hashes[0]) == 64


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, r"teacher\.source is not set; give a workdir"),
        (
            {"teacher__source": "{place}/none"},
            r"teacher\.source: .*none does not exist; expected a workdir or",
        ),
        ({"teacher__source": "{place}"}, r"is not the workdir of a run: no config\.json"),
        (
            {"teacher__source": "{run}", "teacher__model": "seaformer_base"},
            "has a seaformer_tiny; leave it out",
        ),
        (
            {"teacher__source": "{run}", "data__mean": (0.5, 0.5, 0.5)},
            r"data\.mean is \(0\.5, 0\.5, 0\.5\), but",
        ),
        ({"teacher__source": "{place}/other.pth"}, r"teacher\.model is not set: .*other\.pth"),
        (
            {"teacher__source": "{place}/other.pth", "teacher__model": "seaformer_tiny"},
            r"other\.pth has 5 classes, but the data has 9; both need the same classes",
        ),
        (
            {"teacher__source": "{place}/same.pth", "teacher__model": "seaformer_small"},
            r"the checkpoint is of another model; choose the config of its size",
        ),
    ],
)
def test_what_is_no_teacher(run, tmp_path, changes, says):
    folder, state_dict = run
    files.write_state_dict(tmp_path / "same.pth", state_dict)
    other = filled(torch_segmentation.create_model("seaformer_tiny", 5))
    files.write_state_dict(tmp_path / "other.pth", other)
    places = {"place": tmp_path, "run": folder}
    changes = {key: v.format(**places) if isinstance(v, str) else v for key, v in changes.items()}
    with pytest.raises(UserError, match=says):
        load(student_config(**changes))


def test_a_teacher_of_other_classes(run):
    folder, _ = run
    config = student_config(teacher__source=str(folder))
    names = list(tasks.create(config).class_names)
    names[2], names[3] = names[3], names[2]
    with pytest.raises(
        UserError, match=rf"'{names[3]}' for class 2, but the data has '{names[2]}'; both need"
    ):
        teacher.load(config, names)


def test_a_teacher_of_another_problem(run):
    folder, _ = run
    config = configs.distillation(configs.default())
    config.teacher.source = str(folder)
    with pytest.raises(UserError, match="is a run of segmentation; expected one of classification"):
        load(config)
