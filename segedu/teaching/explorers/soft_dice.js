// A batch of two images: cross-entropy and region losses, and whose pixels their gradients come from (chapter 7).

const SIDE = 24; // pixels per side of each image
const LOSSES = ["cross-entropy", "Dice per image", "Dice per batch", "IoU per image", "Tversky per image"];
const GROUPS = ["object 1", "object 2", "background"];

const probability = (name, label, value) => ({ name, label, min: 0.01, max: 0.99, step: 0.01, value });
export const controls = [
  { name: "radius_1", label: "radius of object 1", min: 0, max: 10, step: 1, value: 9 },
  { name: "radius_2", label: "radius of object 2", min: 0, max: 10, step: 1, value: 2 },
  probability("p_1", "p on object 1", 0.95), probability("p_2", "p on object 2", 0.1), probability("p_0", "p on background", 0.02),
  { name: "smooth", label: "s", options: [0, 0.01, 1, 100], value: 1 },
  { name: "beta", label: "β of Tversky", min: 0, max: 1, step: 0.1, value: 0.7 },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);
const inside = (row, column, radius) => (row + 0.5 - SIDE / 2) ** 2 + (column + 0.5 - SIDE / 2) ** 2 < radius * radius;
const pixels_of = (radius) => range(SIDE * SIDE).filter((k) => inside(Math.floor(k / SIDE), k % SIDE, radius)).length;

// The soft counts of an image: masks are replaced by probabilities.
function soft_counts(n, p, p_0) {
  const background = SIDE * SIDE - n;
  return { TP: n * p, FP: background * p_0, FN: n * (1 - p) };
}

// 1 - (TP + s) / (TP + α FP + β FN + s), and its derivatives with respect to the p of one object pixel and one background
// pixel. α = β = 1 is IoU; α = β = 1/2 is Dice, where the s of Dice counts twice.
function tversky({ TP, FP, FN }, alpha, beta, s) {
  const top = TP + s, bottom = TP + alpha * FP + beta * FN + s;
  return { loss: 1 - top / bottom, object: -(bottom - top * (1 - beta)) / bottom ** 2, background: (top * alpha) / bottom ** 2 };
}

// The mean of a loss over both images: each image has the same weight.
function per_image(counts, alpha, beta, s) {
  const [one, two] = counts.map((each) => tversky(each, alpha, beta, s));
  return { loss: (one.loss + two.loss) / 2, by_p: [one.object / 2, two.object / 2, one.background / 2, two.background / 2] };
}

// The loss of the sums over the whole batch: a large object outweighs a small one.
function per_batch([one, two], alpha, beta, s) {
  const { loss, object, background } = tversky({ TP: one.TP + two.TP, FP: one.FP + two.FP, FN: one.FN + two.FN }, alpha, beta, s);
  return { loss, by_p: [object, object, background, background] };
}

export function compute({ radius_1, radius_2, p_1, p_2, p_0, smooth, beta }) {
  const objects = [pixels_of(radius_1), pixels_of(radius_2)], total = 2 * SIDE * SIDE;
  const counts = [soft_counts(objects[0], p_1, p_0), soft_counts(objects[1], p_2, p_0)];
  const pixels = [...objects, ...objects.map((n) => SIDE * SIDE - n)], p = [p_1, p_2, p_0, p_0];
  const mean = pixels.reduce((sum, n, k) => sum - n * Math.log(k < 2 ? p[k] : 1 - p[k]), 0) / total;
  const cross_entropy = { loss: mean, by_p: p.map((value, k) => (k < 2 ? -1 / value : 1 / (1 - value)) / total) };
  const results = [
    cross_entropy, per_image(counts, 0.5, 0.5, smooth / 2), per_batch(counts, 0.5, 0.5, smooth / 2),
    per_image(counts, 1, 1, smooth), per_image(counts, 1 - beta, beta, smooth),
  ];
  return {
    objects, losses: results.map(({ loss }) => loss),
    // with respect to the score of one pixel of object 1, object 2, background 1, background 2: dp/dz = p (1 - p)
    derivatives: results.map(({ by_p }) => by_p.map((value, k) => value * p[k] * (1 - p[k]))), pixels,
  };
}

