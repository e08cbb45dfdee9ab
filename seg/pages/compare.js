"use strict";
// What is chosen, the tiles, the tables, controls and keys.

const data = JSON.parse($("data").textContent);
const { cases, runs, measures, classes } = data;
const collator = new Intl.Collator("en", { numeric: true });
const MOST_TILES = 12; // runs shown at first
const pictures = data.unit === "pixels"; // of one slice, without directions
const [GAP, CAPTION] = [8, 40]; // pixels between tiles, and above each

const chosen = {
  case: -1,
  axis: data.axis,
  slice: 0,
  mode: "fill",
  before: "fill", // the mode that "off" goes back to
  sort: "mean",
  down: false,
  shown: new Set([...runs.keys()].slice(0, MOST_TILES)),
  classes: new Set(classes.map((_, k) => k + 1)),
};
let order = []; // the cases as the table has them
let tiles = [];
let volumes = null;
let plane = null;
let now = null; // the slice that is shown, cut out of the volumes

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const chosenClasses = () => [...chosen.classes].map((k) => classes[k - 1]);
const shownRuns = () => [...runs.keys()].filter((run) => chosen.shown.has(run));
const measure = () => measures[$("measure").value];
const score = (number, run) => cases[number].scores[run]?.[$("measure").value][$("column").value] ?? null;
const written = (value) => (value === null ? "–" : value.toFixed(measure().digits).replace("-", "−"));

// ---------------------------------------------------------------- the open case
// At slice `place`, as it is counted in the file; by default where most structure is.
async function openCase(number, axis = chosen.axis, place = null) {
  const about = cases[number];
  chosen.case = number;
  markRow();
  let found = null;
  try {
    found = await unpack(about, JSON.parse($(`case-${number}`).textContent));
  } catch (error) {
    $("failure").textContent =
      `The slices of ${about.id} cannot be unpacked (${error.message}). Make the page again, or use a newer browser.`;
    $("failure").hidden = false;
    return;
  }
  if (chosen.case !== number) return; // another case was opened meanwhile
  volumes = found;
  $("case-name").textContent = about.id;
  $("case-about").textContent = caseWords(about);
  setPlane(axis, place);
}

function caseWords({ id, patient, shape, spacing, dims, step }) {
  const parts = [pictures ? `${times(shape.slice(0, 2))} pixels` : `${times(shape)} voxels of ${times(spacing)} mm`];
  if (patient !== id) parts.unshift(`patient ${patient}`);
  if (Math.max(...step) > 1) parts.push(`${times(step)} voxels shown as one`);
  if (times(dims) !== times(shape)) parts.push("cropped to the structures");
  return parts.join(" · ");
}

function setPlane(axis, place = null) {
  if (pictures) [axis, place] = [2, 0];
  chosen.axis = axis;
  plane = planeOf(volumes, axis);
  press("planes", axis);
  $("slice").max = plane.slices - 1;
  hideUntested();
  setSlice(place === null ? fullest() : plane.index(place));
}

function setSlice(slice) {
  if (!plane) return;
  chosen.slice = Math.round(within(slice, 0, plane.slices - 1));
  paint();
}

// The slice with the largest structure; without any, that with most errors.
function fullest() {
  const filled = plane.structure.some(Boolean) ? plane.structure : mostWrong();
  return filled.some(Boolean) ? largest(filled) : plane.slices >> 1;
}

function mostWrong() {
  const sum = new Float64Array(plane.slices);
  for (const run of shownRuns()) plane.wrong[run]?.forEach((count, slice) => (sum[slice] += count));
  return sum;
}

function stepCase(by) {
  const next = order[within(order.indexOf(chosen.case) + by, 0, order.length - 1)];
  if (next !== chosen.case) openCase(next);
}

// ---------------------------------------------------------------- tiles
function makeTiles() {
  const tile = (kind, run, name) => {
    const canvas = make("canvas", { role: "img" });
    const score = make("span", { className: "score" });
    const title = make("bdi", { className: "name", title: name }, name);
    const none = make("p", { className: "none" }, "no prediction");
    const caption = make("figcaption", {}, title, score);
    const figure = make("figure", { className: "tile", "data-kind": kind }, caption, canvas, none);
    if (run !== null) figure.dataset.run = run;
    return { kind, run, figure, canvas, score };
  };
  tiles = [tile("image", null, "Image"), tile("reference", null, "Reference")];
  for (const run of shownRuns()) tiles.push(tile("run", run, `${run + 1}  ${runs[run].label}`));
  $("tiles").replaceChildren(...tiles.map(({ figure }) => figure));
}

