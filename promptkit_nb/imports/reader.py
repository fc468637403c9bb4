"""The protocol of readers of other tools' conversations, and the source that they read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from promptkit_nb.imports.records import BROKEN, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.imports.building import Reading
    from promptkit_nb.imports.notes import Notes
    from promptkit_nb.state import ConversationState, Head


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """A source: ``location`` is the path, URL, or client given by the user; ``files`` are the files at a path.

    ``root`` is a file, or a directory whose files are listed; ``None`` if the location is not a path.
    """

    location: Any
    root: Path | None = None
    files: tuple[FoundFile, ...] = ()
    prefix: str | None = None
    _units: dict[str, Unit] = field(default_factory=dict, compare=False, repr=False)

    def name_of(self, location: str) -> str:
        """Return the name of a file or directory in the report: its path relative to the root."""
        root = str(self.root)
        below = location.removeprefix(f"{root}/")
        name: str = clean(below if below != location else os.path.basename(location))  # noqa: PTH119 - a Path is slow
        return name

    def unit_of(self, file: FoundFile) -> Unit:
        """Return the unit of one file, the same for all readers."""
        location = file.location
        unit = self._units.get(location)
        if unit is None:
            stamp = f"{file.size}-{file.mtime_ns}"
            unit = Unit(self.name_of(location), clean(location), location, file.size, stamp)
            self._units[location] = unit
        return unit


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a source, with its size in bytes and its modification time."""

    location: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a source that is read at once, such as a file; ``stamp`` changes whenever its contents may have.

    ``name`` is for the report; ``key`` is the same at every import. A unit with the same stamp as at the previous
    import is not read again.
    """

    name: str
    key: str
    location: str = ""
    size: int = 0
    stamp: str | None = None

    @property
    def path(self) -> Path:
        """The file or directory; computed only for units that are opened."""
        return Path(self.location)


def recognized(units: Iterable[Unit], look: Callable[[Unit], T], notes: Notes) -> Iterator[tuple[Unit, T]]:
    """Yield each unit with the result of ``look``; units that cannot be opened are noted and left out."""
    for unit in units:
        try:
            yield unit, look(unit)
        except BROKEN as error:
            notes.add_damaged(unit.name, f"{type(error).__name__}: {error}")


class Reader(Protocol):
    """Reads one tool's conversations; each reader's module defines ``open_reader(source, reading)``.

    ``source`` is the tool's name; the ids of its conversations begin with it.
    """

    source: ClassVar[str]

    def units(self) -> Sequence[Unit]:
        """Return the units that may have to be read, without opening them."""
        ...

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> Sequence[Unit]:
        """Return the changed units that this tool wrote, in the order in which to read them.

        ``unchanged`` maps the other units to the conversations imported from them earlier; those that something in a
        changed unit concerns, such as a later title, are returned, too.
        """
        ...

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversations of a unit, the most recently active one last; ``advance`` takes the bytes read."""
        ...


class OpenReader(Protocol):
    """Opens a reader, or returns ``None`` if this tool cannot have written the source."""

    def __call__(self, source: Source, reading: Reading) -> Reader | None:
        """Decide by the location or the names of the files, without opening them."""
        ...
