"""Writes imported conversations: creates new ones and extends grown ones, without losing changes in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msgspec import structs

from promptkit_nb import errors
from promptkit_nb.codec import encode_turn
from promptkit_nb.imports.report import Outcome, ReportRow
from promptkit_nb.state import ConversationState, Head
from promptkit_nb.stores.base import StateStore
from promptkit_nb.stores.row_store import RowStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb.turns import Turn

RECORD = "imported_from"
"""The key in the metadata for the next import: unit, stamp, digest of what was written, and title."""

MOST_PENDING = 200
MOST_PENDING_BYTES = 2**20
"""The size of a batch: one transaction writes at most this many new conversations, or a little more JSON than this."""

_REFUSED = (
    errors.InvalidArgumentError,
    errors.InvalidConversationIdError,
    errors.ConversationChangedError,
    errors.ConversationExistsError,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a conversation: its unit, and the unit's stamp once all of the unit is written."""

    unit: str
    place: str
    stamp: str | None = None


@dataclass(slots=True)
class Writer:
    """Writes the conversations of one import into a store; with ``dry_run``, only reports what it would do.

    ``rows`` are the rows of the report, ``heads`` the heads in the store with ids of this import. New conversations are
    written in batches; ``flush()`` writes the last one.
    """

    store: StateStore
    user_id: str
    id_prefix: str
    dry_run: bool
    rows: list[ReportRow] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)
    _pending: dict[str, tuple[int, ConversationState]] = field(default_factory=dict)
    _pending_bytes: int = 0

    def write(self, found: ConversationState, origin: Origin) -> None:
        """Create or extend a conversation, and add its row to the report."""
        if f"{self.id_prefix}{found.conversation_id}" in self._pending:
            self.flush()
        self.rows.append(self._written(found, origin))
        if len(self._pending) >= MOST_PENDING or self._pending_bytes >= MOST_PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the pending new conversations; if one is refused, its row says why."""
        pending = dict(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        created = _create_each(self.store, [state for _, state in pending.values()])
        for (conversation_id, (index, _)), result in zip(pending.items(), created, strict=True):
            if isinstance(result, Head):
                self.heads[conversation_id] = result
            else:
                detail = _reason(result)
                self.rows[index] = structs.replace(self.rows[index], outcome="skipped", detail=detail, new_turns=0)

    def _written(self, found: ConversationState, origin: Origin) -> ReportRow:
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
            return row("skipped", f"it belongs to the user {user_id!r}, but this store is narrowed to {own_user!r}")
        state = replace(found, conversation_id=conversation_id, user_id=user_id)
        try:
            head = self.heads.get(conversation_id)
            if head is None:
                self._create(state, origin)
                return row("created", new_turns=len(state.turns))
            return row(*self._update(state, origin, head))
        except _REFUSED as error:
            return row("skipped", _reason(error))

    def _create(self, state: ConversationState, origin: Origin) -> None:
        if not self.dry_run:
            digest, size = _digest_and_size_of(state)
            self._pending[state.conversation_id] = len(self.rows), _recorded(state, origin, digest)
            self._pending_bytes += size

    def _update(self, found: ConversationState, origin: Origin, head: Head) -> tuple[Outcome, str, int]:
        record = head.metadata.get(RECORD)
        if head.kind != "imported" or not isinstance(record, Mapping):
            return "skipped", "another conversation of yours has this id; give id_prefix=", 0
        if head.metadata.get("prefix", "") != found.metadata.get("prefix", ""):
            return (
                "skipped",
                f"this id comes from the prefix {head.metadata.get('prefix')!r}; give id_prefix=",
                0,
            )
        if record.get("digest") == digest_of(found):
            return self._retitle(found, origin, head, record)
        stored = self.store.get(found.conversation_id)
        if digest_of(stored) != record.get("digest"):
            return "changed here", "it was changed here after it was imported, so it was left alone", 0
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

    def _retitle(
        self, found: ConversationState, origin: Origin, head: Head, record: Mapping[str, object]
    ) -> tuple[Outcome, str, int]:
        """Take a title that the source got since, unless another was set in the store."""
        title, previous = found.metadata.get("title"), record.get("title")
        if title in (None, previous) or head.metadata.get("title") != previous:
            self._stamp(found.conversation_id, _record(origin, record.get("digest"), previous), record)
            return "unchanged", "", 0
        if not self.dry_run:
            new = {RECORD: _record(origin, record.get("digest"), title), "title": title}
            self.heads[found.conversation_id] = self.store.update_metadata(found.conversation_id, **new)
        return "extended", "it has a new title", 0

    def _stamp(self, conversation_id: str, record: Mapping[str, object], previous: Mapping[str, object]) -> None:
        """Remember that all of a unit is stored, whose file changed without anything new; its times stay the same."""
        if self.dry_run or record.get("stamp") in (None, previous.get("stamp")):
            return
        stored = self.store.get(conversation_id)
        state = replace(stored, metadata={**stored.metadata, RECORD: record})
        self.heads[conversation_id] = self.store.set(state, expected_revision=stored.revision)


def _create_each(store: StateStore, states: Sequence[ConversationState]) -> Sequence[Head | errors.PromptKitError]:
    """Store new conversations, in one transaction if the store can; return the head of each, or why it was refused."""
    if isinstance(store, RowStore):
        return store.create_each(states) if states else []
    found: list[Head | errors.PromptKitError] = []
    for state in states:
        try:
            found.append(store.create(state))
        except _REFUSED as error:
            found.append(error)
    return found


def _reason(error: errors.PromptKitError) -> str:
    if isinstance(error, errors.ConversationExistsError):
        return "the id is taken by another user's conversation"
    return str(error)


def digest_of(state: ConversationState) -> str:
    """Return a hash of everything that an import writes for a conversation, except its metadata."""
    return _digest_and_size_of(state)[0]


def _digest_and_size_of(state: ConversationState) -> tuple[str, int]:
    digest, size = hashlib.blake2b(digest_size=16), 0
    for part in _parts_of(state):
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def _parts_of(state: ConversationState) -> Iterator[bytes]:
    yield repr(state.system_prompt).encode("utf-8", "replace")
    yield from map(encode_turn, state.turns)
    for branch in state.branches:
        yield f"{branch.id} {branch.start} {branch.kind}".encode("utf-8", "replace")
        yield from map(encode_turn, branch.turns)
    for turn_id, previous in sorted(state.versions.items()):
        yield turn_id.encode("utf-8", "replace")
        yield from map(encode_turn, previous)
    for summary in state.summaries:
        yield f"{summary.first_turn} {summary.last_turn} {summary.text}".encode("utf-8", "replace")


def _record(origin: Origin, digest: object, title: object) -> dict[str, object]:
    record = {"unit": origin.unit, "digest": digest, "title": title}
    return record if origin.stamp is None else {**record, "stamp": origin.stamp}


def _recorded(
    state: ConversationState, origin: Origin, digest: str, stored: ConversationState | None = None
) -> ConversationState:
    """Return the state with the metadata for the next import; metadata and titles set in the store stay."""
    title = state.metadata.get("title")
    metadata = {**state.metadata, RECORD: _record(origin, digest, title)}
    if stored is not None:
        previous = stored.metadata.get(RECORD)
        imported_title = previous.get("title") if isinstance(previous, Mapping) else None
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
