"""The running notebook, as reported by front end and kernel, and its file, which is only read again if it changed."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import msgspec

from promptkit_nb.codec import decoder_of
from promptkit_nb.frontend import connection_file, is_batch, running_shell
from promptkit_nb.notebook.cells import without_keys
from promptkit_nb.notebook.own_conversation import plain_path
from promptkit_nb.notebook.saved_notebook import TEXT_SUFFIXES, Mark, SavedCell, SavedNotebook, normal_lines
from promptkit_nb.state import NotebookNote

_NUMBERED_KERNEL = re.compile(r"(?:kernel-)?\d*(?:\.json)?")


class NotebookFile:
    """The notebook of this kernel; its path may change while the kernel runs."""

    def __init__(self) -> None:
        """Start without reading the file."""
        self._saved: tuple[str, SavedNotebook] | None = None

    @property
    def note(self) -> NotebookNote:
        """The note for the notebook's conversation; that of a batch run has only the host."""
        host = platform.node().partition(".")[0]  # networks change the domain of a laptop
        if is_batch():
            return NotebookNote(host=host)
        name = notebook_name()
        path = "" if name is None else str(Path(plain_path(name)).resolve())
        return NotebookNote(path, host, kernel_name())

    def saved(self) -> SavedNotebook | None:
        """Return the saved notebook, ``None`` if it cannot be read."""
        name = notebook_name()
        if name is None:
            return None
        if self._saved is not None and self._saved[0] == name and self._saved[1].version == _version_of(name):
            return self._saved[1]
        found = read_saved(name)
        self._saved = None if found is None else (name, found)
        return found


def read_saved(name: str) -> SavedNotebook | None:
    """Return the saved notebook at this path, ``None`` if it cannot be read.

    Keys in its sources are hidden, as in the sources of turns.
    """
    file = _file_at(name)
    try:
        stat = file.stat()
        data = file.read_bytes()
        version = (stat.st_mtime_ns, stat.st_size)
        if file.suffix in TEXT_SUFFIXES:
            return SavedNotebook(lines=normal_lines(without_keys(data.decode())), version=version)
        cells = decoder_of(_File).decode(data).cells
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None
    return SavedNotebook(tuple(map(_cell_of, cells)), version=version)


def notebook_name() -> str | None:
    """Return the absolute path of the running notebook as given by the front end, ``None`` if it is unknown.

    Jupyter's server sets ``JPY_SESSION_NAME``, VS Code a variable in the notebook. A batch run that is started in a
    notebook inherits this, but is another notebook. A text file counts as a notebook if it exists.
    """
    if is_batch():
        return None
    shell = running_shell()
    name = None if shell is None else shell.user_ns.get("__vsc_ipynb_file__")
    name = name or os.environ.get("JPY_SESSION_NAME", "")
    if not isinstance(name, str):
        return None
    is_notebook = name.endswith(".ipynb") or (name.endswith(TEXT_SUFFIXES) and _file_at(name).is_file())
    return os.path.abspath(name) if is_notebook else None  # noqa: PTH100 - Path.absolute() keeps ".."


def kernel_name() -> str:
    """Return the name of the kernel, which restarts keep; ``""`` if another kernel may get the same name later.

    Consoles name their kernels by process id, and ids are reused.
    """
    name = Path(connection_file() or "").name
    return "" if _NUMBERED_KERNEL.fullmatch(name) else name


def _file_at(name: str) -> Path:
    """Return the path to read, without the prefix that real-time collaboration adds to the file's name."""
    return Path(name) if Path(name).exists() else Path(plain_path(name))


def _version_of(name: str) -> tuple[int, int] | None:
    try:
        stat = _file_at(name).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


class _Output(msgspec.Struct):
    metadata: Any = None  # other tools may write anything


class _Cell(msgspec.Struct):
    source: str | list[str] = ""
    id: str | None = None
    outputs: list[_Output] = []


class _File(msgspec.Struct):
    cells: list[_Cell]


def _cell_of(cell: _Cell) -> SavedCell:
    source = cell.source if isinstance(cell.source, str) else "".join(cell.source)
    marks = (Mark.of(output.metadata) for output in cell.outputs)
    return SavedCell(without_keys(source), cell.id, tuple(mark for mark in marks if mark is not None))
