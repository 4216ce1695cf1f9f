// User interface of segedu.teaching.widgets.prompt_sam: a picture to click on, and SAM's masks beside it. Python runs SAM; the picture, the
// messages and the keys are those of sam_picture.js, which stands before this file.

const FIRST = "Click: this object. Shift+click, or click after you have pressed “Not this”: background. Drag: a box around the object.";
const COLOURS =
  "Yellow: SAM's masks. White outline in the small pictures: the object, or the clump of touching objects, that fits the mask better.";
const KEYS =
  "Keys, after you have clicked the image or reached it with Tab: the arrows move the cross (with Shift by 5 pixels), Enter or Space adds a " +
  "point at the cross (with Shift a point on the background), N switches “Not this” on and off, B sets one corner of a box and then the " +
  "opposite one, U or Ctrl+Z undoes the last step, Escape clears the prompts.";

function render({ model, el }) {
  el.classList.add("segedu-sam", "wide");
  const bar = make("div", el, { className: "bar" });
  const scene = make("select", bar, { title: "Scene", ariaLabel: "Scene" });
  model.get("scenes").forEach((name) => make("option", scene, { value: name, textContent: name }));
  scene.onchange = () => send("open", { name: scene.value });
  let negative = false;
  const setNegative = (value) => {
    negative = value;
    notThis.setAttribute("aria-pressed", String(negative));
  };
  const button = (name, title, action) => {
    const onclick = (event) => {
      action();
      if (event.detail) picture.canvas.focus({ preventScroll: true }); // after a mouse click the keys control the picture again
    };
    return make("button", bar, { type: "button", textContent: name, title, onclick });
  };
  const notThis = button("Not this", "Clicks mark the background while this is pressed (N)", () => setNegative(!negative));
  button("Undo", "Undo the last step (U)", () => send("undo"));
  const clear = () => {
    picture.cancel();
    setNegative(false);
    send("clear");
  };
  button("Clear", "Clear the prompts (Escape)", clear);
  make("div", el, { className: "first", textContent: FIRST });
  make("div", el, { className: "first", textContent: COLOURS });
  const row = make("div", el, { className: "sam-row" });
  const picture = makePicture(row, model, {
    label: "Image to segment. " + FIRST + " " + KEYS,
    widest: 480,
    highest: 400,
    point: (x, y, shift) => send("click", { x, y, positive: !shift && !negative }),
    box: (corners) => send("draw_box", { corners }),
  });
  const masks = make("div", row, { className: "sam-masks" });
  const status = make("div", el, { className: "status", role: "status" });
  status.setAttribute("aria-live", "polite");
  const help = make("details", el);
  make("summary", help, { textContent: "All keys" });
  make("p", help, { textContent: KEYS });
  const { send, answered, stop } = makeSender(model, el, status, () => ({ scene: model.get("scene") }));

  function fillMasks() {
    masks.replaceChildren();
    for (const { name, lines, picture: source, chosen } of model.get("masks")) {
      const figure = make("figure", masks, { className: chosen ? "chosen" : "" });
      make("img", figure, { src: source, alt: `The image with ${name} in yellow` });
      const caption = make("figcaption", figure);
      make("div", caption, { textContent: chosen ? `${name}: chosen` : name });
      for (const text of lines) make("div", caption, { textContent: text });
    }
  }
  const showScene = () => {
    scene.value = model.get("scene");
    setNegative(false);
  };

  takeKeys(el, (key, event) => {
    const point = () => { const [x, y] = picture.here(); send("click", { x, y, positive: !event.shiftKey && !negative }); };
    const actions = {
      " ": point,
      Enter: point,
      n: () => setNegative(!negative),
      u: () => send("undo"),
      Escape: clear,
    };
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z") return false;
      send("undo");
    } else if (actions[key]) actions[key]();
    else if (!picture.key(key, event.shiftKey)) return false;
    picture.draw();
  });
  const forget = follow(model, { ...picture.listeners, "change:masks": fillMasks, "change:scene": showScene, "change:answered": answered });
  showScene();
  fillMasks();
  answered();
  return () => { stop(); forget(); };
}

export default { render };
