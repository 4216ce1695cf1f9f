// Offsets to the centre of a cell, and the bandwidth sigma of the Gaussian that collects the pixels there (chapter 10).

// Labels of the pixels of a scene, row by row: digits of a map of 49 rows and 37 columns whose upper left pixel is (3, 9).
const [TOP, LEFT, ROWS, COLUMNS] = [3, 9, 49, 37];
const LABELS =
  "0000000555550000000000000000000000000" + "0000005555555000000033333000000000000" + "0000055555555500000333333300000000000" +
  "0005555555555550003333333330000000000" + "0055555555555550003333333330000000000" + "0055555555555555003333333330000000000" +
  "0555555555555555003333333330000000000" + "0555555555555555503333333330000000000" + "5555555555555555503333333300000000000" +
  "5555555555555555503333333222200000000" + "5555555555555555500233322222222000000" + "5555555555555555522222222222222200000" +
  "5555555555555555522222222222222220000" + "0555555555555555522222222222222222000" + "0555555555555555222222222222222222200" +
  "0055555555555555222222222222222222200" + "0055555555555552222222222222222222220" + "0005555555555552222222222222222222220" +
  "0005555555555522222222222222222222222" + "0000555555555522222222222222222222222" + "0000055555555522222222222222222222222" +
  "0000005555555222222222222222222222222" + "0000000555550222222222222222222222222" + "0000000000000222222222222222222222222" +
  "0000000000000022222222222222222222222" + "0000000000000022222222222222222222222" + "0000000000000022222222222222222222222" +
  "0000000000000002222222222222222222220" + "0000000000000000222222222222222222200" + "0000000000000000222222222222222222200" +
  "0000000000000000022222222222222222000" + "0000000000000000002222222222222200000" + "0000000000666600000022222222222004440" +
  "0000000066666666000111111222200444444" + "0000000066666666661111111100004444444" + "0000000666666666661111111110004444444" +
  "0000000666666666666111111111004444444" + "0000000666666666666111111111104444444" + "0000000666666666661111111111104444440" +
  "0000000066666666661111111111104444440" + "0000000066666666661111111111110444400" + "0000000000666666001111111111110000000" +
  "0000000000000000001111111111110000000" + "0000000000000000001111111111110000000" + "0000000000000000000111111111110000000" +
  "0000000000000000000011111111110000000" + "0000000000000000000011111111110000000" + "0000000000000000000001111111100000000" +
  "0000000000000000000000011111000000000";
