"use strict";
// The table of cases, the scatter of one run against another, and the table of runs.

// ---------------------------------------------------------------- numbers of the table
const measure = () => measures[chosen.measure];
const score = (number, run) => cases[number].scores[run]?.[chosen.measure][chosen.column] ?? null;
function written(value, sign = "") {
  if (value === null) return "–";
  const text = Math.abs(value).toFixed(measure().digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : sign) + text; // no sign before 0.000
}
const shownRuns = () => [...runs.keys()].filter((run) => chosen.shown.has(run));
const known = (number) =>
  shownRuns()
    .map((run) => score(number, run))
    .filter((value) => value !== null);
const difference = (number) => {
  const [a, b] = [score(number, chosen.across), score(number, chosen.up)];
  return a === null || b === null ? null : b - a;
};
const KEYS = {
  mean: (number) => mean(known(number)),
  range: (number) => (known(number).length > 1 ? Math.max(...known(number)) - Math.min(...known(number)) : null),
  difference,
};
const valueOf = (key) => KEYS[key] || ((number) => score(number, Number(key)));
const worstFirst = (key) => (key === "case" ? false : key === "range" ? true : measure().better < 0); // descending?

function sortCases() {
  const words = $("filter").value.trim().toLowerCase();
  const there = (number) => {
    const { id, patient } = cases[number];
    const all = !$("shared").checked || shownRuns().every((run) => score(number, run) !== null);
    return all && (!words || id.toLowerCase().includes(words) || patient.toLowerCase().includes(words));
  };
  const byName = (a, b) => collator.compare(cases[a].id, cases[b].id);
  const turn = chosen.down ? -1 : 1,
    value = valueOf(chosen.sort);
  chosen.order = [...cases.keys()].filter(there).sort((a, b) => {
    if (chosen.sort === "case") return turn * byName(a, b);
    const [x, y] = [value(a), value(b)];
    return (x === null) - (y === null) || turn * (x - y) || byName(a, b); // what is missing comes last either way
  });
}

function columnsOfTable() {
  const columns = [{ key: "case", text: "Case", title: "Case" }];
  for (const run of shownRuns())
    columns.push({ key: String(run), run, text: "", title: `Run ${run + 1}: ${runs[run].label}` });
  if (chosen.shown.size > 1) columns.push({ key: "mean", text: "Mean", title: "Mean of the runs shown" });
  if (chosen.shown.size > 2) columns.push({ key: "range", text: "Range", title: "Best minus worst of the runs shown" });
  if (runs.length > 1)
    columns.push({
      key: "difference",
      text: `${chosen.up + 1} − ${chosen.across + 1}`,
      title: `Difference: run ${chosen.up + 1}, ${runs[chosen.up].label}, minus run ${chosen.across + 1}, ${runs[chosen.across].label}`,
    });
  return columns;
}

function drawTable() {
  const columns = columnsOfTable();
  if (!columns.some(({ key }) => key === chosen.sort)) {
    chosen.sort = (columns[1] || columns[0]).key;
    chosen.down = worstFirst(chosen.sort);
  }
  sortCases();
  const heads = columns.map(({ key, run, text, title }) => {
    const button = make("button", { type: "button", title, "aria-label": title, onclick: () => sortBy(key) });
    if (run === undefined) button.append(text);
    else button.append(badge(run), ...(chosen.shown.size <= 4 ? [` ${runs[run].label}`] : []));
    const head = make("th", { scope: "col", "data-key": key }, button);
    if (key === chosen.sort) head.setAttribute("aria-sort", chosen.down ? "descending" : "ascending");
    return head;
  });
  const means = columns.slice(1).map(({ key }) => {
    const values = chosen.order.map(valueOf(key)).filter((value) => value !== null);
    return make("td", {}, written(mean(values), key === "difference" ? "+" : ""));
  });
  const above = make("tr", { className: "mean" }, make("th", { scope: "row" }, "Mean of these"), ...means);
  $("table").tHead.replaceChildren(make("tr", {}, ...heads), above);
  $("table").tBodies[0].replaceChildren(...bodyRows(columns));
  const order = columns.find(({ key }) => key === chosen.sort).title;
  $("count").textContent = `${chosen.order.length} of ${cases.length} cases`;
  $("table").caption.textContent =
    `${$("count").textContent}, ${measure().name}. Sorted by ${order}, ${chosen.down ? "falling" : "rising"}.`;
  markRow();
}

