"use strict";
// The page: what is chosen, which case is open, controls and keys. All text is set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { cases, runs, measures, classes } = data;
const collator = new Intl.Collator("en", { numeric: true });
const MOST_TILES = 12; // runs shown at first
const MODES = { fill: "Fill", contour: "Contour", errors: "Errors", off: "Off" };

// What is chosen. `order` is the cases of the table, as filtered and sorted.
const chosen = {
  case: -1,
  axis: data.axis,
  slice: 0,
  mode: "fill",
  before: "fill",
  measure: 0,
  column: 0,
  across: 0,
  up: 1,
  sort: "mean",
  down: false,
  order: cases.map((_, number) => number),
  shown: new Set([...runs.keys()].slice(0, MOST_TILES)),
  classes: new Set(classes.map((_, k) => k + 1)),
};
let volumes = null,
  plane = null,
  tiles = [];

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const badge = (run) => make("span", { className: "badge" }, String(run + 1));
const swatch = (color) => {
  const box = make("span", { className: "swatch" });
  box.style.backgroundColor = color;
  return box;
};
const short = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(4))));
const times = (numbers) => numbers.map((number) => Number(number.toFixed(2))).join(" × ");
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const sorted = (values) => [...values].sort((a, b) => a - b);
const quantile = (values, share) => sorted(values)[Math.min(values.length - 1, Math.floor(share * values.length))];
const median = (values) => {
  const row = sorted(values),
    half = row.length >> 1;
  return row.length ? (row[half] + row[row.length - 1 - half]) / 2 : null;
};
const largest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

// ---------------------------------------------------------------- the open case
async function openCase(number, where = {}) {
  const about = cases[number];
  chosen.case = number;
  markRow();
  markPoint();
  let found = null;
  try {
    found = await unpack(about, JSON.parse($(`case-${number}`).textContent));
  } catch (error) {
    if (chosen.case === number)
      fail(
        `The slices of ${about.id} cannot be unpacked (${error.message}). Make the page again, or open it in a newer browser.`,
      );
    return;
  }
  if (chosen.case !== number) return; // another case was opened meanwhile
  volumes = found;
  $("case-name").textContent = about.id;
  setPlane(where.axis ?? chosen.axis, where.slice);
}

function setPlane(axis, slice) {
  chosen.axis = axis;
  plane = planeOf(volumes, axis);
  for (const button of $("planes").children) button.setAttribute("aria-pressed", Number(button.value) === axis);
  $("slice").max = plane.slices - 1;
  chosen.slice = Math.round(within(slice ?? fullest(), 0, plane.slices - 1));
  tellCase();
  fitTiles();
  paint();
}

function setSlice(slice) {
  if (!plane) return;
  chosen.slice = within(slice, 0, plane.slices - 1);
  paint();
}

function stepCase(by) {
  const { order } = chosen,
    here = order.indexOf(chosen.case);
  const next = order[within(here < 0 ? 0 : here + by, 0, order.length - 1)];
  if (next === undefined || next === chosen.case) return;
  const inTable = $("table").tBodies[0].contains(document.activeElement);
  openCase(next);
  if (inTable) $("table").querySelector(`tr[data-case="${next}"] button`).focus({ preventScroll: true });
}

function tellCase() {
  const { patient, id, shape, spacing, dims, step } = cases[chosen.case];
  const place = chosen.order.indexOf(chosen.case) + 1;
  const parts = [place ? `${place} of ${chosen.order.length}` : "not in the table now"];
  if (patient !== id) parts.push(`patient ${patient}`);
  parts.push(`${times(shape)} voxels of ${times(spacing)} mm`);
  if (Math.max(...step) > 1) parts.push(`a part of it, ${times(step)} voxels shown as one`);
  else if (dims.some((size, axis) => size < shape[axis])) parts.push(`shown: ${times(dims)} around the structures`);
  $("case-about").textContent = parts.join(" · ");
}

// The slice with the largest structure; without any, that with most errors, or the middle one.
function fullest() {
  const rows = [[...plane.structure], [...mostWrong()]].filter((counts) => Math.max(...counts) > 0);
  return rows.length ? largest(rows[0]) : plane.slices >> 1;
}

