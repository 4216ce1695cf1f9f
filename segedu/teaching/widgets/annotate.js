// User interface of segedu.teaching.widgets.annotate. Python holds the state; this file turns keys and mouse events into messages and
// draws the result. It loads nothing from the network.

const FIRST =
  "Click: this object. Shift+click: not this. Drag: a box. SAM's mask is yellow. Choose a class and press Keep. Save before you close the notebook.";
const KEYS =
  "Keys, after you have clicked the image or reached it with Tab: the arrows move the cross (with Shift by 5 pixels), Space adds a point on " +
  "the object at the cross, N a point on the background, B sets one corner of a box and then the opposite one, M shows SAM's next mask, " +
  "1 to 9 choose the class, Enter keeps the mask, Escape clears the prompts, U or Ctrl+Z undoes, R redoes, Delete removes the last object, " +
  "comma and full stop open the previous and the next image.";
const NEAR = 4; // screen pixels: a shorter drag is a click
const SOON = 300, LATE = 20000; // milliseconds until the status says "working", and until it advises to check the kernel
const OWN = { BUTTON: [" ", "Enter"], SUMMARY: [" ", "Enter"], SELECT: null }; // keys that a control handles itself; null: all

function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function render({ model, el }) {
  el.classList.add("segedu-annotate");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // otherwise JupyterLab would handle the keys
  const bar = make("div", el, { className: "bar" });
  const label = make("select", bar, { title: "Class of the next object", ariaLabel: "Class of the next object" });
  model.get("classes").slice(1).forEach((name, i) => make("option", label, { value: i + 1, textContent: `${i + 1} ${name}` }));
  const view = Math.random(); // the same tool may be shown twice: a file goes to the view that requested it
  let waiting = [];
  const send = (action, more = {}) => {
    waiting.forEach(clearTimeout);
    el.classList.add("busy");
    const showStatus = (text) => () => { status.textContent = text; };
    waiting = [
      setTimeout(showStatus("SAM is working ..."), SOON),
      setTimeout(showStatus("Still no result. A large SAM takes long for a new image. Otherwise check that the kernel is running, or run the cell again."), LATE),
    ];
    model.send({ action, view, number: model.get("number"), ...more });
  };
  const keep = () => send("keep", { label: Number(label.value) });
  const buttons = {
    "Keep": [keep, "Keep the mask as an object of this class (Enter)"],
    "Next mask": [() => send("next_mask"), "Show another of SAM's masks (M)"],
    "Undo": [() => send("undo"), "Undo the last step (U)"],
    "Redo": [() => send("redo"), "Redo the step that was undone (R)"],
    "Clear": [() => send("clear"), "Clear the prompts (Escape)"],
    "Remove last": [() => send("remove_last"), "Remove the last object (Delete)"],
    "Previous image": [() => send("go", { by: -1 }), "Previous image (comma)"],
    "Next image": [() => send("go", { by: 1 }), "Next image (full stop)"],
    "COCO JSON": [() => send("export", { kind: "coco" }), "Download all objects as COCO instances"],
    "CVAT XML": [() => send("export", { kind: "cvat" }), "Download all objects as CVAT for images 1.1"],
  };
  for (const [name, [action, title]] of Object.entries(buttons)) {
    const onclick = (event) => {
      action();
      if (event.detail) canvas.focus({ preventScroll: true }); // after a mouse click the keys control the picture again
    };
    make("button", bar, { type: "button", textContent: name, title, onclick });
  }
  make("div", el, { className: "first", textContent: FIRST });
  const canvas = make("canvas", el, { tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Image to label. " + FIRST + " " + KEYS);
  const status = make("div", el, { className: "status", role: "status" });
  status.setAttribute("aria-live", "polite");
  const list = make("ol", el, { className: "objects" });
  const help = make("details", el);
  make("summary", help, { textContent: "All keys" });
  make("p", help, { textContent: KEYS });

  let cross = null; // [x, y] in pixels of the image
  let corner = null; // first corner of an unfinished box
  let dragEnd = null; // position of the mouse while it drags a box
  let painted = new Image();
  const scale = () => canvas.width / model.get("width");
  const colour = (positive) => (positive ? "#009E73" : "#D55E00");

  function draw() {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = canvas.width < model.get("width"); // show the pixels of a small image
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (painted.complete && painted.naturalWidth) context.drawImage(painted, 0, 0, canvas.width, canvas.height);
    const s = scale();
    const at = ([x, y]) => [(x + 0.5) * s, (y + 0.5) * s];
    const frame = (a, b, style) => {
      const [[x1, y1], [x2, y2]] = [at(a), at(b)];
      context.setLineDash([6, 4]);
      context.lineWidth = 2;
      context.strokeStyle = style;
      context.strokeRect(Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1));
      context.setLineDash([]);
    };
    context.font = "bold 14px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    model.get("objects").forEach((one, i) => { // numbers as in the list
      const [px, py] = at(one.at);
      context.lineWidth = 4;
      context.strokeStyle = "#1b1b1b";
      context.strokeText(String(i + 1), px, py);
      context.fillStyle = "#ffffff";
      context.fillText(String(i + 1), px, py);
    });
    const box = model.get("box");
    if (box.length) frame(box.slice(0, 2), box.slice(2), "#ffffff");
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
    const zoom = Math.max(1, Math.min(Math.floor(640 / w), Math.floor(520 / h))) || 1;
    const s = w > 640 || h > 520 ? Math.min(640 / w, 520 / h) : zoom;
    [canvas.width, canvas.height] = [Math.round(w * s), Math.round(h * s)];
    cross = corner = dragEnd = null;
    draw();
  }

  function repaint() {
    const next = new Image();
    next.onload = () => { painted = next; draw(); };
    next.src = model.get("picture");
  }

  function updateStatus() {
    waiting.forEach(clearTimeout);
    el.classList.remove("busy");
    status.textContent = model.get("status");
    status.classList.toggle("refused", status.textContent.includes("Not done:"));
  }

  function fillList() {
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const previous = focused && [[...list.children].indexOf(focused.closest("li")), focused.tagName];
    list.replaceChildren();
    model.get("objects").forEach((one, i) => {
      const row = make("li", list);
      const name = make("select", row, { ariaLabel: `Class of object ${i + 1}`, title: "Change the class" });
      model.get("classes").slice(1).forEach((text, k) => make("option", name, { value: k + 1, textContent: text }));
      name.value = one.label;
      name.onchange = () => send("relabel", { index: i, label: Number(name.value) });
      row.append(` ${one.pixels} pixels `);
      make("button", row, { type: "button", textContent: "remove", ariaLabel: `Remove object ${i + 1}`, onclick: () => send("remove", { index: i }) });
    });
    if (previous) (list.children[previous[0]]?.querySelector(previous[1]) || canvas).focus({ preventScroll: true });
    draw();
  }

  const pixelOf = (event) => {
    const area = canvas.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * model.get("width") - 0.5;
    const y = ((event.clientY - area.top) / area.height) * model.get("height") - 0.5;
    return [Math.max(-0.5, Math.min(x, model.get("width") - 0.5)), Math.max(-0.5, Math.min(y, model.get("height") - 0.5))];
  };
  let down = null;
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
    if (corner) send("draw_box", { corners: [...down.at, ...end] });
    else send("click", { x: end[0], y: end[1], positive: !event.shiftKey });
    down = corner = dragEnd = null;
    draw();
  });
  canvas.addEventListener("pointercancel", () => { down = corner = dragEnd = null; draw(); });

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  el.addEventListener("keydown", (event) => {
    const own = OWN[event.target.tagName]; // a button handles Space itself
    if (own === null || own?.includes(event.key)) return;
    const [w, h] = [model.get("width"), model.get("height")];
    const middle = [Math.floor(w / 2), Math.floor(h / 2)];
    const here = cross || middle;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const point = (positive) => { cross = here; send("click", { x: here[0], y: here[1], positive }); };
    const actions = {
      " ": () => point(true),
      n: () => point(false),
      b: () => {
        cross = here;
        if (corner) { send("draw_box", { corners: [...corner, ...here] }); corner = null; } else corner = here;
      },
      m: () => send("next_mask"),
      u: () => send("undo"),
      r: () => send("redo"),
      Enter: keep,
      Escape: () => { corner = null; send("clear"); },
      Delete: () => send("remove_last"),
      Backspace: () => send("remove_last"),
      ",": () => send("go", { by: -1 }),
      ".": () => send("go", { by: 1 }),
    };
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") send(event.shiftKey ? "redo" : "undo");
      else return;
    } else if (STEPS[key]) {
      const step = event.shiftKey ? 5 : 1;
      cross = cross
        ? [Math.max(0, Math.min(w - 1, cross[0] + step * STEPS[key][0])), Math.max(0, Math.min(h - 1, cross[1] + step * STEPS[key][1]))]
        : middle;
    } else if (/^[1-9]$/.test(key) && Number(key) <= label.options.length) label.value = key;
    else if (actions[key]) actions[key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  const download = (message) => {
    if (message.file === undefined || message.view !== view) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([message.text], { type: "application/octet-stream" }));
    link.download = message.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const listeners = {
    "msg:custom": download,
    "change:width": resize,
    "change:height": resize,
    "change:picture": repaint,
    "change:points": draw,
    "change:box": draw,
    "change:objects": fillList,
    "change:answered": updateStatus,
  };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  resize();
  repaint();
  fillList();
  updateStatus();
  return () => {
    waiting.forEach(clearTimeout);
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };
