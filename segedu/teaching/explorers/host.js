// Shows an explorer: controls, a figure that follows them at once, and a sentence that describes it.
//
// An explorer is an ES module NAME.js with
//   controls      [{name, label, value, min, max, step}], [{name, label, value, options}] or [{name, label, value: true}];
//                 hidden: true for what only the figure changes, by a handle or a click
//   compute       (values) => result: numbers only, no drawing; equal to a function of `segedu`
//   draw          (figure, values, result, set): draws with the functions of `Figure` and `Panel` below;
//                 set({name: value}) changes controls, for handles that can be dragged
//   describe      (values, result) => one or two sentences for readers who do not see the figure
// It imports nothing, because a page on file:// can load a module only from a text (a blob URL).
//
// The same file serves a notebook (anywidget calls `render`) and the site (explorers.js calls `mount`).

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 44, right: 12, top: 26, bottom: 38 };
const BARE = { left: 4, right: 4, top: 26, bottom: 6 }; // of a panel without axes
export const COLOURS = {
  ink: "var(--ex-ink)", paper: "var(--ex-paper)", grid: "var(--ex-grid)", muted: "var(--ex-muted)",
  blue: "var(--ex-blue)", orange: "var(--ex-orange)", green: "var(--ex-green)", red: "var(--ex-red)",
  purple: "var(--ex-purple)", sky: "var(--ex-sky)", yellow: "var(--ex-yellow)",
};

function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (parent) parent.append(element);
  return element;
}

function draw_element(tag, parent, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

// "nice" positions of ticks between two values: at most `count` steps of 1, 2 or 5 times a power of ten
export function ticks(low, high, count = 5) {
  const [a, b] = [Math.min(low, high), Math.max(low, high)];
  const rough = (b - a) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let k = Math.ceil(a / step - 1e-9); k * step <= b + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(10)));
  return found;
}

// Several panels side by side; on a narrow screen one below the other, so that labels keep their size.
export class Figure {
  constructor(parent) {
    this.colours = COLOURS;
    this.element = make("div", parent, { className: "ex-panels" });
    this.key = make("ul", parent, { className: "ex-legend" });
    this.panels = new Map();
  }

  // The panel of this name, emptied. See `Panel` for the options.
  panel(name, options) {
    if (!this.panels.has(name)) this.panels.set(name, new Panel(this.element));
    const panel = this.panels.get(name);
    panel.begin(options);
    return panel;
  }

  // Names of colours and lines: [[label, {fill?, stroke?, dash?, symbol?, ink?}], ...]; a symbol is a letter upon the colour, in the colour `ink`
  legend(entries) {
    this.key.replaceChildren();
    for (const [label, style] of entries) {
      const item = make("li", this.key);
      const swatch = draw_element("svg", item, { width: 26, height: 14, "aria-hidden": "true" });
      if (style.fill) draw_element("rect", swatch, { x: 3, y: 2, width: 20, height: 10, fill: style.fill, stroke: style.stroke || "none" });
      else draw_element("line", swatch, { x1: 1, y1: 7, x2: 25, y2: 7, stroke: style.stroke, "stroke-width": 2.5, "stroke-dasharray": style.dash });
      if (style.symbol) {
        const letter = draw_element("text", swatch, { x: 13, y: 11, fill: style.ink || COLOURS.ink, "text-anchor": "middle", "font-size": 11 });
        letter.textContent = style.symbol;
      }
      make("span", item, { textContent: label });
    }
  }
}

// One drawing with axes in data coordinates.
export class Panel {
  constructor(parent) {
    this.svg = draw_element("svg", parent, { class: "ex-panel", role: "img" });
    this.content = draw_element("g", this.svg, {});
    this.handles = draw_element("g", this.svg, {});
    this.by_name = new Map();
    Panel.count = (Panel.count || 0) + 1;
    this.clip = `ex-clip-${Panel.count}`;
    const pressed = (event, first) => { if (this.on_press) this.on_press(...this.position(event), first); };
    this.svg.addEventListener("pointerdown", (event) => {
      if (!this.on_press || this.handles.contains(event.target)) return;
      if (this.drags) this.svg.setPointerCapture(event.pointerId);
      event.preventDefault();
      pressed(event, true);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (!this.svg.hasPointerCapture(event.pointerId)) return;
      const passed = event.getCoalescedEvents ? event.getCoalescedEvents() : []; // a quick stroke; not on every site
      for (const each of passed.length ? passed : [event]) pressed(each, false);
    });
  }

