"""How answers end: a loopback server sends what real servers and gateways have sent, and the turn records it.

Each case names who sends such bytes; an answer that is not whole is never stored as one, and never replayed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import Reply, error_reply
from promptkit_nb import Budget, ConversationManager, DemoProvider, MemoryStore, OpenAIProvider
from promptkit_nb.errors import (
    AuthenticationError,
    ContentFilteredError,
    ContextWindowExceededError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitError,
    ReplayMissError,
)
from promptkit_nb.providers.base import Completion, TextDelta
from promptkit_nb.turns import Message, Turn, Usage

if TYPE_CHECKING:
    from chat_server import ChatServer
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.state import ConversationState

PARIS = "Paris is"


@pytest.fixture
def conv(chat_server: ChatServer) -> Conversation:
    """A conversation that replays, with the loopback server; its model has a price."""
    provider = OpenAIProvider("gpt-4o-mini", api_key="unused", base_url=chat_server.url, max_retries=0)
    return ConversationManager(provider, MemoryStore(), replay="auto").new_conversation(conversation_id="c")


def chunk(delta: object = None, **fields: Any) -> dict[str, Any]:
    """Return one event with this delta; further fields belong to the choice."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


def streamed(*events: object, text: str = PARIS) -> Reply:
    """Return a stream that begins with a text, if any."""
    return Reply(chunks=[*([chunk({"content": text})] if text else []), *events])


def raw(body: str) -> Reply:
    """Return a reply with exactly this body."""
    return Reply(body=body.encode(), content_type="text/event-stream")


