"""What a handle read before, decoded, so that what is read again and again is decoded once.

Nothing is taken from here unless its row still holds the same bytes: what somebody else wrote, deleted or damaged since
is seen as it would be without. The rows are read for that each time; only where the backend can tell that nobody has
written since (``Backend.version``), the newest turns are not even read.
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
"""Of how much JSON the turns are remembered; decoded, they take about four times as much."""


class CachedConversation(NamedTuple):
    """A conversation's record with the frame that belongs to it: each change of a frame changes the record, too."""

    stored: bytes
    record: Record
    frame: Frame
    metadata: bytes
    look: int | None

    @classmethod
    def of(cls, stored: bytes, record: Record, frame: Frame, look: int | None) -> CachedConversation:
        """Keep the metadata as JSON, so that each reader gets values of its own."""
        return cls(stored, record, frame, encode_json(frame.metadata), look)


class ReadCache:
    """Decoded conversations and turns of one handle.

    It has no lock, which a forked child could never get again: threads that write at once cost each other a
    decoding, and nothing else.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._version: object = None
        self._look = 0
        self._opened: dict[str, CachedConversation] = {}
        self._turns: dict[int, dict[int, tuple[bytes, Turn, int | None]]] = {}
        self._bytes = 0

    def look(self, version: object) -> int | None:
        """Return a number for what the rows hold now: what was kept under it is as the rows are.

        It is the same while the rows have the same version; ``None``, under which nothing counts, where that is none.
        """
        if version is None:
            return None
        if version != self._version:
            self._version = version
            self._look += 1
        return self._look

    def opened(self, conversation_id: str) -> CachedConversation | None:
        """Return what was kept of a conversation, which counts where its look, or its record's bytes, are the same."""
        return self._opened.get(conversation_id)

    def take(self, conversation_id: str) -> CachedConversation | None:
        """Return what was kept of a conversation, and let go of it: it is about to change."""
        return self._opened.pop(conversation_id, None)

    def keep_opened(self, conversation_id: str, opened: CachedConversation) -> None:
        """Remember a conversation as it stands in the store: only after the transaction that read or wrote it."""
        if len(self._opened) >= MOST_CONVERSATIONS:
            self._opened.clear()
        self._opened[conversation_id] = opened

    def keep_turn(self, cid: int, place: int, line: bytes, turn: Turn, look: int | None = None) -> None:
        """Remember what a turn's row holds."""
        self._bytes += len(line)
        if self._bytes > MOST_BYTES:
            self._turns.clear()
            self._bytes = len(line)
        self._turns.setdefault(cid, {})[place] = line, turn, look

    def turns_seen(self, cid: int, places: Iterable[int], look: int | None) -> dict[int, Turn] | None:
        """Return the turns at these places, if all of them were kept under this look."""
        if look is None:
            return None
        remembered = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        for place in places:
            found = remembered.get(place)
            if found is None or found[2] != look:
                return None
            turns[place] = found[1]
        return turns

    def turns_of(
        self, cid: int, lines: Mapping[int, bytes], conversation_id: str, look: int | None = None
    ) -> dict[int, Turn]:
        """Return the turns of these rows, by their places; ``StoreCorruptedError`` where one holds none.

        Of a history that is too long to be remembered whole, none of it is.
        """
        remembered = self._turns.get(cid, {})
        turns: dict[int, Turn] = {}
        fresh: list[int] = []
        for place, line in lines.items():
            found = remembered.get(place)
            if found is not None and found[0] == line:
                turns[place] = found[1]
                if found[2] != look:
                    remembered[place] = found[0], found[1], look
                continue
            turns[place] = decode_turn(line, conversation_id)
            fresh.append(place)
        if fresh and sum(map(len, lines.values())) <= MOST_BYTES:
            for place in fresh:
                self.keep_turn(cid, place, lines[place], turns[place], look)
        return turns

    def forget(self, conversation_id: str, cid: int) -> None:
        """Let go of a conversation that is deleted."""
        self._opened.pop(conversation_id, None)
        self._bytes -= sum(len(line) for line, _, _ in [*self._turns.pop(cid, {}).values()])
