"""The mutation run, on a repository of one line and one test."""

import pytest

from experiments import mutations
from experiments.mutations import Mutation
from tests.paths import REPOSITORY

TEST = "test_code.py"


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "code_.py").write_text("SUM, DIFFERENCE = 1 + 2, 1 - 2\n")
    (tmp_path / TEST).write_text("from code_ import SUM\n\ndef test_sum():\n    assert SUM == 3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "tests", "equivalent", "kind"),
    [
        ("1 + 2", "1 * 2", TEST, "", "caught"),
        ("1 - 2", "2 - 1", TEST, "", "survived"),
        ("1 + 2", "2 + 1", TEST, "A sum.", "equivalent"),
        ("1 + 2", "1 * 2", TEST, "It is not.", "caught"),
        ("1 + 3", "1 * 3", TEST, "", "broken"),
        ("2", "3", TEST, "", "broken"),  # Twice in the file.
        ("1 + 2", "1 *", TEST, "", "broken"),  # No Python: any test would notice.
        ("1 + 2", "1 * 2", "test_gone.py", "", "broken"),
    ],
)
def test_kinds(repository, old, new, tests, equivalent, kind):
    before = (repository / "code_.py").read_text()
    assert mutations.kind_of(repository, Mutation("code_.py", old, new, tests, equivalent)) == kind
    assert (repository / "code_.py").read_text() == before


def test_tests_that_fail_anyway_end_the_run(repository):
    (repository / TEST).write_text("def test():\n    assert False\n")
    with pytest.raises(SystemExit, match="the tests fail without any mutation"):
        mutations.check_tests(repository, [Mutation("code_.py", "1 + 2", "1 * 2", TEST)])


def test_every_mutation_can_be_applied():
    table = mutations.read(mutations.TABLE)
    assert len(table) > 100
    for mutation in table:
        assert (REPOSITORY / mutation.file).read_text().count(mutation.old) == 1, mutation
        assert mutation.old != mutation.new, mutation


def test_the_table_lists_what_was_not_caught():
    rows = [
        {"kind": kind, "seconds": 30.0, **Mutation("a.py", "x | y", "x\n& y", TEST)._asdict()}
        for kind in ("caught", "caught", "survived", "equivalent")
    ]
    text = mutations.markdown(rows)
    assert "4 changes" in text and "66.7 % of those that are not equivalent" in text and "2 minutes" in text
    assert text.splitlines()[-2] == "| survived | `a.py` | `x \\| y` | `x & y` |  |"
