// Runs the model of a bundle in ONNX Runtime Web, with WebGPU or WebAssembly.

import { upsampledLabels } from "./labels.js";
import { fit } from "./resample.js";

const LIBRARIES = { webgpu: "./ort.webgpu.min.mjs", wasm: "./ort.wasm.min.mjs" };

// Returns the backends of this browser, the fastest first.
export async function backends() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter ? ["webgpu", "wasm"] : ["wasm"];
}

export class Network {
  // Loads model.json and the model. WebAssembly has several threads only on pages that are isolated from others.
  static async load(backend, threads = 1) {
    const card = await (await fetch("model.json")).json();
    const ort = await import(LIBRARIES[backend]);
    ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;
    const options = { executionProviders: [backend], graphOptimizationLevel: "all" };
    const session = await ort.InferenceSession.create("model.onnx", options);
    return new Network(card, ort, session, backend);
  }

  constructor(card, ort, session, backend) {
    Object.assign(this, { card, ort, session, backend });
  }

  // Turns an image (ImageData of any size) into the values of the input.
  prepare(image) {
    return this.normalize(fit(image, this.card.input_size, this.card.preprocessing));
  }

  // Turns bytes, H x W x 3, into the values of the input.
  normalize(pixels) {
    const { card } = this;
    if (card.input_type === "uint8") return pixels;
    const count = pixels.length / 3;
    const values = new Float32Array(pixels.length);
    const [mean, std] = card.normalized_inside ? [[0, 0, 0], [1, 1, 1]] : [card.mean, card.std];
    for (let c = 0; c < 3; c++) {
      const scale = 1 / (255 * std[c]);
      const offset = mean[c] / std[c];
      // Plane by plane for NCHW, else interleaved.
      const [start, step] = card.layout === "NCHW" ? [c * count, 1] : [c, 3];
      for (let i = 0; i < count; i++) values[start + i * step] = pixels[3 * i + c] * scale - offset;
    }
    return values;
  }

  // Runs the model on the values of the input; returns its logits, as a tensor.
  async run(values) {
    const { card } = this;
    const shape = card.layout === "NCHW" ? [1, 3, ...card.input_size] : [1, ...card.input_size, 3];
    const tensor = new this.ort.Tensor(card.input_type, values, shape);
    const results = await this.session.run({ [card.tensors.input]: tensor });
    return results[card.tensors.output];
  }

  // Turns the logits of a segmentation model into the class of every pixel of the input.
  labels(logits) {
    return upsampledLabels(logits.data, logits.dims.slice(1), this.card.input_size);
  }
}
