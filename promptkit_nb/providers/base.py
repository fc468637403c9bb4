"""What every provider is: it takes a request and yields the answer in pieces as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from promptkit_nb.turns import Message, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb.pricing import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request to a model, in the words of OpenAI's chat format.

    ``messages`` begin with the system message, if any. ``parameters`` go to the model as they are (``temperature``,
    ``top_p`` …); ``tools`` are OpenAI function tools.
    """

    model: str
    messages: Sequence[Message]
    parameters: Mapping[str, object] = field(default_factory=dict)
    max_output_tokens: int | None = None
    tools: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of what the model thought aloud; never empty, never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The provider will sleep this long before it tries again, and why: shown to the user, never silent."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """The wait is over: the provider sends again when it is asked for the next event, so one can still leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The end of the answer, always the last event.

    ``usage`` is ``None`` where the provider reported none; ``cost_usd`` is set only where the provider itself reported
    what the call cost.
    """

    model: str
    finish_reason: str
    usage: Usage | None
    cost_usd: Decimal | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    warnings: tuple[str, ...] = ()


StreamEvent = TextDelta | ReasoningDelta | Waiting | Retrying | Completion


class Provider(Protocol):
    """A source of answers. ``name`` is stored with each turn, ``model`` is the one used where none is asked for."""

    name: str
    model: str

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Send the request and yield the answer as it comes, a ``Completion`` last.

        Closing the iterator drops the connection. Raises a ``ProviderError``, with ``partial`` set where some text had
        arrived.
        """
        ...

    def price(self, model: str, usage: Usage, at: datetime) -> Price:
        """Return what the usage costs at that time; ``Price(None, …)`` where nobody knows."""
        ...
