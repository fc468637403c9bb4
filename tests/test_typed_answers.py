"""Typed answers: ``schema=`` in, a validated ``value`` out, or an error; never a guess."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import ConversationManager, InvalidArgumentError, MemoryStore, OpenAIProvider, SchemaError, usage_df
from promptkit_nb.codec import FORMAT_VERSION, NEWEST_FORMAT, format_of
from promptkit_nb.tools.answer_types import AnswerRejectedError, AnswerType
from responses_format import responses_violation
from strict_servers import openai_violation, strict
from tool_replies import calling, tool_call

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int | None


class Note(pydantic.BaseModel):
    """A note, one of whose fields may be left out."""

    text: str
    stars: int = 0


class Size(Enum):
    """A size."""

    SMALL = "s"


def opened(server: ChatServer, *replies: Reply, dialect: Any = "auto", **options: Any) -> Conversation:
    """Return a conversation whose requests get these replies, if OpenAI would take them."""
    rule = openai_violation if dialect == "auto" else responses_violation
    strict(server, rule, replies=list(replies))
    provider = OpenAIProvider("m", base_url=server.url, max_retries=0, prices={"m": (1, 1)}, dialect=dialect)
    return ConversationManager(provider, **options).new_conversation(system_prompt="You help.")


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (Person, '{"name": "Ann", "age": 7}', Person(name="Ann", age=7)),
        (Person, 'Here it is:\n```json\n{"name": "Ann", "age": null}\n```', Person(name="Ann", age=None)),
        (Person, 'It is {"name": "Ann", "age": 7}, I think.', Person(name="Ann", age=7)),
        ({"name": str, "age": int}, '{"name": "Ann", "age": "7"}', {"name": "Ann", "age": 7}),
        (["bug", "idea"], '{"value": "bug"}', "bug"),
        (["bug", "idea"], " Bug ", "bug"),
        (int, '{"value": 7}', 7),
        (list[str], '{"value": ["a", "b"]}', ["a", "b"]),
        (Literal["a", "b"], '{"value": "b"}', "b"),
        (Size, '{"value": "s"}', Size.SMALL),
        (bool, '{"value": true}', True),
    ],
)
def test_values(chat_server: ChatServer, schema: object, text: str, value: object) -> None:
    """Models, dicts of types, labels, and plain types; JSON alone, in a fence, and within text."""
    response = opened(chat_server, Reply(text=text)).send("Go", schema=schema)
    assert (response.value, response.content) == (value, text)
    assert AnswerType.of(schema).read(str(response.turn.value_json)) == value


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (["bug", "idea"], '{"value": "bugs"}'),
        (["bug", "Bug"], "BUG"),
        (int, '{"value": 3.5}'),
        (str, '{"value": 5}'),
        (Person, '{"name": "Ann"}'),
        (Person, "I do not know."),
        (int, '{"value": 1} {"value": 2}'),
    ],
)
def test_what_does_not_fit_is_an_error(schema: object, text: str) -> None:
    """The nearest label, a rounded number, or a default is a guess."""
    with pytest.raises(AnswerRejectedError):
        AnswerType.of(schema).read(text)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["name", "age", "x"]), st.none() | st.integers() | st.text()))
def test_a_value_is_valid_or_an_error(found: dict[str, Any]) -> None:
    """Whatever JSON comes back."""
    kind = AnswerType.of(Person)
    try:
        value = kind.read(json.dumps(found))
    except AnswerRejectedError:
        with pytest.raises(pydantic.ValidationError):
            Person.model_validate_json(json.dumps(found))
    else:
        assert value == Person.model_validate_json(json.dumps(found))


@pytest.mark.parametrize("schema", [[], ["a", 1], print, object(), "bug"])
def test_schemas_that_are_none(chat_server: ChatServer, schema: object) -> None:
    """An error before anything is sent."""
    with pytest.raises(InvalidArgumentError, match="schema="):
        opened(chat_server).send("Go", schema=schema)
    assert chat_server.requests == []


class TestRequests:
    def test_a_strict_schema(self, chat_server: ChatServer) -> None:
        """Closed, with every property required."""
        opened(chat_server, Reply(text='{"name": "Ann", "age": 7}')).send("Go", schema=Person)
        wanted = chat_server.requests[0].body["response_format"]["json_schema"]
        assert (wanted["name"], wanted["strict"]) == ("Person", True)
        assert wanted["schema"]["additionalProperties"] is False
        assert wanted["schema"]["required"] == ["name", "age"]

    def test_a_schema_that_strict_mode_cannot_say(self, chat_server: ChatServer) -> None:
        """A field that may be left out: the schema is sent, not strict."""
        response = opened(chat_server, Reply(text='{"text": "Hi"}')).send("Go", schema=Note)
        assert response.value == Note(text="Hi", stars=0)
        assert chat_server.requests[0].body["response_format"]["json_schema"]["strict"] is False

    @pytest.mark.parametrize(
        "words",
        [
            "Invalid parameter: 'response_format' of this type is not supported.",
            "json mode cannot be combined with tool/function calling",  # Groq, if tools are offered
        ],
    )
    def test_the_ladder(self, chat_server: ChatServer, words: str) -> None:
        """Each rung that the server refuses leads to the next; the last is the prompt; it is remembered."""
        refusal = error_reply(400, words)
        chat_server.reply(refusal, refusal, refusal)
        chat_server.usual = lambda _: Reply(text='{"value": 7}')
        provider = OpenAIProvider("m", base_url=chat_server.url, max_retries=0)
        conversation = ConversationManager(provider).new_conversation(system_prompt="You help.")
        assert conversation.send("Go", schema=int).value == 7
        assert conversation.send("Go", schema=int).value == 7
        formats = [request.body.get("response_format", {}) for request in chat_server.requests]
        assert [each.get("type") for each in formats] == ["json_schema", "json_schema", "json_object", None, None]
        assert [each["json_schema"]["strict"] for each in formats[:2]] == [True, False]
        systems = [request.body["messages"][0]["content"] for request in chat_server.requests]
        assert [text.startswith("You help.\n\nAnswer only with a JSON object") for text in systems] == [
            *(False, False),
            *(True, True, True),
        ]

    def test_the_other_dialect(self, chat_server: ChatServer) -> None:
        """The format is flat there."""
        conversation = opened(chat_server, Reply(text='{"value": 7}'), dialect="responses")
        assert conversation.send("Go", schema=int).value == 7
        wanted = chat_server.requests[0].body["text"]["format"]
        assert (wanted["type"], wanted["name"], wanted["strict"]) == ("json_schema", "int", True)


class TestRetry:
    def test_once_with_the_errors_outside_of_the_history(self, chat_server: ChatServer) -> None:
        """Both requests are counted; the turn has the answer that fits."""
        conversation = opened(chat_server, Reply(text="seven"), Reply(text='{"value": 7}'))
        response = conversation.send("Go", schema=int)
        assert (response.value, response.usage.total_tokens, response.cost) == (7, 30, Decimal("0.00003"))
        assert response.warnings == (
            "The first answer did not fit the schema (It is not JSON: seven); both requests are counted.",
        )
        said = chat_server.requests[1].body["messages"]
        assert [message["role"] for message in said] == ["system", "user", "assistant", "user"]
        assert said[-1]["content"].startswith("Your answer does not fit: It is not JSON: seven. Answer again")
        assert [message.content for message in conversation.turns[0].messages] == ["Go", '{"value": 7}']

    def test_a_second_answer_that_does_not_fit(self, chat_server: ChatServer) -> None:
        """An error; nothing is stored, and what was paid is counted."""
        store = MemoryStore()
        conversation = opened(chat_server, Reply(text="seven"), Reply(text="7 or so"), store=store)
        with pytest.raises(SchemaError, match=r"It is not JSON: 7 or so\. It was asked twice"):
            conversation.send("Go", schema=int)
        assert conversation.turns == ()
        assert store.spending("total").spent == Decimal("0.00003")
        assert usage_df(store, by="model")["total_tokens"].tolist() == [30]

    def test_a_cut_answer_is_not_asked_again(self, chat_server: ChatServer) -> None:
        """The error says so."""
        conversation = opened(chat_server, Reply(text='{"value":', finish_reason="length"))
        with pytest.raises(SchemaError, match="cut at the output limit"):
            conversation.send("Go", schema=int)
        assert len(chat_server.requests) == 1

    @pytest.mark.parametrize("dialect", ["auto", "responses"])
    @pytest.mark.parametrize("is_streamed", [True, False])
    def test_a_refusal_is_not_asked_again(self, chat_server: ChatServer, dialect: str, *, is_streamed: bool) -> None:
        """The error has the model's words; the call is counted, and nothing is stored."""
        said = "I'm sorry, I can't help with that."
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        if dialect == "auto":
            part = {"index": 0, "delta" if is_streamed else "message": {"content": None, "refusal": said}}
            whole: dict[str, Any] = {"choices": [{**part, "finish_reason": "stop"}], "usage": usage}
            events = [whole]
        else:
            message = {"type": "message", "content": [{"type": "refusal", "refusal": said}]}
            whole = {"status": "completed", "output": [message], "usage": {"input_tokens": 10, "output_tokens": 5}}
            delta = {"type": "response.refusal.delta", "item_id": "m", "delta": said}
            events = [delta, {"type": "response.completed", "response": {**whole, "output": []}}]
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        body = lines if is_streamed else json.dumps(whole)
        kind = "text/event-stream" if is_streamed else "application/json"
        conversation = opened(chat_server, Reply(body=body.encode(), content_type=kind), dialect=dialect)
        with pytest.raises(
            SchemaError, match=r"The model refused: I'm sorry, I can't help with that\. It is not asked"
        ):
            conversation.send("Go", schema=int)
        assert len(chat_server.requests) == 1
        assert conversation.turns == ()
        assert usage_df(conversation.store, by="model")["total_tokens"].tolist() == [15]


