// The elements of the panel's page. Text is inserted as text (textContent); the only HTML comes sanitized from Python,
// in the fields `html` and `partial`.

function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
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
  const label = from.textContent;
  from.textContent = "Copied";
  setTimeout(() => (from.textContent = label), 1200);
}

// HTML that Python sanitized, with a Copy button on each block of code.
function sanitizedNode(html) {
  const body = make("div", { class: "promptkit-body" });
  body.innerHTML = html;
  for (const block of body.querySelectorAll("pre")) {
    const code = block.textContent;
    const wrapper = make("div", { class: "promptkit-code" });
    block.replaceWith(wrapper);
    const press = (event) => copy(code, event.currentTarget);
    wrapper.append(block, button("Copy", press, { "aria-label": "Copy code", class: "promptkit-quiet" }));
  }
  return body;
}

function entryNode({ label, text, html, fold }) {
  const role = label.split(/[, ]/)[0];
  const body = make("div", { class: "promptkit-entry" });
  if (text && (role === "user" || !html)) body.append(make("div", { class: "promptkit-text" }, text));
  if (html) body.append(sanitizedNode(html));
  if (fold) {
    return make("details", { class: "promptkit-folded", open: fold === "open" }, make("summary", {}, label), body);
  }
  return make("div", { class: `promptkit-message promptkit-${role}` }, make("div", { class: "promptkit-label" }, label), body);
}

function actions(...buttons) {
  for (const each of buttons) each.classList.add("promptkit-quiet");
  return make("span", { class: "promptkit-actions" }, ...buttons);
}
