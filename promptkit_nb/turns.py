"""Turns, messages and usage: the values that a conversation is made of."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.thinking import MAY_BE_THINKING, split_thinking

if TYPE_CHECKING:
    from collections.abc import Iterable

OWN_SOURCE = "promptkit_nb"
"""The source of turns and conversations made by this package."""

INTERRUPTED = "interrupted"
"""The finish reason of an answer that the user stopped."""

Role = Literal["system", "user", "assistant", "tool"]


def utc_now() -> datetime:
    """Return the current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def new_turn_id(time_ns: int | None = None) -> str:
    """Return a new turn id: 32 hexadecimal digits, the first 16 of them the time, so that ids sort by age."""
    return f"{time.time_ns() if time_ns is None else time_ns:016x}{os.urandom(8).hex()}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one call: reported by the provider, or counted offline (``estimated``).

    ``cached_tokens`` (read from the provider's cache) and ``cache_write_tokens`` (written to it) are included in
    ``input_tokens``, and ``reasoning_tokens`` in ``output_tokens``. ``unknown`` means that the source of a turn did not
    record its usage: all counts are then 0, and DataFrames show them as missing.

    >>> from promptkit_nb import Usage
    >>> Usage(1000, 500, cached_tokens=400).total_tokens
    1500
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    unknown: bool = False

    @property
    def total_tokens(self) -> int:
        """The sum of input and output tokens."""
        return self.input_tokens + self.output_tokens


def sum_of_usages(usages: Iterable[Usage]) -> Usage:
    """Return the counts of several calls as one usage, which is estimated or unknown if any of them is.

    >>> sum_of_usages([Usage(10, 5), Usage(20, 7)]).total_tokens
    42
    """
    usages = tuple(usages)
    if len(usages) == 1:
        return usages[0]
    return Usage(
        sum(each.input_tokens for each in usages),
        sum(each.output_tokens for each in usages),
        cached_tokens=sum(each.cached_tokens for each in usages),
        reasoning_tokens=sum(each.reasoning_tokens for each in usages),
        estimated=any(each.estimated for each in usages),
        cache_write_tokens=sum(each.cache_write_tokens for each in usages),
        unknown=any(each.unknown for each in usages),
    )


NO_USAGE = Usage(0, 0)

PriceSource = Literal["reported", "list", "yours"]
"""The source of a turn's cost: the server, the price list, or prices given by the user."""


def price_source_of(stored: str | None) -> PriceSource | None:
    """Return the price source of a turn; earlier versions stored the list's name, ``user``, or the provider's name.

    >>> [price_source_of(stored) for stored in ("list", "genai-prices 0.2.3", "user", "openai")]
    ['list', 'list', 'yours', 'reported']
    """
    if not stored:
        return None
    if stored == "list" or stored.startswith("genai-prices"):
        return "list"
    return "yours" if stored in ("yours", "user") else "reported"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call requested by the model; ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One part of a message with images or files, named as in OpenAI's chat format.

    ``text`` is that of a text, or the name of a file. ``url`` is that of an image, mostly a ``data:`` URL, or holds the
    file; ``detail`` is how closely the model looks at an image. Files are PDFs.

    >>> from promptkit_nb import ContentPart
    >>> ContentPart("text", "What is this?").text
    'What is this?'
    """

    type: Literal["text", "image_url", "file"]
    text: str = ""
    url: str = ""
    detail: Literal["auto", "low", "high"] | None = None


_TEXT_OR_NONE = (str, type(None))


@dataclass(frozen=True)  # no slots: they make reading stored messages twice as slow
class Message:
    """One message of a turn.

    ``content`` is always the text; ``parts`` is empty unless the message has images. ``reasoning`` is stored for
    reading and never sent back to the model. Version 0.1 stored thinking in the content of some answers: ``text`` is
    the content without it, and ``thinking`` is the reasoning from either field.

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
        """Replace lone surrogates, which cannot be encoded; the store rejects content that is not text."""
        if not (type(self.role) is type(self.content) is str and type(self.reasoning) in _TEXT_OR_NONE):
            for name in ("role", "content", "reasoning"):
                if type(text := getattr(self, name)) is not str and isinstance(text, str):
                    object.__setattr__(self, name, str.__str__(text))
        if isinstance(self.content, str) and not self.content.isascii():
            object.__setattr__(self, "content", without_lone_surrogates(self.content))
        if isinstance(self.reasoning, str) and not self.reasoning.isascii():
            object.__setattr__(self, "reasoning", without_lone_surrogates(self.reasoning))

    @property
    def text(self) -> str:
        """The content without thinking."""
        if self.role != "assistant" or not self.content.startswith(MAY_BE_THINKING):
            return self.content
        return split_thinking(self.content)[1]

    @property
    def thinking(self) -> str:
        """The model's thinking before its answer; empty if unknown."""
        if self.reasoning or self.role != "assistant" or not self.content.startswith(MAY_BE_THINKING):
            return self.reasoning or ""
        return split_thinking(self.content)[0]


@dataclass(frozen=True, kw_only=True)  # no slots, as in Message
class Turn:
    """One user message and everything the model produced for it; stored whole or not at all.

    ``cost`` is in US dollars, or ``None`` if the price is unknown. ``price_source`` is ``"reported"`` (by the server),
    ``"list"`` (computed from the price list, whose version is ``price_list``), or ``"yours"`` (computed from prices
    that you gave). In turns of earlier versions it is the name of the price list, ``user``, or the name of the
    provider. ``source`` is ``"promptkit_nb"``, or the tool from which the turn was imported.
    ``requested_model`` is the model asked for, ``model`` the one that answered, according to the server.
    ``thinking_ms`` is how long the model thought before its text, if it showed its thinking. ``cell_id``,
    ``cell_source`` and ``cell_call`` (index of the chat call within the cell run) identify the notebook cell that made
    the turn. ``context_hash`` is the hash of the context it was answered in, ``replay_key`` the hash of the whole
    request (SHA-256, hexadecimal). ``saved`` is the original cost of a replayed answer. ``counted_input_tokens`` is the
    offline count before sending; ``usage`` has the provider's count. ``row_index`` is the index label of the row of a
    DataFrame that asked first, as text. ``value_json`` is the typed answer of a call with ``schema=``, as JSON.

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
    price_list: str | None = None
    source: str = OWN_SOURCE
    thinking_ms: float | None = None
    row_index: str | None = None
    value_json: str | None = None

    @property
    def user_text(self) -> str:
        """The text of the user's message."""
        return next((message.content for message in self.messages if message.role == "user"), "")

    @property
    def text(self) -> str:
        """The text of the model's last message, without thinking."""
        return next((message.text for message in reversed(self.messages) if message.role == "assistant"), "")

    @property
    def reasoning(self) -> str | None:
        """The model's thinking in all of its messages; ``None`` if unknown."""
        return "\n\n".join(filter(None, [message.thinking for message in self.messages])) or None

    @property
    def has_tool_calls(self) -> bool:
        """Whether the turn has tool calls."""
        return any(message.tool_calls or message.role == "tool" for message in self.messages)

    @property
    def is_edited(self) -> bool:
        """Whether the user wrote the answer, which took no time and no tokens."""
        return self.latency_ms is None and self.usage.total_tokens == 0

    def with_answer(self, text: str, *, at: datetime) -> Turn:
        """Return a turn with the same question, in the same place, and an answer that costs nothing."""
        questions = tuple(message for message in self.messages if message.role in {"system", "user"})
        return Turn(
            messages=(*questions, Message("assistant", text, timestamp=at)),
            cost=Decimal(0),
            finish_reason="stop",
            created_at=at,
            model=self.model,
            provider=self.provider,
            requested_model=self.requested_model,
            cell_id=self.cell_id,
            cell_call=self.cell_call,
            cell_source=self.cell_source,
            context_hash=self.context_hash,
            replay_key=self.replay_key,
            source=self.source,
        )

    @property
    def first_cost(self) -> Decimal | None:
        """The original cost of the answer in US dollars; ``None`` if unknown."""
        return self.saved if self.replayed else self.cost

    @property
    def counts(self) -> bool:
        """Whether the turn counts in the conversation's totals; replayed and inherited turns do not."""
        return not (self.replayed or self.inherited)
