/* The demonstration of the U-Net: an image to paint on by mouse, finger and keyboard, and the mask that it predicts. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Brush) return;
  const MOST_STROKES = 100; // that can be taken back
  const TEMPLATE = `
    <div class="network-pictures" role="group" aria-label="Image"></div>
    <div class="network-tools">
      <fieldset><legend>Brush</legend>LEVELS</fieldset>
      <label>diameter <input type="range" min="1" max="60" value="7"><span aria-hidden="true"></span></label>
      <label><input type="checkbox" data-do="mask" checked> show the mask</label>
      <div class="network-do">
        <button type="button" data-do="undo">Undo</button>
        <button type="button" data-do="clear">Clear</button>
      </div>
    </div>
    <p class="network-status" aria-live="polite"></p>
    <div class="network-row">
      <div>
        <p class="network-title">Paint on this image; yellow: predicted mask</p>
        <canvas class="network-stage paints" tabindex="0" role="application" aria-describedby="ID-help"></canvas>
      </div>
      <div>
        <p class="network-title">Probability of the foreground: 0 <span class="network-scale"></span> 1</p>
        <canvas class="network-map" role="img"></canvas>
      </div>
    </div>
    <details class="network-help" id="ID-help"><summary>Mouse, finger and keyboard</summary>
      <p>Drag on the image to paint. On a touch screen, scroll beside the image. With the keyboard, the arrow keys move the
      brush, with Shift by one pixel. Space or Enter paints one disc, B changes the brightness of the brush, + and - change
      its diameter. Backspace or Ctrl+Z takes back the last stroke, and Escape removes all strokes.</p>
      <p>The network is <code>WEIGHTS</code> (licence LICENCE), and onnxruntime-web (MIT) runs it in this page.</p>
    </details>`;

  class Brush extends networks.Stage {
    /** Build the interface into `element`, with pictures, the grey `levels` of the brush, and a network `unet`. */
    constructor(element, { pictures, levels }, unet) {
      const radios = levels.map(({ name, level }, i) =>
        `<label><input type="radio" name="ID-level" value="${level}"${i ? "" : " checked"}> ${name}</label>`);
      super(element, TEMPLATE.replace("LEVELS", radios.join("")), unet.about);
      this.unet = unet;
      this.map = this.app.querySelector(".network-map");
      this.slider = this.app.querySelector("input[type=range]");
      this.showsMask = this.app.querySelector("[data-do=mask]");
      this.strokes = []; // that can be taken back, each with the image before it
      this.addPictures(pictures);
      this.listen();
      this.nameDiameter();
    }

    /** Show a picture without strokes. */
    show(picture) {
      return this.enqueue(async () => {
        this.select(picture);
        const { title, width, height } = picture;
        this.stage.setAttribute("aria-label", `Image to paint on: ${title}, ${width} by ${height} pixels`);
        this.stage.style.aspectRatio = this.map.style.aspectRatio = `${width} / ${height}`;
        Object.assign(this, { strokes: [], stroke: null, prediction: null, size: [height, width] });
        this.setGrey(picture.rgb.filter((_, i) => i % 3 === 0));
        await this.predict();
        this.report("", " Paint on the image.");
      });
    }

    // --- painting ---

    brush() {
      const level = Number(this.app.querySelector("input[type=radio]:checked").value);
      return { radius: Number(this.slider.value) / 2, level };
    }

    /** Replace the image that the network receives, and that the stage shows. */
    setGrey(grey) {
      const source = networks.pixelCanvas(this.size, (_, bytes) => {
        for (let i = 0; i < bytes.length; i++) bytes[i] = i % 4 === 3 ? 255 : grey[i >> 2];
      });
      Object.assign(this, { grey, shown: { width: source.width, height: source.height, source } });
    }

    begin(point) {
      this.stroke = { ...this.brush(), points: [point], before: this.grey };
      this.extend();
    }

    /** Paint the stroke with all of its points, and predict as soon as the network is free. */
    extend() {
      this.setGrey(networks.painted(this.stroke.before, this.size, this.stroke));
      this.paintStage();
      if (this.waiting) return; // the prediction that is waiting will use this image
      this.waiting = true;
      this.enqueue(async () => {
        this.waiting = false;
        await this.rendered();
        await this.predict();
      });
    }

    end() {
      const { stroke } = this;
      if (!stroke) return;
      this.stroke = null;
      this.strokes.push(stroke);
      if (this.strokes.length > MOST_STROKES) this.strokes.shift();
      this.enqueue(async () => this.report("", "", this.reported));
    }

    undo() {
      if (this.stroke) return;
      const stroke = this.strokes.pop();
      if (!stroke) {
        this.say("There is no stroke to take back.");
        return;
      }
      this.setGrey(stroke.before);
      this.enqueue(async () => {
        await this.predict();
        this.report("Taken back. ");
      });
    }

    clear() {
      return this.show(this.picture);
    }

    async predict() {
      const started = performance.now();
      this.prediction = await this.unet.predict(this.grey, this.size);
      this.predictMs = performance.now() - started;
      this.paint();
    }

    // --- what the reader sees and hears ---

    /** Say the mask in numbers, and how many pixels more or fewer it has than `before`, an earlier number. */
    report(start = "", end = "", before = null) {
      const { mask } = this.prediction, count = mask.reduce((a, b) => a + b, 0);
      const share = ((100 * count) / mask.length).toFixed(1), regions = networks.countRegions(mask, this.size);
      const change = count - before, more = `${Math.abs(change)} ${change < 0 ? "fewer" : "more"} than before`;
      this.reported = count;
      this.say(`${start}Foreground: ${count} pixels (${share} %)${before === null ? "" : `, ${more}`}, in ${regions} ` +
        `region${regions === 1 ? "" : "s"}. Predicted in ${this.predictMs.toFixed(0)} ms.${end}`);
    }

    nameDiameter() {
      this.slider.nextElementSibling.textContent = `${this.slider.value} px`;
      this.slider.setAttribute("aria-valuetext", `${this.slider.value} pixel${this.slider.value === "1" ? "" : "s"}`);
    }

    paint() {
      if (!this.prediction) return;
      this.paintStage();
      const { probability, mask } = this.prediction, { size } = this;
      networks.paintMap(this.map, this.shown, { values: probability, size, edge: { mask, size } });
      const count = mask.reduce((a, b) => a + b, 0);
      this.map.setAttribute("aria-label", `Map of the predicted probability: above one half at ${count} pixels`);
    }

    paintStage() {
      const at = this.hovered ?? this.visibleCrosshair();
      const mask = this.showsMask.checked ? this.prediction?.mask : null;
      const brush = at && { ...at, radius: this.brush().radius };
      networks.paint(this.stage, this.shown, { mask, shade: "inside", brush });
    }

    whereabouts() {
      const { x, y } = this.crosshair, inside = this.prediction.mask[y * this.picture.width + x];
      return `Brush at x ${x}, y ${y}, ${inside ? "inside" : "outside"} the mask; brightness there ` +
        `${this.grey[y * this.picture.width + x]} of 255.`;
    }

    // --- mouse, finger, keyboard ---

    listen() {
      this.app.querySelector("[data-do=undo]").addEventListener("click", () => this.undo());
      this.app.querySelector("[data-do=clear]").addEventListener("click", () => this.clear());
      this.showsMask.addEventListener("change", () => this.paintStage());
      this.slider.addEventListener("input", () => this.nameDiameter());
      this.stage.addEventListener("pointerdown", (event) => this.press(event));
      this.stage.addEventListener("pointermove", (event) => this.drag(event));
      this.stage.addEventListener("pointerup", () => this.end());
      this.stage.addEventListener("pointercancel", () => this.end());
      this.stage.addEventListener("pointerleave", () => this.hover(null));
      this.listenToKeys((key) => this.key(key));
    }

    /** Position of the pointer, where (0, 0) is the centre of the first pixel. */
    centre(event) {
      const { x, y } = this.position(event);
      return [x - 0.5, y - 0.5];
    }

    press(event) {
      if (event.button !== 0 || !this.prediction || this.stroke) return;
      this.byKeyboard = false;
      this.stage.setPointerCapture(event.pointerId);
      this.crosshair = this.pixel(event);
      this.begin(this.centre(event));
    }

    drag(event) {
      if (!this.prediction) return;
      const [x, y] = this.centre(event);
      this.hover(event.pointerType === "touch" ? null : { x, y });
      if (!this.stroke) return;
      this.stroke.points.push([x, y]);
      this.extend();
    }

    /** Show the circle of the brush below the pointer. */
    hover(at) {
      this.hovered = at;
      if (this.prediction && !this.stroke) this.paintStage();
    }

    key(key) {
      if (key === "Enter" || key === " ") this.dab();
      else if (key === "undo") this.undo();
      else if (key === "Escape") this.clear();
      else if (key.toLowerCase() === "b") this.nextLevel();
      else if (/^[+=-]$/.test(key)) this.resize(key === "-" ? -1 : 1);
      else return false;
      return true;
    }

    /** One disc at the brush of the keyboard. */
    dab() {
      if (!this.prediction) return;
      this.begin([this.crosshair.x, this.crosshair.y]);
      this.end();
    }

    nextLevel() {
      const radios = [...this.app.querySelectorAll("input[type=radio]")];
      const next = radios[(radios.findIndex((radio) => radio.checked) + 1) % radios.length];
      next.checked = true;
      this.say(`The brush is ${next.parentElement.textContent.trim()}.`);
    }

    resize(change) {
      this.slider.value = Number(this.slider.value) + change;
      this.nameDiameter();
      this.paintStage();
      this.say(`The brush has a diameter of ${this.slider.getAttribute("aria-valuetext")}.`);
    }
  }

  networks.Brush = Brush;
  networks.register("unet", async (element, settings) => {
    const [contents, network] = await Promise.all([
      networks.pictures(settings),
      networks.network(settings, ["network"]),
    ]);
    element.demonstration = new Brush(element, contents, new networks.UNet(network));
    await element.demonstration.show(contents.pictures[0]);
  });
})();
