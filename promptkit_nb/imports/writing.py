"""Writes imported conversations: creates new ones and extends grown ones, without losing changes in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from promptkit_nb import errors
from promptkit_nb.codec import encode_turn
from promptkit_nb.imports.report import Outcome, ReportRow
from promptkit_nb.state import ConversationState, Head
from promptkit_nb.stores.base import StateStore

if TYPE_CHECKING:
    from promptkit_nb.turns import Turn

RECORD = "imported_from"
"""The key in the metadata for the next import: unit, stamp, digest of what was written, and title."""

_REFUSED = (errors.InvalidArgumentError, errors.InvalidConversationIdError, errors.ConversationChangedError)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a conversation: its unit, and the unit's stamp once all of the unit is written."""

    unit: str
    place: str
    stamp: str | None = None


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the conversations of one import into a store; with ``dry_run``, only reports what it would do."""

    store: StateStore
    user_id: str
    id_prefix: str
    dry_run: bool
    heads: dict[str, Head] = field(default_factory=dict)
    """The heads in the store with ids of this import."""

    def write(self, found: ConversationState, origin: Origin) -> ReportRow:
        """Create or extend a conversation."""
        source, place = found.settings.source, origin.place
        conversation_id = f"{self.id_prefix}{found.conversation_id}"
        own_user = getattr(self.store, "user_id", None)
        user_id = found.user_id or own_user or self.user_id

        def row(outcome: Outcome, detail: str = "", new_turns: int = 0) -> ReportRow:
            return ReportRow(
                outcome=outcome,
                source=source,
                conversation_id=conversation_id,
                place=place,
                detail=detail,
                turns=len(found.turns),
                new_turns=new_turns,
            )

        if own_user not in (None, user_id):
            return row("skipped", f"it belongs to the user {user_id!r}, and this store is narrowed to {own_user!r}")
        state = replace(found, conversation_id=conversation_id, user_id=user_id)
        try:
            head = self.heads.get(conversation_id)
            if head is None:
                return row("created", new_turns=self._create(state, origin))
            return row(*self._update(state, origin, head))
        except errors.ConversationExistsError:
            return row("skipped", "the id is taken by another user's conversation")
        except _REFUSED as error:
            return row("skipped", str(error))

    def _create(self, state: ConversationState, origin: Origin) -> int:
        if not self.dry_run:
            self.heads[state.conversation_id] = self.store.create(_recorded(state, origin, digest_of(state)))
        return len(state.turns)

    def _update(self, found: ConversationState, origin: Origin, head: Head) -> tuple[Outcome, str, int]:
        record = head.metadata.get(RECORD)
        if head.kind != "imported" or not isinstance(record, Mapping):
            return "skipped", "a conversation of your own has this id; give id_prefix=", 0
        if head.metadata.get("prefix", "") != found.metadata.get("prefix", ""):
            return "skipped", f"the prefix {head.metadata.get('prefix')!r} has this id, too; give id_prefix=", 0
        if record.get("digest") == digest_of(found):
            return "unchanged", "", 0
        stored = self.store.get(found.conversation_id)
        if digest_of(stored) != record.get("digest"):
            return "changed here", "it was changed here since it was imported, and is left as it is", 0
        merged = _merged(found, stored)
        before = {turn.id: turn for turn in stored.stored_turns}
        new_turns = sum(before.get(turn.id) != turn for turn in merged.turns)
        digest = digest_of(merged)
        if digest == record.get("digest"):
            return "unchanged", "", 0
        if not self.dry_run:
            recorded = _recorded(merged, origin, digest, stored)
            self.heads[found.conversation_id] = self.store.set(recorded, expected_revision=stored.revision)
        return "extended", "", new_turns


def digest_of(state: ConversationState) -> str:
    """Return a hash of everything that an import writes for a conversation, except its metadata."""
    digest = hashlib.blake2b(repr(state.system_prompt).encode("utf-8", "replace"), digest_size=16)
    for turn in state.turns:
        digest.update(encode_turn(turn))
    for branch in state.branches:
        digest.update(f"{branch.id} {branch.start} {branch.kind}".encode("utf-8", "replace"))
        for turn in branch.turns:
            digest.update(encode_turn(turn))
    for turn_id, former in sorted(state.versions.items()):
        digest.update(turn_id.encode("utf-8", "replace"))
        for turn in former:
            digest.update(encode_turn(turn))
    for summary in state.summaries:
        digest.update(f"{summary.first_turn} {summary.last_turn} {summary.text}".encode("utf-8", "replace"))
    return digest.hexdigest()


def _recorded(
    state: ConversationState, origin: Origin, digest: str, stored: ConversationState | None = None
) -> ConversationState:
    """Return the state with the metadata for the next import; metadata and titles set in the store stay."""
    title = state.metadata.get("title")
    record: dict[str, object] = {"unit": origin.unit, "digest": digest, "title": title}
    if origin.stamp is not None:
        record["stamp"] = origin.stamp
    metadata = {**state.metadata, RECORD: record}
    if stored is not None:
        former = stored.metadata.get(RECORD)
        imported_title = former.get("title") if isinstance(former, Mapping) else None
        kept = {key: value for key, value in stored.metadata.items() if key != RECORD}
        if title and kept.get("title") == imported_title:
            kept.pop("title", None)
        metadata |= kept
        state = replace(state, created_at=min(state.created_at, stored.created_at), settings=stored.settings)
    return replace(state, metadata=metadata)


def _merged(found: ConversationState, stored: ConversationState) -> ConversationState:
    """Return the current turns of the source, and stored turns that it does not have any more, in order."""
    seen = {turn.id for turn in found.stored_turns}
    gone = [turn for turn in stored.turns if turn.id not in seen]
    branches = [branch for branch in stored.branches if not any(turn.id in seen for turn in branch.turns)]
    if not gone and not branches:
        return found
    turns: list[Turn] = list(found.turns)
    for turn in gone:
        place = next((at for at, each in enumerate(turns) if each.id > turn.id), len(turns))
        turns.insert(place, turn)
    taken = {branch.id for branch in found.branches}
    kept = [branch for branch in branches if branch.id not in taken]
    return replace(found, turns=tuple(turns), branches=(*found.branches, *kept))
