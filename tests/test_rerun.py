"""Rerun, edit, truncate, clear, restore: nothing is lost, nothing is stored partially, and stale turns are marked."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    BadRequestError,
    ContextWindowExceededError,
    Conversation,
    ConversationChangedError,
    ConversationManager,
    ConversationNotFoundError,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    ProviderUnavailableError,
    StoreError,
    StoreUnavailableError,
    Turn,
    load_pack,
)
from promptkit_nb.chat.options import AT_THE_END, Target
from promptkit_nb.text.receipts import receipt_of
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb import StateStore
    from promptkit_nb.state import Head


@pytest.fixture
def manager(chat_server: ChatServer, store: StateStore) -> ConversationManager:
    """A manager with the real client, connected to a local server."""
    return ConversationManager(provider_for(chat_server), store)


@pytest.fixture
def conv(manager: ConversationManager) -> Conversation:
    """A conversation of three turns: a, b and c."""
    opened = manager.new_conversation(system_prompt="You help.", conversation_id="chat")
    return send_letters(opened, "abc")


def provider_for(server: ChatServer) -> OpenAIProvider:
    return OpenAIProvider("gpt-4o-mini", api_key="sk-test-1", base_url=server.url, max_retries=0)


def send_letters(conversation: Conversation, letters: str) -> Conversation:
    """Send each letter as a message."""
    for letter in letters:
        conversation.send(letter)
    return conversation


def current_text(conversation: Conversation) -> str:
    """Return the messages of the current turns."""
    return "".join(texts(conversation.turns))


def stale_text(conversation: Conversation) -> str:
    """Return the messages of the stale turns."""
    return "".join(texts(conversation.stale_turns))


def request_texts(server: ChatServer) -> list[str]:
    """Return the user's messages in the last request."""
    return [message["content"] for message in server.requests[-1].body["messages"] if message["role"] == "user"]


