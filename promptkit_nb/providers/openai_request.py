"""Encodes a chat request as the JSON body that is sent.

The client's own encoder walks every field of every message, which takes longer than the network for a long
conversation. So the body is encoded here, with a short path for the common message: a role and a text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.turns import ContentPart, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from promptkit_nb.providers.base import ChatRequest
    from promptkit_nb.providers.openai_errors import ErrorResponse

Path = Literal["/chat/completions", "/responses"]
CHAT_PATH: Path = "/chat/completions"
RESPONSES_PATH: Path = "/responses"
LimitName = Literal["max_tokens", "max_completion_tokens"]

_LIMIT_NAMES: tuple[LimitName, LimitName] = ("max_tokens", "max_completion_tokens")
_RESERVED = ("messages", "model", "stream")
_REJECTED = frozenset({400, 422})
_NOT_FOUND = 404
_REJECTED_BY_TEMPLATE = frozenset({403, 404, 500, 501})  # some servers report a failing chat template this way
_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
_UNSUPPORTED = re.compile(
    r"not supported|unsupported|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra_forbidden|invalid"
    r" (?:parameter|field|argument)",
    re.IGNORECASE,
)


# Errors if a model cannot stream: "does not support streaming", "must be verified to stream this model" …
_NO_STREAM = re.compile(
    r"verified to stream|\bstream(?:ing)?\b[^.]{0,40}(?:not (?:supported|available|allowed)|unsupported)"
    r"|\bstream\b[^.]{0,10}(?:does not|doesn't) support|(?:not|n't) support[^.]{0,20}\bstream",
    re.IGNORECASE,
)
# Errors if a model is offered at the other path only, with tools or at all.
_ONLY_RESPONSES = re.compile(r"v1/responses\b|responses (?:api|endpoint)", re.IGNORECASE)
_NO_SCHEMA = re.compile(
    r"response_format|json_schema|json_object|json mode|text\.format|structured output|schema", re.IGNORECASE
)
_JSON_OBJECT, _PROMPT_ONLY = 2, 3  # the lower rungs of typed answers, below strict and loose schemas
_NO_ENCRYPTED = re.compile(r"encrypted|\binclude\b", re.IGNORECASE)
# Errors if a chat template has no system role. Some templates only say that user and assistant must alternate.
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt)s?\b[^.]{0,30}(?:not |un)(?:supported|allowed|available)|roles? must alternate"
    r"|(?:not|n't) support[^.]{0,30}\bsystem\b|only (?:support )?user and assistant roles"
    r"|developer instruction is not enabled",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """Differences between models: output limit, ``stream_options``, streaming, the system role, ``tool_choice``."""

    limit_name: LimitName = "max_tokens"
    is_limit_renamed: bool = False
    has_stream_options: bool = True
    is_streamed: bool = True
    has_system_role: bool = True
    has_tool_choice: bool = True
    sends_reasoning: bool = False
    has_encrypted_reasoning: bool = True
    path: Path = CHAT_PATH
    may_switch: bool = False
    answer_rung: int = 0

    @property
    def next_rung(self) -> int:
        """The next way to ask for a typed answer; the last one is the prompt alone."""
        return min(self.answer_rung + 1, _PROMPT_ONLY)

    def adapted_to(self, response: ErrorResponse | None, *, is_typed: bool = False) -> RequestFormat | None:
        """Return the format to try next if the error rejects one of these, else ``None``.

        Each is changed once only, so that retrying ends; ``is_typed`` is whether a typed answer was asked for.

        >>> from promptkit_nb.providers.openai_errors import ErrorResponse
        >>> RequestFormat().adapted_to(ErrorResponse(400, "Unsupported parameter: 'max_tokens'")).limit_name
        'max_completion_tokens'
        """
        if response is None:
            return None
        message = f"{response.message} {response.code}"
        is_rejected = response.status in _REJECTED
        is_rejected_by_template = is_rejected or response.status in _REJECTED_BY_TEMPLATE
        is_limit_rejected = is_rejected and self.limit_name in message and bool(_UNSUPPORTED.search(message))
        is_usage_rejected = is_rejected and ("stream_options" in message or "include_usage" in message)
        is_encryption_rejected = is_rejected and self.path == RESPONSES_PATH and bool(_NO_ENCRYPTED.search(message))
        is_elsewhere = (is_rejected or response.status == _NOT_FOUND) and bool(_ONLY_RESPONSES.search(message))
        needs_responses = self.may_switch and is_elsewhere
        other_limit = _LIMIT_NAMES[1 - _LIMIT_NAMES.index(self.limit_name)]
        changes: tuple[tuple[bool, dict[str, Any]], ...] = (
            (is_rejected and "reasoning_content" in message, {"sends_reasoning": True}),
            (is_usage_rejected, {"has_stream_options": False}),
            (needs_responses, {"path": RESPONSES_PATH}),
            (is_rejected and is_typed and bool(_NO_SCHEMA.search(message)), {"answer_rung": self.next_rung}),
            (is_encryption_rejected, {"has_encrypted_reasoning": False}),
            (is_rejected and "tool_choice" in message, {"has_tool_choice": False}),
            (is_limit_rejected and not self.is_limit_renamed, {"limit_name": other_limit, "is_limit_renamed": True}),
            (is_rejected_by_template and bool(_NO_SYSTEM.search(message)), {"has_system_role": False}),
            (is_rejected_by_template and bool(_NO_STREAM.search(message)), {"is_streamed": False}),
        )
        adapted = (replace(self, **change) for is_due, change in changes if is_due)
        return next((each for each in adapted if each != self), None)

    def without_stream(self) -> RequestFormat:
        """Return the format without streaming."""
        return replace(self, is_streamed=False)


def encode_request(request: ChatRequest, request_format: RequestFormat) -> bytes:
    """Return the request as JSON in OpenAI's chat format.

    Raises ``InvalidArgumentError`` if parameters or tools are not JSON, or if a parameter is one that the request sets.
    """
    head = encode_options(_options(request, request_format))
    messages = with_schema(request, request_format)
    messages = messages if request_format.has_system_role else fold_system_message(messages)
    encoded = [encode_message(message) for message in messages]
    if request.round_states:
        _restore_fields(encoded, request.round_states)
    if request_format.sends_reasoning:
        _add_reasoning(encoded, messages)
    body = msgspec.json.encode({"messages": encoded})
    return head[:-1] + b"," + body[1:]


def _restore_fields(messages: Sequence[dict[str, Any]], round_states: Sequence[object]) -> None:
    """Give the tool calls of this turn the vendor's own fields again, without which some servers refuse them."""
    asked = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
    calling = (message["tool_calls"] for message in messages[asked:] if message.get("tool_calls"))
    for calls, fields_of_calls in zip(calling, round_states, strict=False):
        if isinstance(fields_of_calls, list):
            for call, fields in zip(calls, fields_of_calls, strict=False):
                call.update(fields)


