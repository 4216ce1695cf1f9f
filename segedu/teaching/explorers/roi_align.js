// A box that moves across a feature map: which values RoIPool and RoIAlign read, and what each of them returns (chapter 14).

const BOX = [18.8, 62.8, 57.2, 101.2]; // x1, y1, x2, y2 in pixels, before the shift: around a ball
const SIZE = 128; // side of the image in pixels
const BINS = 3;
const NUDGE = 0.3; // pixels: the further shift to the right for which each bin shows its change
// Brightness of the image, 32 x 32 bytes: each is the mean of 4 x 4 pixels, the feature map of stride 4.
const GREY =
  "Z2Npdn+FioeBdmxoaWVjYWJjZWRfW1pUTUhEQ0JCPT9iaHaHkpqdnJSHemVoZWFhYmZnaWBYWVVOSkVAPj0/P2FzhJejrbKvo5eHbGZkYmNjZ2VkXFhYVE1HR0NBPz1AZHmPoLHDx7+1" +
  "o49rZGRlZGdoYFtbVlVSTUtKR0RDPkBjeJSnvNDVzbyqjmhkaGZlZGJhXlhVWFZNSEhHREI8PmNrkKi80NbQvap5ZWZnZWhlXV1cWFdXVUtJREJCPTs/YFxxobLCysSyg11fX2JkY2Nd" +
  "XV1ZVFRRSkhHREFBPD5dXFtqiaCmlXBdW1xfYWFjYV5bXVlUUU5JSEdGRD48O11fYWFhX1xcYWFgXV1dX15bYF9eXFdUUUtJSURAPjw9XF5fYV9gW1tgYV5cW1tbXF5dXltZWVRRSUZL" +
  "RkE/Pz1bWFtcXV1bWVxcW11eXFlfXVtaW1hXU09ISUpDPj09PlZZWF1dXVxbXV5cW15cWlxcXVpYU1NUTktJSUVBP0A+VVZZXV5dXVxgYF1bWFpaV1lcWlZQTVROS0pHREBAPz9WVFha" +
  "XVpdXFpdW1pdWFlaW1hWU1JQT0tISEdDPz8/PldVVldaXVpaW1pZWl1VV1tcV1RUUlNPTEhHRkE/Pz4+VlhXV1dYXFtZWVZUVlVZXlxWVlZUUE5JSEdEQ0FAPj9ZV1dYV1hZWlpdYF9Z" +
  "WFhbWlZXWlRQTExIR0NFQ0A9O1ZdWlpZWlxaZG90dHNeU1haWVZUUE1NTEtHRkVCPDo8V1xeXVxYXGt3hImMiXxaWFdaVlFPUlFOTEpGRkRAP0FaXF9dWVtneoqXoaKckWdVV1lYU1VV" +
  "UlJRTUhEQkRHRV5dXF1bXnCFmqq1uq+gc1dYWFZbVFJUUU5OS0lIR0dEX15dXVtjepCkuszNvq10WVlYasB6UVJSUE5STE1MSkZgXVtbWmJ8lKm/0NDGqWJaXF230MZjVVNSUk9NUE9K" +
  "Sl5dXFtZW3mPo7jGxbuAXVtdW3S5iVtXVFNTUFFTVFBRX2FeXl1cY3+ZprGtf1lXal1aZp1rWVpbVldTVFRUVFViYl9gXl5dXGdvbFpWV3vMk2ys0a1ohMFuXFlYW1lZWmFiZGRiXVpZ" +
  "W1hUVlV4zc+5lszRz5vD2s1tXFxeYF9dZWVoZmNfX15dWFNRVme1u3Jhos2iaY/X0oBdX2NkZGVoZ2lnZmNjXlpXU1JZWn2CWllnl2VfX5uIZmVfYmlqa2diZWdlX11aWlVTVlpvubho" +
  "XpPBgV10xKhpY2NlZ2tqZmRjZmJeXFlXVFVWW33NzK2VztLJkMnk5oNhZWhoZmlnY2JiY2FhXlhYVldYWIrJiHnE0rqAvuOfZWdpamdqcA==";

export const controls = [
  { name: "x", label: "shift to the right", min: -8, max: 8, step: 0.1, value: 1 },
  { name: "y", label: "shift down", min: -8, max: 8, step: 0.1, value: 0 },
  { name: "stride", label: "stride of the map", options: [4, 8, 16], value: 8 },
  { name: "points", label: "RoIAlign: points per axis of a bin", min: 1, max: 4, step: 1, value: 2 },
  { name: "aligned", label: "RoIAlign: aligned", value: true },
  { name: "row", label: "thick bin: row", min: 0, max: 2, step: 1, value: 1 },
  { name: "column", label: "thick bin: column", min: 0, max: 2, step: 1, value: 0 },
];

const maps = new Map(); // stride -> feature map, computed once