  // width, height in pixels; xlim, ylim [from, to] (ylim [H, 0] puts row 0 on top, as in an image); title, xlabel, ylabel;
  // axes: false leaves out ticks; xticks, yticks: [[value, text], ...] instead of round numbers;
  // equal: true makes one unit of x as long as one of y
  begin({ width = 360, height = 280, xlim, ylim, title = "", xlabel = "", ylabel = "", axes = true, xticks, yticks, equal = false }) {
    const margin = axes ? MARGIN : BARE;
    let [plot_width, plot_height] = [width - margin.left - margin.right, height - margin.top - margin.bottom];
    if (equal) {
      const scale = Math.min(plot_width / Math.abs(xlim[1] - xlim[0]), plot_height / Math.abs(ylim[1] - ylim[0]));
      plot_width = scale * Math.abs(xlim[1] - xlim[0]);
      plot_height = scale * Math.abs(ylim[1] - ylim[0]);
      height = plot_height + margin.top + margin.bottom;
    }
    Object.assign(this, { width, height, xlim, ylim, margin, plot_width, plot_height });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.style.setProperty("--ex-width", `${width}px`);
    this.svg.setAttribute("aria-label", title);
    this.content.replaceChildren();
    this.used = new Set();
    this.press(null);
    const clip = draw_element("clipPath", this.content, { id: this.clip });
    draw_element("rect", clip, { x: margin.left, y: margin.top, width: plot_width, height: plot_height });
    if (title) this.label(margin.left + plot_width / 2, 16, title, { anchor: "middle", size: 13, weight: 600 });
    if (axes) this.axes(xlabel, ylabel, xticks, yticks);
    this.marks = draw_element("g", this.content, { "clip-path": `url(#${this.clip})` });
  }

  x(value) { return this.margin.left + (this.plot_width * (value - this.xlim[0])) / (this.xlim[1] - this.xlim[0]); }
  y(value) { return this.margin.top + (this.plot_height * (this.ylim[1] - value)) / (this.ylim[1] - this.ylim[0]); }

  axes(xlabel, ylabel, xticks = ticks(...this.xlim).map((value) => [value, value]), yticks = ticks(...this.ylim).map((value) => [value, value])) {
    const { margin, plot_width, plot_height, content } = this, bottom = margin.top + plot_height;
    draw_element("rect", content, { x: margin.left, y: margin.top, width: plot_width, height: plot_height, fill: "none", stroke: COLOURS.muted });
    for (const [value, text] of xticks) {
      draw_element("line", content, { x1: this.x(value), x2: this.x(value), y1: bottom, y2: bottom + 4, stroke: COLOURS.muted });
      this.label(this.x(value), bottom + 16, `${text}`, { anchor: "middle", size: 11 });
    }
    for (const [value, text] of yticks) {
      draw_element("line", content, { x1: margin.left - 4, x2: margin.left, y1: this.y(value), y2: this.y(value), stroke: COLOURS.muted });
      this.label(margin.left - 7, this.y(value) + 4, `${text}`, { anchor: "end", size: 11 });
    }
    if (xlabel) this.label(margin.left + plot_width / 2, bottom + 32, xlabel, { anchor: "middle", size: 12 });
    if (ylabel) this.label(11, margin.top + plot_height / 2, ylabel, { anchor: "middle", size: 12, turned: true });
  }

  // Text at a position in pixels of the panel; `text` below takes data coordinates.
  label(px, py, string, { anchor = "start", size = 12, weight, fill = COLOURS.ink, turned = false } = {}) {
    const element = draw_element("text", this.content, {
      x: px, y: py, fill, "text-anchor": anchor, "font-size": size, "font-weight": weight,
      transform: turned ? `rotate(-90 ${px} ${py})` : undefined,
    });
    element.textContent = string;
    return element;
  }

  text(x, y, string, { dx = 0, dy = 4, halo = false, ...options } = {}) {
    const element = this.label(this.x(x) + dx, this.y(y) + dy, string, { anchor: "middle", ...options });
    if (halo) element.setAttribute("class", "ex-halo");
    return element;
  }

  paint(tag, attributes, { fill = "none", stroke = "none", width = 2, dash, opacity } = {}) {
    return draw_element(tag, this.marks, { ...attributes, fill, stroke, "stroke-width": width, "stroke-dasharray": dash, opacity });
  }

