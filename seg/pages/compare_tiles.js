"use strict";
// The tiles: one slice of the open case from the image, the reference and each run, and what is said of it.

function makeTiles() {
  const tile = (kind, run, ...name) => {
    const canvas = make("canvas", { role: "img" }),
      score = make("span", { className: "score" });
    const none = make("p", { className: "none" }, "no prediction");
    const figure = make(
      "figure",
      { className: "tile", "data-kind": kind },
      make("figcaption", {}, ...name, score),
      canvas,
      none,
    );
    if (run !== null) figure.dataset.run = run;
    return { kind, run, figure, canvas, score, none };
  };
  const titled = (text) => make("bdi", { className: "name", title: text }, text);
  tiles = [tile("image", null, titled("Image"), ""), tile("reference", null, titled("Reference"), "")];
  for (const run of shownRuns()) tiles.push(tile("run", run, badge(run), titled(runs[run].label)));
  $("tiles").replaceChildren(...tiles.map(({ figure }) => figure));
  fitTiles();
}

const boxShown = () => ($("zoom").checked ? plane.closeUp : [0, 0, plane.columns, plane.rows]);

// Runs that were not tested on the case, such as those of other folds, take no room; how many tiles are left.
function hideUntested() {
  const untested = tiles.filter(({ run }) => run !== null && !cases[chosen.case].scores[run]);
  for (const tile of tiles) tile.figure.hidden = untested.includes(tile);
  const names = untested.map(({ run }) => run + 1).join(", ");
  $("untested").textContent = names && `Runs not tested on this case: ${names}`;
  return tiles.length - untested.length;
}

// As many tiles a row as make them largest within the window, in rows of equal length.
function fitTiles() {
  if (!plane || !tiles.length) return;
  const visible = hideUntested();
  const [left, top, right, bottom] = boxShown(),
    gap = 8,
    caption = 36;
  const [wide, high] = [(right - left) * plane.columnMm, (bottom - top) * plane.rowMm];
  const room = $("tiles").clientWidth - 8,
    beside = document.body.className === "few" && innerWidth >= 1500;
  const above = $("tiles").getBoundingClientRect().top - $("viewer").getBoundingClientRect().top;
  const tall = Math.max(beside ? innerHeight - above - 80 : 0.56 * innerHeight, 260);
  let [scale, rows] = [0, 1];
  for (let columns = 1; columns <= visible; columns++) {
    const width = (room - gap * (columns - 1)) / columns,
      count = Math.ceil(visible / columns);
    if (width < 96 && columns > 2) break;
    const here = Math.min(width / wide, Math.max((tall - count * (caption + gap)) / count, 90) / high);
    if (here > scale) [scale, rows] = [here, count];
  }
  scale = Math.min((scale * $("size").value) / 100, room / wide);
  const ratio = devicePixelRatio || 1,
    cell = Math.max(scale * wide, Math.min(104, room / 2 - gap));
  const columns = within(Math.floor((room + gap) / (cell + gap) + 1e-6), 1, Math.ceil(visible / rows));
  $("tiles").style.gridTemplateColumns = `repeat(${columns}, ${cell}px)`;
  for (const { kind, figure, canvas, none } of tiles) {
    let [w, h] = [scale * wide, scale * high];
    if (kind === "image") {
      // the whole slice, as far as it fits
      const whole = Math.min(w / (plane.columns * plane.columnMm), h / (plane.rows * plane.rowMm));
      [w, h] = [whole * plane.columns * plane.columnMm, whole * plane.rows * plane.rowMm];
    }
    [canvas.width, canvas.height] = [Math.max(1, Math.round(w * ratio)), Math.max(1, Math.round(h * ratio))];
    canvas.style.width = `${canvas.width / ratio}px`;
    canvas.style.height = `${canvas.height / ratio}px`;
    none.style.height = `${scale * high}px`;
  }
}

let waiting = 0;
function paint() {
  if (!waiting)
    waiting = requestAnimationFrame(() => {
      waiting = 0;
      if (plane) paintNow();
    });
}