// Errors of the offsets of all pixels of cells, first all dy and then all dx, as signed bytes; 32 is one pixel.
const NOISE =
  "8SwESuch59Xh/wHoBN7g7BcL9QreJsnfCC82FM9B8+QvM90MDvQT0kTVHdwlI/ah6AbyGSD7GdbC3iUiC+b89vWw5S3z+IMPEjjwA/gY8DoJ/S4UDPU6GvnOyfcJKQka2f8E5A7fFc/u" +
  "AdgV/9/PzgLbSQkYBxnV8gj/7+8sER/1GOrqE+0ZTcroJCXgC/sEC9neLeL1vxEbEh0OCw/3JvXRGzvh6vQB2PfR7toS30/Zydst+vT+7errFyHeCN3w39cD6BT/DffsEf0B4xoWHEf+" +
  "J/wNDAgV9gHlxvEDBgMmH/7x9fXe+hX2JBjO8Qnu+RoK4wbs2dwJ/wDb+t/i+9QVUA/f9+j25MPn/vD+Ax1HF9Or/QLbCecN9g3I8vvSPO8s6/kmChPjDAbYMiPk7RnwxSIAPQsGXPvi" +
  "ByTb4w6a3RntzD7T7xMCBRAeBwstChEgNCcMB9kJ398V/Q/sJgUmFgXxARoW2iEJHugXFhg0Fe463fHh/SMqD+zu7R7jHP8GMPE10+bN6BMkByziJB2g/TEZ8vnWB8fgJP/0/Vgh5zX9" +
  "GO3iGufnHdvT6OZL6/84N/4IzOP0APYFRg8KAPon4PzdAwQdJhU0MwoMvDbCDSUpC9L99wwgFUQV9DT2CQa3CQn5+9cDMPrv7UHVGwzhDR3wP/jsCfjU/zNA7h0ECSkbBeLc/goQGR+z" +
  "Hd4kCxbI8RcQFgrlJ9Qg/9HzJ+3Z9+bYDhruEfT9BDAQ4BH5Fh7l2ds73vj6Icj/JyQN+DjKHxATCQce29gFAgUz7d4N9eZFHSPgw8fmBwv6/R8ZDOwZBujuJzvvvhPjNusHB/XA8THX" +
  "xfnz1+jx8wUXDAs2I6P0xQ4IALwyHQEP4hAy2lbyGuYM1+v56/j17hcHECcmGBPX3BoVERvuEuACHuo+JBrn3PXzwg+zJvUe7ecV7c791AAsHwD79A3q1rrnGyAZ+gQp5AzEFvLbGdzk" +
  "8kQC9frRKxvvB+sN1QkwDu0ePt/l0ycdCgPw9+oVFh1CFxQgzwBH/eHb7QzpMQbh8ewG3yn1+EXYAAsmVfPkIgdAF+v6QuYi/d3fK+LvP/IADPfq7NTbFfkRCSDM7gjtARb3+73eO8ks" +
  "LynwHPUCTMnfNRD3GQvr6xsLIhXsMeLx6h4c7Nb9zQcw5QL23A3lNQH5AQP6Au7wEbzmBPXEHgnhLz3h9/jr0ynT4wjY+/j4/NPuKSXtI7/cD/Y1G/USMy8YDgMpEwTx1fo88ev4+e4V" +
  "CiYTvQbrIgLo7wcDANb8+Ovl4OYNATUT7e/69QA++wTQ/PMGK/D1Herc/8bn3PMqShPhFw3tHPHtAhYLxQnx76/38P7y8Pz5Ay0dGxHt3vkmJtHHNi7sAiPwEyH5/QYAHOLwX+UOCsPb" +
  "xvvW4xUYALv4E/P9EMYZwwXk7QQ3EwwT1esRIRLjUtj1Ng4H+QPoINIE5Ae/4dgduBIp8RnU6doD2zUaDer36O8qAt33EfcN2O4arB+4CfYW4iEYDj8NBv4EDEIBIung6f4j1erXE//k" +
  "xSAOEMLzL+kb5PtVz9IbCi/xC+oV4eESKQ0ELNr78+/hIND64jb6CvUjEjIetRgN0CX/7r4AABQI9hLK8AD/Fjr2zCwf/w79GAvy7dj1JccPzu3tEhD3E+YBHhEpDuRLKAHr3jL5CxwK" +
  "ERch/Qv1CSsN9RQs8hEC+toERzr8Pwbn/hEZARQE4PwA8g/f9tcGIOv0CscE8QGp3vUY1fbvB+cC3wEc7fAs4S7P7wjWAhAc+igCGyA7/RLlIOLZ++5JCEfT6Ss6C+oPFRAj4CHaBc0I" +
  "yQZbxwMH/xPTMxAW/hvUHe0LFzkNCe8qyygfAUEJC+XxFBMKCin5DM8b9zQUD8bQ/Ovv9B0fQtwu798d/jTGJeHpvhPzKAnh39zWEN3sAPcCFhDdACESDAAJEjf38tv8Czrdve/36Umk" +
  "3O8OGQIT9soA3bfk8//ZBA/lBNoE/7AP+uE8D/LsCBsEEuL5IQQT9yrr5tYK/BvnPPgT9ffR+drhEO5F+BoM0bjK+iLrBQVV7u/+BLb/7fvgRf/qGB0Ko/7+/RQI+NEW+AUlGwbj5dbu" +
  "Of3/AhIm+RpjA/vcKvTZK+XkBdLrxsMA+Sg6CQ3a8QMfFPv65tPj/gf5CSsYAhcYAez5Byvs+ybwHt/1+C4D2Ng/EfEb6gzsBNoMIu8Q5/324TX6Mbwj//wkHSga+PLv2yAaCvPn8/kQ" +
  "Fc4D7A3QIM0D+9fkDeoS8QnsGfLZCSDq/fQf6+bpGvoc+f7jshE9FP/zRNoV1t0X4P/vB+kP4v/13NTstEod8+z/Qhn89Qc74Orv/gs+FsvU+AIM6/jbBCHwICwL9hTbBSoHuOn/88PZ" +
  "GQKsIPkRZKvjPuH6+Ow/APIs8fz6O/LVFeDqCfkjD/Lw9gMeIQoiCQv8QDTwHAj5GAYF2Q3gPfsR5O0M3RvmCuMd0v78w+cEDwr6Mgz08/ccFRI9DwMWE8vfGez7ARDCCPP9IBJIEMHt" +
  "DAMoxQ4b+kAgIgbsJ/TWKBsAEFO1/t7x/tL7BgDa9urY1f3o5i7CBxURvDTPBwrL+O7kAwfVLfAaD/Yw5fj52OznLRQnBw/jEPzeMfRFMPwg+tLO69Ma0MUc+N/p+fzyCv32+MEYFgLf" +
  "1uoI9fTa8QLG5UUjKb78D/4cyQvbDir9zQbuDffJD98wOxjfA+Do4/wD/grfJA7r5f4e+An27if8AfYrufrUyzwpIOUQDwEVJBgp+BPbzSPjCtveGe7q79zu4zYrAiYW+v/7NiD04OMR" +
  "C+QHGr/lJRTwIhnvKfIACjosH/gkyeUiGjL73dEREUoAAfTt5QDr8RD21OEdNP7z8wkBTvv8JPPoAR7PZPDv+TPk3eoNKAk7Kf3gHwYzBgcEEE33GeILywAX2rAL+tnv8+YWyNfo6Bbz" +
  "KOkyBO7/JxIHE9f14RI08RDg4dbg5g/j8MUUsADk/+Qa6iYkKP3P";