function mostWrong() {
  const sum = new Float64Array(plane.slices);
  for (const run of shownRuns()) plane.wrong[run]?.forEach((count, slice) => (sum[slice] += count));
  return sum;
}

let telling = 0;
function announce(text) {
  clearTimeout(telling);
  telling = setTimeout(() => ($("live").textContent = text), 350);
}

function fail(text) {
  $("failure").textContent = text;
  $("failure").hidden = false;
}

// ---------------------------------------------------------------- controls
function setMode(mode) {
  if (mode === "off" && chosen.mode === "off") mode = chosen.before;
  if (mode !== "off") chosen.before = mode;
  chosen.mode = mode;
  for (const button of $("modes").children) button.setAttribute("aria-pressed", button.value === mode);
  const keys =
    mode === "errors"
      ? data.errors.map(({ name, color }) => [errorSwatch(name, color), name])
      : [...chosen.classes].map((k) => [swatch(classes[k - 1].color), classes[k - 1].name]);
  const parts = keys.map(([box, name]) => make("span", { className: "key" }, box, make("bdi", {}, name)));
  if (mode !== "off" && $("outline").checked) parts.push(make("span", { className: "key" }, "white line: reference"));
  $("legend").replaceChildren(...(mode === "off" ? ["No overlay"] : parts));
  paint();
}

function errorSwatch(name, color) {
  const box = make("canvas", { width: 22, height: 22, className: "swatch" }),
    pen = box.getContext("2d");
  pen.fillStyle = "#444";
  pen.fillRect(0, 0, 22, 22);
  pen.fillStyle = hatched(pen, color, name, 2);
  pen.fillRect(0, 0, 22, 22);
  return box;
}

function makeControls() {
  const choice = (value, text) => make("button", { type: "button", value, "aria-pressed": "false" }, text);
  for (const axis of [2, 1, 0]) $("planes").append(choice(axis, AXES[axis][0].toUpperCase() + AXES[axis].slice(1)));
  for (const [mode, text] of Object.entries(MODES)) $("modes").append(choice(mode, text));
  classes.forEach(({ name, color }, place) => {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      chosen.classes[box.checked ? "add" : "delete"](place + 1);
      setMode(chosen.mode === "off" ? chosen.before : chosen.mode);
    });
    $("classes").append(make("label", { className: "check", title: name }, box, swatch(color), make("bdi", {}, name)));
  });
  const option = (text, value) => make("option", { value }, text);
  $("measure").append(...measures.map(({ name, unit }, place) => option(unit ? `${name} (${unit})` : name, place)));
  $("column").append(...[data.mean, ...classes.map(({ name }) => name)].map(option));
  for (const id of ["across", "up"]) $(id).append(...runs.map(({ label }, run) => option(`${run + 1}  ${label}`, run)));
  const shared = runs.map((_, run) => cases.filter(({ scores }) => run && scores[0] && scores[run]).length);
  chosen.up = shared.some(Boolean) ? largest(shared) : Math.min(1, runs.length - 1); // the first with most cases of run 1
  $("up").value = chosen.up;
  $("scatter").hidden = runs.length < 2;
  document.querySelector('nav a[href="#scatter"]').hidden = runs.length < 2;
}

