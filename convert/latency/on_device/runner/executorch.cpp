/* ExecuTorch, with the headers and libraries of its wheel. */
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include "network.h"

namespace executorch::extension::threadpool {
class ThreadPool {  // Declared here because the package has the library but not its header.
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::runtime::Error;

class ExecuTorch : public Network {
 public:
  explicit ExecuTorch(const Options &options)
      : module_(options.at("model")),
        memory_(size_t(3) * std::stoi(options.at("height")) * std::stoi(options.at("width"))),
        tensor_(executorch::extension::from_blob(
            memory_.data(), {1, 3, std::stoi(options.at("height")), std::stoi(options.at("width"))})) {
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(std::stoi(options.at("threads")));
    if (module_.load_forward() != Error::Ok) fail("cannot load " + options.at("model"));
    input = memory_.data();
  }

  void run() override {
    // Set before every run: if the model's memory plan has a buffer for the input, this copies the input there.
    if (module_.set_input(*tensor_, 0) != Error::Ok) fail("the model takes another input");
    auto result = module_.forward();
    if (!result.ok()) fail("the network failed");
    values_ = std::move(*result);
    outputs.clear();
    for (const auto &value : values_) {
      const auto tensor = value.toTensor();
      outputs.push_back({tensor.const_data_ptr(), tensor.nbytes(), {tensor.sizes().begin(), tensor.sizes().end()}});
    }
  }

 private:
  executorch::extension::Module module_;
  std::vector<float> memory_;
  executorch::extension::TensorPtr tensor_;
  std::vector<executorch::runtime::EValue> values_;
};

}  // namespace

std::unique_ptr<Network> open_network(const Options &options) { return std::make_unique<ExecuTorch>(options); }
