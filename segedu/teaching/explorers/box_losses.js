// Gradient descent of one box with five losses: which of them reach the target (chapter 7).

const TARGET = [4, 4, 12, 10]; // x1, y1, x2, y2
const [WIDTH, HEIGHT] = [36, 24]; // of the canvas, in pixels
const STEPS = 600, RATE = 12; // of gradient descent; the step size decreases to 0
const L1_WEIGHT = 1 / 40;
const LOSSES = ["1 - IoU", "GIoU", "DIoU", "CIoU", "L1 / 40 + (1 - IoU)"];

export const controls = [
  { name: "step", label: "step", min: 0, max: STEPS, step: 5, value: 100 },
  { name: "x", label: "x of the first box", min: 4, max: 32, step: 0.5, value: 26 },
  { name: "y", label: "y of the first box", min: 4, max: 20, step: 0.5, value: 16 },
  { name: "width", label: "its width", min: 4, max: 16, step: 1, value: 8 },
  { name: "height", label: "its height", min: 4, max: 12, step: 1, value: 8 },
  { name: "aspect", label: "show CIoU", value: false },
];

const sides = ([x1, y1, x2, y2]) => [x2 - x1, y2 - y1];
const positive = (value) => Math.max(value, 0);
// The derivative of w h with respect to x1, y1, x2, y2, where `free` says which of the four move with the box.
const area_gradient = ([w, h], free) => [-h, -w, h, w].map((value, k) => (w > 0 && h > 0 ? value * free[k] : 0));
// Where two corners tie, half of the derivative belongs to each: PyTorch's rule for `maximum` and `minimum`.
const share = (mine, other, larger) => (mine === other ? 0.5 : (mine > other) === larger ? 1 : 0);
const quotient = (top, d_top, bottom, d_bottom) => d_top.map((value, k) => value / bottom - (top * d_bottom[k]) / bottom ** 2);

// [value, gradient] of every loss at a box.
function losses(box) {
  const inner = box.map((value, k) => (k < 2 ? Math.max : Math.min)(value, TARGET[k])); // the intersection
  const outer = box.map((value, k) => (k < 2 ? Math.min : Math.max)(value, TARGET[k])); // the enclosing box
  const [w, h] = sides(box), [target_w, target_h] = sides(TARGET), [overlap_w, overlap_h] = sides(inner).map(positive), [C_w, C_h] = sides(outer);
  const free = outer.map((_, k) => share(box[k], TARGET[k], k >= 2));
  const I = overlap_w * overlap_h, U = w * h + target_w * target_h - I, C = C_w * C_h;
  const d_I = area_gradient([overlap_w, overlap_h], inner.map((_, k) => share(box[k], TARGET[k], k < 2)));
  const d_U = area_gradient([w, h], [1, 1, 1, 1]).map((value, k) => value - d_I[k]), d_C = area_gradient([C_w, C_h], free);
  const iou = I / U, d_iou = quotient(I, d_I, U, d_U);
  const add = (...gradients) => gradients[0].map((_, k) => gradients.reduce((sum, gradient) => sum + gradient[k], 0));
  const iou_loss = [1 - iou, d_iou.map((value) => -value)];
  // (C - U) / C = 1 - U / C
  const giou = [iou_loss[0] + 1 - U / C, add(iou_loss[1], quotient(U, d_U, C, d_C).map((value) => -value))];
  // d² / c²: the squared distance of the centres over the squared diagonal of the enclosing box
  const [dx, dy] = [0, 1].map((k) => (box[k] + box[k + 2] - TARGET[k] - TARGET[k + 2]) / 2), c2 = C_w ** 2 + C_h ** 2;
  const d_c2 = [-2 * C_w, -2 * C_h, 2 * C_w, 2 * C_h].map((value, k) => value * free[k]);
  const diou = [iou_loss[0] + (dx * dx + dy * dy) / c2, add(iou_loss[1], quotient(dx * dx + dy * dy, [dx, dy, dx, dy], c2, d_c2))];
  // v compares the aspect ratios; a is treated as a constant
  const angle = Math.atan2(target_w, target_h) - Math.atan2(w, h), v = (4 / Math.PI ** 2) * angle ** 2, a = v > 0 ? v / (1 - iou + v) : 0;
  const [by_w, by_h] = [h, -w].map((value) => (-8 / Math.PI ** 2) * angle * (value / (w * w + h * h)));
  const ciou = [diou[0] + a * v, add(diou[1], [-by_w, -by_h, by_w, by_h].map((value) => a * value))];
  const distance = box.reduce((sum, value, k) => sum + Math.abs(value - TARGET[k]), 0);
  const l1 = [L1_WEIGHT * distance + iou_loss[0], add(iou_loss[1], box.map((value, k) => L1_WEIGHT * Math.sign(value - TARGET[k])))];
  return { iou, values: [iou_loss, giou, diou, ciou, l1] };
}

