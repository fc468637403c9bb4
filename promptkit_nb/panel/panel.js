// The chat panel's page: its elements, the commands it sends to the kernel, and the updates it shows. The widget's script
// consists of parts.js, scrolling.js, drafts.js, docking.js and this file.

const MAX_PICTURE_BYTES = 5_000_000;
const SLOW_MS = 400; // how long the kernel may take to confirm a message before the panel says that it waits

function render({ model, el }) {
  const page = `page-${Math.random().toString(36).slice(2)}`;
  const nodes = new Map(); // turn id -> {turn, node}
  let turns = []; // on the page, in order; the last ones are the model's
  let loaded = {}; // the conversation and epoch of these turns
  let pending = null; // the message that was sent and is not being answered yet: {n, text, isReceived}
  let stopCount = 0; // the number of the last Stop, once the kernel has had the time to confirm it
  let editing = null; // the turn that the typed text will replace
  let editsReply = false; // only its answer, not its message and all that follows
  let sentPictures = []; // with the last message
  let lastEdit = null; // the last edit that was sent: {text, turn, isReply}
  let sentCount = 0;
  let receivedCount = 0; // of these, the last one that the kernel has confirmed
  let pictures = []; // to send with the next message: {name, file, bytes}
  let isFetching = false;
  let isDead = false;
  let lastError = 0;
  let hiddenFor; // which turns are hidden because the streaming answer replaces them

  // Elements.
  const chooser = make("select", { "aria-label": "Conversations", onchange: () => send("use", { id: chooser.value }) });
  const search = smallBox("Search conversations", () => { sendSearch(); openChooser(); }, {
    type: "search", placeholder: "Search", hidden: true, onEscape: closeSearch,
    oninput: () => { clearTimeout(search.timer); search.timer = setTimeout(sendSearch, 200); },
  });
  const bar = make("div", { class: "promptkit-bar", hidden: true });
  const head = make("div", { class: "promptkit-head", role: "toolbar", "aria-label": "Conversation tools" },
    chooser, search,
    iconButton("search", "Search", () => { if (!search.hidden) return closeSearch(); search.hidden = false; search.focus(); }),
    iconButton("plus", "New", () => { send("new"); box.focus(); }, { title: "Start a conversation with the same prompt and settings" }),
    iconButton("pencil", "Rename", rename),
    iconButton("fork", "Fork", () => { send("fork"); box.focus(); }, { title: "Continue in a copy" }),
    iconButton("trash", "Delete", confirmDelete));
  const earlier = button("Earlier turns", fetchOlder, { class: "promptkit-earlier promptkit-quiet", hidden: true });
  const streamed = make("div", { class: "promptkit-turn promptkit-streaming", hidden: true });
  const empty = make("div", { class: "promptkit-empty" }, "No messages yet.");
  const list = make("div", { class: "promptkit-list" }, earlier, empty, streamed);
  const log = make("div", {
    class: "promptkit-log", role: "log", "aria-label": "Conversation", "aria-live": "polite", tabindex: "0",
  }, list);
  const scrolling = makeScrolling(log, list, fetchOlder);
  const question = make("div", { class: "promptkit-question", role: "group", "aria-label": "Tool approval", hidden: true });
  const errorBox = make("div", { class: "promptkit-error", role: "alert", hidden: true });
  const status = make("div", { class: "promptkit-status", role: "status" });
  const box = make("textarea", {
    rows: "2", "aria-label": "Message", placeholder: "Message, or {{ name }} for a variable (Enter sends, Shift+Enter starts a new line)", dir: "auto",
    onkeydown: onKeydown, oninput: onInput, onfocus: checkKernel,
  });
  const models = make("select", {
    "aria-label": "Model", class: "promptkit-models", onfocus: () => send("models"), // again if the server did not list them
    onchange: () => { send("model", { name: models.value }); box.focus(); },
  });
  const chips = make("span", { class: "promptkit-chips" });
  const thumbnails = make("div", { class: "promptkit-chips promptkit-pictures", role: "group", "aria-label": "Pictures", hidden: true });
  const sendButton = iconButton("send", "Send", onPress, { class: "promptkit-send" });
  const form = make("div", { class: "promptkit-form" }, box, thumbnails, make("div", { class: "promptkit-tools" }, models, chips, sendButton));
  form.addEventListener("pointerenter", askForModels, { once: true }); // before the list of models is opened
  form.addEventListener("focusin", askForModels, { once: true });
  const footer = make("div", { class: "promptkit-footer" });
  const root = make("div", { class: "promptkit-panel", "data-lm-suppress-shortcuts": "true", role: "group", "aria-label": "Chat panel" },
    head, bar, log, question, errorBox, status, form, footer);
  const docking = makeDocking({ model, el, root, scrolling });
  head.append(docking.toggle);
  let insert; // inserts code as a cell, if the front end can
  for (const kind of ["keydown", "keypress", "keyup"]) root.addEventListener(kind, (event) => event.stopPropagation());
  box.addEventListener("paste", (event) => takeFiles(event, event.clipboardData?.files ?? []));
  root.addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) { event.preventDefault(); event.stopPropagation(); } });
  root.addEventListener("drop", (event) => takeFiles(event, event.dataTransfer?.files ?? []));
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) onEscape(event);
  });
  el.append(root);

  // Commands to the kernel.
  function send(command, values = {}, buffers = []) {
    sentCount += 1;
    try {
      model.send({ do: command, n: String(sentCount), page, ...values }, undefined, buffers);
    } catch {
      checkKernel(); // sending to a kernel that was shut down fails
    }
    return String(sentCount);
  }

  function sendMessage(command, text, values) {
    sentPictures = command === "retry" ? [] : pictures;
    pending = { n: send(command, { text, ...values }, sentPictures.map(({ bytes }) => bytes)), text, isReceived: false };
    if (sentPictures.length) setPictures([]);
    const mine = pending;
    setTimeout(() => { if (pending === mine && !mine.isReceived) checkKernel(); }, SLOW_MS);
    scrolling.follow(true);
    errorBox.hidden = true;
    drawTurns();
  }

  function submit() {
    const text = box.value;
    if (!text.trim() || isBusy() || isDead) return;
    box.value = "";
    errorBox.hidden = true;
    lastEdit = editing && { text, turn: editing, isReply: editsReply };
    sentPictures = [];
    if (editing && editsReply) send("edit_reply", { text, turn: editing.id });
    else if (editing) sendMessage("edit", text, { turn: editing.id });
    else sendMessage("send", text);
    stopEditing();
    box.focus();
  }

  // Pictures, pasted or dropped.
  async function addPictures(files) {
    const found = [...files].filter(({ type }) => type.startsWith("image/"));
    const tooLarge = found.find(({ size }) => size > MAX_PICTURE_BYTES);
    if (tooLarge) { status.textContent = `${tooLarge.name} is larger than 5 MB: make it smaller.`; return; }
    const read = await Promise.all(found.map(async (file) => ({ name: file.name || "picture", file, bytes: await file.arrayBuffer() })));
    setPictures([...pictures, ...read]);
    box.focus();
  }

  function setPictures(wanted) {
    pictures = wanted;
    thumbnails.hidden = !pictures.length;
    thumbnails.replaceChildren(...pictures.map((picture) => make("span", { class: "promptkit-chip" },
      make("img", {
        src: URL.createObjectURL(picture.file), alt: picture.name, title: picture.name,
        onload: (event) => URL.revokeObjectURL(event.currentTarget.src),
      }),
      button("×", () => { setPictures(pictures.filter((each) => each !== picture)); box.focus(); }, { class: "promptkit-quiet", "aria-label": `Remove ${picture.name}` }))));
  }

  function takeFiles(event, files) {
    if (isDead || ![...files].some(({ type }) => type.startsWith("image/"))) return;
    event.preventDefault();
    event.stopPropagation();
    addPictures(files);
  }

  // The second click of a double click on Send does not stop the answer.
  function onPress(event) {
    if (!isBusy()) submit();
    else if (event.detail < 2) stop();
  }

  function stop() {
    if (!isBusy()) return;
    const n = Number(send("stop"));
    setTimeout(() => { stopCount = n; drawStatus(); }, SLOW_MS);
    box.focus();
  }

  function retry(turn) {
    if (!isBusy() && !isDead) { sendMessage("retry", "", { turn: turn.id }); box.focus(); }
  }

  function edit(turn, isReply = false) {
    if (isDead) return;
    editing = turn;
    editsReply = isReply;
    box.value = isReply ? turn.entries.filter(isAnswer).at(-1)?.text ?? "" : turn.question;
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
    resetBar();
    refreshButtons();
  }

  function stopEditing() {
    if (editing) showBar();
    editing = null;
    refreshButtons();
  }

  function onEscape(event) {
    if (bar.isQuestion && bar.contains(event.target)) resetBar();
    else if (isBusy()) stop();
    else if (editing) { box.value = ""; stopEditing(); }
    else resetBar();
    box.focus();
  }

  // An error stays while its message is corrected, and goes with the message.
  function onInput() {
    if (!box.value) errorBox.hidden = true;
    refreshButtons();
  }

  function onKeydown(event) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !box.value && !isBusy() && turns.length) {
      event.preventDefault();
      edit(turns[turns.length - 1]);
    }
  }

  // Shows a line with controls above the log; without a text, hides it.
  function showBar(text, ...controls) {
    bar.isQuestion = false;
    bar.replaceChildren(...(text ? [make("span", {}, text), ...controls] : []));
    bar.hidden = !text;
  }

  // Asks in the bar; Esc in one of its controls closes it.
  function askInBar(text, focused, ...controls) {
    showBar(text, ...controls, button("Cancel", resetBar));
    bar.isQuestion = true;
    focused.focus();
  }

  // Closes a question in the bar; while an earlier message is edited, the bar says so.
  function resetBar() {
    const cancel = () => { box.value = ""; stopEditing(); box.focus(); };
    const what = editsReply ? "Editing an answer: the model's own is kept as a version."
      : "Editing an earlier message: it and everything after it become a branch.";
    if (editing) showBar(what, button("Cancel", cancel));
    else showBar();
    box.focus();
  }

  function rename() {
    const before = model.get("title");
    const save = () => { if (input.value !== before) send("rename", { text: input.value }); resetBar(); };
    const input = smallBox("New title", save, { value: before });
    askInBar("Title:", input, input, button("Save", save));
    input.select();
  }

  function confirmDelete() {
    const id = model.get("conversation_id");
    const yes = button("Delete for good", () => { send("delete", { id }); resetBar(); }, { class: "promptkit-danger" });
    askInBar(`Delete “${model.get("title")}”?`, yes, yes);
  }

  // Drawing.
  const isBusy = () => model.get("busy") || pending !== null;

  const isAnswer = ({ label }) => label === "assistant";

  // Returns the children of a turn's node.
  function turnParts(turn) {
    const entries = turn.entries.map((entry) => [entry, entryNode(entry, insert)]);
    const answers = turn.entries.filter(isAnswer);
    const first = entries.find(([entry]) => entry.label.startsWith("user"));
    if (first) {
      first[1].append(actions(
        iconButton("copy", "Copy", (event) => copy(turn.question, event.currentTarget)),
        iconButton("pencil", "Edit", () => edit(turn), { title: "Change this message and continue from here" }),
      ));
    }
    return [...entries.map(([, node]) => node), make("div", { class: "promptkit-below" },
      make("div", { class: "promptkit-notes" }, ...turn.notes.map(({ text, title }) => make("div", { title: title || undefined }, text))),
      ...(turn.version ? [versionSwitch(turn.version, (id) => send("restore", { id }))] : []),
      actions(
        ...(answers.length ? [iconButton("copy", "Copy", (event) => copy(answers.map(({ text }) => text).join("\n\n"), event.currentTarget))] : []),
        ...(answers.length ? [iconButton("pencil", "Edit answer", () => edit(turn, true), { title: "Change this answer; the model's own is kept as a version" })] : []),
        iconButton("retry", "Retry", () => retry(turn), { title: "Answer again in place; the previous answer is kept as a version" }),
      ))];
  }

  // The model has the newest turns. Older ones that were fetched stay while they are up to date and the reader is there.
  function updateTurns() {
    const id = model.get("conversation_id"), epoch = model.get("epoch"), first = model.get("first");
    if (loaded.id !== id) { scrolling.follow(true); stopEditing(); search.value = ""; search.hidden = true; }
    const isCurrent = loaded.id === id && loaded.epoch === epoch;
    let older = isCurrent && !scrolling.isFollowing ? turns.filter(({ index }) => index < first) : [];
    if (older.length && older[older.length - 1].index !== first - 1) older = [];
    loaded = { id, epoch };
    turns = [...older, ...model.get("turns")];
  }

  function drawTurns() {
    updateTurns();
    const focused = root.contains(document.activeElement) ? document.activeElement : null;
    const place = focused?.matches(".promptkit-version button") ? [...nodes.values()].find(({ node }) => node.contains(focused))?.turn.index : null;
    scrolling.keepPosition(placeTurns);
    scrolling.fillNearby();
    if (!focused || root.contains(document.activeElement)) return;
    const shown = turns.find(({ index }) => index === place);
    const buttons = nodes.get(shown?.id)?.node.querySelectorAll(".promptkit-version button:enabled") ?? [];
    ([...buttons].find(({ ariaLabel }) => ariaLabel === focused.ariaLabel) ?? buttons[0] ?? box).focus({ preventScroll: true });
  }

  function placeTurns() {
    const wanted = new Set(turns.map(({ id }) => id));
    for (const [id, { node }] of nodes) if (!wanted.has(id)) { scrolling.remove(node); nodes.delete(id); }
    let next = earlier.nextSibling;
    for (const turn of turns) {
      const known = nodes.get(turn.id);
      let node = known?.node;
      if (known?.turn !== turn && JSON.stringify(known?.turn) !== JSON.stringify(turn)) {
        node = make("div", { class: "promptkit-turn" });
        if (known) {
          if (next === known.node) next = node;
          known.node.before(node);
          scrolling.remove(known.node);
        }
        scrolling.add(node, () => turnParts(turn));
      }
      nodes.set(turn.id, { turn, node });
      while (next === streamed || next === empty) next = next.nextSibling;
      if (next === node) next = node.nextSibling;
      else list.insertBefore(node, next);
    }
    scrolling.arrange(turns.map(({ id }) => nodes.get(id).node));
    earlier.hidden = !turns.length || turns[0].index === 0;
    hiddenFor = undefined;
    drawStreaming();
  }

  function drawStreaming() {
    const streaming = model.get("streaming");
    drawQuestion(streaming?.asks ?? {});
    const answer = pending && !streaming ? { question: pending.text, html: "" } : streaming;
    streamed.hidden = !answer || (!answer.question && !answer.html);
    hideReplaced(answer);
    empty.hidden = turns.length > 0 || !streamed.hidden;
    log.setAttribute("aria-busy", String(Boolean(answer)));
    if (!answer) {
      streamed.replaceChildren();
      streamed.question = undefined;
      list.append(streamed);
      return scrolling.settle();
    }
    const replaced = nodes.get(answer.replaces_turn)?.node;
    if (replaced) { if (replaced.nextSibling !== streamed) replaced.after(streamed); }
    else if (list.lastChild !== streamed) list.append(streamed);
    if (streamed.question !== answer.question) {
      streamed.question = answer.question;
      streamed.answer = make("div", { class: "promptkit-entry" });
      streamed.replaceChildren(entryNode({ label: "user", text: answer.question, html: "" }),
        make("div", { class: "promptkit-message promptkit-assistant", role: "group", "aria-label": "assistant" }, streamed.answer));
    }
    const body = sanitizedNode(answer.html);
    const unfolded = [...streamed.answer.querySelectorAll("details")];
    body.querySelectorAll("details.promptkit-tool").forEach((each, at) =>
      each.toggleAttribute("open", unfolded.filter((old) => old.matches(".promptkit-tool"))[at]?.open ?? false));
    const isUnfolded = unfolded.find((old) => old.matches(".promptkit-thinking"))?.open;
    if (isUnfolded !== undefined) body.querySelector(".promptkit-thinking")?.toggleAttribute("open", isUnfolded);
    if (!answer.html) body.append(make("span", { class: "promptkit-dots", "aria-hidden": "true" }, "● ● ●"));
    streamed.answer.replaceChildren(body);
    scrolling.settle();
  }

  // Asks whether a tool may run. An answer to one question never decides the next one.
  function drawQuestion({ id, name, arguments: values }) {
    if (question.asked === id) return;
    question.asked = id;
    question.hidden = !id;
    if (!id) return question.replaceChildren();
    const decide = (verdict) => { question.hidden = true; send("decide", { id, verdict, text: reason.value }); box.focus(); };
    const reason = smallBox("Reason for refusing", () => decide("refuse"), { placeholder: "Reason for refusing (the model is told)", onEscape: () => box.focus() });
    question.replaceChildren(
      make("div", {}, "May the model run ", make("code", {}, name), "?"),
      make("pre", { tabindex: "0", role: "group", "aria-label": "Arguments" }, values),
      make("div", { class: "promptkit-decide" }, button("Allow", () => decide("allow")), button("Refuse", () => decide("refuse")), reason));
  }

  function hideReplaced(answer) {
    const replaces = answer ? `${answer.replaces_turn} ${answer.replaces_from}` : "";
    if (replaces === hiddenFor) return;
    hiddenFor = replaces;
    for (const { turn, node } of nodes.values()) {
      node.hidden = Boolean(answer) &&
        (turn.id === answer.replaces_turn || (answer.replaces_from !== undefined && turn.index >= answer.replaces_from));
    }
  }

  function drawStatus() {
    let text = model.get("status");
    if (isDead) text = "The kernel of this panel has ended: run its cell again to continue.";
    else if (pending && !pending.isReceived) text = "Waiting for the kernel, which is busy with a cell: your message will be sent as soon as it is free.";
    else if (isBusy() && receivedCount < stopCount) text = "Stop waits for the kernel, which is busy: interrupt the kernel to end what it does.";
    if (status.textContent !== text) status.textContent = text;
    refreshButtons();
  }

  function refreshButtons() {
    const name = isBusy() ? "Stop" : "Send";
    if (sendButton.ariaLabel !== name) {
      sendButton.ariaLabel = name;
      sendButton.title = isBusy() ? "Stop the answer (Esc)" : "Send (Enter)";
      sendButton.replaceChildren(icon(name.toLowerCase()));
    }
    askForNames();
    sendButton.disabled = isDead || (!isBusy() && !box.value.trim());
    models.disabled = isDead;
    for (const each of head.querySelectorAll("button, select, input")) each.disabled = isDead;
  }

  // Asks the kernel what the expressions in the text stand for, once the typing pauses.
  function askForNames() {
    const text = box.value.includes("{{") ? box.value : "";
    if (text === chips.text) return;
    chips.text = text;
    clearTimeout(chips.timer);
    if (text) chips.timer = setTimeout(() => send("names", { text }), 250);
    else chips.replaceChildren();
  }

  function drawNames(names) {
    chips.replaceChildren(...(chips.text ? names : []).map(({ name, kind, known }) =>
      make("span", { class: known ? "promptkit-chip" : "promptkit-chip promptkit-unknown" }, make("code", {}, name), ` ${kind}`)));
  }

  function drawError() {
    const error = model.get("error");
    errorBox.hidden = !error.text;
    if (!error.text) return;
    const dismiss = button("Dismiss", () => { errorBox.hidden = true; box.focus(); }, { class: "promptkit-quiet" });
    errorBox.replaceChildren(make("span", {}, error.text), dismiss);
    if (error.partial) errorBox.append(make("div", { class: "promptkit-label" }, "Partial answer:"), sanitizedNode(error.partial));
    if (error.n !== lastError) {
      lastError = error.n;
      pending = null;
      restoreText(error.unsent, error.page);
    }
  }

  // Puts unsent text back where it was typed, an edit as an edit; after a reload, into the empty box.
  function restoreText(text, from) {
    if (!text || (from !== page && sentCount > 1)) return;
    const restored = box.value.trim() ? `${text}\n${box.value}` : text;
    if (sentPictures.length) setPictures([...sentPictures, ...pictures]);
    sentPictures = [];
    if (lastEdit?.text === text && !editing) edit(lastEdit.turn, lastEdit.isReply);
    box.value = restored;
    refreshButtons();
  }

  function drawChooser() {
    const id = model.get("conversation_id");
    const options = model.get("conversations").map((each) => {
      const option = make("option", { value: each.id, title: each.id }, each.title);
      option.value = each.id;
      return option;
    });
    if (!options.some((option) => option.value === id)) options.unshift(make("option", { value: id, title: id }, model.get("title")));
    chooser.replaceChildren(...options);
    chooser.value = id;
    chooser.title = id;
  }

  function sendSearch() {
    clearTimeout(search.timer);
    send("search", { text: search.value });
  }

  function closeSearch() {
    search.hidden = true;
    if (search.value) { search.value = ""; sendSearch(); }
    box.focus();
  }

  function openChooser() {
    chooser.focus();
    try { chooser.showPicker(); } catch { /* not supported by every browser, nor allowed everywhere */ }
  }

  function drawFooter() {
    const { totals, context, percent } = model.get("usage");
    const [details, window, ...budgets] = model.get("footer");
    const gauge = make("span", { class: "promptkit-gauge", hidden: percent === null });
    gauge.style.setProperty("--pk-percent", `${percent ?? 0}%`);
    footer.replaceChildren(
      make("span", { title: details ?? "" }, totals ?? ""), ...budgets.map((line) => make("span", {}, line)),
      make("span", { class: "promptkit-context", title: window ?? "" }, gauge, context ?? ""));
  }

  function askForModels() {
    if (!models.isAsked) send("models");
    models.isAsked = true;
  }

  function drawModels() {
    const names = model.get("models"), current = model.get("model");
    models.title = model.get("models_note");
    const options = [...new Set([current, ...names])].filter(Boolean).map((name) => make("option", { value: name }, name));
    models.replaceChildren(...options);
    models.value = current;
    models.hidden = !options.length;
  }

  function fetchOlder() {
    if (isFetching || !turns.length || turns[0].index === 0 || isDead) return;
    isFetching = true;
    send("older", { before: String(turns[0].index) });
    setTimeout(() => (isFetching = false), 5000); // in case the kernel never answers
  }

  function addOlder(message) {
    isFetching = false;
    const last = message.older[message.older.length - 1];
    if (message.epoch !== loaded.epoch || !last || last.index !== turns[0]?.index - 1) return;
    turns = [...message.older, ...turns];
    scrolling.follow(false);
    drawTurns();
  }

  // Messages and changes from the kernel, which confirms commands in their order, unless it read the first of them late:
  // those that the page sent before it had a subshell.
  function markReceived(n) {
    receivedCount = Math.max(receivedCount, Number(n));
    if (pending?.n === n) pending.isReceived = true;
    drawStatus();
  }

  function onMessage(message) {
    if (message.received && message.page === page) markReceived(message.received);
    if (message.older && message.page === page) addOlder(message);
    if (message.names && message.page === page) drawNames(message.names);
    if (message.unsent) restoreText(message.unsent, message.page);
  }

  function clearPending() {
    if (pending && (model.get("streaming") || pending.isReceived)) pending = null;
  }

  const listeners = {
    "change:turns": () => { clearPending(); drawTurns(); drawStatus(); },
    "change:epoch": drawTurns,
    "change:conversation_id": () => { drawTurns(); drawChooser(); docking.retitle(); },
    "change:title": docking.retitle,
    "change:streaming": () => { clearPending(); drawStreaming(); drawStatus(); },
    "change:busy": () => { clearPending(); drawStreaming(); drawStatus(); },
    "change:status": drawStatus,
    "change:error": () => { drawError(); drawStreaming(); drawStatus(); },
    "change:conversations": drawChooser,
    "change:footer": drawFooter,
    "change:usage": drawFooter,
    "change:model": drawModels,
    "change:models": drawModels,
    "change:models_note": drawModels,
    "msg:custom": onMessage,
    "comm_live_update": checkKernel,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);

  // The widget manager knows whether the kernel still has this widget; JupyterLab's manager also has the kernel.
  async function checkKernel() {
    const widget = await model.widget_manager.get_model(model.get("panel_id")).catch(() => null);
    const kernel = widget?.widget_manager?.kernel;
    isDead = widget?.comm_live === false || kernel === null || kernel?.status === "dead";
    root.classList.toggle("promptkit-dead", isDead);
    if (isDead && pending) { restoreText(pending.text, page); pending = null; drawStreaming(); }
    drawStatus();
  }

  async function meetNotebook() {
    await docking.dock();
    const { context } = await notebookContext(model);
    if (!context?.model?.sharedModel?.insertCell) return;
    insert = (code) => insertCell(context, el, code);
    nodes.forEach(({ node }) => scrolling.remove(node));
    nodes.clear();
    drawTurns(); // with buttons that insert
  }

  // Typed text survives a reload of the page and another run of the panel's cell.
  function leave() {
    const draft = { text: box.value, edits: editing?.id, isReply: editsReply, error: lastError, isFocused: document.activeElement === box };
    saveDraft(model.get("conversation_id"), model.get("panel_id"), draft);
    if (!isDead) send("close");
  }

  function restoreDraft() {
    const draft = takeDraft(model.get("conversation_id"), model.get("panel_id"));
    if (!draft) return;
    const turn = turns.find(({ id }) => id === draft.edits);
    if (turn) edit(turn, draft.isReply);
    box.value = draft.text;
    if (!draft.isOwn) return;
    lastError = draft.error;
    if (draft.isFocused) focusOnceShown();
  }

  function focusOnceShown(framesLeft = 300) {
    if (root.isConnected) box.focus({ preventScroll: true });
    else if (framesLeft) requestAnimationFrame(() => focusOnceShown(framesLeft - 1));
  }

  addEventListener("pagehide", leave);
  drawTurns();
  restoreDraft();
  drawChooser();
  drawFooter();
  drawModels();
  drawError();
  drawStatus();
  checkKernel();
  send("open");
  requestAnimationFrame(meetNotebook);
  return () => {
    removeEventListener("pagehide", leave);
    scrolling.end();
    docking.end();
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
    leave();
  };
}

export default { render };
