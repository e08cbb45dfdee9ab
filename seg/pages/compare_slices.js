"use strict";
// The volumes of a case, and how a slice of them is cut and painted. Knows nothing of the page but its data.

// Volumes are uint8 in the order of NumPy: voxel (x, y, z) of an RAS+ grid lies at (x * Y + y) * Z + z.
const AXES = ["sagittal", "coronal", "axial"]; // that a plane cuts across: X, Y, Z
const EDGES = [
  ["A", "S"],
  ["R", "S"],
  ["R", "A"],
]; // at the left and at the top, as in the run's own pictures
const OPPOSITE = { R: "L", A: "P", S: "I" };

async function unpack(about, text) {
  const letters = atob(text),
    zipped = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) zipped[i] = letters.charCodeAt(i);
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const [X, Y, Z] = about.dims;
  const size = X * Y * Z;
  if (bytes.length !== size * (2 + about.here.filter(Boolean).length)) throw new Error("the volumes are cut off");
  const image = bytes.subarray(0, size);
  for (let x = 0; x < X; x++)
    // each voxel was stored as its difference to the one before along Y
    for (let i = x * Y * Z + Z; i < (x + 1) * Y * Z; i++) image[i] += image[i - Z];
  let at = size;
  const next = () => bytes.subarray((at += size) - size, at);
  const label = next();
  const preds = about.here.map((there) => (there ? next() : null));
  const box = [
    [X, Y, Z],
    [0, 0, 0],
  ];
  const structure = tally(about.dims, label, label, box).structure;
  const wrong = preds.map((pred) => pred && tally(about.dims, label, pred, box).wrong);
  return { about, image, label, preds, structure, wrong, box };
}

// For each axis and slice: voxels of structure in `mask`, and those that differ from `label`. Widens `box`, its lowest
// and its highest voxels, around the structure. One pass in the order of memory: a volume may have millions of voxels.
function tally([X, Y, Z], label, mask, [low, high]) {
  const counts = () => [X, Y, Z].map((size) => new Float64Array(size));
  const structure = counts(),
    wrong = counts();
  let i = 0;
  for (let x = 0; x < X; x++)
    for (let y = 0; y < Y; y++)
      for (let z = 0; z < Z; z++, i++) {
        const a = label[i],
          b = mask[i];
        if (b) {
          structure[0][x]++;
          structure[1][y]++;
          structure[2][z]++;
          if (x < low[0]) low[0] = x;
          if (y < low[1]) low[1] = y;
          if (z < low[2]) low[2] = z;
          if (x > high[0]) high[0] = x;
          if (y > high[1]) high[1] = y;
          if (z > high[2]) high[2] = z;
        }
        if (a !== b) {
          wrong[0][x]++;
          wrong[1][y]++;
          wrong[2][z]++;
        }
      }
  return { structure, wrong };
}

// One plane of a case: how many slices, rows and columns, in which proportions, and where everything in it lies.
function planeOf(volumes, axis) {
  const { dims, spacing, step, offset, shape } = volumes.about,
    [low, high] = volumes.box;
  const [c, r] = [0, 1, 2].filter((other) => other !== axis);
  const box = [dims[c] - 1 - high[c], dims[r] - 1 - high[r], dims[c] - low[c], dims[r] - low[r]];
  return {
    axis,
    slices: dims[axis],
    columns: dims[c],
    rows: dims[r],
    strides: [dims[1] * dims[2], dims[2], 1],
    c,
    r,
    columnMm: spacing[c] * step[c],
    rowMm: spacing[r] * step[r],
    number: (index) => offset[axis] + index * step[axis] + (step[axis] >> 1), // as counted in the file's RAS+ grid
    last: shape[axis] - 1,
    structure: volumes.structure[axis],
    wrong: volumes.wrong.map((counts) => counts && counts[axis]),
    closeUp: widened(box, { columns: dims[c], rows: dims[r] }),
  };
}

// Slice `index` as rows from superior or anterior, columns from right or anterior.
function cut(volume, plane, index) {
  const { columns, rows, strides, c, r, axis } = plane;
  const flat = new Uint8Array(columns * rows);
  let to = 0;
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--) flat[to++] = volume[index * strides[axis] + i * strides[r] + j * strides[c]];
  return flat;
}

// [left, top, right, bottom] with a third more on each side; the whole slice where little would be won.
function widened([left, top, right, bottom], { columns, rows }) {
  const whole = [0, 0, columns, rows];
  if (right <= left) return whole;
  const [x, y] = [Math.max(4, Math.round((right - left) / 3)), Math.max(4, Math.round((bottom - top) / 3))];
  const box = [Math.max(0, left - x), Math.max(0, top - y), Math.min(columns, right + x), Math.min(rows, bottom + y)];
  return (box[2] - box[0]) * (box[3] - box[1]) > 0.8 * columns * rows ? whole : box;
}

// Dice of one slice, mean over those of the classes `wanted` that are in it; null where none is.
function sliceDice(label, pred, wanted) {
  const scores = [];
  for (const k of wanted) {
    let both = 0,
      all = 0;
    for (let i = 0; i < label.length; i++) {
      const a = label[i] === k,
        b = pred[i] === k;
      both += a && b;
      all += a + b;
    }
    if (all) scores.push((2 * both) / all);
  }
  return scores.length ? scores.reduce((a, b) => a + b) / scores.length : null;
}

