"""Writes the C++ program of a bundle's README: from a PPM file of the input's size to its labels, class or boxes."""

from convert.bundle import Bundle
from convert.export import sample_boxes, sample_cpp_runs

_PROGRAM = """#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

@includes

using In = @in;
using Out = @out;
constexpr int H = @height, W = @width;

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "%s\\n", what);
  std::exit(1);
}

// Reads RGB, H x W x 3, from a binary PPM file.
std::vector<unsigned char> read_image(const char *path) {
  std::vector<unsigned char> image(size_t(H) * W * 3);
  int width, height, most;
  FILE *file = std::fopen(path, "rb");
  if (!file || std::fscanf(file, "P6 %d %d %d", &width, &height, &most) != 3) fail("this is no PPM file");
  if (width != W || height != H || most != 255) fail("expected an image of @width x @height with 8 bits");
  std::fgetc(file);
  if (std::fread(image.data(), 1, image.size(), file) != image.size()) fail("the file is too short");
  std::fclose(file);
  return image;
}

@run

int main(int argc, char **argv) {
  if (argc != 2) fail("usage: sample IMAGE.ppm");
  const std::vector<unsigned char> image = read_image(argv[1]);
@prepare
  const std::vector<Out> output = run(input);
@finish}
"""
_CLASS = """  int best = 0;  // Of equals the lowest.
  for (int k = 1; k < int(output.size()); k++) best = output[k] > output[best] ? k : best;
  std::printf("class %d\\n", best);
"""
_WRITE = """  FILE *file = std::fopen("labels.pgm", "wb");  // The value of a pixel is its class.
  std::fprintf(file, "P5 %d %d 255\\n", W, H);
  std::fwrite(labels.data(), 1, labels.size(), file);
  std::fclose(file);
"""


def command(bundle: Bundle) -> str:
    """Returns the shell commands that compile and run the program."""
    kernel = [f"gcc -O3 -c {bundle.tail}.c", f" {bundle.tail}.o"] if bundle.tail else ["", ""]
    compile_ = f"g++ -std=c++17 -O2 sample.cpp{kernel[1]} -o sample {sample_cpp_runs.LINKED[bundle.format]}"
    return "\n".join(line for line in (kernel[0], compile_, "./sample image.ppm") if line)


def code(bundle: Bundle) -> str:
    """Returns the program; it is run in the folder of the bundle."""
    height, width = bundle.input_size
    shapes = _output_shapes(bundle)
    outputs = [name for key, name in bundle.tensors.items() if key != "input"]
    words = {
        "includes": "\n".join(f"#include {name}" for name in _headers(bundle)),
        "run": sample_cpp_runs.RUNS[bundle.format],
        "prepare": _prepare(bundle),
        "finish": _finish(bundle),
        "options": sample_cpp_runs.options(bundle),
        "file": bundle.model.name,
        "shape": "1, H, W, 3" if bundle.layout == "NHWC" else "1, 3, H, W",
        "in_type": "kLiteRtElementTypeUInt8" if bundle.input_type == "uint8" else "kLiteRtElementTypeFloat32",
        "out_types": ", ".join(map(_litert_type, shapes)),
        "out_counts": ", ".join(" * ".join(map(str, shape)) for shape in shapes),
        "number": str(len(shapes)),
        "outputs": ", ".join(f'"{name}"' for name in outputs),
        "in": "uint8_t" if bundle.input_type == "uint8" else "float",
        "out": "uint8_t" if bundle.output == "labels" else "float",
        "height": str(height),
        "width": str(width),
        "input": bundle.tensors["input"],
    }
    program = _PROGRAM
    for name in ("run", *sorted(words, key=len, reverse=True)):  # `in` begins other names, so it comes last.
        program = program.replace(f"@{name}", words[name])
    return program


def _output_shapes(bundle: Bundle) -> list[tuple[int, ...]]:
    """Returns the shapes of the outputs in the layout of the model file."""
    expected = bundle.reference()[1].shape
    if bundle.output == "head":
        return [(*expected[:2], expected[2] - 4), (*expected[:2], 4)]
    return [(1, expected[3], *expected[1:3]) if bundle.output_layout == "NCHW" else expected]


def _litert_type(shape: tuple[int, ...]) -> str:
    return f"{{kLiteRtElementTypeFloat32, {{{len(shape)}, false, {{{', '.join(map(str, shape))}}}}}}}"


def _headers(bundle: Bundle) -> list[str]:
    return [*sample_cpp_runs.HEADERS[bundle.format], *([f'"{bundle.tail}.h"'] if bundle.tail else [])]


def _prepare(bundle: Bundle) -> str:
    """Returns the lines that turn `image` into `input`."""
    if bundle.input_type == "uint8":
        return "  std::vector<In> input(image.begin(), image.end());"
    value, position = "image[i] / 255.0f", "i % 3 * H * W + i / 3" if bundle.layout == "NCHW" else "i"
    lines = ["  std::vector<In> input(image.size());"]
    if bundle.normalization:
        mean, std = (", ".join(map(repr, values)) for values in bundle.normalization)
        lines.append(f"  const float mean[] = {{{mean}}}, deviation[] = {{{std}}};")
        value = f"({value} - mean[i % 3]) / deviation[i % 3]"
    lines.append(f"  for (size_t i = 0; i < image.size(); i++) input[{position}] = {value};")
    return "\n".join(lines)


def _finish(bundle: Bundle) -> str:
    """Returns the lines that turn `output` into labels or a class, and write it."""
    if bundle.task == "classification":
        return _CLASS
    if bundle.task == "detection":
        return sample_boxes.cpp(bundle)
    if bundle.output == "labels":
        return "  const std::vector<Out> &labels = output;\n" + _WRITE
    # Logits: their classes side by side, as the kernel takes them.
    _, h, w, classes = bundle.reference()[1].shape
    position = f"(i % {h * w}) * {classes} + i / {h * w}" if bundle.output_layout == "NCHW" else "i"
    lines = [f"  constexpr int h = {h}, w = {w}, classes = {classes};"]
    lines += [
        "  std::vector<float> logits(output.size());",
        f"  for (size_t i = 0; i < output.size(); i++) logits[{position}] = output[i];",
    ]
    if not bundle.tail:
        return "\n".join([*lines, _COARSE])
    lines += [
        "  std::vector<unsigned char> labels(size_t(H) * W);",
        "  argmax_upsample(logits.data(), h, w, classes, labels.data(), H, W);",
    ]
    return "\n".join(lines) + "\n" + _WRITE


_COARSE = """  // The class of the image's middle; see above for the classes of all pixels.
  const float *middle = &logits[size_t(h / 2 * w + w / 2) * classes];
  int best = 0;
  for (int k = 1; k < classes; k++) best = middle[k] > middle[best] ? k : best;
  std::printf("class %d\\n", best);
"""
