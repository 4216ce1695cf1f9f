// Four losses of a group of pixels with the same probability, and their derivatives (chapter 7).

const LOSSES = ["cross-entropy", "focal", "L2", "Dice"];
const LOWEST = 0.01;

export const controls = [
  { name: "p", label: "probability p", min: LOWEST, max: 0.99, step: 0.01, value: 0.05 },
  { name: "target", label: "ground truth", options: ["object", "background"], value: "object" },
  { name: "gamma", label: "γ of the focal loss", min: 0, max: 5, step: 0.5, value: 2 },
  { name: "pixels", label: "pixels in the group", options: [1, 10, 100, 1000], value: 10 },
  { name: "smooth", label: "s of Dice", options: [0.01, 1, 100], value: 1 },
  { name: "axis", label: "horizontal axis", options: ["probability", "score"], value: "probability" },
];

// Every function returns [loss, derivative with respect to the score z], where p = sigmoid(z) and dp/dz = p (1 - p).

// -log p_t, where p_t is the probability of the ground truth: the factors p (1 - p) and 1/p cancel
const cross_entropy = (p, y) => [-Math.log(y ? p : 1 - p), p - y];

// (1 - p_t)^γ times the cross-entropy
function focal(p, y, gamma) {
  const p_t = y ? p : 1 - p, error = 1 - p_t, log = Math.log(p_t);
  const by_p_t = gamma * (gamma ? error ** (gamma - 1) : 0) * log - error ** gamma / p_t;
  return [-(error ** gamma) * log, (y ? 1 : -1) * by_p_t * p * (1 - p)];
}

const squared_error = (p, y) => [(p - y) ** 2, 2 * (p - y) * p * (1 - p)]; // the factor p (1 - p) remains

// 1 - (2 Σ y p + s) / (Σ y + Σ p + s); the sums are over the n pixels of the group, all other pixels are correct
function dice(p, y, n, s) {
  const top = 2 * n * y * p + s, bottom = n * y + n * p + s;
  const by_p = -(2 * n * y * bottom - top * n) / bottom ** 2;
  return [1 - top / bottom, by_p * p * (1 - p)];
}

export function compute({ p, target, gamma, pixels, smooth }) {
  const y = target === "object" ? 1 : 0;
  const results = [cross_entropy(p, y), focal(p, y, gamma), squared_error(p, y), dice(p, y, pixels, smooth)];
  return Object.fromEntries(LOSSES.map((name, k) => [name, { loss: results[k][0], derivative: results[k][1] }]));
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const logit = (p) => Math.log(p / (1 - p));

export function draw(figure, values, result, set) {
  const { colours } = figure, score = values.axis === "score", [from, to] = score ? [-5, 5] : [0, 1];
  const styles = [[colours.blue], [colours.purple, "9 3 2 3"], [colours.orange, "7 4"], [colours.green, "2 3"]];
  const across = Array.from({ length: 161 }, (_, k) => from + ((to - from) * (k + 0.5)) / 161);
  const at = score ? logit(values.p) : values.p;
  const along = across.map((x) => compute({ ...values, p: score ? sigmoid(x) : x }));
  const steepest = Math.max(1, ...along.flatMap((each) => LOSSES.map((name) => Math.abs(each[name].derivative))));
  const xlabel = score ? "score z, p = sigmoid(z)" : "probability of “object”, p";
  for (const [key, title, top] of [["loss", "Loss", score ? 5 : 3.2], ["derivative", "|derivative| with respect to the score", 1.06 * steepest]]) {
    const panel = figure.panel(key, { width: 322, height: 300, xlim: [from, to], ylim: [0, top], title, xlabel });
    panel.line([[at, 0], [at, top]], { stroke: colours.muted, width: 1.5 });
    LOSSES.forEach((name, k) => {
      const [stroke, dash] = styles[k];
      panel.line(across.map((x, m) => [x, Math.abs(along[m][name][key])]), { stroke, dash, width: 2.5 });
      panel.circle(at, Math.abs(result[name][key]), 5, { fill: stroke });
    });
    const move = (x) => set({ p: score ? sigmoid(x) : x });
    panel.press(move);
    panel.handle("p", at, top * 0.95, { label: "probability p", step: score ? 0.1 : 0.01, on_move: move });
  }
  figure.legend(LOSSES.map((name, k) => [
    `${name}: loss ${result[name].loss.toFixed(3)}, |derivative| ${Math.abs(result[name].derivative).toFixed(3)}`, { stroke: styles[k][0], dash: styles[k][1] },
  ]));
}

export function describe({ p, target, pixels }, result) {
  const words = LOSSES.map((name) => `${name} ${result[name].loss.toFixed(3)} (${Math.abs(result[name].derivative).toFixed(3)})`).join(", ");
  const correct = target === "object" ? p : 1 - p, group = pixels === 1 ? "One pixel" : `${pixels} pixels`;
  const verdict = correct < 0.1 ? "confident and wrong" : correct < 0.5 ? "wrong" : correct < 0.9 ? "correct" : "confident and correct";
  return `${group} of ${target === "object" ? "the object" : "background in an image without object"}, with p = ${p}: the prediction is ${verdict}. Losses, and in parentheses the absolute derivatives: ${words}.`;
}