def test_replay_has_the_value(chat_server: ChatServer) -> None:
    """The schema is part of the key."""
    conversation = opened(chat_server, Reply(text='{"value": 7}'), Reply(text='{"value": 8}'), replay="auto")
    conversation.send("Go", schema=int)
    again = conversation.rerun(0, schema=int)
    assert (again.value, again.replayed, again.turn.value_json) == (7, True, "7")
    assert not conversation.rerun(0, schema=float).replayed


def test_tools_and_a_schema_together(chat_server: ChatServer) -> None:
    """The last answer of the turn is the typed one."""

    def seven() -> int:
        """Return seven."""
        return 7

    conversation = opened(chat_server, calling(tool_call("seven", {})), Reply(text="7."), Reply(text='{"value": 7}'))
    response = conversation.send("Go", schema=int, tools=[seven])
    assert (response.value, response.tool_results, len(chat_server.requests)) == (7, (7,), 3)
    assert conversation.turns[0].value_json == "7"


def test_a_stored_value_needs_this_version(chat_server: ChatServer) -> None:
    """Version 0.1 would drop it; it refuses this conversation alone. Edited, the answer is a text."""
    conversation = opened(chat_server, Reply(text="Hello."), Reply(text='{"value": 7}'))
    conversation.send("Hi")
    assert format_of(conversation.turns) == FORMAT_VERSION
    conversation.send("Go", schema=int)
    assert format_of(conversation.turns) == NEWEST_FORMAT
    assert conversation.edit_reply(1, "Eight.").value_json is None


def test_without_a_schema_there_is_no_value(chat_server: ChatServer) -> None:
    """And no format is asked for."""
    response = opened(chat_server).send("Hi")
    assert response.value is None
    assert "response_format" not in chat_server.requests[0].body
