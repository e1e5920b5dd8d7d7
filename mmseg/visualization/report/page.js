// Puts the page together of the data that stand in it.

const FRAMES_AT_FIRST = 6;

{
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("report"), contents = document.getElementById("contents");

  let listed = true; // whether sections get a link at the top: all of the first evaluator, one of each other

  function section(title, note, ...children) {
    const id = `part-${main.children.length}`;
    if (listed) contents.append(make("a", { href: `#${id}` }, title));
    main.append(make("section", { id },
      make("h2", {}, title, ...(note ? [make("small", {}, note)] : [])), ...children));
  }

  function definitions(pairs) {
    return make("dl", { class: "facts" }, ...pairs.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  }

  function worstFrames({ rows, score: name, percent, legend }) {
    const article = (row, i) => make("article", { class: "frame" },
      make("h3", {}, make("b", {}, `${i + 1}. ${name} ${score(row.score, percent, true)}`), `${row.video}, frame ${row.name}`),
      make("div", { class: "pictures" }, ...["image", "truth", "prediction"].filter(kind => row[kind]).map(kind =>
        make("figure", {}, make("img", { src: row[kind], alt: `${kind} of frame ${row.name} of ${row.video}` }),
          make("figcaption", {}, kind)))),
      make("div", { class: "keys" }, ...row.present.filter(label => legend[label]).map(label =>
        make("span", {}, patch(legend[label][1]), legend[label][0]))));
    const frames = rows.map(article), more = make("button", { type: "button", class: "more" }, `Show all ${rows.length}`);
    more.onclick = () => more.replaceWith(...frames.slice(FRAMES_AT_FIRST));
    return [...frames.slice(0, FRAMES_AT_FIRST), ...(rows.length > FRAMES_AT_FIRST ? [more] : [])];
  }

  /** The tables of one kind of rows, for its section. */
  function tables(part, title) {
    return part.tables.filter(table => table.title === title).map(table => sortableTable(table, part.percent));
  }

  main.replaceChildren(definitions(data.facts));
  main.append(...data.notes.map(note => make("p", {}, note)));
  for (const part of data.parts) {
    listed = true;
    section(data.parts.length > 1 ? part.name : "Scores", part.percent ? "in percent" : "",
      make("div", { class: "scores" }, ...part.scores.map(([name, value]) =>
        make("div", {}, make("b", {}, score(value, part.percent)), make("span", {}, name)))));
    listed = part === data.parts[0];
    if (listed && data.frames.rows.length) {
      const { score, stride } = data.frames;
      section("Worst frames", `by ${score}${stride > 1 ? `, one of ${stride} in a row` : ""}`, ...worstFrames(data.frames));
    }
    if (part.bars.length) {
      section("Classes", "IoU of those that occur, the best first", bars(part.bars, part.percent),
        make("h3", {}, "Numbers of each class"), ...tables(part, "Classes"));
    }
    if (part.confusion) {
      section("Confusion", "which share of a class is predicted as which", confusionMatrix(part.confusion),
        make("h3", {}, "What is taken for what"), sortableTable(mixUps(part.confusion), true));
    }
    const thinned = part.thinned > 1 ? [make("p", {}, `A point is the lowest of ${part.thinned} frames.`)] : [];
    if (part.curves.length) {
      section("Videos", "scores over the frames, the worst video first", ...thinned, videoCurves(part.curves, part.percent),
        make("h3", {}, "Numbers of each video"), ...tables(part, "Videos"));
    }
    const shown = ["Classes"].concat(part.curves.length ? ["Videos"] : []);
    for (const { title } of part.tables.filter(table => !shown.includes(table.title))) section(title, "", ...tables(part, title));
    if (part.rules.length) section("Rules", "how it was counted", definitions(part.rules));
  }
  theme.changed();
}
