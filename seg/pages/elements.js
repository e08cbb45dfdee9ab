"use strict";
// What the scripts of all pages share: elements, and numbers in words. All text is set as text, never as HTML.

const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function swatch(color) {
  const box = make("span", { className: "swatch" });
  box.style.backgroundColor = color;
  return box;
}

const within = (value, low, high) => Math.min(high, Math.max(low, value));
const largest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
const short = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(4))));
const times = (numbers) => numbers.map((number) => (Number.isInteger(number) ? number : short(number))).join(" × ");

const on = (kind, ids, act) => ids.split(" ").forEach((id) => $(id).addEventListener(kind, act));

// The image values shown black and white, by the sliders, which say them.
function contrast([low, high]) {
  const middle = low + ((high - low) * $("level").value) / 100;
  const half = ((high - low) * $("width").value) / 200;
  $("level").nextElementSibling.textContent = short(middle);
  $("width").nextElementSibling.textContent = short(2 * half);
  return [middle - half, middle + half];
}

// What a slice shows: [left, top, right, bottom] in voxels, from the left and from the top.
const boxOf = (plane) => ($("zoom").checked ? plane.closeUp : plane.whole);

// The column and row under the pointer, on a canvas that shows `box`.
function pointed({ target, offsetX, offsetY }, [left, top, right, bottom]) {
  const across = left + (offsetX / target.clientWidth) * (right - left);
  return [across, top + (offsetY / target.clientHeight) * (bottom - top)].map(Math.floor);
}

function press(group, value) {
  for (const button of $(group).children) button.setAttribute("aria-pressed", button.value === String(value));
}
