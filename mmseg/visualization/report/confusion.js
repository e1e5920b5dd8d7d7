// The confusion matrix: rows are the truth, columns the prediction, colours the share of the row.

const SMALLEST_CELL = 9, LARGEST_CELL = 36, WRITTEN = 26; // pixels; from WRITTEN on shares stand in the cells
const LONGEST_LABEL = 150;
const MIX_UPS = 100;
const strength = share => share ** .4; // of a colour, so that small mistakes can be seen

/** confusion: {names, cells: [row, column, pixels]}. */
function confusionMatrix({ names, cells }) {
  const side = names.length;
  const pixels = Array.from({ length: side }, () => new Float64Array(side));
  for (const [row, column, count] of cells) pixels[row][column] = count;
  const totals = pixels.map(row => row.reduce((a, b) => a + b, 0));
  const share = (row, column) => totals[row] ? pixels[row][column] / totals[row] : 0;

  const canvas = make("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Confusion matrix of ${side} classes; arrow keys go through its cells`);
  const bands = [make("div", { class: "band", hidden: true }), make("div", { class: "band", hidden: true })];
  const frame = make("div", { class: "scroll" }, make("div", { class: "matrix" }, canvas, ...bands));
  frame.style.maxHeight = "none";
  const plot = { size: 0, left: 0, top: 0 };
  let at = [0, 0];

  function draw() {
    const context = canvas.getContext("2d"), scale = devicePixelRatio || 1;
    const font = size => `${size}px system-ui, sans-serif`;
    const room = frame.clientWidth || 1200;
    context.font = font(12);
    const longest = Math.min(LONGEST_LABEL, Math.max(...names.map(name => context.measureText(name).width)) + 12);
    const size = Math.max(SMALLEST_CELL, Math.min(LARGEST_CELL, Math.floor((room - longest - 28) / side)));
    Object.assign(plot, { size, left: longest + 22, top: longest + 22 });
    const [width, height] = [plot.left + size * side + 6, plot.top + size * side + 6];
    Object.assign(canvas, { width: width * scale, height: height * scale });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    context.scale(scale, scale);
    const [ink, faint, right, wrong, card, line] =
      ["--ink", "--faint", "--right", "--wrong", "--card", "--line"].map(colourOf);
    context.fillStyle = card;
    context.fillRect(0, 0, width, height);
    const letters = Math.min(12, size - 1);
    context.textBaseline = "middle";
    names.forEach((name, i) => {
      context.font = font(letters);
      context.fillStyle = ink;
      const text = shortened(context, name, longest - 8), middle = (i + .5) * size;
      context.textAlign = "right";
      context.fillText(text, plot.left - 5, plot.top + middle);
      context.save();
      context.translate(plot.left + middle, plot.top - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(text, 0, 0);
      context.restore();
    });
    context.fillStyle = faint;
    context.font = font(12);
    context.textAlign = "left";
    context.fillText("predicted as →", plot.left, 10);
    context.save();
    context.translate(10, plot.top);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText("← truth", 0, 0);
    context.restore();
    context.strokeStyle = line;
    context.strokeRect(plot.left - .5, plot.top - .5, size * side + 1, size * side + 1);
    context.textAlign = "center";
    context.font = font(Math.min(12, size / 2.6));
    for (const [row, column] of cells) {
      const value = share(row, column);
      if (!value) continue;
      const [x, y] = [plot.left + column * size, plot.top + row * size];
      context.globalAlpha = strength(value);
      context.fillStyle = row === column ? right : wrong;
      context.fillRect(x, y, size - (size > 14), size - (size > 14));
      context.globalAlpha = 1;
      if (size >= WRITTEN && value >= .005) {
        context.fillStyle = strength(value) > .6 ? card : ink;
        context.fillText((100 * value).toFixed(0), x + size / 2, y + size / 2);
      }
    }
  }

  function point(row, column, x, y) {
    at = [row, column];
    const { size, left, top } = plot, [across, down] = bands;
    Object.assign(across.style, { left: `${left}px`, top: `${top + row * size}px`, width: `${side * size}px`, height: `${size}px` });
    Object.assign(down.style, { left: `${left + column * size}px`, top: `${top}px`, width: `${size}px`, height: `${side * size}px` });
    bands.forEach(band => { band.hidden = false; });
    const text = totals[row]
      ? `${score(share(row, column), true, true)} of it, ${pixels[row][column].toLocaleString("en")} pixels`
      : `no pixel is labelled so; ${pixels[row][column].toLocaleString("en")} pixels`;
    tip.show(`truth: ${names[row]}\npredicted: ${names[column]}\n${text}`, x, y);
  }
  function leave() { tip.hide(); bands.forEach(band => { band.hidden = true; }); }

  canvas.onpointermove = event => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - plot.left) / plot.size);
    const row = Math.floor((event.clientY - box.top - plot.top) / plot.size);
    if (row < 0 || column < 0 || row >= side || column >= side) leave();
    else point(row, column, event.clientX, event.clientY);
  };
  canvas.onpointerleave = leave;
  canvas.onblur = leave;
  canvas.onkeydown = event => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = at.map((value, i) => Math.max(0, Math.min(side - 1, value + step[i])));
    const box = canvas.getBoundingClientRect();
    point(row, column, box.left + plot.left + (column + 1) * plot.size, box.top + plot.top + (row + 1) * plot.size);
  };
  theme.listeners.push(draw);
  let width = 0;
  new ResizeObserver(() => { if (frame.clientWidth !== width) { width = frame.clientWidth; draw(); } }).observe(frame);
  return frame;
}

function shortened(context, name, width) {
  let text = name;
  while (text && context.measureText(text === name ? text : `${text}…`).width > width) text = text.slice(0, -1);
  return text === name ? name : `${text}…`;
}

/** What is taken for what, the largest areas first, as a table. */
function mixUps({ names, cells }) {
  const totals = names.map(() => 0);
  for (const [row, , count] of cells) totals[row] += count;
  const rows = cells.filter(([row, column]) => row !== column).sort((a, b) => b[2] - a[2]).slice(0, MIX_UPS)
    .map(([row, column, count]) => [names[row], names[column], count / totals[row], count]);
  const columns = [["truth", "text"], ["predicted as", "text"], ["share of the truth", "score"], ["pixels", "count"]];
  return { title: "What is taken for what", columns: columns.map(([name, kind]) => ({ name, kind })), rows };
}
