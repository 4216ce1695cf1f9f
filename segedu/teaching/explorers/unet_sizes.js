// The U-Net: the size of every feature map, the crops of the skip connections, parameters and memory (chapter 6).

const [IN_CHANNELS, CLASSES] = [1, 2];
const MEBIBYTE = 2 ** 20;

export const controls = [
  { name: "size", label: "image size", min: 16, max: 700, step: 1, value: 572 },
  { name: "depth", label: "depth (poolings)", min: 1, max: 5, step: 1, value: 4 },
  { name: "base_channels", label: "channels at the top", options: [4, 8, 16, 32, 64], value: 64 },
  { name: "padding", label: "padded convolutions", value: false },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);

// Follow an image down and up again. Every 3x3 convolution without padding removes one pixel at each edge, so two per side.
function walk(size, { depth, base_channels, padding }) {
  const lost = padding ? 0 : 2, encoder = [], decoder = [];
  const block = (step, before) => ({ channels: base_channels * 2 ** step, before, middle: before - lost, after: before - 2 * lost });
  for (let step = 0; step <= depth; step++) {
    encoder.push(block(step, size));
    size = Math.floor((size - 2 * lost) / 2); // pooling
  }
  size = encoder[depth].after;
  for (let step = depth - 1; step >= 0; step--) {
    decoder.push(block(step, 2 * size)); // up-convolution
    size = 2 * size - 2 * lost;
  }
  return { encoder, decoder };
}

// The first pooling (from 1) whose input has an odd size; 0 if there is none; -1 if nothing remains of the image.
function first_problem(size, values) {
  const { encoder, decoder } = walk(size, values);
  const odd = encoder.slice(0, -1).findIndex(({ after }) => after > 0 && after % 2);
  if (odd >= 0) return odd + 1;
  return [...encoder, ...decoder].every(({ after }) => after > 0) ? 0 : -1;
}

// Weights and biases of a convolution
const convolution = (from, to, kernel = 3) => kernel * kernel * from * to + to;

function level_parameters(step, { depth, base_channels }) {
  const c = base_channels * 2 ** step, from = step ? c / 2 : IN_CHANNELS;
  const left = convolution(from, c) + convolution(c, c);
  if (step === depth) return left;
  const right = convolution(2 * c, c, 2) + convolution(2 * c, c) + convolution(c, c); // up-convolution, then two convolutions
  return left + right + (step ? 0 : convolution(c, CLASSES, 1));
}

