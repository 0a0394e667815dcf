// Resizes images as the model's evaluation does, so that a photograph gives the same input as in Python: OpenCV's
// bilinear filter without antialiasing, or Pillow's filters with it.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

// Keys' cubic convolution with a = -0.5, as in Pillow.
function cubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

// Returns, for each of `count` positions from `first` on, the first source position and the weights from there on.
function taps(source, target, first, count, filter, antialias) {
  const scale = source / target;
  const stretch = antialias ? Math.max(scale, 1) : 1;
  return Array.from({ length: count }, (_, i) => {
    const centre = (first + i + 0.5) * scale;
    const low = Math.max(0, Math.floor(centre - filter.support * stretch + 0.5));
    const high = Math.min(source, Math.floor(centre + filter.support * stretch + 0.5));
    const start = Math.min(low, source - 1);
    const weights = [];
    for (let j = start; j < Math.max(high, start + 1); j++) weights.push(filter.weight((j + 0.5 - centre) / stretch));
    const sum = weights.reduce((a, b) => a + b) || 1;
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}

// Resizes one axis of `pixels`: [outer, length, inner] -> [outer, positions.length, inner].
function along(pixels, outer, length, inner, positions, round) {
  const result = new Float32Array(outer * positions.length * inner);
  let at = 0;
  for (let o = 0; o < outer; o++) {
    for (const { start, weights } of positions) {
      for (let i = 0; i < inner; i++) {
        let sum = 0;
        let from = (o * length + start) * inner + i;
        for (const weight of weights) {
          sum += weight * pixels[from];
          from += inner;
        }
        result[at++] = round ? Math.min(255, Math.max(0, Math.round(sum))) : sum;
      }
    }
  }
  return result;
}

// Brings an image (ImageData) to [height, width] as `preprocessing` of model.json says; returns bytes, H x W x 3.
export function fit(image, [height, width], preprocessing) {
  const { width: w, height: h, data } = image;
  const rgb = new Uint8Array(h * w * 3);
  for (let i = 0, j = 0; i < data.length; i += 4, j += 3) {
    rgb[j] = data[i];
    rgb[j + 1] = data[i + 1];
    rgb[j + 2] = data[i + 2];
  }
  const crop = preprocessing.resize === "centre crop";
  let [rows, columns] = [height, width];
  if (crop) {
    // The image just covers the least size; integers are truncated as in Python.
    const least = [height, width].map((side) => Math.floor(side / preprocessing.crop_fraction));
    rows = Math.max(least[0], Math.floor((least[1] * h) / w));
    columns = Math.max(least[1], Math.floor((least[0] * w) / h));
  }
  if (rows === h && columns === w && !crop) return rgb;
  const [top, left] = [halfEven((rows - height) / 2), halfEven((columns - width) / 2)];
  const filter = FILTERS[preprocessing.interpolation];
  const across = taps(w, columns, left, width, filter, crop);
  const down = taps(h, rows, top, height, filter, crop);
  const narrow = along(rgb, h, w, 3, across, crop);
  return Uint8Array.from(along(narrow, 1, h, width * 3, down, true));
}

// Rounds as Python does: .5 goes to the even number.
function halfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
