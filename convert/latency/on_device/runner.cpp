/* Runs an ExecuTorch model on a device without Python and times each step.
 *
 *   runner key=value ...
 *
 * model=FILE.pte
 * image=FILE      the image, uint8 RGB, H x W x 3
 * input=FILE      the reference input, float32 [1, 3, H, W]
 * output=FILE     is written: the network's outputs for `input`, one after the other
 * height, width   of the network's input
 * mean, std       "r,g,b", for images in [0, 1]; absent if the model normalises its input itself
 * tail            post-processing: labels: resize the logits [1, C, h, w] to the size of the input and take the
 *                 largest; class: take the largest of the logits [1, C]; boxes: decode the logits [1, A, C] and
 *                 the box deltas [1, A, 4]; none: no post-processing
 * decoding        boxes: anchor scale, score threshold, IoU threshold, most per level, most per image, "4,0.05,..."
 * warmup, runs    number of runs before those that are measured, and of those that are
 * threads         of the runtime
 * marks           1: set marks for counting and do not read the clock
 *
 * One run consists of pre-processing (uint8 image to normalised float [1, 3, H, W]), the network and post-processing.
 * The program prints one line of JSON: the nanoseconds of every step of every run, and the peak resident memory in
 * kB. With marks=1 it sets marks at the bounds of the steps instead, for the emulator's plugin (count.c).
 */
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include "argmax_upsample.h"
#include "decode_boxes.h"

namespace executorch::extension::threadpool {
class ThreadPool {  // Declared here because the package has the library but not its header.
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::extension::Module;
using Floats = std::vector<float>;

static std::map<std::string, std::string> options;

[[noreturn]] static void fail(const std::string &what) {
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(1);
}

static int number(const char *name) { return std::atoi(options[name].c_str()); }

static Floats triple(const char *name) {
  Floats values(3);
  if (std::sscanf(options[name].c_str(), "%f,%f,%f", &values[0], &values[1], &values[2]) != 3) fail(name);
  return values;
}

template <class T>
static std::vector<T> read_file(const std::string &path, size_t count) {
  std::vector<T> values(count);
  FILE *file = std::fopen(path.c_str(), "rb");
  if (!file || std::fread(values.data(), sizeof(T), count, file) != count) fail("cannot read " + path);
  std::fclose(file);
  return values;
}

static void write_floats(FILE *file, const float *values, size_t count) {
  if (!file || std::fwrite(values, sizeof(float), count, file) != count) fail("cannot write " + options["output"]);
}

struct Network {
  Module module;
  Floats input;
  executorch::extension::TensorPtr tensor;
  std::vector<executorch::runtime::EValue> output;

  Network(int height, int width)
      : module(options["model"]),
        input(size_t(3) * height * width),
        tensor(executorch::extension::from_blob(input.data(), {1, 3, height, width})) {
    if (module.load_forward() != executorch::runtime::Error::Ok) fail("cannot load " + options["model"]);
  }

  void run() {
    // Set before every run: if the model's memory plan has a buffer for the input, this copies the input there.
    if (module.set_input(*tensor, 0) != executorch::runtime::Error::Ok) fail("the model takes another input");
    auto result = module.forward();
    if (!result.ok()) fail("the network failed");
    output = std::move(*result);
  }

