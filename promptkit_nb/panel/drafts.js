// What is typed and not sent, by conversation and panel, for as long as the browser's tab is open.

const draftsName = (conversationId) => `promptkit:${conversationId}`;

function draftsOf(conversationId) {
  try {
    return JSON.parse(sessionStorage.getItem(draftsName(conversationId))) ?? {};
  } catch {
    return {}; // a page in a sandbox has no storage
  }
}

function storeDrafts(conversationId, drafts) {
  try {
    if (Object.keys(drafts).length) sessionStorage.setItem(draftsName(conversationId), JSON.stringify(drafts));
    else sessionStorage.removeItem(draftsName(conversationId));
  } catch { /* as above */ }
}

function keepDraft(conversationId, panelId, draft) {
  storeDrafts(conversationId, { ...draftsOf(conversationId), [panelId]: draft });
}

// The panel's own draft, else what was typed into one that is gone; null where there is none.
function takeDraft(conversationId, panelId) {
  const { [panelId]: own, ...others } = draftsOf(conversationId);
  if (own) {
    storeDrafts(conversationId, others);
    return { ...own, isOwn: true };
  }
  const [foundId, found] = Object.entries(others).find(([, { text }]) => text) ?? [];
  if (!found) return null;
  delete others[foundId];
  storeDrafts(conversationId, others);
  return { ...found, isOwn: false };
}
