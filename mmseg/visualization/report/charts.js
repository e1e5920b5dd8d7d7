// Bars of classes, and a small chart of the scores of every video over its frames.

const CURVES_AT_FIRST = 24;
const CURVE_COLOURS = 6;
const MOST_KEYS = 6; // curves of objects beyond these are thin, and named by the pointer only

/** rows: [name, value or null, colour or null], in the order in which they are shown. */
function bars(rows, percent) {
  return make("ul", { class: "bars" }, ...rows.map(([name, value, colour]) => {
    const fill = make("i");
    fill.style.width = `${100 * Math.max(0, Math.min(1, value ?? 0))}%`;
    return make("li", {},
      make("span", { class: "name", title: name }, ...(colour ? [patch(colour)] : []), name),
      make("span", { class: "track" }, fill),
      make("span", { class: "value" }, score(value, percent)));
  }));
}

function meanOf(values) {
  const defined = values.filter(value => value !== null);
  return defined.length ? defined.reduce((a, b) => a + b, 0) / defined.length : null;
}

/** The d of a path through the values that are defined; a single one becomes a dot. */
function pathOf(values) {
  const step = values.length > 1 ? 100 / (values.length - 1) : 0;
  let d = "", pen = false;
  values.forEach((value, i) => {
    if (value === null) { pen = false; return; }
    const [x, y] = [(i * step).toFixed(2), (100 - 100 * Math.max(0, Math.min(1, value))).toFixed(2)];
    d += pen ? `L${x} ${y}` : `M${x} ${y}l0 0`;
    pen = true;
  });
  return d;
}

function curveCard({ video, numbers, curves, id }, percent) {
  const names = Object.keys(curves), main = curves[names[0]];
  const mean = meanOf(main);
  const svg = makeSvg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img",
    "aria-label": `${names[0]} of ${video} over ${numbers.length} frames, mean ${score(mean, percent, true)}` });
  for (const y of [0, 50, 100]) svg.append(makeSvg("line", { x1: 0, x2: 100, y1: y, y2: y }));
  names.map((name, i) => [name, i]).reverse().forEach(([name, i]) => { // the first one on top
    const path = makeSvg("path", { d: pathOf(curves[name]), ...(i ? { class: "thin" } : {}) });
    path.style.stroke = `var(--curve-${i % CURVE_COLOURS})`;
    svg.append(path);
  });
  const cursor = makeSvg("line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
  svg.append(cursor);
  svg.onpointermove = event => {
    const box = svg.getBoundingClientRect(), last = numbers.length - 1;
    const i = Math.max(0, Math.min(last, Math.round((event.clientX - box.left) / box.width * last)));
    const x = last ? 100 * i / last : 0;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    const values = names.filter(name => curves[name][i] !== null)
      .map(name => `${name} ${score(curves[name][i], percent, true)}`);
    tip.show([`frame ${numbers[i]}`, ...values].join("\n"), event.clientX, event.clientY);
  };
  svg.onpointerleave = () => { cursor.setAttribute("visibility", "hidden"); tip.hide(); };
  return make("figure", { class: "curve", id },
    make("figcaption", {}, make("span", { class: "name", title: video }, video),
      make("span", { class: "value" }, score(mean, percent, true))),
    svg,
    make("div", { class: "axis" }, make("span", {}, String(numbers[0] ?? "")),
      make("span", {}, String(numbers[numbers.length - 1] ?? ""))));
}

/** curves: [{video, numbers, curves: {name: values}, id}], the worst video first. */
function videoCurves(curves, percent) {
  const names = [...new Set(curves.flatMap(video => Object.keys(video.curves)))].slice(0, MOST_KEYS);
  const keys = make("div", { class: "keys" }, ...names.map((name, i) =>
    make("span", {}, patch(`var(--curve-${i % CURVE_COLOURS})`), name)));
  const grid = make("div", { class: curves.length < 3 ? "curves few" : "curves" });
  const add = videos => grid.append(...videos.map(video => curveCard(video, percent)));
  add(curves.slice(0, CURVES_AT_FIRST));
  const more = make("button", { type: "button", class: "more" }, `Show all ${curves.length} videos`);
  const rest = () => { if (more.isConnected) { more.remove(); add(curves.slice(CURVES_AT_FIRST)); } };
  more.onclick = rest;
  addEventListener("hashchange", () => { // a link to a chart that is not there yet
    const id = location.hash.slice(1);
    if (document.getElementById(id) || !curves.some(video => video.id === id)) return;
    rest();
    document.getElementById(id).scrollIntoView();
  });
  return make("div", {}, keys, grid, ...(curves.length > CURVES_AT_FIRST ? [more] : []));
}
