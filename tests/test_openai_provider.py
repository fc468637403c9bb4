"""OpenAIProvider with the real client and a real server on the loopback: what is sent, and what may come back."""

from __future__ import annotations

import json
import logging
import multiprocessing
import threading
import traceback
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InvalidArgumentError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from promptkit_nb.pricing import CallCost
from promptkit_nb.providers.base import ChatRequest, Completion, ReasoningDelta, Retrying, TextDelta, Waiting
from promptkit_nb.providers.endpoints import DEFAULT_MODEL, OPENAI_BASE_URL
from promptkit_nb.providers.openai import OpenAIProvider
from promptkit_nb.providers.openai_client import RetryPolicy
from promptkit_nb.turns import ContentPart, Message, ToolCall, Usage, utc_now

if TYPE_CHECKING:
    from promptkit_nb.providers.base import StreamEvent

KEY = "sk-proj-0123456789abcdefSECRET"
FORK = multiprocessing.get_context("fork")
ASK = ChatRequest(model="gpt-4o-mini", messages=[Message("user", "Hi")])


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in ("PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def waits() -> list[float]:
    """The seconds that the provider would have slept."""
    return []


@pytest.fixture
def provider(chat_server: ChatServer, waits: list[float]) -> OpenAIProvider:
    """A provider for the loopback server that records its waits instead of sleeping."""
    made = OpenAIProvider("gpt-4o-mini", api_key=KEY, base_url=chat_server.url)
    made.retries = RetryPolicy(2, sleep=waits.append, random=lambda: 0.0)
    return made


def text_of(events: list[StreamEvent]) -> str:
    """Join the answer's text."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end_of(events: list[StreamEvent]) -> Completion:
    """Return the last event, which is the completion."""
    assert isinstance(events[-1], Completion)
    assert sum(isinstance(event, Completion) for event in events) == 1
    return events[-1]


def chunk(delta: object = None, **fields: Any) -> dict[str, Any]:
    """Return one event of a stream with this delta; further fields belong to the choice."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


STOP = chunk({}, finish_reason="stop")


def usage_chunk(**usage: object) -> dict[str, Any]:
    """Return the event that reports the usage, without a choice."""
    return {"id": "c", "model": "m", "choices": [], "usage": usage}


# Requests


def test_request_is_sent_as_a_stream_that_reports_its_usage(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The body has model, messages, stream and stream_options; the key is a bearer token."""
    list(provider.stream(ASK))
    (request,) = chat_server.requests
    assert request.body == {
        "model": "gpt-4o-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


def test_unknown_parameters_are_sent_unchanged(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The server, not this package, knows which parameters it accepts; None is sent as null."""
    parameters = {"temperature": 0.5, "min_p": 0.1, "stop": None, "response_format": {"type": "json_object"}}
    list(provider.stream(ChatRequest(model="m", messages=[], parameters=parameters)))
    assert {name: chat_server.requests[0].body[name] for name in parameters} == parameters


def test_tool_calls_results_and_images_are_sent_in_openais_format(
    chat_server: ChatServer, provider: OpenAIProvider
) -> None:
    """Every kind of message is encoded; reasoning is not sent."""
    messages = [
        Message(
            "user",
            "What is this?",
            parts=(
                ContentPart("text", "What is this?"),
                ContentPart("image_url", url="data:image/png;base64,AA==", detail="low"),
                ContentPart("image_url", url="https://example.org/a.png"),
            ),
        ),
        Message("assistant", tool_calls=(ToolCall("call_1", "look", '{"at": 1}'),), reasoning="Let me look."),
        Message("tool", "a cat", tool_call_id="call_1", name="look"),
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    list(provider.stream(ChatRequest(model="m", messages=messages, tools=tools)))
    body = chat_server.requests[0].body
    assert body["tools"] == tools
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
            ],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "call_1", "name": "look"},
    ]


def test_text_of_a_message_with_an_image_is_sent(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """If the parts of a message hold no text, its content is sent as the first part."""
    message = Message("user", "Describe it.", parts=(ContentPart("image_url", url="https://example.org/a.png"),))
    list(provider.stream(ChatRequest(model="m", messages=[message])))
    assert chat_server.requests[0].body["messages"][0]["content"][0] == {"type": "text", "text": "Describe it."}


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (OPENAI_BASE_URL, "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://localhost:11434/v1", "max_tokens"),
    ],
)
def test_output_limit_has_the_name_that_the_server_expects(base_url: str, name: str) -> None:
    """OpenAI and Azure call the limit max_completion_tokens; other servers call it max_tokens."""
    assert OpenAIProvider(base_url=base_url)._format.limit_name == name


def test_output_limit_of_the_request_wins_over_the_parameters(
    chat_server: ChatServer, provider: OpenAIProvider
) -> None:
    """A pack's max_tokens is the limit, under the name the server expects, unless the call gives one."""
    parameters = {"max_completion_tokens": 500}
    list(provider.stream(ChatRequest(model="m", messages=[], parameters=parameters)))
    list(provider.stream(ChatRequest(model="m", messages=[], parameters=parameters, max_output_tokens=7)))
    assert [request.body["max_tokens"] for request in chat_server.requests] == [500, 7]
    assert "max_completion_tokens" not in chat_server.requests[0].body