  // A rectangle between two corners.
  box(x1, y1, x2, y2, style) {
    const [left, right] = [this.x(x1), this.x(x2)].sort((a, b) => a - b), [top, bottom] = [this.y(y1), this.y(y2)].sort((a, b) => a - b);
    return this.paint("rect", { x: left, y: top, width: right - left, height: bottom - top }, style);
  }

  circle(x, y, radius, style) { return this.paint("circle", { cx: this.x(x), cy: this.y(y), r: radius }, style); }

  // A line through points [[x, y], ...]; closed: a polygon.
  line(points, style, closed = false) {
    const path = points.map(([x, y]) => `${this.x(x).toFixed(2)},${this.y(y).toFixed(2)}`).join(" ");
    return this.paint(closed ? "polygon" : "polyline", { points: path, "stroke-linejoin": "round" }, style);
  }

  arrow(x1, y1, x2, y2, style) {
    const [ax, ay, bx, by] = [this.x(x1), this.y(y1), this.x(x2), this.y(y2)], length = Math.hypot(bx - ax, by - ay);
    if (length < 0.5) return;
    const [ux, uy] = [(bx - ax) / length, (by - ay) / length], head = Math.min(8, length);
    const [cx, cy] = [bx - head * ux, by - head * uy];
    this.paint("line", { x1: ax, y1: ay, x2: cx, y2: cy }, style);
    const corners = [[bx, by], [cx - (head * uy) / 2, cy + (head * ux) / 2], [cx + (head * uy) / 2, cy - (head * ux) / 2]];
    this.paint("polygon", { points: corners.map((point) => point.join(",")).join(" ") }, { fill: style.stroke });
  }

  // An image of `rows` x `columns` pixels over the corners (x1, y1), (x2, y2): colour(row, column) gives [r, g, b] in 0 to 255.
  image(rows, columns, colour, [x1, y1, x2, y2] = [0, 0, columns, rows]) {
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const context = canvas.getContext("2d"), data = context.createImageData(columns, rows);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) data.data.set([...colour(i, j), 255].slice(0, 4), 4 * (i * columns + j));
    context.putImageData(data, 0, 0);
    const [left, top] = [Math.min(this.x(x1), this.x(x2)), Math.min(this.y(y1), this.y(y2))];
    return draw_element("image", this.marks, {
      x: left, y: top, width: Math.abs(this.x(x2) - this.x(x1)), height: Math.abs(this.y(y2) - this.y(y1)),
      href: canvas.toDataURL(), preserveAspectRatio: "none", style: "image-rendering: pixelated",
    });
  }

  // A click into the panel: on_press(x, y, first) gets its position in data coordinates. With drag, the function is called
  // again while the pointer moves, and then `first` is false. (A finger that moves up or down scrolls the page.) Readers with a keyboard need a control or a handle beside it.
  press(on_press, { drag = false } = {}) {
    Object.assign(this, { on_press, drags: drag });
    this.svg.classList.toggle("ex-press", Boolean(on_press));
  }

  // A point that can be dragged, and moved with the arrow keys: on_move(x, y) gets the new position in data coordinates.
  // on_enter, if given, is called for the Enter key and the space bar.
  handle(name, x, y, { label, step = 1, on_move, on_enter }) {
    this.used.add(name);
    let handle = this.by_name.get(name);
    if (!handle) {
      handle = draw_element("circle", this.handles, { r: 9, class: "ex-handle", tabindex: 0, role: "button" });
      this.by_name.set(name, handle);
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); handle.focus(); event.preventDefault(); });
      handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) handle.on_move(...this.position(event)); });
      handle.addEventListener("keydown", (event) => {
        if (handle.on_enter && (event.key === "Enter" || event.key === " ")) {
          event.preventDefault();
          handle.on_enter();
        }
        const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] || [0, 0];
        if (!dx && !dy) return;
        event.preventDefault();
        const up = this.ylim[1] > this.ylim[0] ? 1 : -1; // the up arrow moves up, also where y grows downwards
        handle.on_move(handle.data[0] + dx * handle.step, handle.data[1] + up * dy * handle.step);
      });
    }
    Object.assign(handle, { on_move, on_enter, step, data: [x, y] });
    handle.setAttribute("cx", this.x(x));
    handle.setAttribute("cy", this.y(y));
    handle.setAttribute("aria-label", `${label}: arrow keys or dragging move it; now at x ${Number(x.toFixed(2))}, y ${Number(y.toFixed(2))}`);
  }

  // Data coordinates of a pointer event.
  position(event) {
    const frame = this.svg.getBoundingClientRect(), scale = this.width / frame.width;
    const [px, py] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    return [
      this.xlim[0] + ((px - this.margin.left) / this.plot_width) * (this.xlim[1] - this.xlim[0]),
      this.ylim[1] - ((py - this.margin.top) / this.plot_height) * (this.ylim[1] - this.ylim[0]),
    ];
  }

  end() {
    for (const [name, handle] of this.by_name) {
      if (this.used.has(name)) continue;
      handle.remove();
      this.by_name.delete(name);
    }
  }
}

