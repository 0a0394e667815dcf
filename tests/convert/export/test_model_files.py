"""What the model files themselves say: names of tensors, metadata, opset, and the batch size left open."""

import importlib.util
import json
import pathlib
import zipfile

import numpy as np
import pytest
import torch

from convert import torch_segmentation
from convert.bundle import Bundle
from convert.runtimes import base, registry
from experiments import attention_runtimes
from seaformer_jax.errors import UserError
from tests.convert import small_bundles
from tests.convert.alive import alive
from tests.convert.small_bundles import MEAN, NAMES, SIZE, STD


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    return small_bundles.network("segmentation")


def write(folder, trained: torch.nn.Module, format_: str, output: str, **fields) -> Bundle:
    return small_bundles.write(folder, trained, "segmentation", format_, output, **fields)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def expected(trained: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Returns the class of every pixel as PyTorch computes it."""
    normalized = (pixels / 255 - MEAN) / STD
    with torch.no_grad():
        logits = trained(torch.from_numpy(normalized.astype(np.float32)).permute(0, 3, 1, 2))
        return torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1).numpy()


def test_onnx_takes_any_number_of_camera_images(tmp_path, trained):
    made = write(tmp_path, trained, "onnx", "labels", input_type="uint8", dynamic_batch=True)
    network = registry.find("onnx").load(made)
    for count in (1, 3):
        found = network(images(count))
        assert (found.shape, found.dtype) == ((count, *SIZE), np.uint8)
        assert np.mean(found == expected(trained, images(count))) > 0.999


def test_sums_of_two_products_of_an_int8_onnx_file_fit_in_16_bits(tmp_path, trained):
    # Without VNNI, x86 processors add them in 16 bits, and larger ones would be cut off.
    import onnx

    model = onnx.load(write(tmp_path, trained, "onnx", "logits", precision="int8").model)
    weights = [
        onnx.numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.data_type == onnx.TensorProto.INT8
    ]
    kernels = [values for values in weights if values.ndim == 4]
    assert len(kernels) > 10
    largest = max(np.abs(values.astype(int)).max() for values in kernels)
    assert 32 < largest <= np.iinfo(np.int16).max // (2 * np.iinfo(np.uint8).max)


@pytest.mark.parametrize("opset", [18, 23])
def test_onnx_file(tmp_path, trained, opset):
    import onnx

    made = write(tmp_path, trained, "onnx", "labels", opset=opset)
    model = onnx.load(made.model)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["labels"]
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, *SIZE]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["class_names"]) == list(NAMES) and metadata["licence"] == "MIT"
    assert json.loads(metadata["mean"]) == list(MEAN) and json.loads(metadata["input_size"]) == list(SIZE)
    network = registry.find("onnx").load(made)
    found = network((images(1) / 255).astype(np.float32))
    assert np.mean(found == expected(trained, images(1))) > 0.999


def test_ncnn_file(tmp_path, trained):
    made = write(tmp_path, trained, "ncnn", "logits8")
    lines = [line.split() for line in made.model.read_text().splitlines()]
    assert lines[2][:2] == ["Input", "image"] and lines[2][-1] == "image"
    assert "logits8" in lines[-1]
    assert registry.find("ncnn").load(made)((images(1) / 255).astype(np.float32)).shape == (1, 8, 12, 3)


@pytest.mark.parametrize("input_type", ["float32", "uint8"])
def test_openvino_file(tmp_path, trained, input_type):
    made = write(tmp_path, trained, "openvino", "logits", input_type=input_type, dynamic_batch=True)
    import openvino

    model = openvino.Core().read_model(made.model)
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["image", "logits"]
    info = dict(model.get_rt_info("seaformer").value)
    assert info == base.metadata(made) and json.loads(info["class_names"]) == list(NAMES)
    network = registry.load(made)
    for count in (1, 3):
        pixels = images(count) if input_type == "uint8" else (images(count) / 255).astype(np.float32)
        found = network(pixels)
        assert (found.shape, found.dtype) == ((count, *SIZE, len(NAMES)), np.float32)
        assert np.mean(found.argmax(-1) == expected(trained, images(count))) > 0.999


@pytest.mark.parametrize("output", ["logits8", "logits"])
def test_mnn_file(tmp_path, trained, output):
    made = write(tmp_path, trained, "mnn", output)
    import MNN.nn

    about = MNN.nn.load_module_from_file(str(made.model), ["image"], [output]).get_info()
    assert (about["inputNames"], about["outputNames"], about["bizCode"]) == (["image"], [output], "seaformer")
    logits = torch.from_numpy(registry.load(made)((images(1) / 255).astype(np.float32))).permute(0, 3, 1, 2)
    found = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1).numpy()
    assert np.mean(found == expected(trained, images(1))) > 0.999


def test_core_ml_package(tmp_path, trained):
    made = write(tmp_path, trained, "coreml", "logits8")
    from coremltools.models import utils

    description = utils.load_spec(str(made.model)).description
    found = {
        part.name: (list(part.type.multiArrayType.shape), part.type.multiArrayType.dataType)
        for part in (*description.input, *description.output)
    }
    float32 = 65568  # Of ArrayFeatureType.
    assert found == {"image": ([1, 3, *SIZE], float32), "logits8": ([1, len(NAMES), 8, 12], float32)}
    about = dict(description.metadata.userDefined)
    assert {key: about[key] for key in base.metadata(made)} == base.metadata(made)
    assert description.metadata.license == "MIT"
    assert json.loads(about["class_names"]) == list(NAMES)
    # Every file of the package has its checksum in the card, so that a damaged one is told.
    weights = made.model / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 64
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"weight\.bin was damaged"):
        Bundle.open(made.folder)
    with pytest.raises(UserError, match="is a coreml bundle, which does not run on this machine"):
        registry.load(made)


def test_evaluation_uses_the_weights_in_the_core_ml_package(tmp_path, trained):
    made = write(tmp_path, trained, "coreml", "logits8")
    weights = made.model / "Data/com.apple.CoreML/weights/weight.bin"
    image = (images(1) / 255).astype(np.float32)
    before = registry.find("coreml").load(made)(image)
    content = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    content[-64:] = 0  # The last array in the file.
    weights.write_bytes(content.tobytes())
    after = registry.find("coreml").load(made)(image)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()


@pytest.mark.parametrize("kind", ["sea_plus", "window_shift", "mixformer"])
def test_core_ml_takes_other_kinds_of_attention(kind):
    pytest.importorskip("coremltools", reason="pip install 'seaformer-jax[coreml]'")
    assert attention_runtimes.attempt(kind, "coreml") == "yes"


@pytest.mark.parametrize("input_type", ["float32", "uint8"])
def test_litert_file(tmp_path, trained, input_type):
    made = write(tmp_path, trained, "litert", "logits8", input_type=input_type)
    from ai_edge_litert import interpreter

    read = interpreter.Interpreter(str(made.model))
    ((_, names),) = read.get_signature_list().items()
    assert names == {"inputs": ["image"], "outputs": ["logits8"]}
    assert [details["name"] for details in read.get_input_details()] == ["image"]
    assert read.get_input_details()[0]["dtype"] == np.dtype(input_type).type
    # The file is a zip archive, too, as readers of the names of classes expect.
    with zipfile.ZipFile(made.model) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
    pixels = images(1) if input_type == "uint8" else (images(1) / 255).astype(np.float32)
    logits = torch.from_numpy(registry.find("litert").load(made)(pixels)).permute(0, 3, 1, 2)
    found = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1).numpy()
    assert np.mean(found == expected(trained, images(1))) > 0.999


@pytest.mark.slow
def test_metadata_leave_litert_its_weights(tmp_path):
    """The quantiser writes those of more than a kilobyte behind the FlatBuffer."""
    trained = alive(torch_segmentation.create_model("seaformer_tiny", len(NAMES)), SIZE)
    made = write(tmp_path, trained, "litert", "logits8", precision="fp16")
    found = registry.find("litert").load(made)((images(1) / 255).astype(np.float32))
    logits = torch.nn.functional.interpolate(
        torch.from_numpy(found).permute(0, 3, 1, 2), SIZE, mode="bilinear"
    )
    assert np.mean(logits.argmax(1).numpy() == expected(trained, images(1))) > 0.98


@pytest.mark.parametrize(
    ("name", "precision", "half"),
    [
        ("seaformer_tiny", "fp16", True),
        ("seaformer_tiny", "fp32", False),
        ("seaformer_plus_tiny", "fp16", False),
    ],
)
def test_files_that_xnnpack_may_compute_in_half_precision(tmp_path, monkeypatch, name, precision, half):
    """Not those of SeaFormer++, whose exponentials are too large; and no product has a transposed first factor."""
    # Attention among a single token, as at 64x96, has exponentials in place of the softmax.
    monkeypatch.setattr(small_bundles, "SIZE", (128, 192))
    trained = alive(torch_segmentation.create_model(name, len(NAMES), depths=(1, 1)), SIZE)
    made = write(tmp_path, trained, "litert", "logits8", precision=precision)
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(made.model.read_bytes(), 0)
    entries = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert entries.get(b"reduced_precision_support") == (b"fp16accfp16" if half else None)
    options = [each.builtinOptions for each in model.subgraphs[0].operators]
    products = [each.adjX for each in options if isinstance(each, schema.BatchMatMulOptionsT)]
    assert len(products) == 8 and not any(products)  # Two stages, rows and columns, scores and values.


@pytest.mark.parametrize("input_type", ["float32", "uint8"])
def test_metadata_as_another_reader_finds_them(tmp_path, trained, input_type):
    made = write(tmp_path, trained, "litert", "logits8", input_type=input_type)
    from ai_edge_litert import schema_py_generated

    schema = mediapipe_schema()
    model = schema_py_generated.ModelT.InitFromPackedBuf(made.model.read_bytes(), 0)
    (buffer,) = (entry.buffer for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    found = schema.ModelMetadataT.InitFromPackedBuf(bytes(model.buffers[buffer].data), 0)
    assert (found.name, found.license) == (b"mini", b"MIT")
    assert json.loads(found.description) == base.metadata(made)
    (graph,) = found.subgraphMetadata
    (input_,), (output,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert (input_.name, output.name) == (b"image", b"logits8")
    assert input_.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    options = input_.processUnits[0].options
    assert isinstance(options, schema.NormalizationOptionsT)
    assert (list(options.mean), list(options.std)) == ([0], [1 if input_type == "uint8" else 255])
    assert (list(input_.stats.min), list(input_.stats.max)) == ([0], [255 if input_type == "uint8" else 1])
    (labels,) = output.associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS)


def mediapipe_schema():
    """Returns the classes that mediapipe reads the metadata with, without importing the rest of it."""
    found = importlib.util.find_spec("mediapipe")
    if found is None:
        pytest.skip("mediapipe is missing, with whose classes the metadata are read")
    path = pathlib.Path(found.origin).parent / "tasks/metadata/metadata_schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("metadata_schema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
