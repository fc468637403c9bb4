"""A stored conversation: read again only if it changed, and written turn by turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from promptkit_nb import errors
from promptkit_nb.chat.request import rendered_prompt, timeless_prompt_for
from promptkit_nb.context_hash import chain_of, context_hash_of, context_hashes_of
from promptkit_nb.json_values import json_copy
from promptkit_nb.plain import plain
from promptkit_nb.state import Branch, ConversationState, Head, Settings, Summary
from promptkit_nb.stores.base import StateStore
from promptkit_nb.stores.checks import checked_settings, not_found
from promptkit_nb.text.plain_text import counted
from promptkit_nb.turns import Turn

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CellCall, Target
    from promptkit_nb.stores.base import Charge

S = TypeVar("S", Head, ConversationState)

UNDONE = "undone"
"""The prefix of the ids of branches that ``undo`` makes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state as it was read; ``context_hashes[i]`` is the hash of the first ``i`` turns.

    There may be further ones, of turns that were archived since: to copy all others would take longer than an undo.
    """

    state: ConversationState
    context_hashes: tuple[str, ...] = field(compare=False)

    @classmethod
    def of(cls, state: ConversationState) -> Snapshot:
        """Return the snapshot of a state."""
        return cls(state, tuple(context_hashes_of(state.turns, state.context_hash)))

    def is_of(self, head: Head) -> bool:
        """Return whether the head is of this revision of this conversation, not of an earlier one with its id."""
        return (self.state.revision, self.state.created_at) == (head.revision, head.created_at)

    def after(self, turn: Turn, head: Head) -> Snapshot:
        """Return the snapshot with the turn that was appended with this head; unchanged if another process wrote."""
        if head.revision != self.state.revision + 1:
            return self
        turns = (*self.state.turns, turn)
        state = replace(self.state, turns=turns, updated_at=head.updated_at, revision=head.revision)
        hashes = self.context_hashes[: len(turns)]
        return Snapshot(state, (*hashes, chain_of([turn], hashes[-1])))

    def after_archiving(self, start: int, branch_id: str, head: Head) -> Snapshot:
        """Return the snapshot with the turns from ``start`` moved to a branch; unchanged if another process wrote."""
        state = self.state
        if head.revision != state.revision + 1:
            return self
        leaving = Branch(
            id=branch_id,
            turns=state.turns[start:],
            start=start,
            context_hash=state.context_hash,
            created_at=head.updated_at,
        )
        changed = replace(
            state,
            turns=state.turns[:start],
            branches=(*state.branches, leaving),
            updated_at=head.updated_at,
            revision=head.revision,
            context_hash=state.context_hash if start else None,
        )
        return Snapshot(changed, self.context_hashes) if start else Snapshot.of(changed)

    def with_settings(self, settings: Settings, system_prompt: str | None, head: Head) -> Snapshot:
        """Return the snapshot with these settings; unchanged if another process wrote."""
        if head.revision != self.state.revision + 1:
            return self
        changed = replace(
            self.state,
            settings=settings,
            system_prompt=system_prompt,
            updated_at=head.updated_at,
            revision=head.revision,
        )
        return replace(self, state=changed)

    @property
    def stale(self) -> frozenset[str]:
        """The ids of the turns whose context differs from the one they were answered in."""
        return stale_turns(self.state, self.context_hashes)

    def stale_after(self, turn_id: str) -> int:
        """Return how many turns after this one are stale; 0 if it is not current."""
        position = self.current_position(turn_id)
        later = () if position is None else self.state.turns[position + 1 :]
        return len(self.stale & {turn.id for turn in later})

    def current_position(self, turn_id: object) -> int | None:
        """Return the position of the current turn that has this id or had it as a previous version, else ``None``."""
        versions = self.state.versions.items()
        current = next((key for key, previous in versions if any(each.id == turn_id for each in previous)), turn_id)
        return next((at for at, each in enumerate(self.state.turns) if each.id == current), None)

    def position_of(self, turn: Turn | str | int) -> int:
        """Return the position of a current turn, given as a turn (or a previous version), by its id or its position."""
        turns = self.state.turns
        turn = plain(turn)
        if isinstance(turn, int) and not isinstance(turn, bool):
            if -len(turns) <= turn < len(turns):
                return turn % len(turns)
            raise errors.InvalidArgumentError(
                f"There is no turn {turn} in {self.state.conversation_id!r}, which has {counted(len(turns), 'turn')}."
            )
        wanted = turn.id if isinstance(turn, Turn) else turn
        position = self.current_position(wanted)
        if position is None:
            raise errors.InvalidArgumentError(
                f"{wanted!r:.80} is not a current turn of {self.state.conversation_id!r}: "
                "give one of .turns, its id or its position."
            )
        return position

    def turn_of(self, turn: Turn | str | int) -> Turn:
        """Return a current turn as ``position_of`` finds it, or the turn of a branch by its id or a version's."""
        for branch in self.state.branches if isinstance(turn, str) else ():
            for each in branch.turns:
                if turn in {each.id, *(previous.id for previous in self.state.versions.get(each.id, ()))}:
                    return each
        return self.state.turns[self.position_of(turn)]

    def edited_version_of(self, turn: Turn, text: str) -> Turn | None:
        """Return the version of a turn that the user gave this text as its answer, ``None`` if there is none."""
        request = turn.user_text, turn.replay_key
        return next(
            (
                each
                for each in self.state.versions.get(turn.id, ())
                if each.is_edited and each.text == text and (each.user_text, each.replay_key) == request
            ),
            None,
        )

    def target_position(self, target: Target) -> int:
        """Return the position at which an answer with this target goes."""
        if target.in_place_of is not None:
            return self.position_of(target.in_place_of)
        return len(self.state.turns) if target.branch_from is None else self.position_of(target.branch_from)

    def turn_made_since(self, cell: CellCall | None, since: ConversationState) -> Turn | None:
        """Return the turn that another kernel stored for this call after a state was read, ``None`` if there is none.

        A cell id that is only a position may belong to another cell in that kernel.
        """
        if cell is None or cell.cell_id is None:
            return None
        known = {turn.id for turn in since.stored_turns}
        for turn in reversed(self.state.turns):
            is_new = known.isdisjoint([turn.id, *(previous.id for previous in self.state.versions.get(turn.id, ()))])
            if is_new and cell.made(turn) and (cell.has_lasting_id or cell.cell_source == turn.cell_source):
                return turn
        return None

    def archived_turn_of(self, cell: CellCall) -> Turn | None:
        """Return the newest turn of this call on a branch, found by the cell's id or else by its source."""
        archived = [turn for branch in self.state.branches for turn in branch.turns]
        made = [turn for turn in archived if cell.made(turn)] or [turn for turn in archived if cell.has_source_of(turn)]
        return max(made, key=lambda turn: (turn.created_at, turn.id), default=None)

    def hashes_before(self, archived: Turn) -> Iterator[str]:
        """Yield possible hashes of the turns before a turn of a branch: of current turns, then of other branches."""
        for branch in self.state.branches:
            position = next((at for at, turn in enumerate(branch.turns) if turn.id == archived.id), None)
            if position is not None:
                yield from (chain_of(branch.turns[:position], start) for start in self._hashes_before_branch(branch))
                return

    def _hashes_before_branch(self, branch: Branch) -> Iterator[str]:
        known = self._hash_before_branch(branch)
        if known is not None:
            yield known
        for other in self.state.branches:
            count = branch.start - other.start
            if 0 < count <= len(other.turns):  # its turns were before the branch, and left the conversation later
                yield from (chain_of(other.turns[:count], start) for start in self._hashes_before_branch(other))

    def _hash_before_branch(self, branch: Branch) -> str | None:
        """Return the hash of the turns before a branch; turns removed from the front since are on other branches."""
        if branch.start > 0:
            return self.context_hashes[branch.start] if branch.start <= len(self.state.turns) else None
        if branch.start == 0 or branch.kind == "head":
            return branch.context_hash or ""
        for head in self._heads:
            position = branch.start - head.start + len(head.turns)
            if 0 <= position < len(head.turns):
                return chain_of(head.turns[:position], head.context_hash)
        return None

    @property
    def undone(self) -> tuple[Turn, ...]:
        """The turns on branches that ``undo`` made."""
        return tuple(turn for each in self.state.branches if each.id.startswith(UNDONE) for turn in each.turns)

    @property
    def turns_ever_current(self) -> tuple[Turn, ...]:
        """The turns removed from the front, then the current ones."""
        return (*(turn for branch in self._heads for turn in branch.turns), *self.state.turns)

    @property
    def _heads(self) -> list[Branch]:
        heads = (branch for branch in self.state.branches if branch.kind == "head")
        return sorted(heads, key=lambda branch: branch.start)


