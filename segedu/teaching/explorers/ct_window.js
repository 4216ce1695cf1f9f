// Level and width of an intensity window: how Hounsfield units of a CT slice become grey values (chapter 16).

const [ROWS, COLUMNS] = [48, 60];
const CLASSES = ["background", "lung", "liver", "spleen", "kidney", "spine", "tumour"];
// Hounsfield units of a synthetic axial slice, one byte per voxel: a byte b stands for 8 b - 1024.
const HU =
  "AAAJBgYDAwECAQEHAwACBgAGAwMAAAACAAAABwQDAQABBgYAAQAACAYBAgcDBAABAgkEAwUJAwcCAAYCAwQHAwQEAQAAAgIFAgEAAwQFBgMCBAYCAQQGBgMCAwEEAwMAAwEDBAUBBAgB" +
  "AQIABQoAAgMFAAYFAwgEBwQIAwgGAwQAAAEAAQYEAwUAAAYEAwUIAwYGBQMDAgMEAAADAgEGAgMDBAUBBAMABgkDAwEAAQMDBwIBAAEEBAMDAAMDAQABAAAABwEDAgIEAAAGBgUFBAIB" +
  "AgQCAwAHAwMCBgQAAgMIAQQAAgYDBAMAAAMDAgMDAgIABAIAAgEAAAQDBQAABwYBAAAEAAMEAwYDAQYCBgYEBwMCAwEBAQACBgABAQQEBQMHBQUBBAIFBQEDAAIDAgQFAgQDAgADCAUE" +
  "BgECAAQDBAMAAQMHBAEABwIMAwUGBAYEAQAIAAECAgIABAAABAMAAgcIAwMAAwYDBAIEBQMEAgABBAYCBAUCAAMEBQIEBQQDBwEAAQMCAAIFAAYFAwIFAwUHBQEFAwMBAQAAAAEDAQcC" +
  "BAUABQECAQAHAQAABAQBBAQEAwQGAAACAgUIBgQBBgEAAAIBAwoEAgIEAwMDAQACAgEDAQQCAwQDAAMGAAABBAAAAAIGAQECAAADBwUEAwQEAwgFCC05QD05OTklCwoHBgYAAwAFBQAA" +
  "AAQEBQQEBgUDBAYDAAAHAAMEAwMAAwcHAQYDAwUFBgIGBgEuP2BwcW5udHBzbm5xcnBnPjgIAgADBgEAAwEDBAQABAACBgYAAAEEAgAABgUEAgAFAQQEBgIFAQYgQWtxc3V2c3Bzc3d0" +
  "dnV1cXRycnNwXDkQCwUBBAEFBAUDAwYBBAoCAQIFCQYHBwQFBwYGAAMCAgQJKlNxcXR1c3NvcHd3c3h2dnR2c3h0cXN2cHBtWT0LBgEDBAIDBQEFAwYBAAYCCwYJCgUDAQACAwYICyRY" +
  "dHZ3cnJ3cnB3houDgYKHiI2Kg3h2cnZ5dXB0dHJrNwsFAAEBAAUFAwIAAAAEAgQDBQIAAQEDBAUKUW9zdHJxcn6RnJ6cnZCQjpKWlIyVq6Wgi4l6c3JxdXJwcGwmCgUAAQIFAQIIAwAE" +
  "AgQFBwcDBQcBCSVicnR3c3OBk5+WmH2CcEYqHCFUVB0mUFNvkJiWjH90dHR1cnFvTgYBAwMBAQMFAwMGAgABBQIBBgMGL3BudHRxfI+Vin2Fh42Kh2FCVoKBg3s0GB0gHDVhiIqPg3d0" +
  "dHF0clciBQQEAAAGAwEHBQEGAQADAwZFcHF0dHuCg4SCiJKOkY6KhHN4foKGhoR9MhgaIDVBV3SIiomEcXZ4cHVzIwQEAAIGBQUBAQUGAgAACjtycXR4goSDfYCJi5GPko2LiISFfoGF" +
  "g4KCYyAlNkxac313e4CJi3h3dHV4aA0HBgIEAQICAgMFBAUCIHBxcneFi32CiIqLj46Pi42KioeDhYCEh4WDgkM7UFt2gYF/fXp9hIeCeXBycVcJBgUGAQACCQYCAgUIa3ZycIiLgIKH" +
  "i5KNjouHi42LhYWAgX+Af4WGgmtOV3F/goaDg3t1dYeIhXRwdHApCQABAAAECgEAAQZGdXRzgZWGiYqLjIuNioqFjIeDhIqFgoeIgX56gH9abHt/ho2LgHpxdXqFhXtycndkCAAFBAYD" +
  "BQAAAQdsdXZxjYyHjI2LioeIioeGi4eAhYmIgX2Egn5/fXt0dnl9h4mIg3p2eHR1fYJxcHRyJQMABAMBBAEABSpsbniDk4OJjYyQiYWEiI2Jh4iAioyLjYJ/gIuGe3p2c3h/goGEeXRx" +
  "dHd1eYR8c3V2PgUHBgQFBQIBBDlucnKNoYKMk5OSiYSDiIOHhISGjJCRjYd+kJCPfnt2c3Z+e3l6dXB3eHd4c4SHdHl6ZwYBBgMHBQMAAj1vc3GOnIGNkYyOhYSGh4SGhISGiY+PkoOC" +
  "j5OOhn15eXNxc4KFf3J4enZyeICHcnRzbQMGBwQHBAIAADlscnGJm4CKjI2NhYOBf4KFh4eDhYaIgYF+jZeNfXt5eHRweo6OlIZ3eHFyeoOKenNybwYICAMHBAUAAyhvcHOGnIWKio2K" +
  "ioeGg4SCg4KCgIGFiZWkoZR6f3l4dXF0eI2TkJKPc3BzeIaRenV0cwQJBQEFAAQFCQZwdHJ2oZyJjYqJj4eFhoWGgoGEhoSNn6Oip6Odg357aXV3epCUl5STiXh0b4WRdXV1bwcFBAQD" +
  "AAMGBABDdHJzgaeiiI6MkoyRjIuLiouHhoKUpKmmpqSlmoGAU2tydZCWlZOWj4F3e5WPe3VzTwMDBAIACAYAAAELb3ZxdIekm32Kj4yNio6OjouLj4SXp6ilpaShoYWCRFZodoSSkZGR" +
  "j497lJ99eXlwOwABAwECBQYDAwMHJHNzd3V+maKHf4+Ni4yLiIeJjYeUpKGho6KjpolzQTZQY3uNkpGMkYmTn450dnZpCQMDBAYABgUIAwMEBz1tb3F0fZSil4OEio2OjImMioWLm6Wo" +
  "qKagnYiGg2pJQ09rfIiHg5qnlHNzc3E6CAcAAwMAAAAJAQIDBgk8cXN4enGAmKWbin1+g4qMh4eJh5iel5yei4eFhYR/OilFTVZ6n56LdHJ7c1gICQcAAQAAAQMEAQUDAgEGI211c29v" +
  "d4CJnJucjIaGiY2IhpmGhIOmiIWGh4SIch9DX5Kckn95dHB1bhsDAwQCAQcCBQEAAwkIAwAEBiJTbHJxdHh0eoCJjIiHiIWFhZ6lhoWtiYWFiYaHh4+Vl4uCc3V0c3BmJQQDBAACBAgH" +
  "AwEBAAMECAYDAwYKI2hud3V1dHJ2e4mHiIeHh4u1r6+xiYeFiIaCh397dXJzdXR0dFMbAQACAAMABAQHBAIGBAMDAgMAAgQEBAooU3N1dXR2c3aDhoiHhoOWrrCahoWHhIeDiHNwbm90" +
  "cnJwQgcIAwADAgUDBQQFBAMGBQQFBAQDAQEAAAYHCCI+bW5xcXJ1e4F+fXV1gY92foOJh4R7dnRwc3R2cEoXBAUEBQAFBQECAQMFBgYFBQQGBAMGAgMABAEGAAEJBAg0PG5zc3NzdHFx" +
  "cHR2dnV3dXJxcW1wb2ZBEgEEAQEAAgAFBAcGAwABAwQDAQEHBAAAAAEBBQQCAAEBBAUGCQoHLDtBV3BvcXJ2dm90cnRzYDk2CQoFAAAAAgAAAAUGCQQJCgQBAAIBAgQBBQQDAwcGAwAC" +
  "BwoGBycuMi43Vl9cWltgSzk7NDM1EQsLCQMAAQMDAQMABAQDAgYDBAYGBAYAAwgEAQcDAQIFAwUFBggzNFNXXFhcV1dXW15bW1xbXFxbXFlfWllbUS8pKQYECQcFAwQFAgMEAAMBAwUK" +
  "AQMDAAYAAQADDi04W1xhX1o5NC4bBggEBQcGBgcDBQYIDCkxLjBTWFxbWF1aWUAsLBYEBQcIAQADBQQFAAMBAggKLDVZYFtZRjAfCgUFBAkDAAADBwQBBAQCAAUEAgQCBAYGBQURMjMz" +
  "VlxZWFdZW1IzLiwGBwcDAQEWNUldXV1KMhoFBgAEBwUDAgMBAgUGAQEEBgEGAwAABAYDBAIGBwICBQMBBgcKLi8xUVtXWl1cXUQfBC9XXV44KgYDBgMCAwAABwQGBQAAAAAEAwcFAwIH" +
  "BQQDCAYHAgIDAgAAAgYAAgIDAgADCQUFGy4yVlsxBRkpFgQFAgMBAAMAAgICBgYJAwAEAAABAAYEBgAABwIDBwIAAgABAwABAAICAQMEAwUJBAAAAgUGBQkDBAIGBAMAAgUHAgUGBAYC" +
  "AAUFBwEAAQAHBgYFAgIAAwMDAAQAAgUFAgAAAwEAAAUFCAoHBAQACAAAAAIF";
