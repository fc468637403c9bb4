"""Unreadable conversations that a call leaves out: each is reported, and the others are still returned."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from promptkit_nb.codec import SALVAGE
from promptkit_nb.errors import StoreCorruptedError, StoreError
from promptkit_nb.stores.layout import record_of
from promptkit_nb.text.plain_text import counted, preview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from promptkit_nb.stores.layout import Record

MOST_NAMED = 5
REASON_CHARACTERS = 200


class Damage:
    """The unreadable conversations that a call leaves out, by id, each with its error.

    >>> from promptkit_nb import StoreCorruptedError
    >>> damage = Damage()
    >>> damage.add("a", StoreCorruptedError("It cannot be read."))
    >>> damage.text("memory").partition(". Nothing")[0]
    "1 conversation in memory cannot be read and is left out: 'a' (It cannot be read.)"
    """

    def __init__(self) -> None:
        """Start empty."""
        self.errors: dict[str, StoreError] = {}

    def add(self, conversation_id: str, error: StoreError) -> None:
        """Add a conversation that is left out."""
        self.errors.setdefault(conversation_id, error)

    def include(self, other: Damage) -> None:
        """Add what another part of the call left out."""
        self.errors = other.errors | self.errors

    def readable(self, stored: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Record]]:
        """Yield ids and records, except damaged ones and those that a newer version wrote."""
        for conversation_id, value in stored:
            if not value:
                self.add(conversation_id, StoreCorruptedError("the server evicted it, or another program wrote it"))
                continue
            try:
                record = record_of(value, conversation_id)
            except StoreError as error:
                self.add(conversation_id, error)
                continue
            yield conversation_id, record

    def warn(self, where: str, *, stacklevel: int = 3) -> None:
        """Warn of conversations that were left out, if any; ``where`` is the store."""
        if self.errors:
            warnings.warn(self.text(where), stacklevel=stacklevel)

    def text(self, where: str) -> str:
        """Return the warning."""
        reasons = {each: str(error).partition(SALVAGE)[0] for each, error in sorted(self.errors.items())}
        named = [f"{each!r} ({preview(reason, REASON_CHARACTERS)})" for each, reason in reasons.items()]
        more = len(named) - MOST_NAMED
        listed = ", ".join(named[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        count = f"{counted(len(named), 'conversation')} in {where}"
        return f"{count} cannot be read and {'is' if len(named) == 1 else 'are'} left out: {listed}. {SALVAGE}"
