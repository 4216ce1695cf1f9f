/* SAM: an image is encoded once, and each prompt is decoded. The same computation as `segedu.promptable.sam`. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Sam) return;
  const { fittedSize, samInput, fullSize } = networks.image;
  const UPPER_LEFT = 2, LOWER_RIGHT = 3, PADDING = -1; // labels of points, beside 1 and 0; see export_weights.py

  class Sam {
    /** `about`, `ort` and `sessions` of `segeduNetworks.network`. */
    constructor({ about, ort, sessions }) {
      Object.assign(this, { about, ort, sessions });
    }

    /** The embedding of an image: `rgb`, bytes (H, W, 3), and `size`, [H, W]. */
    async encode(rgb, size) {
      const S = this.about.image_size;
      const images = new this.ort.Tensor("float32", samInput(rgb, size, S, this.about.padding), [1, 3, S, S]);
      const { image_embeddings: embedding } = await this.sessions.encoder.run({ images });
      return { embedding, size };
    }

    /** All four masks of a prompt: `points` with x, y and label, a `box` [x1, y1, x2, y2] or null, both in pixels of the
        image; and `previous`, logits of a mask that the prompt corrects, or null. */
    async decode({ embedding, size }, { points, box, previous }) {
      const tensor = (values, shape) => new this.ort.Tensor("float32", Float32Array.from(values), shape);
      const fitted = fittedSize(...size, this.about.image_size);
      const scale = [fitted[1] / size[1], fitted[0] / size[0]]; // of x and y
      const coords = points.flatMap(({ x, y }) => [x * scale[0], y * scale[1]]);
      const labels = points.map(({ label }) => label);
      if (box) {
        coords.push(...box.map((value, i) => value * scale[i % 2]));
        labels.push(UPPER_LEFT, LOWER_RIGHT);
      } else {
        coords.push(0, 0);
        labels.push(PADDING);
      }
      const side = 4 * embedding.dims[3];
      const { mask_logits: logits, iou_scores: scores } = await this.sessions.decoder.run({
        image_embeddings: embedding,
        point_coords: tensor(coords, [1, labels.length, 2]),
        point_labels: tensor(labels, [1, labels.length]),
        mask_input: previous ? tensor(previous, [1, side, side]) : tensor(new Float32Array(side * side), [1, side, side]),
        has_mask_input: tensor([previous ? 1 : 0], [1]),
      });
      return Array.from(scores.data, (score, i) => {
        const low = logits.data.slice(i * side * side, (i + 1) * side * side);
        return { score, logits: low, mask: this.threshold(fullSize(low, [side, side], this.about.image_size, size)) };
      });
    }

    /** Logits above the threshold of the network, as 0 and 1. */
    threshold(logits) {
      const mask = new Uint8Array(logits.length), threshold = this.about.mask_threshold;
      for (let i = 0; i < mask.length; i++) mask[i] = logits[i] > threshold ? 1 : 0;
      return mask;
    }
  }

  networks.Sam = Sam;
})();
