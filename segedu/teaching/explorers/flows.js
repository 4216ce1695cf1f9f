// Cellpose's flows: pixels follow the flow of a label map until the pixels of each cell have met (chapter 9).

const [ROUND, TOUCHING, BENT] = ["round cells", "cells that touch", "a bent cell"];
const LAST_STEP = 80;
const [HEIGHT, WIDTH] = [48, 60];
const DISCS = { // y, x, radius; where two overlap, a pixel belongs to the disc whose edge is further away
  [ROUND]: [[15, 15, 10], [32, 40, 12], [11, 48, 7]],
  [TOUCHING]: [[18, 18, 12], [22, 37, 12], [37, 23, 9]],
};

export const controls = [
  { name: "step", label: "steps", min: 0, max: LAST_STEP, step: 1, value: 6 },
  { name: "scene", label: "scene", options: [ROUND, TOUCHING, BENT], value: TOUCHING },
  { name: "x", label: "x of the pixel", min: 0, max: WIDTH - 1, step: 1, value: 28 },
  { name: "y", label: "y of the pixel", min: 0, max: HEIGHT - 1, step: 1, value: 14 },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);
const zeros = (rows, columns) => range(rows).map(() => Array(columns).fill(0));

// The label of a pixel: 0 is background, cells are numbered from 1.
function label_at(scene, y, x) {
  if (scene === BENT) {
    const ring = Math.abs(Math.hypot(y - 24, x - 30) - 15), open = Math.abs(Math.atan2(y - 24, x - 30)) >= 2.2;
    const tips = Math.hypot(Math.abs(y - 24) - 15 * Math.sin(2.2), x - 30 - 15 * Math.cos(2.2));
    return (open ? tips : ring) < 5 ? 1 : 0;
  }
  const depth = DISCS[scene].map(([row, column, radius]) => radius - Math.hypot(y - row, x - column)), most = Math.max(...depth);
  return most > 0 ? depth.indexOf(most) + 1 : 0;
}

// Heat in one cell: each step adds 1 at the source and then replaces each pixel of the cell by the mean of its 3x3 window.
// Outside the cell, the heat is always 0.
function spread_heat(pixels, [y, x], steps) {
  let heat = zeros(HEIGHT, WIDTH), after = zeros(HEIGHT, WIDTH);
  for (let step = 0; step < steps; step++) {
    heat[y][x] += 1;
    for (const [i, j] of pixels) {
      const above = heat[i - 1], here = heat[i], below = heat[i + 1], cross = here[j] + above[j] + below[j] + here[j - 1] + here[j + 1];
      after[i][j] = (1 / 9) * (cross + above[j - 1] + above[j + 1] + below[j - 1] + below[j + 1]);
    }
    [heat, after] = [after, heat];
  }
  return heat;
}

// The flow of each pixel (dy, dx): the direction of length 1 in which heat from the middle of its cell increases.
function diffusion_flow(labels) {
  const dy = zeros(HEIGHT, WIDTH), dx = zeros(HEIGHT, WIDTH);
  for (const label of range(Math.max(...labels.flat())).map((k) => k + 1)) {
    const pixels = pixels_of(labels, (value) => value === label);
    const [mean_y, mean_x] = [0, 1].map((axis) => pixels.reduce((sum, pixel) => sum + pixel[axis], 0) / pixels.length);
    const far = pixels.map(([i, j]) => (i - mean_y) ** 2 + (j - mean_x) ** 2), source = pixels[far.indexOf(Math.min(...far))];
    const [rows, columns] = [0, 1].map((axis) => pixels.map((pixel) => pixel[axis])),
      side = (values) => Math.max(...values) - Math.min(...values) + 3;
    const heat = spread_heat(pixels, source, 2 * (side(rows) + side(columns))); // 2 (h + w + 4) steps
    for (const [i, j] of pixels) {
      const [gy, gx] = [heat[i + 1][j] - heat[i - 1][j], heat[i][j + 1] - heat[i][j - 1]], length = 1e-60 + Math.sqrt(gy ** 2 + gx ** 2);
      [dy[i][j], dx[i][j]] = [Math.fround(gy / length), Math.fround(gx / length)];
    }
  }
  return { dy, dx };
}

const pixels_of = (labels, chosen) => labels.flatMap((row, i) => row.flatMap((value, j) => (chosen(value) ? [[i, j]] : [])));

// One step along the flow, which is bilinear between pixels. Single precision (Math.fround) as in Cellpose, so that paths are equal
// to the last bit: near a sink, pixels jump to and fro, and the smallest difference would grow.
function advance({ dy, dx }, [y, x]) {
  const top = Math.floor(y), left = Math.floor(x), low = Math.min(top + 1, HEIGHT - 1), far = Math.min(left + 1, WIDTH - 1);
  const v = Math.fround(y - top), u = Math.fround(x - left);
  const between = (field) => field[top][left] * (1 - v) * (1 - u) + field[top][far] * (1 - v) * u +
    Math.fround(field[low][left] * v) * (1 - u) + Math.fround(Math.fround(field[low][far] * v) * u);
  const move = (position, change, last) => Math.min(last, Math.max(0, Math.fround(position + Math.fround(change))));
  return [move(y, between(dy), HEIGHT - 1), move(x, between(dx), WIDTH - 1)];
}

// How many pixels of the image hold at least one of the points.
const count_positions = (points) => new Set(points.map(([y, x]) => Math.floor(y) * WIDTH + Math.floor(x))).size;

const scenes = new Map();

