"""Conversations: requests, stored turns, and failures. Real client, real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    BadRequestError,
    Conversation,
    ConversationExistsError,
    ConversationManager,
    ConversationNotFoundError,
    ConversationState,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    MissingVariableError,
    OpenAIProvider,
    ProviderUnavailableError,
    RedisStore,
    StoreUnavailableError,
    load_pack,
)
from promptkit_nb.chat.stored_conversation import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from promptkit_nb import StateStore

KEY = "sk-test-5f3e9d"

TUTOR = {
    "id": "tutor",
    "name": "Tutor",
    "version": "1.0.0",
    "template_engine": {"version": "v1", "syntax": "{{variable}}"},
    "prompts": {
        "tutor": {
            "id": "tutor",
            "name": "Tutor",
            "version": "1.0.0",
            "system_template": "You teach {{subject}}. {{manners}}",
            "variables": [{"name": "subject", "type": "string", "required": True}],
            "parameters": {"temperature": 0.2, "max_tokens": 300},
            "model_overrides": {"tiny": {"system_template_suffix": " Be short.", "parameters": {"temperature": 0}}},
        }
    },
    "fragments": {"manners": "Be kind."},
}


@pytest.fixture(params=["memory", "disk", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    """Each store in turn."""
    if request.param == "memory":
        opened: StateStore = MemoryStore()
    elif request.param == "disk":
        opened = DiskStore(tmp_path / "store")
    else:
        opened = RedisStore(request.getfixturevalue("redis_url"), prefix=f"{uuid4()}:")
    with opened:
        yield opened


@pytest.fixture
def manager(chat_server: ChatServer, store: StateStore) -> ConversationManager:
    """A manager with the real client, connected to a local server."""
    return ConversationManager(provider_for(chat_server), store)


@pytest.fixture
def conv(manager: ConversationManager) -> Conversation:
    """A conversation with a system prompt and without turns."""
    return manager.new_conversation(system_prompt="You help.", user_id="alice", conversation_id="chat")


def provider_for(server: ChatServer) -> OpenAIProvider:
    return OpenAIProvider("gpt-4o-mini", api_key=KEY, base_url=server.url, max_retries=0)


def sent(server: ChatServer) -> list[tuple[str, str]]:
    """Return role and content of the messages of the last request."""
    return [(message["role"], message["content"]) for message in server.requests[-1].body["messages"]]


class TestSending:
    def test_request_has_system_prompt_history_and_message(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The second request has the system prompt, the first turn, and the new message, in this order."""
        conv.send("My name is Alice")
        conv.send("What's my name?")
        assert sent(chat_server) == [
            ("system", "You help."),
            ("user", "My name is Alice"),
            ("assistant", "Your name is Alice."),
            ("user", "What's my name?"),
        ]

    def test_response_has_usage_cost_and_latency(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Content, usage, cost, model, finish reason and latency are those of this call."""
        chat_server.reply(Reply(text="Paris.", usage={"prompt_tokens": 1000, "completion_tokens": 500}))
        response = conv.send("Capital of France?")
        assert (response.content, response.usage.input_tokens, response.usage.output_tokens) == ("Paris.", 1000, 500)
        assert (response.cost, response.model, response.finish_reason) == (Decimal("0.00045"), "gpt-4o-mini", "stop")
        assert response.latency_ms > 0
        assert (response.truncated, response.replayed, response.saved) == (0, False, None)

    def test_turn_is_stored_with_all_fields(self, conv: Conversation, store: StateStore) -> None:
        """The stored turn has both messages, usage, cost, model, provider and times, and equals the response's."""
        response = conv.send("Hello")
        (turn,) = store.get("chat").turns
        assert turn == response.turn
        assert [(message.role, message.content) for message in turn.messages] == [
            ("user", "Hello"),
            ("assistant", response.content),
        ]
        assert (turn.provider, turn.requested_model, turn.usage.total_tokens) == ("openai", "gpt-4o-mini", 15)
        assert turn.price_source is not None
        assert turn.price_source == "list"
        assert (turn.price_list or "").startswith("genai-prices")

    def test_totals_add_up_over_the_turns(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Two calls of 1,500 tokens and $0.00045 each make 3,000 tokens and $0.0009."""
        for _ in range(2):
            chat_server.reply(Reply(text="Yes.", usage={"prompt_tokens": 1000, "completion_tokens": 500}))
            assert conv.send("Really?").cost == Decimal("0.00045")
        assert (conv.token_count, conv.total_cost, conv.unpriced_turns) == (3000, Decimal("0.00090"), 0)

    def test_unknown_price_stays_unknown(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A model without a price has no cost, and a conversation of such turns no total."""
        chat_server.reply(Reply(text="Yes.", model="my-own-model"))
        assert conv.send("Hi", model="my-own-model").cost is None
        assert (conv.total_cost, conv.unpriced_turns) == (None, 1)

    def test_total_of_an_empty_conversation_is_zero(self, conv: Conversation) -> None:
        """Without turns nothing was spent."""
        assert (conv.token_count, conv.total_cost, conv.unpriced_turns) == (0, Decimal(0), 0)

    def test_own_prices_apply_to_the_requested_model(self, chat_server: ChatServer) -> None:
        """The price set for the requested model is used, whatever the server calls the model that answered."""
        provider = OpenAIProvider("mine", api_key=KEY, base_url=chat_server.url, prices={"mine": (1, 2)})
        chat_server.reply(
            Reply(text="Yes.", model="gpt-4o-mini", usage={"prompt_tokens": 1000, "completion_tokens": 500})
        )
        response = ConversationManager(provider).new_conversation().send("Hi")
        assert (response.cost, response.turn.price_source) == (Decimal("0.002"), "yours")

    def test_missing_usage_is_counted_and_marked(self, conv: Conversation, chat_server: ChatServer) -> None:
        """If the server reports no usage, request and answer are counted offline."""
        chat_server.reply(Reply(text="Paris.", usage=None))
        usage = conv.send("Capital of France?").usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (18, 2, True)

    def test_model_of_a_call(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """The call's model takes precedence over the conversation's, and that over the provider's."""
        own = manager.new_conversation(model="gpt-4o")
        own.send("Hi")
        own.send("Hi", model="o4-mini")
        manager.new_conversation().send("Hi")
        assert [request.body["model"] for request in chat_server.requests] == ["gpt-4o", "o4-mini", "gpt-4o-mini"]

    def test_parameters_of_a_call(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """The call's parameters override the conversation's; None removes one only if it was given."""
        own = manager.new_conversation(parameters={"temperature": 0.7, "seed": 1})
        own.send("Hi", parameters={"temperature": 0.1}, max_output_tokens=50)
        body = chat_server.requests[-1].body
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.1, 1, 50)

    @pytest.mark.parametrize("text", ["", "  \n", None, 5])
    def test_empty_message_is_refused(self, conv: Conversation, chat_server: ChatServer, text: object) -> None:
        """A message that is blank or not text raises before anything is sent."""
        with pytest.raises(InvalidArgumentError):
            conv.send(text)  # type: ignore[arg-type]  # that is the point
        assert chat_server.requests == []

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True])
    def test_output_limit_out_of_range_is_refused(self, conv: Conversation, limit: int) -> None:
        """The output limit is a whole number from 1."""
        with pytest.raises(InvalidArgumentError, match="max_output_tokens"):
            conv.send("Hi", max_output_tokens=limit)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"model": 5}, "^model=5 is not a model name"),
            ({"model": " "}, "^model=' ' is not a model name"),
            ({"parameters": {"stop": {1, 2}}}, r"^parameters\['stop'\] is {1, 2}, a set, which is not JSON"),
            ({"parameters": {1: 2}}, "^parameters has the key 1, but JSON keys are text"),
            ({"parameters": {"temperature": float("nan")}}, r"^parameters\['temperature'\] is nan"),
        ],
    )
    def test_values_that_are_not_json_are_refused(
        self, conv: Conversation, chat_server: ChatServer, arguments: dict[str, Any], words: str
    ) -> None:
        """Before anything is sent; the error has its name and value."""
        with pytest.raises(InvalidArgumentError, match=words):
            conv.send("Hi", **arguments)
        assert chat_server.requests == []

    def test_user_text_is_not_a_template(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """Braces in a message reach the model and the store as typed."""
        own = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        own.send("tell me {{subject}} and {x}")
        assert sent(chat_server)[-1] == ("user", "tell me {{subject}} and {x}")
        assert own.turns[0].user_text == "tell me {{subject}} and {x}"

    def test_five_threads_on_one_handle_make_five_whole_turns(self, conv: Conversation) -> None:
        """Sends of several threads run one after the other; every turn is stored whole."""
        threads = [threading.Thread(target=conv.send, args=(f"message {number}",)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(turn.user_text for turn in conv.turns) == [f"message {number}" for number in range(5)]
        assert all([message.role for message in turn.messages] == ["user", "assistant"] for turn in conv.turns)

    def test_two_handles_see_each_other(self, manager: ConversationManager, conv: Conversation) -> None:
        """A turn added by another handle is in the next request of this one."""
        other = manager.get_conversation("chat")
        conv.send("My name is Alice")
        assert other.send("What's my name?").content == "Your name is Alice."
        assert len(conv.turns) == 2

    def test_new_conversation_with_the_same_id_is_not_the_former_one(
        self, manager: ConversationManager, conv: Conversation
    ) -> None:
        """A handle on a conversation that was deleted and created again shows the new one."""
        conv.send("My name is Alice")
        manager.delete_conversation("chat")
        manager.new_conversation(conversation_id="chat", user_id=conv.user_id).send("Hello")
        assert [turn.user_text for turn in conv.turns] == ["Hello"]

    def test_half_an_emoji_is_cleaned(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A lone surrogate in a message becomes U+FFFD in the request and in the store."""
        conv.send("hi \ud83d there")
        assert sent(chat_server)[-1] == ("user", "hi � there")
        assert conv.turns[0].user_text == "hi � there"


class TestStreaming:
    def test_pieces_make_the_content(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The joined pieces are the response's content, and the turn is stored at the end."""
        chat_server.reply(Reply(text="one two three"))
        stream = conv.stream("Count")
        pieces = list(stream)
        assert len(pieces) > 1
        assert stream.response is not None
        assert "".join(pieces) == stream.response.content == "one two three"
        assert conv.turns == (stream.response.turn,)

    def test_nothing_is_sent_before_the_first_piece(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Creating a stream sends nothing."""
        conv.stream("Count")
        assert chat_server.requests == []

    def test_next_works_too(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A stream is an iterator."""
        chat_server.reply(Reply(text="one two"))
        stream = conv.stream("Count")
        assert next(stream) + "".join(stream) == "one two"

    def test_leaving_the_loop_keeps_the_partial_answer(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The turn is stored at once, marked, with an estimated usage, though the stream is still referenced."""
        chat_server.reply(Reply(text="one two three"))
        stream = conv.stream("Count")
        for piece in stream:
            first = piece
            break
        (turn,) = conv.turns
        assert (turn.text, turn.finish_reason, turn.usage.estimated) == (first, "interrupted", True)
        assert turn.cost is not None
        assert stream.response is not None
        assert stream.response.turn == turn

    def test_interrupt_keeps_the_partial_answer(self, conv: Conversation, chat_server: ChatServer) -> None:
        """KeyboardInterrupt passes through after the partial turn was stored, and the next turn works."""
        chat_server.reply(Reply(text="one two three"))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the loop is interrupted
            for _ in conv.stream("Count"):
                raise KeyboardInterrupt
        assert [turn.finish_reason for turn in conv.turns] == ["interrupted"]
        assert conv.send("Go on").finish_reason == "stop"
        assert len(conv.turns) == 2

    def test_closing_before_any_text_changes_nothing(self, conv: Conversation) -> None:
        """A stream that was never read leaves no trace."""
        conv.stream("Count").close()
        assert conv.turns == ()


class TestFailures:
    def test_failed_call_stores_nothing(self, conv: Conversation, chat_server: ChatServer) -> None:
        """After an error the history has not changed, and the error has the unsent message."""
        conv.send("My name is Alice")
        before = conv.turns
        chat_server.reply(error_reply(400, "no such thing"))
        with pytest.raises(BadRequestError, match="no such thing") as caught:
            conv.send("What's my name?")
        assert caught.value.unsent == "What's my name?"
        assert conv.turns == before
        assert conv.send(caught.value.unsent).content == "Your name is Alice."

    def test_cut_stream_stores_nothing_and_raises_with_the_partial_text(
        self, conv: Conversation, chat_server: ChatServer
    ) -> None:
        """A connection lost in the middle of an answer is an error with the partial text."""
        chat_server.reply(Reply(text="one two three four", cut_after=3))
        with pytest.raises(ProviderUnavailableError) as caught:
            conv.send("Count")
        assert caught.value.partial
        assert "one two three four".startswith(caught.value.partial)
        assert conv.turns == ()

    def test_conversation_deleted_meanwhile_raises_with_the_answer(
        self, manager: ConversationManager, conv: Conversation, chat_server: ChatServer
    ) -> None:
        """The exception has the paid answer, and the conversation stays deleted."""
        chat_server.reply(Reply(text="one two"))
        with pytest.raises(ConversationNotFoundError) as caught:  # noqa: PT012 - deleted while the answer arrives
            for number, _ in enumerate(conv.stream("Count")):
                if number == 0:
                    manager.delete_conversation("chat")
        assert caught.value.response is not None
        assert caught.value.response.content == "one two"
        assert str(caught.value).startswith("Conversation 'chat' was deleted before the answer arrived")
        assert manager.list_conversations() == []

    def test_failing_store_raises_with_the_answer(
        self, conv: Conversation, store: StateStore, chat_server: ChatServer
    ) -> None:
        """The exception has an answer that cannot be stored."""
        chat_server.reply(Reply(text="one two"))
        with pytest.raises(StoreUnavailableError) as caught:  # noqa: PT012 - the store goes away while the answer arrives
            for _ in conv.stream("Count"):
                store.close()
        assert caught.value.response is not None
        assert caught.value.response.content == "one two"

    def test_empty_answer_is_kept_with_a_warning(self, conv: Conversation, chat_server: ChatServer) -> None:
        """An answer without text is an answer, with a warning."""
        chat_server.reply(Reply(text=""))
        response = conv.send("Say nothing")
        assert (response.content, response.warnings) == (
            "",
            ("The model answered without any text. Later requests leave this turn out.",),
        )
        assert len(conv.turns) == 1

    def test_key_is_in_no_file_of_the_store(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """Neither turns nor failures leave the key in the store."""
        with DiskStore(tmp_path / "store") as store:
            conv = ConversationManager(provider_for(chat_server), store).new_conversation()
            conv.send("Hi")
            chat_server.reply(error_reply(401, f"Incorrect API key provided: {KEY}"))
            with pytest.raises(Exception, match="401") as caught:
                conv.send("Hi")
        assert KEY not in repr(caught.value)
        assert not any(KEY.encode() in file.read_bytes() for file in (tmp_path / "store").iterdir())


class TestPrompts:
    def test_pack_gives_system_prompt_and_parameters(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """The rendered prompt is the system message; its max_tokens limits the answer."""
        manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"}).send("Hi")
        body = chat_server.requests[-1].body
        assert sent(chat_server)[0] == ("system", "You teach algebra. Be kind.")
        assert (body["temperature"], body["max_tokens"]) == (0.2, 300)

    def test_model_overrides_apply(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """The prompt and the parameters are those for the model in use."""
        conv = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        conv.send("Hi", model="tiny")
        assert sent(chat_server)[0] == ("system", "You teach algebra. Be kind. Be short.")
        assert chat_server.requests[-1].body["temperature"] == 0

    def test_changed_variable_is_effective_at_the_next_send(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """A variable may change between two sends; the next system prompt has the new value."""
        conv = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        conv.send("Hi")
        conv.variables["subject"] = "music"
        conv.send("Hi")
        assert sent(chat_server)[0] == ("system", "You teach music. Be kind.")
        assert dict(conv.variables) == {"subject": "music"}
        assert conv.messages[0].content == "You teach music. Be kind."

    def test_missing_variable_raises_before_anything_is_sent(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """A required variable may be set after the conversation was created, but before the first send."""
        conv = manager.new_conversation(load_pack(TUTOR))
        with pytest.raises(MissingVariableError, match="subject"):
            conv.send("Hi")
        assert chat_server.requests == []
        conv.variables["subject"] = "music"
        conv.send("Hi")
        assert sent(chat_server)[0][0] == "system"

    def test_resume_needs_no_pack(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """A conversation continues with the stored prompt, variables, model and parameters."""
        manager.new_conversation(
            load_pack(TUTOR), variables={"subject": "algebra"}, conversation_id="lesson", model="tiny"
        )
        manager.get_conversation("lesson").send("Hi")
        body = chat_server.requests[-1].body
        assert sent(chat_server)[0] == ("system", "You teach algebra. Be kind. Be short.")
        assert (body["model"], body["max_tokens"]) == ("tiny", 300)

    def test_pack_given_on_resume_replaces_the_prompt(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """A newer pack applies from the next request on; earlier turns stay."""
        manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"}, conversation_id="lesson").send(
            "Hi"
        )
        prompts = TUTOR["prompts"]
        assert isinstance(prompts, dict)
        changed = {**TUTOR, "prompts": {"tutor": {**prompts["tutor"], "system_template": "{{subject}}, anew."}}}
        conv = manager.get_conversation("lesson", pack=load_pack(changed))
        conv.send("Hi again")
        assert sent(chat_server)[0] == ("system", "algebra, anew.")
        assert len(conv.turns) == 2


class TestForking:
    def test_fork_is_independent(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The copy has the earlier turns; later turns are separate."""
        conv.send("My name is Alice")
        other = conv.fork("other")
        assert other.send("What's my name?").content == "Your name is Alice."
        conv.send("Something else")
        assert [turn.user_text for turn in other.turns] == ["My name is Alice", "What's my name?"]
        assert sent(chat_server)[-1] == ("user", "Something else")
        assert len(sent(chat_server)) == 4

    def test_fork_paid_for_nothing_yet(self, conv: Conversation) -> None:
        """Inherited turns are in no total of the copy, and belong to the same user."""
        conv.send("My name is Alice")
        other = conv.fork("other")
        assert (other.token_count, other.total_cost, other.user_id) == (0, Decimal(0), "alice")
        assert [turn.inherited for turn in other.turns] == [True]

    def test_fork_has_its_own_variables(self, manager: ConversationManager) -> None:
        """A variable set in the copy is not set in the original, and vice versa."""
        conv = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        other = conv.fork("other")
        other.variables["subject"] = "music"
        assert (conv.variables["subject"], other.variables["subject"]) == ("algebra", "music")

    def test_fork_overwrites_nothing(self, conv: Conversation) -> None:
        """An id that is taken is refused, and its conversation does not change."""
        conv.fork("other").send("Hi")
        with pytest.raises(ConversationExistsError):
            conv.fork("other")

    def test_fork_is_one_write(self, conv: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that is killed leaves no copy without the id of the original."""
        monkeypatch.setattr(type(conv.store), "update_metadata", None)
        assert conv.fork("other").forked_from == conv.id

    def test_store_of_your_own_makes_two(self) -> None:
        """A store that is not derived from ``StateStore`` may have ``fork`` alone, and no users."""

        class Own:
            def __init__(self) -> None:
                self.store = MemoryStore()

            def __getattr__(self, name: str) -> Any:
                if name in ("fork_with_metadata", "for_user"):
                    raise AttributeError(name)
                return getattr(self.store, name)

        own: Any = Own()
        conv = ConversationManager(DemoProvider(), own).new_conversation(conversation_id="original")
        assert conv.fork("other").forked_from == "original"

    def test_conversation_of_another_user_is_left_alone(
        self, conv: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even if that user takes the id after it was checked: the store checks it in the same transaction."""
        conv.send("My name is Alice")
        conv.undo()
        head = conv.store.head(conv.id)
        conv.store.delete(conv.id)
        conv.store.create(ConversationState(conv.id, "bob"))
        monkeypatch.setattr(StoredConversation, "head", lambda _: head)
        for change in (partial(conv.fork, "other"), partial(conv.restore, "undone-1")):
            with pytest.raises(ConversationNotFoundError):
                change()
        assert [(each.conversation_id, each.user_id) for each in conv.store.list()] == [(conv.id, "bob")]


class TestHashes:
    def test_same_words_in_the_same_context_have_the_same_key(self, manager: ConversationManager) -> None:
        """The replay key depends on the context and the request, not on times and ids."""
        first, second = (manager.new_conversation(system_prompt="You help.").send("Hi").turn for _ in range(2))
        assert first.replay_key == second.replay_key
        assert first.id != second.id

    def test_the_time_is_not_part_of_the_context(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """A prompt with the time sends the current one; its turns neither become stale nor miss their replay."""
        prompt = {"id": "clock", "name": "Clock", "version": "1.0.0", "system_template": "It is {{current_time}}."}
        conv = manager.new_conversation(load_pack({**TUTOR, "prompts": {"clock": prompt}}))
        asked = conv.send("What time is it?")
        time.sleep(1.1)  # the time has a resolution of one second
        assert conv.rerun(0, replay="auto").replayed
        assert conv.stale_turns == ()
        conv.rerun(0)
        first, second = (request.body["messages"][0]["content"] for request in chat_server.requests)
        assert first.startswith("It is 20")
        assert first != second
        assert conv.turns[0].replay_key == asked.turn.replay_key

    def test_other_context_has_another_key(self, conv: Conversation) -> None:
        """The second time, the same message has another context."""
        first, second = conv.send("Hi").turn, conv.send("Hi").turn
        assert first.replay_key != second.replay_key
        assert first.context_hash != second.context_hash

    @pytest.mark.parametrize("change", [{"model": "gpt-4o"}, {"parameters": {"seed": 1}}, {"max_output_tokens": 9}])
    def test_other_request_has_another_key(self, manager: ConversationManager, change: dict[str, object]) -> None:
        """Model, parameters and the output limit are part of the key."""
        plain = manager.new_conversation().send("Hi").turn
        changed = manager.new_conversation().send("Hi", **change).turn  # type: ignore[arg-type]  # one of several
        assert plain.replay_key != changed.replay_key
        assert plain.context_hash == changed.context_hash

    def test_handles_agree_on_the_hash(self, manager: ConversationManager, conv: Conversation) -> None:
        """A handle that wrote the turns and one that read them agree on the context."""
        conv.send("one")
        conv.send("two")
        ahead, anew = conv.stream("three"), manager.get_conversation("chat").stream("three")
        assert ahead._pending.replay_key == anew._pending.replay_key


def test_second_process_continues_after_a_kill(chat_server: ChatServer, tmp_path: Path) -> None:
    """Turns answered before SIGKILL are in the next process's request: the whole history, without the pack."""
    begin = f"""
import os, signal
from promptkit_nb import *
manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="k", base_url={chat_server.url!r}),
                              DiskStore({str(tmp_path / "store")!r}))
conv = manager.new_conversation(system_prompt="You help.", user_id="alice", conversation_id="persistent-chat")
print(conv.send("My name is Alice").content, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=False)
    assert (killed.returncode, killed.stdout) == (-9, "Your name is Alice.\n")
    with DiskStore(tmp_path / "store") as store:
        conv = ConversationManager(provider_for(chat_server), store).get_conversation("persistent-chat")
        assert conv.send("What's my name?").content == "Your name is Alice."
    assert sent(chat_server) == [
        ("system", "You help."),
        ("user", "My name is Alice"),
        ("assistant", "Your name is Alice."),
        ("user", "What's my name?"),
    ]
