"""Hashes of contexts and requests, which identify stale turns and repeated requests.

SHA-256 of canonical JSON. Each turn's hash includes the one before it, so adding a turn never hashes the whole
conversation again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.turns import Message, Turn

KEY_VERSION = 1
EMPTY_HASH = ""

_canonical = msgspec.json.Encoder(order="sorted").encode


def chain_of(turns: Iterable[Turn], start: str | None = None) -> str:
    """Return the hash of the turns in order, continuing from ``start``."""
    *_, last = context_hashes_of(turns, start)
    return last


def context_hashes_of(turns: Iterable[Turn], start: str | None = None) -> Iterator[str]:
    """Yield ``start``, then the hash after each turn: one value more than there are turns."""
    current = start or EMPTY_HASH
    yield current
    for turn in turns:
        current = _digest([current, [_hashed_fields(message) for message in turn.messages]])
        yield current


def context_hash_of(system_prompt: str | None, chain: str) -> str:
    """Return the hash of a context: the system prompt and the hash of the turns."""
    return _digest([KEY_VERSION, system_prompt, chain])


def replay_key_of(
    context_hash: str,
    message: Message,
    *,
    model: str,
    parameters: Mapping[str, object],
    max_output_tokens: int | None,
    tools: Sequence[Mapping[str, object]],
    max_tokens: int | None,
    context_policy: str,
) -> str:
    """Return the hash of a whole request; requests with equal hashes may share an answer.

    The provider, its address and the part of the context that was actually sent are not included.
    """
    return _digest(
        {
            "version": KEY_VERSION,
            "context": context_hash,
            "message": _hashed_fields(message),
            "model": model,
            "parameters": dict(parameters),
            "max_output_tokens": max_output_tokens,
            "tools": list(tools),
            "max_tokens": max_tokens,
            "context_policy": context_policy,
        }
    )


def summary_key_of(
    messages: Iterable[Message],
    *,
    provider: str,
    model: str,
    parameters: Mapping[str, object],
    max_output_tokens: int | None,
) -> str:
    """Return the hash of a request for a summary; requests with equal hashes may share a summary."""
    return _digest(
        {
            "version": KEY_VERSION,
            "messages": [_hashed_fields(message) for message in messages],
            "provider": provider,
            "model": model,
            "parameters": dict(parameters),
            "max_output_tokens": max_output_tokens,
        }
    )


def _hashed_fields(message: Message) -> list[object]:
    """Return the fields of a message that enter the hash: all but its time and reasoning."""
    return [message.role, message.content, message.parts, message.tool_calls, message.tool_call_id, message.name]


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
