"use strict";
// A scan is sent, followed until it is done, and shown with its mask. Files keep their names in the browser.

const POLL_MS = 600;
let token = "";
let network = null; // its classes, its channels, and how much is taken
let files = []; // chosen, one a channel
let job = null; // its id
let upload = null; // the request that sends it
let shown = null; // volumes, planes and slices
const endingOf = ({ name }) => network.endings.find((end) => name.toLowerCase().endsWith(end)) ?? ".nii.gz";
const named = () => (files[0] ? files[0].name.slice(0, -endingOf(files[0]).length).replace(/_\d{4}$/, "") : "Scan");

function only(...ids) {
  for (const id of ["entry", "giving", "working", "found"]) $(id).hidden = !ids.includes(id);
}

function fail(words = "") {
  $("failure").textContent = words;
  $("failure").hidden = !words;
}

// ---------------------------------------------------------------- the service
async function ask(address, method = "GET") {
  const answer = await fetch(address, { method, headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `The service answered ${answer.status}.` }));
  throw Object.assign(new Error(error), { status: answer.status });
}

async function begin() {
  const asked = new URLSearchParams(location.hash.slice(1));
  token = asked.get("token") ?? sessionStorage.getItem("token") ?? "";
  if (asked.has("token")) history.replaceState(null, "", location.pathname); // kept out of links and of the history
  try {
    network = await (await ask("network")).json();
  } catch (error) {
    only("entry");
    fail(error.status !== 401 ? error.message : token ? "That is not the token of this service." : "");
    return $("token").focus();
  }
  sessionStorage.setItem("token", token);
  fail();
  describe();
  if (asked.get("job")) {
    if (asked.get("job") !== job) files = []; // their name is another scan's
    follow(asked.get("job"));
  } else giveAnother();
}

function describe() {
  const { data, classes, channels, endings, max_mb } = network;
  document.title = document.querySelector("h1").textContent = `Segmentation: ${data}`;
  document.querySelector(".lead").textContent = classes.map(({ name }) => name).join(", ");
  const many = channels.length > 1;
  const each = many ? `One file for each channel (${channels.join(", ")}), or one with all` : `One file (${channels[0]})`;
  $("wanted").textContent = `${each}; up to ${max_mb} MB; ${endings.join(", ")}. Names of files stay in this browser.`;
  $("files").accept = [...endings, ".gz"].join();
}

// ---------------------------------------------------------------- giving
function giveAnother() {
  [files, job, shown] = [[], null, null];
  $("files").value = "";
  $("ordering").hidden = true;
  history.replaceState(null, "", location.pathname);
  only("giving");
}

function choose(given) {
  fail();
  const { channels } = network;
  if (given.length !== 1 && given.length !== channels.length)
    return fail(
      `${given.length} files were given. One scan at a time: 1 file` +
        (channels.length > 1 ? `, or ${channels.length}, one for each channel.` : "."),
    );
  files = [...given].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  if (files.length === 1) return send();
  const options = () => files.map(({ name }, value) => make("option", { value }, name));
  $("channels").replaceChildren(
    ...channels.map((name, place) => {
      const select = make("select", {}, ...options());
      select.value = place;
      return make("label", {}, make("span", {}, name), select);
    }),
  );
  $("ordering").hidden = false;
  $("ordering").querySelector("button").focus();
}

function sendOrdered(event) {
  event.preventDefault();
  const places = [...$("channels").querySelectorAll("select")].map(({ value }) => value);
  if (new Set(places).size < places.length) return fail("A file is chosen for two channels. Choose another for one.");
  files = places.map((place) => files[place]);
  send();
}

function send() {
  fail();
  const total = files.reduce((sum, { size }) => sum + size, 0);
  if (total > network.max_mb * 1e6)
    return fail(`The scan has ${Math.ceil(total / 1e6)} MB; the service takes up to ${network.max_mb} MB.`);
  only("working");
  working("Sending", 0, "");
  upload = new XMLHttpRequest(); // fetch does not say how much was sent
  upload.open("POST", `jobs?view=true&ending=${endingOf(files[0])}&sizes=${files.map(({ size }) => size)}`);
  upload.setRequestHeader("Content-Type", "application/octet-stream");
  if (token) upload.setRequestHeader("Authorization", `Bearer ${token}`);
  upload.responseType = "json";
  upload.upload.onprogress = ({ loaded }) => working("Sending", loaded / total, `${Math.round((100 * loaded) / total)} %`);
  upload.onload = ({ target }) => {
    if (target.status === 202) return follow(target.response.id);
    giveAnother();
    fail(target.response?.error ?? `The service answered ${target.status}.`);
  };
  upload.onerror = () => {
    giveAnother();
    fail("The scan could not be sent: the service does not answer, or refused it before it was complete. Try again.");
  };
  upload.onabort = giveAnother;
  upload.send(new Blob(files));
}