function bodyRows(columns) {
  const all = [...cases.keys()].flatMap((number) => known(number));
  const usual = median(all) ?? 0,
    poor = all.length
      ? quantile(
          all.map((v) => v * measure().better),
          0.04,
        ) * measure().better
      : 0;
  const widest = Math.max(1e-9, ...[...cases.keys()].map((number) => Math.abs(difference(number) ?? 0)));
  return chosen.order.map((number) => {
    const { id, patient } = cases[number];
    const name = make("button", { type: "button", title: patient === id ? id : `${id}, patient ${patient}` }, id);
    const row = make(
      "tr",
      { "data-case": number, onclick: () => openCase(number) },
      make("th", { scope: "row" }, name),
    );
    for (const { key, run } of columns.slice(1)) {
      const value = valueOf(key)(number);
      const cell = make(
        "td",
        value === null ? { className: "gap" } : {},
        written(value, key === "difference" ? "+" : ""),
      );
      if (run !== undefined && value === null) cell.title = "This run was not tested on this case.";
      if (key === "difference" && value !== null) cell.append(differenceBar(value * measure().better, widest));
      else if (run !== undefined && value !== null && usual !== poor) {
        cell.classList.add("heat");
        cell.style.setProperty("--heat", Math.min(1, Math.max(0, (usual - value) / (usual - poor))).toFixed(2));
      }
      row.append(cell);
    }
    return row;
  });
}

function differenceBar(value, widest) {
  const bar = make("i", { className: value < 0 ? "down" : "up" });
  bar.style.width = `${Math.round((24 * Math.abs(value)) / widest)}px`;
  return make("span", { className: "difference", "aria-hidden": "true" }, bar);
}

function sortBy(key) {
  chosen.down = key === chosen.sort ? !chosen.down : worstFirst(key);
  chosen.sort = key;
  drawTable();
  $("table").querySelector(`th[data-key="${key}"] button`).focus();
}

function markRow() {
  for (const row of $("table").tBodies[0].rows) {
    const here = Number(row.dataset.case) === chosen.case;
    if (here) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
    if (!here) continue;
    const around = row.closest(".scroll"),
      top = row.offsetTop - $("table").tHead.offsetHeight;
    if (around.scrollTop > top) around.scrollTop = top;
    if (around.scrollTop + around.clientHeight < row.offsetTop + row.offsetHeight)
      around.scrollTop = row.offsetTop + row.offsetHeight - around.clientHeight;
  }
}

// ---------------------------------------------------------------- one run against another
const within = (value, low, high) => Math.min(high, Math.max(low, value));
function ticks(low, high) {
  const rough = (high - low) / 5,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const marks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9; n++)
    marks.push(Number((n * step).toPrecision(6)));
  return marks;
}

