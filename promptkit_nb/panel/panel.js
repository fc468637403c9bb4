// The chat panel's page: what is on it, what it asks of the kernel, and what it hears. It is put together of the files
// parts.js, scrolling.js, drafts.js and this one.

const SLOW_MS = 400; // how long the kernel may take to say that it read a message before the panel says that it waits

function render({ model, el }) {
  const view = `view-${Math.random().toString(36).slice(2)}`;
  const nodes = new Map(); // turn id -> {item, node}
  let turns = []; // what is on the page, in order; the last ones are the model's
  let shown = {}; // the conversation and the epoch that they are of
  let pending = null; // what was sent and not yet begun: {n, text, taken}
  let editing = null; // the turn that the typed text will take the place of
  let edited = null; // the edit that was sent last: {text, turn}
  let asked = 0;
  let fetching = false;
  let isDead = false;
  let lastProblem = 0;
  let covered = ""; // which turns the answer under way stands in place of

  // Parts.
  const chooser = make("select", { "aria-label": "Conversations", onchange: () => send("use", { id: chooser.value }) });
  const search = make("input", {
    type: "search", placeholder: "Search", "aria-label": "Search conversations", autocomplete: "off",
    oninput: () => { clearTimeout(search.timer); search.timer = setTimeout(lookFor, 200); },
    onkeydown: (event) => { if (event.key === "Enter" && !event.isComposing) { lookFor(); openChooser(); } },
  });
  const bar = make("div", { class: "promptkit-bar", hidden: true });
  const head = make("div", { class: "promptkit-head", role: "toolbar", "aria-label": "Conversation tools" },
    chooser, search,
    button("New", () => { send("new"); box.focus(); }, { title: "Begin a conversation with the same prompt and settings" }),
    button("Rename", rename), button("Fork", () => { send("fork"); box.focus(); }, { title: "Go on in a copy" }),
    button("Delete", confirmDelete));
  const earlier = button("Earlier turns", fetchOlder, { class: "promptkit-earlier promptkit-quiet", hidden: true });
  const growth = make("div", { class: "promptkit-turn promptkit-growing", hidden: true });
  const empty = make("div", { class: "promptkit-empty" }, "Nothing was said yet.");
  const list = make("div", { class: "promptkit-list" }, earlier, empty, growth);
  const log = make("div", {
    class: "promptkit-log", role: "log", "aria-label": "Conversation", "aria-live": "polite", tabindex: "0",
  }, list);
  const scrolling = makeScrolling(log, list, fetchOlder);
  const trouble = make("div", { class: "promptkit-problem", role: "alert", hidden: true });
  const status = make("div", { class: "promptkit-status", role: "status" });
  const box = make("textarea", {
    rows: "2", "aria-label": "Message", placeholder: "Message (Enter sends, Shift+Enter begins a new line)",
    onkeydown: typed, oninput: refreshButtons, onfocus: checkLife,
  });
  const sendButton = button("Send", submit, { class: "promptkit-primary" });
  const stopButton = button("Stop", stop, { disabled: true, title: "Stop the answer (Esc)" });
  const form = make("div", { class: "promptkit-form" }, box, make("div", { class: "promptkit-buttons" }, sendButton, stopButton));
  const footer = make("div", { class: "promptkit-footer" });
  const root = make("div", { class: "promptkit-panel", "data-lm-suppress-shortcuts": "true", role: "group", "aria-label": "Chat panel" },
    head, bar, log, trouble, status, form, footer);
  for (const kind of ["keydown", "keypress", "keyup"]) root.addEventListener(kind, (event) => event.stopPropagation());
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) escape();
  });
  el.append(root);

  // What goes to the kernel.
  function send(what, values = {}) {
    asked += 1;
    try {
      model.send({ do: what, n: String(asked), view, ...values });
    } catch {
      checkLife(); // a kernel that was shut down takes nothing
    }
    return String(asked);
  }

  function say(what, text, values) {
    pending = { n: send(what, { text, ...values }), text, taken: false };
    const mine = pending;
    setTimeout(() => { if (pending === mine && !mine.taken) checkLife(); }, SLOW_MS);
    scrolling.follow(true);
    trouble.hidden = true;
    drawTurns();
  }

  function submit() {
    const text = box.value;
    if (!text.trim() || isBusy() || isDead) return;
    box.value = "";
    edited = editing && { text, turn: editing };
    if (editing) say("edit", text, { turn: editing.id });
    else say("send", text);
    leaveEditing();
    box.focus();
  }

  function stop() {
    if (!isBusy()) return;
    send("stop");
    box.focus();
  }

  function retry(turn) {
    if (!isBusy() && !isDead) { say("retry", "", { turn: turn.id }); box.focus(); }
  }

  function edit(turn) {
    if (isDead) return;
    editing = turn;
    box.value = turn.question;
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
    leaveBar();
    refreshButtons();
  }

  function leaveEditing() {
    if (editing) ask();
    editing = null;
    refreshButtons();
  }

  function escape() {
    if (isBusy()) stop();
    else if (editing) { box.value = ""; leaveEditing(); }
    else leaveBar();
    box.focus();
  }

  function typed(event) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !box.value && !isBusy() && turns.length) {
      event.preventDefault();
      edit(turns[turns.length - 1]);
    }
  }

  // One line above the log that asks something back; without a text it goes away.
  function ask(text, ...controls) {
    bar.replaceChildren(...(text ? [make("span", {}, text), ...controls] : []));
    bar.hidden = !text;
  }

  // What was asked last is answered; while an earlier message is edited, that is to be said.
  function leaveBar() {
    const giveUp = () => { box.value = ""; leaveEditing(); box.focus(); };
    if (editing) ask("Editing an earlier message: it and all after it become a branch.", button("Cancel", giveUp));
    else ask();
    box.focus();
  }

  function rename() {
    const input = make("input", { "aria-label": "New title" });
    input.value = model.get("title");
    const save = () => { send("rename", { text: input.value }); leaveBar(); };
    input.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) save(); });
    ask("Title:", input, button("Save", save), button("Cancel", leaveBar));
    input.select();
  }

  function confirmDelete() {
    const id = model.get("conversation_id");
    const yes = button("Delete for good", () => { send("delete", { id }); leaveBar(); }, { class: "promptkit-danger" });
    ask(`Delete “${model.get("title")}”?`, yes, button("Cancel", leaveBar));
    yes.focus();
  }

  // What is on the page.
  const isBusy = () => model.get("busy") || pending !== null;

  // The children of a turn's node.
  function turnParts(turn) {
    const answered = turn.said.map((said) => [said, saidNode(said)]);
    const answers = turn.said.filter(({ who }) => who === "assistant");
    const first = answered.find(([said]) => said.who.startsWith("user"));
    if (first) {
      first[1].append(actions(
        button("Copy", (event) => copy(turn.question, event.currentTarget)),
        button("Edit", () => edit(turn), { title: "Say something else from here on" }),
      ));
    }
    return [...answered.map(([, each]) => each), make("div", { class: "promptkit-below" },
      make("div", { class: "promptkit-notes" }, ...turn.notes.map((note) => make("div", {}, note))),
      actions(
        ...(answers.length ? [button("Copy", (event) => copy(answers.map(({ text }) => text).join("\n\n"), event.currentTarget))] : []),
        button("Retry", () => retry(turn), { title: "Answer again, in place; the former answer is kept as a version" }),
      ))];
  }

  // The model has the newest turns; older ones that were fetched stay for as long as they are right and looked at.
  function take() {
    const id = model.get("conversation_id"), epoch = model.get("epoch"), first = model.get("first");
    if (shown.id !== id) { scrolling.follow(true); leaveEditing(); search.value = ""; }
    let older = shown.id === id && shown.epoch === epoch && !scrolling.isFollowing ? turns.filter(({ at }) => at < first) : [];
    if (older.length && older[older.length - 1].at !== first - 1) older = [];
    shown = { id, epoch };
    turns = [...older, ...model.get("turns")];
  }

  function drawTurns() {
    take();
    const held = root.contains(document.activeElement);
    scrolling.keepPlace(placeTurns);
    scrolling.fillWhatIsNear();
    if (held && !root.contains(document.activeElement)) box.focus({ preventScroll: true });
  }

  function placeTurns() {
    const wanted = new Set(turns.map(({ id }) => id));
    for (const [id, { node }] of nodes) if (!wanted.has(id)) { scrolling.remove(node); nodes.delete(id); }
    let next = earlier.nextSibling;
    for (const turn of turns) {
      const known = nodes.get(turn.id);
      let node = known?.node;
      if (known?.item !== turn && JSON.stringify(known?.item) !== JSON.stringify(turn)) {
        node = make("div", { class: "promptkit-turn" });
        if (known) {
          if (next === known.node) next = node;
          known.node.before(node);
          scrolling.remove(known.node);
        }
        scrolling.add(node, () => turnParts(turn));
      }
      nodes.set(turn.id, { item: turn, node });
      while (next === growth || next === empty) next = next.nextSibling;
      if (next === node) next = node.nextSibling;
      else list.insertBefore(node, next);
    }
    scrolling.arrange(turns.map(({ id }) => nodes.get(id).node));
    earlier.hidden = !turns.length || turns[0].at === 0;
    covered = undefined;
    drawGrowth();
  }

  function drawGrowth() {
    const growing = model.get("growing");
    const coming = pending && !growing ? { question: pending.text, html: "" } : growing;
    growth.hidden = !coming || (!coming.question && !coming.html);
    cover(coming);
    empty.hidden = turns.length > 0 || !growth.hidden;
    log.setAttribute("aria-busy", String(Boolean(coming)));
    if (!coming) { growth.replaceChildren(); growth.question = undefined; list.append(growth); return scrolling.settle(); }
    const before = nodes.get(coming.instead_of)?.node;
    if (before) { if (before.nextSibling !== growth) before.after(growth); }
    else if (list.lastChild !== growth) list.append(growth);
    if (growth.question !== coming.question) {
      growth.question = coming.question;
      growth.answer = make("div", { class: "promptkit-said" });
      growth.replaceChildren(saidNode({ who: "user", text: coming.question, html: "" }),
        make("div", { class: "promptkit-message promptkit-assistant" }, make("div", { class: "promptkit-who" }, "assistant"), growth.answer));
    }
    const body = sanitised(coming.html);
    if (!coming.html) body.append(make("span", { class: "promptkit-dots", "aria-hidden": "true" }, "● ● ●"));
    growth.answer.replaceChildren(body);
    scrolling.settle();
  }

  function cover(coming) {
    const place = coming ? `${coming.instead_of} ${coming.from}` : "";
    if (place === covered) return;
    covered = place;
    for (const { item, node } of nodes.values()) {
      node.hidden = Boolean(coming) && (item.id === coming.instead_of || (coming.from !== undefined && item.at >= coming.from));
    }
  }

  function drawStatus() {
    let text = model.get("status");
    if (isDead) text = "The kernel of this panel has ended: run its cell again to go on.";
    else if (pending && !pending.taken) text = "Waiting for the kernel, which is busy with a cell: your message goes out as soon as it is free.";
    if (status.textContent !== text) status.textContent = text;
    refreshButtons();
  }

  function refreshButtons() {
    sendButton.disabled = isDead || isBusy() || !box.value.trim();
    stopButton.disabled = isDead || !isBusy();
    for (const each of head.querySelectorAll("button, select, input")) each.disabled = isDead;
  }

  function drawProblem() {
    const problem = model.get("problem");
    trouble.hidden = !problem.text;
    if (!problem.text) return;
    trouble.replaceChildren(make("span", {}, problem.text), button("Dismiss", () => { trouble.hidden = true; box.focus(); }, { class: "promptkit-quiet" }));
    if (problem.partial) trouble.append(make("div", { class: "promptkit-who" }, "What had come:"), sanitised(problem.partial));
    if (problem.n !== lastProblem) {
      lastProblem = problem.n;
      pending = null;
      putBack(problem.unsent, problem.view);
    }
  }

  // What could not be sent goes back to where it was typed, an edit as an edit; after a reload, to the empty box.
  function putBack(text, from) {
    if (!text || (from !== view && asked > 1)) return;
    const typed = box.value.trim() ? `${text}\n${box.value}` : text;
    if (edited?.text === text && !editing) edit(edited.turn);
    box.value = typed;
    refreshButtons();
  }

  function drawChooser() {
    const id = model.get("conversation_id");
    const options = model.get("conversations").map((each) => {
      const option = make("option", { value: each.id, title: each.id }, `${each.title} (${each.turns})`);
      option.value = each.id;
      return option;
    });
    if (!options.some((option) => option.value === id)) options.unshift(make("option", { value: id }, model.get("title")));
    chooser.replaceChildren(...options);
    chooser.value = id;
  }

  function lookFor() {
    clearTimeout(search.timer);
    send("search", { text: search.value });
  }

  function openChooser() {
    chooser.focus();
    try { chooser.showPicker(); } catch { /* not every browser has it, and none allows it everywhere */ }
  }

  function drawFooter() {
    footer.replaceChildren(...model.get("footer").map((line) => make("span", {}, line)));
  }

  function fetchOlder() {
    if (fetching || !turns.length || turns[0].at === 0 || isDead) return;
    fetching = true;
    send("older", { before: String(turns[0].at) });
    setTimeout(() => (fetching = false), 5000); // should the kernel never say
  }

  function older(message) {
    fetching = false;
    const last = message.older[message.older.length - 1];
    if (message.epoch !== shown.epoch || !last || last.at !== turns[0]?.at - 1) return;
    turns = [...message.older, ...turns];
    scrolling.follow(false);
    drawTurns();
  }

  // What comes from the kernel.
  function heard(message) {
    if (message.taken && message.view === view && pending?.n === message.taken) { pending.taken = true; drawStatus(); }
    if (message.older && message.view === view) older(message);
    if (message.unsent) putBack(message.unsent, message.view);
  }

  function begun() {
    if (pending && (model.get("growing") || pending.taken)) pending = null;
  }

  const listeners = {
    "change:turns": () => { begun(); drawTurns(); drawStatus(); },
    "change:epoch": drawTurns,
    "change:conversation_id": () => { drawTurns(); drawChooser(); },
    "change:growing": () => { begun(); drawGrowth(); drawStatus(); },
    "change:busy": () => { begun(); drawGrowth(); drawStatus(); },
    "change:status": drawStatus,
    "change:problem": () => { drawProblem(); drawGrowth(); drawStatus(); },
    "change:conversations": drawChooser,
    "change:footer": drawFooter,
    "msg:custom": heard,
    "comm_live_update": checkLife,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);

  // The widget manager knows whether the kernel is still the one that made this widget; JupyterLab's also has the kernel.
  async function checkLife() {
    const made = await model.widget_manager.get_model(model.get("panel_id")).catch(() => null);
    const kernel = made?.widget_manager?.kernel;
    isDead = made?.comm_live === false || kernel === null || kernel?.status === "dead";
    root.classList.toggle("promptkit-dead", isDead);
    if (isDead && pending) { putBack(pending.text, view); pending = null; drawGrowth(); }
    drawStatus();
  }

  // What is typed survives a reload of the page, and a new run of the panel's cell.
  function leave() {
    const draft = { text: box.value, edits: editing?.id, problem: lastProblem, isFocused: document.activeElement === box };
    keepDraft(model.get("conversation_id"), model.get("panel_id"), draft);
    if (!isDead) send("gone");
  }

  function returnDraft() {
    const draft = takeDraft(model.get("conversation_id"), model.get("panel_id"));
    if (!draft) return;
    const edited = turns.find(({ id }) => id === draft.edits);
    if (edited) edit(edited);
    box.value = draft.text;
    if (!draft.isOwn) return;
    lastProblem = draft.problem;
    if (draft.isFocused) focusWhenShown();
  }

  function focusWhenShown(framesLeft = 300) {
    if (root.isConnected) box.focus({ preventScroll: true });
    else if (framesLeft) requestAnimationFrame(() => focusWhenShown(framesLeft - 1));
  }

  addEventListener("pagehide", leave);
  drawTurns();
  returnDraft();
  drawChooser();
  drawFooter();
  drawProblem();
  drawStatus();
  checkLife();
  send("open");
  // Jupyter reads a panel's messages on a thread beside the cells from its second answer on, so ask for one more.
  const again = setTimeout(() => send("open"), 1000);
  return () => {
    removeEventListener("pagehide", leave);
    scrolling.end();
    clearTimeout(again);
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
    leave();
  };
}

export default { render };
