/* ONNX Runtime, with the library of its wheel. The wheel has no headers, so what is used of its C API is declared here:
 * a table of functions whose order never changes, since versions only append to it. */
#include <cstdint>

#include "network.h"

extern "C" {
struct OrtApiBase {
  const void *const *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)();
};
const OrtApiBase *OrtGetApiBase();
}

namespace {

struct Env;
struct Session;
struct SessionOptions;
struct MemoryInfo;
struct Value;
struct ShapeInfo;
struct Allocator;
struct Status;

// Places in the table of functions.
enum {
  GET_ERROR_MESSAGE = 2,
  CREATE_ENV = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_SESSION_OPTIONS = 10,
  SET_INTRA_OP_NUM_THREADS = 24,
  SET_INTER_OP_NUM_THREADS = 25,
  SESSION_GET_OUTPUT_COUNT = 31,
  SESSION_GET_OUTPUT_NAME = 37,
  CREATE_TENSOR_WITH_DATA = 49,
  GET_TENSOR_MUTABLE_DATA = 51,
  GET_TENSOR_ELEMENT_TYPE = 60,
  GET_DIMENSIONS_COUNT = 61,
  GET_DIMENSIONS = 62,
  GET_TENSOR_TYPE_AND_SHAPE = 65,
  CREATE_CPU_MEMORY_INFO = 69,
  GET_DEFAULT_ALLOCATOR = 78,
  RELEASE_VALUE = 96,
  RELEASE_SHAPE_INFO = 99,
};
enum { VERSION = 1, WARNING = 2, ARENA = 1, DEFAULT_MEMORY = 0, FLOAT = 1, UINT8 = 2, INT64 = 7 };

const void *const *api;

// Calls the function at `place`, which returns a status.
template <class... Given>
void call(int place, Given... given) {
  const auto function = reinterpret_cast<Status *(*)(Given...)>(const_cast<void *>(api[place]));
  if (Status *status = function(given...)) {
    const auto message = reinterpret_cast<const char *(*)(const Status *)>(const_cast<void *>(api[GET_ERROR_MESSAGE]));
    fail("ONNX Runtime: " + std::string(message(status)));
  }
}

template <class Object>
void release(int place, Object *object) {
  reinterpret_cast<void (*)(Object *)>(const_cast<void *>(api[place]))(object);
}

class Onnx : public Network {
 public:
  explicit Onnx(const Options &options) : input_name_(split(options.at("names")).front()) {
    api = OrtGetApiBase()->GetApi(VERSION);
    load(options);
    make_input(options);
  }

  void run() override {
    for (Value *value : values_) release(RELEASE_VALUE, value);  // Of the run before.
    const char *name = input_name_.c_str();
    values_.assign(output_names_.size(), nullptr);
    const Value *const given[] = {tensor_};
    call(RUN, session_, static_cast<const void *>(nullptr), static_cast<const char *const *>(&name),
         static_cast<const Value *const *>(given), size_t(1),
         static_cast<const char *const *>(output_names_.data()), output_names_.size(), values_.data());
    outputs.clear();
    for (Value *value : values_) outputs.push_back(described(value));
  }

 private:
  void load(const Options &options) {
    Env *env;
    SessionOptions *settings;
    Allocator *allocator;
    call(CREATE_ENV, int(WARNING), "runner", &env);
    call(CREATE_SESSION_OPTIONS, &settings);
    call(SET_INTRA_OP_NUM_THREADS, settings, std::stoi(options.at("threads")));
    call(SET_INTER_OP_NUM_THREADS, settings, 1);
    call(CREATE_SESSION, static_cast<const Env *>(env), options.at("model").c_str(),
         static_cast<const SessionOptions *>(settings), &session_);
    call(GET_DEFAULT_ALLOCATOR, &allocator);
    // The model's own names: a graph of another exporter may name its output as it likes.
    size_t count;
    call(SESSION_GET_OUTPUT_COUNT, static_cast<const Session *>(session_), &count);
    for (size_t i = 0; i < count; i++) {
      char *name;
      call(SESSION_GET_OUTPUT_NAME, static_cast<const Session *>(session_), i, allocator, &name);
      output_names_.push_back(name);
    }
  }

  void make_input(const Options &options) {
    const int64_t height = std::stoi(options.at("height")), width = std::stoi(options.at("width"));
    const bool bytes = options.at("input_type") == "uint8", planar = options.at("layout") == "NCHW";
    const int64_t planes[] = {1, 3, height, width}, rows[] = {1, height, width, 3};
    memory_.resize(3 * height * width);
    input = memory_.data();
    MemoryInfo *memory;
    call(CREATE_CPU_MEMORY_INFO, int(ARENA), int(DEFAULT_MEMORY), &memory);
    call(CREATE_TENSOR_WITH_DATA, static_cast<const MemoryInfo *>(memory), input,
         memory_.size() * (bytes ? 1 : sizeof(float)), planar ? planes : rows, size_t(4), int(bytes ? UINT8 : FLOAT),
         &tensor_);
  }

  static Tensor described(Value *value) {
    Tensor tensor;
    ShapeInfo *info;
    int element;
    size_t rank;
    call(GET_TENSOR_TYPE_AND_SHAPE, static_cast<const Value *>(value), &info);
    call(GET_TENSOR_ELEMENT_TYPE, static_cast<const ShapeInfo *>(info), &element);
    call(GET_DIMENSIONS_COUNT, static_cast<const ShapeInfo *>(info), &rank);
    std::vector<int64_t> sizes(rank);
    call(GET_DIMENSIONS, static_cast<const ShapeInfo *>(info), sizes.data(), rank);
    release(RELEASE_SHAPE_INFO, info);
    tensor.shape.assign(sizes.begin(), sizes.end());
    tensor.bytes = element == UINT8 ? 1 : element == INT64 ? sizeof(int64_t) : sizeof(float);
    for (int size : tensor.shape) tensor.bytes *= size;
    void *data;
    call(GET_TENSOR_MUTABLE_DATA, value, &data);
    tensor.data = data;
    return tensor;
  }

  std::string input_name_;
  std::vector<const char *> output_names_;
  std::vector<float> memory_;
  Session *session_;
  Value *tensor_;
  std::vector<Value *> values_;
};

}  // namespace

std::unique_ptr<Network> open_network(const Options &options) { return std::make_unique<Onnx>(options); }
