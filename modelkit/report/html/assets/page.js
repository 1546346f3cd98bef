"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const number = (text) => (text === undefined || text === "" ? NaN : Number(text));

  // The last cell of a row holds the end of its line too.
  const textOf = (cell) => cell.textContent.trim();

  // What a cell is sorted by: its value where it has one, else its text.
  const valueOf = (cell) => {
    const found = number(cell.dataset.v ?? textOf(cell));
    return Number.isNaN(found) ? textOf(cell) : found;
  };
  const before = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? 1 : -1;
  };

  const sort = (table, column) => {
    const heads = all("th", table);
    const head = heads[column];
    const numbers = head.dataset.kind === "number";
    const next = { ascending: "descending", descending: "ascending" };
    const order = next[head.getAttribute("aria-sort")] ?? (numbers ? "descending" : "ascending");
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => sign * before(a[0], b[0]));
    body.append(...rows.map((pair) => pair[1]));
  };

  // Rows of a table that are shown, as objects: figures under their key, texts under key_text.
  const rowsOf = (table) => {
    const keys = all("th", table).map((head) => [head.dataset.key, head.dataset.kind]);
    const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    return shown.map((row) => {
      const found = {};
      keys.forEach(([key, kind], index) => {
        const cell = row.cells[index];
        const figure = number(cell.dataset.v ?? textOf(cell));
        found[key] = kind === "number" ? (Number.isNaN(figure) ? null : figure) : textOf(cell);
        found[`${key}_text`] = textOf(cell);
      });
      return found;
    });
  };

  const filter = (box, table) => {
    const words = (box.querySelector("input")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = box.querySelector("select")?.value ?? "";
    const facet = all("th", table).findIndex((head) => head.dataset.key === table.dataset.facet);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!wanted || textOf(row.cells[facet]) === wanted);
      row.hidden = !fits;
      count += fits;
    }
    const total = table.tBodies[0].rows.length;
    const output = box.querySelector("output");
    if (output) output.textContent = count === total ? `${total} ${table.dataset.what}` : `${count} of ${total}`;
    table.dispatchEvent(new Event("filtered"));
  };

  for (const box of all(".table")) {
    const table = box.querySelector("table.sortable");
    if (!table) continue;
    all("th button", table).forEach((button, column) => button.addEventListener("click", () => sort(table, column)));
    all("input, select", box).forEach((each) => each.addEventListener("input", () => filter(box, table)));
    const output = box.querySelector("output");
    if (output) output.textContent = `${table.tBodies[0].rows.length} ${table.dataset.what}`;
  }

  // Long reasons are cut to two lines; all of it is said under the pointer.
  document.addEventListener("mouseover", (event) => {
    const cell = event.target.closest?.("td.p, td.c");
    if (cell && !cell.title) cell.title = textOf(cell);
  });

  const tooltip = { disableDefaultStyle: true };
  const options = { actions: false, renderer: "svg", ast: true, logLevel: 1, defaultStyle: false, tooltip };
  // What is said of a row under the pointer. Vega would make an image of "image", and a heading of "title".
  const tipOf = (row, tips) => {
    const said = tips.map(([field, name]) => [name === "image" || name === "title" ? `${name} ` : name, row[field]]);
    return Object.fromEntries(said.filter(([, text]) => text !== undefined && text !== null && text !== ""));
  };
  const draw = async (figure, chart) => {
    const plot = figure.querySelector(".plot");
    const table = chart.table ? document.querySelector(`#${chart.table} table`) : null;
    const rows = () => {
      const { tips } = chart.views[current].usermeta;
      return (table ? rowsOf(table) : chart.rows).map((row) => ({ ...row, tip: tipOf(row, tips) }));
    };
    let view;
    let current = Object.keys(chart.views)[0];
    let turn = 0;
    const show = async () => {
      const mine = ++turn;
      const values = rows();
      const spec = { ...chart.views[current] };
      spec.data = { ...spec.data, values };
      if (spec.usermeta.step) spec.height = spec.usermeta.step * Math.max(values.length, 1);
      const embedded = await vegaEmbed(plot, spec, options);
      if (mine === turn) view = embedded.view;
    };
    const refresh = () => (chart.views[current].usermeta.step ? show() : view?.data("rows", rows()).runAsync());
    const buttons = all(".views button", figure);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
        current = button.dataset.view;
        show();
      });
    }
    let waiting;
    table?.addEventListener("filtered", () => {
      clearTimeout(waiting);
      waiting = setTimeout(refresh, 60);
    });
    await show();
  };

  const held = document.getElementById("charts");
  const charts = held ? JSON.parse(held.textContent) : {};
  const drawn = Object.entries(charts).map(([name, chart]) => draw(document.getElementById(name), chart));
  Promise.all(drawn).then(() => {
    document.documentElement.dataset.drawn = String(drawn.length);
  });

  // On paper everything is open.
  addEventListener("beforeprint", () => all("details").forEach((each) => (each.open = true)));
})();
