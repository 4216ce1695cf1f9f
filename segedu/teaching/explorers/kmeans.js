// k-means of colour and position, step by step, from centres that the reader places (chapter 2).

const [ROWS, COLUMNS] = [24, 36];
const MOST_STEPS = 20, PLANE = 60; // cells per side of the plane of colours
const START = [[4, 3], [9, 4], [30, 20], [18, 20], [12, 12], [31, 12]]; // first centres (column, row)

const place = (name, label, max, value) => ({ name, label, min: 0, max, step: 1, value, hidden: true });
export const controls = [
  { name: "step", label: "step", min: 0, max: MOST_STEPS, step: 1, value: 0 },
  { name: "k", label: "clusters k", min: 2, max: 6, step: 1, value: 4 },
  { name: "position_weight", label: "position weight", min: 0, max: 2, step: 0.1, value: 0 },
  ...START.flatMap(([x, y], c) => [place(`x${c}`, `column of centre ${c + 1}`, COLUMNS - 1, x), place(`y${c}`, `row of centre ${c + 1}`, ROWS - 1, y)]),
];

const range = (count) => Array.from({ length: count }, (_, k) => k);

// A sky, a meadow that is brighter on the right, two red houses and a sun, with noise: [red, green, blue] from 0 to 1.
function draw_scene() {
  let state = 5;
  const noise = () => {
    state = (1109 * state + 12345) % 65536;
    return (0.12 * state) / 65536 - 0.06;
  };
  return range(ROWS * COLUMNS).map((k) => {
    const row = Math.floor(k / COLUMNS), column = k % COLUMNS;
    let colour = row < 13 ? [0.5, 0.7, 0.92] : [0.3 + (0.2 * column) / COLUMNS, 0.5 + (0.25 * column) / COLUMNS, 0.2];
    if ((row - 4) ** 2 + (column - 29) ** 2 < 9) colour = [0.94, 0.84, 0.4];
    if (row >= 9 && row < 17 && ((column >= 5 && column < 12) || (column >= 23 && column < 31))) colour = [0.78, 0.24, 0.2];
    return colour.map((value) => value + noise());
  });
}
const SCENE = draw_scene();

// The features of a pixel: its colour, and row and column. The longer side of the image counts as `position_weight`.
function features(position_weight) {
  const scale = position_weight / Math.max(ROWS, COLUMNS);
  return SCENE.map((colour, k) => [...colour, scale * Math.floor(k / COLUMNS), scale * (k % COLUMNS)]);
}

function squared_distance(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += (a[d] - b[d]) ** 2;
  return sum;
}

// First half of a step: every point gets the label of the nearest centre, the first of equally near ones.
const assign = (points, centres) => points.map((point) => {
  let nearest = 0, smallest = Infinity;
  centres.forEach((centre, c) => {
    const distance = squared_distance(point, centre);
    if (distance < smallest) [nearest, smallest] = [c, distance];
  });
  return nearest;
});

// Second half: every centre moves to the mean of its points; a centre without points stays.
function update(points, labels, centres) {
  return centres.map((centre, c) => {
    const mine = points.filter((_, i) => labels[i] === c);
    return mine.length ? centre.map((_, d) => mine.reduce((sum, point) => sum + point[d], 0) / mine.length) : centre;
  });
}

const inertia = (points, labels, centres) => points.reduce((sum, point, i) => sum + squared_distance(point, centres[labels[i]]), 0);

// Number of connected parts of the label map (4-neighbours).
function count_regions(labels) {
  const seen = new Array(labels.length).fill(false);
  let regions = 0;
  for (const start of range(labels.length)) {
    if (seen[start]) continue;
    regions += 1;
    const stack = [start];
    seen[start] = true;
    while (stack.length) {
      const k = stack.pop(), column = k % COLUMNS;
      const near = [k - COLUMNS, k + COLUMNS, column ? k - 1 : -1, column < COLUMNS - 1 ? k + 1 : -1];
      for (const next of near) {
        if (next < 0 || next >= labels.length || seen[next] || labels[next] !== labels[k]) continue;
        seen[next] = true;
        stack.push(next);
      }
    }
  }
  return regions;
}

export function compute(values) {
  const points = features(values.position_weight);
  let centres = range(values.k).map((c) => points[values[`y${c}`] * COLUMNS + values[`x${c}`]]);
  let labels = assign(points, centres);
  const steps = [{ centres, labels, inertia: inertia(points, labels, centres) }];
  while (steps.length <= MOST_STEPS) {
    centres = update(points, labels, centres);
    const next = assign(points, centres), same = next.every((label, i) => label === labels[i]);
    labels = next;
    steps.push({ centres, labels, inertia: inertia(points, labels, centres) });
    if (same) break; // nothing changes any more
  }
  const at = steps[Math.min(values.step, steps.length - 1)];
  return { ...at, steps, last: steps.length - 1, regions: count_regions(at.labels), sizes: range(values.k).map((c) => at.labels.filter((label) => label === c).length) };
}