// The feature map of a stride: the only feature is brightness, and each location has the mean of its pixels.
function features(stride) {
  if (maps.has(stride)) return maps.get(stride);
  const bytes = atob(GREY), side = stride / 4, length = SIZE / stride, map = [];
  for (let i = 0; i < length; i++) {
    map.push(Array(length).fill(0));
    for (let j = 0; j < length; j++) {
      for (let a = 0; a < side; a++) for (let b = 0; b < side; b++) map[i][j] += bytes.charCodeAt(32 * (i * side + a) + j * side + b) / 255 / side ** 2;
    }
  }
  maps.set(stride, map);
  return map;
}

// The box in locations of the feature map.
const box_on_map = (x, y, stride) => BOX.map((value, k) => (value + (k % 2 ? y : x)) / stride);

// First location and end of each RoIPool bin along one axis: both ends of the box and of the bins are rounded.
function pool_bins(start, end) {
  const [first, last] = [start, end].map((edge) => Math.floor(edge + 0.5));
  const side = (last - first + 1) / BINS; // the last location is inside
  return Array.from({ length: BINS }, (_, k) => [first + Math.floor(k * side), first + Math.ceil((k + 1) * side)]);
}

// RoIPool: the maximum of the locations of one bin.
function pool_value(map, [x1, y1, x2, y2], row, column) {
  const [top, bottom] = pool_bins(y1, y2)[row], [left, right] = pool_bins(x1, x2)[column];
  let best = -Infinity;
  for (let i = top; i < bottom; i++) for (let j = left; j < right; j++) best = Math.max(best, map[i][j]);
  return best;
}

// The value at a position between the centres of four locations, by bilinear interpolation; location 0 is at position 0.
function bilinear(map, x, y) {
  const last = map.length - 1, [px, py] = [x, y].map((value) => Math.min(Math.max(value, 0), last));
  const [j, i] = [Math.floor(px), Math.floor(py)], [right, down] = [px - j, py - i];
  const upper = map[i][j] * (1 - right) + map[i][Math.min(j + 1, last)] * right;
  const lower = map[Math.min(i + 1, last)][j] * (1 - right) + map[Math.min(i + 1, last)][Math.min(j + 1, last)] * right;
  return upper * (1 - down) + lower * down;
}

// Sampling points of RoIAlign in bin k along one axis.
function align_points(start, end, k, points) {
  const side = (end - start) / BINS;
  return Array.from({ length: points }, (_, p) => start + side * (k + (p + 0.5) / points));
}

// RoIAlign: the mean of the sampling points of one bin. `aligned` subtracts half a location, because the centre of location 0 is at 0.5.
function align_value(map, box, row, column, points, aligned) {
  const [x1, y1, x2, y2] = box.map((value) => value - (aligned ? 0.5 : 0));
  let sum = 0;
  for (const y of align_points(y1, y2, row, points)) for (const x of align_points(x1, x2, column, points)) sum += bilinear(map, x, y);
  return sum / points ** 2;
}

const grid = (value) => [0, 1, 2].map((row) => [0, 1, 2].map((column) => value(row, column)));

function values_at({ x, y, stride, points, aligned }) {
  const map = features(stride), box = box_on_map(x, y, stride);
  return {
    pool: grid((row, column) => pool_value(map, box, row, column)),
    align: grid((row, column) => align_value(map, box, row, column, points, aligned)),
  };
}

export function compute(values) {
  const here = values_at(values), nudged = values_at({ ...values, x: values.x + NUDGE });
  const change = (name) => grid((row, column) => nudged[name][row][column] - here[name][row][column]);
  return { ...here, pool_change: change("pool"), align_change: change("align") };
}

const largest = (change) => Math.max(...change.flat().map(Math.abs));

function draw_map(panel, { stride }) {
  const map = features(stride);
  const grey = (i, j) => Array(3).fill(Math.min(255, Math.max(0, (255 * (map[i][j] - 0.2)) / 0.65)));
  panel.image(map.length, map.length, grey);
}

function frame(panel, { colours }, [x1, y1, x2, y2]) { // visible on bright and on dark locations
  panel.box(x1, y1, x2, y2, { stroke: colours.paper, width: 4.5 });
  panel.box(x1, y1, x2, y2, { stroke: colours.ink, width: 2 });
}

function draw_pool(panel, figure, values, box) {
  draw_map(panel, values);
  const [columns, rows] = [pool_bins(box[0], box[2]), pool_bins(box[1], box[3])];
  grid((i, j) => { // inset, because neighbouring bins can share locations
    const inset = 0.08 + 0.1 * ((i + j) % 2), thick = i === values.row && j === values.column;
    panel.box(columns[j][0] + inset, rows[i][0] + inset, columns[j][1] - inset, rows[i][1] - inset, {
      stroke: figure.colours.orange, width: thick ? 5 : 2, dash: (i + j) % 2 ? undefined : "6 3",
    });
  });
  frame(panel, figure, box);
}

