"""What a TPU would run: the forms that keep its memory traffic low, in programs compiled here.

`experiments/results/tpu_program.json` has the bytes of the same programs. Needs libtpu, which `make aot` installs.
"""

import pytest

from experiments import measure
from experiments.programs import catalogue, compiling, hlo, summary, targets
from seaformer_jax import json_files

pytestmark = [
    pytest.mark.slow,  # 50 CPU seconds of compiling; test_programs.py has the quick tests.
    pytest.mark.skipif(not targets.installed("tpu"), reason="there is no libtpu; `make aot` installs it"),
]
PROGRAMS = catalogue.programs("tpu")
FRONT = next(name for name in PROGRAMS if name.startswith(catalogue.FRONT))


def compiled(name: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Returns the figures of the program `name`, compiled anew."""
    text = compiling.compile_apart("tpu", name, tmp_path_factory.mktemp("programs")).text
    return summary.summarize(hlo.parse(text))


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> dict:
    return compiled(FRONT, tmp_path_factory)


def test_between_blocks_nothing_is_moved_by_loops_or_kept_in_float32(front):
    assert front["loops"] == 0
    assert front["float32_largest"] < 10e6


def test_layouts_between_blocks_have_hardly_any_padding(front):
    assert front["written_padded"] < 1.05 * front["written_raw"]


def test_the_stem_and_two_blocks_move_no_more_bytes_than_committed(front):
    committed = json_files.read(measure.RESULTS / "tpu_program.json")["programs"][FRONT]
    assert front["hbm_padded"] <= 1.01 * committed["hbm_padded"]  # 1 % for another schedule.


# One all-reduce each: moments, both sums of the backward pass, gradient of the kernel. If every chip has groups of
# its own, statistics and gradients of scale and bias, and the gradient of the kernel.
@pytest.mark.parametrize(("groups", "most"), [(1, 3), (4, 2)])
def test_a_layer_on_four_chips_sums_few_arrays_in_float32(tmp_path_factory, groups, most):
    (name,) = (name for name in PROGRAMS if f"BatchNorm in {groups} groups" in name)
    found = compiled(name, tmp_path_factory)["collectives"]
    assert {line["kind"] for line in found} == {"all-reduce"}
    assert {line["dtype"] for line in found} == {"f32"}
    assert sum(line["count"] for line in found) <= most
