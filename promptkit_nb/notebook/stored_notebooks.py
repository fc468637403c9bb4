"""The conversations of a user's notebooks, as the store holds them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from unicodedata import normalize

from promptkit_nb.errors import ConversationNotFoundError
from promptkit_nb.ids import is_same_id
from promptkit_nb.notebook.own_conversation import first_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptkit_nb.state import ConversationState, Head, NotebookNote
    from promptkit_nb.stores.base import StateStore


class StoredNotebooks:
    """Looks up few conversations by the index of the store, however many it holds."""

    def __init__(self, store: StateStore, user_id: str, note: NotebookNote, name: str | None) -> None:
        """Look for the user's; ``name`` is the path of the running notebook as the front end gives it."""
        self._store = store
        self._user_id = user_id
        self._note = note
        self._name = name

    def of_kernel(self, kernel: str) -> list[ConversationState]:
        """Return those whose kernel this is."""
        return self._states(self._store.find_notebooks(user_id=self._user_id, kernel=kernel))

    def of_path(self, path: str) -> list[ConversationState]:
        """Return those whose notebook was last seen at this path, and what version 0.1 stored for it."""
        return [*self._states(self._store.find_notebooks(user_id=self._user_id, path=path)), *self._unnoted()]

    def named(self, conversation_ids: Iterable[str]) -> list[ConversationState]:
        """Return those with these ids; other conversations are left out."""
        heads = [head for each in conversation_ids if (head := self._head(each)) is not None]
        return self._states(head for head in heads if head.notebook is not None)

    def _unnoted(self) -> list[ConversationState]:
        """Return the conversation of version 0.1, which noted nothing: its id tells the path."""
        if self._name is None:
            return []
        ids = dict.fromkeys(first_id(self._user_id, each) for each in (self._name, normalize("NFC", self._name)))
        heads = [head for each in ids if (head := self._head(each)) is not None and head.notebook is None]
        note = replace(self._note, kernel="")
        return [replace(state, notebook=note) for state in self._states(heads)]

    def _head(self, conversation_id: str) -> Head | None:
        with suppress(ConversationNotFoundError):
            head = self._store.head(conversation_id)
            return head if is_same_id(self._user_id, head.user_id) else None
        return None

    def _states(self, heads: Iterable[Head]) -> list[ConversationState]:
        states = []
        for head in heads:
            with suppress(ConversationNotFoundError):  # deleted in the meantime
                states.append(self._store.get(head.conversation_id))
        return states
