// Tables that are sorted by a click, or Enter, on the head of a column.

const ROWS_AT_FIRST = 200;
const SEARCHABLE = 15; // rows from which on there is a field to search them

/** table: {title, columns: [{name, kind}], rows, colours, links} (of the rows); kind: text, score, signed, count. */
function sortableTable(table, percent) {
  const body = make("tbody");
  const heads = table.columns.map((column, index) => {
    const pressed = make("button", { type: "button", onclick: () => sortBy(index) }, column.name);
    return make("th", { scope: "col", class: column.kind, "aria-sort": "none" }, pressed);
  });
  let rows = table.rows.map((values, index) => ({ values, index })), sorted = null, all = false, wanted = "";

  function sortBy(index) {
    const kind = table.columns[index].kind, up = sorted && sorted.index === index ? !sorted.up : true;
    sorted = { index, up };
    rows.sort((a, b) => {
      const [x, y] = [a.values[index], b.values[index]];
      if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index; // undefined ones last
      const order = kind === "text" ? String(x).localeCompare(String(y), "en", { numeric: true }) : x - y;
      return (up ? order : -order) || a.index - b.index;
    });
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", i !== index ? "none" : up ? "ascending" : "descending"));
    fill();
  }

  function fill() {
    const found = rows.filter(row => String(row.values[0]).toLowerCase().includes(wanted));
    const shown = all ? found : found.slice(0, ROWS_AT_FIRST);
    body.replaceChildren(...shown.map(line));
    more.hidden = shown.length === found.length;
    more.textContent = `Show all ${found.length}`;
  }

  function line({ values, index }) {
    return make("tr", {}, ...values.map((value, i) => {
      const { kind } = table.columns[i];
      const td = make("td", { class: kind });
      if (i === 0 && table.colours) td.append(patch(table.colours[index]));
      const link = i === 0 && table.links && table.links[index], text = cell(value, kind, percent);
      td.append(link ? make("a", { href: `#${link}` }, text) : text);
      if (kind === "score" && value !== null) td.style.setProperty("--share", Math.max(0, Math.min(1, value)));
      return td;
    }));
  }

  const more = make("button", { type: "button", class: "more", onclick: () => { all = true; fill(); } });
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": `Search ${table.title}` });
  search.oninput = () => { wanted = search.value.toLowerCase(); fill(); };
  fill();
  return make("div", {},
    ...(table.rows.length > SEARCHABLE ? [make("div", { class: "tools" }, search)] : []),
    make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": table.title },
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)),
    more);
}
