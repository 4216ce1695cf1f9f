/* Pictures of the demonstrations: an image, a mask on it, its outline, and the prompts. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.paint) return;
  const YELLOW = [240, 227, 66], BLUE = "#0072B2", ORANGE = "#D55E00";

  // Black and yellow, each with its opacity, as the 32 bits of a pixel.
  const COLOURS = new Uint32Array(Uint8Array.of(0, 0, 0, 120, ...YELLOW, 115).buffer);

  /** Resize a canvas to the pixels of the screen, so that lines are sharp; returns its context. */
  function fitCanvas(canvas, aspect) {
    const width = canvas.clientWidth || 160, ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(width * ratio * aspect);
    return canvas.getContext("2d");
  }

  /** A canvas (H, W) that darkens what is outside the mask, and colours what is inside. */
  function overlay(mask, [H, W]) {
    const canvas = Object.assign(document.createElement("canvas"), { width: W, height: H });
    const pixels = new ImageData(W, H);
    const colours = new Uint32Array(pixels.data.buffer), [outside, inside] = COLOURS;
    for (let i = 0; i < mask.length; i++) colours[i] = mask[i] ? inside : outside;
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  /** The edges between pixels inside and outside the mask, as a path in pixels of the image. */
  function outline(mask, [H, W]) {
    const path = new Path2D();
    const inside = (x, y) => (x >= 0 && y >= 0 && x < W && y < H ? mask[y * W + x] : 0);
    for (let y = 0; y <= H; y++) {
      for (let x = 0; x <= W; x++) {
        if (inside(x, y) !== inside(x - 1, y)) {
          path.moveTo(x, y);
          path.lineTo(x, y + 1);
        }
        if (inside(x, y) !== inside(x, y - 1)) {
          path.moveTo(x, y);
          path.lineTo(x + 1, y);
        }
      }
    }
    return path;
  }

  function drawMask(context, picture, mask, scale) {
    const size = [picture.height, picture.width];
    context.drawImage(overlay(mask, size), 0, 0, context.canvas.width, context.canvas.height);
    context.save();
    context.scale(scale, scale);
    const path = outline(mask, size);
    for (const [colour, width] of [["#1b1b1b", 3], [`rgb(${YELLOW})`, 1.5]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: (width * unit(context)) / scale, lineCap: "square" });
      context.stroke(path);
    }
    context.restore();
  }

  /** Pixels of the canvas per pixel of the page. */
  function unit(context) {
    return context.canvas.width / (context.canvas.clientWidth || context.canvas.width);
  }

  /** A disc for a foreground point, a cross for a background point; (0, 0) is the centre of the first pixel. */
  function drawPoint(context, { x, y, label }, scale) {
    const u = unit(context), [cx, cy] = [(x + 0.5) * scale, (y + 0.5) * scale], r = 6 * u;
    context.beginPath();
    if (label === 1) context.arc(cx, cy, r, 0, 2 * Math.PI);
    else [[-r, -r, r, r], [-r, r, r, -r]].forEach(([x1, y1, x2, y2]) => {
      context.moveTo(cx + x1, cy + y1);
      context.lineTo(cx + x2, cy + y2);
    });
    if (label === 1) {
      Object.assign(context, { fillStyle: BLUE, strokeStyle: "white", lineWidth: 2 * u });
      context.fill();
      context.stroke();
      return;
    }
    for (const [colour, width] of [["white", 6], [ORANGE, 3]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: width * u, lineCap: "round" });
      context.stroke();
    }
  }

  function drawBox(context, [x1, y1, x2, y2], scale, dashed) {
    context.setLineDash(dashed ? [6 * unit(context), 4 * unit(context)] : []);
    for (const [colour, width] of [["white", 4], [BLUE, 2]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: width * unit(context) });
      context.strokeRect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    }
    context.setLineDash([]);
  }

  function drawCrosshair(context, { x, y }, scale) {
    const [cx, cy] = [(x + 0.5) * scale, (y + 0.5) * scale], { width, height } = context.canvas;
    for (const [colour, line] of [["rgba(0, 0, 0, 0.75)", 3], ["white", 1]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: line * unit(context), lineCap: "butt" });
      context.beginPath();
      [[0, cy, width, cy], [cx, 0, cx, height]].forEach(([x1, y1, x2, y2]) => {
        context.moveTo(x1, y1);
        context.lineTo(x2, y2);
      });
      context.stroke();
    }
  }

  /** Paint an image and what is given of: mask, points, box, draft (a box that is being drawn), crosshair. */
  networks.paint = (canvas, picture, { mask, points = [], box, draft, crosshair }) => {
    const context = fitCanvas(canvas, picture.height / picture.width), scale = canvas.width / picture.width;
    context.imageSmoothingEnabled = scale < 3; // a small synthetic scene keeps its pixels
    context.drawImage(picture.source, 0, 0, canvas.width, canvas.height);
    if (mask) drawMask(context, picture, mask, scale);
    if (box) drawBox(context, box, scale, false);
    if (draft) drawBox(context, draft, scale, true);
    points.forEach((point) => drawPoint(context, point, scale));
    if (crosshair) drawCrosshair(context, crosshair, scale);
  };
})();
