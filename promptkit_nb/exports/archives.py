"""Conversations as files, the same from every store: one as a JSON document, a whole store as JSON Lines.

They keep a conversation next to its notebook, and move all conversations from disk to Redis in two calls.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec

from promptkit_nb import errors
from promptkit_nb.codec import FORMAT_VERSION, NEWEST_FORMAT, check_format, decode, decoder_of, encode_state, format_of
from promptkit_nb.json_values import reason_of
from promptkit_nb.regular_files import lines_of, read_file, reading, replacing
from promptkit_nb.state import ConversationState, Head
from promptkit_nb.stores.checks import check_store, check_values_of_state, path_of
from promptkit_nb.stores.kept_archive import KeptSection, check_section, keep_sections, kept_sections
from promptkit_nb.stores.row_store import RowStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore


MAX_CONVERSATION_BYTES = 2**31
"""More than any real conversation; handling one this large would take several times as much memory."""

MAX_HEADER_BYTES = 1000


class _Header(msgspec.Struct):
    """The kind and format of a file, in its first line or first keys."""

    promptkit_nb: str = ""
    format: int = 0


class _Document(_Header):
    """A file with one conversation."""

    conversation: msgspec.Raw = msgspec.Raw()


class _KeptLine(msgspec.Struct):
    """A line with what a store kept of deleted conversations."""

    kept: KeptSection


_KEPT = b'{"kept":'
T = TypeVar("T", bound=_Header)


def write_conversation(state: ConversationState, path: str | os.PathLike[str]) -> Path:
    """Write a conversation as an indented JSON document, replacing the file atomically; return its absolute path.

    The document has its turns, previous versions, branches and summaries. Raises ``StoreUnavailableError`` if the file
    cannot be written; an existing one is unchanged.
    """
    version = format_of([*state.stored_turns, *state.summaries])
    document = _Document("conversation", version, msgspec.Raw(encode_state(state)))
    path = path_of("path", path)
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path.absolute()


def read_conversation(path: str | os.PathLike[str]) -> ConversationState:
    """Read a file of ``write_conversation``; raise ``InvalidArgumentError`` if it is something else."""
    path = path_of("path", path)
    try:
        data = read_file(path, MAX_CONVERSATION_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    document = _checked(path, data, _Document, "conversation")
    return _state_in(path, bytes(document.conversation), "conversation")


def export_store(
    store: StateStore,
    path: str | os.PathLike[str],
    *,
    on_damaged: Callable[[str, errors.StoreCorruptedError], object] | None = None,
) -> int:
    """Write all conversations of a store as JSON Lines, one per line; return how many.

    What deleted conversations cost is in the file, too, as amounts without ids and text (``StateStore.kept_usage``).

    To save what is readable in a damaged store, pass ``on_damaged``, such as ``print``: it is called with the id and
    the error of each conversation that is left out. Without it, the first of them raises ``StoreCorruptedError``.
    Raises ``StoreUnavailableError`` if the file cannot be written; an existing one is unchanged.

    >>> import tempfile
    >>> from promptkit_nb import ConversationState, MemoryStore, export_store
    >>> store = MemoryStore()
    >>> _ = store.create(ConversationState("hello"))
    >>> export_store(store, f"{tempfile.mkdtemp()}/conversations.jsonl")
    1
    """
    check_store(store)
    count = 0
    with replacing(path_of("path", path)) as file:
        file.write(msgspec.json.encode(_Header("store", FORMAT_VERSION)) + b"\n")
        for conversation_id in _ids_in(store):
            try:
                state = store.get(conversation_id)
            except errors.ConversationNotFoundError:
                continue  # deleted during the export
            except errors.StoreCorruptedError as error:
                if on_damaged is None:
                    raise
                on_damaged(conversation_id, error)
                continue
            file.write(encode_state(state) + b"\n")
            count += 1
        sections = kept_sections(store) if isinstance(store, RowStore) else []
        file.writelines(msgspec.json.encode(_KeptLine(each)) + b"\n" for each in sections)
        if sections:  # earlier versions cannot read such a file
            file.seek(0)
            file.write(msgspec.json.encode(_Header("store", NEWEST_FORMAT)))
    return count


def import_store(path: str | os.PathLike[str], store: StateStore) -> list[Head]:
    """Create the conversations of a file that ``export_store`` wrote; return their heads.

    Raises ``ConversationExistsError`` at the first id that exists: the conversations before it are imported, and none
    is overwritten. Raises ``InvalidArgumentError`` if the file is something else.

    Amounts of deleted conversations are added once, however often the same or a later export is imported. A store of
    your own that is not built on those of this package cannot keep them; a warning says so.

    >>> import tempfile
    >>> from promptkit_nb import ConversationState, MemoryStore, export_store, import_store
    >>> store, path = MemoryStore(), f"{tempfile.mkdtemp()}/conversations.jsonl"
    >>> _ = store.create(ConversationState("hello")), export_store(store, path)
    >>> [head.conversation_id for head in import_store(path, MemoryStore())]
    ['hello']
    """
    check_store(store)
    path = path_of("path", path)
    try:
        with reading(path) as file:
            header = _checked(path, file.readline(MAX_HEADER_BYTES), _Header, "store")
            if header.format > FORMAT_VERSION:
                _keep(store, path, file)
            lines = lines_of(file, MAX_CONVERSATION_BYTES)
            states = (line for line in lines if line.strip() and not line.startswith(_KEPT))
            return [store.create(_state_in(path, line, "store")) for line in states]
    except OSError as error:
        raise _unreadable(path, error) from error


def _keep(store: StateStore, path: Path, file: IO[bytes]) -> None:
    """Add the kept amounts of a file before its conversations, whose turns then count once."""
    start = file.tell()
    kept = [line for line in lines_of(file, MAX_CONVERSATION_BYTES) if line.startswith(_KEPT)]
    file.seek(start)
    sections = [_section_in(path, line) for line in kept]
    if isinstance(store, RowStore):
        keep_sections(store, sections)
    elif sections:
        warnings.warn(
            f"What deleted conversations cost, in {os.fspath(path)}, was left out: {type(store).__name__} is not built "
            "on a store of promptkit_nb.",
            stacklevel=3,
        )


def _section_in(path: Path, line: bytes) -> KeptSection:
    try:
        section: KeptSection = decode(line, _KeptLine).kept
        check_section(section)
    except errors.StoreCorruptedError as error:
        raise _not_an_archive(path, "store", reason_of(error.__cause__)) from error
    except errors.InvalidArgumentError as error:
        raise _not_an_archive(path, "store", str(error).rstrip(".")) from error
    return section


def _ids_in(store: StateStore) -> tuple[str, ...]:
    if isinstance(store, RowStore):  # list() leaves out what cannot be read
        return store.conversation_ids()
    return tuple(head.conversation_id for head in store.list(sort_by="conversation_id", descending=False))


def _checked(path: Path, data: bytes, kind: type[T], wanted: str) -> T:
    try:
        header: T = decoder_of(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _not_an_archive(path, wanted, reason_of(error)) from error
    if header.promptkit_nb != wanted:
        raise _not_an_archive(path, wanted, f"it says {header.promptkit_nb!r}")
    check_format(header.format, f"The file {os.fspath(path)}", NEWEST_FORMAT)
    return header


def _state_in(path: Path, data: bytes, wanted: str) -> ConversationState:
    try:
        state = replace(decode(data, ConversationState), notebook=None)  # the import does not belong to a notebook
        check_values_of_state(state)
    except errors.StoreCorruptedError as error:
        raise _not_an_archive(path, wanted, reason_of(error.__cause__)) from error
    except errors.PromptKitError as error:
        raise _not_an_archive(path, wanted, str(error).rstrip(".")) from error
    return state


def _unreadable(path: Path, error: OSError) -> errors.StoreUnavailableError:
    return errors.StoreUnavailableError(f"{path.absolute()} cannot be read: {error.strerror or error}. Check the path.")


def _not_an_archive(path: Path, wanted: str, why: str) -> errors.InvalidArgumentError:
    hint = {"conversation": "conversation.export(path)", "store": "export_store(store, path)"}[wanted]
    return errors.InvalidArgumentError(
        f"{os.fspath(path)} is not an exported {wanted} ({why}): pass a file written by {hint}."
    )
