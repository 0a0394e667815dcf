// Turns logits into labels: resizes them bilinearly (`align_corners=False`) and takes the class with the largest logit.
//
// The network ends in logits at 1/8 of the image. Resize and argmax are not part of it: WebGPU's Resize is wrong with the
// channels last, and WebAssembly's is slow with the channels first. Here most pixels cost nothing: in a cell, the
// rectangle between the centres of four logit positions, a class can win only if its largest corner reaches the largest
// of all classes' smallest corners. `convert/labels/argmax_upsample.c` does the same in C.

// `logits`: those of C classes at h x w positions, class by class. Returns a class for each of height x width pixels,
// the lowest of classes with equal logits.
export function upsampledLabels(logits, [classes, h, w], [height, width]) {
  const labels = new (classes > 256 ? Uint16Array : Uint8Array)(height * width);
  const [rows, columns] = [cells(height, h), cells(width, w)];
  const found = new Int32Array(classes);
  for (const row of rows) {
    for (const column of columns) {
      const corners = [row.low, row.high].flatMap((y) => [column.low, column.high].map((x) => y * w + x));
      const count = candidates(logits, h * w, corners, found);
      row.parts.forEach((down, i) => {
        const start = (row.first + i) * width + column.first;
        const pixels = labels.subarray(start, start + column.parts.length);
        if (count === 1) pixels.fill(found[0]);
        else compare(logits, h * w, corners, found.subarray(0, count), down, column.parts, pixels);
      });
    }
  }
  return labels;
}

// Cuts pixels into runs that have the same two of `positions` logits beside them along one axis. `first` is the first
// pixel of a run, `parts` the weight of `high` at each of its pixels; that of `low` is the rest of 1.
function cells(pixels, positions) {
  const found = [];
  for (let pixel = 0; pixel < pixels; pixel++) {
    const place = Math.max(0, ((pixel + 0.5) * positions) / pixels - 0.5);
    const low = Math.min(Math.floor(place), positions - 1);
    if (found.at(-1)?.low !== low) {
      found.push({ low, high: Math.min(low + 1, positions - 1), first: pixel, parts: [] });
    }
    found.at(-1).parts.push(Math.min(place - low, 1));
  }
  return found;
}

// Writes the classes that can win inside a cell, in rising order; returns their number.
function candidates(logits, plane, [a, b, d, e], found) {
  let bound = -Infinity;
  for (let at = 0; at < logits.length; at += plane) {
    bound = Math.max(bound, Math.min(logits[at + a], logits[at + b], logits[at + d], logits[at + e]));
  }
  let count = 0;
  for (let at = 0, c = 0; at < logits.length; at += plane, c++) {
    if (Math.max(logits[at + a], logits[at + b], logits[at + d], logits[at + e]) >= bound) found[count++] = c;
  }
  return count;
}

// Interpolates the candidates along one row of a cell and writes the winner of each pixel.
function compare(logits, plane, [a, b, d, e], classes, down, parts, pixels) {
  const best = new Float64Array(parts.length).fill(-Infinity);
  for (const c of classes) {
    const at = c * plane;
    const left = logits[at + a] * (1 - down) + logits[at + d] * down;
    const right = logits[at + b] * (1 - down) + logits[at + e] * down;
    for (let i = 0; i < parts.length; i++) {
      const value = left * (1 - parts[i]) + right * parts[i];
      if (value > best[i]) {
        best[i] = value;
        pixels[i] = c;
      }
    }
  }
}
