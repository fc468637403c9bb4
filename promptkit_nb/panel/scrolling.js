// How the log scrolls. It follows its end while that is seen; elsewhere what somebody reads stays where it is, whatever
// changes above. Only turns near to what is seen are filled: one far away is an empty box, as high as it was.

const FAR_PX = 2000; // above and below what is seen
const END_PX = 32;

function makeScrolling(log, list, wantEarlier) {
  const fillers = new Map(); // a turn's node -> what returns its children
  const filled = new Set();
  let order = []; // the turns' nodes
  let following = true;
  let height = 0; // of all that there is to scroll, when that was looked at last
  let top = 0;

  const sizing = new ResizeObserver(settle);
  sizing.observe(log);
  sizing.observe(list);
  log.addEventListener("scroll", scrolled);

  function fill(node) {
    node.style.height = "";
    node.replaceChildren(...fillers.get(node)());
    filled.add(node);
  }

  function empty(node, itsHeight) {
    if (node.contains(document.activeElement) || getSelection().containsNode(node, true)) return;
    node.style.height = `${itsHeight}px`;
    node.replaceChildren();
    filled.delete(node);
  }

  // The nodes from the first one on that ends below this height of the page; hidden ones have no place.
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

  function fillWhatIsNear() {
    const { top: above, bottom: below } = log.getBoundingClientRect();
    const near = [], far = [];
    for (const node of nodesBelow(above - FAR_PX)) {
      if (node.getBoundingClientRect().top > below + FAR_PX) break;
      if (!filled.has(node)) near.push(node);
    }
    for (const node of filled) {
      const box = node.getBoundingClientRect();
      if (!node.hidden && (box.bottom < above - FAR_PX || box.top > below + FAR_PX)) far.push([node, box.height]);
    }
    if (!near.length && !far.length) return;
    keepPlace(() => {
      near.forEach(fill);
      far.forEach(([node, itsHeight]) => empty(node, itsHeight));
    });
  }

  function settle() {
    if (!log.clientHeight) return; // it is not shown at the moment
    height = log.scrollHeight;
    if (following) log.scrollTop = height;
    top = log.scrollTop;
  }

  function scrolled() {
    if (!log.clientHeight) return;
    if (log.scrollHeight !== height) return settle(); // it was not scrolled: something in it grew or shrank
    const rest = log.scrollHeight - log.scrollTop - log.clientHeight;
    following = rest < 2 || (rest < END_PX && log.scrollTop >= top);
    top = log.scrollTop;
    fillWhatIsNear();
    if (!following && top < 2 * log.clientHeight) wantEarlier();
  }

  // Change something in the list; the first of the turns that are seen and still there stays where it is.
  function keepPlace(change) {
    const edge = log.getBoundingClientRect().top;
    const places = following ? [] : [...filled].map((node) => [node, node.getBoundingClientRect()])
      .filter(([, box]) => box.height && box.bottom > edge).sort(([, one], [, other]) => one.top - other.top);
    change();
    const [node, box] = places.find(([each]) => each.isConnected && !each.hidden) ?? [];
    if (node) log.scrollTop += node.getBoundingClientRect().top - box.top;
    settle();
  }

  return {
    keepPlace, settle, fillWhatIsNear,
    get isFollowing() { return following; },
    follow(whether) { following = whether; },
    add(node, filler) { fillers.set(node, filler); fill(node); },
    remove(node) { fillers.delete(node); filled.delete(node); node.remove(); },
    arrange(nodes) { order = nodes; },
    end() { sizing.disconnect(); },
  };
}
