/* A small Mask2Former: predictions and attention of every layer, and the read-outs of `segedu.panoptic.inference`. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Mask2Former) return;
  const { interpolate } = networks.image;
  const OVERLAP = 0.8; // smallest share of its mask that the query of a segment wins

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  /** What the network predicts for one image, before the first layer (0) and after each layer (1, 2, ...). */
  class Prediction {
    constructor(outputs, size) {
      const { class_logits: classes, mask_logits: masks } = outputs;
      const [predictions, queries, channels] = classes.dims;
      Object.assign(this, { classes, masks, size, queries, layers: predictions - 1, noObject: channels - 1 });
      this.maskSize = masks.dims.slice(2);
      this.attentions = Array.from({ length: this.layers }, (_, i) => outputs[`attention_${i + 1}`]);
    }

    /** Probabilities of the classes, "no object" last. */
    probabilities(layer, query) {
      const count = this.noObject + 1, start = (layer * this.queries + query) * count;
      const logits = this.classes.data.subarray(start, start + count), most = Math.max(...logits);
      const powers = Array.from(logits, (logit) => Math.exp(logit - most)), sum = powers.reduce((a, b) => a + b, 0);
      return powers.map((power) => power / sum);
    }

    /** The most probable class of a query, with its probability. */
    best(layer, query) {
      const probabilities = this.probabilities(layer, query), probability = Math.max(...probabilities);
      return { category: probabilities.indexOf(probability), probability };
    }

    /** Probability of a query's last class, if "no object" is not counted: what queries are sorted by. */
    score(query) {
      return Math.max(...this.probabilities(this.layers, query).slice(0, -1));
    }

    maskLogits(layer, query) {
      const pixels = this.maskSize[0] * this.maskSize[1], start = (layer * this.queries + query) * pixels;
      return this.masks.data.subarray(start, start + pixels);
    }

    /** Mask probabilities of a query at the size of the image. */
    probabilityMap(layer, query) {
      return interpolate(this.maskLogits(layer, query), this.maskSize, this.size).map(sigmoid);
    }

    mask(layer, query) {
      return Uint8Array.from(this.probabilityMap(layer, query), (probability) => (probability >= 0.5 ? 1 : 0));
    }

    /** Attention of a query in a layer (1, 2, ...): its `weights` (h, w), and where it is masked out (`hidden`). The mask
        of the layer before decides; if it is empty, nothing is masked out (`isEmpty`). */
    attention(layer, query) {
      const { dims, data } = this.attentions[layer - 1], size = dims.slice(1), positions = size[0] * size[1];
      const logits = interpolate(this.maskLogits(layer - 1, query), this.maskSize, size);
      const isEmpty = logits.every((logit) => logit < 0);
      const hidden = Uint8Array.from(logits, (logit) => (logit < 0 && !isEmpty ? 1 : 0));
      return { weights: data.slice(query * positions, (query + 1) * positions), hidden, isEmpty, size };
    }

    /** At each pixel the class with the largest sum of p(class) times mask probability; `semantic_inference`. */
    semantic() {
      const pixels = this.size[0] * this.size[1];
      const scores = Array.from({ length: this.noObject }, () => new Float64Array(pixels));
      for (let query = 0; query < this.queries; query++) {
        const p = this.probabilities(this.layers, query), map = this.probabilityMap(this.layers, query);
        scores.forEach((sums, category) => map.forEach((value, i) => {
          sums[i] += p[category] * value;
        }));
      }
      return Uint8Array.from({ length: pixels }, (_, i) =>
        scores.reduce((best, sums, category) => (sums[i] > scores[best][i] ? category : best), 0));
    }

    /** Segments, as `panoptic_inference`: `ids` (H, W), 0 without a segment; `owners` (H, W), the query of each pixel that
        has a segment, otherwise -1; and the `segments` with id, category, isThing and their `queries`. */
    panoptic(things, threshold) {
      const pixels = this.size[0] * this.size[1], kept = [];
      for (let query = 0; query < this.queries; query++) {
        const best = this.best(this.layers, query), map = this.probabilityMap(this.layers, query);
        if (best.category === this.noObject || best.probability <= threshold) continue;
        kept.push({ ...best, query, map, won: 0, visible: 0, area: 0 });
      }
      const winners = new Int16Array(pixels).fill(-1);
      for (let i = 0; i < pixels; i++) {
        let most = -1;
        kept.forEach((one, k) => {
          const product = one.probability * one.map[i];
          one.area += one.map[i] >= 0.5 ? 1 : 0;
          if (product > most) [most, winners[i]] = [product, k];
        });
        if (!kept.length) continue;
        const winner = kept[winners[i]];
        winner.won += 1;
        if (winner.map[i] >= 0.5) winner.visible += 1;
        else winners[i] = -1;
      }
      const segments = [];
      for (const one of kept) {
        if (!one.visible || one.won / one.area < OVERLAP) continue;
        const isThing = things.includes(one.category);
        one.segment = segments.find(({ category }) => !isThing && category === one.category);
        if (!one.segment) {
          one.segment = { id: segments.length + 1, category: one.category, isThing, queries: [] };
          segments.push(one.segment);
        }
        one.segment.queries.push(one.query);
      }
      const owner = (k) => (k >= 0 && kept[k].segment ? kept[k] : null);
      return {
        ids: Int32Array.from(winners, (k) => owner(k)?.segment.id ?? 0),
        owners: Int16Array.from(winners, (k) => owner(k)?.query ?? -1),
        segments,
      };
    }
  }

  class Mask2Former {
    /** `about`, `ort` and `sessions` of `segeduNetworks.network`. */
    constructor({ about, ort, sessions }) {
      Object.assign(this, { about, ort, session: sessions.network });
    }

    /** `rgb`: bytes (H, W, 3) of an image of the size that the network was exported for. */
    async predict(rgb, [H, W]) {
      const images = new Float32Array(3 * H * W);
      for (let i = 0; i < rgb.length; i++) images[(i % 3) * H * W + Math.floor(i / 3)] = rgb[i] / 255;
      const outputs = await this.session.run({ images: new this.ort.Tensor("float32", images, [1, 3, H, W]) });
      return new Prediction(outputs, [H, W]);
    }
  }

  networks.Mask2Former = Mask2Former;
})();
