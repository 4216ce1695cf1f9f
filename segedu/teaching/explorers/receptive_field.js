// The receptive field of a stack of layers, in one dimension and, as the number of paths, in two (chapter 3).

const NONE = "no layer";
const KINDS = { // kernel size K, stride S, padding P, dilation D
  [NONE]: null,
  "3x3": [3, 1, 1, 1], "3x3, stride 2": [3, 2, 1, 1], "3x3, dilation 2": [3, 1, 2, 2], "3x3, dilation 4": [3, 1, 4, 4],
  "7x7, stride 2": [7, 2, 3, 1], "1x1": [1, 1, 0, 1], "pooling 2x2": [2, 2, 0, 1],
};
const PIXELS = 48; // of the row that is drawn

const layer = (name, label, value) => ({ name, label, options: Object.keys(KINDS), value });
export const controls = [
  layer("first", "layer 1 (image)", "3x3"), layer("second", "layer 2", "pooling 2x2"), layer("third", "layer 3", "3x3"),
  layer("fourth", "layer 4", NONE), layer("fifth", "layer 5", NONE),
  { name: "output", label: "output pixel", min: 0, max: 47, step: 1, value: 9 },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);
const layers_of = (values) => ["first", "second", "third", "fourth", "fifth"].map((name) => KINDS[values[name]]).filter(Boolean);

// A stack covers the image as one convolution does. In a deep map, a step is `jump` image pixels wide.
function receptive_field(layers) {
  let [size, jump, padding] = [1, 1, 0];
  for (const [K, S, P, D] of layers) {
    size += D * (K - 1) * jump;
    padding += P * jump;
    jump *= S;
  }
  return { size, jump, padding };
}

// From the last map back to the image: the pixels on which the output depends, and the number of paths to each of them.
function trace(output, layers) {
  const maps = [new Map([[output, 1]])];
  for (const [K, S, P, D] of layers.slice().reverse()) {
    const below = new Map();
    for (const [u, count] of maps[maps.length - 1]) {
      for (const k of range(K)) below.set(u * S - P + D * k, (below.get(u * S - P + D * k) || 0) + count);
    }
    maps.push(below);
  }
  return maps.reverse(); // the image first
}

export function compute(values) {
  const layers = layers_of(values), fields = range(layers.length + 1).map((count) => receptive_field(layers.slice(0, count)));
  const { size, jump, padding } = fields[layers.length];
  const output = Math.min(values.output, Math.floor((PIXELS - 1) / jump)); // the output pixel lies above the row
  const maps = trace(output, layers), start = output * jump - padding;
  const paths = range(size).map((k) => maps[0].get(start + k) || 0);
  return { layers, fields, size, jump, padding, output, start, paths, used: paths.filter((count) => count > 0).length, maps: maps.map((map) => [...map.keys()].sort((a, b) => a - b)) };
}

function draw_rows(panel, { colours }, values, { layers, fields, maps, start, size }, set) {
  const names = ["first", "second", "third", "fourth", "fifth"].map((name) => values[name]).filter((name) => name !== NONE);
  maps.forEach((used, level) => {
    const { jump } = fields[level], marked = new Set(used), y = level * 1.6;
    const first = Math.floor(panel.xlim[0] / jump), last = Math.ceil(panel.xlim[1] / jump);
    for (let u = first; u < last; u++) {
      const outside = u < 0 || u * jump >= PIXELS, fill = marked.has(u) ? (level === maps.length - 1 ? colours.sky : colours.orange) : colours.paper;
      if (outside && !marked.has(u)) continue;
      panel.box(u * jump, y, (u + 1) * jump, y + 0.8, { fill, stroke: outside ? colours.red : colours.muted, width: outside ? 1.5 : 0.6, dash: outside ? "2 2" : undefined });
    }
    const name = level ? `after ${names[level - 1]}` : "image";
    panel.label(panel.margin.left + 5, panel.y(y + 0.8) - 4, `${name}: receptive field ${fields[level].size}, jump ${jump}`, { size: 11 });
  });
  panel.line([[start, -0.15], [start + size, -0.15]], { stroke: colours.red, width: 3 });
  const { jump } = fields[layers.length], top = layers.length * 1.6;
  const move = (x) => set({ output: Math.floor(x / jump) });
  panel.press(move, { drag: true });
  panel.handle("output", (Math.min(values.output, Math.floor((PIXELS - 1) / jump)) + 0.5) * jump, top + 0.4, { label: "output pixel", step: jump, on_move: move });
}

function draw_paths(panel, { colours }, { paths, size }) {
  const largest = Math.max(...paths);
  panel.image(size, size, (i, j) => {
    const share = (paths[i] * paths[j]) / largest ** 2;
    return paths[i] && paths[j] ? [250 - 240 * share, 225 - 180 * share, 120 - 25 * share] : [255, 255, 255];
  });
  panel.box(0, 0, size, size, { stroke: colours.red, width: 2, dash: "6 4" });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { layers, size, start } = result, rows = layers.length + 1;
  const xlim = [Math.min(0, start) - 0.5, Math.max(PIXELS, start + size) + 0.5];
  const row = figure.panel("row", { width: 425, height: 62 + 52 * rows, xlim, ylim: [-0.4, 1.6 * rows - 0.2], yticks: [], title: "One row of every map; click in the top row", xlabel: "position in the image (pixels)" });
  draw_rows(row, figure, values, result, set);
  draw_paths(figure.panel("paths", { width: 220, height: 250, xlim: [0, size], ylim: [size, 0], axes: false, equal: true, title: `Paths to ${size} x ${size} pixels` }), figure, result);
  figure.legend([
    ["chosen output pixel", { fill: colours.sky }], ["pixels on which it depends", { fill: colours.orange }], ["in the padding", { stroke: colours.red, dash: "2 2" }],
    ["receptive field", { stroke: colours.red }], ["few paths", { fill: "rgb(250, 225, 120)" }], ["many paths", { fill: "rgb(10, 45, 95)" }],
  ]);
}

export function describe(values, { layers, size, jump, padding, output, start, used }) {
  const holes = used < size ? ` Only ${used} of these ${size} positions are used.` : "";
  return `${layers.length} ${layers.length === 1 ? "layer" : "layers"}: receptive field ${size}, jump ${jump}, padding ${padding}. Output pixel ${output} depends on positions ` +
    `${output} · ${jump} − ${padding} = ${start} to ${start + size - 1} of the row.${holes}`;
}
