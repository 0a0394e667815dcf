"""What the programs of a detector's README do in another way than those of other tasks: padding and boxes."""

import numpy as np

from convert.bundle import Bundle
from convert.labels.boxes import Decoding

_PADDED = """image = np.asarray(image)
factor = min({height} / image.shape[0], {width} / image.shape[1])
rows, columns = (max(int(side * factor + 0.5), 1) for side in image.shape[:2])
scales = rows / image.shape[0], columns / image.shape[1]
resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
image = np.full(({height}, {width}, 3), {colour}, np.uint8)
image[:rows, :columns] = resized"""
_BOXES = """command = ["cc", "-O3", "-shared", "-fPIC", "decode_boxes.c", "-o", "./decode_boxes.so", "-lm"]
subprocess.run(command, check=True)
kernel = ctypes.CDLL("./decode_boxes.so").decode_boxes
# BoxDecoding and BoxPhotograph of decode_boxes.h
detector = struct.pack("3i3f2i", {height}, {width}, {classes}, {settings})
photograph = struct.pack("2i2f", rows, columns, *scales)
found = np.empty({per_image}, [("corners", "4f4"), ("score", "f4"), ("label", "i4")])
scratch = np.empty(3 * 5 * {per_level}, np.int32)
arrays = [np.ascontiguousarray(logits), np.ascontiguousarray(deltas), scratch, found]
pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
count = kernel(detector, photograph, pointers[0], {classes}, pointers[1], 4, *pointers[2:])
{names}
for (x1, y1, x2, y2), score, label in found[:count]:
    print(f"{{100 * score:.1f}} % {{names[label]}} from ({{x1:.1f}}, {{y1:.1f}}) to ({{x2:.1f}}, {{y2:.1f}})")"""
_CPP = """  // The logits of all anchors, and behind them their box deltas.
  constexpr int classes = {classes}, anchors = {anchors};
  const BoxDecoding detector = {{H, W, classes, {settings}}};
  const BoxPhotograph photograph = {{H, W, 1, 1}};  // The image fills the input; see decode_boxes.h for padding.
  std::vector<BoxCandidate> scratch(size_t(BOX_LEVELS) * detector.per_level);
  std::vector<Box> boxes(detector.per_image);
  const float *logits = output.data(), *deltas = logits + size_t(anchors) * classes;
  const int count =
      decode_boxes(&detector, &photograph, logits, classes, deltas, 4, scratch.data(), boxes.data());
  for (int i = 0; i < count; i++) {{
    const Box &box = boxes[i];
    std::printf("%.1f %% class %d from (%.1f, %.1f) to (%.1f, %.1f)\\n", 100 * box.score, box.label, box.x1, box.y1,
                box.x2, box.y2);
  }}
"""


def colour(bundle: Bundle) -> list[int]:
    """Returns the colour of the padding, the mean in 0..255."""
    return np.rint(255 * np.array(bundle.mean)).astype(int).tolist()


def padded(bundle: Bundle) -> str:
    """Returns the lines of Python that resize `image` and pad it to the size of the input."""
    height, width = bundle.input_size
    return _PADDED.format(height=height, width=width, colour=colour(bundle))


def python(bundle: Bundle, names: str) -> str:
    """Returns the lines of Python that print the boxes; `names` is the line that reads the names of the classes."""
    height, width = bundle.input_size
    fields = bundle.decoding | {"classes": len(bundle.class_names), "settings": _settings(bundle)}
    return _BOXES.format(height=height, width=width, names=names, **fields)


def cpp(bundle: Bundle) -> str:
    """Returns the lines of C++ that print the boxes of `output`."""
    _, anchors, values = bundle.reference()[1].shape
    return _CPP.format(classes=values - 4, anchors=anchors, settings=_settings(bundle, "f"))


def _settings(bundle: Bundle, suffix: str = "") -> str:
    """Returns the settings, separated by commas; `suffix` marks floats."""
    values = [bundle.decoding[name] for name in Decoding.settings()]
    return ", ".join(f"{float(v)!r}{suffix}" if i < 3 else str(int(v)) for i, v in enumerate(values))
