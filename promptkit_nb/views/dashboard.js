// The front end of the usage dashboard. Text is set as text (textContent); the only HTML it inserts was sanitized by
// Python, in the field named `html`.

const LABELS = {
  user_id: "User", model: "Model", source: "Source", price_source: "Price", prefix: "Ids that begin with", since: "Since", until: "Until", by: "Per", series: "Bars by",
};

const NAMES = ["model", "user", "source", "price_source", "conversation"];
const NARROWING = ["user_id", "model", "source", "price_source"];

function render({ model, el }) {
  const fields = {};
  const total = make("div", { class: "promptkit-total", role: "status" });
  const tiles = make("dl", { class: "promptkit-tiles" });
  const problem = make("div", { class: "promptkit-problem", role: "alert", hidden: true });
  const charts = make("div", { class: "promptkit-charts" });
  const tables = make("div", { class: "promptkit-tables" });
  const opened = make("section", { class: "promptkit-opened", "aria-label": "Conversation", hidden: true });
  const head = make("div", { class: "promptkit-filters", role: "toolbar", "aria-label": "Filters" },
    ...Object.keys(LABELS).map(field), make("button", { type: "button", onclick: ask }, "Refresh"));
  const root = make("div", {
    class: "promptkit-dashboard", "data-lm-suppress-shortcuts": "true", role: "group", "aria-label": "Usage dashboard",
  }, head, total, tiles, problem, charts, tables, opened);
  for (const kind of ["keydown", "keypress", "keyup"]) root.addEventListener(kind, (event) => event.stopPropagation());
  el.append(root);

  function field(name) {
    const onchange = () => {
      model.set("filters", { ...model.get("filters"), [name]: fields[name].value });
      ask();
    };
    const input = name in model.get("choices")
      ? make("select", { "aria-label": LABELS[name], onchange })
      : make("input", { "aria-label": LABELS[name], type: name === "prefix" ? "text" : "date", autocomplete: "off", onchange });
    fields[name] = input;
    return make("label", {}, make("span", {}, LABELS[name]), input);
  }

  // Request the data for the current filters; the previous data stays until the answer arrives.
  function ask() {
    model.set("asked", model.get("asked") + 1);
    model.save_changes();
    showWaiting();
  }

  function choose(id) {
    model.set("chosen", id);
    model.save_changes();
  }

  function showChoices() {
    for (const [name, choices] of Object.entries(model.get("choices"))) {
      const all = NARROWING.includes(name) ? [make("option", { value: "" }, "all")] : [];
      fields[name].replaceChildren(...all, ...choices.map((choice) => make("option", { value: choice }, choice)));
      fields[name].parentElement.hidden = NARROWING.includes(name) && choices.length < 2 && !model.get("filters")[name];
    }
    showFilters();
  }

  function showFilters() {
    for (const [name, input] of Object.entries(fields)) {
      const text = model.get("filters")[name] ?? "";
      input.value = input.type === "date" ? text.slice(0, 10) : text;
    }
  }

  function showWaiting() {
    root.setAttribute("aria-busy", String(model.get("answered") !== model.get("asked")));
  }

  function showWords() {
    total.textContent = model.get("total");
    tiles.replaceChildren(...model.get("tiles").map(([label, text]) =>
      make("div", {}, make("dt", {}, label), make("dd", {}, text))));
    problem.textContent = model.get("problem");
    problem.hidden = !model.get("problem");
  }

  function showCharts() {
    charts.replaceChildren(...model.get("charts").map((chart) => (chart.rows ? rankNode(chart) : chartNode(chart))));
  }

  function figure(chart, body) {
    const nothing = make("p", { class: "promptkit-note" }, "nothing was paid");
    return make("figure", { class: "promptkit-chart" }, make("figcaption", {}, chart.title), body ?? nothing);
  }

  // Fractions of the chart's width and height become percentages of CSS.
  function placed(node, place) {
    for (const [name, fraction] of Object.entries(place)) node.style[name] = `${100 * fraction}%`;
    return node;
  }

  function chartNode(chart) {
    if (!chart.series.length) return figure(chart);
    const center = (slot) => (slot + 0.5) / chart.slots;
    const lines = chart.ticks.map(([at, text]) => placed(make("div", { class: "promptkit-tick" }, make("span", {}, text)), { bottom: at }));
    const isLast = (slot) => slot === chart.slots - 1 && chart.slots > 2 * chart.labels.length;
    const dates = chart.labels.map(([slot, text]) =>
      placed(make("span", { class: isLast(slot) && "promptkit-last" }, text), { left: center(slot) }));
    const bars = chart.series.flatMap(({ name, color, bars }) => bars.map(([slot, bottom, height, text, listed]) => {
      const bar = make("div", { class: "promptkit-bar-part", title: `${chart.names[slot]} · ${name}: ${text}` });
      bar.style.backgroundColor = color;
      if (listed) bar.append(placed(make("div", { class: "promptkit-listed" }), { height: listed }));
      return placed(bar, { left: center(slot) - chart.width / chart.slots / 2, width: chart.width / chart.slots, bottom, height });
    }));
    const keys = chart.series.map(({ name, color }) => {
      const mark = make("i", {});
      mark.style.backgroundColor = color;
      return make("li", {}, mark, name);
    });
    const plot = make("div", { class: "promptkit-plot", role: "img", "aria-label": spoken(chart) }, ...lines, ...bars);
    const legend = chart.series.length > 1 ? [make("ul", { class: "promptkit-legend" }, ...keys)] : [];
    return figure(chart, make("div", {}, plot, make("div", { class: "promptkit-dates", "aria-hidden": "true" }, ...dates), ...legend));
  }

  function spoken(chart) {
    const names = chart.series.map(({ name }) => name).join(", ");
    const { 0: first, length } = Object.values(chart.names);
    return `${chart.title}. Bars of ${names}; ${length === 1 ? first : `${length} periods since ${first}`}.`;
  }

  function rankNode(chart) {
    if (!chart.rows.length) return figure(chart);
    const rows = chart.rows.map(([name, share, text]) => make("li", { title: `${name}: ${text}` }, make("span", {}, name),
      make("div", { class: "promptkit-track" }, placed(make("div", { class: "promptkit-fill" }), { width: share })), make("b", {}, text)));
    return figure(chart, make("ul", { class: "promptkit-ranks" }, ...rows));
  }

  function showTables() {
    tables.replaceChildren(...model.get("tables").filter((table) => table.rows.length).map(tableNode));
  }

  function tableNode({ name, columns, rows, opens }) {
    const aligned = (column) => ({ class: NAMES.includes(columns[column]) && "promptkit-name" });
    const cells = (row, place) => row.map((text, column) =>
      make("td", aligned(column), opens[place] && column === 0 ? opener(text, opens[place]) : text));
    const look = { class: opens.length ? "promptkit-table promptkit-wide" : "promptkit-table" };
    return make("div", { ...look, tabindex: "0", role: "group", "aria-label": name },
      make("table", {}, make("caption", {}, name),
        make("thead", {}, make("tr", {}, ...columns.map((column, at) => make("th", { scope: "col", ...aligned(at) }, column)))),
        make("tbody", {}, ...rows.map((row, place) => make("tr", {}, ...cells(row, place))))));
  }

  function opener(text, id) {
    return make("button", { type: "button", class: "promptkit-open", title: `Open ${id}`, onclick: () => choose(id) }, text);
  }

  function showOpened() {
    const { id, title, note, html } = model.get("opened");
    opened.hidden = !id;
    if (!id) return opened.replaceChildren();
    const body = make("div", { class: "promptkit-body" });
    body.innerHTML = html;
    opened.replaceChildren(
      make("div", { class: "promptkit-opened-bar" }, make("strong", { title: id }, title),
        make("button", { type: "button", onclick: () => choose("") }, "Close")),
      make("div", { class: "promptkit-note" }, note), body);
    opened.scrollIntoView({ block: "nearest" });
  }

  const shows = {
    "change:choices": showChoices, "change:filters": showFilters, "change:asked": showWaiting, "change:answered": showWaiting, "change:total": showWords,
    "change:tiles": showWords, "change:problem": showWords, "change:charts": showCharts, "change:tables": showTables, "change:opened": showOpened,
  };
  for (const [event, show] of Object.entries(shows)) model.on(event, show);
  for (const show of new Set(Object.values(shows))) show();
  return () => {
    for (const [event, show] of Object.entries(shows)) model.off(event, show);
  };
}

export default { render };
