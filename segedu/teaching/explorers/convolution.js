// Convolution: the size of the output, the input pixels of one output pixel, and its value (chapter 3).

const [VERTICAL, DIGITS] = ["dark left, bright right", "digits"];
const [ONES, DIFFERENCE] = ["all ones", "right minus left"];
const TAP = "color-mix(in srgb, var(--ex-orange) 45%, var(--ex-paper))";

export const controls = [
  { name: "size", label: "size H", min: 1, max: 10, step: 1, value: 7 },
  { name: "kernel_size", label: "kernel K", min: 1, max: 5, step: 1, value: 3 },
  { name: "stride", label: "stride S", min: 1, max: 4, step: 1, value: 2 },
  { name: "padding", label: "padding P", min: 0, max: 4, step: 1, value: 1 },
  { name: "dilation", label: "dilation D", min: 1, max: 3, step: 1, value: 1 },
  { name: "row", label: "output row", min: 0, max: 17, step: 1, value: 1 },
  { name: "column", label: "output column", min: 0, max: 17, step: 1, value: 2 },
  { name: "image", label: "input", options: [VERTICAL, DIGITS], value: DIGITS },
  { name: "kernel", label: "kernel weights", options: [ONES, DIFFERENCE], value: ONES },
];

// The value of an input pixel; zero in the padding.
function pixel(i, j, { size, image }) {
  if (i < 0 || j < 0 || i >= size || j >= size) return 0;
  return image === DIGITS ? (3 * i + 7 * j) % 10 : 2 * j < size ? 1 : 9;
}

// The weight of tap (u, v): 1, or the distance of its column from the middle of the kernel.
const weight = (u, v, { kernel_size, kernel }) => (kernel === ONES ? 1 : v - (kernel_size - 1) / 2);

const range = (count) => Array.from({ length: count }, (_, k) => k);

// Indices of the taps of output pixel `index` along one axis, counted from the first padded pixel.
const taps = (index, { kernel_size, stride, dilation }) => range(kernel_size).map((k) => index * stride + dilation * k);

// y[i, j] = sum of x[i S + u D - P, j S + v D - P] w[u, v]
function output_value(i, j, values) {
  const rows = taps(i, values), columns = taps(j, values);
  let sum = 0;
  rows.forEach((row, u) => columns.forEach((column, v) => { sum += weight(u, v, values) * pixel(row - values.padding, column - values.padding, values); }));
  return sum;
}

export function compute(values) {
  const { size, kernel_size, stride, padding, dilation } = values;
  const span = dilation * (kernel_size - 1) + 1, padded = size + 2 * padding;
  if (span > padded) return { out: 0, span, padded, row: 0, column: 0, rows: [], columns: [], unused: padded, output: [] }; // the kernel does not fit
  const out = Math.floor((padded - span) / stride) + 1;
  const row = Math.min(values.row, out - 1), column = Math.min(values.column, out - 1);
  const reached = new Set(range(out).flatMap((index) => taps(index, values)));
  return {
    out, span, padded, row, column, rows: taps(row, values), columns: taps(column, values), unused: padded - reached.size,
    output: range(out).map((i) => range(out).map((j) => output_value(i, j, values))),
  };
}

function draw_input(panel, colours, values, result) {
  const { padding, size } = values, reached = new Set(range(result.out).flatMap((index) => taps(index, values)));
  for (const i of range(result.padded)) {
    for (const j of range(result.padded)) {
      const outside = Math.min(i, j) < padding || Math.max(i, j) >= padding + size;
      const tap = result.rows.includes(i) && result.columns.includes(j);
      panel.box(j, i, j + 1, i + 1, { fill: tap ? TAP : colours.paper, stroke: outside ? colours.grid : colours.muted, width: 1, dash: outside ? "2 2" : undefined });
      if (!(reached.has(i) && reached.has(j))) panel.line([[j + 0.15, i + 0.15], [j + 0.85, i + 0.85]], { stroke: colours.red, width: 1.5 });
      panel.text(j + 0.5, i + 0.5, `${pixel(i - padding, j - padding, values)}`, { size: 11, fill: outside ? colours.muted : colours.ink });
    }
  }
  panel.box(padding, padding, padding + size, padding + size, { stroke: colours.ink, width: 2 });
  if (result.out) panel.box(result.columns[0], result.rows[0], result.columns[0] + result.span, result.rows[0] + result.span, { stroke: colours.red, width: 3 });
}

function draw_output(panel, colours, result, set) {
  const { out, output } = result;
  for (const i of range(out)) {
    for (const j of range(out)) {
      const chosen = i === result.row && j === result.column;
      panel.box(j, i, j + 1, i + 1, { fill: chosen ? colours.sky : colours.paper, stroke: colours.muted, width: 1 });
      if (chosen) panel.box(j + 0.06, i + 0.06, j + 0.94, i + 0.94, { stroke: colours.blue, width: 2.5 });
      panel.text(j + 0.5, i + 0.5, `${output[i][j]}`.replace("-", "−"), { size: 11, fill: chosen ? "#1b1b1b" : colours.ink });
    }
  }
  if (!out) panel.text(5, 5, "The kernel does not fit.", { size: 14 });
  panel.press((x, y) => { if (out && x >= 0 && y >= 0 && x < out && y < out) set({ row: Math.floor(y), column: Math.floor(x) }); }, { drag: true });
}

// Limits that put a grid of `count` cells into the middle of a panel for `cells`.
const middle = (count, cells) => [(count - cells) / 2 - 0.1, (count + cells) / 2 + 0.1];

export function draw(figure, values, result, set) {
  const { colours } = figure, cells = Math.max(result.padded, result.out || 10);
  const grid = (count) => ({ width: 322, height: 344, xlim: middle(count, cells), ylim: middle(count, cells).reverse(), axes: false, equal: true });
  const what = values.padding ? "Input with its padding" : "Input";
  draw_input(figure.panel("input", { ...grid(result.padded), title: `${what}: ${result.padded} x ${result.padded}` }), colours, values, result);
  draw_output(figure.panel("output", { ...grid(result.out || 10), title: `Output: ${result.out} x ${result.out}; click a pixel` }), colours, result, set);
  figure.legend([
    ["chosen output pixel", { fill: colours.sky, stroke: colours.blue }], ["taps: its input pixels", { fill: TAP }],
    ["span of the kernel", { stroke: colours.red }], ["image", { stroke: colours.ink }], ["padding with zeros", { stroke: colours.muted, dash: "2 2" }],
    ["not used", { fill: colours.paper, stroke: colours.muted, symbol: "\\" }],
  ]);
}

export function describe(values, { out, span, padded, row, column, unused, output }) {
  const { size, kernel_size, stride, padding, dilation } = values;
  if (!out) return `There is no output: the kernel spans ${dilation} · (${kernel_size} − 1) + 1 = ${span} pixels, and the padded input has only ${padded}.`;
  const left = unused ? ` ${unused} of ${padded} padded rows and columns are not used.` : " Every padded row and column is used.";
  return `floor((${size} + 2 · ${padding} − ${dilation} · (${kernel_size} − 1) − 1) / ${stride}) + 1 = floor(${padded - span} / ${stride}) + 1 = ${out}.` +
    ` Output pixel (${row}, ${column}) depends on ${kernel_size} x ${kernel_size} pixels within ${span} x ${span}; its value is ${output[row][column]}.${left}`;
}
