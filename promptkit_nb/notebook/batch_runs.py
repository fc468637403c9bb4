"""Deletes the conversations of batch runs that sent no request."""

from __future__ import annotations

import atexit
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from promptkit_nb.errors import StoreError
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import StateStore

LEFT_OVER_AFTER = timedelta(hours=24)


class BatchRuns:
    """Deletes conversations of batch runs in which all answers were replayed.

    Those of this run are deleted when its process ends. Those of a killed run are deleted by a later run, if nothing
    was written to them for a day.
    """

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        """Start before the first run."""
        self._clock = clock
        self._begun: list[tuple[StateStore, str]] = []

    def begin(self, conversation_id: str, store: StateStore, user_id: str) -> None:
        """Delete conversations of the user's killed runs, and remember this run's conversation for the end."""
        for head in store.find_notebooks(user_id=user_id, path=""):
            if self._is_left_over(head):
                discard_unpaid(store, head.conversation_id)
        if not self._begun:
            atexit.register(self.end)
        self._begun.append((store, conversation_id))

    def end(self) -> None:
        """Delete the conversations of this run in which all answers were replayed."""
        for store, conversation_id in self._begun:
            discard_unpaid(store, conversation_id)
        self._begun.clear()

    def _is_left_over(self, head: Head) -> bool:
        is_of_batch_run = head.notebook is not None and head.notebook.is_of_batch_run
        is_unpaid = not (head.token_count or head.unpriced_turns or head.total_cost)
        return is_of_batch_run and is_unpaid and head.updated_at < self._clock() - LEFT_OVER_AFTER


def discard_unpaid(store: StateStore, conversation_id: str) -> None:
    """Delete a conversation if all of its turns were replayed, and no other process writes to it meanwhile.

    If the store cannot be used, a later run deletes it.
    """
    with suppress(StoreError):
        state = store.get(conversation_id)
        if all(turn.replayed for turn in state.stored_turns) and not state.summaries:
            store.delete(conversation_id, expected_revision=state.revision)
