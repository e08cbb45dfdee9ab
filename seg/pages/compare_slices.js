"use strict";
// The volumes of a case, and how a slice of them is cut and painted. Knows nothing of the page.

// Volumes are uint8 in the order of NumPy: voxel (x, y, z) of an RAS+ grid lies at (x * Y + y) * Z + z.
const AXES = ["sagittal", "coronal", "axial"]; // that a plane cuts across: X, Y, Z
const EDGES = [["A", "S"], ["R", "S"], ["R", "A"]]; // at the left and at the top, as in the run's own pictures
const OPPOSITE = { R: "L", A: "P", S: "I" };

async function unpack(about, text) {
  const letters = atob(text);
  const zipped = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) zipped[i] = letters.charCodeAt(i);
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const [X, Y, Z] = about.dims;
  const size = X * Y * Z;
  if (bytes.length !== size * (2 + about.here.filter(Boolean).length)) throw new Error("the volumes are cut off");
  const parts = Array.from({ length: bytes.length / size }, (_, n) => bytes.subarray(n * size, (n + 1) * size));
  const [image, label, ...masks] = parts;
  for (let x = 0; x < X; x++)
    // each voxel is stored as its difference from the one before it along Y
    for (let i = x * Y * Z + Z; i < (x + 1) * Y * Z; i++) image[i] += image[i - Z];
  const preds = about.here.map((there) => (there ? masks.shift() : null));
  const all = [label, ...preds.filter(Boolean)];
  const structure = counts(about.dims, (i) => label[i]);
  const anything = counts(about.dims, (i) => all.some((mask) => mask[i]));
  const wrong = preds.map((pred) => pred && counts(about.dims, (i) => pred[i] !== label[i]));
  return { about, image, label, preds, structure, anything, wrong };
}

// For each axis and slice the number of voxels for which `holds`.
function counts([X, Y, Z], holds) {
  const [ofX, ofY, ofZ] = [X, Y, Z].map((size) => new Float64Array(size));
  let i = 0;
  for (let x = 0; x < X; x++)
    for (let y = 0; y < Y; y++)
      for (let z = 0; z < Z; z++)
        if (holds(i++)) {
          ofX[x]++;
          ofY[y]++;
          ofZ[z]++;
        }
  return [ofX, ofY, ofZ];
}

// One plane of a case: how many slices, rows and columns, in which proportions, and where everything in it is.
function planeOf(volumes, axis) {
  const { dims, spacing, step, offset, shape } = volumes.about;
  const [c, r] = [0, 1, 2].filter((other) => other !== axis);
  const span = (along) => {
    const filled = volumes.anything[along];
    const first = filled.findIndex(Boolean);
    return first < 0 ? [0, 0] : [dims[along] - 1 - filled.findLastIndex(Boolean), dims[along] - first];
  };
  const [left, right] = span(c);
  const [top, bottom] = span(r);
  const whole = [0, 0, dims[c], dims[r]];
  return {
    axis,
    c,
    r,
    unit: volumes.about.unit || "mm",
    slices: dims[axis],
    columns: dims[c],
    rows: dims[r],
    strides: [dims[1] * dims[2], dims[2], 1],
    columnMm: spacing[c] * step[c],
    rowMm: spacing[r] * step[r],
    number: (index) => offset[axis] + index * step[axis] + (step[axis] >> 1), // as counted in the file's RAS+ grid
    index: (number) => Math.floor((number - offset[axis]) / step[axis]), // of the slice that shows it
    last: shape[axis] - 1,
    structure: volumes.structure[axis],
    wrong: volumes.wrong.map((of) => of && of[axis]),
    whole,
    closeUp: widened([left, top, right, bottom], whole),
  };
}

// [left, top, right, bottom] with a third more on each side; the whole slice where that would gain little.
function widened([left, top, right, bottom], whole) {
  const [, , columns, rows] = whole;
  if (right <= left) return whole;
  const [x, y] = [Math.max(4, Math.round((right - left) / 3)), Math.max(4, Math.round((bottom - top) / 3))];
  const box = [Math.max(0, left - x), Math.max(0, top - y), Math.min(columns, right + x), Math.min(rows, bottom + y)];
  return (box[2] - box[0]) * (box[3] - box[1]) > 0.8 * columns * rows ? whole : box;
}

// Slice `index` as rows from superior or anterior, columns from right or anterior.
function cut(volume, { columns, rows, strides, c, r, axis }, index) {
  const flat = new Uint8Array(columns * rows);
  let to = 0;
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--) flat[to++] = volume[index * strides[axis] + i * strides[r] + j * strides[c]];
  return flat;
}

// Dice of one slice, mean over those of the classes `wanted` (the indices of each) that are in it; null where none is.
function sliceDice(label, pred, wanted) {
  const there = new Set([...label, ...pred]);
  const scores = wanted.map((indices) => {
    if (!indices.some((k) => there.has(k))) return null;
    let [both, all] = [0, 0];
    label.forEach((value, i) => {
      const [there, here] = [indices.includes(value), indices.includes(pred[i])];
      both += there && here;
      all += there + here;
    });
    return all ? (2 * both) / all : null;
  });
  const known = scores.filter((score) => score !== null);
  return known.length ? known.reduce((a, b) => a + b) / known.length : null;
}

