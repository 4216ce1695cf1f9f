// Greedy non-maximum suppression, one kept box per step, on twenty detections of five objects (chapter 11).

const SIDE = 64; // of the scene in pixels
const OBJECTS = [[26, 0, 53, 23], [32, 28, 61, 57], [0, 30, 16, 50], [37, 36, 57, 56], [25, 16, 42, 33]]; // x1, y1, x2, y2
// Detections [x1, y1, x2, y2, score], best score first: what a network might predict before suppression.
const DETECTIONS = [
  [-0.179, 30.809, 15.896, 49.535, 0.9334], [33.505, 27.713, 59.702, 55.760, 0.9013], [25.041, 14.404, 42.570, 33.168, 0.8677],
  [40.145, 36.364, 57.148, 55.564, 0.8562], [26.247, 3.493, 54.432, 22.909, 0.8393], [29.110, 0.022, 54.290, 24.826, 0.7977],
  [26.836, -0.238, 53.936, 24.456, 0.7926], [29.365, 25.253, 63.678, 58.308, 0.7755], [37.106, 36.398, 59.528, 53.797, 0.7667],
  [37.643, 38.613, 58.495, 56.595, 0.7630], [-1.693, 29.926, 14.158, 47.614, 0.7543], [25.031, -1.268, 50.390, 23.594, 0.7526],
  [24.593, 14.211, 41.351, 30.254, 0.7343], [21.010, 16.712, 40.944, 33.067, 0.7326], [-0.916, 26.891, 15.436, 47.176, 0.7093],
  [23.475, 16.101, 41.044, 35.201, 0.6958], [27.962, 30.519, 66.153, 55.616, 0.6791], [-1.245, 32.777, 16.158, 54.577, 0.6725],
  [38.296, 37.832, 55.899, 55.150, 0.6496],
];
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
const [WIDTH, HEIGHT] = [28.3, 27.5]; // of the detection that can be moved

export const controls = [
  { name: "iou_threshold", label: "IoU threshold", min: 0.1, max: 0.9, step: 0.05, value: 0.5 },
  { name: "step", label: "number of steps", min: 0, max: 20, step: 1, value: 1 },
  { name: "x", label: "x of your box", min: 0, max: 64, step: 0.5, value: 39.5 },
  { name: "y", label: "y of your box", min: 0, max: 64, step: 0.5, value: 37.5 },
  { name: "score", label: "score of your box", min: 0.05, max: 0.99, step: 0.01, value: 0.42 },
];

const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

function iou(a, b) {
  const intersection = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return intersection / (area(a) + area(b) - intersection);
}

// All detections with yours among them, best score first: {box, score, yours}.
function ranked({ x, y, score }) {
  const yours = { box: [x - WIDTH / 2, y - HEIGHT / 2, x + WIDTH / 2, y + HEIGHT / 2], score, yours: true };
  const others = DETECTIONS.map(([x1, y1, x2, y2, confidence]) => ({ box: [x1, y1, x2, y2], score: confidence, yours: false }));
  return [...others, yours].sort((a, b) => b.score - a.score);
}

// How many objects have a kept box with an IoU of at least 0.5; a box counts only for the object that it overlaps most.
function count_detected(boxes) {
  const detected = new Set();
  for (const box of boxes) {
    const overlaps = OBJECTS.map((object) => iou(object, box)), best = Math.max(...overlaps);
    if (best >= 0.5) detected.add(overlaps.indexOf(best));
  }
  return detected.size;
}

// Lists of ranks, 0 for the best score. Each step keeps the first box that waits and removes those that overlap it too much.
export function compute(values) {
  const boxes = ranked(values).map(({ box }) => box);
  let waiting = boxes.map((_, rank) => rank), kept = [], removed_before = [], removed = [];
  while (waiting.length > 0 && kept.length < values.step) {
    const [best, ...others] = waiting;
    const overlaps = (rank) => iou(boxes[best], boxes[rank]) > values.iou_threshold;
    removed_before = [...removed_before, ...removed];
    removed = others.filter(overlaps); // removed boxes remove nothing themselves
    waiting = others.filter((rank) => !overlaps(rank));
    kept = [...kept, best];
  }
  const last = kept.length ? boxes[kept[kept.length - 1]] : null;
  const iou_with_last = last ? boxes.map((box) => iou(last, box)) : [];
  return { kept, removed_before, removed, waiting, detected: count_detected(kept.map((rank) => boxes[rank])), iou_with_last };
}