class StoredConversation:
    """One conversation of a store; several threads may use it at a time."""

    def __init__(self, state: ConversationState, store: StateStore) -> None:
        """Start with a state that was just read."""
        self.store = store
        self._snapshot = Snapshot.of(state)
        self._changing = threading.Lock()

    @property
    def last_read(self) -> ConversationState:
        """The state as it was last read; its id and user never change."""
        return self._snapshot.state

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._snapshot.state.conversation_id

    @property
    def own_store(self) -> StateStore:
        """The store, narrowed to the conversation's user, as another user may have its id now; it checks that itself.

        A store of your own without ``for_user`` is not narrowed.
        """
        if not callable(getattr(self.store, "for_user", None)):
            self.head()
            return self.store
        return self.store.for_user(self.last_read.user_id)

    def head(self) -> Head:
        """Return counts, totals and metadata; raise ``ConversationNotFoundError`` if another user has the id now."""
        return self._checked(self.store.head(self.id))

    def get(self) -> ConversationState:
        """Return the whole state; raises the same errors as ``head``."""
        return self._checked(self.store.get(self.id))

    def read(self) -> Snapshot:
        """Return the current snapshot, and renew the TTL."""
        self.store.recent(self.id, 0)
        return self.refresh()

    def refresh(self) -> Snapshot:
        """Return the current snapshot; only a changed conversation is read again."""
        head = self._checked(self.store.head(self.id))
        with self._changing:
            if not self._snapshot.is_of(head):
                self._snapshot = Snapshot.of(self.get())
            return self._snapshot

    def append(self, turn: Turn, *, since: ConversationState, cell: CellCall | None, charge: Charge | None) -> int:
        """Add a turn, or replace the one that another kernel made for this cell since; return how many turns are stale.

        ``since`` is the state in which the question was asked. Raises ``ConversationNotFoundError`` if the conversation
        was deleted after that.
        """
        if since.settings.kind == "rows":  # independent of other turns, which are not read
            self.store.append(self.id, turn, create=False, charge=charge)
            return 0
        snapshot = self.refresh()
        self._check_not_recreated(since, snapshot)
        other = snapshot.turn_made_since(cell, since)
        if other is not None:
            return self._replace(other.id, turn, charge)
        head = self.store.append(self.id, turn, create=False, charge=charge)
        with self._changing:
            self._snapshot = self._snapshot.after(turn, head)
        return 0

    def replace(self, turn_id: str, turn: Turn, *, since: ConversationState, charge: Charge | None) -> int:
        """Put a turn in place of another; return how many later turns are stale; raise what ``append`` raises."""
        self._check_not_recreated(since, self.refresh())
        return self._replace(turn_id, turn, charge)

    def add_version(self, turn_id: str, turn: Turn, *, since: ConversationState, charge: Charge | None) -> int:
        """Store a turn as a version of another, which stays current; no turn becomes stale, so return 0."""
        self._check_not_recreated(since, self.refresh())
        add = getattr(self.store, "add_version", None) or partial(StateStore.add_version, self.store)
        add(self.id, turn_id, turn, charge=charge)
        return 0

    def branch_off(self, first: Turn, turn: Turn, *, since: ConversationState, charge: Charge | None) -> int:
        """Move ``first`` and all turns after it to a branch, then append a turn; raise what ``append`` raises.

        If ``first`` is no longer current, nothing is moved. If the turn cannot be appended, the branch is restored.
        """
        self._check_not_recreated(since, self.refresh())
        branch_id, _ = self._set_aside(lambda now: (now.current_position(first.id), len(now.state.turns)))
        try:
            return self.append(turn, since=since, cell=None, charge=charge)
        except (errors.StoreError, errors.InvalidArgumentError):
            if branch_id is not None:
                with suppress(errors.StoreError):  # the first error is the one to report
                    self.store.restore(self.id, branch_id)
            raise

    def archive(self, range_of: Callable[[ConversationState], tuple[int, int]], *, name: str = "branch") -> int:
        """Move a range of turns to a branch with this name; return how many."""
        return self._set_aside(lambda now: range_of(now.state), name)[1]

    def add_summary(self, summary: Summary, charge: Charge | None) -> None:
        """Store a summary, and charge what it cost."""
        self.own_store.add_summary(self.id, summary, charge=charge)

    def fork(self, new_id: str) -> None:
        """Copy the conversation under a new id, with its own id in the metadata of the copy."""
        store = self.own_store
        fork = getattr(store, "fork_with_metadata", None) or partial(StateStore.fork_with_metadata, store)
        fork(self.id, new_id, forked_from=self.id)

    def change_settings(self, change: Callable[[Settings], Settings]) -> None:
        """Store changed settings, and the system prompt rendered with them."""
        update = getattr(self.store, "update_settings", None) or partial(StateStore.update_settings, self.store)
        while True:
            snapshot = self.refresh()
            state = snapshot.state
            settings = checked_settings(change(state.settings))
            system_prompt = state.system_prompt if settings.prompt is None else rendered_prompt(settings)
            try:
                head = update(self.id, settings, system_prompt=system_prompt, expected_revision=state.revision)
            except errors.ConversationChangedError:
                continue  # a turn was stored meanwhile: try again with it
            with self._changing:
                self._snapshot = snapshot.with_settings(settings, system_prompt, head)
            return

    def _checked(self, found: S) -> S:
        if found.user_id != self.last_read.user_id:
            raise not_found(self.id)
        return found

    def _check_not_recreated(self, since: ConversationState, now: Snapshot) -> None:
        """Raise ``ConversationNotFoundError`` if the conversation was deleted, and a new one has its id."""
        if now.state.created_at != since.created_at:
            raise errors.ConversationNotFoundError(
                f"The conversation {self.id!r} was deleted, and a new one has its id. Open it again."
            )

    def _replace(self, turn_id: str, turn: Turn, charge: Charge | None) -> int:
        self.store.replace(self.id, turn_id, turn, charge=charge)
        return self.refresh().stale_after(turn.id)

    def _set_aside(
        self, range_of: Callable[[Snapshot], tuple[int | None, int]], name: str = "branch"
    ) -> tuple[str | None, int]:
        """Move a range of turns to a branch; return the branch's id, ``None`` if the range is empty, and the count."""
        while True:
            snapshot = self.refresh()
            start, stop = range_of(snapshot)
            if start is None or start >= stop:
                return None, 0
            taken = {branch.id for branch in snapshot.state.branches}
            branch_id = next(free for n in range(1, len(taken) + 2) if (free := f"{name}-{n}") not in taken)
            try:
                head = self.store.archive(self.id, start, stop, as_branch=branch_id)
            except errors.InvalidArgumentError:
                if self.refresh() is snapshot:
                    raise
                continue  # another process took the id or the turns: look again
            if stop == len(snapshot.state.turns):
                with self._changing:
                    self._snapshot = snapshot.after_archiving(start, branch_id, head)
            return branch_id, stop - start


