"""The second dialect, ``/v1/responses``: what is sent, what comes back, and when it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    BadRequestError,
    ContentFilteredError,
    ConversationManager,
    InvalidArgumentError,
    OpenAIProvider,
    ProviderUnavailableError,
    ToolError,
)
from promptkit_nb.providers.base import ChatRequest, Completion, ReasoningDelta, TextDelta
from promptkit_nb.turns import ContentPart, Message, ToolCall, Usage
from responses_format import responses_violation
from strict_servers import openai_violation, strict
from tool_replies import calling, tool_call

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation

NO_TOOLS = (
    "Function tools with reasoning_effort are not supported for m in /v1/chat/completions. To use function tools, use "
    "/v1/responses or set reasoning_effort to 'none'."
)
ONLY_THERE = "This model is only supported in v1/responses and not in v1/chat/completions."


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


CALL = tool_call("double", {"n": 4}, "call_a")


def provider_of(server: ChatServer, dialect: Any = "responses", model: str = "m") -> OpenAIProvider:
    """Return a provider that is asked once per request."""
    return OpenAIProvider(model, base_url=server.url, max_retries=0, dialect=dialect)


def opened(server: ChatServer, *replies: Reply, dialect: Any = "responses", **options: Any) -> Conversation:
    """Return a conversation with a server that refuses what OpenAI's ``/v1/responses`` refuses."""
    strict(server, responses_violation, replies=list(replies))
    return ConversationManager(provider_of(server, dialect)).new_conversation(**options)


def events_of(server: ChatServer, *events: object, **fields: Any) -> list[object]:
    """Return what the provider makes of these events."""
    server.reply(Reply(chunks=events, **fields))
    asked = ChatRequest(model="m", messages=[Message("user", "Hi")])
    return list(provider_of(server).stream(asked))


def completed(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the last event."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    response = {"model": "m", "status": "completed", "output": list(output), "usage": usage, **fields}
    return {"type": f"response.{response['status']}", "response": response}


def said(text: str) -> dict[str, Any]:
    """Return the item of a message."""
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text}]}


