// YOLO's grid: which cell is responsible for which object, and what its target is (chapter 12).

const SIZE = 64; // side of the image in pixels
// The objects in the order in which they are encoded: centre (x, y), width and height. The bus is moved.
const TREE = { name: "tree", x: 30, y: 27, width: 16, height: 36 }, BALL = { name: "ball", x: 13, y: 50, width: 14, height: 14 };
const BUS = { name: "bus", width: 34, height: 16 };
const ANCHORS = { tall: [36, 14], wide: [14, 36], square: [16, 16] }; // height and width
const [ONCE, EACH] = ["per cell (v1)", "per anchor (v2)"];

export const controls = [
  { name: "cells", label: "S, cells per side", min: 2, max: 13, step: 1, value: 3 },
  { name: "x", label: "x of the bus", min: 17, max: 47, step: 1, value: 40 },
  { name: "y", label: "y of the bus", min: 8, max: 56, step: 1, value: 38 },
  { name: "classes", label: "class scores", options: [ONCE, EACH], value: ONCE },
];

const objects = ({ x, y }) => [TREE, BALL, { ...BUS, x, y }];

// The anchor with the largest IoU with an object around the same centre.
function best_anchor({ width, height }) {
  const iou = Object.values(ANCHORS).map(([h, w]) => {
    const intersection = Math.min(w, width) * Math.min(h, height);
    return intersection / (w * h + width * height - intersection);
  });
  return iou.indexOf(Math.max(...iou));
}

// The slot of each object: its cell, its anchor, and whether no earlier object has the same slot.
function slots(list, cells, classes) {
  const occupied = new Set();
  return list.map((object) => {
    const [column, row] = [object.x, object.y].map((value) => Math.min(Math.floor((value / SIZE) * cells), cells - 1));
    const anchor = classes === EACH ? best_anchor(object) : null, key = `${row} ${column} ${anchor}`, kept = !occupied.has(key);
    occupied.add(key);
    return { row, column, anchor, kept };
  });
}

// The position of the centre within the cell, and the square roots of the sides relative to the image.
function coordinates(object, slot, cells) {
  return [(object.x / SIZE) * cells - slot.column, (object.y / SIZE) * cells - slot.row, Math.sqrt(object.width / SIZE),
    Math.sqrt(object.height / SIZE)];
}

const one_hot = (index) => [0, 1, 2].map((k) => (k === index ? 1 : 0));

// The target of the bus's cell: one row per box, and with shared class scores one row for these. null: undefined; "IoU": not known in advance.
function target_rows(list, placed, cells, classes) {
  const bus = placed[2], here = [0, 1, 2].filter((k) => placed[k].kept && placed[k].row === bus.row && placed[k].column === bus.column);
  if (classes === ONCE) {
    const values = coordinates(list[here[0]], placed[here[0]], cells);
    return [...Array(3).fill([...values, "IoU"]), one_hot(here[0])];
  }
  const rows = Object.keys(ANCHORS).map(() => [null, null, null, null, 0, null, null, null]);
  for (const k of here) {
    const [h, w] = Object.values(ANCHORS)[placed[k].anchor];
    const sides = [Math.log(list[k].width / w), Math.log(list[k].height / h)]; // relative to the anchor
    rows[placed[k].anchor] = [...coordinates(list[k], placed[k], cells).slice(0, 2), ...sides, "IoU", ...one_hot(k)];
  }
  return rows;
}

export function compute({ cells, classes, ...position }) {
  const list = objects(position), placed = slots(list, cells, classes);
  const depth = classes === ONCE ? 5 * 3 + 3 : 3 * (5 + 3); // three boxes and three classes
  return { slots: placed, coordinates: list.map((object, k) => coordinates(object, placed[k], cells)),
    rows: target_rows(list, placed, cells, classes), depth };
}

function draw_object(panel, { colours }, { name, x, y, width, height }, fill) {
  const [x1, y1, x2, y2] = [x - width / 2, y - height / 2, x + width / 2, y + height / 2],
    style = { fill, stroke: colours.ink, width: 1, opacity: 0.85 };
  if (name === "ball") return panel.circle(x, y, ((width / 2) * panel.plot_width) / SIZE, style);
  if (name === "bus") return panel.box(x1, y1, x2, y2, style);
  const crown = y1 + 0.75 * height; // a tree: a triangle on a trunk
  return panel.line([[x, y1], [x2, crown], [x + 2, crown], [x + 2, y2], [x - 2, y2], [x - 2, crown], [x1, crown]], style, true);
}

// The name stands on a plate above the right end of the box; inside it where the box reaches the upper border.
function name_object(panel, { colours }, { x, y, width, height }, text, fill) {
  const unit = SIZE / panel.plot_width, [plate_width, plate_height] = [(7 * text.length + 6) * unit, 16 * unit];
  const right = x + width / 2, top = y - height / 2, upper = top - (top < plate_height ? -unit : plate_height + unit);
  panel.box(right - plate_width, upper, right, upper + plate_height, { fill: colours.paper });
  panel.text(right, upper, text, { anchor: "end", dx: -3, dy: 12, weight: 600, fill });
}

