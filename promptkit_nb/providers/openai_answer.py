"""Parses the answers of OpenAI-compatible servers, which do not always follow the format.

It accepts a stream of events or one JSON object, missing ids, choices or usage, numbers as text, half emojis, and
messages that repeat the streamed text. A reply that is not an answer, contains an error, or ends early raises an error,
so that a partial answer is never taken for a whole one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.endings import UNKNOWN, decisive_reason, failure_of
from promptkit_nb.errors import ContextWindowExceededError, ProviderError
from promptkit_nb.providers.base import ChatRequest, Completion, ReasoningDelta, TextDelta
from promptkit_nb.providers.openai_errors import (
    ErrorMapper,
    ErrorResponse,
    RequestError,
    is_error,
    json_or_text,
)
from promptkit_nb.providers.openai_events import DONE, ServerEvent, read_events
from promptkit_nb.providers.openai_usage import ReportedUsage
from promptkit_nb.secret import StreamHider
from promptkit_nb.thinking import ThinkingSplitter
from promptkit_nb.turns import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REASONING_NAMES = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_NO_REASONS = frozenset({"", "null", "none"})


@dataclass(slots=True)
class _TextBuffer:
    """Text that arrives in pieces. Half an emoji (a high surrogate) is held back until its other half arrives."""

    hide: StreamHider[str]
    _said: list[str] = field(default_factory=list)
    _half: str = ""

    def add(self, piece: str) -> str:
        self._said.append(piece)
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return self._kept(piece)

    def flush(self) -> str:
        half, self._half = self._half, ""
        return self._kept(half, self.hide.rest)

    def rest_of(self, whole: str, *, is_only: bool) -> str:
        """Return the part of a repeated message that is not in the text; ``is_only`` if its chunk has nothing else."""
        said = "".join(self._said)
        if whole.startswith(said):
            return whole[len(said) :]
        return whole if is_only else ""

    def _kept(self, piece: str, rest: Callable[[], str] = str) -> str:
        return self.hide(without_lone_surrogates(piece)) + rest()


@dataclass(slots=True)
class PartialToolCall:
    """A tool call whose arguments are still arriving."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    vendor_fields: dict[str, object] = field(default_factory=dict)

    def add_arguments(self, arguments: object) -> None:
        """Add a piece of the arguments, which some servers send as an object."""
        self.arguments += json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)

    def whole(self) -> ToolCall:
        """Return the call; without an id, it gets one that is not unique."""
        arguments = without_lone_surrogates(self.arguments)
        return ToolCall(id=self.id or f"call_{self.index}", name=self.name, arguments=arguments or "{}")