function windowShown() {
  const [low, high] = volumes.about.window,
    wide = high - low;
  const middle = low + (wide * $("level").value) / 100,
    half = (wide * $("width").value) / 200;
  return [middle - half, middle + half];
}

function paintNow() {
  const [low, high] = windowShown(),
    { slice } = chosen;
  const image = cut(volumes.image, plane, slice);
  const now = {
    image,
    grey: greyPicture(image, plane, volumes.about.kept, low, high),
    label: cut(volumes.label, plane, slice),
    preds: volumes.preds.map((pred, run) => (pred && chosen.shown.has(run) ? cut(pred, plane, slice) : null)),
  };
  const scores = known(chosen.case),
    { better } = measure();
  const [best, worst] = [Math.max(...scores), Math.min(...scores)].sort((a, b) => better * (b - a));
  for (const tile of tiles) {
    paintTile(tile, now);
    tellTile(tile, now, scores.length > 1 && best !== worst ? { best, worst } : {});
  }
  chosen.now = now;
  paintProfile();
  tellSlice();
}

function paintTile({ kind, run, canvas, figure }, now) {
  const pred = run === null ? now.label : now.preds[run],
    ratio = devicePixelRatio || 1;
  figure.classList.toggle("absent", !pred);
  if (!pred) return;
  const pen = canvas.getContext("2d"),
    whole = [0, 0, plane.columns, plane.rows];
  const grid = gridOn(canvas, kind === "image" ? whole : boxShown()),
    [left, top, right, bottom] = grid.box;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(now.grey, left, top, right - left, bottom - top, 0, 0, canvas.width, canvas.height);
  if (kind === "image") {
    annotate(pen, canvas, plane, grid.box, ratio);
    const frame = boxShown();
    pen.strokeStyle = "#fff";
    pen.lineWidth = ratio;
    if (frame.some((edge, i) => edge !== whole[i]))
      pen.strokeRect(
        ...[
          grid.x(frame[0]),
          grid.y(frame[1]),
          grid.x(frame[2]) - grid.x(frame[0]),
          grid.y(frame[3]) - grid.y(frame[1]),
        ].map((v, i) => v + (i < 2 ? 0.5 : -1) * ratio),
      );
    return;
  }
  if (chosen.mode === "off") return;
  if (chosen.mode === "errors" && kind === "run") paintErrors(pen, now.label, pred, grid, ratio);
  else
    paintClasses(
      pen,
      pred,
      grid,
      (kind === "run" && $("outline").checked && chosen.mode === "fill" ? 1.1 : 1.6) * ratio,
    );
  if (kind !== "run" || !$("outline").checked) return;
  for (const k of chosen.classes) {
    const shape = shapeOf((i) => now.label[i] === k, plane, grid);
    if (shape) paintOutline(pen, shape, ratio);
  }
}

const opacity = () => $("opacity").value / 100;

function paintClasses(pen, mask, grid, line) {
  const filled = chosen.mode === "contour" ? 0 : opacity();
  for (const k of chosen.classes) {
    const shape = shapeOf((i) => mask[i] === k, plane, grid);
    if (shape) paintShape(pen, shape, classes[k - 1].color, filled, line);
  }
}

function paintErrors(pen, label, pred, grid, ratio) {
  const a = label.map((k) => (chosen.classes.has(k) ? k : 0)),
    b = pred.map((k) => (chosen.classes.has(k) ? k : 0));
  const tests = [
    (i) => a[i] && a[i] === b[i],
    (i) => !a[i] && b[i],
    (i) => a[i] && !b[i],
    (i) => a[i] && b[i] && a[i] !== b[i],
  ];
  data.errors.forEach(({ name, color }, kind) => {
    const shape = shapeOf(tests[kind], plane, grid);
    if (shape)
      paintShape(pen, shape, color, Math.min(1, 2 * opacity()), kind ? ratio : 0, hatched(pen, color, name, ratio));
  });
}

const wanted = () => (chosen.column ? [chosen.column] : classes.map((_, k) => k + 1));

