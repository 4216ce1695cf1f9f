/* The demonstration of Mask2Former: its segments, and the mask and the attention of each query in each layer. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Queries) return;
  const TINT = 0.6; // opacity of a segment's colour
  const TEMPLATE = `
    <div class="network-pictures" role="group" aria-label="Image"></div>
    <div class="network-panels">
      <div>
        <fieldset class="network-choice"><legend>Result</legend>
          <label><input type="radio" name="ID-result" value="panoptic" checked> panoptic</label>
          <label><input type="radio" name="ID-result" value="semantic"> semantic</label>
          <label><input type="radio" name="ID-result" value="image"> image only</label>
        </fieldset>
        <canvas class="network-stage" tabindex="0" role="application" aria-describedby="ID-help"></canvas>
        <ul class="network-legend" aria-label="Colours of the result"></ul>
      </div>
      <fieldset class="network-list"><legend>Queries, by their score</legend><div></div></fieldset>
    </div>
    <fieldset class="network-choice" data-layers><legend>Decoder layer</legend></fieldset>
    <div class="network-row network-trio">
      <div><p class="network-title"></p><canvas class="network-map" role="img"></canvas></div>
      <div><p class="network-title"></p><canvas class="network-map" role="img"></canvas></div>
      <div><p class="network-title"></p><canvas class="network-map" role="img"></canvas></div>
    </div>
    <p class="network-status" aria-live="polite"></p>
    <details class="network-help" id="ID-help"><summary>Mouse, finger and keyboard</summary>
      <p>Click on the image to select the query that a segment belongs to, or choose a query in the list. With the keyboard,
      the arrow keys move the crosshair on the image, with Shift by one pixel; Enter selects the query of the pixel, and
      the keys 1, 2 and 3 choose a layer.</p>
      <p>The score of a query is the probability of its most probable class other than “no object”. Colours of the masks and
      of the attention: cividis, from dark blue (0) to yellow (1, or the largest weight of the layer). Where the image is
      darkened, positions are masked out. The attention weights are averaged over the heads.</p>
      <p>The network is <code>WEIGHTS</code> (licence LICENCE), and onnxruntime-web (MIT) runs it in this page. It was
      trained on synthetic streets of 96 by 64 pixels only. An image of your own is cropped and reduced to this size.</p>
    </details>`;

  class Queries extends networks.Stage {
    /** Build the interface into `element`, with what the script of pictures holds, and a network `mask2former`. */
    constructor(element, contents, mask2former) {
      super(element, TEMPLATE, mask2former.about);
      Object.assign(this, { contents, mask2former, query: 0, layer: 1 });
      this.list = this.app.querySelector(".network-list div");
      this.legend = this.app.querySelector(".network-legend");
      this.choice = this.app.querySelector("[data-layers]");
      this.maps = [...this.app.querySelectorAll(".network-map")];
      this.addPictures(contents.pictures);
      this.acceptFiles();
      this.listen();
    }

    /** Crop the reader's image to the shape of the streets, and resize it as Pillow does. */
    fitted(picture) {
      const { width, height } = this.contents.pictures[0];
      const scale = Math.min(picture.width / width, picture.height / height);
      const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
      const crop = Object.assign(document.createElement("canvas"), { width: w, height: h });
      const corner = [w - picture.width, h - picture.height].map((rest) => Math.round(rest / 2));
      crop.getContext("2d").drawImage(picture.source, ...corner);
      const { rgb } = networks.picture(crop, { width: w, height: h });
      const small = networks.image.resizeLikePillow(rgb, [h, w], [height, width]);
      const source = networks.pixelCanvas([height, width], (_, bytes) => {
        for (let i = 0; i < bytes.length; i++) bytes[i] = i % 4 === 3 ? 255 : small[3 * (i >> 2) + (i % 4)];
      });
      return networks.picture(source, { ...picture, width, height });
    }

    /** Predict a picture, and select its query: the one of the example, or the one with the highest score. */
    show(picture) {
      return this.enqueue(async () => {
        this.say(`Mask2Former segments the image: ${picture.title} …`);
        await this.rendered();
        const started = performance.now(), { things, threshold } = this.contents;
        const prediction = await this.mask2former.predict(picture.rgb, [picture.height, picture.width]);
        const panoptic = prediction.panoptic(things, threshold), semantic = prediction.semantic();
        this.predictMs = performance.now() - started;
        this.select(picture);
        Object.assign(this, { prediction, panoptic, semantic });
        [this.stage, ...this.maps].forEach((canvas) => {
          canvas.style.aspectRatio = `${picture.width} / ${picture.height}`;
        });
        this.order = Array.from({ length: prediction.queries }, (_, query) => query)
          .sort((a, b) => prediction.score(b) - prediction.score(a));
        this.fillLayers();
        this.fillList();
        this.choose({ query: picture.query ?? this.order[0], layer: picture.layer ?? 1 });
        this.say(`${this.summary()} ${this.description()}`);
      });
    }

    // --- choices ---

    /** Select a query or a layer, and show both. */
    choose(change) {
      Object.assign(this, change);
      for (const [name, value] of [["query", this.query], ["layer", this.layer]]) {
        this.app.querySelector(`input[data-${name}="${value}"]`).checked = true;
      }
      const { offsetTop: top, offsetHeight: height } = this.list.querySelector(":checked").parentElement;
      const { scrollTop, clientHeight } = this.list; // `scrollIntoView` would also scroll the page
      if (top < scrollTop) this.list.scrollTop = top;
      else if (top + height > scrollTop + clientHeight) this.list.scrollTop = top + height - clientHeight;
      this.paint();
    }

    change(change) {
      if (!this.prediction) return;
      this.choose(change);
      this.say(this.description());
    }

    /** Select the query that owns a pixel. */
    pick({ x, y }) {
      const query = this.panoptic.owners[y * this.picture.width + x];
      this.crosshair = { x, y };
      if (query >= 0) this.change({ query });
      else this.say(`No segment covers the pixel at x ${x}, y ${y}.`);
    }

    /** A radio button that selects a "query" or a "layer". */
    radio(data, value, ...content) {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "radio", name: `${this.prefix}-${data}` });
      input.dataset[data] = value;
      input.addEventListener("change", () => this.change({ [data]: value }));
      label.append(input, ...content);
      return label;
    }

    fillLayers() {
      if (this.choice.querySelector("input")) return; // the layers of all pictures are the same
      for (let layer = 1; layer <= this.prediction.layers; layer++) {
        const [h] = this.prediction.attention(layer, 0).size;
        this.choice.append(this.radio("layer", layer, ` ${layer} (stride ${this.prediction.size[0] / h})`));
      }
    }

    fillList() {
      this.list.replaceChildren(...this.order.map((query) => {
        const { category, probability } = this.prediction.best(this.prediction.layers, query);
        const segment = this.segmentOf(query), isObject = category !== this.prediction.noObject;
        const text = ` ${query}: ${this.name(category)} ${probability.toFixed(2)}`;
        const without = isObject && !segment ? ", no segment" : "";
        return this.radio("query", query, swatch(segment && this.colour(segment)), text + without);
      }));
    }

    // --- names and colours ---

    name(category) {
      return this.contents.classes[category] ?? "no object";
    }

    segmentOf(query) {
      return this.panoptic.segments.find(({ queries }) => queries.includes(query));
    }

    /** Things have a colour each, and stuff has the colour of its class. */
    colour({ id, category, isThing }) {
      const { thing_colours: bright, class_colours: colours } = this.contents;
      const things = this.panoptic.segments.filter((segment) => segment.isThing);
      return isThing ? bright[things.findIndex((segment) => segment.id === id) % bright.length] : colours[category];
    }

    /** The colour of each pixel of the chosen result, or null, and the legend. */
    result() {
      const kind = this.app.querySelector("input[value]:checked").value, { segments, ids } = this.panoptic;
      if (kind === "semantic") {
        const { class_colours: colours } = this.contents;
        const present = [...new Set(this.semantic)].sort((a, b) => a - b);
        return {
          colours: Array.from(this.semantic, (category) => colours[category]),
          legend: present.map((category) => [colours[category], this.name(category)]),
        };
      }
      if (kind === "image") return { colours: [], legend: [] };
      const ofSegments = segments.map((segment) => this.colour(segment));
      return {
        colours: Array.from(ids, (id) => ofSegments[id - 1]),
        legend: segments.map((segment, i) => [ofSegments[i], this.name(segment.category)]),
      };
    }

    // --- what the reader sees and hears ---

    summary() {
      const names = new Map();
      this.panoptic.segments.forEach(({ category }) => names.set(category, (names.get(category) ?? 0) + 1));
      const words = [...names].map(([category, number]) => `${this.name(category)}${number > 1 ? ` (${number})` : ""}`);
      return `${this.panoptic.segments.length} segments: ${words.join(", ")}. Predicted in ${this.predictMs.toFixed(0)} ms.`;
    }

    description() {
      const { query, layer, prediction } = this, { category, probability } = prediction.best(prediction.layers, query);
      const { weights, hidden, isEmpty } = prediction.attention(layer, query);
      const open = hidden.filter((value) => !value).length, largest = Math.max(...weights).toFixed(2);
      const where = isEmpty ? `attends to all ${hidden.length} positions, because its mask is empty there` :
        `may attend to ${open} of ${hidden.length} positions`;
      const pixels = prediction.mask(layer, query).reduce((a, b) => a + b, 0);
      const lost = category !== prediction.noObject && !this.segmentOf(query) ? ", but it has no segment" : "";
      return `Query ${query}: its final class is ${this.name(category)}, with probability ${probability.toFixed(2)}${lost}. ` +
        `In layer ${layer}, it ${where}; the largest weight is ${largest}. After this layer, its mask has ${pixels} pixels.`;
    }

    paint() {
      if (!this.prediction) return;
      this.paintResult();
      this.paintLayer();
    }

    paintResult() {
      const { picture, prediction, query } = this, { colours, legend } = this.result();
      const source = networks.pixelCanvas(prediction.size, (_, bytes) => {
        for (let i = 0; i < bytes.length; i++) {
          const k = i % 4, own = picture.rgb[3 * (i >> 2) + k], colour = colours[i >> 2];
          bytes[i] = k === 3 ? 255 : colour ? (1 - TINT) * own + TINT * colour[k] : own;
        }
      });
      const mask = prediction.mask(prediction.layers, query);
      networks.paint(this.stage, { ...picture, source }, { mask, shade: "none", crosshair: this.visibleCrosshair() });
      this.stage.setAttribute("aria-label", `Image: ${picture.title}. ${this.summary()} Query ${query} is outlined.`);
      this.legend.replaceChildren(...legend.map(([colour, name]) => {
        const item = document.createElement("li");
        item.append(swatch(colour), ` ${name}`);
        return item;
      }));
    }

    paintLayer() {
      const { picture, prediction, query, layer } = this, { weights, hidden, size } = prediction.attention(layer, query);
      const [before, after] = [layer - 1, layer].map((at) => {
        const edge = { mask: prediction.mask(at, query), size: prediction.size };
        return { values: prediction.probabilityMap(at, query), size: prediction.size, edge };
      });
      const edge = { mask: hidden.map((value) => 1 - value), size };
      const attended = { values: weights, size, most: Math.max(...weights), hidden, edge };
      const titles = [
        `Mask ${layer === 1 ? "before layer 1" : `after layer ${layer - 1}`}: ${this.classAfter(layer - 1)}`,
        `Attention in layer ${layer}: ${hidden.filter((value) => !value).length} of ${hidden.length} positions`,
        `Mask after layer ${layer}: ${this.classAfter(layer)}`,
      ];
      [before, attended, after].forEach((map, i) => {
        networks.paintMap(this.maps[i], picture, map);
        this.maps[i].previousElementSibling.textContent = titles[i];
        this.maps[i].setAttribute("aria-label", `Query ${query}. ${titles[i]}`);
      });
    }

    /** The class of the query after a layer (0: before the first), with its probability. */
    classAfter(layer) {
      const { category, probability } = this.prediction.best(layer, this.query);
      return `${this.name(category)} ${probability.toFixed(2)}`;
    }

    whereabouts() {
      const { x, y } = this.crosshair, id = this.panoptic.ids[y * this.picture.width + x];
      const segment = this.panoptic.segments[id - 1];
      return `Crosshair at x ${x}, y ${y}, ${segment ? `on a segment of ${this.name(segment.category)}` : "on no segment"}.`;
    }

    // --- mouse, finger, keyboard ---

    listen() {
      this.app.querySelectorAll("input[value]").forEach((input) => input.addEventListener("change", () => this.paint()));
      this.stage.addEventListener("click", (event) => {
        this.byKeyboard = false;
        if (this.prediction) this.pick(this.pixel(event));
      });
      this.listenToKeys((key) => {
        if (key === "Enter" || key === " ") this.pick(this.crosshair);
        else if (this.choice.querySelector(`input[data-layer="${CSS.escape(key)}"]`)) this.change({ layer: Number(key) });
        else return false;
        return true;
      });
    }
  }

  /** A square of a colour, or an empty one. */
  function swatch(colour) {
    const square = document.createElement("span");
    square.className = "network-swatch";
    if (colour) square.style.background = `rgb(${colour})`;
    return square;
  }

  networks.Queries = Queries;
  networks.register("mask2former", async (element, settings) => {
    const [contents, network] = await Promise.all([
      networks.pictures(settings),
      networks.network(settings, ["network"]),
    ]);
    element.demonstration = new Queries(element, contents, new networks.Mask2Former(network));
    await element.demonstration.show(contents.pictures[0]);
  });
})();
