/* A small U-Net for nuclei, and the brush that paints its input. The brush is `painted` in Python, exactly. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.UNet) return;

  class UNet {
    /** `about`, `ort` and `sessions` of `segeduNetworks.network`. */
    constructor({ about, ort, sessions }) {
      Object.assign(this, { about, ort, session: sessions.network });
    }

    /** The probability of the foreground at each pixel, and the mask of pixels where it is above 1/2.
        `grey`: bytes (H, W) of an image whose three channels are equal. */
    async predict(grey, [H, W]) {
      const images = new Float32Array(3 * H * W);
      for (let i = 0; i < grey.length; i++) images[i] = grey[i] / 255;
      for (const channel of [1, 2]) images.copyWithin(channel * H * W, 0, H * W);
      const outputs = await this.session.run({ images: new this.ort.Tensor("float32", images, [1, 3, H, W]) });
      const logits = outputs[this.session.outputNames[0]].data; // of background and foreground
      const probability = new Float32Array(H * W), mask = new Uint8Array(H * W);
      for (let i = 0; i < mask.length; i++) {
        const difference = logits[H * W + i] - logits[i];
        probability[i] = 1 / (1 + Math.exp(-difference));
        mask[i] = difference > 0 ? 1 : 0;
      }
      return { probability, mask };
    }
  }

  /** Square of the distance from (x, y) to the line between two points. */
  function squaredDistance(x, y, [x1, y1], [x2, y2]) {
    const [dx, dy] = [x2 - x1, y2 - y1], length = dx * dx + dy * dy;
    const along = length > 0 ? Math.min(Math.max(((x - x1) * dx + (y - y1) * dy) / length, 0), 1) : 0;
    const [right, down] = [x - x1 - along * dx, y - y1 - along * dy];
    return right * right + down * down;
  }

  /** The bytes (H, W) `grey` with one stroke of a round brush along `points` [x, y]; (0, 0) is the centre of the first
      pixel. A pixel on the edge of the stroke is mixed from both. */
  function painted(grey, [H, W], { points, radius, level }) {
    const result = Uint8Array.from(grey), cover = new Float64Array(H * W);
    const within = (value, pixels) => Math.min(Math.max(value, 0), pixels - 1);
    for (let k = 0; k < points.length; k++) {
      const [a, b] = [points[Math.max(k - 1, 0)], points[k]], reach = radius + 1;
      const [left, right] = [Math.min(a[0], b[0]) - reach, Math.max(a[0], b[0]) + reach];
      const [top, bottom] = [Math.min(a[1], b[1]) - reach, Math.max(a[1], b[1]) + reach];
      for (let y = within(Math.floor(top), H); y <= within(Math.ceil(bottom), H); y++) {
        for (let x = within(Math.floor(left), W); x <= within(Math.ceil(right), W); x++) {
          const share = Math.min(Math.max(radius + 0.5 - Math.sqrt(squaredDistance(x, y, a, b)), 0), 1);
          cover[y * W + x] = Math.max(cover[y * W + x], share);
        }
      }
    }
    for (let i = 0; i < result.length; i++) result[i] = Math.floor(grey[i] + (level - grey[i]) * cover[i] + 0.5);
    return result;
  }

  /** Number of regions of a mask (H, W); pixels that share an edge are connected. */
  function countRegions(mask, [H, W]) {
    const unseen = Uint8Array.from(mask), stack = [];
    let regions = 0;
    const visit = (i) => {
      if (!unseen[i]) return;
      unseen[i] = 0;
      stack.push(i);
    };
    for (let start = 0; start < unseen.length; start++) {
      if (!unseen[start]) continue;
      regions++;
      visit(start);
      while (stack.length) {
        const i = stack.pop(), x = i % W;
        if (x > 0) visit(i - 1);
        if (x < W - 1) visit(i + 1);
        if (i >= W) visit(i - W);
        if (i < (H - 1) * W) visit(i + W);
      }
    }
    return regions;
  }

  Object.assign(networks, { UNet, painted, countRegions });
})();