const CELLS = { "small cell": 3, "large cell": 2 }; // labels of two touching cells
const HALF_WIDTH = Math.sqrt(2 * Math.log(2)); // distance from the centre, in sigmas, at which the Gaussian is 1/2

export const controls = [
  { name: "cell", label: "cell", options: Object.keys(CELLS), value: "small cell" },
  { name: "sigma", label: "sigma (pixels)", min: 0.5, max: 12, step: 0.25, value: 6 },
  { name: "fraction", label: "fraction of the offset", min: 0, max: 1, step: 0.05, value: 0.1 },
  { name: "noise", label: "error of the offsets", min: 0, max: 3, step: 0.25, value: 1 },
];

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The pixels of all cells: {label, y, x, offset: [dy, dx] to the centre of the cell, error: [dy, dx]}.
function make_pixels() {
  const pixels = [...LABELS].map((digit, k) => ({ label: Number(digit), y: TOP + Math.floor(k / COLUMNS),
    x: LEFT + (k % COLUMNS) })).filter(({ label }) => label > 0);
  const bytes = atob(NOISE), error = (k) => (bytes.charCodeAt(k) << 24 >> 24) / 32; // the shifts restore the sign
  const centres = [1, 2, 3, 4, 5, 6].map((label) => {
    const own = pixels.filter((pixel) => pixel.label === label);
    return [mean(own.map(({ y }) => y)), mean(own.map(({ x }) => x))];
  });
  return pixels.map((pixel, k) => {
    const [cy, cx] = centres[pixel.label - 1];
    return { ...pixel, offset: [cy - pixel.y, cx - pixel.x], error: [error(k), error(k + pixels.length)] };
  });
}
const PIXELS = make_pixels();

// The position (y, x) of each pixel after it has moved by a fraction of its predicted offset.
function embed({ fraction, noise }) {
  return PIXELS.map(({ y, x, offset, error }) => [y + fraction * (offset[0] + noise * error[0]), x + fraction * (offset[1] + noise * error[1])]);
}

