// Transposed convolution: where one input pixel adds its patch, the sum of all patches, and their overlap (chapter 3).

const [ALL_ONES, DIGITS] = ["all ones", "1, 2, 3, …"];
const [ONES, BILINEAR] = ["all ones", "bilinear"];
const [VALUES, COUNTS] = ["values", "number of patches"];
const NARROW = 22; // pixels: narrower cells show no number with two decimals
const LIGHT = 52; // percent of sky: above it a cell is light on a dark page too, and its number has to be dark

export const controls = [
  { name: "size", label: "size H", min: 1, max: 5, step: 1, value: 4 },
  { name: "kernel_size", label: "kernel K", min: 1, max: 5, step: 1, value: 3 },
  { name: "stride", label: "stride S", min: 1, max: 3, step: 1, value: 2 },
  { name: "padding", label: "padding P", min: 0, max: 3, step: 1, value: 0 },
  { name: "output_padding", label: "output padding OP", min: 0, max: 2, step: 1, value: 0 },
  { name: "dilation", label: "dilation D", min: 1, max: 2, step: 1, value: 1 },
  { name: "row", label: "input row", min: 0, max: 4, step: 1, value: 0 },
  { name: "column", label: "input column", min: 0, max: 4, step: 1, value: 1 },
  { name: "image", label: "input", options: [ALL_ONES, DIGITS], value: ALL_ONES },
  { name: "kernel", label: "kernel weights", options: [ONES, BILINEAR], value: ONES },
  { name: "show", label: "output cells show", options: [VALUES, COUNTS], value: VALUES },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);
const pixel = (i, j, { size, image }) => (image === DIGITS ? i * size + j + 1 : 1);

// The weights of the kernel along one axis; the kernel is the outer product of two such rows.
function weights({ kernel_size, kernel }) {
  const middle = (kernel_size - 1) / 2, half = Math.ceil(kernel_size / 2);
  return range(kernel_size).map((k) => (kernel === ONES ? 1 : 1 - Math.abs(k - middle) / half)); // bilinear, K = 4: (1, 3, 3, 1) / 4
}

// Positions to which input pixel `index` adds along one axis, counted from the first pixel before the border is cropped.
const patch = (index, { kernel_size, stride, dilation }) => range(kernel_size).map((k) => index * stride + dilation * k);

// Every input pixel adds its value times the kernel to the plane; the patches of neighbours are S pixels apart.
function scatter(values, length, value_of) {
  const w = weights(values), plane = range(length).map(() => new Array(length).fill(0));
  for (const i of range(values.size)) {
    for (const j of range(values.size)) {
      patch(i, values).forEach((row, u) => patch(j, values).forEach((column, v) => { plane[row][column] += value_of(i, j, w[u] * w[v]); }));
    }
  }
  return plane;
}

