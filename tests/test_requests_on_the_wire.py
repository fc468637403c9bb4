"""Requests are valid for strict servers, after any answer, and for any chat template."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import Budget, ConversationManager, MemoryStore, OpenAIProvider
from promptkit_nb.chat.token_estimates import TokenEstimator
from promptkit_nb.chat.window import fit
from promptkit_nb.errors import BadRequestError, ProviderError, ProviderUnavailableError
from promptkit_nb.providers.openai_client import RetryPolicy
from promptkit_nb.providers.openai_request import encode_message, fold_system_message
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.turns import ContentPart, Message, ToolCall, Turn
from strict_servers import gemma_violation, mistral_violation, openai_violation, strict

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.conversation import Conversation

RULES: dict[str, Callable[[dict[str, Any]], str | None]] = {"OpenAI": openai_violation, "Mistral": mistral_violation}
NO_STREAM_OPTIONS = "Extra inputs are not permitted: stream_options"

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
_BUDGET = Budget(1000, per="total")

PICTURE = ContentPart("image_url", url="data:image/png;base64,AA==")


def opened(server: ChatServer, *, model: str = "m", prompt: str | None = "You help.", **options: Any) -> Conversation:
    """Return a conversation with the loopback server, which is asked once per message."""
    provider = OpenAIProvider(model, base_url=server.url, max_retries=0)
    return ConversationManager(provider, MemoryStore()).new_conversation(system_prompt=prompt, **options)


def sent(server: ChatServer, at: int = -1) -> list[tuple[str, Any]]:
    """Return roles and contents of a request."""
    return [(message["role"], message.get("content")) for message in server.requests[at].body["messages"]]


def chunk(delta: object = None, **fields: Any) -> dict[str, Any]:
    """Return one event with this delta; further fields belong to the choice."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **fields}]}


STOP = chunk({}, finish_reason="stop")
CALL = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}

