/* Runs a model on a device without Python and times each step. One program per runtime: this file, pipeline.cpp and
 * the runtime's own file.
 *
 *   runner key=value ...
 *
 * model=FILE      the model; ncnn's weights are beside it, in model.ncnn.bin
 * image=FILE      the image, uint8 RGB, H x W x 3
 * input=FILE      the reference input, as the model takes it
 * output=FILE     is written: the network's outputs for `input`, one after the other, as the model gives them
 * result=FILE     is written: what the post-processing makes of these outputs
 * height, width   of the network's input
 * input_type      float32, or uint8 for a model that takes the image as it is
 * layout          of the network's input: NCHW or NHWC
 * output_layout   of logits with rows and columns: NCHW or NHWC
 * names           of the input and of the outputs, "image,logits,deltas", in formats that have names
 * half            1: the runtime may compute in half precision
 * mean, std       "r,g,b", for images in [0, 1]; absent if the model normalises its input itself
 * tail            post-processing: labels: resize the logits to the size of the input and take the largest; class:
 *                 take the largest of the logits [1, C]; boxes: decode the logits [1, A, C] and the box deltas
 *                 [1, A, 4]; none: no post-processing
 * decoding        boxes: anchor scale, score threshold, IoU threshold, most per level, most per image, "4,0.05,..."
 * warmup, runs    number of runs before those that are measured, and of those that are
 * threads         of the runtime
 * marks           1: set marks for counting and do not read the clock
 *
 * One run consists of pre-processing (uint8 image to the network's input), the network and post-processing. The
 * program prints one line of JSON: the nanoseconds of every step of every run, and the peak resident memory in kB.
 * With marks=1 it sets marks at the bounds of the steps instead, for the emulator's plugin (count.c).
 */
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "network.h"
#include "pipeline.h"

using Bytes = std::vector<unsigned char>;

void fail(const std::string &what) {
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(1);
}

std::vector<std::string> split(const std::string &list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

static Options parse(int argc, char **argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos) fail("expected key=value, got " + word);
    options[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return options;
}

static Bytes read_file(const std::string &path, size_t bytes) {
  Bytes content(bytes);
  FILE *file = std::fopen(path.c_str(), "rb");
  if (!file || std::fread(content.data(), 1, bytes, file) != bytes) fail("cannot read " + path);
  std::fclose(file);
  return content;
}

static void write_tensors(const std::string &path, const std::vector<Tensor> &tensors) {
  FILE *file = std::fopen(path.c_str(), "wb");
  bool written = file;
  for (const Tensor &tensor : tensors) {
    written = written && std::fwrite(tensor.data, 1, tensor.bytes, file) == tensor.bytes;
  }
  if (!written || std::fclose(file)) fail("cannot write " + path);
}

static long long now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

// The bound between two steps: reads the clock, or sets a mark of `tag` bytes.
static long long bound(int tag, bool marks) {
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
  Options options = parse(argc, argv);
  const auto number = [&](const char *name) { return std::atoi(options[name].c_str()); };
  const size_t values = size_t(3) * number("height") * number("width");
  const int warmup = number("warmup"), marks = number("marks");
  const Bytes image = read_file(options["image"], values);
  const auto network = open_network(options);
  const Prepare prepare = make_prepare(options);
  const Finish finish = make_finish(options);

  // 1. Measure, without the warm-up runs.
  std::vector<long long> pre, inner, post, together;
  for (int i = 0; i < warmup + number("runs"); i++) {
    const long long t0 = bound(1, marks);
    prepare(image, network->input);
    const long long t1 = bound(2, marks);
    network->run();
    const long long t2 = bound(3, marks);
    finish(network->outputs);
    const long long t3 = bound(4, marks);
    if (i < warmup) continue;
    pre.push_back(t1 - t0), inner.push_back(t2 - t1), post.push_back(t3 - t2), together.push_back(t3 - t0);
  }

  // 2. Run the reference input, so that the output can be compared with that at export.
  const Bytes reference = read_file(options["input"], values * (options["input_type"] == "uint8" ? 1 : sizeof(float)));
  std::memcpy(network->input, reference.data(), reference.size());
  network->run();
  write_tensors(options["output"], network->outputs);
  write_tensors(options["result"], {finish(network->outputs)});

  // 3. Report.
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{");
  print("pre", pre), print("network", inner), print("post", post), print("together", together);
  std::printf("\"peak_kb\": %ld}\n", usage.ru_maxrss);
}