// Runs that were not tested on the case, such as those of other folds, take no room.
function hideUntested() {
  const untested = shownRuns().filter((run) => !cases[chosen.case].scores[run]);
  for (const { run, figure } of tiles) figure.hidden = untested.includes(run);
  const numbers = untested.map((run) => run + 1).join(", ");
  $("untested").textContent = numbers && `Runs not tested on this case: ${numbers}`;
  fitTiles();
}

// As many tiles a row as make them largest within the window.
function fitTiles() {
  const visible = tiles.filter(({ figure }) => !figure.hidden).length;
  const [left, top, right, bottom] = boxOf(plane);
  const [wide, high] = [(right - left) * plane.columnMm, (bottom - top) * plane.rowMm];
  const room = $("tiles").clientWidth;
  const tall = Math.max(260, 0.6 * innerHeight);
  let scale = 0; // pixels a mm
  for (let columns = 1; columns <= visible; columns++) {
    const rows = Math.ceil(visible / columns);
    const across = ((room - GAP * (columns - 1)) / columns - 1) / wide;
    scale = Math.max(scale, Math.min(across, Math.max(tall / rows - CAPTION, 90) / high));
  }
  scale = Math.min((scale * $("size").value) / 100, room / wide);
  const cell = Math.min(Math.max(scale * wide, 110), room);
  $("tiles").style.gridTemplateColumns = `repeat(auto-fill, ${cell}px)`;
  const ratio = devicePixelRatio || 1;
  for (const { kind, canvas } of tiles) {
    let [w, h] = [scale * wide, scale * high];
    if (kind === "image") {
      // the whole slice, as far as it fits
      const [wholeWide, wholeHigh] = [plane.columns * plane.columnMm, plane.rows * plane.rowMm];
      const whole = Math.min(w / wholeWide, h / wholeHigh);
      [w, h] = [whole * wholeWide, whole * wholeHigh];
    }
    [canvas.width, canvas.height] = [Math.max(1, Math.round(w * ratio)), Math.max(1, Math.round(h * ratio))];
    canvas.style.width = `${canvas.width / ratio}px`;
  }
}

let waiting = 0;
function paint() {
  cancelAnimationFrame(waiting);
  if (plane) waiting = requestAnimationFrame(paintNow);
}

function paintNow() {
  const image = cut(volumes.image, plane, chosen.slice);
  now = {
    image,
    grey: greyPicture(image, plane, volumes.about.kept, contrast(volumes.about.window)),
    label: cut(volumes.label, plane, chosen.slice),
    preds: volumes.preds.map((pred, run) => (pred && chosen.shown.has(run) ? cut(pred, plane, chosen.slice) : null)),
  };
  for (const tile of tiles) {
    paintTile(tile);
    captionTile(tile);
  }
  showSlice();
}

function paintTile({ kind, run, canvas, figure }) {
  const pred = run === null ? now.label : now.preds[run];
  figure.classList.toggle("absent", !pred);
  if (!pred) return;
  const ratio = devicePixelRatio || 1;
  const pen = canvas.getContext("2d");
  const grid = gridOn(canvas, kind === "image" ? plane.whole : boxOf(plane));
  paintGrey(pen, now.grey, grid);
  if (kind === "image") return paintFrame(pen, canvas, grid, ratio);
  if (chosen.mode === "off") return;
  if (chosen.mode === "errors" && kind === "run") paintErrors(pen, pred, grid, ratio);
  else paintClasses(pen, pred, grid, 1.4 * ratio);
  if (kind !== "run" || !$("outline").checked) return;
  for (const { indices } of chosenClasses()) paintOutline(pen, shapeOf((i) => indices.includes(now.label[i]), plane, grid), ratio);
}

// On the whole slice: directions, a scale bar, and what the other tiles show of it.
function paintFrame(pen, canvas, { box, x, y }, ratio) {
  annotate(pen, canvas, plane, box, ratio);
  const [left, top, right, bottom] = boxOf(plane);
  pen.strokeStyle = "#fff";
  pen.lineWidth = ratio;
  if (right - left < plane.columns || bottom - top < plane.rows)
    pen.strokeRect(x(left) + 0.5, y(top) + 0.5, x(right) - x(left) - 1, y(bottom) - y(top) - 1);
}