function imageWords() {
  const { dims, shape } = volumes.about;
  const part = dims.every((size, axis) => size === shape[axis]) ? "whole slice" : "the part kept";
  return data.channels > 1 ? `${data.channel}, ${part}` : part;
}

function volumeWords() {
  const { spacing, step } = volumes.about;
  const voxel = spacing.reduce((a, b) => a * b) * step.reduce((a, b) => a * b);
  const ml = (plane.structure.reduce((a, b) => a + b) * voxel) / 1000;
  return `${Math.max(...step) > 1 ? "about " : ""}${Number(ml.toPrecision(3))} ml`;
}

function tellTile({ kind, run, canvas, score: place }, now, { best, worst }) {
  const where = `${AXES[plane.axis]} slice ${plane.number(chosen.slice)}`,
    { id } = cases[chosen.case];
  if (kind !== "run") {
    place.textContent = kind === "image" ? imageWords() : volumeWords();
    canvas.setAttribute("aria-label", `${kind === "image" ? "Image" : "Reference"}, ${id}, ${where}`);
    return;
  }
  const value = score(chosen.case, run),
    part = now.preds[run] ? sliceDice(now.label, now.preds[run], wanted()) : null;
  const marks = value === best ? " ▲ best" : value === worst ? " ▼ worst" : "";
  const slice = part === null ? "–" : part.toFixed(2);
  place.replaceChildren(make("b", {}, written(value)), ` slice ${slice}`, make("span", { className: "mark" }, marks));
  place.title = `${measure().name} of the case ${written(value)}; Dice of this slice ${slice}`;
  const said = now.preds[run]
    ? `${measure().name} ${written(value)} in the case, Dice ${slice} in this slice`
    : "no prediction";
  canvas.setAttribute("aria-label", `Run ${run + 1}, ${runs[run].label}, ${id}, ${where}: ${said}`);
}

// Area of the reference and voxels that are wrong, each beside its own largest slice.
function paintProfile() {
  const canvas = $("profile"),
    ratio = devicePixelRatio || 1,
    pen = canvas.getContext("2d"),
    style = getComputedStyle(document.body);
  [canvas.width, canvas.height] = [Math.max(1, canvas.clientWidth * ratio), Math.max(1, canvas.clientHeight * ratio)];
  for (const [values, color, share] of [
    [plane.structure, "--bars", 1],
    [mostWrong(), "--low", 0.4],
  ]) {
    const top = Math.max(1, ...values),
      wide = (share * canvas.width) / plane.slices;
    pen.fillStyle = style.getPropertyValue(color);
    values.forEach((value, slice) => {
      const x = (slice / Math.max(1, plane.slices - 1)) * canvas.width,
        high = (value / top) * canvas.height;
      pen.fillRect(x - wide / 2, canvas.height - high, wide, high);
    });
  }
}

function tellSlice() {
  const { id } = cases[chosen.case],
    number = plane.number(chosen.slice),
    [low, high] = windowShown();
  const words = `${AXES[plane.axis]} slice ${number} of 0 to ${plane.last}`;
  $("slice").value = chosen.slice;
  $("slice").setAttribute("aria-valuetext", words);
  $("slice-number").textContent = `${number} of 0–${plane.last}`;
  $("level").nextElementSibling.textContent = short((low + high) / 2);
  $("width").nextElementSibling.textContent = short(high - low);
  $("opacity").nextElementSibling.textContent = `${$("opacity").value} %`;
  for (const circle of document.querySelectorAll(".strip circle"))
    circle.classList.toggle("now", Number(circle.dataset.case) === chosen.case);
  const said = shownRuns().map(
    (run) => `run ${run + 1} ${score(chosen.case, run) === null ? "not tested" : written(score(chosen.case, run))}`,
  );
  announce(`${id}, ${words}. ${measure().name}: ${said.join(", ")}.`);
  try {
    history.replaceState(null, "", `#case=${encodeURIComponent(id)}&plane=${AXES[plane.axis]}&slice=${chosen.slice}`);
  } catch {
    /* within a frame there may be no address */
  }
}
