"""Ids of conversations: which texts can be one, fresh ones, and hierarchical ones."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError, InvalidConversationIdError

if TYPE_CHECKING:
    from datetime import datetime

LONGEST_ID_CHARACTERS = 1000

_GENERATED = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}", re.ASCII)


def check_conversation_id(conversation_id: str) -> str:
    """Return the id, or raise ``InvalidConversationIdError``: any text will do that is not blank and can be encoded."""
    problem = _problem_of(conversation_id)
    if problem is None:
        return conversation_id
    raise InvalidConversationIdError(
        f"{_shortened(conversation_id)} cannot be a conversation id: {problem}. "
        'Use any text, for example "user:alice:session:1".'
    )


def check_user_id(user_id: str) -> str:
    """Return the user id, or raise ``InvalidArgumentError``; the same texts will do as for conversations."""
    problem = _problem_of(user_id)
    if problem is None:
        return user_id
    raise InvalidArgumentError(f'{_shortened(user_id)} cannot be a user id: {problem}. Use any text, such as "alice".')


def check_own_user(owner: str | None, user_id: str | None) -> None:
    """Raise ``InvalidArgumentError`` if a store that is narrowed to ``owner`` is asked about another user."""
    if owner is not None and user_id not in (None, owner):
        raise InvalidArgumentError(f"user_id={user_id!r} is another user: this store is narrowed to {owner!r}.")


def new_conversation_id(now: datetime, entropy: bytes | None = None) -> str:
    """Return a fresh id that sorts by its time (UTC), such as ``20261122T194501.123456-9f3ac2``.

    >>> from datetime import UTC, datetime
    >>> new_conversation_id(datetime(2026, 11, 22, 19, 45, 1, 123456, tzinfo=UTC), b"abc")
    '20261122T194501.123456-616263'
    """
    return f"{now:%Y%m%dT%H%M%S.%f}-{(entropy or os.urandom(3)).hex()}"


def is_generated_id(conversation_id: str) -> bool:
    """Return whether ``new_conversation_id`` made this one, rather than somebody who had something in mind.

    >>> is_generated_id("20261122T194501.123456-616263"), is_generated_id("persistent-chat")
    (True, False)
    """
    return _GENERATED.fullmatch(conversation_id) is not None


def scoped_id(*parts: str) -> str:
    """Join the parts of a hierarchical id with ``:``; a part cannot reach into its neighbour, ``:`` in it is escaped.

    Raises ``InvalidConversationIdError`` without parts, or where a part is blank.

    >>> from promptkit_nb import scoped_id
    >>> scoped_id("user", "alice", "session", "1")
    'user:alice:session:1'
    >>> scoped_id("user", "alice:admin")
    'user:alice%3Aadmin'
    """
    if not parts:
        raise InvalidConversationIdError('scoped_id() needs at least one part, as in scoped_id("user", "alice").')
    escaped = (check_conversation_id(part).replace("%", "%25").replace(":", "%3A") for part in parts)
    return check_conversation_id(":".join(escaped))


def _problem_of(text: object) -> str | None:
    if not isinstance(text, str):
        return f"it is of type {type(text).__name__}, not text"
    if not text.strip():
        return "it is blank"
    if len(text) > LONGEST_ID_CHARACTERS:
        return f"it has {len(text)} characters, more than {LONGEST_ID_CHARACTERS}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it has half of a character (a lone surrogate)"
    return None


def _shortened(value: object) -> str:
    shown = ascii(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."  # noqa: PLR2004 - as much of it as an error line bears