function drawScatter() {
  if (runs.length < 2) return;
  const plot = $("plot"),
    { across, up } = chosen,
    { better, unit, name } = measure();
  const shared = [...cases.keys()].filter((number) => difference(number) !== null);
  const values = shared.flatMap((number) => [score(number, across), score(number, up)]);
  plot.replaceChildren();
  $("plot").toggleAttribute("hidden", !values.length);
  $("pair").textContent = pairText(shared);
  $("point").textContent = "";
  if (!values.length) return;
  const room = Math.max((Math.max(...values) - Math.min(...values)) * 0.06, 0.005);
  const [low, high] = [Math.max(0, Math.min(...values) - room), Math.max(...values) + room];
  const at = (value) => 44 + ((value - low) / (high - low)) * 366;
  const [x, y] = [at, (value) => 414 - at(value) + 0];
  plot.append(draw("rect", { x: 44, y: 4, width: 366, height: 366, class: "axis" }));
  for (const mark of ticks(low, high)) {
    plot.append(draw("path", { d: `M${x(mark)} 4V370M44 ${y(mark)}H410`, class: "axis" }));
    plot.append(draw("text", { x: x(mark), y: 384, "text-anchor": "middle" }, String(mark)));
    plot.append(draw("text", { x: 39, y: y(mark) + 4, "text-anchor": "end" }, String(mark)));
  }
  plot.append(draw("path", { d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}`, class: "equal" }));
  const [above, below] = better > 0 ? [up, across] : [across, up];
  plot.append(
    draw("text", { x: 52, y: 20 }, `run ${above + 1} better`),
    draw("text", { x: 402, y: 362, "text-anchor": "end" }, `run ${below + 1} better`),
  );
  const words = (run) => `${name}${unit && ` (${unit})`}, run ${run + 1}: ${clipped(runs[run].label, 34)}`;
  plot.append(draw("text", { x: 227, y: 404, "text-anchor": "middle", class: "title" }, words(across)));
  plot.append(
    draw("text", { transform: "translate(11 187) rotate(-90)", "text-anchor": "middle", class: "title" }, words(up)),
  );
  shared.sort((a, b) => better * (difference(a) - difference(b)));
  plot.append(...shared.map((number, place) => pointOf(number, x, y, place === 0)), draw("g", { id: "here" }));
  plot.dataset.scale = JSON.stringify([low, high]);
  markPoint();
}

const clipped = (text, most) => ([...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text);

function pairText(shared) {
  const gains = shared.map((number) => difference(number) * measure().better);
  const better = gains.filter((gain) => gain > 0).length,
    worse = gains.filter((gain) => gain < 0).length;
  const [a, b] = [chosen.across + 1, chosen.up + 1];
  if (!shared.length) return `Runs ${a} and ${b} have no case in common.`;
  const values = shared.map(difference);
  return (
    `${shared.length} cases in both. Run ${b} minus run ${a}: mean ${written(mean(values), "+")}, median ` +
    `${written(median(values), "+")}. Run ${b} better in ${better} (filled), worse in ${worse}, equal in ${shared.length - better - worse}.`
  );
}

const pointText = (number) =>
  `${cases[number].id}: run ${chosen.across + 1} ${written(score(number, chosen.across))}, run ${chosen.up + 1} ` +
  `${written(score(number, chosen.up))}, difference ${written(difference(number), "+")}`;

function pointOf(number, x, y, first) {
  const gain = difference(number) * measure().better;
  const point = draw("circle", {
    cx: x(score(number, chosen.across)),
    cy: y(score(number, chosen.up)),
    r: 4.5,
    class: gain > 0 ? "point better" : "point",
    role: "button",
    tabindex: first ? 0 : -1,
    "data-case": number,
    "aria-label": pointText(number),
  });
  const tell = () => ($("point").textContent = pointText(number));
  point.addEventListener("pointerenter", tell);
  point.addEventListener("focus", tell);
  point.addEventListener("click", () => openCase(number));
  return point;
}

function onPointKey(event) {
  const points = [...$("plot").querySelectorAll(".point")],
    here = points.indexOf(event.target);
  if (here < 0) return;
  const moves = {
    ArrowRight: here + 1,
    ArrowDown: here + 1,
    ArrowLeft: here - 1,
    ArrowUp: here - 1,
    Home: 0,
    End: points.length - 1,
  };
  if (event.key === "Enter" || event.key === " ") openCase(Number(event.target.dataset.case));
  else if (event.key in moves) {
    const next = points[within(moves[event.key], 0, points.length - 1)];
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  } else return;
  event.preventDefault();
}

function markPoint() {
  const here = $("here");
  if (!here) return;
  here.replaceChildren();
  for (const point of $("plot").querySelectorAll(".point")) {
    const now = Number(point.dataset.case) === chosen.case;
    point.setAttribute("aria-pressed", now);
    if (!now) continue;
    const [x, y] = [Number(point.getAttribute("cx")), Number(point.getAttribute("cy"))],
      left = x > 260;
    here.append(
      draw("path", { d: `M${x} 370V${y}H44`, class: "hair", fill: "none" }),
      draw("circle", { cx: x, cy: y, r: 8, class: "here" }),
    );
    here.append(
      draw(
        "text",
        { x: x + (left ? -12 : 12), y: y - 6, "text-anchor": left ? "end" : "start", class: "here" },
        clipped(cases[chosen.case].id, 30),
      ),
    );
  }
}

// ---------------------------------------------------------------- runs
function drawRuns() {
  const facts = Object.keys(runs[0].facts).filter((key) => key !== "name");
  const shared = [...cases.keys()].filter((number) => [...runs.keys()].every((run) => score(number, run) !== null));
  const all = [...cases.keys()]
    .flatMap((number) => [...runs.keys()].map((run) => score(number, run)))
    .filter((v) => v !== null);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const partial = shared.length > 0 && shared.length < cases.length;
  const heads = [
    ["Show"],
    ["Run", "text"],
    ...facts.map((key) => [key[0].toUpperCase() + key.slice(1), "text"]),
    ["Cases"],
    ["Mean ± SD"],
  ];
  heads.push(["Median"], ["Worst"], ...(partial ? [[`Mean of the ${shared.length} in all`]] : []));
  heads.push([`Each case, ${written(low)} to ${written(high)}`, "text"], ["Record", "text"]);
  $("summary").tHead.replaceChildren(
    make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", className: kind || "" }, text))),
  );
  $("summary").tBodies[0].replaceChildren(
    ...runs.map((run, number) => runRow(run, number, facts, partial && shared, low, high)),
  );
  $("runs-about").textContent = `${measure().name}, ${$("column").selectedOptions[0].textContent}`;
}

function runRow(run, number, facts, shared, low, high) {
  const values = [...cases.keys()].map((c) => score(c, number)).filter((value) => value !== null);
  const middle = mean(values),
    worst = measure().better > 0 ? Math.min : Math.max;
  const spread =
    values.length > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (values.length - 1)) : null;
  const show = make("input", {
    type: "checkbox",
    checked: chosen.shown.has(number),
    "aria-label": `Show run ${number + 1}, ${run.label}`,
  });
  show.addEventListener("change", () => {
    chosen.shown[show.checked ? "add" : "delete"](number);
    drawTable();
    makeTiles();
    paint();
  });
  const name = make("th", { scope: "row", className: "text wrap" }, badge(number), " ", make("bdi", {}, run.label));
  if (run.facts.name !== run.label) name.append(" ", make("bdi", { className: "faint" }, run.facts.name));
  const numbers = [
    String(values.length),
    `${written(middle)} ± ${written(spread)}`,
    written(median(values)),
    written(values.length ? worst(...values) : null),
  ];
  if (shared) numbers.push(written(mean(shared.map((c) => score(c, number)))));
  const cells = numbers.map((text) => make("td", {}, text));
  const links = run.records.flatMap(({ run_id, address }) => {
    const text = make("span", { title: run_id }, run_id.slice(0, 8));
    return [address ? make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : text, " "];
  });
  return make(
    "tr",
    {},
    make("td", {}, show),
    name,
    ...facts.map((key) => make("td", { className: "text wrap" }, run.facts[key])),
    ...cells,
    make("td", { className: "text" }, strip(number, middle, low, high)),
    make("td", { className: "text" }, ...links),
  );
}

function strip(run, middle, low, high) {
  const x = (value) => (6 + (148 * (value - low)) / Math.max(high - low, 1e-9)).toFixed(1);
  const picture = draw("svg", { width: 160, height: 18, "aria-hidden": "true", class: "strip" });
  picture.append(draw("path", { d: "M2 9H158", class: "axis" }));
  for (const number of cases.keys())
    if (score(number, run) !== null)
      picture.append(draw("circle", { cx: x(score(number, run)), cy: 9, r: 2.5, "data-case": number }));
  if (middle !== null) picture.append(draw("path", { d: `M${x(middle)} 2V16`, class: "middle" }));
  return picture;
}

function drawRecord() {
  const addresses = runs.flatMap((run) => run.records).filter(({ address }) => address);
  const place = $("record");
  if (!addresses.length) place.append("These runs are not recorded in MLflow.");
  for (const command of data.commands) {
    const secret = command.includes("***") ? ", with the password in place of ***" : "";
    place.append(
      make("p", {}, `Links to 127.0.0.1 open once MLflow’s pages are served${secret}: `, make("code", {}, command)),
    );
  }
}
