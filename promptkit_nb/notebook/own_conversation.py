"""Finds a notebook's own conversation, from the kernel, the saved file, and the store.

A notebook finds its conversation by its kernel, by its path, or by the marks in its outputs; otherwise it starts a new
one. Cell ids or sources alone are not enough: notebooks made from the same template share them, and their conversations
must not mix. In doubt, a notebook starts a new conversation and pays again, rather than use another notebook's answers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import count
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol
from unicodedata import normalize

from promptkit_nb.ids import scoped_id
from promptkit_nb.notebook.saved_notebook import SavedNotebook, is_generated
from promptkit_nb.state import ConversationState, NotebookNote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from promptkit_nb.turns import Turn

_COLLABORATION = re.compile(r"(?<![^/\\])RTC:")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNotebook:
    """The notebook of a kernel, as it would be recorded now, and the running cell."""

    note: NotebookNote
    cell_id: str | None = None
    cell_source: str | None = None


class KnownNotebooks(Protocol):
    """The conversations of a user's notebooks; each state has a ``notebook``."""

    def of_kernel(self, kernel: str) -> Sequence[ConversationState]:
        """Return the conversations of this kernel."""
        ...

    def of_path(self, path: str) -> Sequence[ConversationState]:
        """Return the conversations of notebooks last seen at this path."""
        ...

    def named(self, conversation_ids: Iterable[str]) -> Sequence[ConversationState]:
        """Return the notebook conversations with these ids; others are left out."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The conversation that a notebook continues or, if it is a copy of another notebook, forks."""

    state: ConversationState
    is_copy: bool = False


def find_conversation(
    running: RunningNotebook,
    known: KnownNotebooks,
    saved: Callable[[], SavedNotebook | None],
    read: Callable[[str], SavedNotebook | None],
) -> Found | None:
    """Return the conversation of the running notebook by the first rule that finds one, ``None`` if it has none yet.

    ``saved`` returns the saved notebook, ``read`` that at another path.
    """
    note = running.note
    by_kernel = known.of_kernel(note.kernel) if note.kernel else ()
    if by_kernel:
        return Found(_newest(by_kernel))
    if not note.path:
        return None
    file = saved()
    by_path = [each for each in known.of_path(note.path) if _is_at_its_path(each, running, file)]
    if by_path:
        return Found(_newest(by_path))
    marked = [] if file is None else _marked(file, known)
    if not marked:
        return None
    found = max(marked, key=lambda state: (_share(file, state), state.updated_at))
    return Found(found, is_copy=not _has_moved(found, note, read))


def own_ids(user_id: str, path: str) -> Iterator[str]:
    """Yield ids for the conversation of the notebook at this path, which gets the first one that is not in use.

    >>> from itertools import islice
    >>> list(islice(own_ids("default", "/work/eda.ipynb"), 2))
    ['nb:eda:73db3aaf', 'nb:eda:4de5510c']
    """
    name = normalize("NFC", plain_path(path))
    yield first_id(user_id, name)
    for number in count(2):
        yield first_id(user_id, name, str(number))


def first_id(user_id: str, path: str, *number: str) -> str:
    """Return the id for the conversation of the notebook at this path, as in version 0.1 if there is no number."""
    digest = hashlib.sha256("\n".join((user_id, path, *number)).encode("utf-8", "surrogateescape")).hexdigest()
    return scoped_id("nb", PurePath(path).stem, digest[:8])


def plain_path(path: str) -> str:
    """Return a path without the prefix that real-time collaboration adds to a name.

    >>> plain_path("/work/RTC:eda.ipynb")
    '/work/eda.ipynb'
    """
    return _COLLABORATION.sub("", path)


def previous_name(previous: NotebookNote | None, note: NotebookNote) -> str:
    """Return the previous name of a notebook that was renamed or moved since it was recorded, else ``""``.

    >>> from promptkit_nb.state import NotebookNote
    >>> previous_name(NotebookNote("/work/Untitled.ipynb"), NotebookNote("/work/eda.ipynb"))
    ' (the notebook was Untitled.ipynb)'
    >>> previous_name(NotebookNote("/work/eda.ipynb"), NotebookNote("/work/june/eda.ipynb"))
    ' (the notebook was work/eda.ipynb)'
    """
    if previous is None or previous.path in ("", note.path):
        return ""
    was, now = PurePath(previous.path), PurePath(note.path)
    return f" (the notebook was {was.name if was.name != now.name else f'{was.parent.name}/{was.name}'})"


def made_by_cells(state: ConversationState) -> list[Turn]:
    """Return the current turns that were made by cells, not by a panel or by Python code."""
    return [turn for turn in state.turns if turn.cell_id is not None or turn.cell_source is not None]


def _newest(states: Iterable[ConversationState]) -> ConversationState:
    return max(states, key=lambda state: (bool(state.turns), state.updated_at, state.conversation_id))


def _is_at_its_path(state: ConversationState, running: RunningNotebook, file: SavedNotebook | None) -> bool:
    """Return whether the notebook at this path still belongs to the conversation: it has one of its cells.

    Another machine may have a different notebook at the same path, so marks are needed there.
    """
    if state.notebook is None or state.notebook.host != running.note.host:
        return False
    was_noted = bool(state.notebook.kernel)  # version 0.1 recorded no notebook, and left no marks
    if file is None or not (made_by_cells(state) if not was_noted else state.turns):
        return True
    if any(mark.conversation_id == state.conversation_id for mark in file.marks):
        return True
    ids = {each for each in (*file.ids, running.cell_id) if is_generated(each)}
    source = None if is_generated(running.cell_id) and file.keeps_ids else running.cell_source
    return any(
        turn.cell_id in ids
        or (turn.cell_source is not None and turn.cell_source == source)
        or file.places_of(turn.cell_source, turn.cell_id)
        for turn in made_by_cells(state)
    )


def _marked(file: SavedNotebook, known: KnownNotebooks) -> list[ConversationState]:
    """Return the conversations that are named in marks, if the file has most of their turns."""
    named = known.named(sorted({mark.conversation_id for mark in file.marks}))
    shown = [state for state in named if _is_shown(file, state)]
    forked = {state.metadata.get("forked_from") for state in shown}
    return [state for state in shown if state.conversation_id not in forked]


def _is_shown(file: SavedNotebook | None, state: ConversationState) -> bool:
    """Return whether the file has more than half of the turns made by cells."""
    if not made_by_cells(state):
        return file is not None and any(mark.conversation_id == state.conversation_id for mark in file.marks)
    return _share(file, state) > 1 / 2


def _share(file: SavedNotebook | None, state: ConversationState) -> float:
    """Return the share of the turns made by cells that the file has, by a mark or by a generated cell id."""
    turns = made_by_cells(state)
    if file is None or not turns:
        return 0.0
    marked = {mark.turn_id for mark in file.marks}
    generated = {each for each in file.ids if is_generated(each)}
    return sum(_is_in(turn, state, marked, generated) for turn in turns) / len(turns)


def _is_in(turn: Turn, state: ConversationState, marked: set[str | None], generated: set[str]) -> bool:
    previous = {each.id for each in state.versions.get(turn.id, ())}
    return turn.cell_id in generated or not marked.isdisjoint({turn.id, *previous})


def _has_moved(state: ConversationState, note: NotebookNote, read: Callable[[str], SavedNotebook | None]) -> bool:
    """Return whether this is the conversation's notebook at a new path, and not a copy of one that still exists."""
    previous = state.notebook
    if previous is None or normalize("NFC", previous.path) == normalize("NFC", note.path):
        return True
    return previous.host == note.host and not _is_shown(read(previous.path) if previous.path else None, state)
