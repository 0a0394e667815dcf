"""Reading of compiled programs: small texts, with bytes counted by hand."""

import importlib.metadata

import jax
import pytest

from experiments.programs import floor, hlo, install, micro, rows, summary, traffic
from experiments.programs.catalogue import Program
from experiments.programs.compiling import Compiled
from experiments.programs.targets import Target
from seaformer_jax import mesh
from seaformer_jax.models.registry import create_model
from tests import toys


def module(entry: str, *others: str) -> hlo.Module:
    """Returns the program with the lines `entry` in its entry computation, after other computations."""
    return hlo.parse(
        "\n".join(["HloModule jit_f", *others, "ENTRY %main (x: f32[2]) -> f32[2] {", entry, "}"])
    )


def moved(program: hlo.Module) -> dict[str, tuple[int, int]]:
    """Returns name -> (bytes read, bytes written), with padding."""
    return {c.visit.instruction.name: (c.read.padded, c.written.padded) for c in traffic.costs(program)}


@pytest.mark.parametrize(
    ("shape", "raw", "padded"),
    [
        ("f32[3,5]{1,0}", 60, 60),
        ("f32[]", 4, 4),
        # Axes 0 and 2 lie innermost: 64 -> 128 lanes, 10 -> 16 sublanes. The second tile packs pairs, no more.
        ("bf16[64,5,10]{0,2,1:T(8,128)(2,1)}", 6400, 2 * 128 * 5 * 16),
        ("bf16[256,112,112,3]{0,2,3,1:T(8,128)(2,1)}", 2 * 256 * 112 * 112 * 3, 2 * 256 * 112 * 112 * 3),
        ("f32[150]{0:T(256)}", 600, 1024),
        ("pred[2,3]{1,0:T(8,128)(4,1)S(1)}", 6, 1024),
        ("u32[]{:T(128)}", 4, 512),
    ],
)
def test_bytes_of_an_array(shape, raw, padded):
    ((array,),) = hlo.elements(shape)
    assert (array.raw_bytes, array.padded_bytes) == (raw, padded)


def test_nested_tuples_and_memory_spaces():
    found = hlo.elements(
        "((f32[8,4]{0,1:T(8,128)}, s8[7]{0}), /*index=1*/bf16[2]{0:T(128)S(1)}, u32[]{:S(2)})"
    )
    assert [[array.dtype for array in element] for element in found] == [["f32", "s8"], ["bf16"], ["u32"]]
    assert found[0][0].order == (0, 1) and found[0][0].tile == (8, 128)
    assert [element[0].space for element in found] == [0, 1, 2]


def test_an_instruction_with_everything():
    program = module(
        '  ROOT %r = (f32[2]{0}, /*index=1*/s32[]) custom-call(%a, /*i*/%b), custom_call_target="__cudnn$conv", '
        "calls=%f, metadata={op_name=\"jit(f)/p[\\'k\\']\" stack_frame_id=1}"
    )
    found = program.computations[program.entry].instructions["r"]
    assert (found.opcode, found.operands, found.called) == ("custom-call", ["a", "b"], {"calls": ["f"]})
    assert (found.target, found.op_name) == ("__cudnn$conv", "jit(f)/p['k']")
    assert program.computations[program.entry].root == "r"


X = "  %x = f32[100,128]{1,0:T(8,128)} parameter(0)"  # 51,200 bytes, 53,248 with padding to 104 rows.


def test_an_operand_is_read_once_and_fast_memory_costs_nothing():
    program = module(
        f"""{X}
  %square = f32[100,128]{{1,0:T(8,128)}} multiply(%x, %x)
  %fast = f32[100,128]{{1,0:T(8,128)S(1)}} add(%x, %square)
  %view = f32[12800]{{0:T(128)}} bitcast(%square)
  ROOT %sum = f32[]{{:T(128)}} reduce(%fast, %view), to_apply=%add"""
    )
    assert moved(program) == {"square": (53_248, 53_248), "fast": (2 * 53_248, 0), "sum": (51_200, 512)}
    read = traffic.total(cost.read for cost in traffic.costs(program))
    assert read == traffic.Bytes(raw=4 * 51_200, padded=3 * 53_248 + 51_200)


