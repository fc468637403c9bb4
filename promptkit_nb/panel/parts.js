// What the panel's page is made of. Text reaches it as text (textContent); the only HTML it takes is what Python
// sanitised, in the fields named `html` and `partial`.

function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard's interface is there on https and localhost only.
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

// HTML that Python sanitised, with a button to copy each block of code.
function sanitised(html) {
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

function saidNode({ who, text, html }) {
  const role = who.split(/[, ]/)[0];
  const body = make("div", { class: "promptkit-said" });
  if (text && (role === "user" || !html)) body.append(make("div", { class: "promptkit-text" }, text));
  if (html) body.append(sanitised(html));
  if (role === "tool" || who.includes(",")) {
    return make("details", { class: "promptkit-aside" }, make("summary", {}, who), body);
  }
  return make("div", { class: `promptkit-message promptkit-${role}` }, make("div", { class: "promptkit-who" }, who), body);
}

function actions(...buttons) {
  for (const each of buttons) each.classList.add("promptkit-quiet");
  return make("span", { class: "promptkit-actions" }, ...buttons);
}
