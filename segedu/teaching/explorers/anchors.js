// Anchors on a grid, and the IoU thresholds that label them object, background or neither (chapter 11).

const SIDE = 64; // of the scene in pixels
const OBJECTS = [[26, 0, 53, 23], [32, 28, 61, 57], [0, 30, 16, 50], [37, 36, 57, 56], [25, 16, 42, 33]]; // x1, y1, x2, y2
const NAMES = ["upper triangle", "large triangle", "square", "small triangle in front", "circle"];
const SIZES = { 17: [17], "12, 17, 24": [12, 17, 24] }; // in pixels: side of the square of the same area
const RATIOS = { 1: [1], "0.5, 1, 2": [0.5, 1, 2] }; // height over width
const [BACKGROUND, NEITHER] = [-1, -2]; // labels; from 0 on, the object to which an anchor is assigned
// Brightness of the scene, 32 x 32 bytes: each is the mean of 2 x 2 pixels.
const GREY =
  "X19bWVlYXV5eXlpeW1pdW2d/lZiYhnl5d3hmY2RdYVteYF9fXlxYVF1gX19hY3eJlJSLe3l2dXJzempjZ2ZoZlZaWl5hX2JkW1pbW2ONmZOBd3N2d3N2gJObYF1dYGNjYWZgWFhcXGNk" +
  "YF9fYGF4c3Z1dnV9iZeen5doZ2ZmZmVhX2VkYV9bYWJjYmVpaWtweXyFlZ2knqKkjmdkY2NmaV1fWF5laGplYmFgYF5jZmhxoKimp6SimZBxY2NjZmVgaGViY2BgYmhtbGxsamZoZGZx" +
  "n66nl4Z/g3Jqa2loamdkY2pla2hnaGNmbXBzdXJxcXFyhYqEgX2AbGJdYV9fYWZgYmVpbnBzbmtqbWtucn6Fhnx0foKHkJppbG1saWZubGloZmVobG13dnp4eXB9jJ+fj31wfK62p2xp" +
  "Z2ZoYWZobW5xdHJvb3Bydnh3bIGXo6iXgHBse6uaamFmaGNlYmdpaGhucXV5e3l6dG1sf4+doJGCa3Z1d4h2b3Btam1tbHJycG5ucHR4f3+Bb2NwgY2OgnJfbnFybmttYWZlXl5qa25x" +
  "en56d3d1d3VuVmdyeHhtZ1t0dW9qa2lwaGRpY3V3dG5vcnR6fX+GhH9WVmFlYGJTc7zZ0ceUi4WKqplucHanknt5dnV1dnl+fnxTT0xSS2il29/Xu46Hj7bCeWJvfpqNfnZ8f4GCfnl+" +
  "e3xyf3GLns/h3tOXjo+fwZ9raYR6m5SJn31ydXp7g3+EhIOjo5656OPcrpONk8C9b2pqqpWurZWtq4F3fHl7f3t9goylquHk4cyWkpCvxJBkX1+ffZCRgI6NhXp/hoSEgn97eZbK6eXe" +
  "p5hpfa+zbmhqapN/k6WIo7R9cnN4eX1+hYN/ieTp5b6XfEpsondlYWFmrZ2lq5aklH1+gHp4eHh2enyAu+PYmZ+PTleRa2tkZV6QhIedgX9ycHh6f4WBgYR8dHiA4KxlnphQT5B3bGxs" +
  "a3F2ia6TfXp8eHR5d3J8f4OBgnibblaMoGRIeXlmYWJjdXB3oXh2eHqBfnp7eHN1dnyAgqJ7U3SbdkhqhGZlY155e3t6dG9ub3F4en1+f358dnN3lIxRYJuLTFaNbG1sa3J0dnh5enl3" +
  "d3V2dHR4en6Cfnx1dKGdmJdNSYxsZ2Vkc25wc3N0d3h+fIB6eHRzdHJ6fXp9nMRxcGhXdnZiYWZ6eHt1c3JtcHN1dXZ+fn9+d3F0cnN3hnZzdXJvc3BnbHNyeXl2f3l4d3p1b3Nwdn1+" +
  "gHl2cmpvbGxmaGZpbWNrc3JtcHFydHl9fX+AfHhxcXV4e3l9dndvcG5samdkXmJ7d3t8eXJybW9yc3V7fYN+e3RvbnBwdHJ0dHFyb29tag==";

