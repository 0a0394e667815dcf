"""What LiteRT's report says of the GPU delegate: by hand-made files, and of an export."""

import pytest

from convert.runtimes import tflite_gpu
from tests.convert import small_bundles

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is missing")


def write(path, operators: list[tuple[str, list[list[int]]]]):
    """Writes a file with operators, each a name and the shapes of its inputs."""
    flatbuffers = pytest.importorskip("flatbuffers")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes, graph.tensors, graph.operators = [], [], []
    graph.inputs, graph.outputs = [], []
    for name, shapes in operators:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes), [], []
        for shape in shapes:
            tensor = schema.TensorT()
            tensor.shape, tensor.name = shape, f"t{len(graph.tensors)}"
            operator.inputs.append(len(graph.tensors))
            graph.tensors.append(tensor)
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    ("name", "shapes", "taken"),
    [
        ("CONV_2D", [[1, 8, 8, 3], [4, 3, 3, 3]], True),
        ("UNIQUE", [[4]], False),
        ("ARG_MAX", [[1, 8, 8, 3]], False),
        ("SLICE", [[1, 8, 8, 3], [4], [4]], True),
        ("SLICE", [[1, 8, 8, 3, 2], [5], [5]], False),
        ("ADD", [[1, 8, 8, 3], [3]], True),
        ("ADD", [[1, 8, 8, 3], [8, 8, 3]], True),
        ("ADD", [[2, 8, 8, 3], [8, 8, 3]], False),
        ("MUL", [[1, 8, 8, 3], [1, 1]], True),
        ("MUL", [[1, 8, 8, 3], [8, 3]], False),
    ],
)
def test_operators_that_the_gpu_takes(tmp_path, name, shapes, taken):
    path = write(tmp_path / "m.tflite", [("RELU", [[1, 8, 8, 3]]), (name, shapes), (name, shapes)])
    assert tflite_gpu.outside(path) == ({} if taken else {name: 2})
    said = "takes every operator" if taken else f"leaves operators to the processor: 2 {name}."
    assert said in tflite_gpu.verdict(path)


def test_why_the_analyser_is_not_asked(tmp_path):
    """It calls any file compatible. If this fails it applies the rules again, and can replace ours."""
    from ai_edge_litert import _pywrap_analyzer_wrapper

    path = write(tmp_path / "m.tflite", [("UNIQUE", [[4]])])
    said = _pywrap_analyzer_wrapper.ModelAnalyzer(str(path), True, True)
    assert "UNIQUE" in said and "looks compatible with GPU delegate" in said


@pytest.mark.slow
def test_an_export_is_all_the_gpus(tmp_path):
    made = small_bundles.write(
        tmp_path, small_bundles.network("segmentation"), "segmentation", "litert", "logits8"
    )
    assert tflite_gpu.outside(made.model) == {}