// Labels, flow, pixels of cells, and the positions of all these pixels after 0 to 80 steps; computed once per scene.
function simulate(scene) {
  if (scenes.has(scene)) return scenes.get(scene);
  const labels = range(HEIGHT).map((i) => range(WIDTH).map((j) => label_at(scene, i, j))), flow = diffusion_flow(labels);
  const starts = pixels_of(labels, (value) => value > 0), positions = [starts];
  for (let step = 0; step < LAST_STEP; step++) positions.push(positions[step].map((point) => advance(flow, point)));
  scenes.set(scene, { labels, flow, starts, positions, counts: positions.map(count_positions) });
  return scenes.get(scene);
}

export function compute({ step, scene, x, y }) {
  const { labels, flow, positions, counts } = simulate(scene), path = [[y, x]];
  while (labels[y][x] > 0 && path.length <= step) path.push(advance(flow, path[path.length - 1])); // pixels of the background do not move
  return { labels, flow, ends: positions[step], counts, path };
}

function outlines(panel, labels, { colours }) {
  let path = "";
  for (let i = 0; i < HEIGHT; i++) {
    for (let j = 0; j < WIDTH; j++) {
      if (j + 1 < WIDTH && labels[i][j] !== labels[i][j + 1]) path += `M${panel.x(j + 0.5)} ${panel.y(i - 0.5)}V${panel.y(i + 0.5)}`;
      if (i + 1 < HEIGHT && labels[i][j] !== labels[i + 1][j]) path += `M${panel.x(j - 0.5)} ${panel.y(i + 0.5)}H${panel.x(j + 0.5)}`;
    }
  }
  panel.paint("path", { d: path }, { stroke: colours.ink, width: 1.2 });
}

// The arrow of every second pixel, in one path: a shaft and two short lines at its end.
function draw_flow(panel, figure, { x, y }, { labels, flow, path }, set) {
  outlines(panel, labels, figure);
  let arrows = "";
  for (const [i, j] of pixels_of(labels, (value) => value > 0).filter(([i, j]) => i % 2 === 0 && j % 2 === 0)) {
    const [dy, dx] = [flow.dy[i][j], flow.dx[i][j]], [ty, tx] = [i + 0.8 * dy, j + 0.8 * dx]; // tip
    const point = (px, py) => `${panel.x(px).toFixed(1)} ${panel.y(py).toFixed(1)}`;
    arrows += `M${point(j - 0.8 * dx, i - 0.8 * dy)}L${point(tx, ty)}`;
    const left = point(tx - 0.5 * dx - 0.4 * dy, ty - 0.5 * dy + 0.4 * dx), right = point(tx - 0.5 * dx + 0.4 * dy, ty - 0.5 * dy - 0.4 * dx);
    arrows += `M${left}L${point(tx, ty)}L${right}`;
  }
  panel.paint("path", { d: arrows }, { stroke: figure.colours.muted, width: 1 });
  panel.line(path.map(([py, px]) => [px, py]), { stroke: figure.colours.red, width: 2.5 });
  for (const [py, px] of path) panel.circle(px, py, 2.5, { fill: figure.colours.red });
  panel.handle("pixel", x, y, { label: "pixel", step: 1, on_move: (px, py) => set({ x: px, y: py }) });
}

function draw_points(panel, figure, { scene }, { labels, ends }) {
  outlines(panel, labels, figure);
  const { starts } = simulate(scene), colours = [figure.colours.blue, figure.colours.orange, figure.colours.green];
  for (const label of range(Math.max(...labels.flat())).map((k) => k + 1)) {
    const points = ends.filter((_, k) => labels[starts[k][0]][starts[k][1]] === label);
    const size = Math.min(9, 3 + 60 / count_positions(points)); // pixels that have met must stay visible
    const path = points.map(([y, x]) => `M${panel.x(x).toFixed(1)} ${panel.y(y).toFixed(1)}h0`).join("");
    const dots = panel.paint("path", { d: path }, { stroke: colours[label - 1], width: size });
    dots.setAttribute("stroke-linecap", label === 2 ? "square" : "round"); // squares for the second cell
  }
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function draw(figure, values, result, set) {
  const { colours } = figure, { counts } = result, { step } = values;
  const image = { width: 324, height: 350, axes: false, equal: true, xlim: [-0.5, WIDTH - 0.5], ylim: [HEIGHT - 0.5, -0.5] };
  draw_flow(figure.panel("flow", { ...image, title: "Flow: drag the pixel" }), figure, values, result, set);
  draw_points(figure.panel("points", { ...image, title: `All pixels of cells after ${plural(step, "step")}` }), figure, values, result);
  const curve = figure.panel("curve", {
    width: 324, height: 200, xlim: [0, LAST_STEP], ylim: [0, 3.2], title: `${result.ends.length} pixels at ${plural(counts[step], "position")}`,
    xlabel: "steps", ylabel: "log10 of the positions",
  });
  curve.line(counts.map((count, k) => [k, Math.log10(count)]), { stroke: colours.blue });
  curve.circle(step, Math.log10(counts[step]), 6, { fill: colours.ink });
  figure.legend([
    ["flow", { stroke: colours.muted }], ["path of the pixel", { stroke: colours.red }], ["border of a cell", { stroke: colours.ink }],
    ["different positions", { stroke: colours.blue }],
  ]);
}

export function describe({ step, scene, x, y }, { labels, ends, counts, path }) {
  const cells = Math.max(...labels.flat()), [py, px] = path[path.length - 1];
  const moved = labels[y][x] > 0
    ? `The pixel from x ${x}, y ${y} is now at x ${px.toFixed(1)}, y ${py.toFixed(1)}.`
    : `The pixel at x ${x}, y ${y} is background and does not move.`;
  return `Scene: ${scene}. After ${plural(step, "step")} along the flow, the ${ends.length} pixels of ${plural(cells, "cell")} lie at ` +
    `${plural(counts[step], "position")}. ${moved}`;
}
