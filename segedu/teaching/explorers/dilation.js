// A stack of dilated 3x3 layers: receptive field, paths to each pixel, and gridding (chapter 8).

const SPOTS = [[16, 16], [24, 46], [45, 29]], SIDE = 61; // three bright pixels (row, column) of a dark image

export const controls = [
  { name: "first", label: "rate of layer 1", min: 1, max: 9, step: 1, value: 2 },
  { name: "second", label: "rate of layer 2", min: 0, max: 9, step: 1, value: 2 },
  { name: "third", label: "rate of layer 3", min: 0, max: 9, step: 1, value: 2 },
  { name: "fourth", label: "rate of layer 4", min: 0, max: 9, step: 1, value: 0 },
  { name: "neighbour", label: "neighbouring output", value: false },
];

const range = (count) => Array.from({ length: count }, (_, k) => k);

// Rate 0 leaves the layer out.
const rates_of = ({ first, second, third, fourth }) => [first, second, third, fourth].filter((rate) => rate > 0);

// Number of paths from one output pixel to each pixel of a row: every layer adds the counts at -rate, 0 and +rate.
function paths(rates) {
  let counts = [1];
  for (const rate of rates) {
    const wider = new Array(counts.length + 2 * rate).fill(0);
    counts.forEach((count, i) => [0, rate, 2 * rate].forEach((shift) => { wider[i + shift] += count; }));
    counts = wider;
  }
  return counts;
}

// Three single bright pixels after as many averaging layers. The counts of rows and columns are multiplied.
function spots(counts) {
  const middle = (counts.length - 1) / 2, at = (offset) => counts[offset + middle] || 0;
  return range(SIDE).map((i) => range(SIDE).map((j) => SPOTS.reduce((sum, [row, column]) => sum + at(i - row) * at(j - column), 0)));
}

export function compute(values) {
  const rates = rates_of(values), counts = paths(rates), field = counts.length;
  const used = counts.filter((count) => count > 0).length;
  const shared = counts.filter((count, i) => count > 0 && counts[i - 1] > 0).length; // by this output and its right neighbour
  return { rates, counts, field, used, shared, spots: spots(counts) };
}

// The pixels on which output `start` depends in every row, from the output at the top to the image; and the taps as lines.
function cone(start, rates) {
  const levels = [new Set([start])], lines = [];
  rates.slice().reverse().forEach((rate, k) => {
    const below = new Set();
    for (const position of levels[k]) {
      for (const step of [-rate, 0, rate]) {
        below.add(position + step);
        lines.push([[position, rates.length - k], [position + step, rates.length - k - 1]]);
      }
    }
    levels.push(below);
  });
  return { levels, lines };
}

function draw_cone(panel, { colours }, values, { rates, field }) {
  const reach = (field - 1) / 2, radius = Math.max(1.6, Math.min(5, 150 / (field + 2)));
  const outputs = values.neighbour ? [[1, colours.orange, "4 3"], [0, colours.blue]] : [[0, colours.blue]];
  for (let x = -reach; x <= reach; x++) panel.circle(x, 0, radius, { fill: colours.paper, stroke: colours.muted, width: 1 });
  for (const [start, colour, dash] of outputs) {
    const { levels, lines } = cone(start, rates);
    for (const line of lines) panel.line(line, { stroke: colour, width: 0.8, dash });
    levels.forEach((positions, k) => [...positions].forEach((x) => {
      const y = rates.length - k, half = radius / Math.abs(panel.x(1) - panel.x(0)), high = radius / Math.abs(panel.y(1) - panel.y(0));
      if (start) panel.box(x - half, y - high, x + half, y + high, { fill: colour }); // squares for the neighbour
      else panel.circle(x, y, radius, { fill: colour });
    }));
  }
}

// Colours from light yellow to dark blue, for a value from 0 to 1; white stays for pixels without a path.
const shade = (value) => [250, 225, 120].map((light, k) => Math.round(light + ([10, 45, 95][k] - light) * value));

function draw_paths(panel, { colours }, { counts, field }) {
  const largest = Math.max(...counts) ** 2;
  panel.image(field, field, (i, j) => (counts[i] && counts[j] ? shade(((counts[i] * counts[j]) / largest) ** 0.6) : [255, 255, 255]));
  panel.box(0, 0, field, field, { stroke: colours.muted, width: 1 });
  if (field > 21) return;
  range(field).forEach((i) => range(field).forEach((j) => {
    if (!(counts[i] && counts[j])) panel.line([[j + 0.3, i + 0.3], [j + 0.7, i + 0.7]], { stroke: "#767676", width: 1 });
  }));
}

function draw_spots(panel, result) {
  const largest = Math.max(...result.spots.flat());
  panel.image(SIDE, SIDE, (i, j) => {
    const value = (result.spots[i][j] / largest) ** 0.6;
    return [8 + 245 * value, 20 + 225 * value, 45 + 90 * value];
  });
}

export function draw(figure, values, result) {
  const { colours } = figure, { rates, field } = result, reach = (field - 1) / 2;
  const yticks = [[0, "image"], ...rates.map((rate, k) => [k + 1, `rate ${rate}`])];
  const across = figure.panel("cone", { width: 280, height: 215, xlim: [-reach - 1.5, reach + 1.5], ylim: [-0.4, rates.length + 0.4], yticks, title: "One row of every map", xlabel: "position, output pixel at 0" });
  draw_cone(across, figure, values, result);
  draw_paths(figure.panel("paths", { width: 180, height: 215, xlim: [0, field], ylim: [field, 0], axes: false, equal: true, title: `Paths to ${field} x ${field} pixels` }), figure, result);
  draw_spots(figure.panel("spots", { width: 180, height: 215, xlim: [0, SIDE], ylim: [SIDE, 0], axes: false, equal: true, title: "Three pixels, averaged" }), result);
  figure.legend([
    ["used by the output", { fill: colours.blue }], ["not used: a hole", { fill: colours.paper, stroke: colours.muted }],
    ...(values.neighbour ? [["used by its right neighbour (squares)", { stroke: colours.orange, dash: "4 3" }]] : []),
    ["few paths", { fill: "rgb(250, 225, 120)" }], ["many paths", { fill: "rgb(10, 45, 95)" }], ["no path", { fill: "#ffffff", stroke: colours.muted, symbol: field <= 21 ? "\\" : "", ink: "#1b1b1b" }],
  ]);
}

export function describe(values, { rates, field, used, shared }) {
  const share = ((100 * used ** 2) / field ** 2).toFixed(0), holes = used === field ? "There are no holes." : `${field - used} of ${field} pixels in a row are holes.`;
  const neighbour = values.neighbour ? ` The output and its right neighbour share ${shared} of the ${used} pixels of a row that each of them uses.` : "";
  return `Rates ${rates.join(", ")}: the receptive field is ${field} x ${field} pixels, of which ${used ** 2} (${share}%) are used. ${holes}${neighbour}`;
}