# What may come back in one turn.
ANSWERS: dict[str, Reply] = {
    "text": Reply(text="Fine."),
    "nothing": Reply(chunks=[STOP]),
    "blanks": Reply(chunks=[chunk({"content": " \n"}), STOP]),
    "null": Reply(chunks=[chunk({"content": None}), STOP]),
    "an unasked tool call": Reply(chunks=[chunk({"tool_calls": [CALL]}), chunk({}, finish_reason="tool_calls")]),
    "text and an unasked tool call": Reply(chunks=[chunk({"content": "Let me look.", "tool_calls": [CALL]}), STOP]),
    "only thinking": Reply(chunks=[chunk({"reasoning_content": "Hmm."}), chunk({}, finish_reason="length")]),
    "an unclosed think block": Reply(chunks=[chunk({"content": "<think>Hmm"}), chunk({}, finish_reason="length")]),
    "thinking and text": Reply(chunks=[chunk({"content": "<think>Hmm</think>42"}), STOP]),
    "a cut answer": Reply(chunks=[chunk({"content": "Half"}), chunk({}, finish_reason="length")]),
    "a filtered answer": Reply(chunks=[chunk({"content": "Half"}), chunk({}, finish_reason="content_filter")]),
    "a refused answer": Reply(chunks=[chunk({}, finish_reason="content_filter")]),
    "an unknown end": Reply(chunks=[chunk({"content": "Half"}), chunk({}, finish_reason="because")]),
    "an error after text": Reply(chunks=[chunk({"content": "Half"}), {"error": {"message": "Boom", "code": 500}}]),
    "a broken stream": Reply(text="One two three", cut_after=2),
    "a refusal": Reply(chunks=[chunk({"content": None, "refusal": "I can't."}), STOP]),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", ANSWERS)
def test_conversation_is_never_blocked(chat_server: ChatServer, rules: str, name: str) -> None:
    """After any answer, a strict server accepts the next request."""
    refused = strict(chat_server, RULES[rules], status=422, replies=[Reply(text="Hello."), ANSWERS[name]])
    conv = opened(chat_server)
    conv.send("Hi")
    with suppress(ProviderError):
        conv.send("And now?")
    assert conv.send("Go on").content == "Fine."
    assert [each for each in refused if each != NO_STREAM_OPTIONS] == []


@given(st.lists(st.sampled_from([*ANSWERS, "stopped"]), min_size=1, max_size=6), st.sampled_from([*RULES]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_answers_is_followed_by_another_turn(
    chat_server: ChatServer, names: list[str], rules: str
) -> None:
    """This includes stopped answers, and summaries and truncation in between."""
    replies = [ANSWERS.get(name, Reply(text="One two three")) for name in names]
    refused = strict(chat_server, RULES[rules], status=422, replies=replies)
    conv = opened(chat_server)
    for name in names:
        with suppress(ProviderError):
            for _ in conv.stream("And now?"):
                if name == "stopped":
                    break
    with suppress(ProviderError):
        conv.summarize(keep_last=2)
    assert conv.send("Go on").content == "Fine."
    assert [each for each in refused if each != NO_STREAM_OPTIONS] == []


texts = st.sampled_from(["", " \n", "Fine.", "<think>Hmm</think>", "<think>Hmm</think>42", "</think>Well"])
ids = st.sampled_from(["abcdefgh1", "abcdefgh2", "abcdefgh3"])
calls = st.lists(st.builds(ToolCall, ids, st.just("look")), max_size=2, unique_by=lambda call: call.id).map(tuple)
parts = st.sampled_from([(), (), (PICTURE,), (ContentPart("text", text="Look."), PICTURE)])
messages = st.one_of(
    st.builds(Message, st.just("user"), texts, parts=parts),
    st.builds(Message, st.just("assistant"), texts, tool_calls=calls),
    st.builds(Message, st.just("tool"), texts.map(lambda text: text or "done"), tool_call_id=ids),
    st.builds(Message, st.just("system"), texts, name=st.sampled_from([None, "not a name"])),
)
turns = st.lists(st.builds(Turn, messages=st.lists(messages, max_size=6).map(tuple)), max_size=5)


# Agents' logs have turns in which the user spoke after a result, before the model did.
INTERRUPTED_CALL = (
    Message("user", "Hi"),
    Message("assistant", "", tool_calls=(ToolCall("abcdefgh1", "look"),)),
    Message("tool", "done", tool_call_id="abcdefgh1"),
    Message("user", "Stop"),
    Message("assistant", "Fine."),
)


@given(turns, st.none() | st.just("You help."), st.sampled_from([None, 60, 200]))
@example([Turn(messages=(Message("user", "Hi"), Message("assistant", "<think>Hmm</think>")))], None, None)
@example([Turn(messages=INTERRUPTED_CALL)], None, None)
@settings(max_examples=400)
def test_turns_of_any_origin_make_requests_that_strict_servers_take(
    said: list[Turn], prompt: str | None, max_tokens: int | None
) -> None:
    """Turns may be made by hand, imported, or stored by an earlier version."""
    estimator = TokenEstimator.of("gpt-4o")
    window = fit(prompt, said, [], Message("user", "Go on"), estimator=estimator, max_tokens=max_tokens)
    body = {"messages": [encode_message(message) for message in window.messages]}
    assert (openai_violation(body), mistral_violation(body)) == (None, None)
    folded = {"messages": [encode_message(message) for message in fold_system_message(window.messages)]}
    assert mistral_violation(folded) is None
    assert (max_tokens is None) or estimator.of_messages(window.messages).counted <= max_tokens


def test_rules_of_strict_servers_refuse_what_they_are_for() -> None:
    """Each rule refuses an invalid request."""
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    system, empty = {"role": "system", "content": "S"}, {"role": "assistant", "content": ""}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "abcdefgh1"}]}
    refused_by_mistral = [[system, system, user], [user, empty, user], [user, user], [user, call, user], [user, answer]]
    assert all(mistral_violation({"messages": each}) for each in refused_by_mistral)
    refused_by_openai = [[], [user, call, user], [{"role": "tool", "content": "x", "tool_call_id": "b"}]]
    assert all(openai_violation({"messages": each}) for each in refused_by_openai)
    assert gemma_violation({"messages": [system, user]})


# One system message