// The look of each state; a dash repeats the meaning of its colour.
const styles = ({ colours }) => ({
  waiting: { stroke: colours.ink, width: 1 },
  removed_before: { stroke: colours.muted, width: 1, dash: "1.5 3" },
  removed: { stroke: colours.red, width: 2, dash: "6 4" },
  kept: { stroke: colours.blue, width: 3 },
});

function draw_image(panel, figure, values, result, set) {
  const grey = atob(GREY);
  panel.image(32, 32, (i, j) => Array(3).fill(grey.charCodeAt(32 * i + j)), [0, 0, SIDE, SIDE]).setAttribute("opacity", 0.55);
  const list = ranked(values);
  for (const [state, style] of Object.entries(styles(figure))) {
    for (const rank of result[state]) panel.box(...list[rank].box, style);
  }
  for (const rank of result.kept) {
    const [x1, y1] = list[rank].box;
    panel.text(x1, y1, `${rank + 1}`, { dx: 2, dy: -4, halo: true, weight: 600, fill: figure.colours.blue });
  }
  panel.handle("yours", values.x, values.y, { label: "centre of your box", step: 0.5, on_move: (x, y) => set({ x, y }) });
}

function draw_scores(panel, figure, values, result) {
  const list = ranked(values), last = result.kept[result.kept.length - 1];
  for (const [state, style] of Object.entries(styles(figure))) {
    for (const rank of result[state]) {
      const { score, yours } = list[rank];
      panel.box(0, rank + 0.65, score, rank + 1.35, { ...style, width: Math.min(style.width, 2),
        fill: state === "kept" ? figure.colours.blue : "none" });
      if (yours) panel.text(0, rank + 1, "yours", { anchor: "start", dx: 5, size: 11, weight: 600, halo: true });
      const overlap = result.iou_with_last[rank];
      if (rank > last && overlap > 0) panel.text(score, rank + 1, overlap.toFixed(2), { anchor: "start", dx: 5, size: 11, fill: style.stroke });
    }
  }
}

export function draw(figure, values, result, set) {
  const image = figure.panel("image", {
    width: 324, height: 340, xlim: [-4, SIDE + 4], ylim: [SIDE + 4, -4], equal: true,
    title: "Drag your box by its centre", xlabel: "x (pixels)", ylabel: "y (pixels)",
  });
  draw_image(image, figure, values, result, set);
  const last = result.kept.length ? result.kept[result.kept.length - 1] + 1 : 0;
  const scores = figure.panel("scores", {
    width: 324, height: 340, xlim: [0, 1.12], ylim: [20.6, 0.4],
    title: last ? `Step ${result.kept.length}: keep ${last}, remove ${result.removed.length}` : "Nothing is decided yet",
    xlabel: last ? `score; beside it the IoU with box ${last}` : "score", ylabel: "detection, best first",
  });
  draw_scores(scores, figure, values, result);
  const style = styles(figure);
  figure.legend([
    [`kept: ${result.kept.length}`, style.kept], [`removed in this step (IoU above ${values.iou_threshold}): ${result.removed.length}`,
      style.removed],
    [`removed before: ${result.removed_before.length}`, style.removed_before], [`waiting: ${result.waiting.length}`, style.waiting],
  ]);
}

export function describe({ iou_threshold }, { kept, removed_before, removed, waiting, detected }) {
  const numbers = kept.map((rank) => rank + 1).join(", ") || "none";
  return `Non-maximum suppression at an IoU of ${iou_threshold}; steps: ${kept.length}. Kept: ${numbers}. Removed in this step: ${removed.length}, ` +
    `before: ${removed_before.length}; waiting: ${waiting.length}. The kept boxes detect ${detected} of ${OBJECTS.length} objects.`;
}
