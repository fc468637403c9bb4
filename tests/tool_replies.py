"""Scripted answers that call tools, for the chat server of the tests."""

from __future__ import annotations

import json
from typing import Any

from chat_server import Reply


def tool_call(name: str, arguments: object, call_id: str = "call_abc") -> dict[str, Any]:
    """Return a call as OpenAI writes it; arguments that are text are written as they are."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def calling(*calls: dict[str, Any], text: str | None = None, **fields: Any) -> Reply:
    """Return a reply that calls tools."""
    return Reply(text=text, tool_calls=calls, **fields)


def chunk(delta: object = None, **fields: Any) -> dict[str, Any]:
    """Return one event of a stream with this delta; further fields belong to the choice."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


STOP = chunk({}, finish_reason="stop")


def pieces(*deltas: object) -> Reply:
    """Return a reply whose events carry these pieces of tool calls, with the finish reason that some servers send."""
    return Reply(chunks=[*(chunk({"tool_calls": [delta]}) for delta in deltas), STOP])