class AnswerParser:
    """Parses the answer to one request while it arrives."""

    def __init__(self, errors: ErrorMapper, request: ChatRequest, *, header_cost: str | None = None) -> None:
        """Start with nothing received; ``header_cost`` is the cost in dollars that the reply's headers report."""
        self._errors = errors
        self._request = request
        self._answering_model = ""
        self._content = _TextBuffer(errors.hider(""))
        self._reasoning = _TextBuffer(errors.hider(""))
        self._splitter = ThinkingSplitter()
        self._texts: list[str] = []
        self._calls: list[PartialToolCall] = []
        self._finish_reason = ""
        self._vendor_reasons: list[str] = []
        self._reported = ReportedUsage(header_cost=header_cost)
        self._has_choice = self._is_done = self._has_data = self._is_read = self._has_refused = False

    @property
    def text(self) -> str:
        """The text that has arrived, without thinking."""
        return "".join(self._texts)

    @property
    def is_empty(self) -> bool:
        """Whether the reply is empty, apart from the mark for the end of a stream."""
        return self._is_read and not self._has_data

    def events(self, received: Iterator[bytes]) -> Iterator[TextDelta | ReasoningDelta | Completion]:
        """Yield the pieces of the answer as the bytes of the reply arrive, a ``Completion`` last.

        Raises a ``ProviderError`` with ``partial`` and ``completion`` set, also if reading the bytes raises one.
        """
        try:
            yield from self._read(received)
        except (ProviderError, ContextWindowExceededError) as error:
            error.partial = self.text
            error.completion = self._completion() if self._reported.usage is not None else None
            raise
        yield self._completion()

    def _read(self, received: Iterator[bytes]) -> Iterator[TextDelta | ReasoningDelta]:
        data = ""
        for event in read_events(self._until_complete(received)):
            data = event.data
            if data.startswith(DONE):
                self._is_done = True
                continue  # read to the end of the reply, so that the connection can be reused
            yield from self._deltas(event)
        self._is_read = True
        if not self._has_choice:
            raise self._errors.unreadable(data)
        if not self._is_complete:
            raise self._errors.incomplete()
        yield from self._remainder()
        failure = failure_of(self._decisive_reason, self.text, self._errors.host)
        if failure is not None:
            raise failure

    @property
    def _is_complete(self) -> bool:
        return self._is_done or bool(self._finish_reason)

    @property
    def _decisive_reason(self) -> str:
        if not self._finish_reason and self._calls:
            return "tool_calls"
        return decisive_reason(self._finish_reason, self._vendor_reasons)

    def _until_complete(self, received: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the bytes on. A connection that fails after the answer is complete does no harm."""
        try:
            yield from received
        except ProviderError:
            if not self._is_complete:
                raise

    def _deltas(self, event: ServerEvent) -> Iterator[TextDelta | ReasoningDelta]:
        chunk = json_or_text(event.data)
        is_answer = isinstance(chunk, dict) and "choices" in chunk
        if event.kind != "error" and (not event.data.strip() or (event.kind == "other" and not is_answer)):
            return  # a keep-alive, or an extension
        if event.kind == "error" or (isinstance(chunk, dict) and is_error(chunk)):
            self._has_data = True
            raise self._reported_error(chunk)
        self._has_data = True
        if not isinstance(chunk, dict):
            if self._is_complete:
                return  # a truncated usage chunk; the answer itself is whole
            raise self._errors.incomplete() if self._has_choice else self._errors.unreadable(event.data)
        self._answering_model = self._answering_model or _text(chunk.get("model"))
        self._reported.read(chunk)
        for choice in _mappings(chunk.get("choices")):
            if choice.get("index") in (None, 0):
                self._is_done = self._is_done or event.kind == "body"  # whole JSON is a whole reply
                yield from self._deltas_of_choice(choice)

    def _deltas_of_choice(self, choice: dict[str, object]) -> Iterator[TextDelta | ReasoningDelta]:
        self._has_choice = True
        self._read_reasons(choice)
        delta, message = (_mapping(choice.get(name)) for name in ("delta", "message"))
        self._has_refused = self._has_refused or bool(_text(delta.get("refusal")) or _text(message.get("refusal")))
        failed = next((holder for holder in (choice, delta, message) if holder.get("error")), None)
        yield from self._pieces(_reasoning_of(delta), _content_of(delta))
        if message:  # the whole answer, a repetition of the streamed text, or a piece under another name
            is_only = "delta" not in choice
            yield from self._pieces(
                self._reasoning.rest_of(_reasoning_of(message), is_only=is_only),
                self._content.rest_of(_content_of(message), is_only=is_only),
            )
        calls = _mappings(delta.get("tool_calls")) or ([] if self._calls else _mappings(message.get("tool_calls")))
        for call in calls:
            self._read_tool_call(call)
        if failed is not None:
            raise self._reported_error(failed)

    def _read_reasons(self, choice: dict[str, object]) -> None:
        """Read the finish reason, and the vendor's own one from ``native_finish_reason`` and similar fields."""
        vendor_fields = _mapping(choice.get("provider_specific_fields"))
        for name, value in (*choice.items(), *vendor_fields.items()):
            reason = _text(value) if name.endswith("finish_reason") else ""
            if reason.casefold() in _NO_REASONS:
                continue
            if name == "finish_reason":
                self._finish_reason = reason
            else:
                self._vendor_reasons.append(reason)

    def _reported_error(self, body: object) -> RequestError:
        return self._errors.from_response(ErrorResponse.from_body(body), self._request)

    def _pieces(self, reasoning: str, content: str) -> Iterator[TextDelta | ReasoningDelta]:
        """Yield the reasoning and text in two pieces; thinking within the content counts as reasoning."""
        yield from self._events_of(self._reasoning.add(reasoning), "")
        yield from self._events_of(*self._splitter.feed(self._content.add(content)))

    def _remainder(self) -> Iterator[TextDelta | ReasoningDelta]:
        yield from self._events_of(self._reasoning.flush(), "")
        yield from self._events_of(*self._splitter.feed(self._content.flush()))
        yield from self._events_of(*self._splitter.flush())

    def _events_of(self, reasoning: str, text: str) -> Iterator[TextDelta | ReasoningDelta]:
        if reasoning:
            yield ReasoningDelta(reasoning)
        if text:
            self._texts.append(text)
            yield TextDelta(text)

    def _read_tool_call(self, delta: dict[str, object]) -> None:
        """Add a piece of a tool call to the last one with its index; a new id starts a new call, with or without it."""
        call_id, index = _text(delta.get("id")), delta.get("index")
        calls = self._calls[-1:]
        if isinstance(index, int):
            calls = [call for call in self._calls if call.index == index][-1:]
        call = next((call for call in calls if not (call_id and call.id) or call_id == call.id), None)
        if call is None:
            call = PartialToolCall(index if isinstance(index, int) else len(self._calls))
            self._calls.append(call)
        function = _mapping(delta.get("function"))
        call.id = call.id or call_id
        call.name = call.name or _text(function.get("name"))
        call.vendor_fields.update({name: value for name, value in delta.items() if name not in _CALL_FIELDS})
        call.add_arguments(function.get("arguments"))

    def _completion(self) -> Completion:
        return Completion(
            model=self._answering_model or self._request.model,
            finish_reason=self._decisive_reason or UNKNOWN,
            usage=self._reported.usage,
            cost_usd=self._reported.cost_usd,
            warnings=self._warnings(),
            tool_calls=tuple(call.whole() for call in self._ordered_calls),
            round_state=self._round_state(),
            has_refused=self._has_refused,
        )

    def _round_state(self) -> object:
        """Return the vendor's own fields of the tool calls, if there are any, which some servers want back."""
        fields = [call.vendor_fields for call in self._ordered_calls]
        return fields if any(fields) else None

    @property
    def _ordered_calls(self) -> list[PartialToolCall]:
        return sorted(self._calls, key=lambda call: call.index)

    def _warnings(self) -> tuple[str, ...]:
        """Return a warning for each kind of implausible figure."""
        reported, host = self._reported, self._errors.host
        warnings = []
        if reported.has_absurd_tokens:
            warnings.append(f"{host} reported implausible token counts; the tokens are estimated.")
        if reported.has_absurd_cost:
            warnings.append(f"{host} reported an implausible cost, which is ignored.")
        return tuple(warnings)


def _content_of(delta: dict[str, object]) -> str:
    return _text(delta.get("content")) + _text(delta.get("refusal"))


def _reasoning_of(delta: dict[str, object]) -> str:
    """Return the reasoning of a delta or message; some servers send it twice, under two names."""
    named = next((text for name in _REASONING_NAMES if (text := _text(delta.get(name)))), "")
    within = "".join(_text(part.get("thinking")) for part in _mappings(delta.get("content")))  # Mistral
    details = "".join(
        _text(part.get("text")) or _text(part.get("summary")) for part in _mappings(delta.get("reasoning_details"))
    )
    return named or within or details


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Return the text of a string or of a list of text parts, else an empty string."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    return "".join(_text(item.get("text")) if isinstance(item, dict) else _text(item) for item in value)