function listen() {
  const on = (id, kind, act) => $(id).addEventListener(kind, act);
  on("planes", "click", ({ target }) => target.value && plane && setPlane(Number(target.value)));
  on("modes", "click", ({ target }) => target.value && setMode(target.value));
  on("previous", "click", () => stepCase(-1));
  on("next", "click", () => stepCase(1));
  on("slice", "input", () => setSlice(Number($("slice").value)));
  on("largest", "click", () => plane && setSlice(fullest()));
  on("worst", "click", () => plane && setSlice(largest([...mostWrong()])));
  for (const id of ["opacity", "level", "width"]) on(id, "input", paint);
  on("outline", "change", () => setMode(chosen.mode));
  on("reset", "click", resetContrast);
  for (const [id, kind] of [
    ["zoom", "change"],
    ["size", "input"],
  ])
    on(id, kind, () => {
      fitTiles();
      paint();
    });
  for (const id of ["measure", "column"])
    on(id, "change", () => {
      chosen[id] = Number($(id).value);
      drawNumbers();
    });
  for (const id of ["across", "up"])
    on(id, "change", () => {
      chosen[id] = Number($(id).value);
      drawTable();
      drawScatter();
    });
  on("swap", "click", () => {
    [chosen.across, chosen.up] = [chosen.up, chosen.across];
    [$("across").value, $("up").value] = [chosen.across, chosen.up];
    drawTable();
    drawScatter();
  });
  for (const [id, kind] of [
    ["filter", "input"],
    ["shared", "change"],
  ])
    on(id, kind, () => {
      drawTable();
      if (plane) tellCase();
    });
  on("plot", "keydown", onPointKey);
  on("help-open", "click", () => $("help").showModal());
  on("help-close", "click", () => $("help").close());
  document.addEventListener("keydown", onKey);
  // After a drag with the mouse the arrows are for slices and cases again.
  document.addEventListener("pointerup", ({ target }) => target.type === "range" && target.blur());
  addEventListener("resize", () => {
    fitTiles();
    paint();
  });
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
    if (!plane) return;
    if (!from) return tellPointer(event);
    $("width").value = from.width + (event.clientX - from.x) / 2;
    $("level").value = from.level + (event.clientY - from.y) / 2;
    paint();
  });
  for (const kind of ["pointerup", "pointercancel"]) place.addEventListener(kind, () => (from = null));
  place.addEventListener("pointerleave", () => ($("pointer").textContent = ""));
  place.addEventListener(
    "wheel",
    (event) => {
      if (document.activeElement !== place || event.ctrlKey) return;
      event.preventDefault();
      setSlice(chosen.slice + Math.sign(event.deltaY));
    },
    { passive: false },
  );
}

// What lies under the pointer: place, image value, and what reference and runs say it is.
function tellPointer({ target, offsetX, offsetY }) {
  const tile = tiles.find(({ canvas }) => canvas === target);
  if (!tile || !chosen.now) return;
  const [left, top, right, bottom] = tile.kind === "image" ? [0, 0, plane.columns, plane.rows] : boxShown();
  const column = Math.floor(left + (offsetX / target.clientWidth) * (right - left)),
    row = Math.floor(top + (offsetY / target.clientHeight) * (bottom - top));
  const i = row * plane.columns + column,
    { about } = volumes,
    index = [0, 0, 0];
  if (column < 0 || row < 0 || column >= plane.columns || row >= plane.rows) return;
  [index[plane.axis], index[plane.c], index[plane.r]] = [
    chosen.slice,
    plane.columns - 1 - column,
    plane.rows - 1 - row,
  ];
  const [low, high] = about.kept,
    value = low + ((high - low) * chosen.now.image[i]) / 255;
  const named = (k) => (k ? classes[k - 1].name : "background"),
    said = new Map();
  chosen.now.preds.forEach((pred, run) => pred && said.set(pred[i], [...(said.get(pred[i]) || []), run + 1]));
  const words = [...said].map(
    ([k, who]) => `${named(k)} in ${who.length > 1 && said.size === 1 ? "all runs" : `run ${who.join(", ")}`}`,
  );
  const place = index
    .map((at, axis) => about.offset[axis] + at * about.step[axis] + (about.step[axis] >> 1))
    .join(", ");
  $("pointer").textContent =
    `Voxel ${place} · image ${short(value)} · reference: ${named(chosen.now.label[i])} · ${words.join(" · ")}`;
}

function resetContrast() {
  [$("level").value, $("width").value] = [50, 100];
  paint();
}

