// User interface of segedu.teaching.widgets.annotate. Python holds the state; this file turns keys and mouse events into messages and
// draws the result. The picture, the messages and the keys are those of sam_picture.js, which stands before this file.

const FIRST =
  "Click: this object. Shift+click: not this. Drag: a box. SAM's mask is yellow. Choose a class and press Keep. Save before you close the notebook.";
const KEYS =
  "Keys, after you have clicked the image or reached it with Tab: the arrows move the cross (with Shift by 5 pixels), Space adds a point on " +
  "the object at the cross, N a point on the background, B sets one corner of a box and then the opposite one, M shows SAM's next mask, " +
  "1 to 9 choose the class, Enter keeps the mask, Escape clears the prompts, U or Ctrl+Z undoes, R redoes, Delete removes the last object, " +
  "comma and full stop open the previous and the next image.";

function render({ model, el }) {
  el.classList.add("segedu-sam", "segedu-annotate");
  const bar = make("div", el, { className: "bar" });
  const label = make("select", bar, { title: "Class of the next object", ariaLabel: "Class of the next object" });
  model.get("classes").slice(1).forEach((name, i) => make("option", label, { value: i + 1, textContent: `${i + 1} ${name}` }));
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
  const picture = makePicture(el, model, {
    label: "Image to label. " + FIRST + " " + KEYS,
    widest: 640,
    highest: 520,
    point: (x, y, shift) => send("click", { x, y, positive: !shift }),
    box: (corners) => send("draw_box", { corners }),
    more: drawNumbers,
  });
  const { canvas } = picture;
  const status = make("div", el, { className: "status", role: "status" });
  status.setAttribute("aria-live", "polite");
  const list = make("ol", el, { className: "objects" });
  const help = make("details", el);
  make("summary", help, { textContent: "All keys" });
  make("p", help, { textContent: KEYS });
  const view = Math.random(); // the same tool may be shown twice: a file goes to the view that requested it
  const { send, answered, stop } = makeSender(model, el, status, () => ({ view, number: model.get("number") }));

  function drawNumbers(context, at) { // as in the list
    context.font = "bold 14px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    model.get("objects").forEach((one, i) => {
      const [px, py] = at(one.at);
      context.lineWidth = 4;
      context.strokeStyle = "#1b1b1b";
      context.strokeText(String(i + 1), px, py);
      context.fillStyle = "#ffffff";
      context.fillText(String(i + 1), px, py);
    });
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
    picture.draw();
  }

  takeKeys(el, (key, event) => {
    const point = (positive) => { const [x, y] = picture.here(); send("click", { x, y, positive }); };
    const actions = {
      " ": () => point(true),
      n: () => point(false),
      m: () => send("next_mask"),
      u: () => send("undo"),
      r: () => send("redo"),
      Enter: keep,
      Escape: () => { picture.cancel(); send("clear"); },
      Delete: () => send("remove_last"),
      Backspace: () => send("remove_last"),
      ",": () => send("go", { by: -1 }),
      ".": () => send("go", { by: 1 }),
    };
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z") return false;
      send(event.shiftKey ? "redo" : "undo");
    } else if (/^[1-9]$/.test(key) && Number(key) <= label.options.length) label.value = key;
    else if (actions[key]) actions[key]();
    else if (!picture.key(key, event.shiftKey)) return false;
    picture.draw();
  });
  const download = (message) => {
    if (message.file === undefined || message.view !== view) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([message.text], { type: "application/octet-stream" }));
    link.download = message.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const forget = follow(model, { "msg:custom": download, ...picture.listeners, "change:objects": fillList, "change:answered": answered });
  fillList();
  answered();
  return () => { stop(); forget(); };
}

export default { render };