def test_copies_between_memories_count_where_they_start():
    program = module(
        f"""{X}
  %in = (f32[100,128]{{1,0:T(8,128)S(1)}}, f32[100,128]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%x)
  %in-done = f32[100,128]{{1,0:T(8,128)S(1)}} copy-done(%in)
  %out = (f32[100,128]{{1,0:T(8,128)}}, f32[100,128]{{1,0:T(8,128)S(1)}}, u32[]{{:S(2)}}) copy-start(%in-done)
  ROOT %out-done = f32[100,128]{{1,0:T(8,128)}} copy-done(%out)
  %part = ((f32[100,128]{{1,0:T(8,128)}}), f32[8,128]{{1,0:T(8,128)S(1)}}, s32[]{{:S(2)}}) slice-start(%x)"""
    )
    assert moved(program) == {"in": (53_248, 0), "out": (0, 53_248), "part": (4096, 0)}


LOOP = """
%condition (s: (s32[], f32[100,128])) -> pred[] {
  %s = (s32[], f32[100,128]{1,0}) parameter(0)
  %n = s32[] constant(25)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %less = pred[] compare(%i, %n), direction=LT
}
%update (p: f32[100,128], i: s32[]) -> f32[100,128] {
  %i = s32[] parameter(1)
  %p = f32[100,128]{1,0} parameter(0)
  %b = f32[100,128]{1,0} bitcast(%p)
  %zero = s32[] constant(0)
  %rows = f32[4,128]{1,0} dynamic-slice(%b, %i, %zero), dynamic_slice_sizes={4,128}
  %twice = f32[4,128]{1,0} add(%rows, %rows)
  ROOT %new = f32[100,128]{1,0} dynamic-update-slice(%b, %twice, %i, %zero)
}
%body (s: (s32[], f32[100,128])) -> (s32[], f32[100,128]) {
  %s = (s32[], f32[100,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[100,128]{1,0} get-tuple-element(%s), index=1
  %step = f32[100,128]{1,0} fusion(%x, %i), kind=kLoop, calls=%update
  %sum = (bf16[4]{0}, f32[6]{0}, f32[2]{0}) all-reduce(%x), to_apply=%add
  ROOT %t = (s32[], f32[100,128]{1,0}) tuple(%i, %step)
}"""


# On GPUs the comparison is a fusion.
FUSED = """
%compare (i: s32[]) -> pred[] {
  %i = s32[] parameter(0)
  %n = s32[] constant(25)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}
%fused_condition (s: (s32[], f32[100,128])) -> pred[] {
  %s = (s32[], f32[100,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %f = pred[] fusion(%i), kind=kLoop, calls=%compare
}"""


@pytest.mark.parametrize("condition", ["condition", "fused_condition"])
def test_a_loop_counts_the_slices_that_move_as_often_as_it_runs(condition):
    program = module(
        "  %s = (s32[], f32[100,128]{1,0}) parameter(0)\n"
        f"  ROOT %w = (s32[], f32[100,128]{{1,0}}) while(%s), condition=%{condition}, body=%body",
        LOOP + FUSED,
    )
    found = moved(program)
    # 4 x 128 values each time, and the position.
    assert found["step"] == (25 * (2048 + 4), 25 * 2048)
    assert found["sum"] == (25 * 51_200, 25 * (8 + 24 + 8))
    figures = summary.summarize(program)
    assert figures["loops"] == 1
    assert figures["collectives"] == [
        {"kind": "all-reduce", "dtype": "f32", "count": 25, "arrays": 50, "bytes": 25 * 32},
        {"kind": "all-reduce", "dtype": "bf16", "count": 25, "arrays": 25, "bytes": 25 * 8},
    ]


def test_collectives_are_found_where_they_start_and_in_fusions():
    program = module(
        f"""{X}
  %g = (f32[100,128]{{1,0}}, f32[400,128]{{1,0}}) all-gather-start(%x), dimensions={{0}}
  %g-done = f32[400,128]{{1,0}} all-gather-done(%g)
  ROOT %f = f32[50,128]{{1,0}} fusion(%x), kind=kCustom, calls=%scatter""",
        "%scatter (p: f32[100,128]) -> f32[50,128] {",
        "  %p = f32[100,128]{1,0} parameter(0)",
        "  ROOT %r = f32[50,128]{1,0} reduce-scatter(%p), dimensions={0}",
        "}",
    )
    assert summary.collectives(program) == [
        {"kind": "all-gather", "dtype": "f32", "count": 1, "arrays": 1, "bytes": 400 * 512},
        {"kind": "reduce-scatter", "dtype": "f32", "count": 1, "arrays": 1, "bytes": 50 * 512},
    ]


