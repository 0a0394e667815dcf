"""Writes the Python program of a bundle's README: from an image file to its labels, class or boxes.

The program does not need this project.
"""

import json

from convert.bundle import Bundle
from convert.export import sample_boxes
from convert.labels import class_map

_IMPORTS = {
    "onnx": "import onnxruntime",
    "litert": "from ai_edge_litert.interpreter import Interpreter",
    "executorch": "import torch\nfrom executorch.runtime import Runtime",
    "ncnn": "import ncnn",
    "openvino": "import openvino",
    "mnn": "import MNN.expr as expr\nimport MNN.nn as nn",
    "coreml": "import coremltools",
}
_NETWORKS = {
    "onnx": """session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
{results} = session.run({outputs}, {{"{input}": image}})""",
    "litert": """network = Interpreter("{file}").get_signature_runner()
found = network({input}=image)
{results} = (found[name] for name in {outputs})""",
    "executorch": """method = Runtime.get().load_program("{file}").load_method("forward")
{results} = (tensor.numpy() for tensor in method.execute([torch.from_numpy(image)]))""",
    "ncnn": """network = ncnn.Net()
{options}network.load_param("{file}")
network.load_model("model.ncnn.bin")
extractor = network.create_extractor()
planes = image[0]  # In a variable: a Mat does not keep its memory alive.
extractor.input("{input}", ncnn.Mat(planes))
{results} = (np.array(extractor.extract(name)[1])[None] for name in {outputs})""",
    "openvino": """{options}found = network(image)
{results} = (found[name] for name in {outputs})""",
    "mnn": """{options}network = nn.load_module_from_file(
    "{file}", ["{input}"], {outputs}, runtime_manager=nn.create_runtime_manager((options,))
)
found = network.forward([expr.const(image, image.shape, expr.NCHW)])
found = [expr.convert(tensor, expr.NCHW) for tensor in found]  # In a variable: `read` does not keep memory alive.
{results} = (tensor.read() for tensor in found)""",
    "coreml": """network = coremltools.models.MLModel("{file}")  # On a Mac; elsewhere it cannot predict.
found = network.predict({{"{input}": image}})
{results} = (found[name] for name in {outputs})""",
}
# Without it OpenVINO computes in bfloat16 on processors that have it.
_OPENVINO = """options = {{"INFERENCE_PRECISION_HINT": "f32"}}
network = openvino.Core().compile_model("{file}", "CPU", options)
"""
_MNN = 'options = {{"backend": "CPU", "precision": "{name}"}}  # high: float32; low: float16 where there is one\n'
# ncnn uses fp16 on processors that have it, whatever the file says.
_NCNN_FLOATS = (
    "network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False\n"
)
_KERNEL = """command = ["cc", "-O3", "-shared", "-fPIC", "argmax_upsample.c", "-o", "./argmax_upsample.so", "-lm"]
subprocess.run(command, check=True)
kernel = ctypes.CDLL("./argmax_upsample.so").argmax_upsample
labels = np.empty(({height}, {width}), np.uint8)
pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (logits, labels)]
kernel(pointers[0], *logits.shape, pointers[1], {height}, {width})"""


def code(bundle: Bundle) -> str:
    """Returns the program; it is run in the folder of the bundle with the path of an image."""
    parts = [_imports(bundle), _image(bundle), _input(bundle), _network(bundle), _result(bundle)]
    return "\n\n".join(parts) + "\n"


def _runtime(bundle: Bundle) -> str:
    return "onnx" if bundle.format == "web" else bundle.format


def _imports(bundle: Bundle) -> str:
    modules = ["import json", "import sys"]
    if bundle.tail:
        modules = ["import ctypes", "import json", "import subprocess", "import sys"]
    if bundle.task == "detection":
        modules.insert(2, "import struct")
    cv2 = [] if bundle.task == "classification" else ["import cv2"]
    return "\n".join(
        [*modules, "", *cv2, "import numpy as np", *_IMPORTS[_runtime(bundle)].splitlines(), _PILLOW]
    )


_PILLOW = "from PIL import Image"


