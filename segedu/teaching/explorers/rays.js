// StarDist's rays: the star polygon of one pixel of a cell, and how well it describes the cell (chapter 9).

const SIZE = 64; // side of the picture in pixels
const [ROUND, OVAL, LONG, BENT] = ["round", "oval", "long", "C-shaped"];
const MIDDLE = { [ROUND]: [31, 32], [OVAL]: [31, 31], [LONG]: [31, 31], [BENT]: [43, 44] }; // y, x: central pixel of each cell
const [MIN_RAYS, MAX_RAYS] = [3, 64];
const EPS = 1e-10; // pixels whose centre is on the outline belong to the polygon

export const controls = [
  { name: "n_rays", label: "number of rays", min: MIN_RAYS, max: MAX_RAYS, step: 1, value: 8 },
  { name: "cell", label: "cell", options: [ROUND, OVAL, LONG, BENT], value: ROUND },
  { name: "dx", label: "pixel: to the right", min: -32, max: 32, step: 1, value: 0 },
  { name: "dy", label: "pixel: down", min: -32, max: 32, step: 1, value: 0 },
];

// Whether the position (x, y), measured from the centre of the picture, is inside a cell.
function inside(cell, x, y) {
  const turn = 0.5; // no edge may be parallel to the pixel grid
  const along = x * Math.cos(turn) + y * Math.sin(turn), across = y * Math.cos(turn) - x * Math.sin(turn);
  if (cell === ROUND) return Math.hypot(y, x) < 17 * (1 + 0.06 * Math.cos(3 * Math.atan2(y, x)));
  if (cell === OVAL) return Math.hypot(along / 25, across / 13) < 1;
  if (cell === LONG) return Math.hypot(Math.max(Math.abs(along) - 22, 0), across) < 4.5; // a rod with round ends
  const ring = Math.abs(Math.hypot(along, across) - 18), open = Math.abs(Math.atan2(across, along)) >= 2.3;
  const tips = Math.hypot(along - 18 * Math.cos(2.3), Math.abs(across) - 18 * Math.sin(2.3));
  return (open ? tips : ring) < 6;
}

const range = (count) => Array.from({ length: count }, (_, k) => k);
const masks = new Map();

function cell_mask(cell) {
  if (!masks.has(cell)) masks.set(cell, range(SIZE).map((i) => range(SIZE).map((j) => inside(cell, j - SIZE / 2 + 0.5, i - SIZE / 2 + 0.5))));
  return masks.get(cell);
}

