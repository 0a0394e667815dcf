"""Writes the README of a bundle: how an image is prepared, what goes in and comes out, and programs that do it."""

from convert.bundle import Bundle
from convert.export import sample_boxes, sample_cpp, sample_python, sample_swift

_FP16 = {
    "onnx": "weights in half precision, arithmetic in float32",
    "litert": "weights in half precision; arithmetic, too, on ARMv8.2 and later, but not in SeaFormer++",
    "executorch": "weights and arithmetic in half precision",
    "ncnn": "weights in half precision, and arithmetic, too, on ARMv8.2 and later",
    "openvino": "weights in half precision; arithmetic in float32 on processors, in half precision on GPUs",
    "mnn": "weights in half precision, and arithmetic, too, on ARMv8.2 and later",
    "coreml": "weights and arithmetic in half precision",
    "web": "weights in half precision, arithmetic in float32",
}
_PRECISIONS = {
    "fp32": "weights and arithmetic in float32",
    "int8": "weights and activations in 8 bits; ranges are fixed, from calibration images",
}
_PACKAGES = {
    "onnx": "onnxruntime",
    "litert": "ai-edge-litert",
    "executorch": "executorch",
    "ncnn": "ncnn",
    "openvino": "openvino",
    "mnn": "MNN",
    "coreml": "coremltools",
    "web": "onnxruntime",
}
_EQUALS = "Of classes with equal logits the lowest wins."


def text(bundle: Bundle) -> str:
    """Returns README.md."""
    parts = [_head(bundle), _preprocessing(bundle), _tensors(bundle), _labels(bundle), _python(bundle)]
    last = {"web": _web, "coreml": _swift}.get(bundle.format, _cpp)(bundle)
    return "\n\n".join([*parts, last, _files(bundle)]) + "\n"


def _head(bundle: Bundle) -> str:
    meaning = _FP16[bundle.format] if bundle.precision == "fp16" else _PRECISIONS[bundle.precision]
    score = "It was not scored on labelled images."
    if bundle.score:
        score = "It scored {percent:.2f} % {metric} on {images} labelled images.".format(**bundle.score)
    return (
        f"# {bundle.name}, {bundle.task}, for {bundle.format}\n\n"
        f"{len(bundle.class_names)} classes. {bundle.precision}: {meaning}. {score} Licence of the weights: "
        f"{bundle.licence or 'not stated; ask those who trained them'}."
    )


def _preprocessing(bundle: Bundle) -> str:
    height, width = bundle.input_size
    about = bundle.preprocessing
    if about["resize"] == "stretch":
        size = (
            f"Resize the whole image to {width} x {height} (width x height), whatever its aspect ratio: bilinear, "
            "half-pixel centres, no antialiasing (OpenCV's `INTER_LINEAR`)."
        )
    elif about["resize"] == "pad":
        red, green, blue = sample_boxes.colour(bundle)
        size = (
            f"Resize the image as far as it fits into {width} x {height} pixels (width x height), with its aspect "
            "ratio kept: bilinear, half-pixel centres, no antialiasing (OpenCV's `INTER_LINEAR`). Fill the rest, on "
            f"the right and below, with the colour ({red}, {green}, {blue})."
        )
    else:
        size = (
            f"Resize the image, with its aspect ratio kept, until it just covers {width} x {height} pixels (width x "
            f"height) divided by {about['crop_fraction']}: {about['interpolation']}, with antialiasing (Pillow's). "
            f"Then crop the central {width} x {height}."
        )
    steps = ["Decode the image to 8 bits per channel, in the order red, green, blue.", size]
    if bundle.input_type == "uint8":
        steps.append("Pass the bytes as they are, in 0..255. The model normalises them.")
    else:
        steps.append("Divide by 255, so that values are in [0, 1].")
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (bundle.mean, bundle.std))
        steps.append(
            "Pass these values: the model normalises them."
            if bundle.normalized_inside
            else f"Subtract the mean ({mean}) and divide by the standard deviation ({std})."
        )
    return "## Preprocessing\n\n" + "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _tensors(bundle: Bundle) -> str:
    height, width = bundle.input_size
    batch = "any" if bundle.dynamic_batch else "1"
    shape = (
        f"[{batch}, {height}, {width}, 3]" if bundle.layout == "NHWC" else f"[{batch}, 3, {height}, {width}]"
    )
    names = {key: f"`{name}`" if name else "(no name)" for key, name in bundle.tensors.items()}
    return (
        "## Input and output\n\n| | name | type | shape |\n|---|---|---|---|\n"
        f"| input | {names['input']} | {bundle.input_type} | {shape} |\n"
        f"| output | {names['output']} | {'uint8' if bundle.output == 'labels' else 'float32'} "
        f"| {_output_shape(bundle, batch)} |\n{_deltas(bundle, names, batch)}\n"
        "The size of the image is fixed; export the model again for another one."
    )


def _deltas(bundle: Bundle, names: dict[str, str], batch: str) -> str:
    """Returns the row of a detector's second output; "" for other models."""
    if bundle.output != "head":
        return ""
    return f"| output | {names['deltas']} | float32 | [{batch}, {bundle.reference()[1].shape[1]}, 4] |\n"


