"""Imports go one way, downwards: see the picture in CONTRIBUTING.md."""

import ast
import graphlib
import pathlib

import pytest

from tests.paths import REPOSITORY

# From the top. A module imports from its own group and from those below; the longest name that fits is its group.
SEAFORMER_JAX = (
    ("train", "evaluate", "predict", "prepare", "prepare_ade20k", "command"),
    ("training",),
    ("tasks",),
    ("evaluation",),
    ("data.classification", "data.segmentation", "data.detection", "data.on_device"),
    ("data",),
    ("models.registry",),
    ("models.heads",),
    ("models.seaformer", "models.swin", "models.equal_macs"),
    ("models.attention", "models.upsampling"),
    ("models",),
    ("",),
)
CONVERT = (
    ("arm",),
    ("latency",),
    ("run",),
    ("export",),
    ("runtimes",),
    ("web",),
    ("graph",),
    ("to_torch", "from_torch"),
    ("checkpoints",),
    ("labels",),
    ("",),
)
COMMANDS = ("train", "evaluate", "predict", "prepare", "prepare_ade20k", "command")


def imports(path: pathlib.Path) -> set[str]:
    """Returns the full names of the modules that the file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_packages(statement: ast.Import | ast.ImportFrom) -> set[str]:
    names = [statement.module] if isinstance(statement, ast.ImportFrom) else [a.name for a in statement.names]
    return {name.split(".")[0] for name in names}


def rank(module: str, groups: tuple[tuple[str, ...], ...]) -> int:
    """Returns the index of the group of a module, such as seaformer_jax.training.loop."""
    inner = module.partition(".")[2]
    fitting = {
        name: index
        for index, names in enumerate(groups)
        for name in names
        if not name or inner == name or inner.startswith(f"{name}.")
    }
    return fitting[max(fitting, key=len)]


def modules(package: str) -> dict[str, pathlib.Path]:
    paths = (REPOSITORY / package).rglob("*.py")
    found = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


@pytest.mark.parametrize(("package", "groups"), [("seaformer_jax", SEAFORMER_JAX), ("convert", CONVERT)])
def test_packages_import_downwards(package, groups):
    known = modules(package)
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in imports(path) & known.keys()
        if other != package and rank(other, groups) < rank(module, groups)
    ]
    assert not wrong


def test_no_module_imports_itself_through_others():
    known = modules("seaformer_jax") | modules("convert")
    # A package that only groups modules imports nothing, so that only real dependencies are edges.
    graphlib.TopologicalSorter(
        {module: (imports(path) & known.keys()) - {module} for module, path in known.items()}
    ).prepare()


def test_only_commands_reach_for_the_converter():
    allowed = {f"seaformer_jax.{name}" for name in COMMANDS}
    users = {
        module
        for module, path in modules("seaformer_jax").items()
        if any(name.split(".")[0] == "convert" for name in imports(path))
    }
    assert users <= allowed
    at_the_top = {
        module
        for module, path in modules("seaformer_jax").items()
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.Import | ast.ImportFrom) and "convert" in imported_packages(statement)
    }
    assert not at_the_top  # Inside functions only: PyTorch may not be installed.


def test_torch_stays_in_the_converter():
    for package in ("seaformer_jax", "configs"):
        for module, path in modules(package).items():
            assert not any(name.split(".")[0] == "torch" for name in imports(path)), module
    for module in ("names", "weights"):
        assert "torch" not in imports(REPOSITORY / "convert" / f"{module}.py")


def test_the_pytorch_mirror_needs_nothing_but_torch():
    used = {name.split(".")[0] for name in imports(REPOSITORY / "convert" / "torch_model.py")}
    assert used <= {"torch", "typing", "collections"}
    for path in (REPOSITORY / "convert" / "torch_attention").glob("*.py"):
        used = {name for name in imports(path) if not name.startswith("convert.torch_attention")}
        own = {name.split(".")[0] for name in used if not name.startswith("convert.torch_model")}
        assert own <= {"torch", "typing", "collections", "functools"}, path.stem


def test_only_the_augmentation_on_the_device_imports_jax_in_data():
    for module, path in modules("seaformer_jax/data").items():
        if not module.startswith("seaformer_jax.data.on_device"):
            assert not any(name.split(".")[0] in ("jax", "flax") for name in imports(path)), module


def test_the_rule_sees_a_violation(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from seaformer_jax.training import loop\n")
    assert "seaformer_jax.training.loop" in imports(path)
    ranks = [
        rank(f"seaformer_jax.{name}", SEAFORMER_JAX) for name in ("train", "training.loop", "data.files")
    ]
    assert ranks == [0, 1, 5]
    assert rank("seaformer_jax.data.segmentation.layouts", SEAFORMER_JAX) < ranks[2]
    assert rank("seaformer_jax.errors", SEAFORMER_JAX) == len(SEAFORMER_JAX) - 1
