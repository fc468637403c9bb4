"""Parses the answers of OpenAI-compatible servers, which do not always follow the format.

A stream of events or one JSON object, missing ids, choices or usage, numbers as text and half emojis are all accepted.
A reply that is not an answer, or that stops before its end, is an error: a partial answer must not pass for a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import ProviderError
from promptkit_nb.providers.base import ChatRequest, Completion, ReasoningDelta, TextDelta
from promptkit_nb.providers.openai_errors import ErrorMapper, ErrorResponse, is_error, json_or_text
from promptkit_nb.providers.openai_usage import ReportedUsage
from promptkit_nb.secret import StreamHider
from promptkit_nb.turns import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def event_data(received: Iterator[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event; if there are none, the whole body once it has arrived.

    Only line feeds end a line: text may contain other characters that Python treats as line ends. An event that the end
    of the reply cuts short is yielded too.
    """
    data: list[str] = []
    body: list[str] = []
    has_events = False
    for line in _lines(received):
        name, _, value = line.partition(":")
        if name == "data":
            has_events = True
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
        elif not has_events and name not in ("", "event", "id", "retry"):
            body.append(line)
    if data:
        yield "\n".join(data)
    if body and not has_events:
        yield "\n".join(body)


def _lines(received: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for block in received:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r").removeprefix("\ufeff")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r").removeprefix("\ufeff")


_DONE = "[DONE]"


@dataclass(slots=True)
class _TextBuffer:
    """Text that arrives in pieces. Half an emoji (a high surrogate) is held back until its other half arrives."""

    hide: StreamHider[str]
    pieces: list[str] = field(default_factory=list)
    _half: str = ""

    def add(self, piece: str) -> str:
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return self._kept(piece)

    def flush(self) -> str:
        half, self._half = self._half, ""
        return self._kept(half, self.hide.rest)

    def _kept(self, piece: str, rest: Callable[[], str] = str) -> str:
        piece = self.hide(without_lone_surrogates(piece)) + rest()
        if piece:
            self.pieces.append(piece)
        return piece


@dataclass(slots=True)
class _PartialToolCall:
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def whole(self) -> ToolCall:
        arguments = without_lone_surrogates(self.arguments)
        return ToolCall(id=self.id or f"call_{self.index}", name=self.name, arguments=arguments or "{}")


class AnswerParser:
    """Parses the answer to one request while it arrives."""

    def __init__(self, errors: ErrorMapper, request: ChatRequest, *, header_cost: str | None = None) -> None:
        """Start with nothing received; ``header_cost`` is the cost in dollars that the reply's headers report."""
        self._errors = errors
        self._request = request
        self._answering_model = ""
        self._text = _TextBuffer(errors.hider(""))
        self._reasoning = _TextBuffer(errors.hider(""))
        self._calls: list[_PartialToolCall] = []
        self._finish_reason = ""
        self._reported = ReportedUsage(header_cost=header_cost)
        self._has_choice = False
        self._is_done = False

    @property
    def text(self) -> str:
        """The text that has arrived."""
        return "".join(self._text.pieces)

    def events(self, received: Iterator[bytes]) -> Iterator[TextDelta | ReasoningDelta | Completion]:
        """Yield the pieces of the answer as the bytes of the reply arrive, a ``Completion`` last.

        Raises a ``ProviderError`` with ``partial`` set, also if reading the bytes raises one.
        """
        data = ""
        for data in event_data(self._until_complete(received)):
            if data.startswith(_DONE):
                self._is_done = True
                continue  # read to the end of the reply, so that the connection can be reused
            yield from self._deltas(data)
        if not self._has_choice:
            raise self._errors.unreadable(data)
        if not self._is_complete:
            raise self._errors.incomplete(partial=self.text)
        yield from self._remainder()
        yield self._completion()

    @property
    def _is_complete(self) -> bool:
        return self._is_done or bool(self._finish_reason)

    def _until_complete(self, received: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the bytes on. A connection that fails after the answer is complete does no harm."""
        try:
            yield from received
        except ProviderError as error:
            if not self._is_complete:
                error.partial = self.text
                raise

    def _deltas(self, data: str) -> Iterator[TextDelta | ReasoningDelta]:
        chunk = json_or_text(data)
        if not isinstance(chunk, dict) and self._is_complete:
            return  # a usage chunk cut short; the answer itself is whole
        if not isinstance(chunk, dict):
            raise self._errors.unreadable(data, partial=self.text)
        if is_error(chunk):
            response = ErrorResponse.from_body(chunk)
            raise self._errors.from_response(response, self._request, partial=self.text)
        self._answering_model = self._answering_model or _text(chunk.get("model"))
        self._reported.read(chunk)
        for choice in _mappings(chunk.get("choices")):
            if choice.get("index") in (None, 0):
                yield from self._deltas_of_choice(choice)

    def _deltas_of_choice(self, choice: dict[str, object]) -> Iterator[TextDelta | ReasoningDelta]:
        self._has_choice = True
        self._finish_reason = _text(choice.get("finish_reason")) or self._finish_reason
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return
        reasoning = self._reasoning.add(_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")))
        if reasoning:
            yield ReasoningDelta(reasoning)
        text = self._text.add(_text(delta.get("content")) + _text(delta.get("refusal")))
        if text:
            yield TextDelta(text)
        for call in _mappings(delta.get("tool_calls")):
            self._read_tool_call(call)

    def _read_tool_call(self, delta: dict[str, object]) -> None:
        """Add a piece of a tool call to the call with its index; without an index, a new id starts a new call."""
        call_id, index = _text(delta.get("id")), delta.get("index")
        if isinstance(index, int):
            call = next((call for call in self._calls if call.index == index), None)
        else:
            call = next((call for call in self._calls[-1:] if call_id in ("", call.id)), None)
        if call is None:
            call = _PartialToolCall(index if isinstance(index, int) else len(self._calls))
            self._calls.append(call)
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        call.id = call.id or call_id
        call.name = call.name or _text(function.get("name"))
        arguments = function.get("arguments")
        call.arguments += json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)

    def _remainder(self) -> Iterator[TextDelta | ReasoningDelta]:
        if reasoning := self._reasoning.flush():
            yield ReasoningDelta(reasoning)
        if text := self._text.flush():
            yield TextDelta(text)

    def _completion(self) -> Completion:
        return Completion(
            model=self._answering_model or self._request.model,
            finish_reason=self._finish_reason or ("tool_calls" if self._calls else "unknown"),
            usage=self._reported.usage,
            cost_usd=self._reported.cost_usd,
            warnings=self._warnings(),
            tool_calls=tuple(call.whole() for call in sorted(self._calls, key=lambda call: call.index)),
        )

    def _warnings(self) -> tuple[str, ...]:
        """Return a warning for each kind of figure that is not believed."""
        reported, host = self._reported, self._errors.host
        warnings = []
        if reported.has_absurd_tokens:
            warnings.append(f"{host} reported token counts that cannot be true; the tokens are estimated.")
        if reported.has_absurd_cost:
            warnings.append(f"{host} reported a cost that cannot be true; it is not used.")
        return tuple(warnings)


def _mappings(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Return the text of a string or of a list of text parts, else an empty string."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    return "".join(_text(item.get("text")) if isinstance(item, dict) else _text(item) for item in value)