class TestRerun:
    """``rerun`` answers a turn again, in place."""

    def test_another_text_replaces_the_turn(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The request has the turns before it and none after it; later turns stay."""
        response = conv.rerun(1, "x")
        assert request_texts(chat_server) == ["a", "x"]
        assert (current_text(conv), response.content, response.turn) == ("axc", "You said: x", conv.turns[1])

    def test_own_text_is_sent_again(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Without a text the model receives the turn's own text, and may answer differently."""
        chat_server.reply(Reply(text="another answer"))
        conv.rerun(1)
        assert request_texts(chat_server) == ["a", "b"]
        assert [turn.text for turn in conv.turns] == ["You said: a", "another answer", "You said: c"]

    def test_former_turn_becomes_a_version(self, conv: Conversation) -> None:
        """Unchanged, oldest first; the other turns have none."""
        first = conv.turns[1]
        second = conv.rerun(1, "x").turn
        conv.rerun(1, "y")
        assert conv.versions(1) == (first, second)
        assert (conv.versions(0), conv.versions(2)) == ((), ())

    @pytest.mark.parametrize(
        "name",
        [
            lambda _: 1,
            lambda _: -2,
            lambda conv: conv.turns[1],
            lambda conv: conv.turns[1].id,
            lambda conv: conv.versions(1)[0],
            lambda conv: conv.versions(1)[0].id,
        ],
        ids=["position", "negative", "turn", "id", "previous version", "id of a previous version"],
    )
    def test_turn_can_be_given_in_several_ways(self, conv: Conversation, name: Callable[[Conversation], Any]) -> None:
        """By its index, also from the end, as a ``Turn``, by its id, and by a previous version."""
        conv.rerun(1, "x")
        conv.rerun(name(conv), "y")
        assert (current_text(conv), texts(conv.versions(name(conv)))) == ("ayc", ["b", "x"])

    @pytest.mark.parametrize("wrong", [3, -4, "nothing", said("b"), True, None, 1.0])
    def test_unknown_turn_is_refused(self, conv: Conversation, chat_server: ChatServer, wrong: Any) -> None:
        """Nothing is sent."""
        for verb in (conv.rerun, conv.versions, lambda turn: conv.edit(turn, "x")):
            with pytest.raises(InvalidArgumentError, match=r"no turn|not a current turn"):
                verb(wrong)
        assert len(chat_server.requests) == 3

    def test_turn_on_a_branch_is_refused(self, conv: Conversation) -> None:
        """It must be restored first."""
        previous = conv.turns[0]
        conv.clear()
        with pytest.raises(InvalidArgumentError, match="not a current turn of 'chat'"):
            conv.rerun(previous)

    def test_blank_text_is_refused(self, conv: Conversation, chat_server: ChatServer) -> None:
        """As in ``send``; an empty text does not mean the turn's own text."""
        with pytest.raises(InvalidArgumentError, match="empty"):
            conv.rerun(1, "")
        assert len(chat_server.requests) == 3

    def test_turn_without_a_question_needs_a_text(self, manager: ConversationManager, store: StateStore) -> None:
        """A greeting from the model has no question to ask again."""
        store.append("greeted", Turn(messages=(Message("assistant", "Welcome!"),)))
        with pytest.raises(InvalidArgumentError, match="no message of a user"):
            manager.get_conversation("greeted").rerun(0)

    def test_options_are_those_of_send(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Model, parameters and output limit apply to this call."""
        conv.rerun(0, model="gpt-4o", parameters={"seed": 1}, max_output_tokens=50)
        body = chat_server.requests[-1].body
        assert (body["model"], body["seed"], body["max_tokens"]) == ("gpt-4o", 1, 50)

    def test_all_answers_are_in_the_totals(self, conv: Conversation) -> None:
        """The replaced turn was paid for."""
        before = conv.token_count, conv.total_cost
        added = conv.rerun(1, "x")
        assert added.cost is not None
        assert before[1] is not None
        assert (conv.token_count, conv.total_cost) == (before[0] + 15, before[1] + added.cost)

    def test_cell_of_the_turn_stays(self, conv: Conversation, store: StateStore) -> None:
        """A cell's turn that Python reruns still belongs to the cell."""
        store.append("chat", said("d", cell_id="c1", cell_call=2, cell_source="%chat d"))
        turn = conv.rerun(3).turn
        assert (turn.cell_id, turn.cell_call, turn.cell_source) == ("c1", 2, "%chat d")

    def test_failing_call_changes_nothing(self, conv: Conversation, chat_server: ChatServer) -> None:
        """No version and no revision; the error has the unsent message."""
        before = conv.turns, conv._stored.head()
        chat_server.reply(error_reply(400, "no such thing"))
        with pytest.raises(BadRequestError) as caught:
            conv.rerun(1)
        assert caught.value.unsent == "b"
        assert (conv.turns, conv._stored.head()) == before
        assert conv.versions(1) == ()

    def test_request_rejected_as_too_long_changes_nothing(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The error has the unsent message, like any failed call."""
        before = conv.turns
        chat_server.reply(*[error_reply(400, "too long", code="context_length_exceeded")] * 2)
        with pytest.raises(ContextWindowExceededError) as caught:
            conv.rerun(0, "x")
        assert (caught.value.unsent, conv.turns) == ("x", before)

    def test_cut_answer_changes_nothing(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The error has the partial text."""
        before = conv.turns
        chat_server.reply(Reply(text="one two three", cut_after=3))
        with pytest.raises(ProviderUnavailableError) as caught:
            conv.rerun(1, "x")
        assert caught.value.partial == "one two"
        assert conv.turns == before

    def test_leaving_the_stream_keeps_the_partial_answer_in_place(
        self, conv: Conversation, chat_server: ChatServer
    ) -> None:
        """The previous answer becomes a whole version that can be restored."""
        previous = conv.turns[1]
        chat_server.reply(Reply(text="one two three"))
        for _ in conv.stream("x", target=Target(in_place_of=previous)):
            break
        turn = conv.turns[1]
        assert (current_text(conv), turn.text, turn.finish_reason) == ("axc", "one", "interrupted")
        conv.restore(previous)
        assert (conv.turns[1], conv.versions(1)) == (previous, (turn,))

    def test_interrupt_before_any_text_changes_nothing(self, conv: Conversation) -> None:
        """A stream that was never read does not change the turn."""
        revision = conv._stored.head().revision
        conv.stream("x", target=Target(in_place_of=conv.turns[1])).close()
        assert conv._stored.head().revision == revision

    def test_turn_replaced_by_another_handle_meanwhile(self, manager: ConversationManager, conv: Conversation) -> None:
        """The later answer is current, the earlier one a version: neither is lost."""
        previous = conv.turns[1]
        stream = conv.stream("mine", target=Target(in_place_of=previous))
        manager.get_conversation("chat").rerun(1, "theirs")
        assert "".join(stream) == "You said: mine"
        assert (texts(conv.turns), texts(conv.versions(previous))) == (["a", "mine", "c"], ["b", "theirs"])

    def test_turn_removed_meanwhile_is_answered_on_its_branch(
        self, manager: ConversationManager, conv: Conversation
    ) -> None:
        """The paid answer is returned and stored where the turn is now."""
        stream = conv.stream("x", target=Target(in_place_of=conv.turns[1]))
        next(stream)
        manager.get_conversation("chat").clear()
        list(stream)
        assert stream.response is not None
        assert (stream.response.content, stream.response.stale_turns) == ("You said: x", 0)
        (branch,) = conv.branches()
        assert (current_text(conv), texts(branch.turns)) == ("", ["a", "x", "c"])

    def test_conversation_deleted_meanwhile_raises_with_the_answer(
        self, manager: ConversationManager, conv: Conversation
    ) -> None:
        """The exception has the answer, and the conversation stays deleted."""
        stream = conv.stream("x", target=Target(in_place_of=conv.turns[1]))
        next(stream)
        manager.delete_conversation("chat")
        with pytest.raises(ConversationNotFoundError, match="deleted before the answer arrived") as caught:
            list(stream)
        assert caught.value.response is not None
        assert caught.value.response.content == "You said: x"
        assert manager.list_conversations() == []

    @pytest.mark.parametrize("place", ["in place", "from there", "at the end"])
    def test_conversation_created_again_meanwhile_is_not_changed(
        self, manager: ConversationManager, conv: Conversation, place: str
    ) -> None:
        """It may be another user's: only the exception has the answer."""
        places = {"in place": Target(in_place_of=conv.turns[1]), "from there": Target(branch_from=1)}
        stream = conv.stream("x", target=places.get(place, AT_THE_END))
        next(stream)
        manager.delete_conversation("chat")
        anew = manager.new_conversation(user_id="bob", conversation_id="chat")
        with pytest.raises(ConversationNotFoundError, match="deleted before the answer arrived") as caught:
            list(stream)
        assert caught.value.response is not None
        assert caught.value.response.content == "You said: x"
        assert (anew.turns, anew.branches(), anew.token_count) == ((), (), 0)

    def test_turn_deleted_meanwhile_raises_with_the_answer(self, conv: Conversation, store: StateStore) -> None:
        """If the conversation was overwritten without the turn, the answer has no place in it."""
        stream = conv.stream("x", target=Target(in_place_of=conv.turns[1]))
        next(stream)
        state = store.get("chat")
        store.set(replace(state, turns=state.turns[:1]))
        with pytest.raises(ConversationChangedError, match="response") as caught:
            list(stream)
        assert caught.value.response is not None
        assert caught.value.response.content == "You said: x"
        assert current_text(conv) == "a"

    def test_failing_store_raises_with_the_answer(self, conv: Conversation, store: StateStore) -> None:
        """The exception has an answer that cannot be stored."""
        stream = conv.stream("x", target=Target(in_place_of=conv.turns[1]))
        next(stream)
        store.close()
        with pytest.raises(StoreUnavailableError) as caught:
            list(stream)
        assert caught.value.response is not None
        assert caught.value.response.content == "You said: x"

    def test_threads_on_one_handle_lose_no_answer(self, conv: Conversation) -> None:
        """Four at a time answer the same turn: one is current, the others are versions."""
        threads = [threading.Thread(target=conv.rerun, args=(1, f"x{number}")) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = texts((*conv.versions(1), conv.turns[1]))
        assert found[0] == "b"
        assert sorted(found[1:]) == ["x0", "x1", "x2", "x3"]


class TestEdit:
    """``edit`` continues differently from a turn on."""

    def test_turn_and_all_after_it_become_a_branch(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The request has the turns before it."""
        previous = conv.turns
        conv.edit(1, "x")
        assert (current_text(conv), request_texts(chat_server)) == ("ax", ["a", "x"])
        (branch,) = conv.branches()
        assert (branch.turns, branch.start, branch.kind) == (previous[1:], 1, "tail")

    def test_no_turn_becomes_stale(self, conv: Conversation) -> None:
        """The remaining turns are answered in their own context."""
        assert conv.edit(1, "x").stale_turns == 0
        assert stale_text(conv) == ""

    @pytest.mark.parametrize(("i", "left"), [(0, "x"), (2, "abx"), (-1, "abx"), (-3, "x")])
    def test_first_and_last_turn(self, conv: Conversation, i: int, left: str) -> None:
        """Indexes count from either end."""
        conv.edit(i, "x")
        assert current_text(conv) == left

    def test_empty_conversation_has_nothing_to_edit(self, manager: ConversationManager) -> None:
        """The message says how many turns there are."""
        with pytest.raises(InvalidArgumentError, match="has 0 turns"):
            manager.new_conversation(conversation_id="new").edit(0, "x")

    @pytest.mark.parametrize("reply", [error_reply(400, "no"), Reply(text="one two", cut_after=2)])
    def test_failing_call_changes_nothing(self, conv: Conversation, chat_server: ChatServer, reply: Reply) -> None:
        """Turns, branches and the revision."""
        before = conv.turns, conv.branches(), conv._stored.head()
        chat_server.reply(reply)
        with pytest.raises((BadRequestError, ProviderUnavailableError)):
            conv.edit(1, "x")
        assert (conv.turns, conv.branches(), conv._stored.head()) == before

    def test_blank_text_is_refused(self, conv: Conversation) -> None:
        """Before anything is moved."""
        with pytest.raises(InvalidArgumentError, match="empty"):
            conv.edit(1, "  ")
        assert current_text(conv) == "abc"

    def test_restoring_the_branch_swaps_back(self, conv: Conversation) -> None:
        """The newer turns become a branch and can be swapped in again."""
        conv.edit(1, "x")
        conv.send("y")
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv)) == ("abc", "")
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv)) == ("axy", "")

    def test_turns_removed_meanwhile_shift_the_position(self, manager: ConversationManager, conv: Conversation) -> None:
        """The branch begins with the chosen turn, not with the one that has its index now."""
        stream = conv.stream("x", target=Target(branch_from=1))
        next(stream)
        manager.get_conversation("chat").truncate(4)
        list(stream)
        assert (current_text(conv), texts(conv.branches()[1].turns)) == ("x", ["b", "c"])

    def test_turn_added_meanwhile_moves_to_the_branch(self, manager: ConversationManager, conv: Conversation) -> None:
        """All turns after the index when the answer arrives."""
        stream = conv.stream("x", target=Target(branch_from=1))
        next(stream)
        manager.get_conversation("chat").send("d")
        list(stream)
        assert (current_text(conv), texts(conv.branches()[0].turns)) == ("ax", ["b", "c", "d"])

    def test_answer_is_added_if_its_turn_was_removed_meanwhile(
        self, manager: ConversationManager, conv: Conversation
    ) -> None:
        """If the turn was removed with others, no more turns are moved."""
        stream = conv.stream("x", target=Target(branch_from=1))
        next(stream)
        manager.get_conversation("chat").clear()
        list(stream)
        assert (current_text(conv), len(conv.branches())) == ("x", 1)

    @pytest.mark.parametrize(
        ("refusal", "raised"),
        [
            (StoreUnavailableError("The disk is full: make room."), StoreUnavailableError),
            (InvalidArgumentError("This Turn cannot be stored."), ConversationChangedError),
        ],
        ids=["store unavailable", "turn invalid"],
    )
    def test_answer_that_cannot_be_stored_changes_nothing(
        self, chat_server: ChatServer, refusal: Exception, raised: type[StoreError]
    ) -> None:
        """Also if the store fails between the branch and the answer; the error has the answer."""
        store = _RefusingStore()
        conv = send_letters(ConversationManager(provider_for(chat_server), store).new_conversation(), "abc")
        before = conv.turns
        store.refusal = refusal
        with pytest.raises(raised) as caught:
            conv.edit(1, "x")
        assert caught.value.response is not None
        assert caught.value.response.content == "You said: x"
        assert (conv.turns, conv.branches()) == (before, ())

    def test_leaving_the_stream_keeps_the_partial_answer(self, conv: Conversation, chat_server: ChatServer) -> None:
        """After the remaining turns; the turns that it replaced are a branch."""
        chat_server.reply(Reply(text="one two three"))
        for _ in conv.stream("x", target=Target(branch_from=1)):
            break
        assert [(turn.user_text, turn.finish_reason) for turn in conv.turns] == [("a", "stop"), ("x", "interrupted")]
        assert [texts(branch.turns) for branch in conv.branches()] == [["b", "c"]]


class _RefusingStore(MemoryStore):
    """A store that accepts no turn once it starts to fail."""

    refusal: Exception | None = None

    def append(self, conversation_id: str, turn: Turn, **options: Any) -> Head:
        if self.refusal is not None:
            raise self.refusal
        return super().append(conversation_id, turn, **options)


class TestTruncate:
    """``truncate`` and ``clear`` remove turns."""

    @pytest.mark.parametrize(
        ("turns", "keep_last", "left"),
        [
            (0, 20, 0),
            (5, 20, 5),
            (6, 20, 6),
            (10, 20, 10),
            (15, 20, 10),
            (15, 10, 5),
            (15, 30, 15),
            (15, 9, 5),
            (15, 1, 1),
            (15, 0, 0),
            (0, 0, 0),
        ],
    )
    def test_keeps_the_fewest_newest_whole_turns(
        self, manager: ConversationManager, store: StateStore, turns: int, keep_last: int, left: int
    ) -> None:
        """``keep_last`` counts messages, here two per turn, without the system message."""
        conv = manager.new_conversation(system_prompt="You help.", conversation_id="long")
        for number in range(turns):
            store.append("long", said(str(number)))
        assert conv.truncate(keep_last) == turns - left
        assert texts(conv.turns) == [str(number) for number in range(turns - left, turns)]
        assert [len(branch.turns) for branch in conv.branches()] == ([turns - left] if turns > left else [])

    def test_twenty_messages_stay_by_default(self, manager: ConversationManager, store: StateStore) -> None:
        """Of thirty."""
        for number in range(15):
            store.append("long", said(str(number)))
        assert manager.get_conversation("long").truncate() == 5

    def test_turn_with_tool_messages_stays_whole(self, manager: ConversationManager, store: StateStore) -> None:
        """A tool call is never separated from its result."""
        roles = ("user", "assistant", "tool", "assistant")
        tools = replace(said("b"), messages=tuple(Message(role, "b") for role in roles))  # type: ignore[arg-type]  # roles
        for turn in (said("a"), tools, said("c")):
            store.append("tools", turn)
        conv = manager.get_conversation("tools")
        conv.truncate(3)
        assert current_text(conv) == "bc"

    @pytest.mark.parametrize("wrong", [-1, 1.5, "2", None, True])
    def test_invalid_numbers_are_refused(self, conv: Conversation, wrong: Any) -> None:
        """No turn is removed."""
        with pytest.raises(InvalidArgumentError, match="keep_last"):
            conv.truncate(wrong)
        assert current_text(conv) == "abc"

    def test_remaining_turns_are_not_stale(self, conv: Conversation) -> None:
        """Nor are later turns, whichever branch is restored afterwards."""
        conv.truncate(2)
        assert (current_text(conv), stale_text(conv)) == ("c", "")
        conv.send("d")
        assert stale_text(conv) == ""
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv)) == ("abcd", "")

    def test_next_request_has_only_the_remaining_turns(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Removed turns are no longer sent."""
        conv.truncate(2)
        conv.send("d")
        assert request_texts(chat_server) == ["c", "d"]

    def test_costs_stay_in_the_totals(self, conv: Conversation) -> None:
        """Of branches made by ``truncate`` and by ``clear``."""
        before = conv.token_count, conv.total_cost
        conv.truncate(2)
        conv.clear()
        assert (conv.token_count, conv.total_cost) == before == (45, before[1])

    def test_truncating_again_makes_another_branch(self, conv: Conversation) -> None:
        """Each branch can be restored, in any order."""
        conv.truncate(4)
        conv.truncate(2)
        assert [texts(branch.turns) for branch in conv.branches()] == [["a"], ["b"]]
        conv.restore(conv.branches()[1])
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv), conv.branches()) == ("abc", "", ())

    def test_nothing_to_move_writes_nothing(self, conv: Conversation) -> None:
        """No branch and no revision."""
        revision = conv._stored.head().revision
        assert conv.truncate(6) == 0
        assert (conv.branches(), conv._stored.head().revision) == ((), revision)

    def test_clear_starts_over(self, conv: Conversation, chat_server: ChatServer) -> None:
        """All turns become a branch; the next request has the system prompt and the message."""
        assert conv.clear() == 3
        assert (current_text(conv), [message.content for message in conv.messages]) == ("", ["You help."])
        conv.send("x")
        assert (request_texts(chat_server), stale_text(conv)) == (["x"], "")

    @pytest.mark.parametrize("begin_anew", [lambda conv: conv.clear(), lambda conv: conv.truncate(0)])
    def test_a_cleared_conversation_has_an_empty_context(
        self, conv: Conversation, begin_anew: Callable[[Conversation], object]
    ) -> None:
        """Also after ``truncate``: an answer whose context had the removed turns is not replayed."""
        conv.truncate(2)
        begin_anew(conv)
        assert not conv.send("c", replay="auto").replayed
        assert stale_text(conv) == ""
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv)) == ("abc", "c")

    def test_restored_rest_of_a_truncated_conversation_is_fresh(self, conv: Conversation) -> None:
        """Whichever branch is first."""
        conv.truncate(2)
        conv.clear()
        conv.send("x")
        head, rest = conv.branches()
        conv.restore(rest)
        assert (current_text(conv), stale_text(conv)) == ("c", "")
        conv.restore(head)
        assert (current_text(conv), stale_text(conv)) == ("abc", "")

    def test_edit_of_the_first_remaining_turn_is_not_stale(self, conv: Conversation) -> None:
        """After ``truncate``, its context is empty, as after ``clear``."""
        conv.truncate(4)
        conv.edit(0, "x")
        assert (current_text(conv), stale_text(conv)) == ("x", "")
        assert conv.rerun(0, replay="strict").replayed

    def test_clearing_nothing_writes_nothing(self, manager: ConversationManager) -> None:
        """An empty conversation does not change."""
        conv = manager.new_conversation()
        assert (conv.clear(), conv.branches(), conv._stored.head().revision) == (0, (), 1)

    def test_cleared_conversation_can_be_restored(self, conv: Conversation) -> None:
        """The turns since then become the branch."""
        conv.clear()
        conv.send("x")
        conv.restore(conv.branches()[0])
        assert (current_text(conv), stale_text(conv), [texts(branch.turns) for branch in conv.branches()]) == (
            "abc",
            "",
            [["x"]],
        )

    def test_another_handle_sees_it(self, manager: ConversationManager, conv: Conversation) -> None:
        """Branches belong to the store, not to the handle."""
        other = manager.get_conversation("chat")
        conv.truncate(2)
        assert (current_text(other), other.branches()) == ("c", conv.branches())
        assert (other.clear(), current_text(conv)) == (1, "")

    def test_two_concurrent_moves_make_two_branches(self, chat_server: ChatServer) -> None:
        """If another handle took the turns or the branch's name meanwhile, the remaining turns are removed."""
        store = _InterferingStore()
        conv = send_letters(ConversationManager(provider_for(chat_server), store).new_conversation(), "abc")
        store.interferes = True
        assert conv.clear() == 2
        assert [texts(branch.turns) for branch in conv.branches()] == [["a"], ["b", "c"]]
        assert current_text(conv) == ""


class _InterferingStore(MemoryStore):
    """A store in which another process removes a turn just before the first branch is made."""

    interferes = False

    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        if self.interferes:
            self.interferes = False
            super().archive(conversation_id, 0, 1, as_branch=as_branch)
        return super().archive(conversation_id, start, stop, as_branch=as_branch)


class TestRestore:
    """``restore`` swaps back, and loses nothing."""

    def test_version_replaces_the_current_turn(self, conv: Conversation) -> None:
        """The replaced turn becomes a version."""
        previous = conv.turns[1]
        other = conv.rerun(1, "x").turn
        conv.restore(previous)
        assert (conv.turns[1], conv.versions(1)) == (previous, (other,))
        conv.restore(other)
        assert (conv.turns[1], conv.versions(1)) == (other, (previous,))

    def test_id_is_accepted(self, conv: Conversation) -> None:
        """Of a version and of a branch."""
        previous = conv.turns[1]
        conv.rerun(1, "x")
        conv.restore(previous.id)
        conv.clear()
        conv.restore(conv.branches()[0].id)
        assert current_text(conv) == "abc"

    @pytest.mark.parametrize("wrong", ["nothing", None, 0, said("b")])
    def test_unknown_is_refused(self, conv: Conversation, wrong: Any) -> None:
        """The error says where to look."""
        with pytest.raises(InvalidArgumentError, match="no turn and no branch"):
            conv.restore(wrong)

    def test_current_turn_stays(self, conv: Conversation) -> None:
        """Restoring a current turn writes nothing."""
        revision = conv._stored.head().revision
        conv.restore(conv.turns[1])
        assert conv._stored.head().revision == revision

    def test_version_on_a_branch(self, conv: Conversation) -> None:
        """The version becomes current on the branch and is restored with it."""
        previous = conv.turns[1]
        conv.rerun(1, "x")
        conv.clear()
        conv.restore(previous)
        conv.restore(conv.branches()[0])
        assert (current_text(conv), texts(conv.versions(1))) == ("abc", ["x"])


class TestStaleness:
    """A turn is stale if its context is not the one that it was answered in."""

    def test_later_turns_are_stale_and_the_response_counts_them(self, conv: Conversation) -> None:
        """Only later turns; the receipt says how many."""
        response = conv.rerun(0, "x")
        assert (stale_text(conv), response.stale_turns) == ("bc", 2)
        assert receipt_of(response, "chat").endswith(" · 2 later turns were answered before this change")

    def test_one_later_turn(self, conv: Conversation) -> None:
        """The receipt is in the singular."""
        response = conv.rerun(1, "x")
        assert (stale_text(conv), response.stale_turns) == ("c", 1)
        assert receipt_of(response, "chat").endswith(" · 1 later turn was answered before this change")

    def test_last_turn_makes_nothing_stale(self, conv: Conversation) -> None:
        """The receipt does not mention it."""
        response = conv.rerun(2, "x")
        assert (stale_text(conv), response.stale_turns) == ("", 0)
        assert "later turn" not in receipt_of(response, "chat")

    def test_same_answer_leaves_nothing_stale(self, conv: Conversation) -> None:
        """Asked again, and answered in the same words."""
        assert conv.rerun(0).stale_turns == 0
        assert stale_text(conv) == ""

    def test_former_answer_makes_later_turns_fresh(self, conv: Conversation) -> None:
        """Whether it is restored or given by the model once more."""
        previous = conv.turns[0]
        conv.rerun(0, "x")
        conv.restore(previous)
        assert stale_text(conv) == ""
        conv.rerun(0, "x")
        assert conv.rerun(0, "a").stale_turns == 0
        assert stale_text(conv) == ""

    def test_stale_turns_answered_again_are_fresh(self, conv: Conversation) -> None:
        """One after the other, from the first: each becomes fresh, later ones stay stale."""
        conv.rerun(0, "x")
        conv.rerun(1)
        assert stale_text(conv) == "c"
        conv.rerun(2)
        assert stale_text(conv) == ""

    def test_turn_after_one_added_meanwhile_is_stale(self, manager: ConversationManager, conv: Conversation) -> None:
        """If another kernel appended a turn meanwhile, the new turn is added after it."""
        stream = conv.stream("mine")
        next(stream)
        manager.get_conversation("chat").send("theirs")
        list(stream)
        assert (texts(conv.turns)[3:], stale_text(conv)) == (["theirs", "mine"], "mine")

    def test_hand_made_turn_is_never_stale(self, conv: Conversation, store: StateStore) -> None:
        """It has no context to compare."""
        store.append("chat", said("d"))
        conv.rerun(0, "x")
        assert stale_text(conv) == "bc"

    def test_hand_made_turn_is_context_of_later_turns(self, conv: Conversation, store: StateStore) -> None:
        """Later turns become stale when it changes."""
        store.append("chat", said("d"))
        conv.send("e")
        conv.rerun(3, "x")
        assert stale_text(conv) == "e"

    def test_inherited_turns_are_fresh(self, conv: Conversation) -> None:
        """A fork has the same context; a change in the fork makes its own turns stale, not the original's."""
        other = conv.fork("other")
        assert stale_text(other) == ""
        response = other.rerun(0, "x")
        assert (stale_text(other), response.stale_turns, stale_text(conv)) == ("bc", 2, "")

    def test_other_variables_make_turns_stale(self, manager: ConversationManager) -> None:
        """And the previous variables make the previous turns fresh again."""
        conv = send_letters(manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"}), "ab")
        conv.variables["subject"] = "music"
        assert stale_text(conv) == "ab"
        conv.send("c")
        assert stale_text(conv) == "ab"
        conv.variables["subject"] = "algebra"
        assert stale_text(conv) == "c"

    def test_variable_without_a_value_makes_turns_stale(self, manager: ConversationManager) -> None:
        """There is no current context at all; nothing is raised."""
        conv = send_letters(manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"}), "ab")
        del conv.variables["subject"]
        assert stale_text(conv) == "ab"

    def test_another_prompt_makes_turns_stale(self, manager: ConversationManager) -> None:
        """And the previous prompt makes the previous turns fresh again."""
        tutor, coach = load_pack(TUTOR).prompt("tutor"), load_pack(COACH).prompt("tutor")
        conv = send_letters(manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"}), "ab")
        conv.use_prompt(coach)
        assert stale_text(conv) == "ab"
        conv.use_prompt(tutor)
        assert stale_text(conv) == ""

    def test_system_prompt_of_another_model_is_not_compared(self, manager: ConversationManager) -> None:
        """Each turn is compared with the prompt for its own model."""
        conv = manager.new_conversation(load_pack(TUTOR), variables={"subject": "algebra"})
        conv.send("a", model="tiny")
        conv.send("b")
        assert stale_text(conv) == ""

    def test_it_is_computed_and_not_stored(self, conv: Conversation, store: StateStore) -> None:
        """The turns themselves do not change."""
        before = store.get("chat").turns[1:]
        conv.rerun(0, "x")
        assert store.get("chat").turns[1:] == before


def _pack(template: str) -> dict[str, object]:
    prompt = {
        "id": "tutor",
        "name": "Tutor",
        "version": "1.0.0",
        "system_template": template,
        "variables": [{"name": "subject", "type": "string", "required": True}],
        "model_overrides": {"tiny": {"system_template_suffix": " Be short."}},
    }
    return {
        "id": "tutor",
        "name": "Tutor",
        "version": "1.0.0",
        "template_engine": {"version": "v1", "syntax": "{{variable}}"},
        "prompts": {"tutor": prompt},
    }


TUTOR = _pack("You teach {{subject}}.")
COACH = _pack("You coach {{subject}}.")


def test_concurrent_processes_lose_no_answer(chat_server: ChatServer, tmp_path: Path) -> None:
    """Two at a time, three answers each: one is current, all others are versions, and all are paid."""
    rerun = f"""
import sys
from promptkit_nb import *
manager = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key="k", base_url={chat_server.url!r}),
                              DiskStore({str(tmp_path)!r}))
for number in range(3):
    manager.get_conversation("chat").rerun(0, f"{{sys.argv[1]}}{{number}}")
"""
    with DiskStore(tmp_path) as store:
        conv = send_letters(
            ConversationManager(provider_for(chat_server), store).new_conversation(conversation_id="chat"), "a"
        )
        processes = [subprocess.Popen([sys.executable, "-c", rerun, name]) for name in "xy"]
        assert [process.wait(60) for process in processes] == [0, 0]
        found = texts((*conv.versions(0), *conv.turns))
        assert found[0] == "a"
        assert sorted(found[1:]) == ["x0", "x1", "x2", "y0", "y1", "y2"]
        assert conv.token_count == 7 * 15
