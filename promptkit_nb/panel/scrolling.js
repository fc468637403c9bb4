// How the log scrolls. At the end of the log it follows new text; elsewhere, what the reader sees stays in place when
// something above it changes. Only turns near the visible part have content: others are empty boxes of the same height.

const NEAR_PX = 2000; // above and below the visible part
const END_PX = 32;

function makeScrolling(log, list, fetchOlder) {
  const fillers = new Map(); // a turn's node -> a function that returns its children
  const filled = new Set();
  let order = []; // the turns' nodes
  let following = true;
  let height = 0; // of the whole content, when last measured
  let width = 0; // of the log, then
  let top = 0;
  let place = null; // the first visible turn, {node, offset}, unless the log follows its end

  const sizing = new ResizeObserver((changes) => (changes.some(({ target }) => target === log) ? returnToPlace() : settle()));
  sizing.observe(log);
  sizing.observe(list);
  log.addEventListener("scroll", onScroll);

  function fill(node) {
    node.style.height = "";
    node.replaceChildren(...fillers.get(node)());
    filled.add(node);
  }

  function empty(node, nodeHeight) {
    if (node.contains(document.activeElement) || getSelection().containsNode(node, true)) return;
    node.style.height = `${nodeHeight}px`;
    node.replaceChildren();
    filled.delete(node);
  }

  // Yields the nodes whose bottom is below an edge; hidden ones have no position.
  function* nodesBelow(edge) {
    const isAbove = (node) => !node.hidden && node.getBoundingClientRect().bottom < edge;
    let low = 0, high = order.some((node) => node.hidden) ? 0 : order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isAbove(order[middle])) low = middle + 1;
      else high = middle;
    }
    for (const node of order.slice(low)) if (!node.hidden && !isAbove(node)) yield node;
  }

  function fillNearby() {
    const { top: above, bottom: below } = log.getBoundingClientRect();
    const near = [], far = [];
    for (const node of nodesBelow(above - NEAR_PX)) {
      if (node.getBoundingClientRect().top > below + NEAR_PX) break;
      if (!filled.has(node)) near.push(node);
    }
    for (const node of filled) {
      const box = node.getBoundingClientRect();
      if (!node.hidden && (box.bottom < above - NEAR_PX || box.top > below + NEAR_PX)) far.push([node, box.height]);
    }
    if (!near.length && !far.length) return;
    keepPosition(() => {
      near.forEach(fill);
      far.forEach(([node, nodeHeight]) => empty(node, nodeHeight));
    });
  }

  function settle() {
    if (!log.clientHeight) return; // the log is not displayed
    height = log.scrollHeight;
    width = log.clientWidth;
    if (following) log.scrollTop = height;
    top = log.scrollTop;
  }

  function onScroll() {
    if (!log.clientHeight) return;
    if (log.clientWidth !== width) returnToPlace();
    else if (log.scrollHeight !== height) settle(); // the content changed size, and may have moved by itself
    else {
      const rest = log.scrollHeight - log.scrollTop - log.clientHeight;
      following = rest < 2 || (rest < END_PX && log.scrollTop >= top);
      top = log.scrollTop;
      rememberPlace();
    }
    fillNearby();
    if (!following && top < 2 * log.clientHeight) fetchOlder();
  }

  // Changes the list; the first visible turn that remains stays in place.
  function keepPosition(change) {
    const edge = log.getBoundingClientRect().top;
    const boxes = following ? [] : [...filled].map((node) => [node, node.getBoundingClientRect()])
      .filter(([, box]) => box.height && box.bottom > edge).sort(([, one], [, other]) => one.top - other.top);
    change();
    const [node, box] = boxes.find(([each]) => each.isConnected && !each.hidden) ?? [];
    if (node) log.scrollTop += node.getBoundingClientRect().top - box.top;
    settle();
    rememberPlace();
  }

  function rememberPlace() {
    const edge = log.getBoundingClientRect().top;
    const node = following ? undefined : nodesBelow(edge).next().value;
    place = node ? { node, offset: node.getBoundingClientRect().top - edge } : null;
  }

  // Scrolls back to the remembered place after the log was moved in the page, or got another size.
  function returnToPlace() {
    if (place?.node.isConnected && log.clientHeight) {
      log.scrollTop += place.node.getBoundingClientRect().top - log.getBoundingClientRect().top - place.offset;
    }
    settle();
  }

  return {
    keepPosition, returnToPlace, settle, fillNearby,
    get isFollowing() { return following; },
    follow(whether) { following = whether; },
    add(node, filler) { fillers.set(node, filler); fill(node); },
    remove(node) { fillers.delete(node); filled.delete(node); node.remove(); },
    arrange(nodes) { order = nodes; },
    end() { sizing.disconnect(); },
  };
}
