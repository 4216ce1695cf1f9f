// Otsu's method: a histogram, a threshold, and the variance between the two classes (chapter 2).

const SIDE = 48, LEVELS = 64; // pixels per side, grey levels
const DISCS = [[11, 12], [36, 10], [24, 26], [10, 38], [38, 37]]; // centres (row, column)

export const controls = [
  { name: "threshold", label: "threshold t", min: 0, max: LEVELS - 2, step: 1, value: 20 },
  { name: "radius", label: "radius of the objects", min: 1, max: 9, step: 1, value: 7 },
  { name: "contrast", label: "contrast", min: 4, max: 36, step: 2, value: 26 },
  { name: "noise", label: "noise", min: 0, max: 8, step: 1, value: 4 },
  { name: "light", label: "uneven light", min: 0, max: 30, step: 2, value: 0 },
  { name: "shuffle", label: "shuffle the pixels", value: false },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);

// Pseudo-random numbers in [0, 1): the same in every browser and in Python.
function random_numbers(count, seed) {
  let state = seed;
  return range(count).map(() => {
    state = (1109 * state + 12345) % 65536;
    return state / 65536;
  });
}

// Nearly Gaussian noise with standard deviation 1: the sum of 12 uniform numbers has variance 1.
const uniform = random_numbers(12 * SIDE * SIDE, 1);
const NOISE = range(SIDE * SIDE).map((k) => uniform.slice(12 * k, 12 * k + 12).reduce((a, b) => a + b, 0) - 6);

// An order of all pixels: sorted by random numbers.
const keys = random_numbers(SIDE * SIDE, 7);
const SHUFFLED = range(SIDE * SIDE).sort((a, b) => keys[a] - keys[b] || a - b);

// Grey levels from 0 to 63: dark background, brighter discs, noise, and light that increases to the right.
function image_of({ radius, contrast, noise, light }) {
  return range(SIDE * SIDE).map((k) => {
    const row = Math.floor(k / SIDE), column = k % SIDE;
    const inside = DISCS.some(([y, x]) => (row - y) ** 2 + (column - x) ** 2 < radius * radius);
    const level = 14 + (inside ? contrast : 0) + noise * NOISE[k] + (light * column) / SIDE;
    return Math.min(LEVELS - 1, Math.max(0, Math.floor(level + 0.5)));
  });
}

// w0 w1 (m1 - m0)^2 for every threshold t: the classes are the levels up to t, and those above it.
function between_class_variance(counts) {
  const n = counts.reduce((a, b) => a + b, 0), total = counts.reduce((sum, count, level) => sum + count * level, 0);
  let below = 0, moment = 0; // n w0 and n w0 m0
  return counts.slice(0, -1).map((count, level) => {
    below += count;
    moment += count * level;
    if (below === 0 || below === n) return 0; // one of the classes is empty
    return (below * total - n * moment) ** 2 / (below * (n - below)) / n ** 2;
  });
}

export function compute(values) {
  const image = image_of(values), counts = new Array(LEVELS).fill(0);
  for (const level of image) counts[level] += 1;
  const between = between_class_variance(counts), best = Math.max(...between), n = image.length;
  const mean = image.reduce((a, b) => a + b, 0) / n, variance = image.reduce((sum, level) => sum + (level - mean) ** 2, 0) / n;
  const { threshold } = values, dark = image.filter((level) => level <= threshold), bright = image.filter((level) => level > threshold);
  const mean_of = (levels) => (levels.length ? levels.reduce((a, b) => a + b, 0) / levels.length : null);
  return {
    image, counts, between, variance, within: variance - between[threshold],
    otsu: between.indexOf(best), bright: bright.length / n, dark_mean: mean_of(dark), bright_mean: mean_of(bright),
  };
}

function draw_images(figure, { threshold, shuffle }, { image, bright }) {
  const level = (i, j) => image[shuffle ? SHUFFLED[i * SIDE + j] : i * SIDE + j];
  const options = { width: 165, height: 200, xlim: [0, SIDE], ylim: [SIDE, 0], axes: false, equal: true };
  const grey = (value) => Math.round((255 * value) / (LEVELS - 1));
  figure.panel("image", { ...options, title: "Image" }).image(SIDE, SIDE, (i, j) => [1, 1, 1].map(() => grey(level(i, j))));
  figure.panel("mask", { ...options, title: `Above t: ${(100 * bright).toFixed(1)}%` }).image(SIDE, SIDE, (i, j) => {
    const value = grey(level(i, j));
    return level(i, j) > threshold ? [0.4 * value + 153, 0.4 * value + 60, 0.4 * value] : [value, value, value];
  });
}

function draw_histogram(panel, { colours }, { threshold }, result, set) {
  const { counts, between, otsu } = result, tallest = Math.max(...counts), best = Math.max(...between);
  counts.forEach((count, level) => panel.box(level - 0.45, 0, level + 0.45, count, { fill: level > threshold ? colours.orange : colours.sky }));
  panel.line(between.map((value, level) => [level + 0.5, (value / best) * tallest]), { stroke: colours.purple, width: 2.5 });
  panel.line([[otsu + 0.5, 0], [otsu + 0.5, 1.15 * tallest]], { stroke: colours.green, width: 2, dash: "6 4" });
  panel.line([[threshold + 0.5, 0], [threshold + 0.5, 1.15 * tallest]], { stroke: colours.ink, width: 2 });
  panel.circle(threshold + 0.5, (between[threshold] / best) * tallest, 5, { fill: colours.purple });
  [[result.dark_mean, "m₀"], [result.bright_mean, "m₁"]].forEach(([mean, name]) => {
    if (mean !== null) panel.text(mean, 1.09 * tallest, name, { halo: true, weight: 600 });
  });
  const move = (x) => set({ threshold: Math.round(x - 0.5) });
  panel.press(move, { drag: true });
  panel.handle("threshold", threshold + 0.5, 0.97 * tallest, { label: "threshold", on_move: move });
}

export function draw(figure, values, result, set) {
  const { colours } = figure;
  draw_images(figure, values, result);
  const tallest = Math.max(...result.counts);
  const histogram = figure.panel("histogram", { width: 305, height: 240, xlim: [-1, LEVELS], ylim: [0, 1.15 * tallest], title: "Histogram; drag the threshold", xlabel: "grey level", ylabel: "pixels" });
  draw_histogram(histogram, figure, values, result, set);
  figure.legend([
    ["up to t", { fill: colours.sky }], ["above t", { fill: colours.orange }], ["your threshold", { stroke: colours.ink }],
    ["Otsu's threshold", { stroke: colours.green, dash: "6 4" }], ["between-class variance (own scale)", { stroke: colours.purple }],
  ]);
}

export function describe({ threshold }, { between, within, variance, otsu, bright }) {
  const best = threshold === otsu ? "This is Otsu's threshold." : `Otsu's threshold is ${otsu}, with ${between[otsu].toFixed(2)} between the classes.`;
  return `Threshold ${threshold}: between the classes ${between[threshold].toFixed(2)}, within them ${within.toFixed(2)}; the sum is always ${variance.toFixed(2)}. ` +
    `${(100 * bright).toFixed(1)}% of the pixels are above it. ${best}`;
}