def whole(message: dict[str, object], **fields: Any) -> Reply:
    """Return an answer that is not streamed; further fields belong to the choice."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, **fields}
    return Reply(body=json.dumps({"model": "m", "choices": [choice]}).encode(), content_type="application/json")


FIRST = f"data: {json.dumps(chunk({'content': PARIS}))}\n\n"
STOP = chunk({}, finish_reason="stop")
STOPPED = f"data: {json.dumps(STOP)}\n\ndata: [DONE]\n\n"

FAILURES: dict[str, tuple[Reply, type[Exception], str]] = {
    # An error in the choice, in a chunk, or in the SSE event.
    "OpenRouter: error in the choice": (
        streamed(chunk({"content": ""}, finish_reason="error", error={"code": 502, "message": "Provider died"})),
        ProviderUnavailableError,
        "Provider died",
    ),
    "OpenRouter: error beside empty choices": (
        streamed({"choices": [], "error": {"code": 502, "message": "Worker limit reached (33/32)"}}),
        ProviderUnavailableError,
        r"Worker limit reached \(33/32\)",
    ),
    "OpenRouter: error at the top, and in the finish reason": (
        streamed(chunk({}, finish_reason="error") | {"error": {"code": "server_error", "message": "Disconnected"}}),
        ProviderUnavailableError,
        "Disconnected",
    ),
    "genkit's gateway: error in the choice, closed with stop": (
        streamed(chunk({}, error={"code": 504, "message": "upstream timed out"}), STOP),
        ProviderUnavailableError,
        "upstream timed out",
    ),
    "LM Studio: error beside a message": (
        streamed({"error": {"message": "Compute error."}, "message": "Compute error."}),
        ProviderUnavailableError,
        "Compute error",
    ),
    "LiteLLM: rate limit in mid-stream": (
        streamed({"error": {"message": "Slow down", "code": "429"}}),
        RateLimitError,
        "Slow down",
    ),
    "llama.cpp until 2025-09: a field of its own": (
        raw(f'{FIRST}error: {{"code":500,"message":"failed to decode","type":"server_error"}}\n\ndata: [DONE]\n\n'),
        ProviderUnavailableError,
        "failed to decode",
    ),
    "octos: event error": (
        raw(f'{FIRST}event: error\ndata: {{"error":"Internal Network Failure"}}\n\ndata: [DONE]\n\n'),
        ProviderUnavailableError,
        "Internal Network Failure",
    ),
    "Anthropic's events through a proxy": (
        raw(
            f"{FIRST}event: error\n"
            'data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
        ),
        ProviderUnavailableError,
        "Overloaded",
    ),
    "event Error after a name without data": (
        raw(f'{FIRST}event: ping\n\nevent: Error\ndata: {{"message":"Engine died"}}\n\n{STOPPED}'),
        ProviderUnavailableError,
        "Engine died",
    ),
    "error after the name of an event without data": (
        raw(f'{FIRST}event: ping\n\ndata: {{"error":{{"message":"Engine died"}}}}\n\n{STOPPED}'),
        ProviderUnavailableError,
        "Engine died",
    ),
    "status error": (streamed({"status": "error", "message": "Died"}, STOP), ProviderUnavailableError, "Died"),
    "event error with plain words": (
        raw(f"{FIRST}event: error\ndata: backend went away\n\ndata: [DONE]\n\n"),
        ProviderUnavailableError,
        "backend went away",
    ),
    "Hugging Face TGI: error as text": (
        streamed({"error": "Incomplete generation", "error_type": "incomplete_generation"}),
        ProviderUnavailableError,
        "Incomplete generation",
    ),
    "MiniMax: base_resp": (
        streamed({"choices": None, "base_resp": {"status_code": 1013, "status_msg": "unknown error, 520"}}),
        ProviderUnavailableError,
        "unknown error, 520",
    ),
    "FastAPI: detail": (streamed({"detail": "Engine is dead"}), ProviderUnavailableError, "Engine is dead"),
    "a flat code and msg": (streamed({"code": 1305, "msg": "overloaded"}), ProviderUnavailableError, "overloaded"),
    "kronk: window is full in mid-stream": (
        streamed({"error": {"code": "server_error", "message": "the context window is full. Please reduce the input"}}),
        ContextWindowExceededError,
        "context window is full",
    ),
    # A finish reason that tells of a failure.
    "Z.ai: network_error": (
        streamed(chunk({}, finish_reason="network_error")),
        ProviderUnavailableError,
        "network_error",
    ),
    "OpenRouter: stop, and native network_error": (
        streamed(chunk({"content": ""}, finish_reason="stop", native_finish_reason="network_error"), text=""),
        ProviderUnavailableError,
        "network_error",
    ),
    "LiteLLM: the vendor's reason in provider_specific_fields": (
        streamed(chunk({}, finish_reason="stop", provider_specific_fields={"native_finish_reason": "network-error"})),
        ProviderUnavailableError,
        "network-error",
    ),
    "DeepSeek: insufficient_system_resource": (
        streamed(chunk({}, finish_reason="insufficient_system_resource")),
        ProviderUnavailableError,
        "insufficient_system_resource",
    ),
    "Gemini: MALFORMED_FUNCTION_CALL": (
        streamed(chunk({}, finish_reason="MALFORMED_FUNCTION_CALL")),
        ProviderUnavailableError,
        "MALFORMED_FUNCTION_CALL",
    ),
    "SGLang: abort": (streamed(chunk({}, finish_reason="abort")), ProviderUnavailableError, "abort"),
    "Cohere: ERROR": (streamed(chunk({}, finish_reason="ERROR")), ProviderUnavailableError, "ERROR"),
    # A stream that breaks off.
    "malformed chunk": (streamed("{broken", STOP), ProviderUnavailableError, "stopped before its end"),
    "chunk cut in the middle": (streamed('{"choices": [{"del'), ProviderUnavailableError, "stopped before its end"),
    "HTML of a proxy in mid-stream": (
        streamed("<html>504 Gateway Time-out</html>"),
        ProviderUnavailableError,
        "stopped before its end",
    ),
    "neither finish reason nor [DONE]": (
        Reply(chunks=[chunk({"content": PARIS})], no_done=True),
        ProviderUnavailableError,
        "stopped before its end",
    ),
    "connection lost": (Reply(text="Paris is the capital", cut_after=3), ProviderUnavailableError, "before its end"),
    # Answers in one piece.
    "plain body with an error in the choice": (
        whole({"content": PARIS}, finish_reason="error", error={"code": 502, "message": "upstream failed"}),
        ProviderUnavailableError,
        "upstream failed",
    ),
    "plain body with an error in the message": (
        whole({"content": PARIS, "error": "out of memory"}, finish_reason="stop"),
        ProviderUnavailableError,
        "out of memory",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_answer_that_failed_is_an_error_with_the_servers_words(
    conv: Conversation, chat_server: ChatServer, name: str
) -> None:
    """The partial text is in the error, nothing is stored, and the same message is asked again, not replayed."""
    reply, kind, words = FAILURES[name]
    chat_server.reply(reply, Reply(text="Paris."))
    with pytest.raises(kind, match=words) as caught:
        conv.send("Capital of France?")
    assert caught.value.partial == ("" if "native network" in name else PARIS)  # type: ignore[attr-defined]  # ours have it
    assert conv.turns == ()
    answer = conv.send("Capital of France?")
    assert (answer.content, answer.replayed, len(chat_server.requests)) == ("Paris.", False, 2)


REFUSALS: dict[str, Reply] = {
    "OpenAI, Azure: content_filter": streamed(chunk({}, finish_reason="content_filter"), text=""),
    "Z.ai: sensitive": streamed(chunk({}, finish_reason="sensitive"), text=""),
    "Gemini: SAFETY": streamed(chunk({}, finish_reason="SAFETY"), text=""),
    "Gemini: PROHIBITED_CONTENT": streamed(chunk({}, finish_reason="PROHIBITED_CONTENT"), text=""),
    "OpenRouter: stop, and native refusal": streamed(
        chunk({"content": ""}, finish_reason="stop", native_finish_reason="refusal"), text=""
    ),
    "Bedrock: guardrail_intervened": streamed(chunk({}, finish_reason="guardrail_intervened"), text=""),
    "blank text": streamed(chunk({}, finish_reason="content_filter"), text=" \n"),
    "only thinking": streamed(chunk({"reasoning_content": "Hmm."}), chunk({}, finish_reason="content_filter"), text=""),
    "plain body": whole({"content": None}, finish_reason="content_filter"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_answer_that_a_filter_refused_is_not_stored(conv: Conversation, chat_server: ChatServer, name: str) -> None:
    """The error says that the provider's filter refused it."""
    chat_server.reply(REFUSALS[name])
    with pytest.raises(ContentFilteredError, match="The provider's filter refused this answer"):
        conv.send("Tell me.")
    assert conv.turns == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "content_filter"), (400, "content_policy_violation"), (400, "data_inspection_failed"), (403, "safety")],
)
def test_request_that_a_filter_refused_is_said_so(
    conv: Conversation, chat_server: ChatServer, status: int, code: str
) -> None:
    """Azure, OpenAI, DashScope and others refuse with an HTTP status and a code of their own."""
    chat_server.reply(error_reply(status, "The prompt triggered our policy.", code=code))
    with pytest.raises(ContentFilteredError, match="filter refused it"):
        conv.send("Tell me.")
    assert conv.turns == ()


