"""Finds conversations by what was said in them, on a thread beside the panel's commands."""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.stores.listing import chats

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.conversation import Conversation

MAX_SEARCHED_TURNS = 10_000
"""Of a user with more turns, the panel searches titles only: every pause in typing is a search."""


@dataclass(frozen=True, slots=True)
class Search:
    """What was searched for, and the ids of conversations whose messages contain all of its words.

    ``said`` tells whether the messages were searched: not yet, all, or none, because there are too many.
    """

    text: str = ""
    found_in: frozenset[str] = frozenset()
    said: Literal["searching", "searched", "too many"] = "searching"


class SearchThread:
    """Searches messages; one search at a time, the next one for the newest text."""

    def __init__(self, on_found: Callable[[Search], None], on_error: Callable[[Exception], None]) -> None:
        """Call these on the thread, which runs only while there is something to search for."""
        self._on_found = on_found
        self._on_error = on_error
        self._changing = threading.Lock()
        self._next: tuple[Conversation, Search] | None = None
        self._is_running = False

    def start(self, conversation: Conversation, search: Search) -> None:
        """Search the conversations of the user of this one, after the search that is running."""
        with self._changing:
            self._next = conversation, search
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=copy_context().run, args=(self._run,), name="promptkit-search", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changing:
                wanted, self._next = self._next, None
                if wanted is None:
                    self._is_running = False
                    return
            try:
                self._on_found(searched(*wanted))
            except Exception as error:  # noqa: BLE001 - an error must not end the thread
                self._on_error(error)


def searched(conversation: Conversation, search: Search) -> Search:
    """Return the search with the conversations in which its words were said."""
    from promptkit_nb.views.messages import search as search_messages  # noqa: PLC0415 - pandas, half a second

    store, user_id = conversation.store, conversation.user_id
    if sum(head.turn_count for head in chats(store, user_id)) > MAX_SEARCHED_TURNS:
        return replace(search, said="too many")
    try:
        found = search_messages(store, search.text, user_id=user_id)["conversation_id"]
    except InvalidArgumentError:  # a quote without a word, yet
        found = ()
    return replace(search, found_in=frozenset(found), said="searched")
