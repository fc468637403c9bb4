"""Encodes a chat request for OpenAI's ``/v1/responses``, which has other names and another structure.

Each request carries the whole conversation: the server stores nothing, and requests do not refer to earlier responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.providers.openai_request import (
    encode_options,
    encoded_parts,
    fold_system_message,
    response_format,
    with_schema,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb.providers.base import ChatRequest
    from promptkit_nb.providers.openai_request import RequestFormat
    from promptkit_nb.turns import ContentPart, Message

_RESERVED = ("input", "instructions", "messages", "model", "previous_response_id", "store", "stream")
_CHAT_ONLY = ("frequency_penalty", "logit_bias", "n", "presence_penalty", "seed", "stop")
_LIMIT_NAMES = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_ENCRYPTED = "reasoning.encrypted_content"


def encode_responses_request(request: ChatRequest, request_format: RequestFormat) -> bytes:
    """Return the request as JSON for ``/v1/responses``.

    Raises ``InvalidArgumentError`` for a parameter that does not exist there, or that the request sets.
    """
    head = encode_options(_options(request, request_format))
    messages = with_schema(request, request_format)
    messages = messages if request_format.has_system_role else fold_system_message(messages)
    body = msgspec.json.encode({"input": list(_items(messages, request.round_states))})
    return head[:-1] + b"," + body[1:]


def _options(request: ChatRequest, request_format: RequestFormat) -> dict[str, object]:
    parameters = dict(request.parameters)
    _check_parameters(request)
    limits = [parameters.pop(name) for name in _LIMIT_NAMES if name in parameters]
    if request.max_output_tokens is not None:
        limits = [request.max_output_tokens]
    options: dict[str, object] = {"model": request.model, "stream": request_format.is_streamed, "store": False}
    if limits:
        options["max_output_tokens"] = limits[0]
    if request.tools:
        options["tools"] = [_flat(tool) for tool in request.tools]
        if request.tool_choice is not None and request_format.has_tool_choice:
            options["tool_choice"] = request.tool_choice
        if request_format.has_encrypted_reasoning:
            options["include"] = [_ENCRYPTED]
    if request.answer_schema is not None and (wanted := response_format(request.answer_schema, request_format)):
        parameters["response_format"] = wanted
    return options | _renamed(parameters)


def _check_parameters(request: ChatRequest) -> None:
    for name in request.parameters:
        if name in _RESERVED:
            raise InvalidArgumentError(f"The parameter {name!r} is set by the request itself; leave it out.")
        if name in _CHAT_ONLY:
            raise InvalidArgumentError(
                f"The parameter {name!r} does not exist at /v1/responses, which {request.model!r} needs here: leave it "
                "out of parameters={…} and of the pack."
            )


def _renamed(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of chat completions with their names at ``/v1/responses``."""
    if "reasoning_effort" in parameters:
        effort = parameters.pop("reasoning_effort")
        parameters["reasoning"] = {"effort": effort} | (parameters.get("reasoning") or {})
    text = dict(parameters.pop("text", None) or {})
    if "verbosity" in parameters:
        text["verbosity"] = parameters.pop("verbosity")
    if "response_format" in parameters:
        wanted = dict(parameters.pop("response_format"))
        text["format"] = {"type": wanted.get("type")} | dict(wanted.get("json_schema") or {})
    return {**parameters, **({"text": text} if text else {})}


def _flat(tool: Any) -> dict[str, object]:
    """Return a flat, non-strict tool: strict mode, the default, would make optional arguments required."""
    return {"type": "function", "strict": False, **tool.get("function", {})}


def _items(messages: Sequence[Message], round_states: Sequence[object]) -> Iterator[dict[str, object]]:
    """Yield the conversation as items; the model's own items of this turn are sent back unchanged."""
    asked = max((at for at, message in enumerate(messages) if message.role == "user"), default=0)
    states = iter(round_states)
    for at, message in enumerate(messages):
        if message.role == "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id or "", "output": message.text}
            continue
        own = next(states, None) if at > asked and message.tool_calls else None
        if isinstance(own, list) and own:
            yield from _own_items(own, message)
            continue
        if message.role == "assistant":
            yield from _said(message)
        elif message.text.strip() or message.parts:
            yield {"role": message.role, "content": _content(message)}
        for call in message.tool_calls:
            arguments = without_lone_surrogates(call.arguments)
            yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


def _said(message: Message) -> Iterator[dict[str, object]]:
    """Yield what the model said as it would have sent it; llama.cpp refuses the shorter form."""
    if message.text.strip():
        text = {"type": "output_text", "text": without_lone_surrogates(message.text)}
        yield {"type": "message", "role": "assistant", "content": [text]}


def _own_items(items: list[dict[str, Any]], message: Message) -> Iterator[dict[str, object]]:
    """Yield the items of an answer that called tools, with the ids and arguments from the history."""
    calls = iter(message.tool_calls)
    for item in items:
        call = next(calls, None) if item.get("type") == "function_call" else None
        yield item if call is None else {**item, "call_id": call.id, "arguments": call.arguments}


def _content(message: Message) -> object:
    return encoded_parts(message, _part, "input_text") if message.parts else message.text


def _part(part: ContentPart) -> dict[str, object]:
    if part.type == "text":
        return {"type": "input_text", "text": without_lone_surrogates(part.text)}
    if part.type == "file":
        return {"type": "input_file", "filename": without_lone_surrogates(part.text), "file_data": part.url}
    return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