// Round halves to the even neighbour, as Python does.
function round(value) {
  const near = Math.floor(value + 0.5);
  return near - value === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

// Distance from a pixel to the border along each ray: steps of length 1 until a step leaves the cell, then one step back and half a
// pixel forward. Single precision (Math.fround), as in StarDist's code: rounding decides which pixel a step along a diagonal ends on.
function star_distances(mask, [y0, x0], n_rays) {
  if (!mask[y0][x0]) return Array(n_rays).fill(0);
  return range(n_rays).map((k) => {
    const angle = Math.fround(k * Math.fround((2 * Math.PI) / n_rays)), dy = Math.fround(Math.sin(angle)), dx = Math.fround(Math.cos(angle));
    let [y, x, steps] = [0, 0, 0], is_inside = true;
    while (is_inside) {
      [y, x, steps] = [Math.fround(y + dy), Math.fround(x + dx), steps + 1];
      const [i, j] = [round(Math.fround(y0 + y)), round(Math.fround(x0 + x))];
      is_inside = i >= 0 && i < SIZE && j >= 0 && j < SIZE && mask[i][j];
    }
    return Math.hypot(y, x) - (1 - 0.5 / Math.max(Math.abs(dy), Math.abs(dx)));
  });
}

// Corners (y, x) of the star polygon.
function star_polygon(distances, [y, x]) {
  return distances.map((distance, k) => {
    const angle = (2 * Math.PI * k) / distances.length;
    return [y + distance * Math.sin(angle), x + distance * Math.cos(angle)];
  });
}

// The pixels whose centre is inside the polygon. Only the edge between the two rays beside the pixel matters.
function rasterize(corners, [y0, x0], angles) {
  const [ys, xs] = [0, 1].map((axis) => corners.map((corner) => corner[axis])), n_rays = corners.length, covered = [];
  const [top, bottom] = [Math.max(Math.ceil(Math.min(...ys) - EPS), 0), Math.min(Math.floor(Math.max(...ys) + EPS), SIZE - 1)];
  const [left, right] = [Math.max(Math.ceil(Math.min(...xs) - EPS), 0), Math.min(Math.floor(Math.max(...xs) + EPS), SIZE - 1)];
  for (let i = top; i <= bottom; i++) {
    for (let j = left; j <= right; j++) {
      const sector = Math.floor((angles[i][j] * n_rays) / (2 * Math.PI)), k = (sector + n_rays) % n_rays, next = (k + 1) % n_rays;
      const [ay, ax, ey, ex] = [ys[k] - y0, xs[k] - x0, ys[next] - ys[k], xs[next] - xs[k]];
      if ((j - x0) * ey - (i - y0) * ex <= ax * ey - ay * ex + EPS) covered.push([i, j]);
    }
  }
  return covered;
}

function star_fit(mask, pixel, n_rays, angles, area) {
  const distances = star_distances(mask, pixel, n_rays), corners = star_polygon(distances, pixel), covered = rasterize(corners, pixel, angles);
  const both = covered.filter(([i, j]) => mask[i][j]).length;
  return { distances, corners, covered, iou: both / (area + covered.length - both), missed: area - both, outside: covered.length - both };
}

export function compute({ n_rays, cell, dx, dy }) {
  const mask = cell_mask(cell), area = mask.flat().filter(Boolean).length;
  const pixel = [MIDDLE[cell][0] + dy, MIDDLE[cell][1] + dx].map((value) => Math.min(Math.max(value, 0), SIZE - 1)); // y, x
  const angles = range(SIZE).map((i) => range(SIZE).map((j) => Math.atan2(i - pixel[0], j - pixel[1]))); // of each pixel, seen from this one
  const ious = range(MAX_RAYS - MIN_RAYS + 1).map((k) => star_fit(mask, pixel, MIN_RAYS + k, angles, area).iou);
  return { pixel, area, ...star_fit(mask, pixel, n_rays, angles, area), ious };
}

// Fill pixels with one path of runs along each row; pixel (i, j) is centred at x = j, y = i.
function fill_pixels(panel, chosen, { fill, opacity }) {
  let path = "";
  for (let i = 0; i < SIZE; i++) {
    for (let j = 0; j < SIZE; j++) {
      if (!chosen(i, j)) continue;
      const start = j;
      while (j < SIZE && chosen(i, j)) j++;
      path += `M${panel.x(start - 0.5)} ${panel.y(i - 0.5)}H${panel.x(j - 0.5)}V${panel.y(i + 0.5)}H${panel.x(start - 0.5)}Z`;
    }
  }
  if (path) panel.paint("path", { d: path }, { fill, stroke: fill, width: 0.7, opacity }); // the stroke closes the seams between rows
}

// One stroke per pixel, from (x, y) to (x + dx, y + dy), as a second sign beside the colour.
function mark_pixels(panel, pixels, [dx, dy], style) {
  const path = pixels.map(([i, j]) => `M${panel.x(j - dx / 2)} ${panel.y(i - dy / 2)}L${panel.x(j + dx / 2)} ${panel.y(i + dy / 2)}`).join("");
  if (path) panel.paint("path", { d: path }, style);
}

function draw_rays(panel, { colours }, values, { pixel, corners }, set) {
  const mask = cell_mask(values.cell), [y, x] = pixel;
  fill_pixels(panel, (i, j) => mask[i][j], { fill: colours.sky, opacity: 0.5 });
  for (const [cy, cx] of corners) panel.line([[x, y], [cx, cy]], { stroke: colours.muted, width: 1.2 });
  panel.line(corners.map(([cy, cx]) => [cx, cy]), { stroke: colours.ink, width: 2 }, true);
  const [my, mx] = MIDDLE[values.cell];
  panel.handle("pixel", x, y, { label: "pixel", step: 1, on_move: (px, py) => set({ dx: Math.round(px) - mx, dy: Math.round(py) - my }) });
}

function draw_outcomes(panel, { colours }, { cell }, { covered }) {
  const mask = cell_mask(cell), inside_polygon = new Set(covered.map(([i, j]) => i * SIZE + j));
  const outcome = (i, j) => (mask[i][j] ? (inside_polygon.has(i * SIZE + j) ? "both" : "missed") : inside_polygon.has(i * SIZE + j) ? "outside" : "");
  const pixels = range(SIZE * SIZE).map((k) => [Math.floor(k / SIZE), k % SIZE]),
    looks = { both: colours.green, missed: colours.blue, outside: colours.orange };
  for (const [name, fill] of Object.entries(looks)) fill_pixels(panel, (i, j) => outcome(i, j) === name, { fill });
  mark_pixels(panel, pixels.filter(([i, j]) => outcome(i, j) === "missed"), [0.8, -0.8], { stroke: colours.paper, width: 1 });
  mark_pixels(panel, pixels.filter(([i, j]) => outcome(i, j) === "outside"), [0.3, 0], { stroke: colours.paper, width: 1.5 });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, square = { width: 214, height: 290, axes: false, equal: true, xlim: [-0.5, SIZE - 0.5], ylim: [SIZE - 0.5, -0.5] };
  draw_rays(figure.panel("rays", { ...square, title: "Drag the pixel" }), figure, values, result, set);
  draw_outcomes(figure.panel("outcomes", { ...square, title: "Polygon and cell, in pixels" }), figure, values, result);
  const curve = figure.panel("curve", {
    width: 214, height: 250, xlim: [0, MAX_RAYS], ylim: [0, 1.02], title: `IoU ${result.iou.toFixed(3)}`, xlabel: "number of rays",
    ylabel: "IoU of polygon and cell",
  });
  curve.line(result.ious.map((iou, k) => [MIN_RAYS + k, iou]), { stroke: colours.blue });
  curve.circle(values.n_rays, result.iou, 6, { fill: colours.ink });
  figure.legend([
    [`in both: ${result.area - result.missed} pixels`, { fill: colours.green }], [`missed (strokes): ${result.missed}`, { fill: colours.blue }],
    [`outside (dots): ${result.outside}`, { fill: colours.orange }], ["star polygon", { stroke: colours.ink }],
  ]);
}

export function describe({ n_rays, cell }, { iou, area, missed, outside, ious, distances }) {
  if (Math.max(...distances) === 0) return `The pixel is outside the ${cell} cell, in the background: it has no rays, and no polygon.`;
  return `A pixel of a ${cell} cell with ${n_rays} rays: the IoU of polygon and cell is ${iou.toFixed(3)}; ${missed} of ${area} pixels are ` +
    `missed, ${outside} are outside. ` +
    `The largest IoU with up to ${MAX_RAYS} rays from this pixel is ${Math.max(...ious).toFixed(3)}.`;
}
