"""Replay: an identical request is answered from a stored turn. Nothing is sent, nothing is paid, nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    AuthenticationError,
    BadRequestError,
    ConversationManager,
    ConversationNotFoundError,
    DemoProvider,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    ReplayMissError,
    StoreUnavailableError,
    load_pack,
)
from promptkit_nb.chat.options import Target
from promptkit_nb.chat.replay import replayable
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.notebook.settings import UnchosenProvider
from promptkit_nb.state import ConversationState, Settings
from promptkit_nb.text.receipts import receipt_of
from promptkit_nb.turns import ContentPart
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from promptkit_nb import Conversation, Response, StateStore, Turn

PRICE = Decimal("0.0000045")  # of 10 input and 5 output tokens


@pytest.fixture
def manager(chat_server: ChatServer, store: StateStore) -> ConversationManager:
    """A manager that replays stored answers and otherwise asks the real client."""
    return ConversationManager(provider_for(chat_server), store, replay="auto")


@pytest.fixture
def conv(manager: ConversationManager) -> Conversation:
    """A conversation of three turns: a, b and c."""
    opened = manager.new_conversation(system_prompt="You help.", conversation_id="chat")
    for letter in "abc":
        opened.send(letter)
    return opened


def provider_for(server: ChatServer, model: str = "gpt-4o-mini") -> OpenAIProvider:
    return OpenAIProvider(model, api_key="sk-test-1", base_url=server.url, max_retries=0)


def revision(conversation: Conversation) -> int:
    return conversation._stored.head().revision


class TestOwnPlace:
    """A replay in the turn's own place writes nothing."""

    def test_nothing_is_sent_and_nothing_written(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The same turn answers again."""
        before, turn = revision(conv), conv.turns[1]
        response = conv.rerun(1)
        assert (len(chat_server.requests), revision(conv)) == (3, before)
        assert (response.turn, conv.turns[1], conv.versions(1)) == (turn, turn, ())

    def test_repeating_the_text_is_the_same(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Repeating the text makes no difference."""
        before = revision(conv)
        assert conv.rerun(1, "b").replayed
        assert (len(chat_server.requests), revision(conv)) == (3, before)

    def test_response_has_the_recorded_values(self, conv: Conversation) -> None:
        """Text, usage, latency, model and finish reason are the recorded ones; it is free and says what it saved."""
        turn = conv.turns[1]
        response = conv.rerun(1)
        assert (response.content, response.usage, response.latency_ms) == ("You said: b", turn.usage, turn.latency_ms)
        assert (response.model, response.finish_reason) == ("gpt-4o-mini", "stop")
        assert (response.replayed, response.cost, response.saved) == (True, Decimal(0), PRICE)

    def test_stream_gives_the_text(self, conv: Conversation) -> None:
        """In pieces, like any answer."""
        stream = conv.stream("b", target=Target(in_place_of=conv.turns[1]))
        assert ("".join(stream), stream.text) == ("You said: b", "You said: b")
        assert stream.response is not None
        assert stream.response.replayed

    def test_unknown_cost_is_not_saved(self, manager: ConversationManager) -> None:
        """``None`` stays ``None``, and the receipt has no amount."""
        conv = manager.new_conversation(model="my-own-model")
        conv.send("a")
        response = conv.rerun(0)
        assert (response.cost, response.saved) == (Decimal(0), None)
        assert "· replayed · $0.00 ·" in receipt_of(response, "chat")
        assert conv.unpriced_turns == 1

    def test_receipt(self, conv: Conversation) -> None:
        """It says that nothing was paid, and what was saved."""
        receipt = receipt_of(conv.rerun(1), "chat")
        assert receipt.startswith("gpt-4o-mini · 10/5 tokens · replayed · $0.00 (saved $0.0000045) · ")

    def test_interrupted_turn_is_asked_again(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A partial answer is not an answer."""
        chat_server.reply(Reply(text="one two three"))
        for _ in conv.stream("d"):
            break
        assert conv.turns[3].finish_reason == "interrupted"
        assert conv.rerun(3).content == "You said: d"
        assert len(chat_server.requests) == 5

    def test_whole_former_answer_precedes_an_interrupted_one(self, conv: Conversation, chat_server: ChatServer) -> None:
        """It is stored again, in place."""
        chat_server.reply(Reply(text="one two three"))
        for _ in conv.stream("c", fresh=True, target=Target(in_place_of=conv.turns[2])):
            break
        response = conv.rerun(2)
        assert (response.content, response.turn.replayed, len(chat_server.requests)) == ("You said: c", True, 4)
        assert [turn.text for turn in conv.versions(2)] == ["You said: c", "one"]

    def test_stale_turn_is_asked_again(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Its context has changed."""
        conv.rerun(0, "x")
        assert not conv.rerun(1).replayed
        assert len(chat_server.requests) == 5

    def test_turn_after_a_truncated_head_is_replayed(self, conv: Conversation, chat_server: ChatServer) -> None:
        """It is not stale, although less would be sent now."""
        conv.truncate(2)
        assert conv.rerun(0).replayed
        assert len(chat_server.requests) == 3


class TestElsewhere:
    """Any other replay stores a turn that costs nothing."""

    def test_cleared_conversation_is_replayed(self, conv: Conversation, chat_server: ChatServer) -> None:
        """From the branch: each turn is new, replayed, free, and not stale."""
        before = conv.token_count, conv.total_cost, conv.unpriced_turns
        previous = conv.turns
        conv.clear()
        responses = [conv.send(letter) for letter in "abc"]
        assert len(chat_server.requests) == 3
        assert [turn.text for turn in conv.turns] == [turn.text for turn in previous]
        assert all(turn.replayed and turn.cost == 0 and turn.saved == PRICE for turn in conv.turns)
        assert {turn.id for turn in conv.turns}.isdisjoint({turn.id for turn in previous})
        assert (conv.token_count, conv.total_cost, conv.unpriced_turns, conv.stale_turns) == (*before, ())
        assert [response.turn for response in responses] == list(conv.turns)

    def test_stored_turn_has_the_recorded_values(self, conv: Conversation) -> None:
        """Messages, usage, latency and models are recorded; question and time are new."""
        previous = conv.turns[0]
        conv.clear()
        turn = conv.send("a").turn
        kept = replace(
            previous,
            id=turn.id,
            messages=(turn.messages[0], previous.messages[1]),
            created_at=turn.created_at,
            cost=Decimal(0),
            saved=PRICE,
            replayed=True,
        )
        assert turn == kept
        assert turn.created_at > previous.created_at
        assert turn.messages[0].timestamp != previous.messages[0].timestamp

    def test_former_version_is_found(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Returning to the previous text sends nothing; the turn takes its place."""
        conv.rerun(2, "x")
        response = conv.rerun(2, "c")
        assert (len(chat_server.requests), response.replayed, response.saved) == (4, True, PRICE)
        assert (texts(conv.turns), texts(conv.versions(2))) == (["a", "b", "c"], ["c", "x"])

    def test_edit_replays_too(self, conv: Conversation, chat_server: ChatServer) -> None:
        """After an edit and its reversal."""
        conv.edit(1, "x")
        assert conv.edit(1, "b").replayed
        assert (len(chat_server.requests), texts(conv.turns)) == (4, ["a", "b"])
        assert [texts(branch.turns) for branch in conv.branches()] == [["b", "c"], ["x"]]

    def test_replay_says_how_many_turns_are_stale(self, conv: Conversation) -> None:
        """A replayed answer changes the context of later turns, like any answer."""
        conv.rerun(0, "x")
        conv.rerun(1, "y")
        response = conv.rerun(0, "a")
        assert (response.replayed, response.stale_turns) == (True, 2)
        assert texts(conv.stale_turns) == ["y", "c"]
        assert receipt_of(response, "chat").endswith(" · 2 later turns were answered before this change")

    def test_replay_of_a_replay_saves_the_same(self, conv: Conversation) -> None:
        """However often, in its own place or another."""
        for _ in range(3):
            conv.clear()
            assert (conv.send("a").saved, conv.rerun(0).saved) == (PRICE, PRICE)
        assert [turn.saved for turn in conv.turns] == [PRICE]

    def test_replayed_turns_are_unpriced_nowhere(self, manager: ConversationManager) -> None:
        """A turn of unknown price is counted once, where the answer was paid."""
        conv = manager.new_conversation(model="my-own-model")
        conv.send("a")
        conv.clear()
        assert conv.send("a").saved is None
        assert (conv.unpriced_turns, conv.total_cost, conv.token_count) == (1, None, 15)

    def test_head_and_state_have_the_same_totals(self, conv: Conversation, store: StateStore) -> None:
        """The totals are the same, whether read or recomputed."""
        conv.clear()
        conv.send("a")
        head, state = store.head("chat"), store.get("chat")
        assert (head.token_count, head.total_cost) == (state.token_count, state.total_cost) == (45, 3 * PRICE)

    def test_inherited_turns_are_replayed_in_a_fork(self, conv: Conversation, chat_server: ChatServer) -> None:
        """In their own place and elsewhere; the fork pays nothing and shows what was saved."""
        other = conv.fork("other")
        before = revision(other)
        assert (other.rerun(1).saved, revision(other)) == (PRICE, before)
        other.clear()
        turn = other.send("a").turn
        assert (turn.replayed, turn.inherited, turn.saved) == (True, False, PRICE)
        assert (other.token_count, other.total_cost, len(chat_server.requests)) == (0, Decimal(0), 3)

    def test_restored_answer_precedes_the_newer_one(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Of two answers to one request, the one that was current when the conversation was cleared."""
        chosen = conv.turns[0]
        chat_server.reply(Reply(text="another answer"))
        conv.rerun(0, fresh=True)
        conv.restore(chosen)
        conv.clear()
        assert [conv.send(letter).content for letter in "abc"] == ["You said: a", "You said: b", "You said: c"]
        assert len(chat_server.requests) == 4

    def test_leaving_the_stream_keeps_the_whole_answer(self, conv: Conversation) -> None:
        """It was deleted before the first piece."""
        conv.clear()
        for _ in conv.stream("a"):
            break
        assert [(turn.text, turn.finish_reason) for turn in conv.turns] == [("You said: a", "stop")]

    def test_stream_that_is_never_read_writes_nothing(self, conv: Conversation) -> None:
        """Like any other answer."""
        conv.clear()
        before = revision(conv)
        conv.stream("a").close()
        assert revision(conv) == before

    def test_conversation_deleted_meanwhile(self, manager: ConversationManager, conv: Conversation) -> None:
        """The error has the answer."""
        conv.clear()
        stream = conv.stream("a")
        manager.delete_conversation("chat")
        with pytest.raises(ConversationNotFoundError) as caught:
            next(stream)
        assert caught.value.response is not None
        assert (caught.value.response.content, caught.value.response.cost) == ("You said: a", Decimal(0))

    def test_store_that_fails(self, conv: Conversation, store: StateStore) -> None:
        """The error has the answer."""
        conv.clear()
        stream = conv.stream("a")
        store.close()
        with pytest.raises(StoreUnavailableError) as caught:
            next(stream)
        assert caught.value.response is not None
        assert caught.value.response.replayed

    def test_cell_is_that_of_the_new_turn(self, conv: Conversation, store: StateStore) -> None:
        """Not the one that answered the recording."""
        turn = replace(conv.turns[2], id="of a cell", cell_id="c1", cell_source="%chat c")
        store.replace("chat", conv.turns[2].id, turn)
        conv.clear()
        for letter in "abc":
            conv.send(letter)
        assert (conv.turns[2].cell_id, conv.turns[2].cell_source) == (None, None)


class TestKey:
    """What two requests need in common to be the same."""

    SETTINGS = Settings(model="gpt-4o-mini", parameters={"seed": 1}, max_tokens=4000)
    STATE = ConversationState("chat", system_prompt="You help.", settings=SETTINGS)

    def recorded(self, server: ChatServer, store: StateStore) -> tuple[Turn, ...]:
        """Ask once in another conversation, and return its recording."""
        store.create(replace(self.STATE, conversation_id="recorded"))
        conversation = ConversationManager(provider_for(server), store).get_conversation("recorded")
        conversation.send("a")
        conversation.send("b", parameters={"top_p": 0.5}, max_output_tokens=50)
        return conversation.turns

    def ask(
        self, server: ChatServer, store: StateStore, state: ConversationState = STATE, **options: Any
    ) -> list[Response]:
        """Ask the same in a conversation that begins with this state."""
        turns = self.recorded(server, store)
        store.create(state)
        manager = ConversationManager(provider_for(server), store, replay="auto", recording=turns)
        conversation = manager.get_conversation("chat")
        first = conversation.send("a")
        asked = {"text": "b", "parameters": {"top_p": 0.5}, "max_output_tokens": 50, **options}
        return [first, conversation.send(**asked)]

    def test_an_identical_request_is_a_hit(self, chat_server: ChatServer, store: StateStore) -> None:
        """Times, ids and the conversation's name do not matter."""
        state = replace(self.STATE, user_id="bob", metadata={"x": 1}, created_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert [response.replayed for response in self.ask(chat_server, store, state)] == [True, True]

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "B"},
            {"model": "gpt-4o"},
            {"parameters": {"top_p": 0.6}},
            {"parameters": {}},
            {"parameters": {"top_p": 0.5, "seed": 2}},
            {"max_output_tokens": 51},
            {"max_output_tokens": None},
        ],
        ids=str,
    )
    def test_another_call_is_a_miss(self, chat_server: ChatServer, store: StateStore, change: dict[str, Any]) -> None:
        """The message, the requested model, each parameter, the output limit."""
        assert [response.replayed for response in self.ask(chat_server, store, **change)] == [True, False]

    @pytest.mark.parametrize(
        "change",
        [{"max_tokens": 4001}, {"max_tokens": None}, {"context_policy": "error"}, {"parameters": {"seed": 2}}],
        ids=str,
    )
    def test_other_settings_are_a_miss(
        self, chat_server: ChatServer, store: StateStore, change: dict[str, Any]
    ) -> None:
        """The context window, its policy, and the conversation's parameters."""
        state = replace(self.STATE, settings=replace(self.SETTINGS, **change))
        assert [response.replayed for response in self.ask(chat_server, store, state)] == [False, False]

    @pytest.mark.parametrize("system_prompt", [None, "", "You help"])
    def test_another_system_prompt_is_a_miss(
        self, chat_server: ChatServer, store: StateStore, system_prompt: str | None
    ) -> None:
        """Also none, and an empty one."""
        state = replace(self.STATE, system_prompt=system_prompt)
        assert [response.replayed for response in self.ask(chat_server, store, state)] == [False, False]

    def test_other_earlier_turns_are_a_miss(self, chat_server: ChatServer, store: StateStore) -> None:
        """The context is everything before the message."""
        state = replace(self.STATE, turns=(said("before"),))
        assert [response.replayed for response in self.ask(chat_server, store, state)] == [False, False]

    def test_window_of_one_call_is_part_of_it(self, conv: Conversation) -> None:
        """``max_tokens`` of a call, like that of the conversation."""
        stream = conv.stream("c", target=Target(in_place_of=conv.turns[2]), max_tokens=5000)
        assert stream._pending.recorded is None

    def test_image_is_part_of_it(self, conv: Conversation) -> None:
        """What a message has besides its text."""
        picture = ContentPart("image_url", url="data:image/png;base64,AAAA")
        stream = conv.stream("c", target=Target(in_place_of=conv.turns[2]), parts=[picture])
        assert stream._pending.recorded is None

    @pytest.mark.usefixtures("conv")
    def test_provider_and_its_address_are_not(self, store: StateStore) -> None:
        """The same model elsewhere, or another server: the requested model decides."""
        elsewhere = OpenAIProvider("gpt-4o-mini", api_key="k", base_url="http://127.0.0.1:9/v1")
        demo = DemoProvider()
        demo.model = "gpt-4o-mini"
        for provider in (elsewhere, demo):
            again = ConversationManager(provider, store, replay="strict").get_conversation("chat")
            assert [again.rerun(place).replayed for place in range(3)] == [True, True, True]

    def test_model_that_answered_is_not(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """A dated name in the answer is not the requested name."""
        conv = manager.new_conversation()
        chat_server.reply(Reply(text="Yes.", model="gpt-4o-mini-2024-07-18"))
        conv.send("a")
        assert conv.rerun(0).replayed
        assert not conv.rerun(0, model="gpt-4o-mini-2024-07-18").replayed

    def test_window_actually_sent_is_not(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A message after a truncated head is the same request with and without the head."""
        conv.truncate(2)
        conv.send("d")
        assert len(chat_server.requests[-1].body["messages"]) == 4
        conv.restore(conv.branches()[0])
        assert conv.rerun(3).replayed

    def test_rendered_system_prompt_is_part_of_it(self, manager: ConversationManager) -> None:
        """Another value of a variable makes another request; the previous value makes the previous one."""
        conv = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        conv.send("a")
        conv.variables["subject"] = "music"
        assert not conv.stream("a", target=Target(in_place_of=conv.turns[0]))._pending.recorded
        conv.variables["subject"] = "algebra"
        assert conv.rerun(0).replayed

    def test_reasoning_is_not(self, conv: Conversation, store: StateStore) -> None:
        """The model's reasoning is never sent back, so it is not part of the context."""
        turn = conv.turns[0]
        thinking = replace(turn.messages[1], reasoning="Let me see.")
        store.replace("chat", turn.id, replace(turn, id="thinking", messages=(turn.messages[0], thinking)))
        assert conv.rerun(1).replayed

    @pytest.mark.usefixtures("conv")
    def test_other_conversations_are_never_searched(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """The same user asks the same in another conversation: it is sent."""
        other = manager.new_conversation(system_prompt="You help.", conversation_id="other")
        assert [other.send(letter).replayed for letter in "abc"] == [False, False, False]
        assert len(chat_server.requests) == 6

    def test_deleted_conversation_is_forgotten(self, manager: ConversationManager, conv: Conversation) -> None:
        """A new conversation with the same id has nothing to replay."""
        manager.delete_conversation("chat")
        anew = manager.new_conversation(system_prompt="You help.", conversation_id="chat")
        assert not anew.send("a").replayed
        assert not conv.send("b").replayed

    def test_hand_made_turns_are_never_replayed(self, manager: ConversationManager, store: StateStore) -> None:
        """Their answers are not meant for the user."""
        store.append("made", said("a"))
        assert not manager.get_conversation("made").rerun(0).replayed


class TestModes:
    """``off``, ``auto`` and ``strict``."""

    @pytest.mark.usefixtures("conv")
    def test_off_by_default(self, store: StateStore, chat_server: ChatServer) -> None:
        """A manager asks, and so does a handle from it."""
        plain = ConversationManager(provider_for(chat_server), store).get_conversation("chat")
        assert not plain.rerun(0).replayed
        assert len(chat_server.requests) == 4

    def test_mode_of_a_call_overrides_the_managers(
        self, conv: Conversation, store: StateStore, chat_server: ChatServer
    ) -> None:
        """Either way."""
        plain = ConversationManager(provider_for(chat_server), store).get_conversation("chat")
        assert plain.rerun(0, replay="auto").replayed
        assert not conv.rerun(0, replay="off").replayed

    def test_fresh_asks(self, conv: Conversation, chat_server: ChatServer) -> None:
        """In place and at the end; the previous answers are kept."""
        assert not conv.rerun(2, fresh=True).replayed
        assert len(conv.versions(2)) == 1
        conv.clear()
        assert not conv.send("a", fresh=True).replayed
        assert len(chat_server.requests) == 5

    def test_strict_asks_nothing_even_for_fresh(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A cell with --fresh is replayed like any other, so that its notebook runs without a key."""
        assert conv.rerun(2, replay="strict", fresh=True).replayed
        assert len(chat_server.requests) == 3

    @pytest.mark.parametrize("wrong", ["", "on", "AUTO", True, 0])
    def test_unknown_modes_are_refused(
        self, conv: Conversation, store: StateStore, chat_server: ChatServer, wrong: Any
    ) -> None:
        """In a call, and in a manager."""
        for call in (
            lambda: conv.send("d", replay=wrong),
            lambda: conv.rerun(0, replay=wrong),
            lambda: ConversationManager(provider_for(chat_server), store, replay=wrong),
        ):
            with pytest.raises(InvalidArgumentError, match="use 'off', 'auto' or 'strict'"):
                call()
        assert len(chat_server.requests) == 3

    def test_strict_hit_sends_nothing(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Like ``auto``."""
        assert conv.rerun(1, replay="strict").replayed
        assert len(chat_server.requests) == 3

    @pytest.mark.parametrize(
        "call",
        [
            lambda conv: conv.send("d", replay="strict"),
            lambda conv: conv.stream("d", replay="strict"),
            lambda conv: conv.rerun(1, "x", replay="strict"),
            lambda conv: conv.rerun(1, model="gpt-4o", replay="strict"),
        ],
        ids=["send", "stream", "rerun", "other model"],
    )
    def test_strict_miss_raises_before_anything_is_sent(
        self, conv: Conversation, chat_server: ChatServer, call: Callable[[Conversation], object]
    ) -> None:
        """Nothing is written either."""
        before = revision(conv)
        with pytest.raises(ReplayMissError, match="Nothing was sent"):
            call(conv)
        assert (len(chat_server.requests), revision(conv)) == (3, before)

    @pytest.mark.usefixtures("conv")
    def test_strict_manager_edits_nothing_on_a_miss(self, store: StateStore) -> None:
        """Not even a branch."""
        strict = ConversationManager(UnchosenProvider(), store, replay="strict").get_conversation("chat")
        with pytest.raises(ReplayMissError):
            strict.edit(1, "x")
        assert (texts(strict.turns), strict.branches()) == (["a", "b", "c"], ())

    @pytest.mark.parametrize(
        ("call", "reason"),
        [
            (lambda conv: conv.send("d", replay="strict"), "no message with this text was recorded"),
            (lambda conv: conv.rerun(1, model="gpt-4o", replay="strict"), "it was recorded with 'gpt-4o-mini'"),
            (lambda conv: conv.send("b", replay="strict"), "it was recorded in another context"),
        ],
    )
    def test_miss_says_why(self, conv: Conversation, call: Callable[[Conversation], object], reason: str) -> None:
        """The likeliest reason."""
        with pytest.raises(ReplayMissError, match=reason):
            call(conv)

    def test_miss_of_an_interrupted_answer_says_so(self, conv: Conversation, chat_server: ChatServer) -> None:
        """It is recorded, but it is not an answer."""
        chat_server.reply(Reply(text="one two three"))
        for _ in conv.stream("d"):
            break
        with pytest.raises(ReplayMissError, match="the recorded answer was interrupted"):
            conv.rerun(3, replay="strict")

    def test_errors_are_never_replayed(self, conv: Conversation, chat_server: ChatServer) -> None:
        """A rejected request stores nothing; the next attempt asks."""
        chat_server.reply(error_reply(400, "no"))
        with pytest.raises(BadRequestError):
            conv.send("d")
        with pytest.raises(ReplayMissError):
            conv.send("d", replay="strict")
        assert not conv.send("d").replayed

    def test_fork_keeps_the_mode(self, conv: Conversation) -> None:
        """And so does a narrowed manager."""
        assert conv.fork("other").rerun(0).replayed

    def test_narrowed_manager_replays_too(
        self, chat_server: ChatServer, conv: Conversation, manager: ConversationManager
    ) -> None:
        """Mode and recording are those of the manager."""
        both = ConversationManager(provider_for(chat_server), replay="strict", recording=conv.turns).for_user("bob")
        assert both.new_conversation(system_prompt="You help.").send("a").replayed
        assert manager.for_user("default").get_conversation("chat").rerun(0).replayed


class TestWithoutProvider:
    """No key and no provider is needed."""

    @pytest.mark.usefixtures("conv")
    def test_conversation_is_replayed(self, store: StateStore) -> None:
        """In its own place, and after it was cleared; the model need not be given."""
        keyless = ConversationManager(UnchosenProvider(), store, replay="auto").get_conversation("chat")
        assert [keyless.rerun(place).content for place in range(3)] == ["You said: a", "You said: b", "You said: c"]
        keyless.clear()
        assert [keyless.send(letter).saved for letter in "abc"] == [PRICE, PRICE, PRICE]

    @pytest.mark.usefixtures("conv")
    def test_key_is_not_needed(self, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A provider without a model answers from stored turns."""
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        keyless = ConversationManager(OpenAIProvider("gpt-4o-mini"), store, replay="strict").get_conversation("chat")
        assert keyless.rerun(0).replayed

    def test_miss_names_the_ways_on(self, conv: Conversation, store: StateStore) -> None:
        """With ``auto`` the provider is missing, with ``strict`` the record; nothing is written."""
        before = revision(conv)
        keyless = ConversationManager(UnchosenProvider(), store, replay="auto").get_conversation("chat")
        with pytest.raises(AuthenticationError, match="Two ways to continue"):
            keyless.send("d")
        with pytest.raises(ReplayMissError, match="No recorded answer to 'd': no message with this text was recorded"):
            keyless.send("d", replay="strict")
        assert revision(conv) == before


class TestRecording:
    """Turns from elsewhere answer like the conversation's own."""

    def test_export_replays_the_same_repeatedly(
        self, conv: Conversation, chat_server: ChatServer, tmp_path: Path
    ) -> None:
        """In a fresh store: the same text and the same receipts, twice; in the end the same as a rerun."""
        turns = read_conversation(conv.export(tmp_path / "chat.json")).turns
        runs = [_played(turns, MemoryStore()) for _ in range(2)]
        assert runs[0] == runs[1]
        assert [text for text, _ in runs[0]] == ["You said: a", "You said: b", "You said: c"]
        assert all("· replayed · $0.00 (saved $0.0000045) ·" in receipt for _, receipt in runs[0])
        assert len(chat_server.requests) == 3

    def test_second_run_in_the_same_store_writes_nothing(self, conv: Conversation) -> None:
        """A turn that was replayed once is in its own place and saves the same."""
        manager = ConversationManager(UnchosenProvider(), replay="strict", recording=conv.turns)
        again = manager.new_conversation(system_prompt="You help.")
        first = [again.send(letter) for letter in "abc"]
        before = revision(again)
        second = [again.rerun(place) for place in range(3)]
        assert [receipt_of(each, "x") for each in second] == [receipt_of(each, "x") for each in first]
        assert revision(again) == before
        assert (again.token_count, again.total_cost) == (0, Decimal(0))

    def test_its_versions_and_branches_are_replayed_too(self, conv: Conversation, tmp_path: Path) -> None:
        """All answers ever given."""
        conv.rerun(0, "x")
        conv.edit(1, "y")
        state = read_conversation(conv.export(tmp_path / "chat.json"))
        manager = ConversationManager(UnchosenProvider(), replay="strict", recording=replayable(state))
        again = manager.new_conversation(system_prompt="You help.")
        assert [again.send(text).content for text in "abc"] == ["You said: a", "You said: b", "You said: c"]
        again.clear()
        assert [again.send(text).content for text in "xy"] == ["You said: x", "You said: y"]

    def test_its_restored_answer_precedes_the_newer_one(
        self, conv: Conversation, chat_server: ChatServer, tmp_path: Path
    ) -> None:
        """Otherwise no later turn would be found."""
        chosen = conv.turns[0]
        chat_server.reply(Reply(text="another answer"))
        conv.rerun(0, fresh=True)
        conv.restore(chosen)
        state = read_conversation(conv.export(tmp_path / "chat.json"))
        again = _played(replayable(state), MemoryStore())
        assert [text for text, _ in again] == ["You said: a", "You said: b", "You said: c"]

    def test_own_turns_precede_it(self, conv: Conversation, store: StateStore, chat_server: ChatServer) -> None:
        """The conversation's own answer takes precedence."""
        turn = conv.turns[0]
        other = replace(turn, id="other", messages=(turn.messages[0], Message("assistant", "from elsewhere")))
        manager = ConversationManager(provider_for(chat_server), store, replay="auto", recording=[other])
        assert manager.get_conversation("chat").rerun(0).content == "You said: a"

    def test_it_is_copied(self, conv: Conversation) -> None:
        """A list that grows later does not change what is replayed."""
        turns = list(conv.turns)
        manager = ConversationManager(UnchosenProvider(), replay="strict", recording=turns)
        turns.clear()
        assert manager.new_conversation(system_prompt="You help.").send("a").replayed

    def test_it_needs_a_mode(self, conv: Conversation, chat_server: ChatServer) -> None:
        """With ``off`` nothing is replayed."""
        manager = ConversationManager(provider_for(chat_server), recording=conv.turns)
        assert not manager.new_conversation(system_prompt="You help.").send("a").replayed


def _played(turns: Sequence[Turn], store: StateStore) -> list[tuple[str, str]]:
    """Return texts and receipts of a run that may send nothing."""
    manager = ConversationManager(UnchosenProvider(), store, replay="strict", recording=turns)
    conversation = manager.new_conversation(system_prompt="You help.", conversation_id="played")
    responses = [conversation.send(letter) for letter in "abc"]
    return [(response.content, receipt_of(response, "played")) for response in responses]


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
            "system_template": "You teach {{subject}}.",
            "variables": [{"name": "subject", "type": "string", "required": True}],
        }
    },
}