class TestRequests:
    def test_text(self, chat_server: ChatServer) -> None:
        """Nothing is kept on the server, and the whole conversation is sent each time."""
        conversation = opened(chat_server, Reply(text="Hello"), system_prompt="You help.")
        conversation.send("Hi")
        conversation.send("And now?", parameters={"temperature": 0.5}, max_output_tokens=7)
        assert [request.path for request in chat_server.requests] == ["/v1/responses"] * 2
        assert chat_server.requests[1].body == {
            "model": "m",
            "stream": True,
            "store": False,
            "max_output_tokens": 7,
            "temperature": 0.5,
            "input": [
                {"role": "system", "content": "You help."},
                {"role": "user", "content": "Hi"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
                {"role": "user", "content": "And now?"},
            ],
        }

    def test_parameters_have_other_names(self, chat_server: ChatServer) -> None:
        """Those of chat completions are taken."""
        schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
        parameters = {
            "reasoning_effort": "low",
            "verbosity": "low",
            "max_completion_tokens": 9,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        opened(chat_server).send("Hi", parameters=parameters)
        body = chat_server.requests[0].body
        assert body["reasoning"] == {"effort": "low"}
        assert body["max_output_tokens"] == 9
        assert body["text"] == {"verbosity": "low", "format": {"type": "json_schema", **schema}}

    @pytest.mark.parametrize("name", ["seed", "stop", "n", "logit_bias", "presence_penalty", "frequency_penalty"])
    def test_parameters_that_do_not_exist(self, chat_server: ChatServer, name: str) -> None:
        """They are not dropped silently; nothing is sent."""
        with pytest.raises(InvalidArgumentError, match=f"'{name}' does not exist at /v1/responses"):
            opened(chat_server).send("Hi", parameters={name: 1})
        assert chat_server.requests == []

    @pytest.mark.parametrize("name", ["store", "previous_response_id", "input"])
    def test_parameters_that_the_request_sets(self, chat_server: ChatServer, name: str) -> None:
        """Conversations are stored here, and nowhere else."""
        with pytest.raises(InvalidArgumentError, match="is set by the request itself"):
            opened(chat_server).send("Hi", parameters={name: True})

    def test_images(self, chat_server: ChatServer) -> None:
        """Parts have other names."""
        picture = ContentPart("image_url", url="data:image/png;base64,AA==")
        list(opened(chat_server).stream("What is it?", parts=[picture]))
        assert chat_server.requests[0].body["input"][0]["content"] == [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
        ]

    def test_calls_and_results_of_stored_turns(self, chat_server: ChatServer) -> None:
        """They are items without the server's ids, which only live within a turn."""
        messages = [
            Message("user", "Go"),
            Message("assistant", "Let me see.", tool_calls=(ToolCall("call_a", "double", '{"n": 4}'),)),
            Message("tool", "8", tool_call_id="call_a", name="double"),
            Message("assistant", "8."),
            Message("user", "Thanks"),
        ]
        list(provider_of(chat_server).stream(ChatRequest(model="m", messages=messages)))
        assert chat_server.requests[0].body["input"][1:4] == [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            {"type": "function_call", "call_id": "call_a", "name": "double", "arguments": '{"n": 4}'},
            {"type": "function_call_output", "call_id": "call_a", "output": "8"},
        ]


class TestTools:
    def test_a_tool_is_called_and_its_result_is_used(self, chat_server: ChatServer) -> None:
        """Flat definitions, not strict; the turn is the same as with chat completions."""
        conversation = opened(chat_server, calling(CALL, text="Let me see."), Reply(text="It is 8."))
        response = conversation.send("Double 4", tools=[double])
        assert (response.content, response.tool_results) == ("It is 8.", (8,))
        (tool,) = chat_server.requests[0].body["tools"]
        assert (tool["type"], tool["name"], tool["strict"]) == ("function", "double", False)
        assert response.usage == Usage(20, 10)
        roles = [message.role for message in conversation.turns[0].messages]
        assert roles == ["user", "assistant", "tool", "assistant"]
        conversation.send("Thanks")
        assert "tools" not in chat_server.requests[-1].body

    def test_reasoning_is_sent_back_within_the_turn_and_never_stored(self, chat_server: ChatServer) -> None:
        """Encrypted, with the item of the call that belongs to it."""
        conversation = opened(chat_server, calling(CALL, reasoning="Use double."), Reply(text="8."))
        conversation.send("Double 4", tools=[double])
        assert chat_server.requests[0].body["include"] == ["reasoning.encrypted_content"]
        reasoning, call, result = chat_server.requests[1].body["input"][1:]
        assert (reasoning["type"], reasoning["encrypted_content"]) == ("reasoning", "gAAAA")
        assert (call["id"], call["call_id"]) == ("fc_after_0", "call_a")
        assert result == {"type": "function_call_output", "call_id": "call_a", "output": "8"}
        assert "gAAAA" not in str(conversation.turns)
        conversation.send("Thanks")
        assert "gAAAA" not in json.dumps(chat_server.requests[-1].body)

    def test_a_model_without_reasoning_is_asked_without(self, chat_server: ChatServer) -> None:
        """Once, and it is remembered."""
        conversation = opened(chat_server)
        chat_server.reply(error_reply(400, "Encrypted content is not supported with this model."))
        conversation.send("Hi", tools=[double])
        conversation.send("Hi", tools=[double])
        assert ["include" in request.body for request in chat_server.requests] == [True, False, False]

    def test_a_call_that_the_limit_cut(self, chat_server: ChatServer) -> None:
        """It is not run."""
        with pytest.raises(ToolError, match="Raise max_output_tokens"):
            opened(chat_server, calling(CALL, finish_reason="length")).send("Go", tools=[double])


class TestSwitching:
    def test_a_model_that_takes_tools_there_only(self, chat_server: ChatServer) -> None:
        """It is asked there at once; other providers of the server remember, and requests without tools stay."""
        chat_server.reply(error_reply(400, NO_TOOLS))
        conversation = ConversationManager(provider_of(chat_server, "auto")).new_conversation()
        conversation.send("Double 4", tools=[double])
        conversation.send("Hi")
        other = ConversationManager(provider_of(chat_server, "auto")).new_conversation()
        other.send("Double 4", tools=[double])
        paths = [request.path.removeprefix("/v1/") for request in chat_server.requests]
        assert paths == ["chat/completions", "responses", "chat/completions", "responses"]

    def test_a_model_that_exists_there_only(self, chat_server: ChatServer) -> None:
        """Any request goes there."""
        chat_server.reply(error_reply(404, ONLY_THERE))
        conversation = ConversationManager(provider_of(chat_server, "auto")).new_conversation()
        assert conversation.send("Hi").content == "You said: Hi"
        assert [request.path for request in chat_server.requests] == ["/v1/chat/completions", "/v1/responses"]

    def test_a_known_server_switches_too(self, chat_server: ChatServer) -> None:
        """Providers by name, as ``%chat_setup --provider`` makes them."""
        chat_server.reply(error_reply(400, NO_TOOLS))
        provider = OpenAIProvider.of_vendor("vllm", "m", base_url=chat_server.url, max_retries=0)
        ConversationManager(provider).new_conversation().send("Go", tools=[double])
        assert [request.path for request in chat_server.requests] == ["/v1/chat/completions", "/v1/responses"]

    def test_chat_means_chat(self, chat_server: ChatServer) -> None:
        """The server's words are the error."""
        chat_server.reply(error_reply(400, NO_TOOLS))
        with pytest.raises(BadRequestError, match="use /v1/responses"):
            ConversationManager(provider_of(chat_server, "chat")).new_conversation().send("Go", tools=[double])

    def test_the_same_turn_in_both_dialects(self, chat_server: ChatServer) -> None:
        """A conversation goes on in the other dialect; its replay key does not depend on it."""
        strict(chat_server, lambda body: (responses_violation if "input" in body else openai_violation)(body),
               replies=[calling(CALL), Reply(text="8."), Reply(text="Fine.")])  # fmt: skip
        manager = ConversationManager(provider_of(chat_server, "chat"), replay="auto")
        conversation = manager.new_conversation()
        conversation.send("Double 4", tools=[double])
        manager.provider = provider_of(chat_server, "responses")
        again = manager.get_conversation(conversation.id)
        assert again.rerun(0, tools=[double]).replayed
        assert again.send("Thanks").content == "Fine."


class TestAnswers:
    def test_events_become_text_and_reasoning(self, chat_server: ChatServer) -> None:
        """As they arrive, with the usage at the end."""
        chat_server.reply(Reply(text="Hello there", reasoning="Greet."))
        events = list(provider_of(chat_server).stream(ChatRequest(model="m", messages=[Message("user", "Hi")])))
        assert events[:3] == [ReasoningDelta("Greet."), TextDelta("Hello"), TextDelta(" there")]
        assert isinstance(events[-1], Completion)
        assert (events[-1].finish_reason, events[-1].usage) == ("stop", Usage(10, 5))

    def test_sparse_events(self, chat_server: ChatServer) -> None:
        """llama.cpp sends no sequence number and no index; what was not streamed comes from the response."""
        delta = {"type": "response.output_text.delta", "item_id": "x", "delta": "Hel"}
        events = events_of(chat_server, delta, completed(said("Hello")))
        assert events[:2] == [TextDelta("Hel"), TextDelta("lo")]

    def test_a_response_without_output_keeps_the_items(self, chat_server: ChatServer) -> None:
        """Calls come from the events then."""
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "double", "arguments": ""}
        done = {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": '{"n": 4}'}
        added = {"type": "response.output_item.added", "item": item}
        (end,) = events_of(chat_server, added, done, completed())
        assert isinstance(end, Completion)
        assert end.tool_calls == (ToolCall("call_a", "double", '{"n": 4}'),)

    def test_one_piece(self, chat_server: ChatServer) -> None:
        """A server that does not stream sends the response as JSON."""
        body = json.dumps(completed(said("Hello"))["response"]).encode()
        chat_server.reply(Reply(body=body, content_type="application/json"))
        events = list(provider_of(chat_server).stream(ChatRequest(model="m", messages=[Message("user", "Hi")])))
        assert events[0] == TextDelta("Hello")

    def test_refusals_are_text(self, chat_server: ChatServer) -> None:
        """As in chat completions."""
        delta = {"type": "response.refusal.delta", "item_id": "x", "delta": "I can't."}
        assert events_of(chat_server, delta, completed())[0] == TextDelta("I can't.")

    def test_a_cut_answer(self, chat_server: ChatServer) -> None:
        """The reason is kept; it is a warning of the turn."""
        response = opened(chat_server, Reply(text="Hello", finish_reason="length")).send("Hi")
        assert response.finish_reason == "max_output_tokens"
        assert response.warnings[0].startswith("The answer is not whole: it was cut at the output limit.")

    def test_a_filtered_answer(self, chat_server: ChatServer) -> None:
        """Without any text it is an error."""
        with pytest.raises(ContentFilteredError):
            events_of(chat_server, completed(status="incomplete", incomplete_details={"reason": "content_filter"}))

    @pytest.mark.parametrize(
        "event",
        [
            pytest.param({"type": "error", "code": "server_error", "message": "Boom", "param": None}, id="flat"),
            pytest.param({"type": "error", "error": {"code": "server_error", "message": "Boom"}}, id="nested"),
            pytest.param(completed(status="failed", error={"code": "server_error", "message": "Boom"}), id="failed"),
        ],
    )
    def test_errors_in_mid_stream(self, chat_server: ChatServer, event: dict[str, Any]) -> None:
        """In all three forms; the text so far is in ``partial``."""
        delta = {"type": "response.output_text.delta", "item_id": "x", "delta": "Half"}
        with pytest.raises(ProviderUnavailableError, match="Boom") as caught:
            events_of(chat_server, delta, event)
        assert caught.value.partial == "Half"

    def test_a_stream_that_breaks_off(self, chat_server: ChatServer) -> None:
        """Without its last event it is not whole."""
        delta = {"type": "response.output_text.delta", "item_id": "x", "delta": "Half"}
        with pytest.raises(ProviderUnavailableError, match="stopped before its end"):
            events_of(chat_server, delta, no_done=True)


def test_an_unknown_dialect() -> None:
    """The error lists the known ones."""
    with pytest.raises(InvalidArgumentError, match='use "auto", "chat" or "responses"'):
        OpenAIProvider("m", base_url="http://localhost/v1", dialect="soap")  # type: ignore[arg-type]  # on purpose
