"""The turns as a page takes them: the newest at once, the older ones when somebody scrolls up to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.panel.transcript import shown_turn

if TYPE_CHECKING:
    from promptkit_nb.asking.snapshot import Snapshot

PAGE_TURNS = 20


class Pages:
    """What of a conversation is on the page.

    ``epoch`` counts how often something else than its end changed: then older turns that were fetched before are no
    longer to be shown.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Begin with the newest turns."""
        self.epoch = 0
        self.snapshot = snapshot

    def turn_to(self, snapshot: Snapshot) -> None:
        """Go on with what the conversation holds now."""
        before = self.snapshot
        fixed = min(self._first(before), self._first(snapshot))
        is_other = before.state.conversation_id != snapshot.state.conversation_id
        if is_other or before.stale != snapshot.stale or before.state.turns[:fixed] != snapshot.state.turns[:fixed]:
            self.epoch += 1
        self.snapshot = snapshot

    def newest(self) -> dict[str, object]:
        """Return the last page, with the position of its first turn."""
        first = self._first(self.snapshot)
        return {"turns": self._shown(first, len(self.snapshot.state.turns)), "first": first, "epoch": self.epoch}

    def before(self, place: int) -> dict[str, object]:
        """Return the page that ends before a position."""
        stop = max(0, min(place, len(self.snapshot.state.turns)))
        return {"older": self._shown(max(0, stop - PAGE_TURNS), stop), "epoch": self.epoch}

    def _shown(self, start: int, stop: int) -> list[dict[str, object]]:
        turns, stale = self.snapshot.state.turns, self.snapshot.stale
        return [shown_turn(turns[place], place, is_stale=turns[place].id in stale) for place in range(start, stop)]

    @staticmethod
    def _first(snapshot: Snapshot) -> int:
        return max(0, len(snapshot.state.turns) - PAGE_TURNS)
