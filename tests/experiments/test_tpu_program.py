"""What a TPU would run: the forms that keep its memory traffic low, in programs compiled here.

`experiments/results/tpu_program.json` has the bytes of the same programs. Needs libtpu, which `make aot` installs.
"""

import pytest

from experiments import measure
from experiments.programs import catalogue, compiling, hlo, summary, targets
from seaformer_jax import json_files

pytestmark = [
    pytest.mark.slow,  # 90 CPU seconds of compiling; test_programs.py has the quick tests.
    pytest.mark.skipif(not targets.installed("tpu"), reason="there is no libtpu; `make aot` installs it"),
]
PROGRAMS = catalogue.programs("tpu")
# The two that fill the lanes: many small images do, few large ones do in bands.
FRONTS = [
    name
    for name in PROGRAMS
    if name.startswith(catalogue.FRONT) and ("256 images" in name or "512 x" in name)
]


def compiled(name: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Returns the figures of the program `name`, compiled anew."""
    text = compiling.compile_apart("tpu", name, tmp_path_factory.mktemp("programs")).text
    return summary.summarize(hlo.parse(text))


def committed(name: str) -> float:
    """Returns the bytes of the program `name` in the result file."""
    return json_files.read(measure.RESULTS / "tpu_program.json")["programs"][name]["hbm_padded"]


@pytest.mark.parametrize("name", FRONTS)
def test_the_stem_and_two_blocks_move_no_more_bytes_than_they_have_to(name, tmp_path_factory):
    front = compiled(name, tmp_path_factory)
    # Between blocks nothing is moved by a loop, kept in float32 or padded.
    assert front["loops"] == 0
    assert front["float32_largest"] < 10e6
    assert front["written_padded"] < 1.05 * front["written_raw"]
    assert {(line["kind"], line["dtype"]) for line in front["collectives"]} <= {("all-reduce", "f32")}
    assert front["hbm_padded"] <= 1.01 * committed(name)  # 1 % for another schedule.


def test_the_loss_of_pixels_keeps_nothing_but_logits_and_their_gradients(tmp_path_factory):
    """What lies between a band's pixels and its two rows of logits took 10 times these bytes."""
    (name,) = (name for name in PROGRAMS if "loss of pixels" in name)
    found = compiled(name, tmp_path_factory)
    logits = 4 * 8 * 64 * 64 * 256  # Bytes on a chip: float32, and 150 classes in 256 lanes.
    assert found["float32_largest"] <= logits
    assert found["hbm_padded"] <= 1.01 * committed(name)


def test_mixed_images_are_kept_as_bytes(tmp_path_factory):
    (name,) = (name for name in PROGRAMS if "images with mixup" in name)
    assert compiled(name, tmp_path_factory)["float32_largest"] < 1e6


# One all-reduce each: moments, both sums of the backward pass, gradient of the kernel. If every chip has groups of
# its own, XLA sums the statistics and all gradients in one.
@pytest.mark.parametrize(("groups", "most"), [(1, 3), (4, 1)])
def test_a_layer_on_four_chips_sums_few_arrays_in_float32(tmp_path_factory, groups, most):
    (name,) = (name for name in PROGRAMS if f"BatchNorm in {groups} groups" in name)
    found = compiled(name, tmp_path_factory)["collectives"]
    assert {line["kind"] for line in found} == {"all-reduce"}
    assert {line["dtype"] for line in found} == {"f32"}
    assert sum(line["count"] for line in found) <= most
