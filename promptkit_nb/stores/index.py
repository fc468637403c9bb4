"""The index: conversations of notebooks by path and kernel, and their answers by replay key.

An entry maps a key to a conversation, or to one of its turns. Readers check the target, so outdated entries are
harmless. Only conversations of notebooks have entries, so storing other conversations costs nothing more.
"""

from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations of a struct
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize

import msgspec

from promptkit_nb.codec import decoder_of
from promptkit_nb.turns import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from promptkit_nb.stores.layout import Record
    from promptkit_nb.turns import Turn

NO_PLACE = -1
"""The place in an entry that maps to a conversation, not to a turn."""


class Entry(NamedTuple):
    """Maps ``key`` to the turn at a place of a conversation; ``at_us`` orders the entries of a key by age."""

    key: str
    at_us: int
    cid: int
    place: int
    conversation_id: str


class _Answer(msgspec.Struct):
    """The fields of a stored turn that its entry needs."""

    created_at: datetime
    replay_key: str | None = None
    provider: str = ""
    finish_reason: str | None = None


def notebook_key(user_id: str, *, path: str | None = None, kernel: str | None = None) -> str:
    """Return the key of a user's notebook conversations with this path, or this kernel."""
    if path is None:
        return _digest("kernel", user_id, kernel or "")
    return _digest("path", user_id, normalize("NFC", path))


def answer_key(user_id: str, provider: str, replay_key: str) -> str:
    """Return the key of the answers of a provider to one request of a user."""
    return _digest("answer", user_id, provider, replay_key)


def notebook_entries(conversation_id: str, record: Record) -> list[Entry]:
    """Return the entries that map to the conversation of a notebook; other conversations have none."""
    note = record.notebook
    if note is None:
        return []
    keys = [notebook_key(record.user_id, path=note.path)]
    if note.kernel:
        keys.append(notebook_key(record.user_id, kernel=note.kernel))
    at_us = _microseconds(record.created_at)
    return [Entry(key, at_us, record.cid, NO_PLACE, conversation_id) for key in keys]


def turn_entry(conversation_id: str, record: Record, place: int, turn: Turn | _Answer) -> Entry | None:
    """Return the entry for a turn that may answer the same request in another notebook, else ``None``."""
    if record.notebook is None or turn.replay_key is None or turn.finish_reason == INTERRUPTED:
        return None
    key = answer_key(record.user_id, turn.provider, turn.replay_key)
    return Entry(key, _microseconds(turn.created_at), record.cid, place, conversation_id)


def turn_entries(conversation_id: str, record: Record, lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    """Yield the entries of stored turns; unreadable turns have none."""
    if record.notebook is None:
        return
    for place, line in lines:
        try:
            answer = decoder_of(_Answer).decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        entry = turn_entry(conversation_id, record, place, answer)
        if entry is not None:
            yield entry


def _microseconds(at: datetime) -> int:
    return max(0, round(at.timestamp() * 1e6))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
