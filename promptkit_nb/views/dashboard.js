// The front end of the usage dashboard. Text is set as text (textContent); the only HTML it inserts was sanitized by
// Python, in the field named `html`.

const LABELS = {
  user_id: "User", model: "Model", source: "Source", price_source: "Price", prefix: "Ids that begin with", since: "Since", until: "Until", by: "Per", series: "Bars by",
};

const NARROWING = ["user_id", "model", "source", "price_source"];

function render({ model, el }) {
  const fields = {};
  const total = make("div", { class: "promptkit-total", role: "status" });
  const problem = make("div", { class: "promptkit-problem", role: "alert", hidden: true });
  const pictures = make("div", { class: "promptkit-pictures" });
  const tables = make("div", { class: "promptkit-tables" });
  const opened = make("section", { class: "promptkit-opened", "aria-label": "Conversation", hidden: true });
  const head = make("div", { class: "promptkit-head", role: "toolbar", "aria-label": "Filters" },
    ...Object.keys(LABELS).map(field), make("button", { type: "button", onclick: ask }, "Refresh"));
  const root = make("div", {
    class: "promptkit-dashboard", "data-lm-suppress-shortcuts": "true", role: "group", "aria-label": "Usage dashboard",
  }, head, total, problem, pictures, tables, opened);
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
    problem.textContent = model.get("problem");
    problem.hidden = !model.get("problem");
  }

  function showPictures() {
    for (const image of pictures.children) URL.revokeObjectURL(image.src);
    pictures.replaceChildren(...model.get("pictures").map(({ title, png }) =>
      make("img", { alt: title, src: URL.createObjectURL(new Blob([png], { type: "image/png" })) })));
  }

  function showTables() {
    tables.replaceChildren(...model.get("tables").filter((table) => table.rows.length).map(tableNode));
  }

  function tableNode({ name, columns, rows, opens }) {
    const cells = (row, place) => row.map((text, column) =>
      make("td", {}, opens[place] && column === 0 ? opener(text, opens[place]) : text));
    return make("div", { class: opens.length ? "promptkit-table promptkit-wide" : "promptkit-table" },
      make("table", {}, make("caption", {}, name),
        make("thead", {}, make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column)))),
        make("tbody", {}, ...rows.map((row, place) => make("tr", {}, ...cells(row, place))))));
  }

  function opener(text, id) {
    return make("button", { type: "button", class: "promptkit-open", title: "Open this conversation", onclick: () => choose(id) }, text);
  }

  function showOpened() {
    const { id, note, html } = model.get("opened");
    opened.hidden = !id;
    if (!id) return opened.replaceChildren();
    const body = make("div", { class: "promptkit-body" });
    body.innerHTML = html;
    opened.replaceChildren(
      make("div", { class: "promptkit-bar" }, make("strong", {}, id),
        make("button", { type: "button", onclick: () => choose("") }, "Close")),
      make("div", { class: "promptkit-note" }, note), body);
    opened.scrollIntoView({ block: "nearest" });
  }

  const shows = {
    "change:choices": showChoices, "change:filters": showFilters, "change:asked": showWaiting, "change:answered": showWaiting, "change:total": showWords,
    "change:problem": showWords, "change:pictures": showPictures, "change:tables": showTables, "change:opened": showOpened,
  };
  for (const [event, show] of Object.entries(shows)) model.on(event, show);
  for (const show of new Set(Object.values(shows))) show();
  return () => {
    for (const [event, show] of Object.entries(shows)) model.off(event, show);
    for (const image of pictures.children) URL.revokeObjectURL(image.src);
  };
}

export default { render };
