// Box deltas: the targets that turn an anchor into a box, and the box that deltas with an error decode to (chapter 11).

const ANCHORS = { "square, 16 x 16": [16, 16], "wide, 24 x 12": [24, 12], "tall, 12 x 24": [12, 24] }; // width and height
const CENTRE = [28, 22]; // x, y of the anchor
const [WIDTH, HEIGHT] = [64, 48]; // of the image, in pixels
const MAX_LOG_SCALE = Math.log(1000 / 16); // larger log factors are clamped, because early in training exp would overflow
const NAMES = ["tx", "ty", "tw", "th"];

export const controls = [
  { name: "x", label: "x of the object", min: 4, max: 60, step: 0.5, value: 34 },
  { name: "y", label: "y of the object", min: 4, max: 44, step: 0.5, value: 25 },
  { name: "width", label: "width of the object", min: 2, max: 48, step: 0.5, value: 28 },
  { name: "height", label: "height of the object", min: 2, max: 36, step: 0.5, value: 12 },
  { name: "anchor", label: "anchor", options: Object.keys(ANCHORS), value: "square, 16 x 16" },
  { name: "scale", label: "scale of the whole image", min: 0.25, max: 4, step: 0.25, value: 1 },
  { name: "error", label: "error of each predicted delta", min: -1, max: 1, step: 0.05, value: 0.1 },
];

