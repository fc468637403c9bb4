// The elements of the panel's page. Text is inserted as text (textContent); the only HTML comes sanitized from Python,
// in the fields `html` and `partial`.

const ICONS = {
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3 14 14",
  plus: "M8 3v10M3 8h10",
  pencil: "M3 13l.6-2.8L10.8 3l2.2 2.2-7.2 7.2zM9.3 4.5l2.2 2.2",
  fork: "M5 3v10M5 9h4a2 2 0 0 0 2-2V3M9 5l2-2 2 2",
  trash: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9M6.8 7v4M9.2 7v4",
  copy: "M5.5 5.5h7v8h-7zM3.5 10.5v-8h7",
  check: "M3 8.5l3.2 3.2L13 5",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5V5h-2.5",
  insert: "M2.5 2.5h11v5h-11zM8 9v4.5M5.7 11.3h4.6",
  dock: "M2.5 3h11v10h-11zM9.5 3v10",
  send: "M8 13V3M3.8 7.2 8 3l4.2 4.2",
  left: "M9.5 4.5 6 8l3.5 3.5",
  right: "M6.5 4.5 10 8l-3.5 3.5",
  stop: "M4.5 4.5h7v7h-7z",
};

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
}

function iconButton(name, label, onclick, attributes = {}) {
  const classes = `promptkit-icon ${attributes.class ?? ""}`.trim();
  return button(icon(name), onclick, { "aria-label": label, title: label, ...attributes, class: classes });
}

// A box for one line: Enter and Esc do what the box says, and nothing else. The keys do not reach what gets the focus.
function smallBox(label, onEnter, { onEscape, ...attributes } = {}) {
  const onkeydown = (event) => {
    const act = { Enter: onEnter, Escape: onEscape }[event.key];
    if (!act || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  return make("input", { "aria-label": label, autocomplete: "off", onkeydown, ...attributes });
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API exists on https and localhost only.
    const area = make("textarea", { class: "promptkit-offscreen" });
    area.value = text;
    from.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    from.focus();
  }
  from.replaceChildren(icon("check"));
  setTimeout(() => from.replaceChildren(icon("copy")), 1200);
}

// HTML that Python sanitized; each block of code gets buttons, `insert` inserts it as a cell where that is possible.
function sanitizedNode(html, insert) {
  const body = make("div", { class: "promptkit-body" });
  body.innerHTML = html;
  for (const block of body.querySelectorAll(".pk-code")) {
    const code = block.querySelector("pre").textContent;
    const tools = make("div", { class: "promptkit-code-tools" });
    if (insert) tools.append(iconButton("insert", "Insert as a cell", () => insert(code)));
    tools.append(iconButton("copy", "Copy code", (event) => copy(code, event.currentTarget)));
    block.prepend(tools);
  }
  return body;
}

function entryNode({ label, text, html, fold }, insert) {
  const role = label.split(/[, ]/)[0];
  const body = make("div", { class: "promptkit-entry" });
  if (text && (role === "user" || !html)) body.append(make("div", { class: "promptkit-text", dir: "auto" }, text));
  if (html) body.append(sanitizedNode(html, insert));
  if (fold) {
    return make("details", { class: "promptkit-folded", open: fold === "open" }, make("summary", {}, label), body);
  }
  return make("div", { class: `promptkit-message promptkit-${role}`, role: "group", "aria-label": label }, body);
}

// Which version of a turn is shown, and buttons that restore the one before and after it.
function versionSwitch({ number, count, previous, next }, restore) {
  const to = (icon, label, id) => iconButton(icon, label, () => restore(id), { disabled: !id });
  return make("span", { class: "promptkit-version", role: "group", "aria-label": "Versions" },
    to("left", "Previous version", previous),
    make("span", { title: `Version ${number} of ${count}; %chat_history --versions shows them all` }, `${number}/${count}`),
    to("right", "Next version", next));
}

function actions(...buttons) {
  return make("span", { class: "promptkit-actions" }, ...buttons);
}
