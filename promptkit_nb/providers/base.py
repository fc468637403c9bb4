"""What a provider is: it takes a request and yields the answer in pieces as they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from promptkit_nb.turns import Message, ToolCall, Usage

if TYPE_CHECKING:
    from datetime import datetime

    from promptkit_nb.pricing import CallCost


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request to a model, with the names of OpenAI's chat format.

    ``messages`` begin with the system message, if there is one. ``parameters`` are sent unchanged (``temperature``,
    ``top_p`` …); ``tools`` are OpenAI function tools, and ``tool_choice`` is ``"required"`` if one must be called.
    ``round_states`` are those of the turn's earlier completions, one for each message with tool calls after the user's.
    ``answer_schema`` is ``{"name", "schema", "strict"}`` of a typed answer.
    """

    model: str
    messages: Sequence[Message]
    parameters: Mapping[str, object] = field(default_factory=dict)
    max_output_tokens: int | None = None
    tools: Sequence[Mapping[str, object]] = ()
    tool_choice: str | None = None
    round_states: Sequence[object] = ()
    answer_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of the model's reasoning; never empty, and not part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The provider is about to wait before a retry: for how many seconds, and why. It is shown to the user."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """The wait is over. The request is sent again when the next event is asked for, so the caller can still stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The end of the answer; always the last event.

    ``usage`` is ``None`` if the provider did not report it; ``cost_usd`` is set only if the provider reported the cost
    of the call. ``round_state`` is what the provider needs in the next requests of the same turn in addition to the
    messages; it is never stored. ``has_refused`` is set if the provider marked the text as a refusal.
    """

    model: str
    finish_reason: str
    usage: Usage | None
    cost_usd: Decimal | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    warnings: tuple[str, ...] = ()
    round_state: object = None
    has_refused: bool = False


StreamEvent = TextDelta | ReasoningDelta | Waiting | Retrying | Completion


class Provider(Protocol):
    """A source of answers. ``name`` is stored with each turn; ``model`` is used if a call does not name a model."""

    name: str
    model: str

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Send the request and yield the answer as it arrives, a ``Completion`` last.

        Closing the iterator drops the connection. Raises a ``ProviderError``, with ``partial`` set if some text had
        arrived.
        """
        ...

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:
        """Return the cost of the usage at that time; ``CallCost(None, None)`` if the price is unknown."""
        ...


def offered_models(provider: Provider) -> list[str]:
    """Return the names of the models that a provider lists, sorted; one without a list offers its own model.

    Raises a ``ProviderError`` if the server does not answer.
    """
    models = getattr(provider, "models", None)
    if models is None:
        return [provider.model] if provider.model else []
    return sorted({str(model.get("id", model.get("name"))) for model in models()})
