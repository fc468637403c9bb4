"""A conversation in its store: read again only if someone else wrote it, and written turn by turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.request import rendered_prompt
from promptkit_nb.chat.snapshot import Snapshot
from promptkit_nb.errors import ConversationChangedError, ConversationNotFoundError, InvalidArgumentError, StoreError
from promptkit_nb.json_values import json_copy
from promptkit_nb.stores.checks import not_found

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CellCall
    from promptkit_nb.state import ConversationState, Head, Settings
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn


class StoredConversation:
    """One conversation of a store, for several threads at a time."""

    def __init__(self, state: ConversationState, store: StateStore) -> None:
        """Begin with a state that was just read."""
        self.store = store
        self._snapshot = Snapshot.of(state)
        self._changing = threading.Lock()

    @property
    def last_read(self) -> ConversationState:
        """The state as it was read last; its id and user never change."""
        return self._snapshot.state

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._snapshot.state.conversation_id

    def head(self) -> Head:
        """Return counts, totals and metadata; where the id is somebody else's now, this conversation is gone."""
        head = self.store.head(self.id)
        if head.user_id != self.last_read.user_id:
            raise not_found(self.id)
        return head

    def read(self) -> Snapshot:
        """Return what the store holds now, as somebody reads it: what is read does not expire."""
        self.store.recent(self.id, 0)
        return self.fresh()

    def fresh(self) -> Snapshot:
        """Return what the store holds now."""
        head = self.head()
        with self._changing:
            if not self._snapshot.is_of(head):
                self._snapshot = Snapshot.of(self.store.get(self.id))
            return self._snapshot

    def check_is_still(self, state: ConversationState) -> None:
        """Raise ``ConversationNotFoundError`` where this one was deleted; another of its id may be somebody else's."""
        if self.head().created_at != state.created_at:
            raise ConversationNotFoundError(
                f"The conversation {self.id!r} was deleted, and another one was made under its id. Open it anew."
            )

    def append(self, turn: Turn, cell: CellCall | None = None) -> int:
        """Add a turn; where another kernel made this cell's turn meanwhile, this one takes its place.

        Return how many later turns are stale for it.
        """
        other = None if cell is None else self.fresh().turn_of(cell)
        if other is not None:
            return self.replace(other.id, turn)
        head = self.store.append(self.id, turn, create=False)
        with self._changing:
            self._snapshot = self._snapshot.after(turn, head)
        return 0

    def replace(self, turn_id: str, turn: Turn) -> int:
        """Let a turn take the place of another; return how many later turns are stale for it."""
        self.store.replace(self.id, turn_id, turn)
        return self.fresh().stale_after(turn.id)

    def branch_off(self, first: Turn, turn: Turn) -> int:
        """Let ``first`` and all behind it become a branch, and add a turn behind what is left.

        Where ``first`` left meanwhile, there is nothing to set aside. Where the turn cannot be added, the branch comes
        back.
        """
        branch_id, _ = self._set_aside(lambda now: (now.standing_at(first.id), len(now.state.turns)))
        try:
            return self.append(turn)
        except StoreError:
            if branch_id is not None:
                with suppress(StoreError):  # the first error is the one to tell
                    self.store.restore(self.id, branch_id)
            raise

    def archive(self, range_of: Callable[[ConversationState], tuple[int, int]], *, name: str = "branch") -> int:
        """Let a range of turns leave the conversation as a branch, named so; return how many they were."""
        return self._set_aside(lambda now: range_of(now.state), name)[1]

    def _set_aside(
        self, range_of: Callable[[Snapshot], tuple[int | None, int]], name: str = "branch"
    ) -> tuple[str | None, int]:
        """Return also the id of the branch, ``None`` where there was nothing to leave."""
        while True:
            snapshot = self.fresh()
            start, stop = range_of(snapshot)
            if start is None or start >= stop:
                return None, 0
            taken = {branch.id for branch in snapshot.state.branches}
            branch_id = next(free for n in range(1, len(taken) + 2) if (free := f"{name}-{n}") not in taken)
            try:
                self.store.archive(self.id, start, stop, as_branch=branch_id)
            except InvalidArgumentError:
                if self.fresh() is snapshot:
                    raise
                continue  # somebody else took the id or the turns meanwhile: look again
            return branch_id, stop - start

    def change_settings(self, change: Callable[[Settings], Settings]) -> None:
        """Store changed settings, and the system prompt that they give."""
        while True:
            state = self.store.get(self.head().conversation_id)
            settings = change(state.settings)
            system_prompt = state.system_prompt if settings.prompt is None else rendered_prompt(settings)
            changed = replace(state, settings=settings, system_prompt=system_prompt)
            try:
                self.store.set(changed, expected_revision=state.revision)
            except ConversationChangedError:
                continue  # a turn landed meanwhile: begin again with it
            return


Change = Callable[[Mapping[str, object]], Mapping[str, object]]


class VariableValues(MutableMapping[str, object]):
    """The values of a prompt's variables, as the store holds them; every change is stored at once.

    ``settings`` reads the conversation's settings, ``change_settings`` writes them.
    """

    def __init__(
        self, settings: Callable[[], Settings], change_settings: Callable[[Callable[[Settings], Settings]], None]
    ) -> None:
        """Look at the variables of a conversation."""
        self._settings = settings
        self._change_settings = change_settings

    def __getitem__(self, name: str) -> object:
        """Return the value of one variable."""
        return self._values()[name]

    def __setitem__(self, name: str, value: object) -> None:
        """Set one variable: stored at once, effective at the next send."""
        self.update({name: value})

    def update(self, *changes: Mapping[str, object], **more: object) -> None:  # type: ignore[override]  # mappings only
        """Set several variables at once."""
        changed = json_copy({key: value for each in (*changes, more) for key, value in each.items()}, "variables")
        self._change(lambda values: {**values, **changed})

    def __delitem__(self, name: str) -> None:
        """Let a variable fall back to its default."""
        if name not in self._values():
            raise KeyError(name)
        self._change(lambda values: {key: value for key, value in values.items() if key != name})

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._values())

    def __len__(self) -> int:
        """Return how many are set."""
        return len(self._values())

    def __repr__(self) -> str:
        """Show them as a dict."""
        return repr(dict(self._values()))

    def _values(self) -> Mapping[str, object]:
        return self._settings().variables

    def _change(self, change: Change) -> None:
        self._change_settings(lambda settings: replace(settings, variables=change(settings.variables)))