const bytes = (colour) => colour.map((value) => Math.round(255 * Math.min(1, Math.max(0, value))));

function draw_image(panel, { colours }, values, set) {
  panel.image(ROWS, COLUMNS, (i, j) => bytes(SCENE[i * COLUMNS + j]));
  for (const c of range(values.k)) {
    const x = values[`x${c}`] + 0.5, y = values[`y${c}`] + 0.5;
    panel.handle(`centre ${c}`, x, y, { label: `first centre ${c + 1}`, on_move: (px, py) => set({ [`x${c}`]: Math.floor(px), [`y${c}`]: Math.floor(py), step: 0 }) });
    panel.text(x, y, `${c + 1}`, { dx: 14, halo: true, weight: 700 });
  }
}

function draw_clusters(panel, { colours }, { labels, centres }) {
  panel.image(ROWS, COLUMNS, (i, j) => bytes(centres[labels[i * COLUMNS + j]].slice(0, 3)));
  let path = ""; // the borders between clusters
  for (const k of range(ROWS * COLUMNS)) {
    const row = Math.floor(k / COLUMNS), column = k % COLUMNS, x = panel.x(column + 1), y = panel.y(row + 1);
    if (column < COLUMNS - 1 && labels[k] !== labels[k + 1]) path += `M${x} ${panel.y(row)}V${y}`;
    if (row < ROWS - 1 && labels[k] !== labels[k + COLUMNS]) path += `M${panel.x(column)} ${y}H${x}`;
  }
  panel.paint("path", { d: path }, { stroke: "#1b1b1b", width: 1.5 });
}

function draw_colours(panel, { colours }, values, { steps, last }) {
  const cells = new Map();
  for (const colour of SCENE) cells.set(`${Math.floor(PLANE * (1 - colour[2]))} ${Math.floor(PLANE * colour[0])}`, bytes(colour));
  panel.image(PLANE, PLANE, (i, j) => cells.get(`${i} ${j}`) || [0, 0, 0, 0], [0, 0, 1, 1]);
  const now = Math.min(values.step, last);
  for (const c of range(values.k)) {
    const path = steps.slice(0, now + 1).map(({ centres }) => [centres[c][0], centres[c][2]]);
    panel.line(path, { stroke: colours.ink, width: 1.5 });
    const [x, y] = path[now];
    panel.circle(x, y, 8, { fill: colours.paper, stroke: colours.ink, width: 2 });
    panel.text(x, y, `${c + 1}`, { weight: 700, size: 11 });
  }
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { steps, last } = result, now = Math.min(values.step, last);
  const map = { width: 322, height: 260, xlim: [0, COLUMNS], ylim: [ROWS, 0], axes: false, equal: true };
  draw_image(figure.panel("image", { ...map, title: "Image; drag the first centres" }), figure, values, set);
  draw_clusters(figure.panel("clusters", { ...map, title: `Step ${now}: ${result.regions} connected regions` }), figure, result);
  const plane = figure.panel("colours", { width: 322, height: 240, xlim: [0.1, 1.05], ylim: [0, 1.05], title: "Pixels and centres by colour", xlabel: "red", ylabel: "blue" });
  draw_colours(plane, figure, values, result);
  const top = 1.1 * steps[0].inertia;
  const curve = figure.panel("inertia", { width: 322, height: 240, xlim: [-0.4, last + 0.4], ylim: [0, top], xticks: range(last + 1).map((k) => [k, k]), title: "Inertia; click a step", xlabel: "step" });
  curve.line(steps.map((each, k) => [k, each.inertia]), { stroke: colours.purple, width: 2.5 });
  steps.forEach((each, k) => curve.circle(k, each.inertia, k === now ? 6 : 3, { fill: k === now ? colours.red : colours.purple }));
  curve.press((x) => set({ step: Math.round(x) }), { drag: true });
  figure.legend([
    ["border between clusters", { fill: "#d0d0d0", stroke: colours.muted, symbol: "|", ink: "#1b1b1b" }], ["path of a centre", { stroke: colours.ink }],
    ["inertia after each step", { stroke: colours.purple }], ["this step", { fill: colours.red }],
  ]);
}

export function describe(values, { steps, last, sizes, regions, inertia: now }) {
  const at = Math.min(values.step, last);
  const state = at === last ? (last < MOST_STEPS ? "no label changes any more" : "the last step shown") : "the next step changes labels";
  return `Step ${at} (${state}): inertia ${now.toFixed(2)}, first ${steps[0].inertia.toFixed(2)}. Sizes of the clusters: ${sizes.join(", ")} pixels, in ${regions} connected regions.`;
}