def test_prompt_and_summary_are_one_system_message(chat_server: ChatServer) -> None:
    """A summarized conversation goes on with a server that accepts a single system message."""
    refused = strict(chat_server, mistral_violation)
    conv = opened(chat_server)
    for number in range(4):
        conv.send(f"Question {number}")
    chat_server.reply(Reply(text="They counted."))
    conv.summarize(keep_last=2)
    conv.send("And now?")
    assert sent(chat_server)[0] == (
        "system",
        "You help.\n\nSummary of 3 earlier turns of this conversation:\n\nThey counted.",
    )
    assert [role for role, _ in sent(chat_server)] == ["system", "user", "assistant", "user"]
    assert refused == [NO_STREAM_OPTIONS]


def test_two_summaries_are_one_system_message(chat_server: ChatServer) -> None:
    """Also without a system prompt."""
    said = tuple(
        Turn(id=f"t{at}", messages=(Message("user", f"Question {at}"), Message("assistant", "Fine.")))
        for at in range(4)
    )
    summaries = (Summary("t0", "t0", "First."), Summary("t1", "t2", "Second."))
    provider = OpenAIProvider("m", base_url=chat_server.url)
    manager = ConversationManager(provider, MemoryStore())
    manager.store.create(ConversationState("c", turns=said, summaries=summaries))
    manager.get_conversation("c").send("And now?")
    (system, *rest) = sent(chat_server)
    assert system[1].count("Summary of ") == 2
    assert [role for role, _ in rest] == ["user", "assistant", "user"]


# Without a system role

