// A predicted mask against a ground-truth mask: the four outcomes of a pixel and the metrics (chapter 4).

const [COLUMNS, ROWS] = [22, 14];
const [DISC, LINE, NOTHING] = ["disc", "thin line", "no object"];

export const controls = [
  { name: "object", label: "ground truth", options: [DISC, LINE, NOTHING], value: DISC },
  { name: "dx", label: "shift to the right", min: -8, max: 8, step: 1, value: 3 },
  { name: "dy", label: "shift downwards", min: -6, max: 6, step: 1, value: 0 },
  { name: "grow", label: "growth of the prediction", min: -6, max: 6, step: 1, value: 0 },
  { name: "margin", label: "background around it", min: 0, max: 8, step: 1, value: 0 },
  { name: "painted", label: "painted pixels", value: [], hidden: true }, // [column, row] of each pixel that was changed
];

const range = (from, to) => Array.from({ length: to - from }, (_, k) => from + k);

// Whether the centre of a pixel lies in the object, which is `grow` pixels thicker on each side.
function inside(object, x, y, grow) {
  const [dx, dy] = [x + 0.5 - COLUMNS / 2, y + 0.5 - ROWS / 2];
  if (object === NOTHING) return grow > 0 && dx * dx + dy * dy < grow * grow;
  if (object === DISC) return 4.5 + grow > 0 && dx * dx + dy * dy < (4.5 + grow) ** 2;
  return Math.abs(dx) < 7 + grow && Math.abs(dy) < 0.6 + grow; // two pixels thick
}

// The prediction is the ground truth, shifted and grown; a painted pixel has the opposite value.
const predicted = ({ object, dx, dy, grow, painted }, x, y) =>
  inside(object, x - dx, y - dy, grow) !== painted.some(([column, row]) => column === x && row === y);

export function compute(values) {
  const { margin } = values, count = { TP: 0, FP: 0, FN: 0, TN: 0 }, outcome = new Map();
  for (const y of range(-margin, ROWS + margin)) {
    for (const x of range(-margin, COLUMNS + margin)) {
      const truth = inside(values.object, x, y, 0), prediction = predicted(values, x, y);
      const name = prediction ? (truth ? "TP" : "FP") : truth ? "FN" : "TN";
      count[name] += 1;
      outcome.set(`${x} ${y}`, name);
    }
  }
  const { TP, FP, FN, TN } = count, ratio = (a, b, empty) => (b ? a / b : empty);
  return {
    ...count, outcome,
    iou: ratio(TP, TP + FP + FN, 1), dice: ratio(2 * TP, 2 * TP + FP + FN, 1), // two empty masks agree perfectly
    accuracy: (TP + TN) / (TP + FP + FN + TN),
    precision: ratio(TP, TP + FP, null), recall: ratio(TP, TP + FN, null), // 0/0: not defined
  };
}

function toggle(values, set, x, y, prediction) {
  if (predicted(values, x, y) === prediction) return;
  const others = values.painted.filter(([column, row]) => column !== x || row !== y);
  set({ painted: others.length < values.painted.length ? others : [...others, [x, y]] });
}

let brush = [COLUMNS / 2, 2]; // the pixel of the keyboard's handle
let painting = true; // whether the stroke in progress adds pixels or removes them

function draw_masks(panel, { colours }, values, result, set) {
  const fills = { TP: colours.green, FP: colours.orange, FN: colours.blue, TN: colours.paper };
  for (const [position, name] of result.outcome) {
    const [x, y] = position.split(" ").map(Number);
    panel.box(x, y, x + 1, y + 1, { fill: fills[name], stroke: colours.grid, width: 0.7 });
    if (name === "FP") panel.circle(x + 0.5, y + 0.5, 2, { fill: colours.paper });
    if (name === "FN") panel.line([[x + 0.2, y + 0.8], [x + 0.8, y + 0.2]], { stroke: colours.paper, width: 1.5 });
  }
  const { margin } = values;
  const all = (x, y) => x >= -margin && y >= -margin && x < COLUMNS + margin && y < ROWS + margin;
  panel.press((px, py, first) => {
    const [x, y] = [Math.floor(px), Math.floor(py)];
    if (!all(x, y)) return;
    brush = [x, y];
    if (first) painting = !predicted(values, x, y);
    toggle(values, set, x, y, painting);
  }, { drag: true });
  panel.handle("centre", COLUMNS / 2 + values.dx, ROWS / 2 + values.dy, {
    label: "centre of the prediction", on_move: (x, y) => set({ dx: x - COLUMNS / 2, dy: y - ROWS / 2 }),
  });
  panel.handle("brush", brush[0] + 0.5, brush[1] + 0.5, {
    label: "brush; Enter changes the pixel",
    on_move: (x, y) => { if (all(Math.floor(x), Math.floor(y))) { brush = [Math.floor(x), Math.floor(y)]; set({}); } },
    on_enter: () => toggle(values, set, ...brush, !predicted(values, ...brush)),
  });
}

function draw_bars(panel, { colours }, result) {
  const rows = [["IoU", result.iou, "TP / (TP + FP + FN)"], ["Dice", result.dice, "2 TP / (2 TP + FP + FN)"], ["accuracy", result.accuracy, "(TP + TN) / all"],
    ["precision", result.precision, "TP / (TP + FP)"], ["recall", result.recall, "TP / (TP + FN)"]];
  rows.forEach(([name, value, formula], k) => {
    panel.box(0, k + 0.45, 1, k + 0.8, { fill: colours.grid });
    if (value !== null) panel.box(0, k + 0.45, value, k + 0.8, { fill: k < 2 ? colours.purple : colours.muted });
    panel.text(0, k + 0.25, `${name} = ${formula}`, { anchor: "start" });
    panel.text(1, k + 0.25, value === null ? "0/0" : value.toFixed(3), { anchor: "end", weight: 600 });
  });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { margin } = values;
  const masks = figure.panel("masks", { width: 395, height: 320, xlim: [-margin, COLUMNS + margin], ylim: [ROWS + margin, -margin], axes: false, equal: true, title: "Click or drag to paint the prediction" });
  draw_masks(masks, figure, values, result, set);
  draw_bars(figure.panel("bars", { width: 250, height: 280, xlim: [-0.02, 1.02], ylim: [5, 0], axes: false, title: "Metrics" }), figure, result);
  figure.legend([
    [`TP, in both: ${result.TP}`, { fill: colours.green }], [`FP, only in the prediction: ${result.FP}`, { fill: colours.orange, symbol: "•" }],
    [`FN, only in the ground truth: ${result.FN}`, { fill: colours.blue, symbol: "/" }], [`TN, in neither: ${result.TN}`, { fill: colours.paper, stroke: colours.muted }],
  ]);
}

export function describe(values, { TP, FP, FN, TN, iou, dice, accuracy, precision, recall }) {
  const say = (value) => (value === null ? "not defined (0/0)" : value.toFixed(3));
  const empty = TP + FP + FN ? "" : " Both masks are empty, so IoU and Dice are 1 by definition.";
  return `TP ${TP}, FP ${FP}, FN ${FN}, TN ${TN}. IoU ${say(iou)}, Dice ${say(dice)}, accuracy ${say(accuracy)}, precision ${say(precision)}, recall ${say(recall)}.${empty}`;
}