// Gradient descent with one loss: the box and its IoU at every step.
function race(first, loss) {
  const boxes = [first], ious = [];
  for (let k = 0; k <= STEPS; k++) {
    const { iou, values } = losses(boxes[k]);
    ious.push(iou);
    if (k < STEPS) boxes.push(boxes[k].map((value, d) => value - RATE * (1 - k / STEPS) * values[loss][1][d]));
  }
  return { boxes, ious };
}

export function compute({ x, y, width, height }) {
  const first = [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
  const { values } = losses(first), races = LOSSES.map((_, loss) => race(first, loss));
  return {
    losses: values.map(([value]) => value), gradients: values.map(([, gradient]) => gradient),
    boxes: races.map(({ boxes }) => boxes), ious: races.map(({ ious }) => ious), best: races.map(({ ious }) => Math.max(...ious)),
  };
}

const styles_of = (colours) => [[colours.ink], [colours.purple, "9 3 2 3"], [colours.blue, "7 4"], [colours.red, "2 3"], [colours.green, "12 4"]];
const shown = ({ aspect }) => LOSSES.map((_, loss) => loss).filter((loss) => aspect || LOSSES[loss] !== "CIoU");
const centre = ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];

function draw_boxes(panel, { colours }, values, { boxes }, set) {
  panel.box(...TARGET, { fill: colours.yellow, opacity: 0.35 });
  panel.box(...TARGET, { stroke: colours.ink, width: 2 });
  panel.text(...centre(TARGET), "target", { halo: true });
  panel.box(...boxes[0][0], { stroke: colours.muted, dash: "2 4" });
  for (const loss of shown(values)) {
    const [stroke, dash] = styles_of(colours)[loss], box = boxes[loss][values.step];
    panel.line(boxes[loss].slice(0, values.step + 1).map(centre), { stroke, width: 1.2 });
    panel.box(...box, { stroke, dash, width: 2.2 });
    panel.circle(...centre(box), 3.5, { fill: stroke });
  }
  const { x, y, width, height } = values;
  panel.handle("centre", x, y, { label: "centre of the first box", step: 0.5, on_move: (px, py) => set({ x: px, y: py }) });
  panel.handle("corner", x + width / 2, y + height / 2, {
    label: "lower right corner of the first box", on_move: (px, py) => set({ width: 2 * (px - x), height: 2 * (py - y) }),
  });
}

function draw_curves(panel, { colours }, values, { ious }, set) {
  for (const loss of shown(values)) {
    const [stroke, dash] = styles_of(colours)[loss];
    let best = 0;
    const curve = ious[loss].map((iou, k) => [k, (best = Math.max(best, iou))]);
    panel.line(curve, { stroke, dash, width: 2.5 });
    panel.circle(...curve[values.step], 4.5, { fill: stroke });
  }
  panel.line([[values.step, 0], [values.step, 1]], { stroke: colours.muted, width: 1, dash: "2 3" });
  panel.press((x) => set({ step: x }), { drag: true });
}

export function draw(figure, values, result, set) {
  const { colours } = figure;
  draw_boxes(figure.panel("boxes", { width: 345, height: 290, xlim: [0, WIDTH], ylim: [HEIGHT, 0], equal: true, title: "Drag the first box or its corner", xlabel: "x (pixels)", ylabel: "y (pixels)" }), figure, values, result, set);
  draw_curves(figure.panel("curves", { width: 300, height: 270, xlim: [0, STEPS], ylim: [0, 1.02], title: "Best IoU so far; click a step", xlabel: "step" }), figure, values, result, set);
  figure.legend([
    ["first box", { stroke: colours.muted, dash: "2 4" }],
    ...shown(values).map((loss) => [`${LOSSES[loss].replace(" - ", " − ")}: best IoU ${result.best[loss].toFixed(2)}`, { stroke: styles_of(colours)[loss][0], dash: styles_of(colours)[loss][1] }]),
  ]);
}

export function describe(values, { ious, best, gradients }) {
  const overlap = ious[0][0] > 0 ? "The first box overlaps the target." : "The first box does not overlap the target, so 1 − IoU has no gradient and its box stays.";
  const now = shown(values).map((loss) => `${LOSSES[loss].replace(" - ", " − ")} ${ious[loss][values.step].toFixed(2)} (best ${best[loss].toFixed(2)})`).join(", ");
  return `${overlap} IoU after ${values.step} steps: ${now}. Length of the first gradient of GIoU ${Math.hypot(...gradients[1]).toFixed(3)}, of DIoU ${Math.hypot(...gradients[2]).toFixed(3)}.`;
}