def _image(bundle: Bundle) -> str:
    """Returns the lines that read an image and bring it to the input size."""
    height, width = bundle.input_size
    lines = [
        "# 1. The image, RGB, at the size of the input",
        'image = Image.open(sys.argv[1]).convert("RGB")',
    ]
    if bundle.preprocessing["resize"] == "stretch":
        lines.append(
            f"image = cv2.resize(np.asarray(image), ({width}, {height}), interpolation=cv2.INTER_LINEAR)"
        )
        return "\n".join(lines)
    if bundle.preprocessing["resize"] == "pad":
        return "\n".join([*lines, sample_boxes.padded(bundle)])
    fraction, filter_ = bundle.preprocessing["crop_fraction"], bundle.preprocessing["interpolation"].upper()
    lines += [
        f"rows, columns = int({height} / {fraction}), int({width} / {fraction})  # what the image has to cover",
        "size = max((columns, columns * image.height // image.width), (rows * image.width // image.height, rows))",
        f"image = image.resize(size, Image.Resampling.{filter_})",
        f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)",
        f"image = np.asarray(image.crop((left, top, left + {width}, top + {height})))",
    ]
    return "\n".join(lines)


def _input(bundle: Bundle) -> str:
    """Returns the lines that turn the image, uint8 [H, W, 3], into the input of the model."""
    lines = ["# 2. The input of the model", "image = image[None]"]
    if bundle.input_type == "float32":
        lines[-1] = "image = image[None].astype(np.float32) / 255"
    if bundle.normalization:
        lines.append(
            "image = (image - np.float32({})) / np.float32({})".format(*map(list, bundle.normalization))
        )
    if bundle.layout == "NCHW":
        lines.append("image = np.ascontiguousarray(image.transpose(0, 3, 1, 2))")
    return "\n".join(lines)


def _network(bundle: Bundle) -> str:
    outputs = [name for key, name in bundle.tensors.items() if key != "input"]
    results = "logits, deltas" if bundle.task == "detection" else "(output,)"
    lines = _NETWORKS[_runtime(bundle)].format(
        file=bundle.model.name,
        options=_options(bundle),
        input=bundle.tensors["input"],
        outputs=json.dumps(outputs),
        results=results,
    )
    return f"# 3. The network\n{lines}"


def _options(bundle: Bundle) -> str:
    """Returns the lines that choose the type of the arithmetic, for runtimes whose file does not."""
    if bundle.format == "openvino":
        return _OPENVINO.format(file=bundle.model.name)
    if bundle.format == "mnn":
        return _MNN.format(name="high" if bundle.precision == "fp32" else "low")
    return _NCNN_FLOATS if bundle.precision == "fp32" else ""


def _result(bundle: Bundle) -> str:
    """Returns the lines that turn the output into labels or a class, and show it."""
    lines, names = ["# 4. The result"], 'names = json.load(open("model.json"))["class_names"]'
    if bundle.task == "classification":
        lines += [
            "probabilities = np.exp(output[0] - output[0].max())",
            "probabilities /= probabilities.sum()",
            names,
            "for k in np.argsort(-probabilities)[:5]:",
            '    print(f"{100 * probabilities[k]:.1f} % {names[k]}")',
        ]
        return "\n".join(lines)
    if bundle.task == "detection":
        return "\n".join([*lines, sample_boxes.python(bundle, names)])
    kind = "uint8" if len(bundle.class_names) <= class_map.MAX_CLASSES else "uint16"
    return "\n".join(
        [
            *lines,
            *_labels(bundle),
            names,
            "for k in np.unique(labels):",
            '    print(f"{100 * np.mean(labels == k):.1f} % {names[k]}")',
            f'Image.fromarray(labels.astype(np.{kind})).save("labels.png")  # The value of a pixel is its class.',
        ]
    )


def _labels(bundle: Bundle) -> list[str]:
    height, width = bundle.input_size
    if bundle.output == "labels":
        return ["labels = output[0]"]
    moved = "output[0].transpose(1, 2, 0)" if bundle.output_layout == "NCHW" else "output[0]"
    lines = [f"logits = np.ascontiguousarray({moved})"]
    if bundle.tail:
        return [*lines, _KERNEL.format(height=height, width=width)]
    if bundle.output == "logits8":
        lines.append(f"logits = cv2.resize(logits, ({width}, {height}), interpolation=cv2.INTER_LINEAR)")
    return [*lines, "labels = logits.argmax(-1)"]