export function compute(values) {
  const { size, kernel_size, stride, padding, output_padding, dilation } = values;
  const out = (size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + 1 + output_padding;
  const row = Math.min(values.row, size - 1), column = Math.min(values.column, size - 1);
  const result = { out, row, column, rows: patch(row, values), columns: patch(column, values), span: dilation * (kernel_size - 1) + 1, output: [], counts: [] };
  // Output padding selects one of the sizes that the convolution maps to H, so it has to be smaller than S (or D).
  if (output_padding >= Math.max(stride, dilation) || out < 1) return { ...result, out: 0 };
  const plane = out + 2 * padding, crop = (grid) => grid.slice(padding, padding + out).map((line) => line.slice(padding, padding + out));
  const values_before = scatter(values, plane, (i, j, weight) => weight * pixel(i, j, values));
  const counts_before = scatter(values, plane, () => 1);
  return { ...result, plane, values_before, counts_before, output: crop(values_before), counts: crop(counts_before) };
}

const format = (value) => `${Number(value.toFixed(2))}`;

function draw_input(panel, colours, values, result, set) {
  for (const i of range(values.size)) {
    for (const j of range(values.size)) {
      const chosen = i === result.row && j === result.column;
      panel.box(j, i, j + 1, i + 1, { fill: chosen ? colours.sky : colours.paper, stroke: colours.muted, width: 1 });
      if (chosen) panel.box(j + 0.05, i + 0.05, j + 0.95, i + 0.95, { stroke: colours.blue, width: 2.5 });
      panel.text(j + 0.5, i + 0.5, `${pixel(i, j, values)}`, { size: 12, fill: chosen ? "#1b1b1b" : colours.ink });
    }
  }
  panel.press((x, y) => { if (Math.min(x, y) >= 0 && Math.max(x, y) < values.size) set({ row: Math.floor(y), column: Math.floor(x) }); }, { drag: true });
}

function draw_plane(panel, colours, values, result) {
  const grid = values.show === COUNTS ? result.counts_before : result.values_before, largest = Math.max(...grid.flat());
  const cell = Math.abs(panel.x(1) - panel.x(0)), wide = grid.flat().some((value) => format(value).length > 2);
  for (const i of range(result.plane)) {
    for (const j of range(result.plane)) {
      const cropped = Math.min(i, j) < values.padding || Math.max(i, j) >= values.padding + result.out;
      const percent = Math.round((90 * grid[i][j]) / largest), shade = `color-mix(in srgb, var(--ex-sky) ${percent}%, var(--ex-paper))`;
      const inside = result.rows.includes(i) && result.columns.includes(j);
      panel.box(j, i, j + 1, i + 1, { fill: shade, stroke: colours.muted, width: 0.7 });
      if (inside) panel.box(j + 0.1, i + 0.1, j + 0.9, i + 0.9, { stroke: colours.orange, width: 2.5 });
      if (cropped) panel.line([[j + 0.1, i + 0.9], [j + 0.9, i + 0.1]], { stroke: colours.red, width: 1.5 });
      if (!wide || cell >= NARROW) panel.text(j + 0.5, i + 0.5, format(grid[i][j]), { size: 11, fill: percent > LIGHT ? "#1b1b1b" : colours.ink });
    }
  }
  panel.box(values.padding, values.padding, values.padding + result.out, values.padding + result.out, { stroke: colours.ink, width: 2.5 });
}

const middle = (count, cells) => [(count - cells) / 2 - 0.1, (count + cells) / 2 + 0.1];

export function draw(figure, values, result, set) {
  const { colours } = figure, { size } = values, plane = result.plane || 6;
  const input = figure.panel("input", { width: 200, height: 220, xlim: middle(size, Math.max(size, 4)), ylim: middle(size, Math.max(size, 4)).reverse(), axes: false, equal: true, title: `Input: ${size} x ${size}; click` });
  draw_input(input, colours, values, result, set);
  const limits = { xlim: middle(plane, Math.max(plane, 6)), ylim: middle(plane, Math.max(plane, 6)).reverse() };
  const output = figure.panel("output", { width: 440, height: 460, ...limits, axes: false, equal: true, title: `Output: ${result.out} x ${result.out}` });
  if (result.out) draw_plane(output, colours, values, result);
  else output.text(3, 3, "There is no output.", { size: 14 });
  figure.legend([
    ["chosen input pixel", { fill: colours.sky, stroke: colours.blue }], ["its patch", { fill: colours.paper, stroke: colours.orange }],
    ["output", { stroke: colours.ink }], ["cropped", { fill: colours.paper, stroke: colours.muted, symbol: "/" }], [`stronger blue: larger ${values.show === COUNTS ? "number of patches" : "value"}`, { fill: colours.sky }],
  ]);
}

export function describe(values, result) {
  const { size, kernel_size, stride, padding, output_padding, dilation } = values;
  if (output_padding >= Math.max(stride, dilation)) return `Output padding ${output_padding} is not allowed here: it has to be smaller than the stride or the dilation, because it selects one of the ${stride} sizes that the convolution maps to ${size}.`;
  if (!result.out) return `There is no output: a padding of ${padding} crops everything.`;
  const counts = result.counts.flat(), [low, high] = [Math.min(...counts), Math.max(...counts)];
  const overlap = low === high ? `Exactly ${low} ${low === 1 ? "patch contributes" : "patches contribute"} to every output pixel.` : `From ${low} to ${high} patches contribute to an output pixel.`;
  return `(${size} − 1) · ${stride} − 2 · ${padding} + ${dilation} · (${kernel_size} − 1) + 1 + ${output_padding} = ${result.out}. Input pixel (${result.row}, ${result.column}) adds ` +
    `${kernel_size} x ${kernel_size} values within ${result.span} x ${result.span} pixels. ${overlap}`;
}