// Grey values 0 to 255 of a slice as a picture of one pixel a voxel, black and white at the window's ends.
function greyPicture(grey, plane, kept, low, high) {
  const picture = new OffscreenCanvas(plane.columns, plane.rows);
  const pen = picture.getContext("2d");
  const pixels = pen.createImageData(plane.columns, plane.rows);
  const shades = Uint8ClampedArray.from({ length: 256 }, (_, code) => {
    const value = kept[0] + ((kept[1] - kept[0]) * code) / 255;
    return ((value - low) / Math.max(high - low, 1e-12)) * 255;
  });
  for (let i = 0; i < grey.length; i++) {
    pixels.data[4 * i] = pixels.data[4 * i + 1] = pixels.data[4 * i + 2] = shades[grey[i]];
    pixels.data[4 * i + 3] = 255;
  }
  pen.putImageData(pixels, 0, 0);
  return picture;
}

// Where the edges of columns and rows of `box` fall on a canvas, in whole pixels, so that no seam shows between voxels.
function gridOn(canvas, box) {
  const edges = (from, to, size) => (at) => Math.round(((at - from) * size) / (to - from));
  return { box, x: edges(box[0], box[2], canvas.width), y: edges(box[1], box[3], canvas.height) };
}

// Area and outline of the voxels for which `inside` holds, as two paths.
function shapeOf(inside, plane, { box, x, y }) {
  const area = new Path2D(),
    line = new Path2D();
  const at = (column, row) =>
    column >= 0 && row >= 0 && column < plane.columns && row < plane.rows && inside(row * plane.columns + column);
  let found = false;
  for (let row = box[1]; row < box[3]; row++)
    for (let column = box[0]; column < box[2]; column++) {
      if (!at(column, row)) continue;
      found = true;
      const [left, top, right, bottom] = [x(column), y(row), x(column + 1), y(row + 1)];
      area.rect(left, top, right - left, bottom - top);
      const side = (x1, y1, x2, y2) => {
        line.moveTo(x1, y1);
        line.lineTo(x2, y2);
      };
      if (!at(column - 1, row)) side(left, top, left, bottom);
      if (!at(column + 1, row)) side(right, top, right, bottom);
      if (!at(column, row - 1)) side(left, top, right, top);
      if (!at(column, row + 1)) side(left, bottom, right, bottom);
    }
  return found ? { area, line } : null;
}

// Fills the area and draws its outline, `width` pixels wide, within itself.
function paintShape(pen, shape, color, opacity, width, fill = color) {
  pen.save();
  pen.clip(shape.area);
  pen.globalAlpha = opacity;
  pen.fillStyle = fill;
  if (opacity) pen.fill(shape.area);
  pen.globalAlpha = 1;
  pen.strokeStyle = color;
  pen.lineWidth = 2 * width;
  if (width) pen.stroke(shape.line);
  pen.restore();
}

// An outline on its own: light on a dark seam, so that it shows on any ground.
function paintOutline(pen, shape, ratio) {
  pen.save();
  pen.lineCap = "square";
  for (const [style, width] of [
    ["rgb(0 0 0 / 60%)", 3],
    ["#ffffff", 1.2],
  ]) {
    pen.strokeStyle = style;
    pen.lineWidth = width * ratio;
    pen.stroke(shape.line);
  }
  pen.restore();
}

// Hatching, so that kinds of error are told apart without their colour.
function hatched(pen, color, kind, ratio) {
  if (kind === "false positive") return color;
  const size = Math.round(5 * ratio);
  const piece = new OffscreenCanvas(size, size),
    mark = piece.getContext("2d");
  mark.strokeStyle = mark.fillStyle = color;
  mark.lineWidth = 1.5 * ratio;
  const line = (x1, y1, x2, y2) => {
    mark.beginPath();
    mark.moveTo(x1, y1);
    mark.lineTo(x2, y2);
    mark.stroke();
  };
  if (kind === "correct") {
    mark.globalAlpha = 0.3;
    mark.fillRect(0, 0, size, size);
  }
  if (kind !== "correct") for (const shift of [-size, 0, size]) line(shift, size, shift + size, 0);
  if (kind === "wrong class") for (const shift of [-size, 0, size]) line(shift, 0, shift + size, size);
  return pen.createPattern(piece, "repeat");
}

// Directions at the edges and a scale bar.
function annotate(pen, canvas, plane, box, ratio) {
  const [left, top] = EDGES[plane.axis],
    pad = 3 * ratio,
    { width, height } = canvas;
  if (Math.min(width, height) < 70 * ratio) return;
  pen.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "#000";
  pen.fillStyle = "#fff";
  pen.lineJoin = "round";
  const write = (text, x, y, align, base) => {
    pen.textAlign = align;
    pen.textBaseline = base;
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  };
  write(left, pad, height / 2, "left", "middle");
  write(OPPOSITE[left], width - pad, height / 2, "right", "middle");
  write(top, width / 2, pad, "center", "top");
  if (width > 130 * ratio) write(OPPOSITE[top], width / 2, height - pad, "center", "bottom"); // else the bar is there
  const pixels = width / ((box[2] - box[0]) * plane.columnMm);
  const bar = [1, 2, 5, 10, 20, 50, 100].filter((mm) => mm * pixels < 0.4 * width).pop() || 1;
  const base = height - 2 * pad;
  pen.strokeRect(pad, base - 2 * ratio, bar * pixels, 2 * ratio);
  pen.fillRect(pad, base - 2 * ratio, bar * pixels, 2 * ratio);
  write(`${bar} mm`, pad, base - 4 * ratio, "left", "bottom");
}
