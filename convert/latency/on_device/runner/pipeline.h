/* The steps before and after the network. They are the same for every runtime. */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <functional>
#include <memory>
#include <vector>

#include "network.h"

// Pre-processing: writes the network's input; image is uint8 RGB, H x W x 3.
using Prepare = std::function<void(const std::vector<unsigned char> &image, void *input)>;
// Post-processing: turns the network's outputs into a class (int), labels (unsigned char, H x W) or boxes (Box). The
// result is valid until the next call.
using Finish = std::function<Tensor(const std::vector<Tensor> &outputs)>;

Prepare make_prepare(const Options &options);
Finish make_finish(const Options &options);

#endif