function paintClasses(pen, mask, grid, width) {
  const opacity = chosen.mode === "contour" ? 0 : $("opacity").value / 100;
  const there = new Set(mask);
  for (const { indices, color } of chosenClasses().filter(({ indices }) => indices.some((k) => there.has(k))))
    paintShape(pen, shapeOf((i) => indices.includes(mask[i]), plane, grid), color, opacity, width);
}

function paintErrors(pen, pred, grid, ratio) {
  const shown = new Set(chosenClasses().flatMap(({ indices }) => indices));
  const [a, b] = [now.label, pred].map((mask) => mask.map((k) => (shown.has(k) ? k : 0)));
  const tests = [
    (i) => a[i] && a[i] === b[i],
    (i) => !a[i] && b[i],
    (i) => a[i] && !b[i],
    (i) => a[i] && b[i] && a[i] !== b[i],
  ];
  const opacity = Math.min(1, $("opacity").value / 50);
  data.errors.forEach(({ color }, kind) => {
    const shape = shapeOf(tests[kind], plane, grid);
    paintShape(pen, shape, color, kind ? opacity : 0.3 * opacity, kind ? ratio : 0);
  });
}

function captionTile({ kind, run, canvas, score: place }) {
  const cutAt = pictures ? "" : `, ${AXES[plane.axis]} slice ${plane.number(chosen.slice)}`;
  const where = `${cases[chosen.case].id}${cutAt}`;
  if (kind !== "run") {
    place.textContent = kind === "image" && data.channels > 1 ? data.channel : "";
    canvas.setAttribute("aria-label", `${kind === "image" ? "Image" : "Reference"}, ${where}`);
    return;
  }
  const column = Number($("column").value);
  const wanted = (column ? [classes[column - 1]] : classes).map(({ indices }) => indices);
  const part = now.preds[run] && sliceDice(now.label, now.preds[run], wanted);
  const [whole, slice] = [written(score(chosen.case, run)), part === null ? "–" : part.toFixed(2)];
  place.replaceChildren(make("b", {}, whole), pictures ? "" : ` slice ${slice}`);
  const said = now.preds[run] ? `${measure().name} ${whole} in the case, Dice ${slice} in this slice` : "no prediction";
  canvas.setAttribute("aria-label", `Run ${run + 1}, ${runs[run].label}, ${where}: ${said}`);
}

function showSlice() {
  const { id } = cases[chosen.case];
  const number = plane.number(chosen.slice);
  const words = `${AXES[plane.axis]} slice ${number} of 0 to ${plane.last}`;
  $("slice").value = chosen.slice;
  $("slice").setAttribute("aria-valuetext", words);
  $("slice-number").textContent = `${number} of 0–${plane.last}`;
  const address = `#case=${encodeURIComponent(id)}&plane=${AXES[plane.axis]}&slice=${number}`;
  if (location.hash !== address) history.replaceState(null, "", address);
}

// What is under the pointer: place, image value, and what reference and runs say it is.
function showVoxel(event) {
  const tile = tiles.find(({ canvas }) => canvas === event.target);
  if (!tile || !now) return;
  const [column, row] = pointed(event, tile.kind === "image" ? plane.whole : boxOf(plane));
  if (column < 0 || row < 0 || column >= plane.columns || row >= plane.rows) return;
  const { about } = volumes;
  const voxel = { [plane.axis]: chosen.slice, [plane.c]: plane.columns - 1 - column, [plane.r]: plane.rows - 1 - row };
  const place = about.offset.map((from, axis) => from + voxel[axis] * about.step[axis] + (about.step[axis] >> 1));
  const i = row * plane.columns + column;
  const [low, high] = about.kept;
  const value = short(low + ((high - low) * now.image[i]) / 255);
  const named = (mask) => (mask[i] ? classes[mask[i] - 1].name : "background");
  const said = now.preds.flatMap((pred, run) => (pred ? [`run ${run + 1}: ${named(pred)}`] : []));
  const [x, y] = [about.shape[0] - 1 - place[0], about.shape[1] - 1 - place[1]]; // from the left and from the top
  const words = [pictures ? `Pixel ${x}, ${y}` : `Voxel ${place.join(", ")}`, `image ${value}`, `reference: ${named(now.label)}`, ...said];
  $("pointer").textContent = words.join(" · ");
}