// Class of each voxel, row by row: a digit is an index into CLASSES.
const LABELS =
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000001111111100000000000000000000000000" + "000000000000000000000222201000001111110000000000000000000000" +
  "000000000000000000222222220000000111111000000000000000000000" + "000000000000000022222222220000000011100000000000000000000000" +
  "000000000000002222222222222000000011000000000000000000000000" + "000000000000022222222222666000000000000000000000000000000000" +
  "000000000000222222222266666600000000000000000000000000000000" + "000000000002222266666666666600000000000000000000000000000000" +
  "000000000002222666666666000060000000000000000000000000000000" + "000000000022222666666666000000000000000000000000000000000000" +
  "000000000022222666666666600060000000000003000000000000000000" + "000000000002222666666666666660000000000033330000000000000000" +
  "000000000002222266666666666655500000000033333000000000000000" + "000000000002222226666666666555555000000033333300000000000000" +
  "000000000000222222222226665555555500000033333300000000000000" + "000000000000002222222222225555555500100033333330000000000000" +
  "000000000000000222222220000555555500110003333330000000000000" + "000000000000000000222200000555555500001100333000000000000000" +
  "000000000000000000000000000005055000000111000000000000000000" + "000000000000000000000000000000005000000011000000000000000000" +
  "000000000000000000000000000005005000000000000000000000000000" + "000000000000000000000000000005555000000000000000000000000000" +
  "000000000000000000000000000005555000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000" +
  "000000000000000000000000000000000000000000000000000000000000" + "000000000000000000000000000000000000000000000000000000000000";

