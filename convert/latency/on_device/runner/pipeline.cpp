#include "pipeline.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "argmax_upsample.h"
#include "decode_boxes.h"

using Floats = std::vector<float>;

static int number(const Options &options, const char *name) { return std::atoi(options.at(name).c_str()); }

static Floats triple(const Options &options, const char *name, float otherwise) {
  Floats values(3, otherwise);
  const auto given = options.find(name);
  if (given == options.end()) return values;
  if (std::sscanf(given->second.c_str(), "%f,%f,%f", &values[0], &values[1], &values[2]) != 3) fail(name);
  return values;
}

// The functions below do (image / 255 - mean) / std in one multiplication and one subtraction.
struct Normalization {
  float scale[3], offset[3];
};

static void to_planes(const unsigned char *image, size_t pixels, const Normalization &n, float *input) {
  for (int c = 0; c < 3; c++) {
    float *plane = input + c * pixels;
    for (size_t i = 0; i < pixels; i++) plane[i] = image[3 * i + c] * n.scale[c] - n.offset[c];
  }
}

static void to_rows(const unsigned char *image, size_t pixels, const Normalization &n, float *input) {
  for (size_t i = 0; i < pixels; i++) {
    for (int c = 0; c < 3; c++) input[3 * i + c] = image[3 * i + c] * n.scale[c] - n.offset[c];
  }
}

Prepare make_prepare(const Options &options) {
  if (options.at("input_type") == "uint8") {
    return [](const std::vector<unsigned char> &image, void *input) {
      std::memcpy(input, image.data(), image.size());
    };
  }
  const Floats mean = triple(options, "mean", 0), deviation = triple(options, "std", 1);
  Normalization n;
  for (int c = 0; c < 3; c++) n.scale[c] = 1 / (255 * deviation[c]), n.offset[c] = mean[c] / deviation[c];
  const auto convert = options.at("layout") == "NCHW" ? to_planes : to_rows;
  return [=](const std::vector<unsigned char> &image, void *input) {
    convert(image.data(), image.size() / 3, n, static_cast<float *>(input));
  };
}

// Ties go to the lowest class.
static int largest(const float *values, int count) {
  int best = 0;
  for (int c = 1; c < count; c++) best = values[c] > values[best] ? c : best;
  return best;
}

// Copies planes [classes, pixels] to rows [pixels, classes], in blocks that fit into the cache.
static void transpose(const float *planes, int classes, int pixels, float *rows) {
  const int block = 32;
  for (int first = 0; first < pixels; first += block) {
    const int last = first + block < pixels ? first + block : pixels;
    for (int c = 0; c < classes; c++) {
      for (int i = first; i < last; i++) rows[size_t(i) * classes + c] = planes[size_t(c) * pixels + i];
    }
  }
}

// Resizes logits to the size of the input and takes the largest.
static Finish labels(const Options &options) {
  const int height = number(options, "height"), width = number(options, "width");
  const bool planar = options.at("output_layout") == "NCHW";
  auto rows = std::make_shared<Floats>();
  auto found = std::make_shared<std::vector<unsigned char>>(size_t(height) * width);
  return [=](const std::vector<Tensor> &outputs) {
    const std::vector<int> &shape = outputs[0].shape;
    const int h = shape[planar ? 2 : 1], w = shape[planar ? 3 : 2], classes = shape[planar ? 1 : 3];
    const float *logits = outputs[0].floats();
    if (planar) {
      rows->resize(size_t(h) * w * classes);
      transpose(logits, classes, h * w, rows->data());
      logits = rows->data();
    }
    argmax_upsample(logits, h, w, classes, found->data(), height, width);
    return Tensor{found->data(), found->size(), {height, width}};
  };
}

// Decodes the boxes of a detector; the image fills the input.
static Finish boxes(const Options &options) {
  BoxDecoding d{number(options, "height"), number(options, "width"), 0, 0, 0, 0, 0, 0};
  if (std::sscanf(options.at("decoding").c_str(), "%f,%f,%f,%d,%d", &d.anchor_scale, &d.score_threshold,
                  &d.iou_threshold, &d.per_level, &d.per_image) != 5) {
    fail("decoding");
  }
  auto scratch = std::make_shared<std::vector<BoxCandidate>>(size_t(BOX_LEVELS) * d.per_level);
  auto found = std::make_shared<std::vector<Box>>(d.per_image);
  return [=](const std::vector<Tensor> &outputs) mutable {
    d.classes = outputs[0].shape.back();
    const BoxPhotograph whole{d.height, d.width, 1, 1};
    const float *logits = outputs[0].floats(), *deltas = outputs[1].floats();
    const int count = decode_boxes(&d, &whole, logits, d.classes, deltas, 4, scratch->data(), found->data());
    return Tensor{found->data(), count * sizeof(Box), {count}};
  };
}

Finish make_finish(const Options &options) {
  const std::string &tail = options.at("tail");
  if (tail == "labels") return labels(options);
  if (tail == "boxes") return boxes(options);
  if (tail == "class") {
    auto best = std::make_shared<int>();
    return [=](const std::vector<Tensor> &outputs) {
      *best = largest(outputs[0].floats(), outputs[0].bytes / sizeof(float));
      return Tensor{best.get(), sizeof(int), {}};
    };
  }
  return [](const std::vector<Tensor> &outputs) { return outputs[0]; };
}
