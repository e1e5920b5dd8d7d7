// What the parts of the page are made of: elements, numbers as text, the tip at the pointer, light and dark.
"use strict";

/** An element with properties and children. Texts become text nodes, so that no name is ever read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, properties) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  return element;
}

function score(value, percent, unit = false) {
  if (value === null) return "–";
  return percent ? (100 * value).toFixed(2) + (unit ? " %" : "") : value.toFixed(4);
}

function cell(value, kind, percent) {
  if (value === null) return "–";
  if (kind === "score" || kind === "signed") return score(value, percent);
  if (kind === "count") return value.toLocaleString("en");
  return String(value);
}

function patch(colour) {
  const element = make("span", { class: "patch" });
  element.style.background = colour;
  return element;
}

function colourOf(variable) { // as the theme has it now; light-dark() is resolved by an element that uses it
  const probe = make("span");
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

const tip = {
  element: document.getElementById("tip"),
  show(text, x, y) {
    this.element.textContent = text;
    this.element.hidden = false;
    const box = this.element.getBoundingClientRect();
    this.element.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
    this.element.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
  },
  hide() { this.element.hidden = true; },
};

const theme = {
  root: document.documentElement,
  listeners: [],
  system: matchMedia("(prefers-color-scheme: dark)"),
  get dark() { return this.root.dataset.theme ? this.root.dataset.theme === "dark" : this.system.matches; },
  changed() {
    button.textContent = this.dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show in ${this.dark ? "light" : "dark"} colours`);
    this.listeners.forEach(draw => draw());
  },
  set(name) {
    if (name) this.root.dataset.theme = name;
    else delete this.root.dataset.theme;
    this.changed();
  },
};
const button = document.getElementById("theme");
button.onclick = () => theme.set(theme.dark ? "light" : "dark");
theme.system.addEventListener("change", () => theme.changed());
{
  let before; // printed on white paper
  addEventListener("beforeprint", () => { before = theme.root.dataset.theme; theme.set("light"); });
  addEventListener("afterprint", () => theme.set(before));
}