// The centre of a cell is the mean of its embeddings, and the squared distance of every embedding to it is needed for the Gaussian.
function around(embeddings, cell) {
  const own = embeddings.filter((_, k) => PIXELS[k].label === CELLS[cell]), centre = [0, 1].map((axis) => mean(own.map((point) => point[axis])));
  return { centre, squares: embeddings.map(([y, x]) => (y - centre[0]) ** 2 + (x - centre[1]) ** 2) };
}

// The pixels whose Gaussian exp(-d^2 / (2 sigma^2)) around the centre is above 1/2, compared with those of the cell.
function outcomes(squares, cell, sigma) {
  const included = squares.map((square) => Math.exp(-square / (2 * sigma ** 2)) > 0.5);
  let [correct, missed, wrong] = [0, 0, 0];
  included.forEach((is_in, k) => {
    const own = PIXELS[k].label === CELLS[cell];
    if (is_in && own) correct++;
    if (!is_in && own) missed++;
    if (is_in && !own) wrong++;
  });
  return { included, correct, missed, wrong, iou: correct / (correct + missed + wrong) };
}

const SIGMAS = Array.from({ length: 46 }, (_, k) => 0.5 + 0.25 * k);

export function compute(values) {
  const embeddings = embed(values), { centre, squares } = around(embeddings, values.cell), curves = {};
  for (const cell of Object.keys(CELLS)) {
    const of_cell = around(embeddings, cell).squares;
    curves[cell] = SIGMAS.map((sigma) => outcomes(of_cell, cell, sigma).iou);
  }
  const lower = SIGMAS.map((_, k) => Math.min(...Object.values(curves).map((curve) => curve[k])));
  const separate = Math.min(...Object.values(curves).map((curve) => Math.max(...curve)));
  return { embeddings, centre, ...outcomes(squares, values.cell, values.sigma), curves, best_common: Math.max(...lower), best_separate: separate };
}

// Chosen pixels as one path: filled squares, or one stroke per pixel as a second sign beside the colour.
function fill_pixels(panel, chosen, { fill, opacity }) {
  const path = PIXELS.filter((_, k) => chosen(k)).map(({ y, x }) => `M${panel.x(x - 0.5)} ` +
    `${panel.y(y - 0.5)}H${panel.x(x + 0.5)}V${panel.y(y + 0.5)}H${panel.x(x - 0.5)}Z`).join("");
  if (path) panel.paint("path", { d: path }, { fill, stroke: fill, width: 0.7, opacity });
}

function mark_pixels(panel, chosen, [dx, dy], style) {
  const path = PIXELS.filter((_, k) => chosen(k)).map(({ y, x }) => `M${panel.x(x - dx)} ${panel.y(y - dy)}L${panel.x(x + dx)} ` +
    `${panel.y(y + dy)}`).join("");
  if (path) panel.paint("path", { d: path }, style);
}

function draw_image(panel, { colours }, { cell }, { included }) {
  const own = (k) => PIXELS[k].label === CELLS[cell];
  fill_pixels(panel, (k) => !own(k) && !included[k], { fill: colours.grid });
  fill_pixels(panel, (k) => own(k) && included[k], { fill: colours.green });
  fill_pixels(panel, (k) => own(k) && !included[k], { fill: colours.blue });
  fill_pixels(panel, (k) => !own(k) && included[k], { fill: colours.orange });
  mark_pixels(panel, (k) => own(k) && !included[k], [0.4, -0.4], { stroke: colours.paper, width: 1 });
  mark_pixels(panel, (k) => !own(k) && included[k], [0.15, 0], { stroke: colours.paper, width: 2 });
  const labels = (y, x) => (y < TOP || x < LEFT || y >= TOP + ROWS || x >= LEFT + COLUMNS ? "0" : LABELS[(y - TOP) * COLUMNS + x - LEFT]);
  let borders = "";
  for (let y = TOP - 1; y < TOP + ROWS; y++) {
    for (let x = LEFT - 1; x < LEFT + COLUMNS; x++) {
      if (labels(y, x) !== labels(y, x + 1)) borders += `M${panel.x(x + 0.5)} ${panel.y(y - 0.5)}V${panel.y(y + 0.5)}`;
      if (labels(y, x) !== labels(y + 1, x)) borders += `M${panel.x(x - 0.5)} ${panel.y(y + 0.5)}H${panel.x(x + 0.5)}`;
    }
  }
  panel.paint("path", { d: borders }, { stroke: colours.ink, width: 1.2 });
}

