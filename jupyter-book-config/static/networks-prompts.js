/* The demonstration of SAM: pictures, prompts by mouse, finger and keyboard, and the masks that SAM predicts for them. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Prompts) return;
  const DRAG = 6; // pixels of the page that a mouse moves before a click becomes a box
  const TEMPLATE = `
    <div class="network-pictures" role="group" aria-label="Image"></div>
    <div class="network-panels">
      <div class="network-large">
        <canvas class="network-stage" tabindex="0" role="application" aria-describedby="ID-help"></canvas>
        <div class="network-tools">
          <fieldset><legend>A click is</legend>
            <label><input type="radio" name="ID-mode" value="1" checked> foreground</label>
            <label><input type="radio" name="ID-mode" value="0"> background</label>
            <label><input type="radio" name="ID-mode" value="box"> a box</label>
          </fieldset>
          <div class="network-do">
            <button type="button" data-do="undo">Undo</button>
            <button type="button" data-do="clear">Clear</button>
          </div>
        </div>
      </div>
      <div>
        <p class="network-masks-title" id="ID-masks">Masks, with their predicted IoU</p>
        <div class="network-masks" role="group" aria-labelledby="ID-masks"></div>
      </div>
    </div>
    <p class="network-status" aria-live="polite"></p>
    <details class="network-help" id="ID-help"><summary>Mouse, finger and keyboard</summary>
      <p>Click on an object to add a foreground point, and hold Shift to add a background point. Drag to draw a box. On a
      touch screen, choose first what a touch is. With the keyboard, the arrow keys move the crosshair on the image, with
      Shift by one pixel. Enter adds a foreground point, Shift+Enter a background point, B the first and then the second
      corner of a box. Backspace or Ctrl+Z takes back the last prompt, Escape clears all, and the keys 1 to 4 choose a mask.</p>
      <p>A single prompt is ambiguous, so SAM predicts three masks. After a further prompt, it also receives the mask that
      is shown, and predicts one corrected mask. The scores are the IoUs that SAM predicts for its own masks.</p>
      <p>The network is <code>WEIGHTS</code> (licence LICENCE), and onnxruntime-web (MIT) runs it in this page.</p>
    </details>`;

  class Prompts extends networks.Stage {
    /** Build the interface into `element`, with `pictures` and a network `sam`. */
    constructor(element, pictures, sam) {
      super(element, TEMPLATE, sam.about);
      this.sam = sam;
      this.masks = this.app.querySelector(".network-masks");
      this.history = [];
      this.addPictures(pictures);
      this.acceptFiles();
      this.listen();
    }

    get state() {
      return this.history.at(-1) ?? { points: [], box: null, results: [], chosen: -1 };
    }

    // --- pictures ---

    /** Encode a picture, and decode its example click, if it has one. */
    show(picture) {
      return this.enqueue(async () => {
        this.say(`SAM encodes the image: ${picture.title} …`);
        await this.rendered();
        const started = performance.now();
        const encoded = await this.sam.encode(picture.rgb, [picture.height, picture.width]);
        this.encodeMs = performance.now() - started;
        Object.assign(this, { encoded, history: [], draft: null, corner: null });
        this.select(picture);
        this.stage.setAttribute("aria-label", `Image: ${picture.title}, ${picture.width} by ${picture.height} pixels`);
        this.stage.style.aspectRatio = `${picture.width} / ${picture.height}`;
        this.paint();
        this.say("Click on an object, or draw a box around it.");
        if (picture.click) await this.decode({ points: [{ x: picture.click[0], y: picture.click[1], label: 1 }], box: null });
        this.isExample = Boolean(picture.click);
        if (picture.click) this.say(`An example click. ${this.description()} Your own first click replaces it.`);
      });
    }

    // --- prompts ---

    add(change) {
      return this.enqueue(async () => {
        if (this.isExample) this.history = [];
        this.isExample = false;
        const { points, box } = this.state;
        await this.decode(change.box ? { points, box: change.box } : { points: [...points, change.point], box });
        this.say(this.description());
      });
    }

    /** Predict the masks of a prompt, which becomes the last state. A prompt that corrects a mask has one mask, the first;
        the three masks of the others remain visible. */
    async decode(prompts) {
      const before = this.state, previous = before.results[before.chosen]?.logits ?? null;
      const started = performance.now();
      const results = await this.sam.decode(this.encoded, { ...prompts, previous });
      this.decodeMs = performance.now() - started;
      const candidates = previous ? [0] : [1, 2, 3];
      const chosen = candidates.reduce((a, b) => (results[b].score > results[a].score ? b : a));
      this.history.push({ ...prompts, results, chosen, corrects: Boolean(previous) });
      this.paint();
    }

    undo() {
      return this.enqueue(async () => {
        this.history.pop();
        this.isExample = false;
        this.paint();
        this.say(this.history.length ? `Taken back. ${this.description()}` : "No prompt is left. Click on an object.");
      });
    }

    clear() {
      return this.enqueue(async () => {
        Object.assign(this, { history: [], isExample: false, draft: null, corner: null });
        this.paint();
        this.say("All prompts are removed. Click on an object.");
      });
    }

    choose(index) {
      if (!this.shown().includes(index)) return;
      this.state.chosen = index;
      this.paint();
      this.say(this.description());
    }

    /** Indices of the masks that are shown: three for one prompt, and after a correction the corrected one before them. */
    shown() {
      return this.state.results.length ? (this.state.corrects ? [0, 1, 2, 3] : [1, 2, 3]) : [];
    }

    // --- what the reader sees and hears ---

    description() {
      const { points, box, results, chosen } = this.state;
      if (!results.length) return "";
      const numbers = [1, 0].map((label) => points.filter((point) => point.label === label).length);
      const words = ["foreground", "background"].map((word, i) =>
        numbers[i] && `${numbers[i]} ${word} point${numbers[i] > 1 ? "s" : ""}`);
      const { score, mask } = results[chosen];
      const share = (100 * mask.reduce((a, b) => a + b, 0)) / mask.length;
      return `${[...words, box && "a box"].filter(Boolean).join(", ")}: ${maskName(chosen)} is shown, ` +
        `predicted IoU ${score.toFixed(2)}, ${share.toFixed(share < 10 ? 1 : 0)} % of the image. ` +
        `Encoded in ${this.encodeMs.toFixed(0)} ms, decoded in ${this.decodeMs.toFixed(0)} ms.`;
    }

    paint() {
      if (!this.picture) return;
      const { points, box, results, chosen } = this.state, crosshair = this.visibleCrosshair();
      networks.paint(this.stage, this.picture, { mask: results[chosen]?.mask, points, box, draft: this.draft, crosshair });
      this.paintMasks();
    }

    paintMasks() {
      const shown = this.shown();
      while (this.masks.children.length > shown.length) this.masks.lastElementChild.remove();
      while (this.masks.children.length < shown.length) {
        const button = document.createElement("button");
        button.type = "button";
        button.append(document.createElement("canvas"), document.createElement("span"));
        button.addEventListener("click", () => this.choose(Number(button.dataset.mask)));
        this.masks.append(button);
      }
      shown.forEach((index, i) => {
        const button = this.masks.children[i], { score, mask } = this.state.results[index];
        button.dataset.mask = index;
        button.setAttribute("aria-pressed", index === this.state.chosen);
        button.lastElementChild.textContent = `${maskName(index)}: ${score.toFixed(2)}`;
        networks.paint(button.firstElementChild, this.picture, { mask });
      });
    }

    // --- mouse, finger, keyboard ---

    listen() {
      this.app.querySelector("[data-do=undo]").addEventListener("click", () => this.undo());
      this.app.querySelector("[data-do=clear]").addEventListener("click", () => this.clear());
      this.app.querySelectorAll("input[type=radio]").forEach((input) => input.addEventListener("change", () => {
        this.stage.classList.toggle("draws-boxes", this.mode() === "box"); // a finger then draws and does not scroll
      }));
      this.stage.addEventListener("pointerdown", (event) => this.press(event));
      this.stage.addEventListener("pointermove", (event) => this.drag(event));
      this.stage.addEventListener("pointerup", (event) => this.release(event));
      this.stage.addEventListener("pointercancel", () => Object.assign(this, { pressed: null, draft: null }));
      this.listenToKeys((key, event) => this.key(key, event));
    }

    mode() {
      return this.app.querySelector("input[type=radio]:checked").value;
    }

    press(event) {
      if (event.button !== 0 || !this.picture) return;
      this.byKeyboard = false;
      this.pressed = { clientX: event.clientX, clientY: event.clientY, ...this.position(event) };
      if (this.mode() === "box" || event.pointerType === "mouse") this.stage.setPointerCapture(event.pointerId);
    }

    drag(event) {
      const far = this.pressed &&
        Math.hypot(event.clientX - this.pressed.clientX, event.clientY - this.pressed.clientY) > DRAG;
      if (!far || (event.pointerType !== "mouse" && this.mode() !== "box")) return;
      this.draft = boxOf(this.pressed, this.position(event));
      this.paint();
    }

    release(event) {
      if (!this.pressed) return;
      const { draft } = this;
      Object.assign(this, { pressed: null, draft: null });
      if (draft) {
        if (draft[2] > draft[0] && draft[3] > draft[1]) this.add({ box: draft });
      } else if (this.mode() === "box") {
        this.say("Drag to draw a box.");
      } else {
        this.crosshair = this.pixel(event);
        const label = event.shiftKey ? 0 : Number(this.mode());
        this.add({ point: { ...this.crosshair, label } });
      }
    }

    key(key, { shiftKey }) {
      if (key === "Enter") this.add({ point: { ...this.crosshair, label: shiftKey ? 0 : 1 } });
      else if (key === "undo") this.undo();
      else if (key === "Escape") this.clear();
      else if (key.toLowerCase() === "b") this.addCorner();
      else if (/^[1-4]$/.test(key)) this.choose(this.shown()[key - 1]);
      else return false;
      return true;
    }

    moved() {
      if (this.corner) this.draft = boxOf(this.corner, { x: this.crosshair.x + 1, y: this.crosshair.y + 1 });
    }

    whereabouts() {
      const { x, y } = this.crosshair, mask = this.state.results[this.state.chosen]?.mask;
      const place = mask ? (mask[y * this.picture.width + x] ? ", inside the mask" : ", outside the mask") : "";
      return `Crosshair at x ${x}, y ${y}${place}.`;
    }

    /** The first corner of a box at the crosshair, and then the second. */
    addCorner() {
      if (!this.corner) {
        this.corner = { ...this.crosshair };
        this.say("First corner of a box. Move the crosshair, and press B again.");
        return;
      }
      const box = boxOf(this.corner, { x: this.crosshair.x + 1, y: this.crosshair.y + 1 });
      Object.assign(this, { corner: null, draft: null });
      if (box[2] > box[0] && box[3] > box[1]) this.add({ box });
    }
  }

  function maskName(index) {
    return index ? `mask ${index}` : "corrected mask";
  }

  /** Corners x1, y1, x2, y2 in integer pixels. */
  function boxOf(a, b) {
    const [x1, x2] = [a.x, b.x].map(Math.round).sort((p, q) => p - q);
    const [y1, y2] = [a.y, b.y].map(Math.round).sort((p, q) => p - q);
    return [x1, y1, x2, y2];
  }

  networks.Prompts = Prompts;
  networks.register("sam", async (element, settings) => {
    const [{ pictures }, network] = await Promise.all([
      networks.pictures(settings),
      networks.network(settings, ["encoder", "decoder"]),
    ]);
    element.demonstration = new Prompts(element, pictures, new networks.Sam(network));
    await element.demonstration.show(pictures[0]);
  });
})();