def _add_reasoning(encoded: Sequence[dict[str, object]], messages: Sequence[Message]) -> None:
    """Add the thinking of this turn's tool rounds, which DeepSeek and Moonshot want back; earlier turns send none."""
    for fields, message in zip(reversed(encoded), reversed(messages), strict=True):
        if message.role == "user":
            return
        if message.reasoning:
            fields["reasoning_content"] = message.reasoning


def fold_system_message(messages: Sequence[Message]) -> list[Message]:
    r"""Return the messages without the system role: the system prompt is put in front of the first user message.

    >>> fold_system_message([Message("system", "You help."), Message("user", "Hi")])[0].content
    'You help.\n\nHi'
    """
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    at = next((at for at, message in enumerate(rest) if message.role == "user"), None)
    if not system:
        return rest
    if at is None:
        return [Message("user", system), *rest]
    asked = rest[at]
    parts = (ContentPart("text", text=system), *asked.parts) if asked.parts else ()
    rest[at] = replace(asked, content=f"{system}\n\n{asked.content}".strip(), parts=parts)
    return rest


def encode_message(message: Message) -> dict[str, object]:
    """Return the message in OpenAI's chat format; its thinking is not sent."""
    if not (message.parts or message.tool_calls or message.tool_call_id or message.name):
        role = message.role
        return {"role": role, "content": message.text if role == "assistant" else message.content}
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
    if message.name and _NAME.fullmatch(message.name):  # servers refuse other names
        encoded["name"] = message.name
    return encoded


