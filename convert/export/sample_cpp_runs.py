"""The parts of the C++ program of a README that differ from runtime to runtime; `sample_cpp` fills in the names."""

from convert.bundle import Bundle

_LITERT_PARTS = ("compiled_model", "environment", "model", "options", "tensor_buffer")
HEADERS = {
    "onnx": ["<onnxruntime_cxx_api.h>"],
    "litert": [f'"litert/c/litert_{part}.h"' for part in _LITERT_PARTS],
    "executorch": ["<executorch/extension/module/module.h>", "<executorch/extension/tensor/tensor.h>"],
    "ncnn": ["<ncnn/net.h>"],
    "openvino": ["<openvino/openvino.hpp>"],
    "mnn": ["<MNN/expr/ExprCreator.hpp>", "<MNN/expr/Module.hpp>"],
}
LINKED = {
    "onnx": "-lonnxruntime",
    "litert": "-lLiteRt",
    "executorch": "-lexecutorch -lextension_module_static -lextension_tensor  # and XNNPACK, as your build has it",
    "ncnn": "-lncnn -fopenmp",
    "openvino": "-lopenvino",
    "mnn": "-lMNN_Express -lMNN",
}
# Each defines `run`, which returns the values of the outputs, one after the other.
RUNS = {
    "onnx": """std::vector<Out> run(std::vector<In> &input) {
  Ort::Env env;
  Ort::Session session(env, "@file", Ort::SessionOptions());
  const int64_t shape[] = {@shape};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto tensor = Ort::Value::CreateTensor<In>(memory, input.data(), input.size(), shape, 4);
  const char *in = "@input", *out[] = {@outputs};
  std::vector<Out> values;
  for (auto &result : session.Run(Ort::RunOptions(), &in, &tensor, 1, out, @number)) {
    const Out *first = result.GetTensorData<Out>();
    values.insert(values.end(), first, first + result.GetTensorTypeAndShapeInfo().GetElementCount());
  }
  return values;
}""",
    "litert": """void check(LiteRtStatus status) {
  if (status != kLiteRtStatusOk) fail("LiteRT failed");
}

std::vector<Out> run(std::vector<In> &input) {
  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  check(LiteRtCreateEnvironment(0, nullptr, &environment));
  check(LiteRtCreateModelFromFile(environment, "@file", &model));
  check(LiteRtCreateOptions(&options));
  check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu));
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled));
  LiteRtTensorBufferRequirements needs;
  LiteRtTensorBuffer in, out[@number];
  const LiteRtRankedTensorType in_type = {@in_type, {4, false, {@shape}}};
  const LiteRtRankedTensorType out_types[] = {@out_types};
  const size_t counts[] = {@out_counts};
  check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs));
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &in_type, needs, &in));
  for (int i = 0; i < @number; i++) {
    check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, i, &needs));
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &out_types[i], needs, &out[i]));
  }
  void *memory;
  check(LiteRtLockTensorBuffer(in, &memory, kLiteRtTensorBufferLockModeWrite));
  std::memcpy(memory, input.data(), input.size() * sizeof(In));
  check(LiteRtUnlockTensorBuffer(in));
  check(LiteRtRunCompiledModel(compiled, 0, 1, &in, @number, out));
  std::vector<Out> values;
  for (int i = 0; i < @number; i++) {
    check(LiteRtLockTensorBuffer(out[i], &memory, kLiteRtTensorBufferLockModeRead));
    values.insert(values.end(), static_cast<Out *>(memory), static_cast<Out *>(memory) + counts[i]);
  }
  return values;
}""",
    "executorch": """std::vector<Out> run(std::vector<In> &input) {
  executorch::extension::Module module("@file");
  auto result = module.forward(executorch::extension::from_blob(input.data(), {@shape}));
  if (!result.ok()) fail("the network failed");
  std::vector<Out> values;
  for (auto &value : *result) {
    auto output = value.toTensor();
    values.insert(values.end(), output.const_data_ptr<Out>(), output.const_data_ptr<Out>() + output.numel());
  }
  return values;
}""",
    "ncnn": """std::vector<Out> run(std::vector<In> &input) {
  ncnn::Net net;
@options  if (net.load_param("@file") || net.load_model("model.ncnn.bin")) fail("cannot load the model");
  ncnn::Mat image(W, H, 3), output;  // A channel of a Mat may be padded, so that channels are copied one by one.
  for (int c = 0; c < 3; c++) std::memcpy(image.channel(c), &input[size_t(c) * H * W], sizeof(In) * H * W);
  ncnn::Extractor extractor = net.create_extractor();
  extractor.input("@input", image);
  std::vector<Out> values;
  for (const char *name : {@outputs}) {
    if (extractor.extract(name, output)) fail("the network failed");
    for (int c = 0; c < output.c; c++) {
      const Out *channel = output.channel(c);
      values.insert(values.end(), channel, channel + output.w * output.h);
    }
  }
  return values;
}""",
    "openvino": """std::vector<Out> run(std::vector<In> &input) {
  ov::Core core;
  auto network = core.compile_model("@file", "CPU", ov::hint::inference_precision(ov::element::f32));
  auto request = network.create_infer_request();
  request.set_tensor("@input", ov::Tensor(ov::element::from<In>(), ov::Shape{@shape}, input.data()));
  request.infer();
  std::vector<Out> values;
  for (const char *name : {@outputs}) {
    const ov::Tensor output = request.get_tensor(name);
    values.insert(values.end(), output.data<const Out>(), output.data<const Out>() + output.get_size());
  }
  return values;
}""",
    "mnn": """std::vector<Out> run(std::vector<In> &input) {
  using namespace MNN::Express;
  MNN::BackendConfig arithmetic;
@options  MNN::ScheduleConfig options;
  options.backendConfig = &arithmetic;
  std::shared_ptr<Executor::RuntimeManager> manager(
      Executor::RuntimeManager::createRuntimeManager(options), Executor::RuntimeManager::destroy);
  std::shared_ptr<Module> network(Module::load({"@input"}, {@outputs}, "@file", manager), Module::destroy);
  if (!network) fail("cannot load the model");
  std::vector<Out> values;
  for (auto output : network->onForward({_Const(input.data(), {@shape}, NCHW)})) {
    output = _Convert(output, NCHW);
    values.insert(values.end(), output->readMap<Out>(), output->readMap<Out>() + output->getInfo()->size);
  }
  return values;
}""",
}
# ncnn uses fp16 on processors that have it, whatever the file says.
_NCNN_FLOATS = "  net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;\n"
_MNN_PRECISION = "  arithmetic.precision = MNN::BackendConfig::Precision_{name};\n"


def options(bundle: Bundle) -> str:
    """Returns the lines that choose the type of the arithmetic, for runtimes whose file does not."""
    if bundle.format == "mnn":
        return _MNN_PRECISION.format(name="High" if bundle.precision == "fp32" else "Low")
    return _NCNN_FLOATS if bundle.precision == "fp32" else ""
