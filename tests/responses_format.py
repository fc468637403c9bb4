"""Answers as ``/v1/responses`` sends them, and what it refuses; for the chat server of the tests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chat_server import Reply

_KNOWN = {
    *("model", "input", "instructions", "stream", "store", "tools", "tool_choice", "include", "max_output_tokens"),
    *("temperature", "top_p", "reasoning", "text", "metadata", "service_tier", "user", "parallel_tool_calls"),
}


def responses_violation(body: dict[str, Any]) -> str | None:  # noqa: C901, PLR0911, PLR0912 - a line for each rule
    """Return what OpenAI refuses about a request to ``/v1/responses``: fields, pairs of calls, and reasoning."""
    if unknown := body.keys() - _KNOWN:
        return f"Unknown parameter: '{min(unknown)}'."
    if body.get("store") is not False:
        return "This test keeps nothing: 'store' must be false."
    for tool in body.get("tools", ()):
        if tool.keys() != {"type", "name", "description", "parameters", "strict"}:
            return "Missing required parameter: 'tools[0].name'."
    open_calls: set[str] = set()
    is_reasoned = False
    for item in body["input"]:
        kind = item.get("type", "message")
        if open_calls and kind not in {"function_call", "function_call_output"}:
            return f"No tool output found for function call {min(open_calls)}."
        if kind == "function_call":
            open_calls.add(item["call_id"])
            if item.get("id", "").startswith("fc_after_") and not is_reasoned:
                return f"Item '{item['id']}' of type 'function_call' was provided without its 'reasoning' item."
        elif kind == "function_call_output":
            if item["call_id"] not in open_calls:
                return f"No tool call found for function call output with call_id {item['call_id']}."
            open_calls.discard(item["call_id"])
        elif kind == "reasoning":
            if not item.get("encrypted_content"):
                return f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is false."
            is_reasoned = True
        elif item["role"] == "tool" or item.get("content") in (None, "", []):
            return "Invalid value: 'tool'."
    return f"No tool output found for function call {min(open_calls)}." if open_calls else None


def _text_of(reply: Reply, asked: dict[str, Any]) -> str:
    if reply.text is not None:
        return reply.text
    said = [item["content"] for item in asked["input"] if item.get("role") == "user"]
    return f"You said: {said[-1]}"


def response_object(reply: Reply, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the whole answer as one object."""
    text = _text_of(reply, asked)
    output: list[dict[str, Any]] = []
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        output.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAAAA"})
    if reply.text is not None or not reply.tool_calls:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        output.append({**message, "content": content})
    for number, call in enumerate(reply.tool_calls):
        function = call["function"]
        own_id = f"fc_after_{number}" if reply.reasoning else f"fc_{number}"
        own = {"type": "function_call", "id": own_id, "call_id": call["id"], "status": "completed"}
        output.append(own | {"name": function["name"], "arguments": function["arguments"]})
    is_cut = reply.finish_reason == "length"
    usage = reply.usage or {}
    return {
        "id": "resp_1",
        "object": "response",
        "model": reply.model or asked.get("model"),
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "error": None,
        "output": output,
        "usage": {
            "input_tokens": usage.get("prompt_tokens", 0),
            "output_tokens": usage.get("completion_tokens", 0),
            "total_tokens": usage.get("total_tokens", 0),
        },
    }


def response_events(reply: Reply, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer, in OpenAI's order."""
    whole, text = response_object(reply, asked), _text_of(reply, asked)
    yield {"type": "response.created", "response": {**whole, "output": [], "status": "in_progress", "usage": None}}
    for index, item in enumerate(whole["output"]):
        where = {"item_id": item["id"], "output_index": index}
        empty: dict[str, Any] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        begun = item | empty
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        if item["type"] == "reasoning":
            yield {"type": "response.reasoning_summary_text.delta", **where, "delta": reply.reasoning}
        elif item["type"] == "message":
            for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text):
                yield {"type": "response.output_text.delta", **where, "content_index": 0, "delta": word}
        else:
            arguments = item["arguments"]
            size = max(7, len(arguments) // 100)
            for start in range(0, len(arguments), size):
                piece = arguments[start : start + size]
                yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **where, "arguments": arguments}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def named_event(event: object) -> bytes:
    """Return an event with its name, as OpenAI sends it."""
    if isinstance(event, dict):
        return f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode()
    return f"data: {event}\n\n".encode()