export const controls = [
  { name: "level", label: "level (HU)", min: -1000, max: 1000, step: 10, value: 40 },
  { name: "width", label: "width (HU)", min: 20, max: 2000, step: 10, value: 400 },
  { name: "x", label: "column of the voxel", min: 0, max: COLUMNS - 1, step: 1, value: 18 },
  { name: "y", label: "row of the voxel", min: 0, max: ROWS - 1, step: 1, value: 22 },
  { name: "outline", label: "outline the organs", value: false },
];

const SLICE = [...atob(HU)].map((byte) => 8 * byte.charCodeAt(0) - 1024);
const ORGANS = [...new Set(LABELS)].map(Number).filter((label) => label > 0).sort((a, b) => a - b); // of this slice

// Values up to level - width / 2 become black (0), values from level + width / 2 white (1), and values between are mapped linearly.
const apply_window = (hu, level, width) => Math.min(1, Math.max(0, (hu - level) / width + 0.5));

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function compute({ level, width, x, y }) {
  const grey = SLICE.map((hu) => apply_window(hu, level, width)), index = y * COLUMNS + x;
  const organs = Object.fromEntries(ORGANS.map((label) => {
    const own = SLICE.map((_, k) => k).filter((k) => Number(LABELS[k]) === label), clipped = own.filter((k) => grey[k] === 0 || grey[k] === 1);
    return [CLASSES[label], { hu: mean(own.map((k) => SLICE[k])), grey: mean(own.map((k) => grey[k])), clipped: clipped.length / own.length }];
  }));
  return { grey, voxel: { hu: SLICE[index], grey: grey[index], class: CLASSES[Number(LABELS[index])] }, organs,
    contrast: organs.liver.grey - organs.tumour.grey };
}

function draw_slice(panel, { colours }, { x, y, outline }, { grey }, set) {
  panel.image(ROWS, COLUMNS, (i, j) => Array(3).fill(255 * grey[i * COLUMNS + j]));
  if (outline) {
    let path = "";
    for (let i = 0; i < ROWS; i++) {
      for (let j = 0; j < COLUMNS; j++) {
        const here = LABELS[i * COLUMNS + j];
        if (j + 1 < COLUMNS && here !== LABELS[i * COLUMNS + j + 1]) path += `M${panel.x(j + 1)} ${panel.y(i)}V${panel.y(i + 1)}`;
        if (i + 1 < ROWS && here !== LABELS[(i + 1) * COLUMNS + j]) path += `M${panel.x(j)} ${panel.y(i + 1)}H${panel.x(j + 1)}`;
      }
    }
    panel.paint("path", { d: path }, { stroke: colours.orange, width: 1.8 });
    for (const label of ORGANS) {
      const own = SLICE.map((_, k) => k).filter((k) => Number(LABELS[k]) === label), column = mean(own.map((k) => (k % COLUMNS) + 0.5));
      panel.text(column, Math.floor(own[0] / COLUMNS), CLASSES[label], { size: 11, weight: 600, halo: true }); // at its first row
    }
  }
  panel.handle("voxel", x + 0.5, y + 0.5, { label: "voxel", step: 1, on_move: (px, py) => set({ x: Math.floor(px), y: Math.floor(py) }) });
}

