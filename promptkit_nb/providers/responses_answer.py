"""Parses the answers of ``/v1/responses``: streamed events, then the whole response, which takes precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.providers.openai_answer import AnswerParser, PartialToolCall
from promptkit_nb.providers.openai_errors import json_or_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.providers.base import ReasoningDelta, TextDelta
    from promptkit_nb.providers.openai_events import ServerEvent

_REFUSAL = "response.refusal.delta"
_TEXT = frozenset({"response.output_text.delta", _REFUSAL})
_REASONING = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesParser(AnswerParser):
    """Parses the answer to one request as it arrives.

    Pieces belong to the item named by their ``item_id``; if the final response differs, it takes precedence.
    """

    _items: dict[str, dict[str, Any]]
    _output: list[Any]

    def _deltas(self, event: ServerEvent) -> Iterator[TextDelta | ReasoningDelta]:
        chunk = json_or_text(event.data)
        if not isinstance(chunk, dict) or event.kind in ("error", "body") or "type" not in chunk:
            yield from self._other(event, chunk)
            return
        self._has_data = self._has_choice = True
        kind, delta = str(chunk["type"]), chunk.get("delta")
        if kind == "error":  # documented as flat, sent nested
            raise self._reported_error(chunk)
        if kind in _ENDS:
            yield from self._end(_mapping(chunk.get("response")))
        elif kind in _TEXT and isinstance(delta, str):
            self._has_refused = self._has_refused or kind == _REFUSAL
            yield from self._pieces("", delta)
        elif kind in _REASONING and isinstance(delta, str):
            yield from self._pieces(delta, "")
        else:
            self._read_item(kind, chunk)

    def _other(self, event: ServerEvent, chunk: Any) -> Iterator[TextDelta | ReasoningDelta]:
        """Read a response in one piece, or an event in another format."""
        is_response = isinstance(chunk, dict) and "output" in chunk
        if is_response and not chunk.get("error"):
            self._has_data = True
            yield from self._end(chunk)
        elif event.kind != "error" and isinstance(chunk, dict) and "error" not in chunk:
            if event.kind == "body":
                self._has_data = True
                raise self._errors.unreadable(event.data)
        elif event.data.strip() and (event.kind != "other" or isinstance(chunk, dict)):
            self._has_data = True
            if isinstance(chunk, dict) or event.kind == "error":
                raise self._reported_error(chunk)
            raise self._errors.unreadable(event.data)

    def _read_item(self, kind: str, chunk: dict[str, Any]) -> None:
        """Collect the items of the output, which are used if the final response has none."""
        items = self.__dict__.setdefault("_items", {})
        item = _mapping(chunk.get("item"))
        if kind in {"response.output_item.added", "response.output_item.done"} and item:
            items[str(item.get("id") or len(items))] = item
        elif kind == "response.function_call_arguments.done" and str(chunk.get("item_id")) in items:
            called = items[str(chunk["item_id"])]
            items[str(chunk["item_id"])] = {**called, "arguments": chunk.get("arguments", called.get("arguments"))}

    def _end(self, response: dict[str, Any]) -> Iterator[TextDelta | ReasoningDelta]:
        """Read the whole response: text that was not streamed, the calls, the usage, and the ending."""
        self._has_choice = self._is_done = True
        self._answering_model = str(response.get("model") or "")
        self._reported.read(response)
        if response.get("error") or response.get("status") == "failed":
            raise self._reported_error(response if response.get("error") else {"error": {"message": "it failed"}})
        items = self.__dict__.get("_items", {})
        output = response.get("output") or [*items.values()]
        self._output = [item for item in output if isinstance(item, dict)]
        self._has_refused = self._has_refused or any(part.get("refusal") for part in _parts_of(self._output))
        yield from self._pieces(
            self._reasoning.rest_of(_reasoning_in(self._output), is_only=False),
            self._content.rest_of(_text_in(self._output), is_only=False),
        )
        for item in self._output:
            if item.get("type") == "function_call":
                call = PartialToolCall(len(self._calls), str(item.get("call_id") or ""), str(item.get("name") or ""))
                call.add_arguments(item.get("arguments"))
                self._calls.append(call)
        reason = _mapping(response.get("incomplete_details")).get("reason")
        whole = "tool_calls" if self._calls else "stop"
        self._finish_reason = str(reason or "length") if response.get("status") == "incomplete" else whole

    def _round_state(self) -> object:
        """Return the output items unchanged, because reasoning and calls belong together."""
        return self._output if self._calls else None


def _parts_of(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for item in output if item.get("type") == "message" for part in _mappings(item.get("content"))]


def _text_in(output: list[dict[str, Any]]) -> str:
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in _parts_of(output))


def _reasoning_in(output: list[dict[str, Any]]) -> str:
    items = [item for item in output if item.get("type") == "reasoning"]
    summaries = [part for item in items for part in _mappings(item.get("summary"))]
    parts = summaries or [part for item in items for part in _mappings(item.get("content"))]
    return "".join(str(part.get("text") or "") for part in parts)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
