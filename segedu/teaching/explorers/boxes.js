// Two boxes: IoU, Dice, GIoU, and their gradients with respect to the moving box (chapter 4).

const FIXED = [8, 6, 16, 12]; // x1, y1, x2, y2
const [WIDTH, HEIGHT] = [32, 20]; // of the canvas, in pixels
const ARROW = 40; // pixels drawn for a gradient of 1 per pixel

export const controls = [
  { name: "x", label: "x of the centre", min: 2, max: 30, step: 0.5, value: 24 },
  { name: "y", label: "y of the centre", min: 2, max: 18, step: 0.5, value: 13 },
  { name: "width", label: "width", min: 2, max: 16, step: 1, value: 8 },
  { name: "height", label: "height", min: 2, max: 12, step: 1, value: 6 },
];

const corners = ({ x, y, width, height }) => [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

// The derivative of an area with respect to x1, y1, x2, y2 of `box`, where `free` says which of the four move with it.
function area_gradient([x1, y1, x2, y2], free) {
  const [w, h] = [x2 - x1, y2 - y1];
  if (w <= 0 || h <= 0) return [0, 0, 0, 0];
  return [-h, -w, h, w].map((value, k) => value * free[k]);
}

// Where two corners tie, half of the derivative belongs to each: PyTorch's rule for `maximum` and `minimum`.
const share = (mine, other, larger) => (mine === other ? 0.5 : (mine > other) === larger ? 1 : 0);

export function compute(values) {
  const box = corners(values);
  const inner = box.map((value, k) => (k < 2 ? Math.max : Math.min)(value, FIXED[k])); // the intersection
  const outer = box.map((value, k) => (k < 2 ? Math.min : Math.max)(value, FIXED[k])); // the enclosing box
  const intersection = area(inner), enclosing = area(outer);
  const union = area(box) + area(FIXED) - intersection;
  const iou = intersection / union;
  const d_box = area_gradient(box, [1, 1, 1, 1]);
  const d_inner = area_gradient(inner, box.map((value, k) => share(value, FIXED[k], k < 2)));
  const d_outer = area_gradient(outer, box.map((value, k) => share(value, FIXED[k], k >= 2)));
  const d_union = d_box.map((value, k) => value - d_inner[k]);
  const iou_gradient = d_inner.map((value, k) => value / union - (intersection * d_union[k]) / union ** 2);
  // GIoU = IoU - (enclosing - union) / enclosing = IoU - 1 + union / enclosing
  const giou_gradient = iou_gradient.map((value, k) => value + d_union[k] / enclosing - (union * d_outer[k]) / enclosing ** 2);
  return { iou, dice: (2 * iou) / (1 + iou), giou: iou - 1 + union / enclosing, iou_gradient, giou_gradient };
}

function draw_image(panel, { colours }, values, result, set) {
  const [x1, y1, x2, y2] = corners(values);
  panel.box(Math.min(x1, FIXED[0]), Math.min(y1, FIXED[1]), Math.max(x2, FIXED[2]), Math.max(y2, FIXED[3]), { stroke: colours.muted, dash: "2 4" });
  const inner = [Math.max(x1, FIXED[0]), Math.max(y1, FIXED[1]), Math.min(x2, FIXED[2]), Math.min(y2, FIXED[3])];
  if (area(inner) > 0 && inner[2] > inner[0]) panel.box(...inner, { fill: colours.sky, opacity: 0.45 });
  panel.box(...FIXED, { stroke: colours.ink });
  panel.box(x1, y1, x2, y2, { stroke: colours.blue, dash: "7 4" });
  for (const [gradient, colour, side] of [[result.giou_gradient, colours.purple, 0.35], [result.iou_gradient, colours.orange, -0.35]]) {
    for (const [x, y, dx, dy] of [[x1, y1, gradient[0], gradient[1]], [x2, y2, gradient[2], gradient[3]]]) {
      const length = Math.hypot(dx, dy) || 1, [sx, sy] = [(-side * dy) / length, (side * dx) / length]; // none hides another
      panel.arrow(x + sx, y + sy, x + sx + ARROW * dx, y + sy + ARROW * dy, { stroke: colour, width: 2.5 });
    }
  }
  panel.handle("centre", values.x, values.y, { label: "centre of the moving box", step: 0.5, on_move: (x, y) => set({ x, y }) });
  panel.handle("corner", x2, y2, {
    label: "lower right corner of the moving box", step: 1,
    on_move: (x, y) => set({ width: 2 * (x - values.x), height: 2 * (y - values.y) }),
  });
}

function draw_curves(panel, { colours }, values, result) {
  const xs = Array.from({ length: 129 }, (_, k) => (k * WIDTH) / 128);
  const along = xs.map((x) => compute({ ...values, x }));
  for (const [name, colour, dash] of [["iou", colours.orange], ["dice", colours.green, "7 4"], ["giou", colours.purple, "9 3 2 3"]]) {
    panel.line(xs.map((x, k) => [x, along[k][name]]), { stroke: colour, dash });
    panel.circle(values.x, result[name], 5, { fill: colour });
  }
  panel.line([[values.x, -1], [values.x, 1]], { stroke: colours.blue, width: 1, dash: "2 3" });
}

export function draw(figure, values, result, set) {
  const { colours } = figure;
  const image = figure.panel("image", { width: 420, height: 320, xlim: [0, WIDTH], ylim: [HEIGHT, 0], equal: true, title: "Drag the box or its corner", xlabel: "x (pixels)", ylabel: "y (pixels)" });
  draw_image(image, figure, values, result, set);
  const curves = figure.panel("curves", { width: 360, height: 320, xlim: [0, WIDTH], ylim: [-1, 1], title: "Measures along x", xlabel: "x of the centre (pixels)", ylabel: "value" });
  draw_curves(curves, figure, values, result);
  figure.legend([
    ["fixed box", { stroke: colours.ink }], ["moving box", { stroke: colours.blue, dash: "7 4" }], ["enclosing box", { stroke: colours.muted, dash: "2 4" }],
    [`IoU ${result.iou.toFixed(3)} and its gradient`, { stroke: colours.orange }], [`Dice ${result.dice.toFixed(3)}`, { stroke: colours.green, dash: "7 4" }],
    [`GIoU ${result.giou.toFixed(3)} and its gradient`, { stroke: colours.purple, dash: "9 3 2 3" }],
  ]);
}

export function describe(values, { iou, dice, giou, iou_gradient, giou_gradient }) {
  const overlap = iou > 0 ? "The boxes overlap." : "The boxes do not overlap: the gradient of IoU is zero, and only GIoU has arrows.";
  return `${overlap} IoU ${iou.toFixed(3)}, Dice ${dice.toFixed(3)}, GIoU ${giou.toFixed(3)}. Length of the gradient of IoU ` +
    `${Math.hypot(...iou_gradient).toFixed(3)}, of GIoU ${Math.hypot(...giou_gradient).toFixed(3)} per pixel.`;
}
