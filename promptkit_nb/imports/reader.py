"""What a reader of another tool's conversations does, and the source that it reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
    """Where to read: ``location`` as the user gave it, a path, a URL or a client; ``files`` are those at a path.

    ``root`` is a file, or a directory whose files are listed; ``None`` if the location is not a path.
    """

    location: Any
    root: Path | None = None
    files: tuple[FoundFile, ...] = ()
    prefix: str | None = None

    def name_of(self, location: str) -> str:
        """Return how a file or directory is named: by its path below the root."""
        root = str(self.root)
        below = location.removeprefix(f"{root}/")
        name: str = clean(below if below != location else os.path.basename(location))  # noqa: PTH119 - a Path is slow
        return name

    def unit_of(self, file: FoundFile) -> Unit:
        """Return the unit of one file."""
        stamp = f"{file.size}-{file.mtime_ns}"
        return Unit(self.name_of(file.location), clean(file.location), file.location, file.size, stamp)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a source, with its size in bytes and when it was changed, as the directory tells."""

    location: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read in one go, such as a file; ``stamp`` changes whenever its content may have changed.

    ``name`` is for the report, ``key`` the same at every import. A unit whose stamp is that of the previous import is
    not read again.
    """

    name: str
    key: str
    location: str = ""
    size: int = 0
    stamp: str | None = None

    @property
    def path(self) -> Path:
        """The file or directory; of thousands, only those that are opened need it."""
        return Path(self.location)


def recognized(units: Iterable[Unit], look: Callable[[Unit], T], notes: Notes) -> Iterator[tuple[Unit, T]]:
    """Yield each unit with what its first bytes say; one that cannot be opened is noted, and left out."""
    for unit in units:
        try:
            yield unit, look(unit)
        except BROKEN as error:
            notes.is_damaged(unit.name, f"{type(error).__name__}: {error}")


class Reader(Protocol):
    """Reads one tool's conversations; the module of a reader has ``open_reader(source, reading)``.

    ``source`` is the tool's name, with which the ids of its conversations begin.
    """

    source: ClassVar[str]

    def units(self) -> Sequence[Unit]:
        """Return what there may be to read, without opening it."""
        ...

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> Sequence[Unit]:
        """Return those of the changed units that are this tool's, in the order to read them.

        ``unchanged`` are units that will not be read, with what was imported from them before.
        """
        ...

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversations of a unit, the one that was active last at the end; ``advance`` takes bytes read."""
        ...


class OpenReader(Protocol):
    """Opens a reader, or returns ``None`` if this tool cannot have written such a source."""

    def __call__(self, source: Source, reading: Reading) -> Reader | None:
        """Look at the location, or at the files; nothing has to be opened."""
        ...