function draw_image(panel, figure, values, result, set) {
  const { colours } = figure, side = SIZE / values.cells, list = objects(values), fills = [colours.green, colours.orange, colours.sky];
  result.slots.forEach(({ row, column, kept }, k) => {
    const cell = [column * side, row * side, (column + 1) * side, (row + 1) * side];
    panel.box(...cell, { fill: fills[k], opacity: 0.3 });
    if (kept) panel.box(...cell, { stroke: colours.ink, width: 3 });
  });
  for (let line = 0; line <= values.cells; line++) {
    panel.line([[line * side, 0], [line * side, SIZE]], { stroke: colours.muted, width: 1 });
    panel.line([[0, line * side], [SIZE, line * side]], { stroke: colours.muted, width: 1 });
  }
  list.forEach((object, k) => {
    const { kept } = result.slots[k], { x, y, width, height, name } = object, colour = kept ? colours.ink : colours.red;
    draw_object(panel, figure, object, fills[k]);
    panel.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, { stroke: colour, dash: kept ? undefined : "6 4", width: 2 });
    name_object(panel, figure, object, kept ? name : `${name}: lost`, colour);
    if (name !== "bus") panel.circle(x, y, 4.5, { fill: colours.ink, stroke: colours.paper, width: 1.5 });
  });
  panel.handle("bus", values.x, values.y, { label: "centre of the bus", step: 1, on_move: (x, y) => set({ x, y }) });
}

function draw_target(panel, { colours }, { classes }, { rows }) {
  const shared = classes === ONCE, fills = [colours.green, colours.orange, colours.sky];
  const heads = ["x", "y", ...(shared ? ["√w", "√h"] : ["log w", "log h"]), "conf.", "tree", "ball", "bus"];
  const names = shared ? ["box 1", "box 2", "box 3", "classes"] : Object.keys(ANCHORS);
  heads.forEach((head, j) => panel.text(j + 0.47, -0.25, head, { size: 11, weight: 600 }));
  rows.forEach((row, i) => {
    const first = shared && i === 3 ? 5 : 0; // the column of the first value
    panel.text(-0.1, i + 0.5, names[i], { anchor: "end" });
    row.forEach((value, k) => {
      const j = first + k, defined = value !== null && value !== 0;
      panel.box(j, i + 0.08, j + 0.94, i + 0.92, { stroke: colours.ink, width: 1, fill: defined ? (j < 5 ? colours.grid : fills[j - 5]) : "none" });
      const text = value === null ? "" : typeof value === "string" || Number.isInteger(value) ? `${value}` : value.toFixed(2);
      const filled = defined && j >= 5, on_fill = j === 7 ? "#1b1b1b" : colours.paper; // sky is light in both themes
      panel.text(j + 0.47, i + 0.5, text, { size: 12, weight: filled ? 700 : 400, fill: filled ? on_fill : colours.ink });
    });
  });
  const notes = shared
    ? ["The box with the largest IoU gets the target;", "the other two get only confidence 0."]
    : ["An object belongs to the anchor of the most", "similar shape. Empty: only confidence 0."];
  notes.forEach((note, line) => panel.text(0, rows.length + 0.5 + 0.5 * line, note, { anchor: "start", size: 12 }));
}

export function draw(figure, values, result, set) {
  const { colours } = figure, lost = objects(values).filter((_, k) => !result.slots[k].kept).map(({ name }) => name);
  const image = figure.panel("image", {
    width: 296, height: 400, xlim: [0, SIZE], ylim: [SIZE, 0], equal: true, xlabel: "x (pixels)", ylabel: "y (pixels)",
    title: lost.length ? `The ${lost[0]} is lost: its slot is occupied` : "Drag the bus: all have a slot",
  });
  draw_image(image, figure, values, result, set);
  const target = figure.panel("target", {
    width: 350, height: 250, xlim: [-1.15, 8.05], ylim: [5.4, -0.6], axes: false, title: `Target of the bus's cell: ${result.depth} values`,
  });
  draw_target(target, figure, values, result);
  figure.legend([
    ["cell of an object that is encoded", { fill: "none", stroke: colours.ink }], ["object that is lost", { stroke: colours.red, dash: "6 4" }],
    [`output: ${values.cells} x ${values.cells} x ${result.depth} = ${values.cells ** 2 * result.depth} values`, { fill: colours.grid }],
  ]);
}

export function describe(values, { slots: placed }) {
  const words = objects(values).map(({ name }, k) => {
    const { row, column, anchor, kept } = placed[k], shape = anchor === null ? "" : `, ${Object.keys(ANCHORS)[anchor]} anchor`;
    return `${name} in row ${row}, column ${column}${shape}${kept ? "" : " (lost, because the slot is occupied)"}`;
  });
  return `A grid of ${values.cells} x ${values.cells} cells, class scores ${values.classes}. The responsible cells: ${words.join("; ")}.`;
}