WHOLE = ("stop", "eos", "eos_token", "end_turn", "COMPLETE", "stop_sequence", "STOP", "FINISH_REASON_STOP", "done")


@pytest.mark.parametrize("reason", WHOLE)
def test_vendors_words_for_stop_are_whole(conv: Conversation, chat_server: ChatServer, reason: str) -> None:
    """Stored under the vendor's word, without a warning, and replayed."""
    chat_server.reply(streamed(chunk({}, finish_reason=reason)))
    answer = conv.send("Hi")
    assert (answer.content, answer.finish_reason, answer.warnings) == (PARIS, reason, ())
    assert conv.rerun(0).replayed


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded"]
)
def test_cut_answer_is_stored_with_a_warning(conv: Conversation, chat_server: ChatServer, reason: str) -> None:
    """And replayed: asking again would be cut at the same limit."""
    chat_server.reply(streamed(chunk({}, finish_reason=reason)))
    (warning,) = conv.send("Hi").warnings
    assert warning.startswith("The answer is not whole: it was cut at the output limit.")
    assert conv.rerun(0).replayed


UNKNOWN: dict[str, Reply] = {
    "an unknown word": streamed(chunk({}, finish_reason="because")),
    "[DONE] without a reason": streamed(),
    "null as text": streamed(chunk({}, finish_reason="null")),
    "a filter that cut the text": streamed(chunk({}, finish_reason="content_filter")),
    "a vendor's filter that cut the text": streamed(chunk({}, finish_reason="stop", native_finish_reason="RECITATION")),
    "plain body without a reason": whole({"content": PARIS}),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_answer_that_may_not_be_whole_is_stored_with_a_warning_and_not_replayed(
    conv: Conversation, chat_server: ChatServer, name: str
) -> None:
    """Nothing is lost, and an answer that may be incomplete is not replayed."""
    chat_server.reply(UNKNOWN[name])
    answer = conv.send("Hi")
    assert answer.content == PARIS
    (warning,) = answer.warnings
    assert "not replayed" in warning
    assert not conv.rerun(0).replayed
    assert len(chat_server.requests) == 2


REPEATED: dict[str, Reply] = {
    "the whole message beside an empty delta": streamed(
        chunk({}, message={"role": "assistant", "content": PARIS}, finish_reason="stop")
    ),
    "the whole message instead of a delta": streamed(
        {"choices": [{"index": 0, "message": {"content": PARIS}, "finish_reason": "stop"}]}
    ),
    "Perplexity: the text so far in each chunk": Reply(
        chunks=[
            chunk({"content": "Paris"}, message={"content": "Paris"}),
            chunk({"content": " is"}, message={"content": PARIS}),
            chunk({"content": ""}, message={"content": PARIS}, finish_reason="stop"),
        ]
    ),
    "the message has what the deltas lacked": streamed(
        chunk({"content": ""}, message={"content": PARIS}, finish_reason="stop"), text="Paris"
    ),
    "pieces in message, never in delta": Reply(
        chunks=[
            {"choices": [{"message": {"content": "Paris"}}]},
            {"choices": [{"message": {"content": " is"}, "finish_reason": "stop"}]},
        ]
    ),
}


@pytest.mark.parametrize("name", REPEATED)
def test_repeated_message_is_text_once(conv: Conversation, chat_server: ChatServer, name: str) -> None:
    """Some servers end a stream by repeating the whole text."""
    chat_server.reply(REPEATED[name])
    assert conv.send("Hi").content == PARIS


ONE = json.dumps(chunk({"content": "Paris"}))
TWO = json.dumps(chunk({"content": " is"}, finish_reason="stop"))
SEPARATED = {
    "a single line feed": f"data: {ONE}\ndata: {TWO}\ndata: [DONE]\n",
    "a single line feed, with names": f"event: message\ndata: {ONE}\nevent: message\ndata: {TWO}\ndata: [DONE]",
    "a single CRLF": f"data: {ONE}\r\ndata: {TWO}\r\ndata: [DONE]\r\n",
    "carriage returns": f"data: {ONE}\r\rdata: {TWO}\r\rdata: [DONE]\r\r",
    "three line feeds": f"data: {ONE}\n\n\ndata: {TWO}\n\n\ndata: [DONE]\n\n\n",
    "blank data and comments between": f"data: {ONE}\n\ndata:\n\n: ping\n\ndata: {TWO}\n\ndata: [DONE]\n\n",
    "events with other names": (
        f'event: ping\ndata: alive\n\ndata: {ONE}\n\nevent: tool\ndata: {{"msg": "look"}}\n\ndata: {TWO}\n\n'
    ),
    "words that are no error": f'data: {{"code": 200, "msg": "queued"}}\n\ndata: {ONE}\n\ndata: {TWO}\n\n',
}


@pytest.mark.parametrize("name", SEPARATED)
def test_events_are_read_however_they_are_separated(conv: Conversation, chat_server: ChatServer, name: str) -> None:
    """The standard asks for an empty line; some servers send one line break."""
    chat_server.reply(raw(SEPARATED[name]))
    assert conv.send("Hi").content == PARIS


@pytest.mark.parametrize("reason", ["error", "network_error", "content_filter", "unknown", "interrupted", "because"])
def test_turns_with_a_bad_finish_reason_of_earlier_versions_are_not_replayed(
    conv: Conversation, chat_server: ChatServer, reason: str
) -> None:
    """Version 0.1 stored and replayed them; strict replay says why it has no answer."""
    first = conv.send("Hi").turn
    state = conv.store.get("c")
    conv.store.set(_with_turn(state, first, finish_reason=reason))
    with pytest.raises(ReplayMissError):
        conv.rerun(0, replay="strict")
    assert not conv.rerun(0).replayed
    assert len(chat_server.requests) == 2


def test_turns_without_a_finish_reason_are_replayed(conv: Conversation, chat_server: ChatServer) -> None:
    """Turns made by hand, or by other tools, have none."""
    first = conv.send("Hi").turn
    conv.store.set(_with_turn(conv.store.get("c"), first, finish_reason=None))
    assert conv.rerun(0).replayed
    assert len(chat_server.requests) == 1


def _with_turn(state: ConversationState, turn: Turn, **changes: Any) -> ConversationState:
    return replace(state, turns=(replace(turn, **changes),))


def test_failed_answer_is_charged_by_its_reported_usage(chat_server: ChatServer) -> None:
    """A budget counts what a broken answer used, as the server reported it."""
    provider = OpenAIProvider("m", base_url=chat_server.url, max_retries=0, prices={"m": (1, 1)})
    conv = ConversationManager(provider, budget=Budget(1)).new_conversation()
    usage = {"prompt_tokens": 100_000, "completion_tokens": 50_000}
    chat_server.reply(streamed(chunk({}, finish_reason="error") | {"usage": usage}))
    with pytest.raises(ProviderUnavailableError) as caught:
        conv.send("Hi")
    assert caught.value.completion is not None
    assert caught.value.completion.usage == Usage(100_000, 50_000)
    assert conv.budget_lines() == ("budget $0.15 of $1.00 in this conversation",)


def test_custom_providers_are_judged_by_the_same_rules() -> None:
    """The rules apply to every ``Completion``."""

    class Failing(DemoProvider):
        reason = "network_error"

        def stream(self, request: object) -> Any:  # noqa: ARG002 - it always fails
            yield TextDelta("Half" if self.reason == "network_error" else "")
            yield Completion(model="demo", finish_reason=self.reason, usage=None)

    provider = Failing()
    conv = ConversationManager(provider).new_conversation()
    with pytest.raises(ProviderUnavailableError, match="The answer from demo broke off") as caught:
        conv.send("Hi")
    assert (caught.value.partial, caught.value.unsent) == ("Half", "Hi")
    provider.reason = "content_filter"
    with pytest.raises(ContentFilteredError):
        conv.send("Hi")
    assert conv.turns == ()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(body=b'{"error": {"message": "No such key", "code": "invalid_api_key"}}'), AuthenticationError),
        (Reply(body=b'{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}'), ProviderError),
        (Reply(body=b'{"detail": "Model is loading"}'), ProviderUnavailableError),
        (Reply(body=b'{"object": "error", "message": "No GPU", "code": 503}'), ProviderUnavailableError),
        (Reply(body=b'{"error": {"code": 400, "type": "exceed_context_size_error"}}'), ContextWindowExceededError),
    ],
)
def test_error_with_status_200_is_an_error(
    conv: Conversation, chat_server: ChatServer, reply: Reply, kind: type[Exception]
) -> None:
    """LM Studio, llama.cpp, SGLang and MiniMax answer HTTP 200, with the error in the body."""
    chat_server.reply(reply)
    with pytest.raises(kind):
        conv.send("Hi")
    assert conv.turns == ()


def test_the_users_message_survives(conv: Conversation, chat_server: ChatServer) -> None:
    """An error carries the message, ready to be sent again."""
    chat_server.reply(FAILURES["octos: event error"][0])
    with pytest.raises(ProviderError) as caught:
        conv.send("A long message")
    assert caught.value.unsent == "A long message"
    assert conv.messages == ()


def test_turn_of_messages_is_what_it_was(conv: Conversation, chat_server: ChatServer) -> None:
    """A whole answer is stored as question and answer, with the server's words for its end."""
    chat_server.reply(streamed(chunk({}, finish_reason="stop")))
    turn = conv.send("Hi").turn
    assert [(message.role, message.content) for message in turn.messages] == [("user", "Hi"), ("assistant", PARIS)]
    assert isinstance(turn.messages[0], Message)