// Grey values 0 to 255 of a slice as a picture of one pixel a voxel, black and white at the ends of the window.
function greyPicture(grey, plane, kept, [low, high]) {
  const picture = new OffscreenCanvas(plane.columns, plane.rows);
  const pen = picture.getContext("2d");
  const pixels = pen.createImageData(plane.columns, plane.rows);
  const shades = Uint8ClampedArray.from({ length: 256 }, (_, code) => {
    const value = kept[0] + ((kept[1] - kept[0]) * code) / 255;
    return ((value - low) / Math.max(high - low, 1e-12)) * 255;
  });
  grey.forEach((code, i) => pixels.data.set([shades[code], shades[code], shades[code], 255], 4 * i));
  pen.putImageData(pixels, 0, 0);
  return picture;
}

// A slice in its box, over the whole canvas.
function paintGrey(pen, picture, { box: [left, top, right, bottom] }) {
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, left, top, right - left, bottom - top, 0, 0, pen.canvas.width, pen.canvas.height);
}

// Where the edges of columns and rows of `box` fall on a canvas, in whole pixels, so that no seam shows between voxels.
function gridOn(canvas, box) {
  const edges = (from, to, size) => (at) => Math.round(((at - from) * size) / (to - from));
  return { box, x: edges(box[0], box[2], canvas.width), y: edges(box[1], box[3], canvas.height) };
}

// Area and outline of the voxels for which `inside` holds, as two paths.
function shapeOf(inside, plane, { box, x, y }) {
  const [area, line] = [new Path2D(), new Path2D()];
  const at = (column, row) =>
    column >= 0 && row >= 0 && column < plane.columns && row < plane.rows && inside(row * plane.columns + column);
  const side = (x1, y1, x2, y2) => {
    line.moveTo(x1, y1);
    line.lineTo(x2, y2);
  };
  for (let row = box[1]; row < box[3]; row++)
    for (let column = box[0]; column < box[2]; column++) {
      if (!at(column, row)) continue;
      const [left, top, right, bottom] = [x(column), y(row), x(column + 1), y(row + 1)];
      area.rect(left, top, right - left, bottom - top);
      if (!at(column - 1, row)) side(left, top, left, bottom);
      if (!at(column + 1, row)) side(right, top, right, bottom);
      if (!at(column, row - 1)) side(left, top, right, top);
      if (!at(column, row + 1)) side(left, bottom, right, bottom);
    }
  return { area, line };
}

// Fills the area and draws its outline, `width` pixels wide, within itself.
function paintShape(pen, { area, line }, color, opacity, width) {
  pen.save();
  pen.clip(area);
  pen.globalAlpha = opacity;
  pen.fillStyle = pen.strokeStyle = color;
  pen.fill(area);
  pen.globalAlpha = 1;
  pen.lineWidth = 2 * width;
  if (width) pen.stroke(line);
  pen.restore();
}

// An outline on its own: light on a dark seam, so that it shows on any ground.
function paintOutline(pen, { line }, ratio) {
  pen.lineCap = "square";
  for (const [style, width] of [["rgb(0 0 0 / 60%)", 3], ["#ffffff", 1.2]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width * ratio;
    pen.stroke(line);
  }
}

// The length of a scale bar on a slice `across` wide: 1, 2 or 5 times a power of ten, below 0.4 of it; as scale_bar in picture.py.
function barOf(across) {
  const power = 10 ** Math.floor(Math.log10(0.4 * across));
  return [5, 2, 1, 0.5].map((times) => times * power).find((bar) => bar < 0.4 * across);
}

// Directions at the edges and a scale bar, on a canvas that shows `box` of the slice.
function annotate(pen, { width, height }, plane, [first, , end], ratio) {
  if (Math.min(width, height) < 70 * ratio) return;
  const [left, top] = EDGES[plane.axis];
  const pad = 3 * ratio;
  pen.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  pen.lineWidth = 3 * ratio;
  pen.strokeStyle = "#000";
  pen.fillStyle = "#fff";
  const write = (text, x, y, align, base) => {
    pen.textAlign = align;
    pen.textBaseline = base;
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  };
  if (plane.unit === "mm") {
    write(left, pad, height / 2, "left", "middle");
    write(OPPOSITE[left], width - pad, height / 2, "right", "middle");
    write(top, width / 2, pad, "center", "top");
  }
  const across = (end - first) * plane.columnMm;
  const bar = barOf(across);
  pen.fillRect(pad, height - 2 * pad, (bar / across) * width, 2 * ratio);
  write(`${short(bar)} ${plane.unit}`, pad, height - 3 * pad, "left", "bottom");
}
