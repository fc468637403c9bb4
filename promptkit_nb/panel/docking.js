// The panel as a tab beside the notebook, in JupyterLab. The widget manager has the notebook's context, whose
// `addSibling` opens any Lumino widget next to it; other front ends have no such context, and the panel stays in its cell.

const DOCK_CLOSED = "promptkit-dock-closed";

// Returns the context of the notebook: null in front ends that do not tell.
async function notebookContext(model) {
  const widget = await model.widget_manager.get_model(model.get("panel_id")).catch(() => null);
  return { widget, context: widget?.widget_manager?.context ?? null };
}

function makeDocking({ model, el, root, scrolling }) {
  let tab = null; // a Lumino widget
  const back = button("Bring it back", () => leaveDock(), { class: "promptkit-quiet" });
  const note = make("div", { class: "promptkit-docked-note" }, "The chat is open beside the notebook. ", back);
  const toggle = iconButton("dock", "Dock", () => (tab ? leaveDock() : enterDock()), { hidden: true });

  // In simple mode JupyterLab shows one document at a time, and Notebook 7 has no dock.
  const hasDock = () => document.querySelector("#jp-main-dock-panel[data-mode='multiple-document']") !== null;

  async function dock() {
    const { widget, context } = await notebookContext(model);
    if (!context?.addSibling || !hasDock() || !root.isConnected) return;
    toggle.hidden = false;
    if (model.get("docked")) enterDock({ widget, context });
  }

  async function enterDock(found) {
    const { widget, context } = found ?? (await notebookContext(model));
    const view = await Object.values(widget?.views ?? {})[0];
    if (tab || !view?.luminoWidget || !context) return;
    const node = make("div", { class: "promptkit-dock" });
    const others = [...document.querySelectorAll(".promptkit-dock")];
    tab = new (baseClass(view.luminoWidget.constructor))({ node });
    tab.id = `promptkit-dock-${Math.random().toString(36).slice(2)}`;
    tab.title.closable = true;
    tab.title.caption = context.path; // the tooltip
    tab.disposed.connect(() => leaveDock()); // JupyterLab disposes of a tab that is closed
    retitle();
    Object.assign(node, { tab, shows: () => `${context.path}\n${model.get("conversation_id")}` });
    node.addEventListener(DOCK_CLOSED, () => leaveDock());
    el.append(note);
    move(() => {
      node.append(root);
      context.addSibling(tab, { ...besides(others), activate: false });
      tab.parent?.selectWidget?.(tab);
    });
    for (const other of others) if (other.shows() === node.shows()) other.dispatchEvent(new Event(DOCK_CLOSED));
    setToggle("Undock");
    setDocked(true);
  }

  // Where to open the tab: among the chats of the page, unless the notebook is there, else at the notebook's right.
  function besides(chats) {
    const notebook = el.closest(".lm-DockPanel-widget")?.id;
    const isWithNotebook = ({ tab: chat }) => [...chat.parent?.tabBars?.() ?? []]
      .map((bar) => bar.titles.map(({ owner }) => owner.id)).some((ids) => ids.includes(chat.id) && ids.includes(notebook));
    const chat = chats.find((each) => !isWithNotebook(each));
    return chat ? { mode: "tab-after", ref: chat.tab.id } : { mode: "split-right", ref: notebook };
  }

  // Moves the panel in the page. Browsers forget the focus and the scroll position of what is moved.
  function move(change) {
    const focused = root.contains(document.activeElement) ? document.activeElement : null;
    change();
    focused?.focus({ preventScroll: true });
    scrolling.returnToPlace();
  }

  // Puts the panel back into its cell; a view that is removed leaves the wish to be docked.
  function leaveDock({ isRemoved = false } = {}) {
    const left = tab;
    if (!left) return;
    tab = null;
    note.remove();
    if (!isRemoved) { move(() => el.append(root)); setDocked(false); }
    setToggle("Dock");
    left.dispose();
  }

  function setToggle(label) {
    toggle.ariaLabel = label;
    toggle.title = label;
  }

  function setDocked(isDocked) {
    if (model.get("docked") === isDocked) return;
    model.set("docked", isDocked);
    model.save_changes();
  }

  function retitle() {
    if (tab) Object.assign(tab.title, { label: model.get("title") || "Chat", caption: model.get("conversation_id") });
  }

  return { dock, retitle, toggle, end: () => leaveDock({ isRemoved: true }), get isDocked() { return tab !== null; } };
}

// Returns Lumino's `Widget`, the root of the classes.
function baseClass(type) {
  const parent = Object.getPrototypeOf(type);
  return parent === Function.prototype || parent === null ? type : baseClass(parent);
}

// Puts code into the active cell if that is empty, else into a new one below it, or below the panel's own. It is never
// executed.
function insertCell(context, el, code) {
  const cells = el.closest(".jp-Notebook");
  const after = cells?.querySelector(".jp-Cell.jp-mod-active") ?? el.closest(".jp-Cell");
  const position = after?.dataset.windowedListIndex ?? [...(cells?.querySelectorAll(".jp-Cell") ?? [])].indexOf(after);
  const source = code.replace(/\n$/, ""), notebook = context.model.sharedModel;
  const active = notebook.cells[Number(position)];
  if (active?.cell_type !== "code" || active.source.trim() || active.getMetadata("editable") === false) {
    notebook.insertCell(Number(position) + 1, { cell_type: "code", source });
  } else active.setSource(source);
}