function draw_image(panel, { colours }, radius, p, p_0) {
  const grey = (value) => [20 + 220 * value, 20 + 220 * value, 20 + 220 * value];
  panel.image(SIDE, SIDE, (i, j) => grey(inside(i, j, radius) ? p : p_0));
  let path = ""; // the outline of the ground truth
  for (const k of range(SIDE * SIDE)) {
    const row = Math.floor(k / SIDE), column = k % SIDE, here = inside(row, column, radius);
    if (here !== inside(row, column + 1, radius)) path += `M${panel.x(column + 1)} ${panel.y(row)}V${panel.y(row + 1)}`;
    if (here !== inside(row + 1, column, radius)) path += `M${panel.x(column)} ${panel.y(row + 1)}H${panel.x(column + 1)}`;
  }
  panel.paint("path", { d: path }, { stroke: colours.orange, width: 2.5 });
}

function draw_losses(panel, { colours }, { losses }) {
  losses.forEach((loss, k) => {
    panel.text(0, k + 0.25, LOSSES[k], { anchor: "start" });
    panel.text(1, k + 0.25, loss.toFixed(3), { anchor: "end", weight: 600 });
    panel.box(0, k + 0.45, 1, k + 0.8, { fill: colours.grid });
    panel.box(0, k + 0.45, Math.min(loss, 1), k + 0.8, { fill: k ? colours.purple : colours.blue });
  });
}

// The sum of |derivative| over the pixels of each group, as a share of the sum over all pixels.
const shares_of = ({ derivatives, pixels }) => derivatives.map((each) => {
  const sums = each.map((value, k) => pixels[k] * Math.abs(value)), groups = [sums[0], sums[1], sums[2] + sums[3]];
  const total = groups.reduce((a, b) => a + b, 0);
  return groups.map((value) => (total ? value / total : 0));
});

function draw_shares(panel, { colours }, result) {
  const fills = [colours.orange, colours.sky, colours.grid];
  shares_of(result).forEach((shares, k) => {
    panel.text(0, k + 0.25, LOSSES[k], { anchor: "start" });
    let left = 0;
    shares.forEach((share, group) => {
      panel.box(left, k + 0.45, left + share, k + 0.85, { fill: fills[group], stroke: colours.paper, width: 1 });
      if (share > 0.12) panel.text(left + share / 2, k + 0.65, `${group < 2 ? group + 1 : "b"}: ${(100 * share).toFixed(0)}%`, { size: 11, fill: [colours.paper, "#1b1b1b", colours.ink][group] });
      left += share;
    });
  });
}

export function draw(figure, values, result) {
  const { colours } = figure, square = { width: 180, height: 210, xlim: [0, SIDE], ylim: [SIDE, 0], axes: false, equal: true };
  draw_image(figure.panel("one", { ...square, title: `Image 1: ${result.objects[0]} px` }), figure, values.radius_1, values.p_1, values.p_0);
  draw_image(figure.panel("two", { ...square, title: `Image 2: ${result.objects[1]} px` }), figure, values.radius_2, values.p_2, values.p_0);
  draw_losses(figure.panel("losses", { width: 300, height: 270, xlim: [-0.02, 1.02], ylim: [5, 0], axes: false, title: "Losses" }), figure, result);
  draw_shares(figure.panel("shares", { width: 340, height: 270, xlim: [-0.02, 1.02], ylim: [5, 0], axes: false, title: "Shares of the gradient" }), figure, result);
  figure.legend([
    ["outline of the object", { stroke: colours.orange }], ["predicted probability, bright: high", { fill: "#d0d0d0", stroke: colours.muted }],
    ["gradient from object 1", { fill: colours.orange, symbol: "1", ink: colours.paper }], ["from object 2", { fill: colours.sky, symbol: "2", ink: "#1b1b1b" }], ["from the background", { fill: colours.grid, symbol: "b" }],
  ]);
}

export function describe(values, result) {
  const second = shares_of(result).map((shares) => `${(100 * shares[1]).toFixed(0)}%`);
  return `Objects of ${result.objects.join(" and ")} pixels in images of ${SIDE * SIDE}. Losses: ${LOSSES.map((name, k) => `${name} ${result.losses[k].toFixed(3)}`).join(", ")}. ` +
    `Share of object 2 in the gradient: ${second[0]} for cross-entropy, ${second[1]} for Dice per image, ${second[2]} for Dice per batch.`;
}
