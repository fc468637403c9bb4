"""The protocol of readers of other tools' conversations, and the source that they read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.imports.records import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.imports.building import Reading
    from promptkit_nb.imports.notes import Notes
    from promptkit_nb.state import ConversationState, Head


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """A source: ``location`` is the path, URL, or client given by the user; ``files`` has a unit for each file there.

    ``root`` is a file, or a directory whose files are listed; ``None`` if the location is not a path.
    """

    location: Any
    root: Path | None = None
    files: tuple[Unit, ...] = ()
    prefix: str | None = None


class Unit(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A part of a source that is read at once, such as a file; ``stamp`` changes whenever its contents may have.

    ``name`` is for the report; ``key`` is the same at every import. A unit with the same stamp as at the previous
    import is not read again.
    """

    name: str
    key: str
    location: str = ""
    size: int = 0
    stamp: str | None = None

    @classmethod
    def at(cls, location: str, root: str, size: int, stamp: str) -> Unit:
        """Return a unit for a file or directory, whose name is its path relative to the root."""
        below = location.removeprefix(f"{root}/")
        name = below if below != location else os.path.basename(location)  # noqa: PTH119 - a Path is slow
        return cls(without_lone_surrogates(name), without_lone_surrogates(location), location, size, stamp)

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