def test_layout_copies_and_float32_results():
    program = module(
        """  %x = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %same = bf16[1024,1024]{1,0:T(8,128)(2,1)} copy(%x)
  %turned = bf16[1024,1024]{0,1:T(8,128)(2,1)} copy(%x)
  %moved = bf16[1048576]{0:T(1024)} reshape(%turned)
  %small = bf16[128,128]{0,1} copy(%part)
  %part = bf16[128,128]{1,0} slice(%x), slice={[0:128], [0:128]}
  %wide = f32[1024,1024]{1,0:T(8,128)} convert(%x)
  ROOT %fast = f32[1024,1024]{1,0:T(8,128)S(1)} convert(%wide)"""
    )
    figures = summary.summarize(program)
    two = 2 * 1024 * 1024
    assert figures["layout_copies"] == {"count": 2, "bytes": 4 * two}
    assert figures["float32_written"] == figures["float32_largest"] == 2 * two
    assert figures["most_expensive"][0]["instruction"] == "convert wide"
    assert figures["most_expensive"][0]["result"] == "f32[1024,1024]{1,0}"


def test_scratch_space_of_gpu_libraries_is_not_written():
    program = module(
        """  %x = bf16[4,4]{1,0} parameter(0)
  ROOT %c = (bf16[4,8]{1,0}, s8[33554432]{0}) custom-call(%x), custom_call_target="__cublas$gemm" """
    )
    assert moved(program) == {"c": (32, 64)}


def test_the_floor_is_counted_layer_by_layer():
    toys.register()
    # Images of 32 x 32: the stem at 1/2; one inverted residual with expansion, depthwise and projection.
    convolutions = 16 * 16 * 8 + 16 * 16 * 16 + 8 * 8 * (16 + 8)
    # Each of two attentions at 1/4: q, k and v; both axes' encodings; the projection; the detail branch.
    attention = 8 * 8 * (8 + 8 + 16) + 2 * 8 * 16 + 8 * 8 * 8 + 8 * 8 * (32 + 8)
    ffn = 8 * 8 * (16 + 8)
    outputs = convolutions + 2 * (attention + ffn)
    assert floor.outputs_before_batch_norm(create_model("nano"), 32, 32) == outputs
    assert floor.floor_bytes(create_model("nano"), 32, 32) == 7 * 2 * outputs


@pytest.mark.parametrize(
    ("model", "millions"), [("tiny", 2.876096), ("small", 3.61536), ("base", 4.417344), ("large", 12.290432)]
)
def test_the_floors_of_the_published_sizes(model, millions):
    assert floor.outputs_before_batch_norm(create_model(f"seaformer_{model}"), 224, 224) == 1e6 * millions


def test_rows_and_their_page():
    text = (
        f"ENTRY %main (x: f32[2]) -> f32[2] {{\n{X}\n  ROOT %y = f32[100,128]{{1,0:T(8,128)}} negate(%x)\n}}"
    )
    program = Program("step", Target("v5e", "2x2"), 1024, None, lambda: 1000)
    memory = {"argument": 51_200, "temp": 0, "peak_memory": 10**9}
    row = rows.row(program, Compiled(text, memory, {"cpu_seconds": 3}))
    assert (row["chips"], row["images_per_chip"], row["floor"]) == (4, 256, 256_000)
    assert row["seconds_at_bandwidth"] == pytest.approx(2 * 53_248 / 819e9)
    assert row["images_per_second_at_most"] == pytest.approx(256 * 819e9 / (2 * 53_248))
    page = rows.markdown({program.name: row, "other": {"error": "out of memory"}}, "Programs")
    assert "| step, 1024 images, v5e:2x2 |" in page and "| other | out of memory |" in page


def test_the_compilers_are_those_of_the_jax_that_is_installed():
    (libtpu,) = install.requirements("tpu")
    (wanted,) = (one for one in importlib.metadata.requires("jax") if one.startswith("libtpu"))
    assert libtpu.startswith(wanted.split(";")[0].removesuffix("*"))
    version = importlib.metadata.version("jaxlib")
    assert {one.split("==")[1] for one in install.requirements("cuda")} == {version}


@pytest.mark.parametrize(
    ("options", "image"), [({}, "224x224"), ({"on_device": True}, "224x224"), ({"crops": True}, "256x342")]
)
def test_the_preparation_of_a_batch_is_that_of_the_recipe(options, image):
    options = {"on_device": "crops" in options, **options}
    lowered = micro.preparation(mesh.create_mesh(jax.devices()[:1]), batch_size=2, **options)
    assert f"tensor<2x{image}x3xui8>" in lowered.as_text()
