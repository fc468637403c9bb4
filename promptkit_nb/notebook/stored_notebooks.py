"""Looks up the stored conversations of a user's notebooks."""

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
    """Looks up conversations through the store's index, without listing all of them."""

    def __init__(self, store: StateStore, user_id: str, note: NotebookNote, name: str | None) -> None:
        """Look up this user's conversations; ``name`` is the running notebook's path as given by the front end."""
        self._store = store
        self._user_id = user_id
        self._note = note
        self._name = name

    def of_kernel(self, kernel: str) -> list[ConversationState]:
        """Return the conversations of this kernel."""
        return self._states(self._store.find_notebooks(user_id=self._user_id, kernel=kernel))

    def of_path(self, path: str) -> list[ConversationState]:
        """Return the conversations of notebooks last seen at this path, including that of version 0.1."""
        return [*self._states(self._store.find_notebooks(user_id=self._user_id, path=path)), *self._unnoted()]

    def named(self, conversation_ids: Iterable[str]) -> list[ConversationState]:
        """Return the notebook conversations with these ids; others are left out."""
        heads = [head for each in conversation_ids if (head := self._head(each)) is not None]
        return self._states(head for head in heads if head.notebook is not None)

    def _unnoted(self) -> list[ConversationState]:
        """Return the conversation of version 0.1, which recorded no notebook, by the id made from the path."""
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