def _output_shape(bundle: Bundle, batch: str) -> str:
    height, width = bundle.input_size
    classes = len(bundle.class_names)
    if bundle.task == "classification":
        return f"[{batch}, {classes}]"
    if bundle.output == "labels":
        return f"[{batch}, {height}, {width}]"
    if bundle.output == "head":
        return f"[{batch}, {bundle.reference()[1].shape[1]}, {classes}]"
    h, w = (height, width) if bundle.output == "logits" else bundle.reference()[1].shape[1:3]
    return (
        f"[{batch}, {h}, {w}, {classes}]"
        if bundle.output_layout == "NHWC"
        else f"[{batch}, {classes}, {h}, {w}]"
    )


def _labels(bundle: Bundle) -> str:
    if bundle.task == "detection":
        return _boxes(bundle)
    if bundle.task == "classification":
        how = "The class is the position of the largest logit. Probabilities are the softmax of the logits."
    elif bundle.output == "labels":
        how = f"The output is the class of every pixel. {_EQUALS}"
    elif bundle.tail:
        how = (
            "The outputs are logits at a lower resolution. `argmax_upsample.c` resizes them bilinearly and takes the "
            f"largest, without ever storing the resized logits. {_EQUALS}"
        )
    else:
        resize = (
            "Resize the logits bilinearly to the size of the input. " if bundle.output == "logits8" else ""
        )
        how = f"{resize}The class of a pixel is the position of its largest logit. {_EQUALS}"
    ignored = bundle.masks.get("ignore_label")
    masks = f" In the masks of its data set, {ignored} means: no class." if ignored is not None else ""
    names = "`class_names` in `model.json` has the name of class k at position k."
    return f"## From the output to classes\n\n{how} {names}{masks}"


def _boxes(bundle: Bundle) -> str:
    settings = {name: f"{value:g}" for name, value in bundle.decoding.items()}
    return (
        "## From the outputs to boxes\n\nThe outputs are the logits of independent sigmoids and the box deltas of "
        "all anchors, by level (strides 8, 16, 32, 64 and 128), row, column and anchor. `decode_boxes.c` makes boxes "
        "of them; `decode_boxes.h` says how. It keeps pairs of anchor and class with a score above "
        "{score_threshold}, of each level the best {per_level}, and then, by non-maximum suppression within each "
        "class (overlap above {iou_threshold}), at most {per_image} boxes. The smallest square anchor of a level is "
        "{anchor_scale} strides wide. `class_names` in `model.json` has the name of class k at position k.".format(
            **settings
        )
    )


def _python(bundle: Bundle) -> str:
    resizing = "" if bundle.task == "classification" else " opencv-python-headless"
    packages = f"{_PACKAGES[bundle.format]} numpy Pillow{resizing}"
    return (
        f"## Python\n\n`pip install {packages}`, save this as `sample.py` in this folder, and run "
        f"`python sample.py PHOTO.jpg` here.\n\n```python\n{sample_python.code(bundle)}```"
    )


def _cpp(bundle: Bundle) -> str:
    height, width = bundle.input_size
    return (
        "## C++\n\nSave this as `sample.cpp` in this folder. It takes a binary PPM file of "
        f"{width} x {height} pixels, resized as above.\n\n"
        f"```sh\n{sample_cpp.command(bundle)}\n```\n\n```cpp\n{sample_cpp.code(bundle)}```"
    )


def _swift(bundle: Bundle) -> str:
    return (
        "## Swift\n\nThis is how an app on macOS or iOS runs the model, with the input in `values`: float32, "
        "prepared as above, in the order of the shape above. It has not been compiled.\n\n"
        f"```swift\n{sample_swift.code(bundle)}```"
    )


def _web(bundle: Bundle) -> str:
    return (
        "## In a browser\n\n`python -m http.server` in this folder, then open <http://localhost:8000>: drop a "
        "photograph on the page, or start the camera. Everything runs in the browser, in WebGPU where there is one, "
        "else in WebAssembly; no image leaves it. Any server of static files will do; browsers give the camera to "
        "localhost and https only. `network.js` is the part to take into a page of your own, with `resample.js` and "
        "`labels.js`, which it imports."
    )


def _files(bundle: Bundle) -> str:
    names = {path.relative_to(bundle.folder).parts[0] for path in bundle.model_files()}
    model = " and ".join(f"`{name}`" for name in sorted(names))
    page = "- `index.html` and what else is here: the page.\n" if bundle.format == "web" else ""
    tail = f"- `{bundle.tail}.c` and `.h`: what follows the model, see above.\n" if bundle.tail else ""
    return (
        "## Files\n\n"
        f"- {model}: the model.\n{tail}{page}"
        "- `model.json`: all of the above for programs.\n"
        "- `reference.npz`: an input (channels last) and the output for it, to test your own code with.\n"
        f"- `report.md`: how far this model is from the trained one.\n\n{_commands(bundle)}"
    )


def _commands(bundle: Bundle) -> str:
    if bundle.format == "coreml":
        return (
            "The model was converted and not run, because Core ML exists on Apple's systems only. Compare it on a "
            "Mac with `reference.npz` before you rely on it."
        )
    device = " --device browser" if bundle.format == "web" else ""
    return (
        "With seaformer_jax installed, `python -m convert.run FOLDER --images 'photos/*.jpg' --out predictions` runs "
        f"the bundle, and `python -m convert.latency FOLDER{device}` measures it."
    )