@pytest.mark.parametrize("parameters", [{"temperature": float("nan")}, {"seed": {1, 2}}, {"messages": []}])
def test_parameters_that_cannot_be_sent_are_rejected(
    chat_server: ChatServer, provider: OpenAIProvider, parameters: dict[str, object]
) -> None:
    """NaN would be sent as null, a set cannot be sent, and messages would be sent twice: nothing is sent."""
    with pytest.raises(InvalidArgumentError):
        list(provider.stream(ChatRequest(model="m", messages=[], parameters=parameters)))
    assert chat_server.requests == []


def test_connection_is_reused_for_the_next_request(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A stream is read to its end, so that the next request can use the same connection."""
    ports: set[int] = set()
    handle = chat_server._http.process_request

    def count(request: Any, client_address: Any) -> None:
        ports.add(client_address[1])
        handle(request, client_address)

    chat_server._http.process_request = count  # type: ignore[method-assign] # counts connections as they come
    for _ in range(3):
        list(provider.stream(ASK))
    assert len(ports) == 1


# Answers


def test_answer_arrives_in_pieces_with_the_completion_last(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Text deltas in order, then model, finish reason, and the usage, which arrives after the finish reason."""
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    chat_server.reply(Reply(text="Hello, Alice!", usage=usage, model="gpt-4o-mini-2024-07-18"))
    events = list(provider.stream(ASK))
    assert events == [
        TextDelta("Hello,"),
        TextDelta(" Alice!"),
        Completion(
            model="gpt-4o-mini-2024-07-18",
            finish_reason="stop",
            usage=Usage(20, 9, cached_tokens=8, reasoning_tokens=4),
        ),
    ]


def test_whole_conversation_is_sent(provider: OpenAIProvider) -> None:
    """The server answers from an earlier message."""
    talk = [Message("user", "My name is Alice"), Message("assistant", "Hi"), Message("user", "What's my name?")]
    assert text_of(list(provider.stream(ChatRequest(model="m", messages=talk)))) == "Your name is Alice."


def test_plain_completion_in_reply_to_a_stream_is_an_answer(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A server that does not stream sends one JSON object, with any indentation and content type."""
    body = {
        "model": "m-1",
        "choices": [{"message": {"role": "assistant", "content": "Whole."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    chat_server.reply(Reply(body=json.dumps(body, indent=2).encode(), content_type="text/plain"))
    events = list(provider.stream(ASK))
    assert events == [TextDelta("Whole."), Completion(model="m-1", finish_reason="stop", usage=Usage(3, 2))]


def test_plain_completion_with_tool_calls(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Tool calls are read from an answer that is not streamed, too."""
    call = {"id": "call_9", "type": "function", "function": {"name": "look", "arguments": {"at": 1}}}
    body = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    chat_server.reply(Reply(body=json.dumps(body).encode(), content_type="application/json"))
    assert end_of(list(provider.stream(ASK))).tool_calls == (ToolCall("call_9", "look", '{"at": 1}'),)


def test_tool_calls_are_assembled_by_index(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Pieces of two calls arrive interleaved; name and id arrive once, arguments in parts."""
    deltas: list[dict[str, Any]] = [
        {"index": 1, "id": "b", "function": {"name": "second", "arguments": ""}},
        {"index": 0, "id": "a", "function": {"name": "first", "arguments": '{"x"'}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    chunks = [chunk({"tool_calls": [delta]}) for delta in deltas]
    chat_server.reply(Reply(chunks=[*chunks, chunk({}, finish_reason="tool_calls")]))
    end = end_of(list(provider.stream(ASK)))
    assert end.tool_calls == (ToolCall("a", "first", '{"x": 1}'), ToolCall("b", "second", "{}"))
    assert end.finish_reason == "tool_calls"


def test_tool_calls_without_index_or_id(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Without an index a new id starts a new call; without an id a call is named by its position."""
    deltas: list[dict[str, Any]] = [
        {"id": "a", "function": {"name": "first", "arguments": "{}"}},
        {"id": "b", "function": {"name": "second", "arguments": None}},
    ]
    chat_server.reply(
        Reply(chunks=[*(chunk({"tool_calls": [delta]}) for delta in deltas), STOP]),
        Reply(chunks=[chunk({"tool_calls": [{"index": 0, "function": {"name": "only"}}]}), STOP]),
    )
    assert end_of(list(provider.stream(ASK))).tool_calls == (ToolCall("a", "first"), ToolCall("b", "second"))
    assert end_of(list(provider.stream(ASK))).tool_calls == (ToolCall("call_0", "only"),)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_separate_from_the_text(chat_server: ChatServer, provider: OpenAIProvider, name: str) -> None:
    """Reasoning is not part of the answer."""
    chat_server.reply(Reply(chunks=[chunk({name: "Hmm. "}), chunk({"content": "42"}), STOP]))
    assert list(provider.stream(ASK))[:2] == [ReasoningDelta("Hmm. "), TextDelta("42")]


def test_refusal_is_text(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A model that declines to answer says so in a separate field."""
    chat_server.reply(Reply(chunks=[chunk({"content": None, "refusal": "I can't."}), STOP]))
    assert text_of(list(provider.stream(ASK))) == "I can't."


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": []},
        {"choices": None},
        {"object": "chat.completion.chunk"},
        {"choices": [None]},
        chunk(None),
        chunk({"content": None}),
        chunk({"content": ""}),
        {"choices": [{"delta": {}}]},
        {"choices": [{"index": 1, "delta": {"content": "another"}}]},
        usage_chunk(),
        {"choices": [], "usage": None},
        {"choices": [], "usage": "many"},
    ],
)
def test_incomplete_chunks_are_ignored(chat_server: ChatServer, provider: OpenAIProvider, odd: dict[str, Any]) -> None:
    """Chunks without choices, delta, content, ids or usage do not change the answer."""
    chat_server.reply(Reply(chunks=[odd, chunk({"content": "fine"}), odd, STOP, odd]))
    events = list(provider.stream(ASK))
    assert text_of(events) == "fine"
    assert end_of(events).usage is None


def test_content_may_be_a_list_of_text_parts(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Some servers send a list of parts, thinking among them."""
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
    chat_server.reply(Reply(chunks=[chunk({"content": parts}), STOP]))
    assert text_of(list(provider.stream(ASK))) == "in parts"


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": "12", "completion_tokens": "3"}, Usage(12, 3)),
        ({"prompt_tokens": 12.0, "completion_tokens": 0}, Usage(12, 0)),
        ({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(12, 3)),
        ({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}, Usage(12, 3)),
        ({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -1}}, Usage(12, 3)),
        ({"prompt_tokens": 12, "completion_tokens": -3}, None),
        ({"prompt_tokens": -12, "completion_tokens": 3}, None),
        ({"prompt_tokens": None, "completion_tokens": None}, None),
        ({"prompt_tokens": "a few", "completion_tokens": 3}, None),
        ({"prompt_tokens": True, "completion_tokens": 3}, None),
        ({"prompt_tokens": 12}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
    ],
)
def test_usage_is_read_if_it_is_plausible(
    chat_server: ChatServer, provider: OpenAIProvider, reported: dict[str, object], usage: Usage | None
) -> None:
    """Numbers may be text; missing, negative or all-zero counts mean that the usage is unknown, not zero."""
    chat_server.reply(Reply(chunks=[chunk({"content": "x"}), STOP, usage_chunk(**reported)]))
    assert end_of(list(provider.stream(ASK))).usage == usage


@pytest.mark.parametrize(
    ("cost", "cost_usd"),
    [
        ("0.00014", Decimal("0.00014")),
        ("1.1e-05", Decimal("0.000011")),
        ("0", Decimal(0)),
        ('"0.25"', Decimal("0.25")),
        ("-1", None),
        ("null", None),
        ("true", None),
        ('"free"', None),
    ],
)
def test_cost_that_the_server_reports_is_exact(
    chat_server: ChatServer, provider: OpenAIProvider, cost: str, cost_usd: Decimal | None
) -> None:
    """OpenRouter reports dollars; the cost has exactly its decimal digits."""
    usage = f'{{"choices": [], "usage": {{"prompt_tokens": 1, "completion_tokens": 1, "cost": {cost}}}}}'
    chat_server.reply(Reply(chunks=[chunk({"content": "x"}), STOP, usage]))
    assert end_of(list(provider.stream(ASK))).cost_usd == cost_usd


def test_done_may_be_missing_after_a_finish_reason(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A finish reason is enough to end an answer."""
    chat_server.reply(Reply(text="All said.", no_done=True))
    events = list(provider.stream(ASK))
    assert (text_of(events), end_of(events).usage) == ("All said.", Usage(10, 5))


def test_finish_reason_may_be_missing_before_done(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """After [DONE] the answer is complete; its finish reason is unknown."""
    chat_server.reply(Reply(text="All said.", finish_reason=None))
    assert end_of(list(provider.stream(ASK))).finish_reason == "unknown"


def test_connection_lost_after_the_finish_reason_loses_nothing(
    chat_server: ChatServer, provider: OpenAIProvider
) -> None:
    """The answer was complete: it is returned, without its usage."""
    chat_server.reply(Reply(text="One two", cut_after=4))
    events = list(provider.stream(ASK))
    assert (text_of(events), end_of(events).usage) == ("One two", None)


def test_broken_chunk_after_the_finish_reason_loses_nothing(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A usage that cannot be read is unknown; the answer is complete."""
    chat_server.reply(Reply(chunks=[chunk({"content": "Whole."}), STOP, '{"usage": {"prompt_tok'], no_done=True))
    events = list(provider.stream(ASK))
    assert (text_of(events), end_of(events).usage) == ("Whole.", None)


def test_halves_of_an_emoji_in_two_chunks_are_joined(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """No piece ends in half an emoji, which cannot be encoded; a half without its other half becomes U+FFFD."""
    halves = [chunk({"content": "Hi \ud83d"}), chunk({"content": "\ude00!"}), chunk({"content": " \ud83d"})]
    chat_server.reply(Reply(chunks=[*halves, STOP]))
    pieces = [event.text for event in provider.stream(ASK) if isinstance(event, TextDelta)]
    assert pieces == ["Hi ", "😀!", " ", "\ufffd"]


def test_line_separators_in_the_text_are_kept(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """U+2028 and similar characters are text: only line feeds end a line of an event."""
    text = "a\u2028b\x85c\x0bd"
    chat_server.reply(Reply(chunks=[json.dumps(chunk({"content": text}), ensure_ascii=False), STOP]))
    assert text_of(list(provider.stream(ASK))) == text


@pytest.mark.parametrize(
    "body",
    [
        b': ping\r\n\r\nevent: x\r\ndata: {"choices": [{"delta": {"content": "Hi"}}]}\r\n\r\ndata: [DONE]\r\n\r\n',
        b'data:{"choices":[{"delta":{"content":"Hi"}}]}\n\ndata:[DONE]',
        b'\xef\xbb\xbfdata: {"choices":\ndata: [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n',
    ],
)
def test_event_streams_are_read_as_the_standard_defines(
    chat_server: ChatServer, provider: OpenAIProvider, body: bytes
) -> None:
    """Comments, CRLF, no space after the colon, a byte order mark, data on two lines, no line feed at the end."""
    chat_server.reply(Reply(body=body, content_type="text/event-stream"))
    assert text_of(list(provider.stream(ASK))) == "Hi"


# Replies that are not answers


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        (b"<!doctype html>\n<html>Welcome to my router</html>", "'<!doctype html> <html>Welcome to my router</html>'"),
        (b"", "an empty reply"),
        (b"data: [DONE]\n\n", "'[DONE]'"),
        (b"data: {not json\n\n", "'{not json'"),
        (b"[1, 2]", "'[1, 2]'"),
        (b'{"choices": []}', "choices"),
        (b": only comments\n\n", "an empty reply"),
    ],
)
def test_reply_that_is_not_an_answer_is_an_error(
    chat_server: ChatServer, provider: OpenAIProvider, body: bytes, quoted: str
) -> None:
    """For HTML, an empty body or other JSON with status 200 the error quotes the reply and says to check base_url."""
    chat_server.reply(Reply(body=body), Reply(body=body))
    with pytest.raises(ProviderUnavailableError, match="Check base_url") as caught:
        list(provider.stream(ASK))
    assert quoted in str(caught.value)
    assert len(str(caught.value)) < 250


def test_reply_is_quoted_in_eighty_characters(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A long page is cut."""
    chat_server.reply(Reply(body=b"<html>" + b"x" * 5000))
    with pytest.raises(ProviderUnavailableError) as caught:
        list(provider.stream(ASK))
    assert f"{'<html>' + 'x' * 73}…" in str(caught.value)


def test_control_characters_of_a_server_are_removed(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """A server's error message cannot control the terminal that shows it."""
    chat_server.reply(error_reply(400, "\x1b]0;title\x07 bad\r\n\x9bthing"))
    with pytest.raises(BadRequestError) as caught:
        list(provider.stream(ASK))
    assert "HTTP 400: ]0;title bad thing. " in str(caught.value)


def test_broken_chunk_in_mid_stream_keeps_the_partial_text(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The error carries the text that had arrived."""
    chat_server.reply(Reply(chunks=[chunk({"content": "Half"}), "{broken"]))
    with pytest.raises(ProviderUnavailableError) as caught:
        list(provider.stream(ASK))
    assert caught.value.partial == "Half"


@pytest.mark.parametrize("how", [{"cut_after": 3}, {"close_after": 3}])
def test_cut_stream_is_an_error_with_the_partial_text(
    chat_server: ChatServer, provider: OpenAIProvider, how: dict[str, int]
) -> None:
    """If the connection breaks, or the stream just ends, the answer is not complete; it is not sent again."""
    chat_server.reply(Reply(text="One two three four", **how))  # type: ignore[arg-type] # each is an int
    with pytest.raises(ProviderUnavailableError, match="stopped before its end") as caught:
        list(provider.stream(ASK))
    assert caught.value.partial == "One two"
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "Slow down", "code": "rate_limit_exceeded"}, RateLimitError),
        ({"message": "No money", "type": "insufficient_quota"}, RateLimitError),
        ({"message": "Bad key", "code": 401}, AuthenticationError),
        ({"message": "Overloaded", "code": 502}, ProviderUnavailableError),
        ({"message": "Boom", "type": "server_error"}, ProviderUnavailableError),
        ("just words", ProviderUnavailableError),
    ],
)
def test_error_in_mid_stream_is_mapped_by_its_code(
    chat_server: ChatServer, provider: OpenAIProvider, error: object, kind: type[ProviderError]
) -> None:
    """After the first text, the class of the error follows from its code; it has the server's message and the text."""
    chat_server.reply(Reply(chunks=[chunk({"content": "Half"}), {"error": error}]))
    with pytest.raises(kind) as caught:
        list(provider.stream(ASK))
    assert caught.value.partial == "Half"
    assert (error if isinstance(error, str) else error["message"]) in str(caught.value)  # type: ignore[index] # a dict


def test_vllms_flat_error_is_read(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """An error object of vLLM has no "error" key around it."""
    chat_server.reply(Reply(chunks=[{"object": "error", "message": "Out of memory", "code": 500}]))
    with pytest.raises(ProviderUnavailableError, match="Out of memory"):
        list(provider.stream(ASK))


# Error responses


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (400, BadRequestError, "%chat_context"),
        (401, AuthenticationError, "OPENAI_API_KEY"),
        (402, RateLimitError, "quota"),
        (403, AuthenticationError, "OPENAI_API_KEY"),
        (404, BadRequestError, "'gpt-4o-mini'"),
        (408, ProviderTimeoutError, "Try again"),
        (409, BadRequestError, "%chat_context"),
        (413, BadRequestError, "%chat_context"),
        (422, BadRequestError, "%chat_context"),
        (429, RateLimitError, "Try again later"),
        (500, ProviderUnavailableError, "Try again later"),
        (503, ProviderUnavailableError, "Try again later"),
        (504, ProviderUnavailableError, "Try again later"),
    ],
)
def test_statuses_are_mapped_to_our_errors(
    chat_server: ChatServer, provider: OpenAIProvider, status: int, kind: type[ProviderError], remedy: str
) -> None:
    """Each says which server answered, with which status and message, and what to do."""
    chat_server.reply(*[error_reply(status, "The server's own words.")] * 3)
    with pytest.raises(kind) as caught:
        list(provider.stream(ASK))
    text = str(caught.value)
    assert text.startswith(f"127.0.0.1:{chat_server.port} answered with HTTP {status}: The server's own words. ")
    assert remedy in text


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        (b"plain\n words", "plain words"),
        (b'{"detail": "from FastAPI"}', "from FastAPI"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "field required"),
        (b'{"error": "from Ollama"}', "from Ollama"),
        (b'{"object": "error", "message": "from vLLM", "code": 400}', "from vLLM"),
        (b"", "no explanation"),
        (b"x" * 1000, "x" * 299 + "…"),
    ],
)
def test_error_message_is_found_in_every_format(
    chat_server: ChatServer, provider: OpenAIProvider, body: bytes, quoted: str
) -> None:
    """Each server puts the message somewhere else; it is shortened to 300 characters."""
    chat_server.reply(Reply(status=400, body=body))
    with pytest.raises(BadRequestError) as caught:
        list(provider.stream(ASK))
    assert quoted in str(caught.value)
    assert len(str(caught.value)) < 420


def test_request_too_long_for_the_model_raises_the_window_error(
    chat_server: ChatServer, provider: OpenAIProvider
) -> None:
    """The model's own window raises the same error as max_tokens, and says what to do; the request is sent once."""
    chat_server.reply(error_reply(400, "Too long.", code="context_length_exceeded"))
    talk = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "And?")]
    with pytest.raises(ContextWindowExceededError) as caught:
        list(provider.stream(replace(ASK, messages=talk)))
    assert str(caught.value) == (
        f"127.0.0.1:{chat_server.port} answered with HTTP 400: Too long. "
        "It is too long for 'gpt-4o-mini': set max_tokens, or shorten it with truncate() or summarize()."
    )
    assert (caught.value.limit_tokens, caught.value.request_tokens) == (None, None)
    assert len(chat_server.requests) == 1


def test_too_long_in_mid_stream_keeps_the_partial_text(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The window may also end during the answer."""
    error = {"message": "Too long", "code": "context_length_exceeded"}
    chat_server.reply(Reply(chunks=[chunk({"content": "Half"}), {"error": error}]))
    with pytest.raises(ContextWindowExceededError) as caught:
        list(provider.stream(ASK))
    assert caught.value.partial == "Half"


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        ("This model's maximum context length is 4097 tokens. However, your messages resulted in 5747.", (4097, 5747)),
        ("maximum context length is 8192 tokens. However, you requested 8203 tokens (7691 in the mess", (8192, 8203)),
        (
            "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,010",
            (272000, 300010),
        ),
        ("Your input exceeds the context window of this model. Please adjust your input.", (None, None)),
        (
            (
                "maximum context length is 40 tokens. However, you requested 0 output tokens and your prompt contains "
                "at least 41 input tokens"
            ),
            (40, 41),
        ),
        (
            (
                "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request "
                "has 3000 input tokens (5000 > 4096 - 3000)."
            ),
            (4096, 3000),
        ),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", (4096, 5000)),
        ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", (4096, 5000)),
        ("Requested tokens (5000) exceed context window of 4096", (4096, 5000)),
        (
            (
                "Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded with "
                "context length of only 7866 tokens, which is not enough."
            ),
            (7866, 10136),
        ),
        ("Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)", (7424, 15028)),
        ("the input length exceeds the context length", (None, None)),
        ("maximum context length is 1310 tokens. However, you requested about 1500 tokens (1400 of text", (1310, 1500)),
        ("Please reduce the length of the messages or completion.", (None, None)),
        ("Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7000", (6000, 7000)),
        ("prompt is too long: 210000 tokens > 200000 maximum", (200000, 210000)),
        ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", (200000, 190000)),
        ("The input token count (105) exceeds the maximum number of tokens allowed (104).", (104, 105)),
        ("Prompt contains 40000 tokens, too large for model with 32768 maximum context length", (32768, 40000)),
        ("This model's maximum prompt length is 1310 but the request contains 1400 tokens.", (1310, 1400)),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", (4096, 5000)),
    ],
)
def test_token_counts_are_found_in_the_message_of_each_server(
    chat_server: ChatServer, provider: OpenAIProvider, message: str, counts: tuple[int | None, int | None]
) -> None:
    """The window and the size of the request, in tokens, if the server gives them."""
    chat_server.reply(error_reply(400, message))
    with pytest.raises(ContextWindowExceededError) as caught:
        list(provider.stream(ASK))
    assert (caught.value.limit_tokens, caught.value.request_tokens) == counts


@pytest.mark.parametrize("status", [413, 422, 500])
def test_request_that_is_too_long_is_not_sent_again(
    chat_server: ChatServer, provider: OpenAIProvider, status: int
) -> None:
    """Whatever the status: the same request would be too long again."""
    chat_server.reply(error_reply(status, "the request exceeds the available context size"))
    with pytest.raises(ContextWindowExceededError):
        list(provider.stream(ASK))
    assert len(chat_server.requests) == 1


def test_token_counts_of_llama_cpp_are_separate_fields(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """llama.cpp reports them beside its message."""
    error = {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5000,
        "n_ctx": 4096,
    }
    chat_server.reply(Reply(status=400, body=json.dumps({"error": error}).encode()))
    with pytest.raises(ContextWindowExceededError, match="n_prompt_tokens 5000, n_ctx 4096") as caught:
        list(provider.stream(ASK))
    assert (caught.value.limit_tokens, caught.value.request_tokens) == (4096, 5000)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (429, "Rate limit reached: too many tokens per minute", RateLimitError),
        (400, "max_tokens is too large: 5000; at most 4096 are possible", BadRequestError),
        (413, "Request exceeds the maximum size", BadRequestError),
    ],
)
def test_other_limits_are_not_the_context_window(
    chat_server: ChatServer, provider: OpenAIProvider, status: int, message: str, kind: type[ProviderError]
) -> None:
    """Such as a rate, the length of an answer, or the bytes of a body."""
    chat_server.reply(*[error_reply(status, message)] * 3)
    with pytest.raises(kind):
        list(provider.stream(ASK))


def test_stream_options_are_left_out_if_they_are_rejected(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The request is sent once more without them; so are later requests."""
    chat_server.reply(error_reply(400, "Unknown field: stream_options"))
    list(provider.stream(ASK))
    list(provider.stream(ASK))
    assert ["stream_options" in request.body for request in chat_server.requests] == [True, False, False]


def test_output_limit_is_renamed_if_its_name_is_rejected(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """It is sent once more under the other name, which later requests use, too."""
    limited = ChatRequest(model="o4", messages=[], max_output_tokens=5)
    chat_server.reply(error_reply(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    list(provider.stream(limited))
    list(provider.stream(limited))
    sent = [{name for name in request.body if name.startswith("max_")} for request in chat_server.requests]
    assert sent == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]


def test_output_limit_is_renamed_once_only(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """If a server rejects both names, the user sees its error; so does a value out of range, which is not renamed."""
    chat_server.reply(
        error_reply(400, "max_tokens is too large: 5000; at most 4096 are possible"),
        error_reply(400, "max_tokens is not supported"),
        error_reply(400, "max_completion_tokens is not supported"),
    )
    limited = ChatRequest(model="m", messages=[], max_output_tokens=5000)
    with pytest.raises(BadRequestError, match="too large"):
        list(provider.stream(limited))
    with pytest.raises(BadRequestError, match="max_completion_tokens is not supported"):
        list(provider.stream(limited))
    assert len(chat_server.requests) == 3


# Retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_transient_failures_are_sent_again(
    chat_server: ChatServer, provider: OpenAIProvider, waits: list[float], status: int
) -> None:
    """Waits double from half a second; each is announced before it starts, and each retry before it is sent."""
    chat_server.reply(error_reply(status, "Busy"), error_reply(status, "Busy"), Reply(text="Now."))
    events = list(provider.stream(ASK))
    reason = f"127.0.0.1:{chat_server.port} answered with HTTP {status}"
    assert events[:5] == [Waiting(0.5, reason), Retrying(), Waiting(1.0, reason), Retrying(), TextDelta("Now.")]
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_permanent_failures_are_not_sent_again(
    chat_server: ChatServer, provider: OpenAIProvider, waits: list[float], status: int
) -> None:
    """An error that the server would send again is raised at once."""
    chat_server.reply(error_reply(status, "No"))
    with pytest.raises(ProviderError):
        list(provider.stream(ASK))
    assert (len(chat_server.requests), waits) == (1, [])


def test_exhausted_quota_is_not_sent_again(
    chat_server: ChatServer, provider: OpenAIProvider, waits: list[float]
) -> None:
    """Waiting does not help against a 429 for an exhausted quota."""
    chat_server.reply(error_reply(429, "You exceeded your current quota.", code="insufficient_quota"))
    with pytest.raises(RateLimitError, match="waiting does not help"):
        list(provider.stream(ASK))
    assert (len(chat_server.requests), waits) == (1, [])


def test_retries_end(chat_server: ChatServer, provider: OpenAIProvider, waits: list[float]) -> None:
    """After max_retries the error is raised, with what the server asked to wait."""
    chat_server.reply(*[error_reply(429, "Slow down", headers={"Retry-After": "3"})] * 5)
    with pytest.raises(RateLimitError, match=r"Slow down. Try again in 3 s.") as caught:
        list(provider.stream(ASK))
    assert caught.value.retry_after_s == 3.0
    assert (len(chat_server.requests), waits) == (3, [3.0, 3.0])


def test_wait_in_milliseconds_is_honored(chat_server: ChatServer, provider: OpenAIProvider, waits: list[float]) -> None:
    """retry-after-ms wins over retry-after."""
    chat_server.reply(error_reply(429, "Slow down", headers={"retry-after-ms": "250", "retry-after": "9"}))
    list(provider.stream(ASK))
    assert waits == [0.25]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, ProviderUnavailableError)])
def test_long_waits_are_the_users_decision(
    chat_server: ChatServer, provider: OpenAIProvider, waits: list[float], status: int, kind: type[ProviderError]
) -> None:
    """There is no wait of more than a minute: the error says how long it would be."""
    chat_server.reply(error_reply(status, "Slow down", headers={"Retry-After": "61"}))
    with pytest.raises(kind, match="Try again in 61 s") as caught:
        list(provider.stream(ASK))
    assert waits == []
    assert not isinstance(caught.value, RateLimitError) or caught.value.retry_after_s == 61.0


def test_unreachable_server_is_named_after_its_retries(waits: list[float]) -> None:
    """The error names host and port, and is raised after the retries."""
    with ChatServer() as gone:
        url = gone.url
    lost = OpenAIProvider("m", base_url=url)
    lost.retries = RetryPolicy(1, sleep=waits.append, random=lambda: 1.0)
    events: list[StreamEvent] = []
    with pytest.raises(ProviderUnavailableError, match=f"127.0.0.1:{gone.port} cannot be reached .*refused"):
        events.extend(lost.stream(ASK))
    assert waits == [0.375]


def test_reply_that_does_not_begin_is_a_timeout(chat_server: ChatServer) -> None:
    """After a wait as long as the timeout, the request is not sent again."""
    hasty = OpenAIProvider("m", base_url=chat_server.url, timeout=0.5)
    chat_server.reply(Reply(delay_s=5))
    with pytest.raises(ProviderTimeoutError, match=r"sent nothing for 0\.5 s") as caught:
        list(hasty.stream(ASK))
    assert caught.value.partial == ""
    assert len(chat_server.requests) == 1


def test_silence_between_chunks_is_a_timeout_with_the_partial_text(chat_server: ChatServer) -> None:
    """The timeout starts anew with each chunk."""
    hasty = OpenAIProvider("m", base_url=chat_server.url, timeout=1)
    chat_server.reply(Reply(text="Half", pause_from=2, pause_s=5))
    with pytest.raises(ProviderTimeoutError) as caught:
        list(hasty.stream(ASK))
    assert caught.value.partial == "Half"


# Stopping


def test_closing_early_drops_the_connection(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """To stop reading is to stop the server."""
    chat_server.reply(Reply(text="word " * 2000, pause_s=0.005))
    events = provider.stream(ASK)
    assert next(events) == TextDelta("word")
    events.close()  # type: ignore[attr-defined] # a generator, as every provider's stream is
    assert chat_server.dropped.wait(60)


def test_interrupt_while_waiting_passes_through(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """KeyboardInterrupt is not turned into an error of ours."""

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    provider.retries = RetryPolicy(2, sleep=interrupted)
    chat_server.reply(error_reply(500, "Busy"))
    with pytest.raises(KeyboardInterrupt):
        list(provider.stream(ASK))


# The key


def test_missing_key_is_an_error_at_the_first_call() -> None:
    """The constructor needs no key; the call says how to set one, and how to do without."""
    keyless = OpenAIProvider("gpt-4o-mini")
    with pytest.raises(AuthenticationError, match=r"OPENAI_API_KEY.*%chat_setup --provider demo"):
        next(keyless.stream(ASK))


def test_other_servers_need_no_key(chat_server: ChatServer) -> None:
    """They get a placeholder."""
    list(OpenAIProvider("m", base_url=chat_server.url).stream(ASK))
    assert chat_server.requests[0].headers["authorization"] == "Bearer no-key"


def test_key_is_read_from_the_environment_at_the_first_call(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_API_KEY may be set after the constructor; whitespace around it is stripped."""
    late = OpenAIProvider("m", base_url=chat_server.url)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    list(late.stream(ASK))
    assert chat_server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY} x", f"{KEY}ü"])
def test_key_that_no_header_can_carry_is_rejected_without_quoting_it(chat_server: ChatServer, key: str) -> None:
    """The client's own error would quote it."""
    with pytest.raises(AuthenticationError, match="characters that no key has") as caught:
        next(OpenAIProvider("m", api_key=key, base_url=chat_server.url).stream(ASK))
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def _everything_shown(error: BaseException) -> str:
    """Return everything that a notebook, a log or a debugger would show of an error and its causes."""
    shown = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        shown += f"{link!s} {link!r} {vars(link)!r}"
        link = link.__cause__ or link.__context__
    return shown


@pytest.mark.parametrize(
    "reply",
    [
        error_reply(401, f"Incorrect API key provided: {KEY}. Find yours …"),
        error_reply(400, "x" * 290 + KEY),
        Reply(status=500, body=f"Authorization: Bearer {KEY}".encode()),
        Reply(chunks=[{"error": {"message": f"Bad {KEY}"}}]),
        Reply(chunks=[f"{{{KEY}"]),
        Reply(body=f"<html>{KEY}</html>".encode()),
        Reply(text="One two", cut_after=1),
    ],
)
def test_no_error_shows_the_key(chat_server: ChatServer, provider: OpenAIProvider, reply: Reply) -> None:
    """Neither its text nor a repr nor a chained cause, even if the server quotes the key."""
    provider.retries = RetryPolicy(0)
    chat_server.reply(reply)
    with pytest.raises(ProviderError) as caught:
        list(provider.stream(ASK))
    assert "0123456789" not in _everything_shown(caught.value)


def test_cause_is_chained_if_it_does_not_quote_the_key(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """The client's own error is the cause of ours."""
    chat_server.reply(error_reply(404, "No such model"))
    with pytest.raises(BadRequestError) as caught:
        list(provider.stream(ASK))
    assert type(caught.value.__cause__).__module__ == "openai"


def test_no_log_shows_the_key(
    chat_server: ChatServer, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with everything at DEBUG, for a call that succeeds and one that fails."""
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    chat_server.reply(Reply(text="Fine."), error_reply(401, "Who are you?"))
    list(provider.stream(ASK))
    with pytest.raises(AuthenticationError):
        list(provider.stream(ASK))
    assert len(caplog.records) > 3
    assert "0123456789" not in caplog.text + repr([vars(record) for record in caplog.records])


def test_repr_shows_model_and_server_but_no_key(provider: OpenAIProvider, chat_server: ChatServer) -> None:
    """Nor does the repr of any part of the provider."""
    list(provider.stream(ASK))
    assert repr(provider) == f"OpenAIProvider('gpt-4o-mini', base_url='{chat_server.url}')"
    assert "0123456789" not in repr(provider._connect().errors)
    assert repr(OpenAIProvider("m", base_url=f"http://host/v1?key={KEY}")) == (
        "OpenAIProvider('m', base_url='http://host/v1')"
    )


# Arguments


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, else the environment variable unless it is empty, else a constant."""
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert (OpenAIProvider().model, OpenAIProvider().base_url) == (DEFAULT_MODEL, OPENAI_BASE_URL)
    monkeypatch.setenv("PROMPTKIT_MODEL", "llama3.2")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:11434/v1")
    assert (OpenAIProvider().model, OpenAIProvider().base_url) == ("llama3.2", "http://localhost:11434/v1")
    assert OpenAIProvider("mine", base_url="http://localhost:1/v1").model == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""},
        {"model": 5},
        {"api_key": b"sk-secret-key-1"},
        {"base_url": 5},
        {"base_url": ""},
        {"base_url": "localhost:11434"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://host:port/v1"},
        {"base_url": "http://[::1/v1"},
        {"base_url": "http://alice:secret@host/v1"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"timeout": "60"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"prices": [("m", 1, 2)]},
        {"prices": {"m": 1}},
        {"prices": {"m": (1,)}},
        {"prices": {"m": (1, -2)}},
        {"prices": {"m": (1, float("nan"))}},
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, Any]) -> None:
    """The constructor names the argument, and does not quote a password."""
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))) as caught:
        OpenAIProvider(**arguments)
    assert "secret" not in str(caught.value)


def test_own_prices_win() -> None:
    """They are dollars per million input and output tokens; an unknown model has no price."""
    priced = OpenAIProvider("mine", prices={"mine": (1, 2)})
    assert priced.price("mine", Usage(1000, 500), utc_now()) == CallCost(Decimal("0.002"), "yours")
    assert priced.price("unheard-of", Usage(1000, 500), utc_now()) == CallCost(None, None)


def test_forked_processes_get_their_own_answers(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """If a service forks workers after a first call, none of them gets the answer to another's question."""
    list(provider.stream(ASK))
    chat_server.usual = lambda _: Reply(delay_s=0.1)

    def work(worker: int) -> None:
        for number in range(4):
            asked = f"{number} of worker {worker}"
            answer = text_of(list(provider.stream(replace(ASK, messages=[Message("user", asked)]))))
            assert answer == f"You said: {asked}"

    workers = [FORK.Process(target=work, args=(worker,)) for worker in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert [each.exitcode for each in workers] == [0, 0, 0]
    assert text_of(list(provider.stream(ASK))) == "You said: Hi"


def test_threads_share_one_client(chat_server: ChatServer, provider: OpenAIProvider) -> None:
    """Simultaneous calls build the client once, and each gets its own answer."""
    answers: list[str] = []

    def ask(number: int) -> None:
        request = ChatRequest(model="m", messages=[Message("user", f"number {number}")])
        answers.append(text_of(list(provider.stream(request))))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [f"You said: number {number}" for number in range(8)]
