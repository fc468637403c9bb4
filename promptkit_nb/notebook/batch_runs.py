"""Deletes the conversations of batch runs that sent no request."""

from __future__ import annotations

import atexit
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from promptkit_nb.errors import StoreError
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from promptkit_nb.stores.base import StateStore

LEFT_OVER_AFTER = timedelta(hours=24)

RUNNING = "batch run"
"""The kernel in the note of a batch run that has not ended; ``begin`` looks up only such runs."""


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
        for head in store.find_notebooks(user_id=user_id, kernel=RUNNING):
            if head.updated_at < self._clock() - LEFT_OVER_AFTER:
                settle(store, head.conversation_id)
        if not self._begun:
            atexit.register(self.end)
        self._begun.append((store, conversation_id))

    def end(self) -> None:
        """Delete the conversations of this run in which all answers were replayed."""
        for store, conversation_id in self._begun:
            settle(store, conversation_id)
        self._begun.clear()


def settle(store: StateStore, conversation_id: str) -> None:
    """Delete the conversation of a run that has ended if all of its turns were replayed, else keep it for good.

    If another process writes to it meanwhile, or the store cannot be used, a later run does so.
    """
    with suppress(StoreError):
        state = store.get(conversation_id)
        if all(turn.replayed for turn in state.stored_turns) and not any(each.counts for each in state.summaries):
            store.delete(conversation_id, expected_revision=state.revision)
        elif state.notebook is not None and state.notebook.kernel == RUNNING:
            store.set_notebook(conversation_id, replace(state.notebook, kernel=""))
