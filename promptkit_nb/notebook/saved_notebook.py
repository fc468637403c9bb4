"""The saved file of a notebook: its cells, with ids, sources, and the marks in their outputs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.chat.options import is_position

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MARK = "promptkit_nb"
"""The key of a mark in the metadata of an output."""

TEXT_SUFFIXES = (".py", ".md", ".Rmd", ".qmd")
"""Files that jupytext or Quarto open as notebooks."""

_GENERATED = re.compile(r"(?!\d{8}$)[0-9a-f]{8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMMENTED_MAGIC = re.compile(r"#\s*(?=%)")


class Mark(NamedTuple):
    """The mark of an output, which names the conversation and turn that it shows."""

    conversation_id: str
    turn_id: str | None = None

    @property
    def metadata(self) -> dict[str, dict[str, str]]:
        """The mark as metadata of an output."""
        turn = {} if self.turn_id is None else {"turn": self.turn_id}
        return {MARK: {"conversation": self.conversation_id, **turn}}

    @classmethod
    def of(cls, metadata: object) -> Mark | None:
        """Return the mark in the metadata of an output, ``None`` if there is none."""
        found = metadata.get(MARK) if isinstance(metadata, dict) else None
        if not isinstance(found, dict) or not isinstance(found.get("conversation"), str):
            return None
        turn_id = found.get("turn")
        return cls(found["conversation"], turn_id if isinstance(turn_id, str) else None)


class SavedCell(NamedTuple):
    """A cell of a saved notebook."""

    source: str
    cell_id: str | None = None
    marks: tuple[Mark, ...] = ()

    @property
    def has_id(self) -> bool:
        """Whether the cell has a lasting id."""
        return self.cell_id is not None and not is_position(self.cell_id)


@dataclass(frozen=True)  # without slots, for the cached properties
class SavedNotebook:
    """The cells of a saved notebook; a text notebook has only ``lines``."""

    cells: tuple[SavedCell, ...] = ()
    lines: tuple[str, ...] | None = None
    version: tuple[int, int] = field(default=(0, 0), compare=False)

    @cached_property
    def keeps_ids(self) -> bool:
        """Whether the cells have ids that a front end generated."""
        return any(is_generated(cell.cell_id) for cell in self.cells)

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of its cells."""
        return frozenset(cell.cell_id for cell in self.cells if cell.cell_id is not None)

    @cached_property
    def marks(self) -> frozenset[Mark]:
        """The marks of its outputs."""
        return frozenset(mark for cell in self.cells for mark in cell.marks)

    def places_of(self, source: str | None, cell_id: str | None = None) -> list[int]:
        """Return the positions of cells with this source; they can only be compared with each other.

        If a front end generated ``cell_id``, cells with other lasting ids are left out.
        """
        if source is None:
            return []
        if self.lines is None:
            other = is_generated(cell_id)
            return [at for at in self._by_source.get(source, ()) if not (other and self.cells[at].has_id)]
        wanted = normal_lines(source)
        if not wanted:
            return []
        rarest = min(wanted, key=lambda line: len(self._by_line.get(line, ())))
        starts = (at - wanted.index(rarest) for at in self._by_line.get(rarest, ()))
        return [at for at in starts if at >= 0 and self.lines[at : at + len(wanted)] == wanted]

    def place_of(self, cell_id: str | None, source: str | None) -> int | None:
        """Return the position of a cell, by its id if it lasts, else by its source; ``None`` if it is unknown."""
        for at in self._by_id.get(cell_id, ()):
            if self.cells[at].has_id or self.cells[at].source == source:
                return at
        places = self.places_of(source, cell_id)
        return places[0] if len(places) == 1 else None

    def has(self, cell_id: str | None, source: str | None) -> bool:
        """Return whether a cell has both this id and this source."""
        return any(self.cells[at].cell_id == cell_id for at in self._by_source.get(source, ()))

    def has_running(self, cell_id: str | None, source: str | None) -> bool:
        """Return whether the running cell was saved with this source; if ids do not last, only the source counts."""
        return self.has(cell_id, source) or bool(self.places_of(source, cell_id))

    @cached_property
    def _by_source(self) -> Mapping[str | None, Sequence[int]]:
        return _places(cell.source for cell in self.cells)

    @cached_property
    def _by_id(self) -> Mapping[str | None, Sequence[int]]:
        return _places(cell.cell_id for cell in self.cells)

    @cached_property
    def _by_line(self) -> Mapping[str | None, Sequence[int]]:
        return _places(self.lines or ())


def _places(keys: Iterable[str | None]) -> Mapping[str | None, Sequence[int]]:
    """Return the positions of each key, so that looking for every turn takes no longer than reading the file."""
    places: dict[str | None, list[int]] = {}
    for at, key in enumerate(keys):
        places.setdefault(key, []).append(at)
    return places


def is_generated(cell_id: str | None) -> bool:
    """Return whether a front end generated this id, so that only copies of the cell have the same id.

    >>> [is_generated(each) for each in ("3f2a9c01", "20261128", "0", "setup", "9f1c6a52-6d0b-4a53-9a4f-0b7d3c1e2f10")]
    [True, False, False, False, True]
    """
    return cell_id is not None and _GENERATED.fullmatch(cell_id) is not None


def normal_lines(text: str) -> tuple[str, ...]:
    """Return the lines without indentation, and magics without the comment sign that jupytext adds."""
    return tuple(_COMMENTED_MAGIC.sub("", line.strip(), count=1) for line in text.strip().splitlines())
