// Unsent text, by conversation and panel, for as long as the browser tab is open.

const draftsKey = (conversationId) => `promptkit:${conversationId}`;

function readDrafts(conversationId) {
  try {
    return JSON.parse(sessionStorage.getItem(draftsKey(conversationId))) ?? {};
  } catch {
    return {}; // a sandboxed page has no storage
  }
}

function writeDrafts(conversationId, drafts) {
  try {
    if (Object.keys(drafts).length) sessionStorage.setItem(draftsKey(conversationId), JSON.stringify(drafts));
    else sessionStorage.removeItem(draftsKey(conversationId));
  } catch { /* as above */ }
}

function saveDraft(conversationId, panelId, draft) {
  writeDrafts(conversationId, { ...readDrafts(conversationId), [panelId]: draft });
}

// Removes and returns the panel's own draft, else one of a panel that no longer exists, else null.
function takeDraft(conversationId, panelId) {
  const { [panelId]: own, ...others } = readDrafts(conversationId);
  if (own) {
    writeDrafts(conversationId, others);
    return { ...own, isOwn: true };
  }
  const [foundId, found] = Object.entries(others).find(([, { text }]) => text) ?? [];
  if (!found) return null;
  delete others[foundId];
  writeDrafts(conversationId, others);
  return { ...found, isOwn: false };
}