// ---------------------------------------------------------------- tables
function tableColumns() {
  const shown = shownRuns();
  const known = (number) => shown.map((run) => score(number, run)).filter((value) => value !== null);
  const columns = [{ key: "case", head: "Case", title: "Case", value: (number) => cases[number].id }];
  for (const run of shown) {
    const name = `${run + 1} ${runs[run].label}`;
    const head = shown.length > 4 ? String(run + 1) : name;
    columns.push({ key: String(run), head, title: `Run ${name}`, value: (number) => score(number, run) });
  }
  const more = (key, head, title, least, value) =>
    columns.push({ key, head, title, value: (number) => (known(number).length < least ? null : value(known(number))) });
  if (shown.length > 1) more("mean", "Mean", "Mean of the runs shown", 1, mean);
  if (shown.length === 2) more("difference", `${shown[1] + 1} − ${shown[0] + 1}`, "Difference", 2, ([a, b]) => b - a);
  if (shown.length > 2)
    more("range", "Range", "Largest minus smallest", 2, (values) => Math.max(...values) - Math.min(...values));
  return columns;
}

// At first the worst comes first.
const falling = (key) => key === "range" || (key !== "case" && measure().better < 0);

function sortCases({ key, value }) {
  const turn = chosen.down ? -1 : 1;
  const byName = (a, b) => collator.compare(cases[a].id, cases[b].id);
  order = [...cases.keys()].sort((a, b) => {
    if (key === "case") return turn * byName(a, b);
    const [x, y] = [value(a), value(b)];
    return (x === null) - (y === null) || turn * (x - y) || byName(a, b); // what is missing comes last either way
  });
}

function drawTable() {
  const columns = tableColumns();
  let by = columns.find(({ key }) => key === chosen.sort);
  if (!by) {
    by = columns[1] || columns[0];
    [chosen.sort, chosen.down] = [by.key, falling(by.key)];
  }
  sortCases(by);
  const heads = columns.map(({ key, head, title }) => {
    const button = make("button", { type: "button", title, "aria-label": title }, head);
    const cell = make("th", { scope: "col", "data-key": key }, button);
    if (key === chosen.sort) cell.setAttribute("aria-sort", chosen.down ? "descending" : "ascending");
    return cell;
  });
  const rows = order.map((number) => {
    const name = make("button", { type: "button" }, make("bdi", {}, cases[number].id));
    const cells = columns.slice(1).map(({ value }) => make("td", {}, written(value(number))));
    return make("tr", { "data-case": number }, make("th", { scope: "row" }, name), ...cells);
  });
  $("table").tHead.replaceChildren(make("tr", {}, ...heads));
  $("table").tBodies[0].replaceChildren(...rows);
  markRow();
}

function sortBy(key) {
  chosen.down = key === chosen.sort ? !chosen.down : falling(key);
  chosen.sort = key;
  drawTable();
  $("table").querySelector(`th[data-key="${key}"] button`).focus();
}

function markRow() {
  for (const row of $("table").tBodies[0].rows) {
    const here = Number(row.dataset.case) === chosen.case;
    row.setAttribute("aria-current", here);
    if (!here) continue;
    const around = row.closest(".scroll");
    const below = row.offsetTop + row.offsetHeight - around.clientHeight;
    around.scrollTop = within(around.scrollTop, below, row.offsetTop - $("table").tHead.offsetHeight);
  }
}

// ---------------------------------------------------------------- controls
function setMode(mode) {
  if (mode !== "off") chosen.before = mode;
  chosen.mode = mode;
  press("modes", mode);
  $("legend").hidden = mode !== "errors";
  paint();
}

// A picture has one slice, and no directions.
function hideSlices() {
  const parts = ["planes", "slice-number", "largest", "worst"].map($);
  for (const part of [...parts, $("slice").parentElement]) part.hidden = true;
  $("view").textContent = "Pictures are shown as they are in their files; sizes are in pixels.";
}

function makeControls() {
  if (pictures) hideSlices();
  const addBox = (id, value, checked, name, ...before) => {
    const box = make("input", { type: "checkbox", value, checked });
    $(id).append(make("label", { title: name }, box, ...before, make("bdi", {}, name)));
  };
  classes.forEach(({ name, color }, place) => addBox("classes", place + 1, true, name, swatch(color)));
  runs.forEach(({ label }, run) => addBox("shown", run, chosen.shown.has(run), `${run + 1} ${label}`));
  for (const { name, color } of data.errors) $("legend").append(make("span", {}, swatch(color), name));
  const options = (names) => names.map((name, value) => make("option", { value }, name));
  $("measure").append(...options(measures.map(({ name, unit }) => (unit ? `${name} (${unit})` : name))));
  $("column").append(...options([data.mean, ...classes.map(({ name }) => name)]));
}

