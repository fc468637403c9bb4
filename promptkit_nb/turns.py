"""The turn, the stored unit: one user message and everything the model produced for it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

INTERRUPTED = "interrupted"
"""The finish reason of an answer that was stopped."""

Role = Literal["system", "user", "assistant", "tool"]


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)


def new_turn_id(time_ns: int | None = None) -> str:
    """Return a fresh turn id: 32 hexadecimal digits, the first 16 of them the time, so ids sort by age."""
    return f"{time.time_ns() if time_ns is None else time_ns:016x}{os.urandom(8).hex()}"


def without_lone_surrogates(text: str) -> str:
    """Return the text as it can be encoded: halves of an emoji are joined, or become U+FFFD where one is lost."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider reported them, else counted offline (``estimated``).

    ``cached_tokens`` are part of ``input_tokens`` and ``reasoning_tokens`` part of ``output_tokens``: neither is added
    on top.

    >>> from promptkit_nb import Usage
    >>> Usage(1000, 500, cached_tokens=400).total_tokens
    1500
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


NO_USAGE = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for; ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One part of a message that is more than text, named as in OpenAI's chat format."""

    type: Literal["text", "image_url"]
    text: str = ""
    url: str = ""
    detail: Literal["auto", "low", "high"] | None = None


@dataclass(frozen=True)  # without slots, which make reading a stored message half as fast
class Message:
    """What one role said.

    ``content`` is always the text; ``parts`` are there only where a message carries more than text. ``reasoning`` is
    kept for reading and never sent again.

    >>> from promptkit_nb import Message
    >>> Message("user", "My name is Alice").content
    'My name is Alice'
    """

    role: Role
    content: str = ""
    timestamp: datetime | None = field(default=None, kw_only=True)
    parts: tuple[ContentPart, ...] = field(default=(), kw_only=True)
    tool_calls: tuple[ToolCall, ...] = field(default=(), kw_only=True)
    tool_call_id: str | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    reasoning: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Clean half emojis, which no encoder accepts; what is no text is told where it is to be stored."""
        if isinstance(self.content, str) and not self.content.isascii():
            object.__setattr__(self, "content", without_lone_surrogates(self.content))
        if isinstance(self.reasoning, str) and not self.reasoning.isascii():
            object.__setattr__(self, "reasoning", without_lone_surrogates(self.reasoning))


@dataclass(frozen=True, kw_only=True)  # without slots, as Message
class Turn:
    """One user message and everything the model produced for it; stored whole or not at all.

    ``cost`` is in US dollars, or ``None`` where the price is unknown; ``price_source`` says whose price list it was.
    ``requested_model`` is the model asked for, ``model`` the one that the server says answered. ``cell_id``,
    ``cell_call`` (the n-th chat call of that cell's execution, from 0) and ``cell_source`` say which notebook cell made
    the turn. ``context_hash`` is the hash of the context it was answered in and ``replay_key`` that of the whole
    request (SHA-256, hexadecimal). ``saved`` is what a replayed answer cost when it was made; ``counted_input_tokens``
    what was counted offline before sending, beside the provider's own count in ``usage``.

    >>> from promptkit_nb import Message, Turn, Usage
    >>> turn = Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello")), usage=Usage(8, 2))
    >>> turn.user_text, turn.text, turn.usage.total_tokens
    ('Hi', 'Hello', 10)
    """

    messages: tuple[Message, ...]
    usage: Usage = NO_USAGE
    cost: Decimal | None = None
    model: str = ""
    provider: str = ""
    latency_ms: float | None = None
    finish_reason: str | None = None
    id: str = field(default_factory=new_turn_id)
    created_at: datetime = field(default_factory=utc_now)
    requested_model: str | None = None
    price_source: str | None = None
    truncated: int = 0
    cell_id: str | None = None
    cell_call: int = 0
    cell_source: str | None = None
    context_hash: str | None = None
    replay_key: str | None = None
    replayed: bool = False
    saved: Decimal | None = None
    counted_input_tokens: int | None = None
    inherited: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def user_text(self) -> str:
        """What the user said."""
        return next((message.content for message in self.messages if message.role == "user"), "")

    @property
    def text(self) -> str:
        """What the model answered in the end."""
        return next((message.content for message in reversed(self.messages) if message.role == "assistant"), "")

    @property
    def first_cost(self) -> Decimal | None:
        """What the answer cost when it was made, in US dollars; ``None`` where nobody knows."""
        return self.saved if self.replayed else self.cost

    @property
    def counts(self) -> bool:
        """Whether this conversation paid for the turn: replayed and inherited ones are in no total."""
        return not (self.replayed or self.inherited)
