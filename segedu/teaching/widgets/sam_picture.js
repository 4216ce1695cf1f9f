// What annotate.js and prompt_sam.js share: a picture that takes points and boxes by mouse or keys, and messages to the kernel. Python puts
// this file before each of the two (`sam_picture.py`), because a widget is one module. It loads nothing from the network.

const NEAR = 4; // screen pixels: a shorter drag is a click
const SOON = 300, LATE = 20000; // milliseconds until the status says "working", and until it advises to check the kernel
const OWN = { BUTTON: [" ", "Enter"], SUMMARY: [" ", "Enter"], SELECT: null }; // keys that a control handles itself; null: all
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

// A canvas with the picture, the points and the box of the model, and a cross that the arrow keys move. Positions are pixels of the image.
//   label              what the picture is and how it is used, for screen readers
//   widest, highest    largest size on the screen
//   point(x, y, shift) a click, and whether the Shift key was held
//   box(corners)       two opposite corners, [x1, y1, x2, y2]
//   more(context, at)  draws between the picture and the prompts; `at` maps a position to the canvas
// Returns {canvas, draw, here, cancel, key, listeners}: `listeners` follow the model, `key` handles the keys of the cross and the box.
function makePicture(parent, model, { label, widest, highest, point, box, more = () => {} }) {
  const canvas = make("canvas", parent, { tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", label);
  let cross = null; // [x, y] in pixels of the image
  let corner = null; // first corner of an unfinished box
  let dragEnd = null; // position of the mouse while it drags a box
  let down = null; // where the mouse button was pressed
  let painted = new Image();
  const colour = (positive) => (positive ? "#009E73" : "#D55E00");

  function draw() {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = canvas.width < model.get("width"); // show the pixels of a small image
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (painted.complete && painted.naturalWidth) context.drawImage(painted, 0, 0, canvas.width, canvas.height);
    const scale = canvas.width / model.get("width");
    const at = ([x, y]) => [(x + 0.5) * scale, (y + 0.5) * scale];
    const frame = (a, b, style) => {
      const [[x1, y1], [x2, y2]] = [at(a), at(b)];
      context.setLineDash([6, 4]);
      context.lineWidth = 2;
      context.strokeStyle = style;
      context.strokeRect(Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1));
      context.setLineDash([]);
    };
    more(context, at);
    const prompted = model.get("box");
    if (prompted.length) frame(prompted.slice(0, 2), prompted.slice(2), "#ffffff");
    if (corner) frame(corner, dragEnd || cross || corner, "#F0E442");
    for (const [x, y, positive] of model.get("points")) {
      const [px, py] = at([x, y]);
      context.beginPath();
      context.arc(px, py, 6, 0, 2 * Math.PI);
      context.fillStyle = colour(positive);
      context.fill();
      context.lineWidth = 2;
      context.strokeStyle = "#ffffff";
      context.stroke();
      context.beginPath(); // plus or minus repeats the meaning of the colour
      context.moveTo(px - 3, py);
      context.lineTo(px + 3, py);
      if (positive) { context.moveTo(px, py - 3); context.lineTo(px, py + 3); }
      context.stroke();
    }
    if (cross) {
      const [px, py] = at(cross);
      context.lineWidth = 1;
      context.strokeStyle = "#F0E442";
      context.beginPath();
      context.moveTo(px, 0); context.lineTo(px, canvas.height);
      context.moveTo(0, py); context.lineTo(canvas.width, py);
      context.stroke();
    }
  }

  function resize() {
    const [w, h] = [model.get("width"), model.get("height")];
    const zoom = Math.max(1, Math.min(Math.floor(widest / w), Math.floor(highest / h))) || 1;
    const s = w > widest || h > highest ? Math.min(widest / w, highest / h) : zoom;
    [canvas.width, canvas.height] = [Math.round(w * s), Math.round(h * s)];
    cross = corner = dragEnd = null;
    draw();
  }

  function repaint() {
    const next = new Image();
    next.onload = () => { painted = next; draw(); };
    next.src = model.get("picture");
  }

  const pixelOf = (event) => {
    const area = canvas.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * model.get("width") - 0.5;
    const y = ((event.clientY - area.top) / area.height) * model.get("height") - 0.5;
    return [Math.max(-0.5, Math.min(x, model.get("width") - 0.5)), Math.max(-0.5, Math.min(y, model.get("height") - 0.5))];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    down = { screen: [event.clientX, event.clientY], at: pixelOf(event) };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!down) return;
    const far = Math.hypot(event.clientX - down.screen[0], event.clientY - down.screen[1]);
    [corner, dragEnd] = far > NEAR ? [down.at, pixelOf(event)] : [null, null];
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!down) return;
    const end = pixelOf(event);
    if (corner) box([...down.at, ...end]);
    else point(end[0], end[1], event.shiftKey);
    down = corner = dragEnd = null;
    draw();
  });
  canvas.addEventListener("pointercancel", () => { down = corner = dragEnd = null; draw(); });

  // The position of the cross, which is in the middle at first.
  const here = () => (cross = cross || [Math.floor(model.get("width") / 2), Math.floor(model.get("height") / 2)]);

  // The arrow keys move the cross, and B sets one corner of a box and then the opposite one. Returns whether the key was one of these.
  function key(name, shift) {
    if (STEPS[name]) {
      const inside = (value, side) => Math.max(0, Math.min(model.get(side) - 1, value));
      const [dx, dy] = STEPS[name].map((step) => (shift ? 5 : 1) * step);
      cross = cross ? [inside(cross[0] + dx, "width"), inside(cross[1] + dy, "height")] : here();
    } else if (name === "b") {
      if (corner) { box([...corner, ...here()]); corner = null; } else corner = here();
    } else return false;
    return true;
  }
  const cancel = () => { corner = null; };
  const listeners = { "change:width": resize, "change:height": resize, "change:picture": repaint, "change:points": draw, "change:box": draw };
  resize();
  repaint();
  return { canvas, draw, here, cancel, key, listeners };
}

// Messages to the kernel. Until it answers, `status` says that SAM is working; `context()` is sent with each message.
function makeSender(model, el, status, context) {
  let waiting = [];
  const stop = () => { waiting.forEach(clearTimeout); };
  const send = (action, more = {}) => {
    stop();
    el.classList.add("busy");
    const showStatus = (text) => () => { status.textContent = text; };
    waiting = [
      setTimeout(showStatus("SAM is working ..."), SOON),
      setTimeout(showStatus("Still no result. A large SAM takes long for a new image. Otherwise check that the kernel is running, or run the cell again."), LATE),
    ];
    model.send({ action, ...context(), ...more });
  };
  const answered = () => {
    stop();
    el.classList.remove("busy");
    status.textContent = model.get("status");
    status.classList.toggle("refused", status.textContent.includes("Not done:"));
  };
  return { send, answered, stop };
}

// Calls `press(key, event)` for the keys that no control handles itself; a key that it handles (anything but false) reaches nobody else.
function takeKeys(el, press) {
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // otherwise JupyterLab would handle the keys
  el.addEventListener("keydown", (event) => {
    const own = OWN[event.target.tagName]; // a button handles Space itself
    if (own === null || own?.includes(event.key)) return;
    if (press(event.key.length === 1 ? event.key.toLowerCase() : event.key, event) === false) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

// Connects listeners to the model; returns the function that disconnects them.
function follow(model, listeners) {
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  return () => { for (const [event, listener] of Object.entries(listeners)) model.off(event, listener); };
}
