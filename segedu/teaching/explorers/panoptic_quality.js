// Split, merge and move segments: panoptic quality of a road with three cars (chapter 13).

const [ROWS, COLUMNS] = [12, 24];
const CARS = { 2: [3, 3], 3: [3, 13], 4: [8, 8] }; // ground-truth id: row and column of the top left pixel; id 1 is the road
const [HEIGHT, WIDTH] = [3, 8]; // of a car
const SPLIT = 5; // id of the second part of car 1
const NAMES = ["road", "car"];

export const controls = [
  { name: "split_column", label: "split car 1 after column", min: 0, max: 7, step: 1, value: 2 },
  { name: "merge", label: "merge cars 2 and 3", value: false },
  { name: "dx", label: "shift car 3 to the right", min: -8, max: 8, step: 1, value: 2 },
  { name: "dy", label: "shift car 3 down", min: -8, max: 1, step: 1, value: 0 },
];

function fill(map, [top, left], height, width, id) {
  for (let i = top; i < top + height; i++) for (let j = left; j < left + width; j++) map[i][j] = id;
}

const road = () => Array.from({ length: ROWS }, () => Array(COLUMNS).fill(1));

// Ids of the ground truth and of the prediction, pixel by pixel.
function scene({ split_column, merge, dx, dy }) {
  const target = road(), preds = road();
  for (const [id, [top, left]] of Object.entries(CARS)) {
    fill(target, [top, left], HEIGHT, WIDTH, Number(id));
    const moved = id === "4" ? [top + dy, left + dx] : [top, left];
    fill(preds, moved, HEIGHT, WIDTH, merge && id === "4" ? 3 : Number(id));
  }
  const [top, left] = CARS[2];
  if (split_column > 0) fill(preds, [top, left + split_column], HEIGHT, WIDTH - split_column, SPLIT);
  return { preds, target };
}

const ids = (map) => [...new Set(map.flat())].sort((a, b) => a - b);
const category = (id) => (id > 1 ? 1 : 0); // road or car

// Intersection and union in pixels of a predicted and a ground-truth segment.
function overlap(preds, target, p, g) {
  let both = 0, either = 0;
  for (let i = 0; i < ROWS; i++) {
    for (let j = 0; j < COLUMNS; j++) {
      both += preds[i][j] === p && target[i][j] === g ? 1 : 0;
      either += preds[i][j] === p || target[i][j] === g ? 1 : 0;
    }
  }
  return { both, either };
}

export function compute(values) {
  const { preds, target } = scene(values), matches = []; // [predicted id, ground-truth id, IoU]
  for (const p of ids(preds)) {
    for (const g of ids(target)) {
      const { both, either } = overlap(preds, target, p, g);
      if (category(p) === category(g) && 2 * both > either) matches.push([p, g, both / either]); // IoU above 1/2: at most one partner
    }
  }
  const per_class = { true_positive: [], false_positive: [], false_negative: [], pq: [], sq: [], rq: [] };
  for (const label of [0, 1]) {
    const matched = matches.filter(([p]) => category(p) === label), tp = matched.length;
    const fp = ids(preds).filter((id) => category(id) === label).length - tp, fn = ids(target).filter((id) => category(id) === label).length - tp;
    const sq = tp ? matched.reduce((sum, [, , iou]) => sum + iou, 0) / tp : 0, rq = tp / (tp + fp / 2 + fn / 2);
    const row = { true_positive: tp, false_positive: fp, false_negative: fn, pq: sq * rq, sq, rq };
    for (const [name, value] of Object.entries(row)) per_class[name].push(value);
  }
  return { preds, target, matches, per_class, pq: (per_class.pq[0] + per_class.pq[1]) / 2 };
}

// A path around the pixels of each segment: all edges between pixels with different ids.
function borders(panel, map, style) {
  let path = "";
  const point = (x, y) => `${panel.x(x).toFixed(1)} ${panel.y(y).toFixed(1)}`;
  for (let i = 0; i < ROWS; i++) {
    for (let j = 0; j < COLUMNS; j++) {
      if (j + 1 < COLUMNS && map[i][j] !== map[i][j + 1]) path += `M${point(j + 1, i)}L${point(j + 1, i + 1)}`;
      if (i + 1 < ROWS && map[i][j] !== map[i + 1][j]) path += `M${point(j, i + 1)}L${point(j + 1, i + 1)}`;
    }
  }
  panel.paint("path", { d: path }, style);
}