// Round and limit a value as the control's slider would.
export function snap(control, value) {
  const steps = Math.round((value - control.min) / control.step);
  return Number(Math.min(control.max, Math.max(control.min, control.min + steps * control.step)).toPrecision(10));
}

// One labelled control; `changed(value)` is called while a slider is dragged.
function add_control(parent, control, id, changed) {
  const row = make("div", parent, { className: "ex-control" });
  make("label", row, { htmlFor: id, textContent: control.label });
  if (control.options) {
    const select = make("select", row, { id });
    control.options.forEach((option, k) => make("option", select, { value: k, textContent: `${option}` }));
    select.addEventListener("change", () => changed(control.options[Number(select.value)]));
    return (value) => { select.value = control.options.indexOf(value); };
  }
  if (typeof control.value === "boolean") {
    const box = make("input", row, { id, type: "checkbox" });
    box.addEventListener("change", () => changed(box.checked));
    return (value) => { box.checked = value; };
  }
  const slider = make("input", row, { id, type: "range", min: control.min, max: control.max, step: control.step });
  const output = make("output", row, { htmlFor: id });
  slider.addEventListener("input", () => changed(Number(slider.value)));
  return (value) => { slider.value = value; output.textContent = Number(value.toPrecision(6)); };
}

// Put an explorer into `parent`. Returns {values, result, set}, for tests and for links that open a state.
export function mount(parent, explorer, start = {}) {
  parent.classList.add("ex");
  const initial = Object.fromEntries(explorer.controls.map((control) => [control.name, control.value]));
  const state = { values: { ...initial, ...start }, result: null };
  const form = make("div", parent, { className: "ex-controls", role: "group", ariaLabel: "Controls of the explorer" });
  const figure = new Figure(parent);
  const sentence = make("p", parent, { className: "ex-sentence", ariaLive: "polite" });
  mount.count = (mount.count || 0) + 1;
  const show = {};
  let speaking;

  const redraw = () => {
    state.result = explorer.compute(state.values);
    explorer.draw(figure, state.values, state.result, set);
    for (const panel of figure.panels.values()) panel.end();
    // otherwise JupyterLab would handle the arrow keys; it looks for the attribute at the element that has the focus
    parent.querySelectorAll("input, select, button, [tabindex]").forEach((each) => each.setAttribute("data-lm-suppress-shortcuts", "true"));
    clearTimeout(speaking); // a screen reader hears where a slider stops, not every position that it passes
    const text = explorer.describe(state.values, state.result);
    speaking = setTimeout(() => { sentence.textContent = text; }, sentence.textContent ? 300 : 0);
  };
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) {
      const control = explorer.controls.find((each) => each.name === name);
      state.values[name] = control.step ? snap(control, value) : value;
      show[name](state.values[name]);
    }
    redraw();
  };
  explorer.controls.forEach((control) => {
    if (control.hidden) return void (show[control.name] = () => {});
    const id = `ex-${mount.count}-${control.name}`;
    show[control.name] = add_control(form, control, id, (value) => set({ [control.name]: value }));
    show[control.name](state.values[control.name]);
  });
  const reset = make("button", form, { type: "button", className: "ex-reset", textContent: "Reset" });
  reset.addEventListener("click", () => set(initial));
  redraw();
  return Object.assign(state, { set });
}

// A module from its text, also on file://.
export function load(text) {
  return import(/* webpackIgnore: true */ URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
}

// What anywidget calls in a notebook.
export default {
  async render({ model, el }) {
    mount(el, await load(model.get("explorer")), model.get("start"));
  },
};