class VariableValues(MutableMapping[str, object]):
    """The values of a prompt's variables, as the store holds them; each change is stored at once."""

    def __init__(self, stored: StoredConversation) -> None:
        """Show the variables of a conversation."""
        self._stored = stored

    def __getitem__(self, name: str) -> object:
        """Return the value of one variable."""
        return self._values()[name]

    def __setitem__(self, name: str, value: object) -> None:
        """Set one variable: stored at once, effective at the next send."""
        self.update({name: value})

    def update(self, *changes: Mapping[str, object], **more: object) -> None:  # type: ignore[override]  # mappings only
        """Set several variables in one write."""
        changed = json_copy({key: value for each in (*changes, more) for key, value in each.items()}, "variables")
        self._change(lambda values: {**values, **changed})

    def __delitem__(self, name: str) -> None:
        """Reset a variable to its default."""
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
        return self._stored.refresh().state.settings.variables

    def _change(self, change: Callable[[Mapping[str, object]], Mapping[str, object]]) -> None:
        self._stored.change_settings(lambda settings: replace(settings, variables=change(settings.variables)))


def stale_turns(state: ConversationState, context_hashes: Sequence[str] | None = None) -> frozenset[str]:
    """Return the ids of the current turns whose context differs from the one they were answered in.

    Computed, never stored, so that turns are no longer stale once their context is restored. A turn that no model was
    asked for, such as one written by hand, has no context and is never stale; nor are the answers for rows of a
    DataFrame, which have no earlier turns in their context. ``context_hashes`` are those of
    ``context_hashes_of``, if they are known already.

    >>> from promptkit_nb.state import ConversationState
    >>> stale_turns(ConversationState("chat"))
    frozenset()
    """
    if state.settings.kind == "rows":
        return frozenset()
    prompts: dict[str | None, str | errors.PackError | None] = {}
    stale: list[str] = []
    hashes = context_hashes or context_hashes_of(state.turns, state.context_hash)
    for turn, before in zip(state.turns, hashes, strict=False):
        if turn.context_hash is None:
            continue
        model = turn.requested_model
        if model not in prompts:
            prompts[model] = _system_prompt(state, model)
        system_prompt = prompts[model]
        if isinstance(system_prompt, errors.PackError) or turn.context_hash != context_hash_of(system_prompt, before):
            stale.append(turn.id)
    return frozenset(stale)


def _system_prompt(state: ConversationState, model: str | None) -> str | errors.PackError | None:
    try:
        return timeless_prompt_for(state, model)
    except errors.PackError as error:  # a variable no longer has a value, so no turn has this context
        return error
