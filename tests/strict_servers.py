"""Servers with the restrictions of OpenAI, Mistral, and chat templates, documented or observed.

A rule takes the body of a request and returns the reason in the server's own words, or ``None``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from chat_server import Reply, error_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chat_server import ChatServer, Request

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MISTRAL_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_OPENAI_FIELDS = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "audio"},
    "tool": {"role", "content", "tool_call_id"},
}
_MISTRAL_FIELDS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "prefix"},
    "tool": {"role", "content", "tool_call_id", "name"},
}


def openai_violation(body: dict[str, Any]) -> str | None:  # noqa: PLR0911 - a line for each rule
    """Return what OpenAI's chat completions refuse about a request."""
    messages: list[dict[str, Any]] = body["messages"]
    if not messages:
        return "Invalid 'messages': empty array. Expected an array with minimum length 1."
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if open_calls and role != "tool":
            return (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}"
            )
        if unknown := message.keys() - _OPENAI_FIELDS[role] - ({"name"} if role == "tool" else set()):
            return f"Unrecognized field 'messages[{at}].{min(unknown)}'."
        if role == "tool" and message.get("tool_call_id") not in open_calls:
            return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
        open_calls.discard(message.get("tool_call_id", ""))
        if content is None and not message.get("tool_calls"):
            return f"Invalid value for 'content': expected a string, got null. (messages.[{at}].content)"
        if isinstance(content, list) and not content:
            return f"Invalid 'messages[{at}].content': empty array."
        if (name := message.get("name")) is not None and not _NAME.fullmatch(name):
            return f"Invalid 'messages[{at}].name': string does not match pattern."
        open_calls |= {call["id"] for call in message.get("tool_calls", ())}
    return "tool_calls without response messages" if open_calls else None


def mistral_violation(body: dict[str, Any]) -> str | None:  # noqa: PLR0911 - a line for each rule
    """Return what Mistral's API, or a chat template of its models, refuses about a request."""
    messages: list[dict[str, Any]] = body["messages"]
    roles = [message["role"] for message in messages]
    if "stream_options" in body:
        return "Extra inputs are not permitted: stream_options"
    if "system" in roles[1:]:
        return "Expected the optional system message to come first, and only one"
    said = messages[1:] if roles[:1] == ["system"] else messages
    previous = ""
    for at, message in enumerate(said):
        role = message["role"]
        if unknown := message.keys() - _MISTRAL_FIELDS[role]:
            return f"Extra inputs are not permitted: {min(unknown)}"
        allowed = {"": {"user"}, "user": {"assistant"}, "assistant": {"user"}, "tool": {"assistant", "tool"}}
        expected = {"tool"} if previous == "assistant" and said[at - 1].get("tool_calls") else allowed[previous]
        if role not in expected:
            return f"Unexpected role '{role}' after role '{previous or 'system'}'"
        content = message.get("content")
        is_blank = not content or (isinstance(content, str) and not content.strip())
        if role == "assistant" and is_blank and not message.get("tool_calls"):
            return "Assistant message must have either content or tool_calls, but not none."
        if role == "user" and is_blank:
            return "User message must not be empty"
        if any(not _MISTRAL_CALL_ID.fullmatch(call["id"]) for call in message.get("tool_calls", ())):
            return "Tool call id must be a-z, A-Z, 0-9, with a length of 9."
        previous = role
    return None if previous in {"user", "tool"} else f"Expected last role User or Tool but got {previous}"


def gemma_violation(body: dict[str, Any]) -> str | None:
    """Return what a server with Gemma's chat template refuses: the system role, and roles that do not alternate."""
    roles = [message["role"] for message in body["messages"]]
    if "system" in roles:
        return "System role not supported"
    if roles != [("user", "assistant")[at % 2] for at in range(len(roles))]:
        return "Conversation roles must alternate user/assistant/user/assistant/..."
    return None


def strict(
    server: ChatServer, *rules: Callable[[dict[str, Any]], str | None], status: int = 400, replies: Sequence[Reply] = ()
) -> list[str]:
    """Let the server refuse what violates a rule, and answer the rest by ``replies``, then as usual.

    Returns the list of what it refused, which grows.
    """
    refused: list[str] = []
    left = list(replies)

    def answer(request: Request) -> Reply:
        for rule in rules:
            violation = rule(request.body)
            if violation is not None:
                refused.append(violation)
                return error_reply(status, violation)
        return left.pop(0) if left else Reply(text="Fine.")

    server.usual = answer
    return refused
