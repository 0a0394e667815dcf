/* What a runner asks of a runtime. Each runtime has one file, which defines `open_network`. */
#ifndef NETWORK_H
#define NETWORK_H

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

using Options = std::map<std::string, std::string>;  // The program's arguments; main.cpp lists them.

// Prints "runner: " and `what`, and ends the program with status 1.
[[noreturn]] void fail(const std::string &what);

// An output of the network, without gaps.
struct Tensor {
  const void *data;
  size_t bytes;
  std::vector<int> shape;

  const float *floats() const { return static_cast<const float *>(data); }
};

class Network {
 public:
  virtual ~Network() = default;

  // Runs the network on what is in `input`, and sets `outputs`.
  virtual void run() = 0;

  void *input = nullptr;        // The input tensor's memory; it stays where it is.
  std::vector<Tensor> outputs;  // Valid until the next run.
};

// Loads the model; its input is [1, 3, H, W] or [1, H, W, 3], as `layout` says.
std::unique_ptr<Network> open_network(const Options &options);

// Returns the parts of a list such as "logits,deltas".
std::vector<std::string> split(const std::string &list);

#endif