export const controls = [
  { name: "stride", label: "stride of the grid", options: [4, 8, 16], value: 8 },
  { name: "sizes", label: "sizes", options: Object.keys(SIZES), value: "12, 17, 24" },
  { name: "ratios", label: "height / width", options: Object.keys(RATIOS), value: "0.5, 1, 2" },
  { name: "positive_iou", label: "lowest IoU of an object", min: 0.3, max: 0.9, step: 0.05, value: 0.7 },
  { name: "force_best", label: "force the best anchors (rule 4)", value: true },
  { name: "x", label: "x of the location", min: 2, max: 62, step: 4, value: 46 },
  { name: "y", label: "y of the location", min: 2, max: 62, step: 4, value: 46 },
];

const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

function iou(a, b) {
  const intersection = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return intersection / (area(a) + area(b) - intersection);
}

// The anchors of one location, centred at 0: all sizes of the first ratio, then those of the next; each has the area size^2.
function cell_anchors(sizes, ratios) {
  return ratios.flatMap((ratio) => sizes.map((size) => {
    const [w, h] = [size / Math.sqrt(ratio), size * Math.sqrt(ratio)];
    return [-w / 2, -h / 2, w / 2, h / 2];
  }));
}

// The anchors of all locations, row by row, centred on the cells of the grid.
function grid_anchors({ stride, sizes, ratios }) {
  const locations = SIDE / stride, anchors = [];
  const cell = cell_anchors(SIZES[sizes], RATIOS[ratios]).map((anchor) => anchor.map((value) => value + stride / 2));
  for (let i = 0; i < locations; i++) {
    for (let j = 0; j < locations; j++) {
      for (const [x1, y1, x2, y2] of cell) anchors.push([x1 + stride * j, y1 + stride * i, x2 + stride * j, y2 + stride * i]);
    }
  }
  return anchors;
}

// The label of each anchor, from its IoUs with all objects: overlaps[anchor][object].
function match_anchors(overlaps, negative_iou, positive_iou, force_best) {
  const largest = OBJECTS.map((_, object) => Math.max(...overlaps.map((row) => row[object]))); // of all anchors
  return overlaps.map((row) => {
    const best = Math.max(...row), object = row.indexOf(best);
    const forced = force_best && row.some((value, k) => value > 0 && value === largest[k]);
    if (best >= positive_iou || forced) return object; // also a forced anchor is assigned to the object that it overlaps most
    return best < negative_iou ? BACKGROUND : NEITHER;
  });
}

export function compute(values) {
  const anchors = grid_anchors(values), overlaps = anchors.map((anchor) => OBJECTS.map((object) => iou(object, anchor)));
  const negative_iou = Math.min(0.3, values.positive_iou);
  const matches = match_anchors(overlaps, negative_iou, values.positive_iou, values.force_best);
  const counts = OBJECTS.map((_, object) => matches.filter((label) => label === object).length);
  const cell = { column: Math.floor(values.x / values.stride), row: Math.floor(values.y / values.stride) };
  return { anchors, best_iou: overlaps.map((row) => Math.max(...row)), matches, counts, negative_iou, cell };
}

const kind = (label) => (label >= 0 ? "object" : label === NEITHER ? "ignored" : "background");
const looks = ({ colours }) => ({
  object: { stroke: colours.blue, width: 2.5 }, ignored: { stroke: colours.ink, width: 1.2, dash: "2 3" },
  background: { stroke: colours.orange, width: 1.6, dash: "7 4" },
});

function draw_scene(panel) {
  const grey = atob(GREY);
  panel.image(32, 32, (i, j) => Array(3).fill(grey.charCodeAt(32 * i + j)), [0, 0, SIDE, SIDE]).setAttribute("opacity", 0.55);
}

// Indices of the anchors of the location that is shown.
function shown(values, { anchors, cell }) {
  const locations = SIDE / values.stride, each = anchors.length / locations ** 2;
  const first = (cell.row * locations + cell.column) * each;
  return Array.from({ length: each }, (_, k) => first + k);
}