function draw_embeddings(panel, { colours }, { cell, sigma }, { embeddings, centre }, set) {
  const own = (k) => PIXELS[k].label === CELLS[cell], point = ([y, x]) => [panel.x(x).toFixed(1), panel.y(y).toFixed(1)];
  const crosses = embeddings.filter((_, k) => !own(k)).map(point).map(([x, y]) => `M${x - 2} ${y - 2}l4 4m0 -4l-4 4`).join("");
  panel.paint("path", { d: crosses }, { stroke: colours.muted, width: 0.8 });
  const dots = panel.paint("path", { d: embeddings.filter((_, k) => own(k)).map(point).map(([x, y]) => `M${x} ${y}h0`).join("") },
    { stroke: colours.ink, width: 4.5 });
  dots.setAttribute("stroke-linecap", "round");
  const radius = HALF_WIDTH * sigma;
  panel.circle(centre[1], centre[0], (radius * panel.plot_width) / Math.abs(panel.xlim[1] - panel.xlim[0]), { stroke: colours.red, width: 2.5 });
  panel.handle("sigma", centre[1] + radius, centre[0], { label: "edge of the circle, which changes sigma", step: HALF_WIDTH * 0.25,
    on_move: (x) => set({ sigma: (x - centre[1]) / HALF_WIDTH }) });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, image = { width: 214, height: 380, axes: false, equal: true, xlim: [5, 49], ylim: [55, 0] };
  draw_image(figure.panel("image", { ...image, title: "Pixels" }), figure, values, result);
  draw_embeddings(figure.panel("space", { ...image, title: "Embeddings: drag the circle" }), figure, values, result, set);
  const curve = figure.panel("curve", {
    width: 214, height: 296, xlim: [0, 12.2], ylim: [0, 1.03], xlabel: "sigma (pixels)", ylabel: "IoU",
    title: `One for both: ${result.best_common.toFixed(2)}`,
  });
  curve.line(SIGMAS.map((sigma, k) => [sigma, result.curves["small cell"][k]]), { stroke: colours.purple, dash: "7 4" });
  curve.line(SIGMAS.map((sigma, k) => [sigma, result.curves["large cell"][k]]), { stroke: colours.ink });
  curve.line([[values.sigma, 0], [values.sigma, 1.03]], { stroke: colours.red, width: 1.2, dash: "2 3" });
  curve.circle(values.sigma, result.iou, 5, { fill: colours.red });
  figure.legend([
    [`correct: ${result.correct}`, { fill: colours.green }], [`missed (strokes): ${result.missed}`, { fill: colours.blue }],
    [`of other cells (dots): ${result.wrong}`, { fill: colours.orange }],
    ["Gaussian above 1/2", { stroke: colours.red }], ["IoU of the small cell", { stroke: colours.purple, dash: "7 4" }],
    ["IoU of the large cell", { stroke: colours.ink }],
  ]);
}

export function describe({ cell, sigma, fraction }, { correct, missed, wrong, iou, best_common, best_separate }) {
  return `The Gaussian of the ${cell} with sigma ${sigma} includes ${correct} of its pixels, misses ${missed}, and includes ${wrong} of other ` +
    `cells: IoU ${iou.toFixed(3)}. ` +
    `With pixels moved by ${fraction} of their offsets, one sigma for both cells reaches an IoU of ${best_common.toFixed(2)}, and a sigma for ` +
    `each reaches ${best_separate.toFixed(2)}.`;
}
