/* Images as networks expect them, computed exactly as the library computes them in Python. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.image) return;
  const PRECISION = 22; // bits after the point of Pillow's weights

  /** Height and width of an image that is resized so that its longer side is `side`; `fitted_size` in Python. */
  function fittedSize(height, width, side) {
    const scale = side / Math.max(height, width);
    return [height, width].map((pixels) => Math.max(1, Math.floor(pixels * scale + 0.5)));
  }

  /** For each output pixel of Pillow's bilinear filter: its first input pixel, and integer weights. */
  function pillowWeights(from, to) {
    const scale = from / to, support = Math.max(scale, 1); // a triangle, wider if the image is reduced
    return Array.from({ length: to }, (_, i) => {
      const centre = (i + 0.5) * scale;
      const first = Math.max(0, Math.floor(centre - support + 0.5));
      const last = Math.min(from, Math.floor(centre + support + 0.5));
      const weights = Array.from({ length: last - first }, (_, k) =>
        Math.max(0, 1 - Math.abs((k + first - centre + 0.5) / support)));
      const sum = weights.reduce((a, b) => a + b, 0);
      return { first, weights: weights.map((w) => Math.floor((w / sum) * 2 ** PRECISION + 0.5)) };
    });
  }

  /** Resize along one axis, with the rounding of Pillow. `stride` is the distance between two pixels of a line. */
  function resizeLines(source, from, to, lines, stride, lineStride, outStride, outLineStride) {
    const target = new Uint8ClampedArray(to * lines * 3);
    const table = pillowWeights(from, to);
    for (let line = 0; line < lines; line++) {
      for (let i = 0; i < to; i++) {
        const { first, weights } = table[i];
        for (let channel = 0; channel < 3; channel++) {
          let sum = 2 ** (PRECISION - 1), at = line * lineStride + first * stride + channel;
          for (const weight of weights) {
            sum += source[at] * weight;
            at += stride;
          }
          target[line * outLineStride + i * outStride + channel] = Math.floor(sum / 2 ** PRECISION);
        }
      }
    }
    return target;
  }

  /** Resize bytes (H, W, 3) to (h, w, 3) as Pillow does with its bilinear filter: columns first, then rows. Pillow 13
      does it in the other order for tall images, which differs by the rounding of some bytes. */
  function resizeLikePillow(rgb, [H, W], [h, w]) {
    const columns = (bytes, rows) => (w === W ? bytes : resizeLines(bytes, W, w, rows, 3, 3 * W, 3, 3 * w));
    const rows = (bytes, width) => (h === H ? bytes : resizeLines(bytes, H, h, width, 3 * width, 3, 3 * width, 3));
    return H > 2 * W && h < H ? columns(rows(rgb, W), h) : rows(columns(rgb, H), w);
  }

  /** Bytes (H, W, 3) of the RGBA bytes of a canvas. */
  function withoutAlpha(rgba) {
    const rgb = new Uint8ClampedArray((rgba.length / 4) * 3);
    for (let i = 0, j = 0; i < rgba.length; i += 4, j += 3) {
      for (let channel = 0; channel < 3; channel++) rgb[j + channel] = rgba[i + channel];
    }
    return rgb;
  }

  /** SAM's input (3, S, S) in [0, 1]: the longer side is S, and the rest has the colour `padding`. */
  function samInput(rgb, size, side, padding) {
    const [h, w] = fittedSize(...size, side);
    const fitted = resizeLikePillow(rgb, size, [h, w]);
    const input = new Float32Array(3 * side * side);
    for (let channel = 0; channel < 3; channel++) {
      const plane = input.subarray(channel * side * side, (channel + 1) * side * side).fill(padding[channel]);
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) plane[y * side + x] = fitted[(y * w + x) * 3 + channel] / 255;
      }
    }
    return input;
  }

  /** For each of `count` output positions: the input positions before and after it, and the weight of the second. */
  function bilinearPositions(from, to, count) {
    const low = new Int32Array(count), high = new Int32Array(count), weight = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
      low[i] = Math.floor(at);
      high[i] = Math.min(low[i] + 1, from - 1);
      weight[i] = at - low[i];
    }
    return { low, high, weight };
  }

  /** Bilinear interpolation of (h, w) to (H, W), of which the rows and columns below `crop` are computed.
      `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`. */
  function interpolate(source, [h, w], [H, W], crop = [H, W]) {
    const rows = bilinearPositions(h, H, crop[0]), columns = bilinearPositions(w, W, crop[1]);
    const target = new Float32Array(crop[0] * crop[1]);
    for (let y = 0, at = 0; y < crop[0]; y++) {
      const above = rows.low[y] * w, below = rows.high[y] * w, down = rows.weight[y];
      for (let x = 0; x < crop[1]; x++, at++) {
        const left = columns.low[x], right = columns.high[x], along = columns.weight[x];
        const upper = source[above + left] + along * (source[above + right] - source[above + left]);
        const lower = source[below + left] + along * (source[below + right] - source[below + left]);
        target[at] = upper + down * (lower - upper);
      }
    }
    return target;
  }

  /** Mask logits (h, w) of SAM's padded image, at the size of the image; `full_size` in Python. */
  function fullSize(logits, low, side, size) {
    const fitted = fittedSize(...size, side);
    const large = interpolate(logits, low, [side, side], fitted);
    return fitted[0] === size[0] && fitted[1] === size[1] ? large : interpolate(large, fitted, size);
  }

  networks.image = { fittedSize, resizeLikePillow, withoutAlpha, samInput, interpolate, fullSize };
})();
