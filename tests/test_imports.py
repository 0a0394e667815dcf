"""Imports go one way, downwards: see the picture in CONTRIBUTING.md."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
# From the top; a module imports from its own room and from those below.
ROOMS = ("commands", "training", "tasks", "evaluation", "data", "models", "leaves")
COMMANDS = ("train", "evaluate", "predict", "command")


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


def room(module: str) -> str:
    """Returns the room of a module of the package, such as seaformer_jax.training.loop."""
    name = module.split(".")[1] if "." in module else ""
    if name in ROOMS:
        return name
    return "commands" if name in COMMANDS else "leaves"


def modules(package: str) -> dict[str, pathlib.Path]:
    paths = (ROOT / package).rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def test_rooms_import_downwards():
    wrong = [
        f"{module} imports {other}"
        for module, path in modules("seaformer_jax").items()
        for other in imports(path)
        if other.startswith("seaformer_jax.") and ROOMS.index(room(other)) < ROOMS.index(room(module))
    ]
    assert not wrong


def test_only_commands_reach_for_the_converter():
    allowed = {f"seaformer_jax.{name}" for name in COMMANDS}
    users = {
        m
        for m, path in modules("seaformer_jax").items()
        if any(i.split(".")[0] == "convert" for i in imports(path))
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
        assert "torch" not in imports(ROOT / "convert" / f"{module}.py")


def test_the_pytorch_mirror_needs_nothing_but_torch():
    used = {name.split(".")[0] for name in imports(ROOT / "convert" / "torch_model.py")}
    assert used <= {"torch", "typing", "collections"}


def test_data_does_not_import_jax():
    for module, path in modules("seaformer_jax/data").items():
        assert not any(name.split(".")[0] in ("jax", "flax") for name in imports(path)), module


def test_the_rule_sees_a_violation(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from seaformer_jax.training import loop\n")
    assert "seaformer_jax.training.loop" in imports(path)
    assert room("seaformer_jax.training.loop") == "training" and room("seaformer_jax.errors") == "leaves"