function onKey(event) {
  const { key, target } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || $("help").open || !plane) return;
  if (target.matches?.('input:not([type="checkbox"]), select, textarea')) return;
  const arrows = {
    ArrowLeft: () => setSlice(chosen.slice - (event.shiftKey ? 5 : 1)),
    ArrowRight: () => setSlice(chosen.slice + (event.shiftKey ? 5 : 1)),
  };
  if (!event.shiftKey) Object.assign(arrows, { ArrowUp: () => stepCase(-1), ArrowDown: () => stepCase(1) });
  const toggle = (id) => () => $(id).click();
  const letters = {
    p: () => setPlane((plane.axis + 2) % 3),
    b: toggle("largest"),
    e: toggle("worst"),
    r: resetContrast,
    l: toggle("outline"),
    z: toggle("zoom"),
    f: () => setMode("fill"),
    c: () => setMode("contour"),
    x: () => setMode("errors"),
    o: () => setMode("off"),
    "?": () => $("help").showModal(),
  };
  const act = arrows[key] && !target.matches?.(".scroll") ? arrows[key] : $("letters").checked ? letters[key] : null;
  if (!act) return;
  event.preventDefault();
  act();
}

// ---------------------------------------------------------------- start
function drawNumbers() {
  drawTable();
  drawScatter();
  drawRuns();
  if (plane) {
    tellCase();
    paint();
  }
}

function drawTexts() {
  const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const cropped = cases.filter(({ dims, shape }) => dims.some((size, axis) => size < shape[axis])).length;
  const coarser = cases.filter(({ step }) => Math.max(...step) > 1).length;
  $("title").textContent = data.title;
  const records = runs.flatMap((run) => run.records).length;
  const pooled =
    records > runs.length ? ` in ${many(runs.length, "column")}: the folds of an arm and seed together` : "";
  $("subtitle").textContent =
    `${many(records, "run")}${pooled} · ${many(cases.length, "case")} · ${data.dataset}${data.channels > 1 ? `, channel ${data.channel}` : ""} · made ${data.made}`;
  const size =
    cropped - coarser
      ? `${cropped - coarser} of ${many(cases.length, "case")} are cropped to the box around reference and predictions, ${data.marginMm} mm wider on each side. `
      : "";
  const rough = coarser
    ? `${coarser} are cropped so and made coarser: several voxels shown as one, the image by their mean, masks by the voxel in the middle; scores are of the full volumes, those of slices are not. `
    : "";
  $("footer").textContent =
    `${size}${rough || ""}${size || rough ? "This keeps the page under its size. " : "All volumes are whole. "}Not a medical device.`;
  const notes = [
    "Radiological view: the patient’s right is on the left of the picture, anterior or superior at the top; a sagittal slice has anterior on the left. Pixels keep their proportions in mm.",
    "The image is interpolated, masks are not: each step is one voxel. Slices and voxels are counted from 0 in the order right, anterior, superior.",
    "The first tile shows the whole slice, with a frame around what the others show in close-up.",
    "The large number on a tile is the case’s score from the run’s own table; “slice” is the Dice of the slice shown.",
    "Above the slider: wide grey bars, the area of the reference in each slice; narrow orange bars, the voxels that the shown runs have wrong. Each is drawn relative to its own largest.",
    "In the table a tinted number is worse than the median of all numbers shown; the stronger the tint, the worse.",
    "The image is kept in 256 grey values; contrast beyond them is lost. Contrast is set anew for each case, relative to its own range.",
    "A mean over other cases is another mean: compare runs on the cases that both have.",
  ];
  $("reading").replaceChildren(...notes.map((text) => make("li", {}, text)));
}

function start() {
  document.body.className = runs.length > 4 ? "many" : "few";
  drawTexts();
  makeControls();
  drawRecord();
  listen();
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined")
    fail("This browser is too old to unpack the slices; the tables below are complete.");
  drawNumbers();
  makeTiles();
  setMode("fill");
  addEventListener("hashchange", openAsked);
  openAsked();
}

// The case, plane and slice that the address asks for, so that a colleague can be sent to one; else the first of the table.
function openAsked() {
  const asked = new URLSearchParams(location.hash.slice(1)),
    axis = AXES.indexOf(asked.get("plane"));
  const number = cases.findIndex(({ id }) => id === asked.get("case"));
  if (number >= 0)
    openCase(number, {
      axis: axis < 0 ? undefined : axis,
      slice: asked.has("slice") ? Number(asked.get("slice")) || 0 : undefined,
    });
  else if (chosen.case < 0) openCase(chosen.order[0]);
}
start();