  executorch::aten::Tensor tensor_of(size_t number) const { return output.at(number).toTensor(); }
  executorch::aten::Tensor logits() const { return tensor_of(0); }
};

// Pre-processing: (image / 255 - mean) / std, from interleaved to planar channels.
static void prepare(const std::vector<unsigned char> &image, Floats &input) {
  static const bool normalise = options.count("mean");
  static const Floats mean = normalise ? triple("mean") : Floats(3, 0), std_ = normalise ? triple("std") : Floats(3, 1);
  const size_t pixels = image.size() / 3;
  for (int c = 0; c < 3; c++) {
    const float scale = 1 / (255 * std_[c]), offset = mean[c] / std_[c];
    float *plane = input.data() + c * pixels;
    for (size_t i = 0; i < pixels; i++) plane[i] = image[3 * i + c] * scale - offset;
  }
}

// Ties go to the lowest class id.
static int largest(const float *values, int count) {
  int best = 0;
  for (int c = 1; c < count; c++) best = values[c] > values[best] ? c : best;
  return best;
}

// The boxes of a detector; the image fills the input.
static void find_boxes(const Network &network, int height, int width) {
  static BoxDecoding d{height, width, int(network.logits().size(2)), 0, 0, 0, 0, 0};
  static const bool read = std::sscanf(options["decoding"].c_str(), "%f,%f,%f,%d,%d", &d.anchor_scale,
                                       &d.score_threshold, &d.iou_threshold, &d.per_level, &d.per_image) == 5;
  if (!read) fail("decoding");
  static std::vector<BoxCandidate> scratch(size_t(BOX_LEVELS) * d.per_level);
  static std::vector<Box> boxes(d.per_image);
  const BoxPhotograph whole{height, width, 1, 1};
  const float *logits = network.logits().const_data_ptr<float>();
  const float *deltas = network.tensor_of(1).const_data_ptr<float>();
  decode_boxes(&d, &whole, logits, d.classes, deltas, 4, scratch.data(), boxes.data());
}

// Post-processing; see `tail` above.
static void finish(const Network &network, std::vector<unsigned char> &labels, int height, int width) {
  static const std::string tail = options["tail"];
  static Floats rows;
  if (tail == "none") return;
  if (tail == "boxes") return find_boxes(network, height, width);
  const auto logits = network.logits();
  const float *values = logits.const_data_ptr<float>();
  const int classes = logits.size(1);
  if (tail == "class") {
    labels[0] = largest(values, classes);
    return;
  }
  const int h = logits.size(2), w = logits.size(3), pixels = h * w, block = 32;
  rows.resize(size_t(pixels) * classes);
  for (int first = 0; first < pixels; first += block) {  // NCHW to NHWC, in blocks that fit into the cache
    const int last = first + block < pixels ? first + block : pixels;
    for (int c = 0; c < classes; c++) {
      for (int i = first; i < last; i++) rows[size_t(i) * classes + c] = values[size_t(c) * pixels + i];
    }
  }
  argmax_upsample(rows.data(), h, w, classes, labels.data(), height, width);
}

static long long now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

// The bound between two steps: reads the clock, or sets a mark of `tag` bytes.
static long long bound(int tag) {
  static const bool marks = number("marks");
  if (!marks) return now();
  static const char nothing[4] = {};
  return write(-77, nothing, tag);  // The plugin sees the write, and the kernel rejects it.
}

static void print(const char *name, const std::vector<long long> &values) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < values.size(); i++) std::printf(i ? ", %lld" : "%lld", values[i]);
  std::printf("], ");
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos) fail("expected key=value, got " + word);
    options[word.substr(0, equals)] = word.substr(equals + 1);
  }
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(number("threads"));
  const int height = number("height"), width = number("width"), warmup = number("warmup");
  const size_t pixels = size_t(height) * width;
  const auto image = read_file<unsigned char>(options["image"], 3 * pixels);
  std::vector<unsigned char> labels(pixels);
  Network network(height, width);

  // 1. Measure, without the warm-up runs.
  std::vector<long long> pre, inner, post, together;
  for (int i = 0; i < warmup + number("runs"); i++) {
    const long long t0 = bound(1);
    prepare(image, network.input);
    const long long t1 = bound(2);
    network.run();
    const long long t2 = bound(3);
    finish(network, labels, height, width);
    const long long t3 = bound(4);
    if (i < warmup) continue;
    pre.push_back(t1 - t0), inner.push_back(t2 - t1), post.push_back(t3 - t2), together.push_back(t3 - t0);
  }

  // 2. Run the reference input, so that the output can be compared with that at export.
  const Floats reference = read_file<float>(options["input"], 3 * pixels);
  std::copy(reference.begin(), reference.end(), network.input.begin());
  network.run();
  FILE *file = std::fopen(options["output"].c_str(), "wb");
  for (size_t i = 0; i < network.output.size(); i++) {
    write_floats(file, network.tensor_of(i).const_data_ptr<float>(), network.tensor_of(i).numel());
  }
  if (std::fclose(file)) fail("cannot write " + options["output"]);

  // 3. Report.
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{");
  print("pre", pre), print("network", inner), print("post", post), print("together", together);
  std::printf("\"peak_kb\": %ld}\n", usage.ru_maxrss);
}
