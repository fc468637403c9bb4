"""Tool calls that a model wrote as text, because its server does not parse them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_MARK = re.compile(r"<tool_call|<function[=_]|<\|tool|<\|python_tag\|>|\[TOOL_CALLS\]", re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_MAX_CHARACTERS = 100_000

WRITTEN_CALL = (
    "The answer contains a tool call as text, so no tool was run: this server does not parse the calls of this model. "
    "Start it with a tool-call parser or chat template for the model, or use another model."
)


def has_written_call(text: str, names: Collection[str]) -> bool:
    """Return whether an answer calls one of these tools as text, in a model's own format or as a JSON object.

    >>> has_written_call('<tool_call>{"name": "orders", "arguments": {}}</tool_call>', {"orders"})
    True
    >>> has_written_call("Call orders() for that.", {"orders"})
    False
    """
    if len(text) > _MAX_CHARACTERS or not any(name in text for name in names):
        return False
    return _MARK.search(text) is not None or _is_call(text, names)


def _is_call(text: str, names: Collection[str]) -> bool:
    """Return whether the whole text, or the code block that it consists of, is a call in JSON."""
    fenced = _FENCE.fullmatch(text.strip())
    try:
        found = json.loads(text if fenced is None else fenced[1])
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("name") in names and bool({"arguments", "parameters"} & found.keys())