// How many voxels have each value (logarithmic), and the line that maps values to grey.
function draw_histogram(panel, { colours }, { level, width }, { voxel }, set) {
  const low = -1050, step = 50, counts = Array(42).fill(0);
  for (const hu of SLICE) counts[Math.floor((hu - low) / step)]++;
  const most = Math.log10(Math.max(...counts) + 1);
  counts.forEach((count, k) => {
    if (count) panel.box(low + step * k, 0, low + step * (k + 1), Math.log10(count + 1) / most, { fill: colours.sky, opacity: 0.5 });
  });
  const [black, white] = [level - width / 2, level + width / 2];
  panel.line([[-1500, 0], [black, 0], [white, 1], [1500, 1]], { stroke: colours.red, width: 2.5 });
  panel.line([[voxel.hu, 0], [voxel.hu, voxel.grey]], { stroke: colours.ink, width: 1.5, dash: "3 3" });
  panel.circle(voxel.hu, voxel.grey, 5, { fill: colours.ink });
  const keep_white = (x) => set({ width: white - x, level: (white + x) / 2 }), keep_black = (x) => set({ width: x - black, level: (x + black) / 2 });
  if (black >= -1050) panel.handle("black", black, 0, { label: "highest value that is black", step: 20, on_move: keep_white });
  if (white <= 1050) panel.handle("white", white, 1, { label: "lowest value that is white", step: 20, on_move: keep_black });
  panel.handle("level", level, 0.5, { label: "level of the window", step: 10, on_move: (x) => set({ level: x }) });
}

function draw_organs(panel, { colours }, { organs }) {
  Object.entries(organs).forEach(([name, { hu, grey, clipped }], k) => {
    const shade = Math.round(255 * grey);
    panel.text(0, k + 0.5, `${name}, ${hu.toFixed(0)} HU`, { anchor: "start" });
    panel.box(5.2, k + 0.1, 7, k + 0.9, { fill: `rgb(${shade}, ${shade}, ${shade})`, stroke: colours.ink, width: 1.5 });
    panel.text(8.1, k + 0.5, grey.toFixed(2));
    panel.text(10.6, k + 0.5, `${(100 * clipped).toFixed(0)} %`);
  });
  panel.text(6.1, -0.35, "mean grey", { size: 11, weight: 600 });
  panel.text(10.6, -0.35, "clipped", { size: 11, weight: 600 });
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { voxel } = result;
  const slice = figure.panel("slice", { width: 324, height: 390, axes: false, equal: true, xlim: [0, COLUMNS], ylim: [ROWS, 0],
    title: "Axial slice: drag the voxel" });
  draw_slice(slice, figure, values, result, set);
  const histogram = figure.panel("histogram", {
    width: 324, height: 280, xlim: [-1050, 1050], ylim: [-0.06, 1.06], title: "Drag the ends or the middle of the line",
    xlabel: "Hounsfield units (HU)", ylabel: "grey value",
  });
  draw_histogram(histogram, figure, values, result, set);
  const organs = figure.panel("organs", {
    width: 324, height: 180, axes: false, xlim: [0, 12], ylim: [ORGANS.length, -0.7],
    title: `Liver brighter than the tumour by ${result.contrast.toFixed(2)}`,
  });
  draw_organs(organs, figure, result);
  figure.legend([
    ["window: grey value of each HU", { stroke: colours.red }], ["number of voxels (logarithmic)", { fill: colours.sky }],
    [`voxel: ${voxel.class}, ${voxel.hu} HU, grey ${voxel.grey.toFixed(2)}`, { stroke: colours.ink, dash: "3 3" }],
  ]);
}

export function describe({ level, width }, { voxel, organs, contrast }) {
  return `Level ${level}, width ${width}: values up to ${level - width / 2} HU are black, values from ${level + width / 2} HU are white. The ` +
    `voxel (${voxel.class}) has ${voxel.hu} HU and the grey value ${voxel.grey.toFixed(2)}. ` +
    `The mean grey value of the liver is ${organs.liver.grey.toFixed(2)}, that of ` +
    `the tumour ${organs.tumour.grey.toFixed(2)}: ` +
    `a difference of ${contrast.toFixed(2)}.`;
}