// ---------------------------------------------------------------- following
function working(what, share, state) {
  $("working-name").textContent = `${what} ${named()}`;
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
  if ($("state").textContent !== state) $("state").textContent = state;
}

async function follow(id) {
  [job, upload] = [id, null];
  history.replaceState(null, "", `#job=${id}`); // so that the page can be loaded again
  only("working");
  while (job === id) {
    let found = null;
    try {
      found = await (await ask(`jobs/${id}`)).json();
    } catch (error) {
      if (error.status) return over(error.message);
      working("Waiting for", null, "The service does not answer. Trying again.");
    }
    if (job !== id) return;
    if (found?.status === "finished") return show(found);
    if (found?.status === "failed" || found?.status === "cancelled") return over(found.error);
    if (found) report(found);
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function report({ status, ahead, progress }) {
  if (status === "waiting") working("Waiting:", null, `${ahead} ${ahead === 1 ? "scan" : "scans"} ahead of it`);
  else working("Segmenting", progress || null, progress ? `${Math.round(100 * progress)} %` : "Reading and computing");
}

function over(words) {
  giveAnother();
  fail(words);
}

async function cancel() {
  if (upload) return upload.abort();
  const id = job;
  giveAnother();
  if (id) await ask(`jobs/${id}`, "DELETE").catch(() => null);
}

// ---------------------------------------------------------------- what was found
async function show({ id, result }) {
  $("found-name").textContent = named();
  tabulate(result);
  $("risk").textContent = `Risk: ${result.risk}${result.findings.length ? "" : ". Nothing unusual was found."}`;
  $("risk").className = result.risk;
  $("findings").replaceChildren(...result.findings.map((text) => make("li", {}, text)));
  shown = null; // nor the slices of the scan before
  $("tiles").replaceChildren();
  $("viewer").hidden = $("unseen").hidden = true;
  only("found");
  $("found-name").focus();
  try {
    const { about, payload } = await (await ask(`jobs/${id}/view`)).json();
    const volumes = await unpack(about, payload);
    if (job !== id) return;
    const planes = [2, 1, 0].map((axis) => planeOf(volumes, axis));
    const at = planes.map(({ structure, slices }) => (structure.some(Boolean) ? largest(structure) : slices >> 1));
    shown = { volumes, planes, at };
    const [step, size] = [Math.max(...about.step), times(about.dims) !== times(about.shape)];
    $("coarse").textContent =
      step > 1 ? `Shown coarser than it is: ${times(about.step)} voxels as one.` : size ? "Cropped to the structures." : "";
    $("viewer").hidden = false; // tiles are laid out by the room that there is
    makeTiles();
  } catch (error) {
    if (job !== id) return;
    shown = null;
    if (error.status !== 404) fail(`The slices cannot be shown (${error.message}).`);
  }
  $("viewer").hidden = !shown;
  $("unseen").hidden = Boolean(shown);
}

function tabulate({ volumes_ml, expected_dice, confidence = {}, no_promise }) {
  const two = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
  const rows = network.classes.map(({ name, color }, place) => {
    const [dice, low, high] = expected_dice[name] ?? [];
    const range = low === null || low === undefined ? "" : ` (${two(low)} to ${two(high)})`;
    const box = make("input", { type: "checkbox", checked: true, value: place + 1, "aria-label": `Show ${name}` });
    const head = make("th", { scope: "row" }, make("label", {}, box, swatch(color), make("bdi", {}, name)));
    const cells = [`${short(volumes_ml[name])} ml`, two(dice) + range, two(confidence[name])];
    return make("tr", {}, head, ...cells.map((text) => make("td", {}, text)));
  });
  $("volumes").tBodies[0].replaceChildren(...rows);
  $("promised").textContent = Object.keys(expected_dice).length
    ? "Expected Dice: mean" +
      (Object.values(expected_dice).some(([, low]) => low !== null)
        ? ", and the interval that holds 90 % of scans like those that the network was tested on."
        : "; the network was tested on too few scans to give an interval.")
    : no_promise
      ? `${no_promise[0].toUpperCase()}${no_promise.slice(1)}.`
      : "No Dice can be promised for this scan.";
}

async function download() {
  try {
    const answer = await ask(`jobs/${job}/mask`);
    const [ending] = answer.headers.get("content-disposition").match(/\.[\w.]+/);
    const address = URL.createObjectURL(await answer.blob());
    make("a", { href: address, download: `${named()}_mask${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  } catch (error) {
    fail(error.message);
  }
}

// ---------------------------------------------------------------- slices
function makeTiles() {
  const { planes } = shown;
  shown.tiles = planes.map((plane, place) => {
    const name = AXES[plane.axis];
    const slider = make("input", { type: "range", min: 0, max: plane.slices - 1, "aria-label": `${name} slice` });
    const output = make("output", {});
    const canvas = make("canvas", { role: "img" });
    slider.addEventListener("input", () => moveTo(place, Number(slider.value)));
    canvas.addEventListener("click", (event) => pointAt(place, event));
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      moveTo(place, shown.at[place] + Math.sign(event.deltaY));
    });
    const caption = make("figcaption", {}, make("span", {}, name), slider, output);
    return { slider, output, canvas, figure: make("figure", { className: "tile" }, caption, canvas) };
  });
  $("tiles").replaceChildren(...shown.tiles.map(({ figure }) => figure));
  paintAll();
}

function moveTo(place, slice) {
  shown.at[place] = within(slice, 0, shown.planes[place].slices - 1);
  paint(place);
}

// The other planes go through the voxel that was clicked.
function pointAt(place, event) {
  const plane = shown.planes[place];
  const [column, row] = pointed(event, boxOf(plane));
  const voxel = { [plane.c]: plane.columns - 1 - column, [plane.r]: plane.rows - 1 - row };
  shown.planes.forEach(({ axis }, other) => axis in voxel && moveTo(other, voxel[axis]));
}

function paintAll() {
  if (!shown) return;
  const boxes = shown.planes.map(boxOf);
  const ratio = devicePixelRatio || 1;
  const sizes = shown.planes.map(({ columnMm, rowMm }, place) => {
    const [left, top, right, bottom] = boxes[place];
    return [(right - left) * columnMm, (bottom - top) * rowMm];
  });
  const room = shown.tiles[0].figure.clientWidth;
  const scales = sizes.map(([wide, high]) => Math.min(room / wide, Math.max(240, 0.5 * innerHeight) / high));
  const scale = Math.min(...scales); // pixels a mm, the same in all
  shown.tiles.forEach(({ canvas }, place) => {
    [canvas.width, canvas.height] = sizes[place].map((mm) => Math.max(1, Math.round(mm * scale * ratio)));
    canvas.style.width = `${canvas.width / ratio}px`;
    paint(place);
  });
}

function paint(place) {
  const { volumes, planes, at, tiles } = shown;
  const [plane, { canvas, slider, output }] = [planes[place], tiles[place]];
  const pen = canvas.getContext("2d");
  const grid = gridOn(canvas, boxOf(plane));
  const grey = greyPicture(cut(volumes.image, plane, at[place]), plane, volumes.about.kept, contrast(volumes.about.window));
  const ratio = devicePixelRatio || 1;
  paintGrey(pen, grey, grid);
  const mode = $("modes").querySelector('[aria-pressed="true"]').value;
  const mask = cut(volumes.label, plane, at[place]);
  const there = new Set(mask);
  for (const { value } of mode === "off" ? [] : $("volumes").querySelectorAll("input:checked")) {
    const { indices, color } = network.classes[value - 1];
    if (!indices.some((k) => there.has(k))) continue;
    const shape = shapeOf((i) => indices.includes(mask[i]), plane, grid);
    paintShape(pen, shape, color, mode === "contour" ? 0 : $("opacity").value / 100, 1.4 * ratio);
  }
  annotate(pen, canvas, plane, grid.box, ratio);
  const number = plane.number(at[place]);
  slider.value = at[place];
  slider.setAttribute("aria-valuetext", `${number} of 0 to ${plane.last}`);
  output.textContent = `${number} / ${plane.last}`;
  const inside = network.classes.filter(({ indices }) => indices.some((k) => there.has(k))).map(({ name }) => name);
  canvas.setAttribute("aria-label", `${AXES[plane.axis]} slice ${number}: ${inside.join(", ") || "no structure"}`);
}

// ---------------------------------------------------------------- start
function listen() {
  on("submit", "entry", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value.trim());
    begin();
  });
  on("change", "files", ({ target }) => target.files.length && choose(target.files));
  on("submit", "ordering", sendOrdered);
  on("click", "cancel", cancel);
  on("click", "another", giveAnother);
  on("click", "remove", cancel);
  on("click", "download", download);
  on("click", "modes", ({ target }) => {
    if (!target.value) return;
    press("modes", target.value);
    paintAll();
  });
  on("input", "opacity level width zoom", paintAll);
  on("change", "volumes", paintAll);
  addEventListener("resize", paintAll);
  addEventListener("hashchange", begin); // a link with a token, or to a job
  for (const kind of ["dragover", "dragleave", "drop"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && !$("giving").hidden && event.dataTransfer.files.length) choose(event.dataTransfer.files);
    });
}

press("modes", "fill");
listen();
begin();
