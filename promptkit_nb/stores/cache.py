"""What a handle has read before, decoded, so that nothing is decoded twice.

A cached value is used only if its row still holds the same bytes, so changes, deletions and damage by others are always
noticed. To check that, the rows are read each time; only if the backend's change counter has not moved, the newest
turns are not read at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.codec import decode_turn, encode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promptkit_nb.stores.layout import Frame, Record
    from promptkit_nb.turns import Turn

MOST_CONVERSATIONS = 1000
MOST_BYTES = 4 * 2**20
"""How much JSON of turns is cached; decoded, it takes about four times as much memory."""


class CachedConversation(NamedTuple):
    """A conversation's record, and its frame: whenever a frame changes, its record changes, too.

    Metadata is kept as JSON, so that each reader gets values of its own. ``counter`` is the backend's change counter
    when both were read, ``None`` if unknown.
    """

    stored: bytes
    record: Record
    frame: Frame
    metadata: bytes
    counter: object

    @classmethod
    def of(cls, stored: bytes, record: Record, frame: Frame, counter: object = None) -> CachedConversation:
        """Return the cached form of a record and its frame."""
        return cls(stored, record, frame, encode_json(frame.metadata), counter)


class ReadCache:
    """Decoded conversations and turns of one handle.

    It has no lock, because a forked child could never release one that was held; threads that write at the same time
    just decode something twice.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._conversations: dict[str, CachedConversation] = {}
        self._turns: dict[int, dict[int, tuple[bytes, Turn, object]]] = {}
        self._bytes = 0

    def conversation(self, conversation_id: str) -> CachedConversation | None:
        """Return a cached conversation; it is valid if the change counter or its record's bytes are the same."""
        return self._conversations.get(conversation_id)

    def take(self, conversation_id: str) -> CachedConversation | None:
        """Return a cached conversation and forget it, because it is about to change."""
        return self._conversations.pop(conversation_id, None)

    def keep(self, conversation_id: str, found: CachedConversation) -> None:
        """Cache a conversation as it is stored: call it only after the transaction that read or wrote it."""
        if len(self._conversations) >= MOST_CONVERSATIONS:
            self._conversations.clear()
        self._conversations[conversation_id] = found

    def keep_turn(self, cid: int, place: int, line: bytes, turn: Turn, counter: object = None) -> None:
        """Cache a turn with the bytes of its row."""
        self._bytes += len(line)
        if self._bytes > MOST_BYTES:
            self._turns.clear()
            self._bytes = len(line)
        self._turns.setdefault(cid, {})[place] = line, turn, counter

    def unchanged_turns(self, cid: int, places: Iterable[int], counter: object) -> dict[int, Turn] | None:
        """Return the turns at these places if all of them are cached under this change counter."""
        if counter is None:
            return None
        cached = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        for place in places:
            found = cached.get(place)
            if found is None or found[2] != counter:
                return None
            turns[place] = found[1]
        return turns

    def turns_of(
        self, cid: int, lines: Mapping[int, bytes], conversation_id: str, counter: object = None
    ) -> dict[int, Turn]:
        """Return the turns of these rows by place; ``StoreCorruptedError`` if one cannot be read.

        If they are too many to be cached, none of them is.
        """
        cached = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        fresh: list[int] = []
        for place, line in lines.items():
            found = cached.get(place)
            if found is not None and found[0] == line:
                turns[place] = found[1]
                if found[2] != counter:
                    cached[place] = found[0], found[1], counter
                continue
            turns[place] = decode_turn(line, conversation_id)
            fresh.append(place)
        if fresh and sum(map(len, lines.values())) <= MOST_BYTES:
            for place in fresh:
                self.keep_turn(cid, place, lines[place], turns[place], counter)
        return turns

    def forget(self, conversation_id: str, cid: int) -> None:
        """Forget a conversation that is deleted."""
        self._conversations.pop(conversation_id, None)
        self._bytes -= sum(len(line) for line, _, _ in [*self._turns.pop(cid, {}).values()])
