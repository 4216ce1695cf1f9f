// Matching predictions with objects: the cost of every pair, and three rules for choosing pairs (chapter 12).

const CLASSES = ["square", "circle", "nothing"];
const OBJECTS = [ // class, and the box as centre x, centre y, width, height, relative to the image
  { name: "A", label: 0, box: [0.3, 0.4, 0.2, 0.4] }, { name: "B", label: 0, box: [0.52, 0.4, 0.2, 0.4] },
  { name: "C", label: 1, box: [0.8, 0.65, 0.24, 0.3], inside: true }, // above this box, a prediction would cross its name
];
// Predictions 2 to 5; the first one is moved.
const OTHERS = [[0.19, 0.4, 0.2, 0.4], [0.76, 0.62, 0.26, 0.34], [0.86, 0.7, 0.2, 0.2], [0.45, 0.85, 0.3, 0.2]];
const PROBABILITIES = [[0.7, 0.1, 0.2], [0.1, 0.8, 0.1], [0.05, 0.75, 0.2], [0.2, 0.2, 0.6]]; // of CLASSES
const [CHEAPEST, GREEDY, LEAST] = ["per object", "greedy", "smallest total"];
const RULES = { [CHEAPEST]: "cheapest prediction per object", [GREEDY]: "cheapest pair first", [LEAST]: "smallest total cost" };

export const controls = [
  { name: "x", label: "x of prediction 1", min: 0.12, max: 0.88, step: 0.01, value: 0.38 },
  { name: "y", label: "y of prediction 1", min: 0.3, max: 0.8, step: 0.01, value: 0.4 },
  { name: "score", label: "its probability of \"square\"", min: 0, max: 1, step: 0.05, value: 0.8 },
  { name: "rule", label: "rule", options: [CHEAPEST, GREEDY, LEAST], value: CHEAPEST },
];

