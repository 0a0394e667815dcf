// What `convert.latency --device browser` calls: every step is timed apart, with bytes in base64 as the only traffic.

import { Network } from "./network.js";

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

export class Measurement {
  // `pixels`: the image, H x W x 3 bytes; `backend` and `threads` as for Network.
  static async load(backend, threads, pixels) {
    const measurement = new Measurement();
    measurement.network = await Network.load(backend, threads);
    measurement.pixels = bytes(pixels);
    return measurement;
  }

  // Returns the milliseconds of every step of every run, without the warm-up runs.
  async measure(warmup, runs) {
    const samples = { pre: [], network: [], post: [], together: [] };
    for (let number = 0; number < warmup + runs; number++) {
      const began = performance.now();
      const values = this.network.normalize(this.pixels);
      const ready = performance.now();
      const logits = await this.network.run(values);
      const done = performance.now();
      if (this.network.card.task === "classification") logits.data.indexOf(Math.max(...logits.data));
      else this.network.labels(logits);
      const ended = performance.now();
      if (number < warmup) continue;
      const spans = { pre: ready - began, network: done - ready, post: ended - done, together: ended - began };
      for (const [step, span] of Object.entries(spans)) samples[step].push(span);
    }
    return samples;
  }

  // Returns the logits for an input in base64, in base64.
  async output(input) {
    const data = bytes(input);
    const values = this.network.card.input_type === "uint8" ? data : new Float32Array(data.buffer);
    const logits = (await this.network.run(values)).data;
    const found = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
    let text = "";
    for (let i = 0; i < found.length; i += 0x8000) text += String.fromCharCode(...found.subarray(i, i + 0x8000));
    return btoa(text);
  }
}