const corners = (x, y, width, height) => [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
const centre_and_side = ([x1, y1, x2, y2]) => ({ centre: [(x1 + x2) / 2, (y1 + y2) / 2], side: [x2 - x1, y2 - y1] });
const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

function iou(a, b) {
  const intersection = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return intersection / (area(a) + area(b) - intersection);
}

// Shifts of the centre in units of the anchor's sides, and the logarithms of the factors of the sides.
function encode_box(box, anchor) {
  const target = centre_and_side(box), { centre, side } = centre_and_side(anchor);
  return [...[0, 1].map((axis) => (target.centre[axis] - centre[axis]) / side[axis]),
    ...[0, 1].map((axis) => Math.log(target.side[axis] / side[axis]))];
}

// The inverse: exp is always positive, so a decoded box never has a negative side.
function decode_box([tx, ty, tw, th], anchor) {
  const { centre, side } = centre_and_side(anchor), factor = (t) => Math.exp(Math.min(t, MAX_LOG_SCALE));
  return corners(centre[0] + tx * side[0], centre[1] + ty * side[1], side[0] * factor(tw), side[1] * factor(th));
}

const smooth_l1 = (difference) => (Math.abs(difference) < 1 ? difference ** 2 / 2 : Math.abs(difference) - 0.5);

export function compute({ x, y, width, height, anchor: name, scale, error }) {
  const box = corners(x, y, width, height).map((value) => scale * value), anchor = corners(...CENTRE, ...ANCHORS[name]).map((value) => scale * value);
  const deltas = encode_box(box, anchor), predicted = deltas.map((delta) => delta + error), decoded = decode_box(predicted, anchor);
  const pixels = decoded.reduce((sum, value, k) => sum + Math.abs(value - box[k]), 0); // L1 distance of the corners
  return { box, anchor, deltas, decoded, loss: NAMES.length * smooth_l1(error), pixels, iou: iou(box, decoded), anchor_iou: iou(box, anchor) };
}

function draw_boxes(panel, { colours }, { x, y, width, height, scale }, { box, anchor, decoded }, set) {
  const from = centre_and_side(anchor).centre, to = centre_and_side(box).centre;
  panel.box(...anchor, { stroke: colours.muted, width: 2.5, dash: "2 3" });
  panel.circle(...from, 4, { fill: colours.muted });
  panel.box(...decoded, { stroke: colours.red, dash: "7 4", width: 2.5 });
  panel.box(...box, { stroke: colours.blue, width: 2.5 });
  panel.arrow(...from, ...to, { stroke: colours.ink, width: 2 });
  panel.text(anchor[0], anchor[1], "anchor", { anchor: "start", dy: -4, fill: colours.muted, weight: 600, halo: true });
  panel.text(box[0], box[3], "object", { anchor: "start", dx: 3, dy: -5, fill: colours.blue, weight: 600, halo: true });
  panel.handle("centre", x * scale, y * scale, { label: "centre of the object", step: scale / 2,
    on_move: (px, py) => set({ x: px / scale, y: py / scale }) });
  panel.handle("corner", box[2], box[3], {
    label: "lower right corner of the object", step: scale / 2,
    on_move: (px, py) => set({ width: 2 * (px / scale - x), height: 2 * (py / scale - y) }),
  });
}

function draw_deltas(panel, { colours }, { error }, { deltas }) {
  panel.line([[0, 0], [5, 0]], { stroke: colours.muted, width: 1 });
  deltas.forEach((delta, k) => {
    panel.box(k + 0.62, 0, k + 0.98, delta, { fill: colours.blue });
    panel.box(k + 1.02, 0, k + 1.38, delta + error, { stroke: colours.red, dash: "5 3" });
    panel.text(k + 1, Math.max(delta, delta + error, 0), `${NAMES[k]} ${delta.toFixed(3)}`, { dy: -7, size: 12, weight: 600, halo: true });
  });
}

function draw_logarithm(panel, { colours }, { width, anchor, scale }, { deltas }) {
  const side = ANCHORS[anchor][0] * scale, widths = Array.from({ length: 95 }, (_, k) => scale * (1 + k / 2));
  panel.line([[0, 0], [scale * 48, 0]], { stroke: colours.muted, width: 1 });
  panel.line(widths.map((value) => [value, Math.log(value / side)]), { stroke: colours.blue });
  for (const value of [side / 2, side, 2 * side]) {
    panel.line([[value, -4], [value, Math.log(value / side)]], { stroke: colours.muted, width: 1, dash: "2 3" });
    panel.circle(value, Math.log(value / side), 3, { fill: colours.muted });
  }
  panel.circle(width * scale, deltas[2], 6, { fill: colours.ink });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { scale, anchor } = values, side = ANCHORS[anchor][0] * scale;
  const image = figure.panel("image", {
    width: 324, height: 340, equal: true, xlim: [0, WIDTH * scale], ylim: [HEIGHT * scale, 0], title: "Drag the object or its corner",
    xlabel: "x (pixels)", ylabel: "y (pixels)",
  });
  draw_boxes(image, figure, values, result, set);
  const deltas = figure.panel("deltas", { width: 324, height: 290, xlim: [0.4, 4.6], ylim: [-3.5, 3.5], title: "Deltas of the object",
    xlabel: "1: tx, 2: ty, 3: tw, 4: th", ylabel: "value" });
  draw_deltas(deltas, figure, values, result);
  const curve = figure.panel("curve", {
    width: 324, height: 220, xlim: [0, 48 * scale], ylim: [-2.6, 1.6], title: `Dotted: half, equal and twice ${side} pixels`,
    xlabel: "width of the object (pixels)", ylabel: "tw",
  });
  draw_logarithm(curve, figure, values, result);
  figure.legend([
    [`object, its deltas, and tw; IoU with the anchor ${result.anchor_iou.toFixed(2)}`, { stroke: colours.blue }],
    ["anchor", { stroke: colours.muted, dash: "2 3" }],
    [`decoded from deltas with the error: IoU ${result.iou.toFixed(2)}, L1 ${result.pixels.toFixed(1)} pixels`, { stroke: colours.red, dash: "7 4" }],
    [`smooth L1 of the four errors: ${result.loss.toFixed(3)}`, { fill: colours.grid }],
  ]);
}

export function describe({ scale, error }, { deltas, iou: overlap, pixels }) {
  const list = deltas.map((delta, k) => `${NAMES[k]} ${delta.toFixed(3)}`).join(", ");
  return `Deltas from the anchor to the object, at scale ${scale}: ${list}. If each predicted delta has the error ${error}, the decoded box has ` +
    `an IoU of ${overlap.toFixed(3)} ` +
    `with the object, and its four coordinates are off by ${pixels.toFixed(1)} pixels in total.`;
}