const corners = ([cx, cy, w, h]) => [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

function generalized_iou(a, b) {
  const inner = a.map((value, k) => (k < 2 ? Math.max : Math.min)(value, b[k])),
    outer = a.map((value, k) => (k < 2 ? Math.min : Math.max)(value, b[k]));
  const intersection = area(inner), union = area(a) + area(b) - intersection;
  return intersection / union - (area(outer) - union) / area(outer);
}

function predictions({ x, y, score }) {
  const rest = (1 - score) / 2;
  return { boxes: [[x, y, 0.2, 0.4], ...OTHERS], probabilities: [[score, rest, rest], ...PROBABILITIES] };
}

// DETR's cost of each prediction (row) for each object (column): -p + 5 |difference| - 2 GIoU.
function costs({ boxes, probabilities }) {
  return boxes.map((box, q) => OBJECTS.map((object) => {
    const l1 = box.reduce((sum, value, k) => sum + Math.abs(value - object.box[k]), 0);
    return -probabilities[q][object.label] + 5 * l1 - 2 * generalized_iou(corners(box), corners(object.box));
  }));
}

const column = (cost, n) => cost.map((row) => row[n]);

// Each object takes the prediction that is cheapest for it, even if another object took it too.
const cheapest = (cost) => OBJECTS.map((_, n) => column(cost, n).indexOf(Math.min(...column(cost, n))));

// Repeatedly choose the cheapest pair whose prediction and object are both free.
function greedy(cost) {
  const chosen = OBJECTS.map(() => null);
  while (chosen.includes(null)) {
    let best = null;
    cost.forEach((row, q) => row.forEach((value, n) => {
      if (chosen[n] === null && !chosen.includes(q) && (best === null || value < best.value)) best = { value, q, n };
    }));
    chosen[best.n] = best.q;
  }
  return chosen;
}

// Try every assignment of different predictions to the objects from `n` on, and return the cheapest: with 5 predictions and 3 objects
// there are 5 * 4 * 3 = 60. The Hungarian method gives the same result without trying them all.
function least(cost, n = 0, used = []) {
  if (n === OBJECTS.length) return { total: 0, chosen: [] };
  let best = { total: Infinity };
  for (let q = 0; q < cost.length; q++) {
    if (used.includes(q)) continue;
    const rest = least(cost, n + 1, [...used, q]), total = cost[q][n] + rest.total;
    if (total < best.total) best = { total, chosen: [q, ...rest.chosen] };
  }
  return best;
}

export function compute(values) {
  const cost = costs(predictions(values));
  const partners = { [CHEAPEST]: cheapest(cost), [GREEDY]: greedy(cost), [LEAST]: least(cost).chosen };
  const totals = Object.fromEntries(Object.entries(partners).map(([rule, chosen]) => [rule, chosen.reduce((sum, q, n) => sum + cost[q][n], 0)]));
  return { cost, chosen: partners[values.rule], totals };
}

const twice = (chosen) => chosen.find((q, n) => chosen.indexOf(q) !== n); // a prediction that two objects take

function draw_image(panel, { colours }, values, { chosen }, set) {
  const { boxes } = predictions(values);
  for (const { name, box } of OBJECTS) {
    panel.box(...corners(box), { fill: colours.sky, opacity: 0.2 });
    panel.box(...corners(box), { stroke: colours.blue, dash: "7 4", width: 2.5 });
  }
  boxes.forEach((box, q) => panel.box(...corners(box), { stroke: colours.ink, width: chosen.includes(q) ? 2.2 : 1 }));
  for (const { name, box, inside } of OBJECTS) {
    panel.text(box[0], box[1] - box[3] / 2, name, { dy: inside ? 16 : -6, fill: colours.blue, weight: 600, halo: true });
  }
  chosen.forEach((q, n) => {
    const [, , x2, y2] = corners(boxes[q]), [x, y] = OBJECTS[n].box;
    panel.line([[x2, y2], [x, y]], { stroke: colours.red, width: 3 });
    panel.circle(x, y, 5, { fill: colours.paper, stroke: colours.red, width: 2.5 });
  });
  boxes.forEach((box, q) => {
    const [, , x2, y2] = corners(box); // the names of the objects are above their boxes
    panel.circle(x2, y2, 9, { fill: colours.paper, stroke: colours.ink, width: 1 });
    panel.text(x2, y2, `${q + 1}`, { weight: 600 });
  });
  panel.handle("prediction", values.x, values.y, { label: "prediction 1", step: 0.01, on_move: (x, y) => set({ x, y }) });
}

function draw_matrix(panel, { colours }, { cost, chosen }) {
  OBJECTS.forEach(({ name, label }, n) => panel.text(n + 0.5, -0.35, `${name}: ${CLASSES[label]}`, { size: 12, weight: 600, fill: colours.blue }));
  cost.forEach((row, q) => {
    panel.text(-0.1, q + 0.5, `prediction ${q + 1}`, { anchor: "end" });
    row.forEach((value, n) => {
      panel.box(n + 0.03, q + 0.04, n + 0.97, q + 0.96, { fill: colours.sky, opacity: Math.min(0.8, Math.max(0, (4.5 - value) / 9)) });
      if (chosen[n] === q) panel.box(n + 0.05, q + 0.07, n + 0.95, q + 0.93, { stroke: colours.red, width: 3 });
      panel.text(n + 0.5, q + 0.5, value.toFixed(2), { size: 13, weight: chosen[n] === q ? 700 : 400 });
    });
  });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, conflict = twice(result.chosen);
  const image = figure.panel("image", {
    width: 324, height: 400, xlim: [0, 1], ylim: [1.02, 0.08], equal: true, xlabel: "x (relative to the image)", ylabel: "y",
    title: "Drag prediction 1 by its centre",
  });
  draw_image(image, figure, values, result, set);
  const sum = `Sum ${result.totals[values.rule].toFixed(2)}`;
  const title = conflict === undefined ? sum : `${sum}; no matching: ${conflict + 1} is taken twice`;
  draw_matrix(figure.panel("matrix", { width: 324, height: 320, xlim: [-1.15, 3.05], ylim: [5.1, -0.7], axes: false, title }), figure, result);
  figure.legend([
    ["object", { stroke: colours.blue, dash: "7 4" }], ["prediction", { stroke: colours.ink }], ["chosen pair", { stroke: colours.red }],
    ["lower cost: stronger", { fill: colours.sky }],
    ...[CHEAPEST, GREEDY, LEAST].map((rule) => [`${RULES[rule]}: ${result.totals[rule].toFixed(2)}`,
      { stroke: rule === values.rule ? colours.red : colours.grid }]),
  ]);
}

export function describe(values, { chosen, totals }) {
  const pairs = chosen.map((q, n) => `${OBJECTS[n].name} with prediction ${q + 1}`).join(", "), conflict = twice(chosen);
  const problem = conflict === undefined ? "" : ` Prediction ${conflict + 1} has two objects, so this is not a matching.`;
  return `Rule: ${RULES[values.rule]}. ${pairs}; sum of the costs ${totals[values.rule].toFixed(2)}.${problem} The smallest total cost of a ` +
    `matching is ${totals[LEAST].toFixed(2)}.`;
}