function resetContrast() {
  [$("level").value, $("width").value] = [50, 100];
  paint();
}

function refit() {
  if (plane) fitTiles();
  paint();
}

function listen() {
  on("click", "planes", ({ target }) => target.value && plane && setPlane(Number(target.value)));
  on("click", "modes", ({ target }) => target.value && setMode(target.value));
  on("click", "previous", () => stepCase(-1));
  on("click", "next", () => stepCase(1));
  on("click", "largest", () => plane && setSlice(fullest()));
  on("click", "worst", () => plane && setSlice(largest(mostWrong())));
  on("click", "reset", resetContrast);
  on("input", "slice", () => setSlice(Number($("slice").value)));
  on("input", "opacity level width outline", paint);
  on("input", "zoom size", refit);
  on("change", "measure column", ({ target }) => {
    if (target.id === "measure") chosen.down = falling(chosen.sort); // the worst first, as at the start
    drawTable();
    paint();
  });
  for (const id of ["classes", "shown"])
    on("change", id, ({ target }) => {
      chosen[id][target.checked ? "add" : "delete"](Number(target.value));
      if (id === "shown") drawShown();
      paint();
    });
  on("click", "table", ({ target }) => {
    const [head, row] = [target.closest("thead th"), target.closest("tbody tr")];
    if (head) sortBy(head.dataset.key);
    if (row) openCase(Number(row.dataset.case));
  });
  document.addEventListener("keydown", onKey);
  // After a drag with the mouse the arrows are for slices and cases again.
  document.addEventListener("pointerup", ({ target }) => target.type === "range" && target.blur());
  addEventListener("resize", refit);
  addEventListener("hashchange", openAsked);
  listenToTiles();
}

function listenToTiles() {
  const place = $("tiles");
  let from = null;
  place.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button || event.target.tagName !== "CANVAS") return;
    from = { x: event.clientX, y: event.clientY, level: Number($("level").value), width: Number($("width").value) };
    event.target.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    if (!from) return showVoxel(event);
    $("width").value = from.width + (event.clientX - from.x) / 2;
    $("level").value = from.level + (event.clientY - from.y) / 2;
    paint();
  });
  for (const kind of ["pointerup", "pointercancel"]) place.addEventListener(kind, () => (from = null));
  const wheel = (event) => {
    if (document.activeElement !== place || event.ctrlKey) return;
    event.preventDefault();
    setSlice(chosen.slice + Math.sign(event.deltaY));
  };
  place.addEventListener("wheel", wheel, { passive: false });
}

const ARROWS = {
  ArrowLeft: (shift) => setSlice(chosen.slice - (shift ? 5 : 1)),
  ArrowRight: (shift) => setSlice(chosen.slice + (shift ? 5 : 1)),
  ArrowUp: () => stepCase(-1),
  ArrowDown: () => stepCase(1),
};
const LETTERS = {
  p: () => setPlane((plane.axis + 2) % 3),
  b: () => $("largest").click(),
  e: () => $("worst").click(),
  r: resetContrast,
  l: () => $("outline").click(),
  z: () => $("zoom").click(),
  f: () => setMode("fill"),
  c: () => setMode("contour"),
  x: () => setMode("errors"),
  o: () => setMode(chosen.mode === "off" ? chosen.before : "off"),
  "?": () => ($("help").open = !$("help").open),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !plane) return;
  if (event.target.matches?.('input:not([type="checkbox"]), select, .scroll')) return;
  const act = ARROWS[event.key] || ($("letters").checked && LETTERS[event.key]);
  if (!act) return;
  event.preventDefault();
  act(event.shiftKey);
}

// ---------------------------------------------------------------- start
function drawShown() {
  makeTiles();
  drawTable();
  if (plane) hideUntested();
}

// The case, plane and slice that the address asks for, as in a link to a colleague; otherwise the first case.
function openAsked() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const number = cases.findIndex(({ id }) => id === asked.get("case"));
  const axis = AXES.indexOf(asked.get("plane"));
  const place = asked.has("slice") ? Number(asked.get("slice")) || 0 : null;
  if (number >= 0) openCase(number, axis < 0 ? chosen.axis : axis, place);
  else if (chosen.case < 0) openCase(order[0]);
}

makeControls();
listen();
chosen.down = falling(chosen.sort);
drawShown();
setMode("fill");
openAsked();
