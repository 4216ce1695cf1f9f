/* The demonstration of SAM: pictures, prompts by mouse, finger and keyboard, and the masks that SAM predicts for them. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Prompts) return;
  const LONGEST_SIDE = 640; // pixels of the reader's own image; SAM reduces it further
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
  let count = 0; // of demonstrations on this page, for unique names

  class Prompts {
    /** Build the interface into `element`, with `pictures` and a network `sam`. */
    constructor(element, pictures, sam) {
      const name = `network-${++count}`;
      this.sam = sam;
      this.app = document.createElement("div");
      this.app.className = "network-app";
      const { weights, licence } = sam.about;
      this.app.innerHTML = TEMPLATE.replaceAll("ID", name).replace("WEIGHTS", weights).replace("LICENCE", licence);
      element.querySelector(".network-summary").after(this.app);
      this.stage = this.app.querySelector(".network-stage");
      this.masks = this.app.querySelector(".network-masks");
      this.status = this.app.querySelector(".network-status");
      this.history = [];
      this.busy = Promise.resolve(); // prompts are decoded in the order in which they were given
      this.addPictures(pictures);
      this.listen();
      new ResizeObserver(() => this.paint()).observe(this.stage);
    }

    get state() {
      return this.history.at(-1) ?? { points: [], box: null, results: [], chosen: -1 };
    }

    // --- pictures ---

    addPictures(pictures) {
      const bar = this.app.querySelector(".network-pictures");
      for (const picture of pictures) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.picture = picture.name;
        button.append(picture.source, Object.assign(document.createElement("span"), { textContent: picture.title }));
        button.addEventListener("click", () => this.show(picture));
        bar.append(button);
      }
      const label = document.createElement("label");
      label.className = "network-upload";
      label.innerHTML = 'Your own image … <input type="file" accept="image/*">';
      label.firstElementChild.addEventListener("change", ({ target }) => target.files[0] && this.showFile(target.files[0]));
      bar.append(label);
    }

    /** Show an image of the reader's. It is read here, and sent nowhere. */
    async showFile(file) {
      const image = new Image(), address = URL.createObjectURL(file);
      image.src = address;
      try {
        await image.decode();
        const scale = Math.min(1, LONGEST_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
        const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
        await this.show(networks.picture(image, { name: "own", title: "your own image", width, height }));
      } catch {
        this.say(`The file ${file.name} is not an image that this browser can read.`);
      } finally {
        URL.revokeObjectURL(address);
      }
    }

    /** Encode a picture, and decode its example click, if it has one. */
    show(picture) {
      return this.enqueue(async () => {
        this.say(`SAM encodes the image: ${picture.title} …`);
        await new Promise((resolve) => setTimeout(resolve)); // show the sentence before the browser is busy
        const started = performance.now();
        const encoded = await this.sam.encode(picture.rgb, [picture.height, picture.width]);
        this.encodeMs = performance.now() - started;
        Object.assign(this, { picture, encoded, history: [], draft: null, corner: null });
        this.crosshair = { x: Math.floor(picture.width / 2), y: Math.floor(picture.height / 2) };
        this.app.querySelectorAll("[data-picture]").forEach((button) =>
          button.setAttribute("aria-pressed", button.dataset.picture === picture.name));
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

    /** Do things one after the other: a second click waits until the first one is decoded. */
    enqueue(action) {
      this.busy = this.busy.then(action).catch((error) => this.say(`The network failed: ${error.message}`));
      return this.busy;
    }

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

    say(text) {
      this.status.textContent = text;
    }

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
      const { points, box, results, chosen } = this.state, focused = document.activeElement === this.stage;
      const crosshair = this.byKeyboard && focused ? this.crosshair : null;
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
      this.stage.addEventListener("keydown", (event) => this.key(event));
      for (const type of ["focus", "blur"]) this.stage.addEventListener(type, () => this.paint());
      this.stage.addEventListener("dragover", (event) => event.preventDefault());
      this.stage.addEventListener("drop", (event) => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) this.showFile(event.dataTransfer.files[0]);
      });
    }

    mode() {
      return this.app.querySelector("input[type=radio]:checked").value;
    }

    /** Position of the pointer in pixels of the image, from the outer edge of the first pixel. */
    position(event) {
      const area = this.stage.getBoundingClientRect(), { width, height } = this.picture;
      const inside = (value, most) => Math.min(Math.max(value, 0), most);
      return {
        x: inside(((event.clientX - area.left) / area.width) * width, width),
        y: inside(((event.clientY - area.top) / area.height) * height, height),
      };
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
      const { draft } = this, { x, y } = this.position(event);
      Object.assign(this, { pressed: null, draft: null });
      if (draft) {
        if (draft[2] > draft[0] && draft[3] > draft[1]) this.add({ box: draft });
      } else if (this.mode() === "box") {
        this.say("Drag to draw a box.");
      } else {
        const pixel = (value, pixels) => Math.min(Math.floor(value), pixels - 1);
        this.crosshair = { x: pixel(x, this.picture.width), y: pixel(y, this.picture.height) };
        const label = event.shiftKey ? 0 : Number(this.mode());
        this.add({ point: { ...this.crosshair, label } });
      }
    }

    key(event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const undo = event.key === "Backspace" || ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z");
      if (!this.picture || (!undo && (event.ctrlKey || event.metaKey || event.altKey))) return;
      this.byKeyboard = true;
      clearTimeout(this.moved); // what this key does is said instead of the last position
      if (moves[event.key]) this.move(moves[event.key], event.shiftKey);
      else if (event.key === "Enter") this.add({ point: { ...this.crosshair, label: event.shiftKey ? 0 : 1 } });
      else if (undo) this.undo();
      else if (event.key === "Escape") this.clear();
      else if (event.key.toLowerCase() === "b") this.addCorner();
      else if (/^[1-4]$/.test(event.key)) this.choose(this.shown()[event.key - 1]);
      else return;
      event.preventDefault();
    }

    move([right, down], byOne) {
      const { width, height } = this.picture, step = byOne ? 1 : Math.max(1, Math.round(Math.max(width, height) / 32));
      const { x, y } = this.crosshair;
      this.crosshair = {
        x: Math.min(Math.max(x + right * step, 0), width - 1),
        y: Math.min(Math.max(y + down * step, 0), height - 1),
      };
      if (this.corner) this.draft = boxOf(this.corner, { x: this.crosshair.x + 1, y: this.crosshair.y + 1 });
      this.paint();
      // A screen reader says only where the crosshair stops.
      this.moved = setTimeout(() => this.say(this.whereabouts()), 250);
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

  /** A picture: its pixels as a canvas (`source`) and as bytes (`rgb`), beside what is known about it. */
  networks.picture = (image, about) => {
    const source = Object.assign(document.createElement("canvas"), { width: about.width, height: about.height });
    const context = source.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white"; // below transparent parts of the reader's own image
    context.fillRect(0, 0, about.width, about.height);
    context.drawImage(image, 0, 0, about.width, about.height);
    const rgb = networks.image.withoutAlpha(context.getImageData(0, 0, about.width, about.height).data);
    return { ...about, source, rgb };
  };

  networks.Prompts = Prompts;
  networks.register("sam", async (element, settings) => {
    const [{ pictures }, network] = await Promise.all([
      networks.data("sam-pictures", settings.version),
      networks.network(settings, ["encoder", "decoder"]),
    ]);
    const decoded = await Promise.all(pictures.map(async (picture) => {
      const image = Object.assign(new Image(), { src: picture.address });
      await image.decode();
      return networks.picture(image, picture);
    }));
    element.demonstration = new Prompts(element, decoded, new networks.Sam(network));
    await element.demonstration.show(decoded[0]);
  });
})();