// Fill the pixels of each car, and write its number and, below that, its outcome (with the IoU where it was matched).
function draw_segments(panel, { colours }, map, outcome) {
  const fills = { 2: colours.sky, 3: colours.orange, 4: colours.green, [SPLIT]: colours.purple };
  for (const id of ids(map).filter((each) => each > 1)) {
    const pixels = map.flatMap((row, i) => row.flatMap((value, j) => (value === id ? [[i, j]] : [])));
    for (const [i, j] of pixels) if (map[i][j - 1] !== id) {
      let end = j;
      while (map[i][end] === id) end++;
      panel.box(j, i, end, i + 1, { fill: fills[id], opacity: 0.5 });
    }
    const [x, y] = [1, 0].map((axis) => pixels.reduce((sum, pixel) => sum + pixel[axis] + 0.5, 0) / pixels.length);
    panel.text(x, y, `${id - 1}`, { dy: -3, size: 12, weight: 600, halo: true });
    panel.text(x, y, outcome(id), { dy: 11, size: 12, weight: 600, halo: true });
  }
  panel.text(0.3, ROWS - 0.7, `road: ${outcome(1)}`, { anchor: "start", size: 12, weight: 600, halo: true });
  borders(panel, map, { stroke: colours.ink, width: 1.5 });
  panel.box(0, 0, COLUMNS, ROWS, { stroke: colours.muted, width: 2 });
}

function draw_bars(panel, { colours }, { per_class }) {
  const looks = { pq: { fill: colours.orange }, sq: { fill: colours.blue }, rq: { fill: colours.green } };
  NAMES.forEach((name, label) => {
    Object.entries(looks).forEach(([quality, style], k) => {
      const x = label + 0.5 + 0.27 * (k - 1), value = per_class[quality][label];
      panel.box(x - 0.12, 0, x + 0.12, value, style);
      panel.text(x, value, value.toFixed(2), { dy: -16, size: 11 });
      panel.text(x, value, quality.toUpperCase(), { dy: -4, size: 11, weight: 600 });
    });
    panel.text(label + 0.5, 0, name, { dy: 18, size: 13 });
  });
}

export function draw(figure, values, result, set) {
  const { per_class, matches } = result;
  const map = { width: 324, height: 300, xlim: [0, COLUMNS], ylim: [ROWS, 0], equal: true, axes: false };
  const truth = figure.panel("target", { ...map, title: "Ground truth" });
  draw_segments(truth, figure, result.target, (id) => (matches.some(([, g]) => g === id) ? "matched" : "FN"));
  const prediction = figure.panel("preds", { ...map, title: "Prediction: drag car 3 or the split of car 1" });
  draw_segments(prediction, figure, result.preds, (id) => {
    const found = matches.find(([p]) => p === id);
    return found ? `TP ${found[2].toFixed(2)}` : "FP";
  });
  const [row, column] = CARS[4];
  prediction.handle("car", column + values.dx + 0.7, row + values.dy + 0.7, {
    label: "car 3", step: 1, on_move: (x, y) => set({ dx: Math.round(x - column - 0.7), dy: Math.round(y - row - 0.7) }),
  });
  prediction.handle("split", CARS[2][1] + values.split_column, CARS[2][0], {
    label: "column of the split of car 1", step: 1, on_move: (x) => set({ split_column: Math.round(x - CARS[2][1]) }),
  });
  const bars = figure.panel("bars", { width: 324, height: 220, xlim: [0, 2], ylim: [-0.14, 1.2], axes: false,
    title: `Mean PQ ${result.pq.toFixed(4)}` });
  draw_bars(bars, figure, result);
  figure.legend(NAMES.map((name, k) => [
    `${name}: TP ${per_class.true_positive[k]}, FP ${per_class.false_positive[k]}, FN ${per_class.false_negative[k]}`,
    k ? { fill: figure.colours.sky, stroke: figure.colours.ink } : { fill: "none", stroke: figure.colours.ink },
  ]));
}

export function describe(values, { per_class, pq }) {
  const [of_road, of_car] = NAMES.map((name, k) => `${name}: TP ${per_class.true_positive[k]}, FP ${per_class.false_positive[k]}, ` +
    `FN ${per_class.false_negative[k]}, PQ ${per_class.pq[k].toFixed(3)} = SQ ${per_class.sq[k].toFixed(3)} x RQ ${per_class.rq[k].toFixed(3)}`);
  return `${of_road}; ${of_car}. The mean PQ of both classes is ${pq.toFixed(4)}.`;
}