// Without `aligned`, the value of location 0 is taken to be at 0, so the points read half a location further to the lower right.
function draw_points(panel, figure, values, box) {
  draw_map(panel, values);
  const [x1, y1, x2, y2] = box.map((value) => value + (values.aligned ? 0 : 0.5)), { colours } = figure;
  const [width, height] = [(x2 - x1) / BINS, (y2 - y1) / BINS];
  grid((i, j) => {
    const thick = i === values.row && j === values.column;
    panel.box(x1 + j * width, y1 + i * height, x1 + (j + 1) * width, y1 + (i + 1) * height, { stroke: colours.sky, width: thick ? 5 : 1.5 });
    for (const y of align_points(y1, y2, i, values.points)) {
      for (const x of align_points(x1, x2, j, values.points)) panel.circle(x, y, 3.5, { fill: colours.blue, stroke: colours.paper, width: 1 });
    }
  });
  frame(panel, figure, box);
}

function draw_curve(panel, { colours }, values, { pool, align }) {
  const { row, column, stride } = values, map = features(stride);
  panel.box(values.x, 0, values.x + NUDGE, 1, { fill: colours.muted, opacity: 0.5 });
  const shifts = Array.from({ length: 331 }, (_, k) => -8 + 0.05 * k), box = (x) => box_on_map(x, values.y, stride);
  panel.line(shifts.map((x) => [x, pool_value(map, box(x), row, column)]), { stroke: colours.orange, width: 2.5 });
  panel.line(shifts.map((x) => [x, align_value(map, box(x), row, column, values.points, values.aligned)]),
    { stroke: colours.blue, dash: "7 4", width: 2.5 });
  panel.circle(values.x, pool[row][column], 5, { fill: colours.orange });
  panel.circle(values.x, align[row][column], 5, { fill: colours.blue });
}

function draw_values(panel, { colours }, values, here, change, colour) {
  grid((i, j) => {
    const thick = i === values.row && j === values.column;
    panel.box(j + 0.04, i + 0.04, j + 0.96, i + 0.96, { stroke: thick ? colour : colours.grid, width: thick ? 5 : 1.5 });
    panel.text(j + 0.5, i + 0.36, here[i][j].toFixed(2), { size: 14, weight: 600 });
    panel.text(j + 0.5, i + 0.7, `${change[i][j] >= 0 ? "+" : "−"}${Math.abs(change[i][j]).toFixed(3)}`,
      { size: 12, fill: Math.abs(change[i][j]) > 0.0005 ? colour : colours.muted });
  });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { stride } = values, box = box_on_map(values.x, values.y, stride), length = SIZE / stride;
  const small = { width: 214, height: 290, axes: false, equal: true };
  const image = figure.panel("image", { ...small, xlim: [0, length], ylim: [length, 0], title: `Drag the box (${length} x ${length})` });
  draw_map(image, values);
  frame(image, figure, box);
  const [cx, cy] = [(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2]; // the handle is at the centre of the box
  image.handle("box", (cx + values.x) / stride, (cy + values.y) / stride, {
    label: "box", step: 0.1 / stride, on_move: (x, y) => set({ x: x * stride - cx, y: y * stride - cy }),
  });
  const around = { ...small, xlim: [box[0] - 1.3, box[2] + 1.3], ylim: [box[3] + 1.3, box[1] - 1.3] };
  draw_pool(figure.panel("pool", { ...around, title: "RoIPool: locations of bins" }), figure, values, box);
  draw_points(figure.panel("align", { ...around, title: "RoIAlign: sampling points" }), figure, values, box);
  const curve = figure.panel("curve", {
    width: 214, height: 240, xlim: [-8, 8], ylim: [0.2, 0.9], title: "Value of the thick bin", xlabel: "shift (pixels)", ylabel: "value",
  });
  draw_curve(curve, figure, values, result);
  for (const [name, title, colour] of [["pool", "RoIPool", colours.orange], ["align", "RoIAlign", colours.blue]]) {
    const panel = figure.panel(`${name} values`, { ...small, height: 250, xlim: [0, 3], ylim: [3, 0], title: `${title}: value, change` });
    draw_values(panel, figure, values, result[name], result[`${name}_change`], colour);
  }
  figure.legend([
    ["box", { stroke: colours.ink }], ["RoIPool", { stroke: colours.orange }], ["RoIAlign", { stroke: colours.blue, dash: "7 4" }],
    [`the next ${NUDGE} pixels, to which the changes belong`, { fill: colours.muted }],
  ]);
}

export function describe({ x, y, stride }, { pool_change, align_change }) {
  return `The box is shifted by ${x} pixels to the right and by ${y} down, on a map of stride ${stride}. ${NUDGE} pixels further to the right, ` +
    `the values of RoIPool ` +
    `change by up to ${largest(pool_change).toFixed(3)}, those of RoIAlign by up to ${largest(align_change).toFixed(3)}.`;
}