def _content(message: Message) -> str | list[dict[str, object]] | None:
    if not message.parts:
        return None if message.tool_calls and not message.text else message.text
    return encoded_parts(message, _part, "text")


def encoded_parts(
    message: Message, encode: Callable[[ContentPart], dict[str, object]], text_type: str
) -> list[dict[str, object]]:
    """Return the encoded parts of a message, after its text if no part holds it."""
    parts = [encode(part) for part in message.parts]
    if message.content and all(part.type != "text" for part in message.parts):
        parts.insert(0, {"type": text_type, "text": message.content})
    return parts


def _part(part: ContentPart) -> dict[str, object]:
    if part.type == "text":
        return {"type": "text", "text": without_lone_surrogates(part.text)}
    if part.type == "file":
        return {"type": "file", "file": {"filename": without_lone_surrogates(part.text), "file_data": part.url}}
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


def _options(request: ChatRequest, request_format: RequestFormat) -> dict[str, object]:
    """Return everything but the messages. Packs put the output limit among the parameters, under either name."""
    parameters = dict(request.parameters)
    reserved = [name for name in _RESERVED if name in parameters]
    if reserved:
        raise InvalidArgumentError(f"The parameter {reserved[0]!r} is set by the request itself; leave it out.")
    limits = [parameters.pop(name) for name in _LIMIT_NAMES if name in parameters]
    if request.max_output_tokens is not None:
        limits = [request.max_output_tokens]
    options: dict[str, object] = {"model": request.model, "stream": request_format.is_streamed}
    if request_format.is_streamed and request_format.has_stream_options:
        options["stream_options"] = {"include_usage": True}
    if request.tools:
        options["tools"] = [dict(tool) for tool in request.tools]
        if request.tool_choice is not None and request_format.has_tool_choice:
            options["tool_choice"] = request.tool_choice
    if limits:
        options[request_format.limit_name] = limits[0]
    if request.answer_schema is not None and (wanted := response_format(request.answer_schema, request_format)):
        options["response_format"] = wanted
    return options | parameters


def response_format(schema: Mapping[str, Any], request_format: RequestFormat) -> dict[str, Any] | None:
    """Return how to ask for a typed answer: a strict schema, a loose one, any JSON object, or only in the prompt."""
    if request_format.answer_rung == _PROMPT_ONLY:
        return None
    if request_format.answer_rung == _JSON_OBJECT:
        return {"type": "json_object"}
    strict = bool(schema["strict"]) and request_format.answer_rung == 0
    return {
        "type": "json_schema",
        "json_schema": {"name": schema["name"], "schema": schema["schema"], "strict": strict},
    }


def with_schema(request: ChatRequest, request_format: RequestFormat) -> Sequence[Message]:
    """Return the messages; the system prompt has the schema of the answer, if the server does not take it otherwise."""
    if request.answer_schema is None or request_format.answer_rung < _JSON_OBJECT:
        return request.messages
    schema = json.dumps(request.answer_schema["schema"], ensure_ascii=False)
    words = f"Answer only with a JSON object that fits this JSON schema: {schema}"
    first = request.messages[0]
    if first.role == "system":
        return [replace(first, content=f"{first.content}\n\n{words}"), *request.messages[1:]]
    return [Message("system", words), *request.messages]


def encode_options(options: Mapping[str, object]) -> bytes:
    """Encode with ``json``, which rejects NaN; msgspec would send it as null."""
    try:
        return json.dumps(options, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"Parameters and tools must be plain JSON values: {error}.") from error
