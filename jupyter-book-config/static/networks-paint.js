/* Pictures of the demonstrations: an image, a mask on it, its outline, the prompts, and maps of values. */
(() => {
  const networks = window.segeduNetworks;
  if (networks.paint) return;
  const YELLOW = [240, 227, 66], BLUE = "#0072B2", ORANGE = "#D55E00";

  // Black and yellow, each with its opacity, as the 32 bits of a pixel.
  const COLOURS = new Uint32Array(Uint8Array.of(0, 0, 0, 120, ...YELLOW, 115).buffer);
  // Matplotlib's colour map cividis at 0, 1/16, ..., 1: it is readable with every kind of colour vision.
  const CIVIDIS = `00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838`
    .split(/\s+/).map((colour) => [0, 2, 4].map((i) => parseInt(colour.slice(i, i + 2), 16)));

  /** Resize a canvas to the pixels of the screen, so that lines are sharp; returns its context. */
  function fitCanvas(canvas, aspect) {
    const width = canvas.clientWidth || 160, ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(width * ratio * aspect);
    return canvas.getContext("2d");
  }

  /** A canvas (H, W); `fill` writes its pixels, as an array of 32 bits each and as an array of bytes. */
  function pixelCanvas([H, W], fill) {
    const canvas = Object.assign(document.createElement("canvas"), { width: W, height: H });
    const pixels = new ImageData(W, H);
    fill(new Uint32Array(pixels.data.buffer), pixels.data);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  /** A canvas (H, W) that colours what is inside the mask, and, if it `darkens`, also darkens what is outside. */
  function overlay(mask, size, darkens) {
    const outside = darkens ? COLOURS[0] : 0, inside = COLOURS[1];
    return pixelCanvas(size, (colours) => {
      for (let i = 0; i < mask.length; i++) colours[i] = mask[i] ? inside : outside;
    });
  }

  /** A canvas (h, w) of values from 0 to `most` in the colours of cividis, and black with an opacity where hidden. */
  function colourMap(values, size, most, hidden) {
    const last = CIVIDIS.length - 1;
    return pixelCanvas(size, (_, bytes) => values.forEach((value, i) => {
      if (hidden?.[i]) {
        bytes[4 * i + 3] = 190;
        return;
      }
      const at = Math.min(Math.max(value / most, 0), 1) * last, low = Math.min(Math.floor(at), last - 1);
      for (let k = 0; k < 3; k++) bytes[4 * i + k] = CIVIDIS[low][k] + (at - low) * (CIVIDIS[low + 1][k] - CIVIDIS[low][k]);
      bytes[4 * i + 3] = 255;
    }));
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

  function drawOutline(context, mask, size, scale) {
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

  /** The circle that a brush paints, around (0, 0), the centre of the first pixel. */
  function drawBrush(context, { x, y, radius }, scale) {
    for (const [colour, width] of [["rgba(0, 0, 0, 0.75)", 3], ["white", 1.25]]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: width * unit(context) });
      context.beginPath();
      context.arc((x + 0.5) * scale, (y + 0.5) * scale, radius * scale, 0, 2 * Math.PI);
      context.stroke();
    }
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

  networks.pixelCanvas = pixelCanvas;

  /** Paint an image and what is given of: mask, points, box, draft (a box that is being drawn), brush, crosshair.
      `shade` of the mask: "both" colours its inside and darkens its outside, "inside" only colours, "none" does neither. */
  networks.paint = (canvas, picture, { mask, shade = "both", points = [], box, draft, brush, crosshair }) => {
    const context = fitCanvas(canvas, picture.height / picture.width), scale = canvas.width / picture.width;
    const size = [picture.height, picture.width];
    context.imageSmoothingEnabled = scale < 3; // a small synthetic scene keeps its pixels
    context.drawImage(picture.source, 0, 0, canvas.width, canvas.height);
    if (mask && shade !== "none") {
      context.drawImage(overlay(mask, size, shade === "both"), 0, 0, canvas.width, canvas.height);
    }
    if (mask) drawOutline(context, mask, size, scale);
    if (box) drawBox(context, box, scale, false);
    if (draft) drawBox(context, draft, scale, true);
    points.forEach((point) => drawPoint(context, point, scale));
    if (brush) drawBrush(context, brush, scale);
    if (crosshair) drawCrosshair(context, crosshair, scale);
  };

  /** Paint a map of values (h, w) from 0 to `most`, which covers the whole image. Where `hidden` is 1, the image is seen,
      darkened. `edge`, a mask with a `size` of its own, is drawn as an outline. */
  networks.paintMap = (canvas, picture, { values, size, most = 1, hidden, edge }) => {
    const context = fitCanvas(canvas, picture.height / picture.width);
    context.imageSmoothingEnabled = false; // each value is one rectangle
    context.drawImage(picture.source, 0, 0, canvas.width, canvas.height);
    context.drawImage(colourMap(values, size, most, hidden), 0, 0, canvas.width, canvas.height);
    if (edge) drawOutline(context, edge.mask, edge.size, canvas.width / edge.size[1]);
  };
})();