NO_SYSTEM_ROLE = {
    "llama.cpp: Gemma's template": (500, "System role not supported"),
    "vLLM: Gemma's template": (400, "System role not supported"),
    "OpenAI: o1-mini": (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    "an old template of Mistral": (500, "Conversation roles must alternate user/assistant/user/assistant/..."),
    "Google AI Studio: Gemma": (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    "LM Studio": (400, "Error rendering prompt with jinja template: Only user and assistant roles are supported!"),
    "OpenRouter: the vendor's words": (400, "Provider returned error"),
}


@pytest.mark.parametrize("name", NO_SYSTEM_ROLE)
def test_system_prompt_is_folded_if_the_model_has_no_system_role(chat_server: ChatServer, name: str) -> None:
    """It is put in front of the first user message; this is reported once, and remembered for this model only."""
    status, words = NO_SYSTEM_ROLE[name]
    metadata = {"raw": '{"error": {"message": "System role not supported"}}', "provider_name": "Gemma"}
    error = {"message": words, **({"metadata": metadata} if name.startswith("OpenRouter") else {})}

    def answer(request: Any) -> Reply:
        if any(message["role"] == "system" for message in request.body["messages"]):
            return Reply(status=status, body=json.dumps({"error": error}).encode(), content_type="application/json")
        return Reply(text="Fine.")

    chat_server.usual = answer
    conv = opened(chat_server, model="gemma")
    first, second = conv.send("Hi"), conv.send("And now?")
    assert first.warnings == ("gemma has no system role: the system prompt is sent with the first user message.",)
    assert second.warnings == ()
    assert len(chat_server.requests) == 3
    assert sent(chat_server) == [("user", "You help.\n\nHi"), ("assistant", "Fine."), ("user", "And now?")]
    assert [message.content for message in conv.messages][:2] == ["You help.", "Hi"]
    with suppress(ProviderError):
        conv.send("And you?", model="other")
    assert sent(chat_server, 3)[0][0] == "system"


def test_system_prompt_is_folded_into_a_message_with_a_picture(chat_server: ChatServer) -> None:
    """As a text before it."""
    strict(chat_server, gemma_violation, status=500)
    conv = opened(chat_server)
    list(conv.stream("What is this?", parts=(ContentPart("text", text="What is this?"), PICTURE)))
    (message,) = chat_server.requests[-1].body["messages"]
    assert [part.get("text") for part in message["content"]] == ["You help.", "What is this?", None]


def test_a_refused_system_role_without_a_system_prompt_is_an_error(chat_server: ChatServer) -> None:
    """Nothing can be folded: the server's words decide, after one more try."""
    chat_server.usual = lambda _: error_reply(400, "roles must alternate")
    with pytest.raises(BadRequestError, match="roles must alternate"):
        opened(chat_server, prompt=None).send("Hi")
    assert len(chat_server.requests) <= 2


# Without a stream

NO_STREAM = {
    "OpenAI: organization not verified": "Your organization must be verified to stream this model. Please go to: …",
    "OpenAI: o1": "Unsupported value: 'stream' does not support true with this model. Supported values are: false.",
    "Hugging Face": "Error in `stream`: `stream` is not supported for this model",
    "a gateway": "Assistant model m does not support streaming.",
    "Bedrock": "This model doesn't support tool use in streaming mode.",
}


@pytest.mark.parametrize("name", NO_STREAM)
def test_model_that_cannot_stream_is_asked_without(chat_server: ChatServer, name: str) -> None:
    """Once with a stream; from then on the model is asked in one piece, and other models are not."""
    chat_server.usual = lambda request: (
        error_reply(400, NO_STREAM[name], code="unsupported_value") if request.body["stream"] else Reply(text="Fine.")
    )
    conv = opened(chat_server, model="o3")
    assert [conv.send("Hi").content, conv.send("And now?").content] == ["Fine.", "Fine."]
    with suppress(ProviderError):
        conv.send("And you?", model="other")
    assert [request.body["stream"] for request in chat_server.requests][:4] == [True, False, False, True]
    assert "stream_options" not in chat_server.requests[1].body


EMPTY = {
    "no body": Reply(body=b"", content_type="text/event-stream"),
    "only the end": Reply(body=b"data: [DONE]\n\n", content_type="text/event-stream"),
    "only comments": Reply(body=b": ping\n\n: ping\n\n", content_type="text/event-stream"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_stream_is_asked_once_without(chat_server: ChatServer, name: str) -> None:
    """An answer in one piece is an answer."""
    chat_server.reply(EMPTY[name], Reply(text="Fine."))
    assert opened(chat_server).send("Hi").content == "Fine."
    assert [request.body["stream"] for request in chat_server.requests] == [True, False]


def test_words_of_the_answer_without_a_stream_decide(chat_server: ChatServer) -> None:
    """Such as a context limit with its figures, upon which the request is shortened."""
    too_long = error_reply(400, "request (5000 tokens) exceeds the available context size (4096 tokens)")
    conv = opened(chat_server)
    conv.send("Question " + "word " * 50)
    chat_server.reply(EMPTY["no body"], too_long, Reply(text="Fine."))
    answer = conv.send("And now?")
    assert (answer.content, answer.truncated) == ("Fine.", 1)


def test_server_that_answers_nothing_at_all_is_an_error(chat_server: ChatServer) -> None:
    """Twice empty, with and without a stream."""
    chat_server.reply(EMPTY["no body"], Reply(body=b""))
    with pytest.raises(ProviderUnavailableError, match="an empty reply"):
        opened(chat_server).send("Hi")
    assert len(chat_server.requests) == 2


# Learned per model


def test_what_one_model_refuses_is_sent_to_another(chat_server: ChatServer) -> None:
    """The name of the output limit, and stream_options."""

    def answer(request: Any) -> Reply:
        if request.body["model"] == "strict" and "stream_options" in request.body:
            return error_reply(400, "Unknown parameter: stream_options")
        if request.body["model"] == "strict" and "max_tokens" in request.body:
            return error_reply(400, "Unsupported parameter: 'max_tokens'")
        return Reply(text="Fine.")

    chat_server.usual = answer
    conv = opened(chat_server)
    for model in ("strict", "other", "strict"):
        conv.send("Hi", model=model, max_output_tokens=9)
    fields = [
        sorted(request.body.keys() & {"stream_options", "max_tokens", "max_completion_tokens"})
        for request in chat_server.requests
    ]
    assert fields[-3:] == [["max_completion_tokens"], ["max_tokens", "stream_options"], ["max_completion_tokens"]]


def test_thinking_goes_back_within_the_rounds_of_a_turn_if_the_server_wants_it(chat_server: ChatServer) -> None:
    """DeepSeek and Moonshot refuse a round without it, and others refuse it; earlier turns never send theirs."""

    def look() -> str:
        """Look at it."""
        return "a cat"

    def answer(request: Any) -> Reply:
        if request.body["messages"][-1]["role"] == "user":
            deltas = [chunk({"reasoning_content": "I should look."}), chunk({"tool_calls": [CALL]})]
            return Reply(chunks=[*deltas, chunk({}, finish_reason="tool_calls")])
        if request.body["model"] == "thinks" and "reasoning_content" not in request.body["messages"][-2]:
            return error_reply(400, "Missing `reasoning_content` field in the assistant message at message index 1.")
        return Reply(text="A cat.")

    chat_server.usual = answer
    conv = opened(chat_server, prompt=None)
    for model in ("thinks", "thinks", "other"):
        assert conv.send("What is it?", tools=[look], model=model).content == "A cat."
    sent_back = [
        [message.get("reasoning_content") for message in request.body["messages"] if message.get("tool_calls")]
        for request in chat_server.requests
    ]
    thought = "I should look."
    assert sent_back[:3] == [[], [None], [thought]]
    assert sent_back[3:5] == [[None], [None, thought]]
    assert sent_back[5:] == [[None, None], [None, None, None]]


def test_a_format_that_did_not_help_is_not_remembered(chat_server: ChatServer) -> None:
    """Only a format with which the model answered is used again."""
    chat_server.reply(error_reply(400, "System role not supported"), error_reply(401, "Bad key"))
    conv = opened(chat_server)
    with pytest.raises(ProviderError):
        conv.send("Hi")
    conv.send("Hi")
    assert sent(chat_server)[0] == ("system", "You help.")


# Nothing empty, and what is left out


def test_turn_without_text_is_announced_and_left_out(chat_server: ChatServer) -> None:
    """With the question, since roles must alternate; it stays in the conversation."""
    conv = opened(chat_server, prompt=None)
    chat_server.reply(ANSWERS["nothing"])
    assert conv.send("Hi").warnings == ("The model answered without any text. Later requests leave this turn out.",)
    conv.send("And now?")
    assert sent(chat_server) == [("user", "And now?")]
    assert len(conv.turns) == 2
    assert [line.content for line in conv.context()] == ["And now?", "You said: And now?"]


def test_unasked_tool_calls_are_announced_and_left_out(chat_server: ChatServer) -> None:
    """They are stored, and no later request has them."""
    conv = opened(chat_server, prompt=None)
    chat_server.reply(ANSWERS["text and an unasked tool call"])
    answer = conv.send("Hi")
    assert answer.warnings == (
        "The model called 'look', though no tools were offered. Nothing was run; later requests leave it out.",
    )
    assert answer.turn.messages[1].tool_calls == (ToolCall("call_a", "look"),)
    conv.send("And now?")
    assert sent(chat_server) == [("user", "Hi"), ("assistant", "Let me look."), ("user", "And now?")]
    assert all("tool_calls" not in message for message in chat_server.requests[-1].body["messages"])


def test_answered_tool_calls_are_sent(chat_server: ChatServer) -> None:
    """Calls with their results, and the answer made from them."""
    call = Message("assistant", tool_calls=(ToolCall("abcdefgh1", "look"),))
    result = Message("tool", "a cat", tool_call_id="abcdefgh1")
    turn = Turn(messages=(Message("user", "What is it?"), call, result, Message("assistant", "A cat.")))
    conv = opened(chat_server, prompt=None)
    conv.store.append(conv.id, turn)
    strict(chat_server, openai_violation, mistral_violation)
    conv.send("Sure?")
    assert [role for role, _ in sent(chat_server)] == ["user", "assistant", "tool", "assistant", "user"]


def test_turns_without_text_are_in_no_summary(chat_server: ChatServer) -> None:
    """Empty turns are not sent to be summarized."""
    conv = opened(chat_server, prompt=None)
    chat_server.reply(ANSWERS["nothing"], Reply(text="Fine."), Reply(text="They met."))
    conv.send("Hi"), conv.send("And now?")
    conv.summarize(keep_last=0)
    assert sent(chat_server)[1][1].startswith("[user]: Hi\n[user]: And now?\n[assistant]: Fine.\n")


def test_names_that_servers_refuse_are_not_sent(chat_server: ChatServer) -> None:
    """OpenAI allows letters, digits, dashes and underscores."""
    conv = opened(chat_server, prompt=None)
    said = (Message("user", "Hi", name="Alice Liddell"), Message("assistant", "Hello", name="mad_hatter"))
    conv.store.append(conv.id, Turn(messages=said))
    strict(chat_server, openai_violation)
    conv.send("And now?")
    assert [message.get("name") for message in chat_server.requests[-1].body["messages"]] == [None, "mad_hatter", None]


# Summaries

NO_SUMMARIES = {
    "cut at its limit": (ANSWERS["a cut answer"], "cut at the output limit of 500 tokens"),
    "cut, by another word": (
        Reply(chunks=[chunk({"content": "Half"}), chunk({}, finish_reason="MAX_TOKENS")]),
        "cut at the output limit",
    ),
    "only thinking": (ANSWERS["only thinking"], "empty summary"),
    "an unclosed think block": (ANSWERS["an unclosed think block"], "empty summary"),
    "cut by a filter": (ANSWERS["a filtered answer"], "cut by the provider's filter"),
    "an unknown end": (ANSWERS["an unknown end"], "because"),
    "an error": (ANSWERS["an error after text"], "Boom"),
}


@pytest.mark.parametrize("name", NO_SUMMARIES)
def test_answer_that_is_not_whole_is_no_summary(chat_server: ChatServer, name: str) -> None:
    """The error says why; the call is paid, and the conversation goes on without a summary."""
    reply, words = NO_SUMMARIES[name]
    provider = OpenAIProvider("m", base_url=chat_server.url, max_retries=0, prices={"m": (1000, 1000)})
    manager = ConversationManager(provider, MemoryStore())
    conv = manager.new_conversation(context_policy="summarize", max_tokens=300)
    chat_server.reply(replace(reply, chunks=[*(reply.chunks or ()), {"choices": [], "usage": USAGE}]))
    before = _spent(manager)
    with pytest.raises(ProviderError, match=words):
        _with_turns(conv).summarize(keep_last=0)
    assert conv.summaries == ()
    assert _spent(manager) > before
    chat_server.reply(reply, Reply(text="Fine."))
    answer = conv.send("And now?")
    assert answer.content == "Fine."
    assert any(warning.startswith("No summary could be made") for warning in answer.warnings)


def _spent(manager: ConversationManager) -> Any:
    """Return what the ledger has for all users and days."""
    (line,) = ConversationManager(manager.provider, manager.store, budget=_BUDGET).new_conversation().budget_lines()
    return float(line.split("$")[1].split(" ")[0].replace(",", ""))


def _with_turns(conv: Conversation) -> Conversation:
    for number in range(8):
        said = (Message("user", f"Question {number}"), Message("assistant", "word " * 30))
        conv.store.append(conv.id, Turn(messages=said))
    return conv


def test_thinking_before_a_summary_is_not_in_it(chat_server: ChatServer) -> None:
    """Neither in the stored summary nor in later requests."""
    conv = _with_turns(opened(chat_server, prompt=None))
    chat_server.reply(Reply(chunks=[chunk({"content": "<think>What to keep?</think>They counted."}), STOP]))
    conv.summarize(keep_last=0)
    assert conv.summaries[0].text == "They counted."
    conv.send("And now?")
    assert "What to keep?" not in json.dumps(chat_server.requests[-1].body)


def test_retries_are_for_failures_that_pass(chat_server: ChatServer) -> None:
    """A template that refuses the system role with HTTP 500 is not waited for."""
    waits: list[float] = []
    strict(chat_server, gemma_violation, status=500)
    provider = OpenAIProvider("m", base_url=chat_server.url)
    provider.retries = RetryPolicy(2, sleep=waits.append)
    conv = ConversationManager(provider).new_conversation(system_prompt="You help.")
    assert conv.send("Hi").content == "Fine."
    assert waits == []
