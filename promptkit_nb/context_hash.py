"""Hashes of what a turn was answered in: whether a turn is stale, and whether two requests are the same.

SHA-256 over canonical JSON. The context's hash is a chain, one link a turn, so that it costs the same however long the
conversation is.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.turns import Message, Turn

KEY_VERSION = 1
NOTHING_SAID = ""

_canonical = msgspec.json.Encoder(order="sorted").encode


def chain_of(turns: Iterable[Turn], start: str | None = None) -> str:
    """Return the hash of the turns in their order, going on from ``start``."""
    *_, last = context_hashes_of(turns, start)
    return last


def context_hashes_of(turns: Iterable[Turn], start: str | None = None) -> Iterator[str]:
    """Yield the hash before the first turn, and the one after each turn: one more than there are turns."""
    link = start or NOTHING_SAID
    yield link
    for turn in turns:
        link = _digest([link, [_said(message) for message in turn.messages]])
        yield link


def context_hash_of(system_prompt: str | None, chain: str) -> str:
    """Return the hash of a context: the system prompt and the chain of the turns after it."""
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
    """Return the hash of a whole request: two requests with the same one would be answered alike.

    What is not in it: the provider, its address, and the part of the context that was actually sent.
    """
    return _digest(
        {
            "version": KEY_VERSION,
            "context": context_hash,
            "message": _said(message),
            "model": model,
            "parameters": dict(parameters),
            "max_output_tokens": max_output_tokens,
            "tools": list(tools),
            "max_tokens": max_tokens,
            "context_policy": context_policy,
        }
    )


def _said(message: Message) -> list[object]:
    """Return what counts of a message: not when it was said, nor what the model thought."""
    return [message.role, message.content, message.parts, message.tool_calls, message.tool_call_id, message.name]


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