// Values of all maps that training keeps for one image.
function level_activations(step, { encoder, decoder }) {
  const left = encoder[step], right = decoder[decoder.length - 1 - step], maps = ({ channels, middle, after }) => channels * (middle ** 2 + after ** 2);
  if (!right) return maps(left);
  const pooled = left.channels * (left.after / 2) ** 2, concatenated = 3 * right.channels * right.before ** 2; // and the up-convolution's output
  return maps(left) + maps(right) + pooled + concatenated + (step ? 0 : IN_CHANNELS * left.before ** 2 + CLASSES * right.after ** 2);
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

export function compute(values) {
  let legal = values.size;
  while (first_problem(legal, values) !== 0) legal += 1;
  const levels = walk(legal, values), steps = range(values.depth + 1);
  const parameters = steps.map((step) => level_parameters(step, values)), activations = steps.map((step) => level_activations(step, levels));
  return { legal, problem: first_problem(values.size, values), ...levels, parameters, activations, total_parameters: sum(parameters), total_activations: sum(activations) };
}

function draw_block(panel, colours, x, y, { channels, before, middle, after }) {
  panel.box(x - 1.55, y, x + 1.55, y + 0.56, { fill: colours.paper, stroke: colours.blue, width: 2 });
  panel.text(x, y + 0.19, `${channels} × ${after} × ${after}`, { weight: 600 });
  panel.text(x, y + 0.41, before === after ? `${before} stays ${after}` : `${before} → ${middle} → ${after}`, { size: 11 });
}

function draw_network(panel, { colours }, { depth }, { encoder, decoder }) {
  const LEFT = 1.65, RIGHT = 8.35, MIDDLE = 5;
  for (const step of range(depth)) {
    const left = encoder[step], right = decoder[depth - 1 - step], last = step === depth - 1;
    draw_block(panel, colours, LEFT, step, left);
    draw_block(panel, colours, RIGHT, step, right);
    panel.arrow(LEFT + 1.6, step + 0.28, RIGHT - 1.6, step + 0.28, { stroke: colours.muted, dash: "5 4" });
    const crop = left.after - right.before;
    panel.text(MIDDLE, step + 0.14, crop ? `crop ${left.after} to ${right.before}` : `copy ${left.after}`, { size: 11 });
    panel.text(MIDDLE, step + 0.44, crop ? `(${crop / 2} at each edge)` : "(no crop)", { size: 11, fill: colours.muted });
    panel.arrow(last ? LEFT + 1 : LEFT, step + 0.58, last ? MIDDLE - 0.8 : LEFT, step + 0.98, { stroke: colours.orange });
    panel.arrow(last ? MIDDLE + 0.8 : RIGHT, step + 0.98, last ? RIGHT - 1 : RIGHT, step + 0.58, { stroke: colours.green });
    panel.text(last ? LEFT + 0.3 : LEFT - 0.15, step + 0.78, `${left.after} / 2`, { size: 11, anchor: last ? "middle" : "end", fill: colours.orange });
    panel.text(last ? RIGHT - 0.3 : RIGHT + 0.15, step + 0.78, `2 · ${right.before / 2}`, { size: 11, anchor: last ? "middle" : "start", fill: colours.green });
  }
  draw_block(panel, colours, MIDDLE, depth, encoder[depth]);
}

function draw_shares(panel, { colours }, { parameters, activations, total_parameters, total_activations }) {
  parameters.forEach((count, step) => {
    panel.text(-0.02, step + 0.45, `level ${step}`, { anchor: "end", size: 11 });
    for (const [offset, share, fill] of [[0.08, count / total_parameters, colours.purple], [0.48, activations[step] / total_activations, colours.sky]]) {
      panel.box(0, step + offset, share, step + offset + 0.34, { fill });
      panel.text(share, step + offset + 0.17, `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`, { anchor: "start", dx: 4, size: 11 });
    }
  });
}

function draw_tile(panel, { colours }, { legal, decoder }) {
  const out = decoder[decoder.length - 1].after, border = (legal - out) / 2;
  panel.box(0, 0, legal, legal, { stroke: colours.orange, width: 2.5 });
  panel.box(border, border, border + out, border + out, { fill: colours.sky, opacity: 0.4 });
  panel.box(border, border, border + out, border + out, { stroke: colours.blue, width: 2.5, dash: "6 4" });
  panel.text(legal / 2, legal, `${legal} to ${out} pixels per side`, { size: 11, dy: 17 });
  panel.text(legal / 2, legal, border ? `${border} lost at each edge` : "no pixel lost", { size: 11, dy: 31 });
}

export function draw(figure, values, result) {
  const { colours } = figure, { depth } = values, rows = depth + 1;
  const network = figure.panel("network", { width: 400, height: 30 + 84 * rows, xlim: [0, 10], ylim: [rows - 0.35, -0.05], axes: false, title: `Channels × rows × columns, for ${result.legal} x ${result.legal} pixels` });
  draw_network(network, figure, values, result);
  const tile = figure.panel("tile", { width: 200, height: 250, xlim: [-0.02 * result.legal, 1.02 * result.legal], ylim: [1.22 * result.legal, -0.02 * result.legal], axes: false, equal: true, title: "Image and output" });
  draw_tile(tile, figure, result);
  draw_shares(figure.panel("shares", { width: 320, height: 40 + 40 * rows, xlim: [-0.22, 1.15], ylim: [rows, 0], axes: false, title: "Share of each level" }), figure, result);
  figure.legend([
    ["block of two convolutions", { fill: colours.paper, stroke: colours.blue }], ["pooling", { stroke: colours.orange }], ["up-convolution", { stroke: colours.green }],
    ["skip connection", { stroke: colours.muted, dash: "5 4" }], ["parameters (upper bar)", { fill: colours.purple }], ["feature maps (lower bar)", { fill: colours.sky }],
    ["image", { stroke: colours.orange }], ["output", { stroke: colours.blue, dash: "6 4" }],
  ]);
}

export function describe(values, { legal, problem, decoder, total_parameters, total_activations }) {
  const { size } = values, out = decoder[decoder.length - 1].after;
  const map = problem > 0 ? walk(size, values).encoder[problem - 1].after : 0;
  const reason = problem > 0 ? `pooling ${problem} would receive a map of ${map} pixels, an odd number` : "nothing would remain of the image";
  const verdict = problem ? `Size ${size} is not legal: ${reason}. The drawing shows the next legal size, ${legal}.` : `Size ${size} is legal.`;
  const memory = (4 * total_activations) / MEBIBYTE;
  return `${verdict} The output has ${out} pixels per side. ${total_parameters.toLocaleString("en-US")} parameters, ${memory.toFixed(memory > 20 ? 0 : 2)} MiB of feature maps per image.`;
}
