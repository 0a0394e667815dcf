/* Runs an ExecuTorch model on a device without Python and times it step by step.
 *
 *   runner key=value ...
 *
 * model=FILE.pte, image=FILE (uint8 RGB, H x W x 3), input=FILE (float32, the network's input as it is laid out),
 * output=FILE (written: the network's output for `input`), height, width (of the input), mean, std ("r,g,b", for
 * images in [0, 1]; absent where the model normalises), tail (labels: resize logits [1, C, h, w] to the input's size
 * and take the largest; class: the largest of [1, C]; none), warmup, runs, threads, marks (1: count, do not time).
 *
 * One run is pre-processing (uint8 image to normalised float [1, 3, H, W]), the network and post-processing. Prints
 * one line of JSON: nanoseconds of every run and step, peak resident memory in kB. With marks=1 the bounds of the
 * steps are marks for the emulator's plugin (count.c) instead.
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

extern "C" void argmax_upsample(const float *, int, int, int, unsigned char *, int, int);

namespace executorch::extension::threadpool {
class ThreadPool {  // The package has the library but not its header.
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

static void write_file(const std::string &path, const float *values, size_t count) {
  FILE *file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(values, sizeof(float), count, file) != count || std::fclose(file)) {
    fail("cannot write " + path);
  }
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
    // At every run: where the model's memory plan has a place for the input, this copies it there.
    if (module.set_input(*tensor, 0) != executorch::runtime::Error::Ok) fail("the model takes another input");
    auto result = module.forward();
    if (!result.ok()) fail("the network failed");
    output = std::move(*result);
  }

  executorch::aten::Tensor logits() const { return output.at(0).toTensor(); }
};

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

static int largest(const float *values, int count) {
  int best = 0;
  for (int c = 1; c < count; c++) best = values[c] > values[best] ? c : best;
  return best;
}

static void finish(const Network &network, std::vector<unsigned char> &labels, int height, int width) {
  static const std::string tail = options["tail"];
  static Floats rows;
  if (tail == "none") return;
  const auto logits = network.logits();
  const float *values = logits.const_data_ptr<float>();
  const int classes = logits.size(1);
  if (tail == "class") {
    labels[0] = largest(values, classes);
    return;
  }
  const int h = logits.size(2), w = logits.size(3), pixels = h * w, block = 32;
  rows.resize(size_t(pixels) * classes);
  for (int first = 0; first < pixels; first += block) {  // to NHWC, in pieces that stay in the cache
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

static long long bound(int tag) {
  static const bool marks = number("marks");
  if (!marks) return now();
  static const char nothing[4] = {};
  return write(-77, nothing, tag);  // The plugin sees it; the kernel refuses it.
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

  const Floats reference = read_file<float>(options["input"], 3 * pixels);
  std::copy(reference.begin(), reference.end(), network.input.begin());
  network.run();
  const auto logits = network.logits();
  write_file(options["output"], logits.const_data_ptr<float>(), logits.numel());

  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{");
  print("pre", pre), print("network", inner), print("post", post), print("together", together);
  std::printf("\"peak_kb\": %ld}\n", usage.ru_maxrss);
}
