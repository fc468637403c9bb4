"""PromptKit (Go): chooses the reader for conversations in Redis or in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.imports import promptkit_files, promptkit_redis

if TYPE_CHECKING:
    from promptkit_nb.imports.building import Reading
    from promptkit_nb.imports.reader import Reader, Source


def open_reader(source: Source, reading: Reading) -> Reader | None:
    """Return a reader for a server, or for files if some may be PromptKit's."""
    if source.root is None:
        return promptkit_redis.open_reader(source, reading)
    return promptkit_files.open_reader(source, reading)
