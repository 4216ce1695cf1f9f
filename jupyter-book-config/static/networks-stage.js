/* What the demonstrations share: pictures to choose, a stage with a crosshair for the keyboard, and a line of text. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.Stage) return;
  const LONGEST_SIDE = 640; // pixels of the reader's own image; every network reduces it further
  let count = 0; // of demonstrations on this page, for unique names

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

  /** The contents of a demonstration's script of pictures, with `pictures` decoded. */
  networks.pictures = async ({ name, version }) => {
    const contents = await networks.data(`${name}-pictures`, version);
    const pictures = await Promise.all(contents.pictures.map(async (picture) => {
      const image = Object.assign(new Image(), { src: picture.address });
      await image.decode();
      return networks.picture(image, picture);
    }));
    return { ...contents, pictures };
  };

  /** Base class of the demonstrations. A subclass has `show(picture)`, which makes it `this.picture`, and `paint()`. */
  class Stage {
    /** Build the interface into `element` from a template, in which ID, WEIGHTS and LICENCE are replaced. */
    constructor(element, template, { weights, licence }) {
      this.prefix = `network-${++count}`;
      this.app = document.createElement("div");
      this.app.className = "network-app";
      this.app.innerHTML = template.replaceAll("ID", this.prefix).replace("WEIGHTS", weights).replace("LICENCE", licence);
      element.querySelector(".network-summary").after(this.app);
      this.stage = this.app.querySelector(".network-stage");
      this.status = this.app.querySelector(".network-status");
      this.busy = Promise.resolve(); // actions run in the order in which they were given
      for (const type of ["focus", "blur"]) this.stage.addEventListener(type, () => this.paint());
      new ResizeObserver(() => this.paint()).observe(this.stage);
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
    }

    /** A file of the reader's as another picture: by a button, and by dropping it on the stage. */
    acceptFiles() {
      const label = document.createElement("label");
      label.className = "network-upload";
      label.innerHTML = 'Your own image … <input type="file" accept="image/*">';
      label.firstElementChild.addEventListener("change", ({ target }) => target.files[0] && this.showFile(target.files[0]));
      this.app.querySelector(".network-pictures").append(label);
      this.stage.addEventListener("dragover", (event) => event.preventDefault());
      this.stage.addEventListener("drop", (event) => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) this.showFile(event.dataTransfer.files[0]);
      });
    }

    /** Show an image of the reader's. It is read here, and sent nowhere. */
    async showFile(file) {
      const image = new Image(), address = URL.createObjectURL(file);
      image.src = address;
      try {
        await image.decode();
        const scale = Math.min(1, LONGEST_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
        const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
        await this.show(this.fitted(networks.picture(image, { name: "own", title: "your own image", width, height })));
      } catch {
        this.say(`The file ${file.name} is not an image that this browser can read.`);
      } finally {
        URL.revokeObjectURL(address);
      }
    }

    /** The reader's image in a form that the network takes; by default as it is. */
    fitted(picture) {
      return picture;
    }

    /** Mark a picture as chosen, and put the crosshair into its centre. */
    select(picture) {
      this.picture = picture;
      this.crosshair = { x: Math.floor(picture.width / 2), y: Math.floor(picture.height / 2) };
      this.app.querySelectorAll("[data-picture]").forEach((button) =>
        button.setAttribute("aria-pressed", button.dataset.picture === picture.name));
    }

    // --- actions and what is said about them ---

    /** Do things one after the other: a second click waits until the first one is predicted. */
    enqueue(action) {
      this.busy = this.busy.then(action).catch((error) => this.say(`The network failed: ${error.message}`));
      return this.busy;
    }

    say(text) {
      this.status.textContent = text;
    }

    /** Let the browser show the last sentence before the network keeps it busy. */
    rendered() {
      return new Promise((resolve) => setTimeout(resolve));
    }

    // --- positions ---

    /** Position of the pointer in pixels of the image, from the outer edge of the first pixel. */
    position(event) {
      const area = this.stage.getBoundingClientRect(), { width, height } = this.picture;
      const inside = (value, most) => Math.min(Math.max(value, 0), most);
      return {
        x: inside(((event.clientX - area.left) / area.width) * width, width),
        y: inside(((event.clientY - area.top) / area.height) * height, height),
      };
    }

    /** The pixel below the pointer. */
    pixel(event) {
      const { x, y } = this.position(event), within = (value, pixels) => Math.min(Math.floor(value), pixels - 1);
      return { x: within(x, this.picture.width), y: within(y, this.picture.height) };
    }

    /** Move the crosshair by an arrow key, and say where it stops. Returns whether the key was one. */
    arrow({ key, shiftKey }) {
      const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!directions[key]) return false;
      const [right, down] = directions[key], { width, height } = this.picture, { x, y } = this.crosshair;
      const step = shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 32));
      this.crosshair = {
        x: Math.min(Math.max(x + right * step, 0), width - 1),
        y: Math.min(Math.max(y + down * step, 0), height - 1),
      };
      this.moved();
      this.paint();
      this.announcement = setTimeout(() => this.say(this.whereabouts()), 250); // only where the crosshair stops
      return true;
    }

    /** Called when the crosshair has moved. */
    moved() {}

    /** Where the crosshair is, in words. */
    whereabouts() {
      return `Crosshair at x ${this.crosshair.x}, y ${this.crosshair.y}.`;
    }

    /** The crosshair, if the reader uses the keyboard on the stage. */
    visibleCrosshair() {
      return this.byKeyboard && document.activeElement === this.stage ? this.crosshair : null;
    }

    /** Handle a key on the stage by `act(event)`, which returns false for a key that it does not use. */
    listenToKeys(act) {
      this.stage.addEventListener("keydown", (event) => {
        const command = event.ctrlKey || event.metaKey, undo = command && event.key.toLowerCase() === "z";
        if (!this.picture || (!undo && (command || event.altKey))) return;
        this.byKeyboard = true;
        clearTimeout(this.announcement); // what this key does is said instead of the last position
        if (this.arrow(event) || act(event.key === "Backspace" || undo ? "undo" : event.key, event) !== false) {
          event.preventDefault();
        }
      });
    }
  }

  networks.Stage = Stage;
})();
