"""Finds the source of an import: a server, a file, or the files in a directory; and errors for unreadable ones."""

from __future__ import annotations

import os
from collections import Counter
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.errors import ImportSourceError, InvalidArgumentError
from promptkit_nb.imports.reader import Source, Unit
from promptkit_nb.imports.records import DamagedRecordError
from promptkit_nb.stores.checks import path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNDERSTOOD = (
    "import_chats reads PromptKit's Redis (a redis:// URL or a client) and its folders of conv-*/state.json, "
    "Claude Code's ~/.claude/projects, Codex's ~/.codex/sessions, and llm's logs.db"
)
SQLITE = b"SQLite format 3\0"
_HEAD_BYTES = 64
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


def source_of(location: object, prefix: str | None) -> Source:
    """Return the source at a location; raise ``ImportSourceError`` if there is none."""
    if isinstance(location, str) and location.startswith(_REDIS_SCHEMES):
        return Source(location, prefix=prefix)
    if callable(getattr(location, "scan_iter", None)):
        return Source(location, prefix=prefix)
    if isinstance(location, str) and "://" in location:
        scheme = location.partition("://")[0]
        raise ImportSourceError(f"source={scheme}://… is not a supported location: {UNDERSTOOD}.")
    if not isinstance(location, (str, os.PathLike)):
        raise InvalidArgumentError(f"source={location!r:.80} is not a path, a URL, or a Redis client.")
    root = path_of("source", location).expanduser().absolute()
    try:
        return Source(location, root, tuple(_files_at(root)), prefix)
    except OSError as error:
        raise ImportSourceError(f"{root} cannot be read: {error.strerror or error}.") from error


def name_of(source: Source) -> str:
    """Return the name of a source for the report, without the password of a URL."""
    location = source.location
    if isinstance(location, str) and "://" in location:
        scheme, _, rest = location.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return str(location) if isinstance(location, (str, os.PathLike)) else type(location).__name__


def not_understood(source: Source, damaged: Sequence[tuple[str, str]] = ()) -> ImportSourceError:
    """Return the error for a source that no reader supports: what was found, why it was not read, what is supported."""
    if damaged:
        place, problem = damaged[0]
        more = f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
        problem = problem.removeprefix(f"{DamagedRecordError.__name__}: ")
        return ImportSourceError(f"{name_of(source)} has no conversations that can be read. {place}{more}: {problem}")
    if source.root is None:
        return ImportSourceError(f"{name_of(source)} has no conversations. {UNDERSTOOD}.")
    if source.root.is_file():
        return ImportSourceError(f"{source.root} is {_described(source.root)}. {UNDERSTOOD}.")
    suffixes = Counter(Path(file.location).suffix or "no suffix" for file in source.files).most_common(5)
    found = ", ".join(f"{count} of {suffix}" for suffix, count in suffixes) or "no files"
    return ImportSourceError(f"{source.root} contains no conversations, only {found}. {UNDERSTOOD}.")


def head_bytes_of(path: Path, count: int = _HEAD_BYTES) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)


def _described(path: Path) -> str:
    head = head_bytes_of(path, 200)
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive, such as an export of ChatGPT or Claude.ai, which this version cannot read"
    if head.startswith(SQLITE):
        return "a SQLite database, but not of llm 0.5 or newer"
    if b'"promptkit_nb"' in head:
        return "an export of this package: read it with import_store(path, store), or manager.import_conversation(path)"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON file in another format"
    return "a file in another format" if head else "an empty file"


def _files_at(root: Path) -> Iterator[Unit]:
    """Yield the units of a file, or all files in a directory, sorted by name; links to directories are not followed."""
    if not root.is_dir():
        yield _unit_of(str(root), str(root), root.stat())
        return
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in sorted(entries, key=attrgetter("name")):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file():
                    yield _unit_of(entry.path, str(root), entry.stat())


def _unit_of(location: str, root: str, stat: os.stat_result) -> Unit:
    return Unit.at(location, root, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
