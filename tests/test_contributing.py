"""What the documentation says of files is true: paths exist, lists are complete."""

import re

import pytest

from convert.bundle import FORMATS, MODEL_FILES
from convert.runtimes import registry
from seaformer_jax.data.segmentation import label_sets
from tests.paths import REPOSITORY

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (REPOSITORY / "docs").glob("*.md")),
]
# Paths in backticks whose first folder is one of the project's, such as `seaformer_jax/mesh.py`.
PATH = re.compile(r"`((?:seaformer_jax|configs|convert|experiments|tests|docs)/[\w./*-]*)`")
LINK = re.compile(r"\]\(([\w./-]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_and_links_exist(document):
    text, folder = (REPOSITORY / document).read_text(), (REPOSITORY / document).parent
    missing = [path for path in PATH.findall(text) if not list(REPOSITORY.glob(path.rstrip("/")))]
    missing += [link for link in LINK.findall(text) if not (folder / link).exists()]
    assert not missing


def test_the_picture_of_the_packages_names_every_module():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    picture = set(re.findall(r"\w+", text.split("```")[1]))
    modules = [*(REPOSITORY / "seaformer_jax").rglob("*.py"), *(REPOSITORY / "convert").glob("*.py")]
    absent = {path.stem for path in modules} - picture - {"__init__"}
    details = {path.stem for path in (REPOSITORY / "seaformer_jax/models").glob("[ah]*/*.py")}
    details |= {path.stem for path in (REPOSITORY / "seaformer_jax/data/on_device").glob("*.py")}
    assert absent <= details  # Folders of small modules are named as a whole.


def test_every_recipe_is_documented_and_its_docstring_gives_its_command():
    training = (REPOSITORY / "docs/training.md").read_text()
    for path in (REPOSITORY / "configs").glob("[a-z]*.py"):
        family = "configs/distill_{" if path.stem.startswith("distill_") else f"`configs/{path.name}`"
        assert family in training
        assert f"--config configs/{path.name}" in path.read_text().split('"""')[1], path.name


def test_every_runtime_has_its_files():
    setup = (REPOSITORY / "setup.cfg").read_text()
    for name in FORMATS:
        assert (REPOSITORY / f"convert/runtimes/{name}.py").exists()
        assert name in MODEL_FILES and f"\n{registry.extra(name)} =\n" in setup


def test_every_table_of_labels_is_a_label_set():
    for path in (REPOSITORY / "seaformer_jax/data/segmentation/label_tables").glob("*.tsv"):
        spec = getattr(label_sets, path.stem)()
        assert spec.num_classes == len(path.read_text().splitlines()) - 1, path.stem
