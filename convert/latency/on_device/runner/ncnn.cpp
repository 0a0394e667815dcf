/* ncnn, with the Python module of its wheel: the wheel has no C interface. This program embeds Python to call that
 * module through ncnn_net.py. Neither NumPy nor Python's library is needed, except its encodings. */
#include <Python.h>

#include <cstring>

#include "network.h"

namespace {

PyObject *checked(PyObject *object) {
  if (!object) {
    PyErr_Print();
    fail("ncnn cannot run the model");
  }
  return object;
}

void start_python() {
  PyConfig config;
  PyConfig_InitIsolatedConfig(&config);
  config.site_import = config.write_bytecode = 0;
  config.use_hash_seed = 1, config.hash_seed = 0;  // Random hashes would change the number of instructions.
  config.module_search_paths_set = 1;
  PyWideStringList_Append(&config.module_search_paths, L"python.zip");
  PyWideStringList_Append(&config.module_search_paths, L".");
  const PyStatus status = Py_InitializeFromConfig(&config);
  if (PyStatus_Exception(status)) fail(std::string("Python does not start: ") + status.err_msg);
  PyConfig_Clear(&config);
}

class Ncnn : public Network {
 public:
  explicit Ncnn(const Options &options) {
    start_python();
    module_ = checked(PyImport_ImportModule("ncnn_net"));
    net_ = checked(PyObject_CallMethod(module_, "opened", "sii", options.at("model").c_str(),
                                       std::stoi(options.at("threads")), std::stoi(options.at("half"))));
    const std::vector<std::string> names = split(options.at("names"));
    names_ = checked(PyList_New(names.size()));
    for (size_t i = 0; i < names.size(); i++) PyList_SetItem(names_, i, PyUnicode_FromString(names[i].c_str()));
    make_input(std::stoi(options.at("height")), std::stoi(options.at("width")));
  }

  void run() override {
    for (Py_buffer &view : views_) PyBuffer_Release(&view);  // Of the run before.
    PyObject *results = checked(PyObject_CallMethod(module_, "outputs", "OOO", net_, planes_, names_));
    views_.resize(PyList_Size(results));
    copies_.resize(views_.size());
    outputs.resize(views_.size());
    for (size_t i = 0; i < views_.size(); i++) {
      if (PyObject_GetBuffer(PyList_GetItem(results, i), &views_[i], PyBUF_STRIDED_RO)) checked(nullptr);
      outputs[i] = without_gaps(views_[i], copies_[i]);
    }
    Py_DECREF(results);
  }

 private:
  // Makes the input, float32 [3, H, W], and the Python object through which ncnn reads it.
  void make_input(Py_ssize_t height, Py_ssize_t width) {
    const Py_ssize_t size = sizeof(float);
    memory_.resize(3 * height * width);
    input = memory_.data();
    shape_ = {3, height, width};
    strides_ = {height * width * size, width * size, size};
    Py_buffer view{};
    view.buf = input;
    view.len = memory_.size() * size;
    view.itemsize = size;
    view.ndim = 3;
    view.format = const_cast<char *>("f");
    view.shape = shape_.data();
    view.strides = strides_.data();
    planes_ = checked(PyMemoryView_FromBuffer(&view));
  }

  // Describes an output of one image. The channels of ncnn may have gaps between them; then they are copied.
  static Tensor without_gaps(const Py_buffer &view, std::vector<float> &copy) {
    Tensor tensor{view.buf, sizeof(float), {1}};
    for (int i = 0; i < view.ndim; i++) {
      tensor.shape.push_back(view.shape[i]);
      tensor.bytes *= view.shape[i];
    }
    const size_t channel = tensor.bytes / view.shape[0];
    if (view.ndim == 1 || channel == size_t(view.strides[0])) return tensor;
    copy.resize(tensor.bytes / sizeof(float));
    for (Py_ssize_t c = 0; c < view.shape[0]; c++) {
      std::memcpy(reinterpret_cast<char *>(copy.data()) + c * channel,
                  static_cast<const char *>(view.buf) + c * view.strides[0], channel);
    }
    tensor.data = copy.data();
    return tensor;
  }

  PyObject *module_, *net_, *names_, *planes_;
  std::vector<float> memory_;
  std::vector<Py_ssize_t> shape_, strides_;
  std::vector<Py_buffer> views_;
  std::vector<std::vector<float>> copies_;
};

}  // namespace

std::unique_ptr<Network> open_network(const Options &options) { return std::make_unique<Ncnn>(options); }
