/* LiteRT, with the C library of its wheel. The wheel has no headers, so what is used of its C API is declared here. */
#include <cstdint>

#include "network.h"

extern "C" {
typedef int LiteRtStatus;  // 0: success.
typedef struct LiteRtEnvironmentT *LiteRtEnvironment;
typedef struct LiteRtModelT *LiteRtModel;
typedef struct LiteRtSignatureT *LiteRtSignature;
typedef struct LiteRtOptionsT *LiteRtOptions;
typedef struct LiteRtOpaqueOptionsT *LiteRtOpaqueOptions;
typedef struct LiteRtCompiledModelT *LiteRtCompiledModel;
typedef struct LiteRtTensorBufferT *LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT *LiteRtRequirements;
struct LiteRtLayout {
  unsigned int rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};
struct LiteRtTensorType {
  int element;
  LiteRtLayout layout;
};
LiteRtStatus LiteRtCreateEnvironment(int, const void *, LiteRtEnvironment *);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtEnvironment, const char *, LiteRtModel *);
LiteRtStatus LiteRtGetModelSignature(LiteRtModel, size_t, LiteRtSignature *);
LiteRtStatus LiteRtGetSignatureOutputName(LiteRtSignature, size_t, const char **);
LiteRtStatus LiteRtCreateOptions(LiteRtOptions *);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int);
LiteRtStatus LiteRtCreateOpaqueOptions(const char *, void *, void (*)(void *), LiteRtOpaqueOptions *);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtOptions, LiteRtOpaqueOptions);
LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel *);
LiteRtStatus LiteRtGetCompiledModelInputTensorLayout(LiteRtCompiledModel, size_t, size_t, LiteRtLayout *);
LiteRtStatus LiteRtGetCompiledModelOutputTensorLayouts(LiteRtCompiledModel, size_t, size_t, LiteRtLayout *, bool);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t, size_t, LiteRtRequirements *);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t, size_t, LiteRtRequirements *);
LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtTensorType *,
                                                             LiteRtRequirements, LiteRtTensorBuffer *);
LiteRtStatus LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer, size_t *);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer, void **, int);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBuffer *, size_t,
                                    LiteRtTensorBuffer *);
}

namespace {

enum { CPU = 1, FLOAT32 = 1, UINT8 = 3, READ = 0 };  // Values of the C API's enumerations.

void check(LiteRtStatus status, const char *what) {
  if (status) fail("LiteRT cannot " + std::string(what) + " (status " + std::to_string(status) + ")");
}

class LiteRt : public Network {
 public:
  explicit LiteRt(const Options &options) {
    names_ = split(options.at("names"));
    names_.erase(names_.begin());  // The input's name.
    load(options);
    make_buffers(options.at("input_type") == "uint8" ? UINT8 : FLOAT32);
  }

  void run() override {
    check(LiteRtRunCompiledModel(compiled_, 0, 1, &in_, out_.size(), out_.data()), "run the model");
  }

 private:
  void load(const Options &options) {
    LiteRtModel model;
    LiteRtOptions settings;
    LiteRtOpaqueOptions cpu;
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "start");
    check(LiteRtCreateModelFromFile(environment_, options.at("model").c_str(), &model), "read the model");
    check(LiteRtGetModelSignature(model, 0, &signature_), "read the signature");
    check(LiteRtCreateOptions(&settings), "make options");
    check(LiteRtSetOptionsHardwareAccelerators(settings, CPU), "use the CPU");
    // The options of the CPU are text in TOML, under this name.
    threads_ = "num_threads = " + options.at("threads") + "\n";
    check(LiteRtCreateOpaqueOptions("xnnpack", &threads_[0], [](void *) {}, &cpu), "make options of the CPU");
    check(LiteRtAddOpaqueOptions(settings, cpu), "use options of the CPU");
    check(LiteRtCreateCompiledModel(environment_, model, settings, &compiled_), "compile the model");
  }

  void make_buffers(int element) {
    LiteRtRequirements needs;
    LiteRtTensorType type{element, {}};
    check(LiteRtGetCompiledModelInputTensorLayout(compiled_, 0, 0, &type.layout), "read the input's shape");
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &needs), "read the input's needs");
    in_ = buffer(type, needs);
    input = memory(in_);
    std::vector<LiteRtLayout> layouts(names_.size());
    check(LiteRtGetCompiledModelOutputTensorLayouts(compiled_, 0, layouts.size(), layouts.data(), true),
          "read the outputs' shapes");
    outputs.resize(names_.size());
    for (size_t i = 0; i < names_.size(); i++) {
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, i, &needs), "read an output's needs");
      out_.push_back(buffer({FLOAT32, layouts[i]}, needs));
      Tensor &tensor = outputs[place(i)];
      tensor.data = memory(out_[i]);
      check(LiteRtGetTensorBufferPackedSize(out_[i], &tensor.bytes), "read an output's size");
      tensor.shape.assign(layouts[i].dimensions, layouts[i].dimensions + layouts[i].rank);
    }
  }

  // Returns the place of the model's output `number` in `names`.
  size_t place(size_t number) {
    const char *name;
    check(LiteRtGetSignatureOutputName(signature_, number, &name), "read an output's name");
    for (size_t i = 0; i < names_.size(); i++) {
      if (names_[i] == name) return i;
    }
    fail("the model has an output " + std::string(name));
  }

  LiteRtTensorBuffer buffer(const LiteRtTensorType &type, LiteRtRequirements needs) {
    LiteRtTensorBuffer made;
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, needs, &made), "make a buffer");
    return made;
  }

  // A buffer of the CPU is plain memory, which stays where it is.
  static void *memory(LiteRtTensorBuffer buffer) {
    void *address;
    check(LiteRtLockTensorBuffer(buffer, &address, READ), "open a buffer");
    check(LiteRtUnlockTensorBuffer(buffer), "close a buffer");
    return address;
  }

  LiteRtEnvironment environment_;
  LiteRtSignature signature_;
  LiteRtCompiledModel compiled_;
  LiteRtTensorBuffer in_;
  std::vector<LiteRtTensorBuffer> out_;
  std::vector<std::string> names_;
  std::string threads_;
};

}  // namespace

std::unique_ptr<Network> open_network(const Options &options) { return std::make_unique<LiteRt>(options); }