function draw_location(panel, figure, values, result, set) {
  draw_scene(panel);
  const { stride } = values, look = looks(figure), each = result.anchors.length / (SIDE / stride) ** 2;
  for (let k = 0; k < result.anchors.length; k += each) { // a dot per location: the most positive label of its anchors
    const labels = result.matches.slice(k, k + each), location = k / each;
    const [x, y] = [((location % (SIDE / stride)) + 0.5) * stride, (Math.floor(location / (SIDE / stride)) + 0.5) * stride];
    if (labels.some((label) => label >= 0)) panel.circle(x, y, 4, { fill: figure.colours.blue, stroke: figure.colours.paper, width: 1 });
    else panel.circle(x, y, 1.6, { fill: labels.includes(NEITHER) ? figure.colours.ink : figure.colours.orange });
  }
  for (const index of shown(values, result)) panel.box(...result.anchors[index], look[kind(result.matches[index])]);
  const [x, y] = [(result.cell.column + 0.5) * stride, (result.cell.row + 0.5) * stride];
  panel.handle("location", x, y, { label: "location", step: stride, on_move: (px, py) => set({ x: px, y: py }) });
}

function draw_positives(panel, figure, { anchors, matches, counts }) {
  draw_scene(panel);
  const { colours } = figure, palette = [colours.blue, colours.orange, colours.green, colours.purple, colours.red];
  matches.forEach((label, index) => { if (label >= 0) panel.box(...anchors[index], { stroke: palette[label], width: 2 }); });
  OBJECTS.forEach((box, object) => {
    panel.box(...box, { stroke: colours.ink, dash: "6 4" });
    panel.text(box[0], box[1], counts[object] ? `${counts[object]}` : "none", { anchor: "start", dx: 3, dy: 14, size: 13, weight: 700, halo: true });
  });
}

function draw_overlaps(panel, figure, values, result) {
  const look = looks(figure);
  shown(values, result).forEach((index, k) => {
    const style = look[kind(result.matches[index])], value = result.best_iou[index];
    panel.box(k + 0.65, 0, k + 1.35, value, { ...style, width: 2, fill: result.matches[index] >= 0 ? style.stroke : "none" });
    panel.text(k + 1, value, value.toFixed(2), { dy: -5, size: 11, halo: true });
  });
  for (const limit of [result.negative_iou, values.positive_iou]) {
    panel.line([[0, limit], [20, limit]], { stroke: figure.colours.ink, width: 1.2, dash: "4 3" });
  }
}

export function draw(figure, values, result, set) {
  const square = { width: 324, height: 330, xlim: [-4, SIDE + 4], ylim: [SIDE + 4, -4], equal: true, xlabel: "x (pixels)", ylabel: "y (pixels)" };
  const locations = SIDE / values.stride, each = result.anchors.length / locations ** 2;
  draw_location(figure.panel("location", { ...square, title: `Drag the location: ${locations} x ${locations} x ${each}` }), figure, values,
    result, set);
  draw_positives(figure.panel("positives", { ...square, title: "All anchors labelled object" }), figure, result);
  const overlaps = figure.panel("overlaps", {
    width: 324, height: 220, xlim: [0.4, each + 0.6], ylim: [0, 1], title: "Anchors of the location", xlabel: "anchor",
    ylabel: "best IoU with an object",
  });
  draw_overlaps(overlaps, figure, values, result);
  const look = looks(figure), count = (name) => result.matches.filter((label) => kind(label) === name).length;
  figure.legend([
    [`object: ${count("object")}`, look.object], [`ignored: ${count("ignored")}`, look.ignored],
    [`background: ${count("background")}`, look.background],
    ["ground truth, with its number of anchors; thresholds", { stroke: figure.colours.ink, dash: "6 4" }],
  ]);
}

export function describe(values, { matches, counts }) {
  const count = (name) => matches.filter((label) => kind(label) === name).length;
  return `${matches.length} anchors: object ${count("object")}, ignored ${count("ignored")}, background ${count("background")}. ` +
    `Anchors of each object: ${NAMES.map((name, k) => `${name} ${counts[k]}`).join(", ")}.`;
}
