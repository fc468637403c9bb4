"""One chat request as the bytes that go out.

The client's own encoder walks every field of every message, which takes longer than the network on a long
conversation; so the body is written here, the common message (a role and a text) without a look at the rest.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.turns import without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.providers.base import ChatRequest
    from promptkit_nb.providers.openai_errors import Refusal
    from promptkit_nb.turns import ContentPart, Message

LimitName = Literal["max_tokens", "max_completion_tokens"]

_LIMIT_NAMES: tuple[LimitName, LimitName] = ("max_tokens", "max_completion_tokens")
_OURS = ("messages", "model", "stream")
_UNKNOWN_TO_SERVER = re.compile(
    r"not supported|unsupported|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra_forbidden|invalid"
    r" (?:parameter|field|argument)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What servers disagree on: the name of the output limit, and whether they take ``stream_options``."""

    limit_name: LimitName = "max_tokens"
    limit_swapped: bool = False
    stream_options: bool = True

    def after(self, refusal: Refusal | None) -> Dialect | None:
        """Return how to ask again after a refusal that names one of the two, else ``None``.

        Each is given up once only, so that asking again ends.

        >>> from promptkit_nb.providers.openai_errors import Refusal
        >>> Dialect().after(Refusal(400, "Unsupported parameter: 'max_tokens'")).limit_name
        'max_completion_tokens'
        """
        if refusal is None or refusal.status not in {400, 422}:
            return None
        words = f"{refusal.words} {refusal.code}"
        if self.stream_options and ("stream_options" in words or "include_usage" in words):
            return replace(self, stream_options=False)
        if self.limit_swapped or self.limit_name not in words or not _UNKNOWN_TO_SERVER.search(words):
            return None
        other = _LIMIT_NAMES[1 - _LIMIT_NAMES.index(self.limit_name)]
        return replace(self, limit_name=other, limit_swapped=True)


def encode_request(request: ChatRequest, dialect: Dialect) -> bytes:
    """Return the request as JSON in OpenAI's chat format, to be answered as a stream.

    Raises ``InvalidArgumentError`` for parameters or tools that are not JSON, or that set what the request itself sets.
    """
    head = _encode_options(_options(request, dialect))
    body = msgspec.json.encode({"messages": [encode_message(message) for message in request.messages]})
    return head[:-1] + b"," + body[1:]


def encode_message(message: Message) -> dict[str, object]:
    """Return the message in OpenAI's chat format; its reasoning stays here."""
    if not (message.parts or message.tool_calls or message.tool_call_id or message.name):
        return {"role": message.role, "content": message.content}
    encoded: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        encoded["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": without_lone_surrogates(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        encoded["tool_call_id"] = message.tool_call_id
    if message.name:
        encoded["name"] = message.name
    return encoded


def _content(message: Message) -> str | list[dict[str, object]] | None:
    if not message.parts:
        return None if message.tool_calls and not message.content else message.content
    parts = [_part(part) for part in message.parts]
    if message.content and all(part.type != "text" for part in message.parts):
        parts.insert(0, {"type": "text", "text": message.content})
    return parts


def _part(part: ContentPart) -> dict[str, object]:
    if part.type == "text":
        return {"type": "text", "text": without_lone_surrogates(part.text)}
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


def _options(request: ChatRequest, dialect: Dialect) -> dict[str, object]:
    """Everything but the messages. A limit among the parameters is one too: packs write it so."""
    parameters = dict(request.parameters)
    taken = [name for name in _OURS if name in parameters]
    if taken:
        raise InvalidArgumentError(f"The parameter {taken[0]!r} is set by the request itself; leave it out.")
    limits = [parameters.pop(name) for name in _LIMIT_NAMES if name in parameters]
    if request.max_output_tokens is not None:
        limits = [request.max_output_tokens]
    options: dict[str, object] = {"model": request.model, "stream": True}
    if dialect.stream_options:
        options["stream_options"] = {"include_usage": True}
    if request.tools:
        options["tools"] = [dict(tool) for tool in request.tools]
    if limits:
        options[dialect.limit_name] = limits[0]
    return options | parameters


def _encode_options(options: Mapping[str, object]) -> bytes:
    """Encode with the strict encoder: the quick one would send NaN as null."""
    try:
        return json.dumps(options, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"Parameters and tools must be plain JSON values: {error}.") from error
