"""The chat panel without a browser: what it shows, which commands its page can send, and what is stored."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from browser.attacks import ATTACKS, hostile
from chat_server import ChatServer, Reply, error_reply
from panel_page import GatedProvider, PanelPage
from promptkit_nb import (
    Budget,
    ChatPanel,
    Conversation,
    ConversationManager,
    ConversationState,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    Turn,
)
from promptkit_nb.panel.transcript import STATIC_TURNS, static_html, static_text, turn_fields
from promptkit_nb.panel.view import CHUNK_TURNS
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.rendering.tool_lines import lines_of, tool_lines_html
from promptkit_nb.rendering.typed_values import value_table
from promptkit_nb.turns import ToolCall
from storing import said, texts

if TYPE_CHECKING:
    from pathlib import Path

OWN_MARKUP = (
    "<div",
    "</div",
    '<details class="promptkit-thinking"',
    '<details class="promptkit-tool"',
    "<summary class=",
    "</summary",
    "</details",
    '<pre style="',
    "</pre",
)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def manager(chat_server: ChatServer) -> ConversationManager:
    """A manager with the real OpenAI client, connected to the test server."""
    return ConversationManager(
        OpenAIProvider("gpt-4o-mini", api_key="sk-test", base_url=chat_server.url, max_retries=0)
    )


@pytest.fixture
def conv(manager: ConversationManager) -> Conversation:
    """An empty conversation."""
    return manager.new_conversation(conversation_id="panel-chat", user_id="alice")


def gated(*pieces: str, budget: Budget | None = None) -> tuple[GatedProvider, Conversation]:
    """Return a provider that waits for the test, and a conversation that uses it."""
    provider = GatedProvider(*pieces)
    return provider, ConversationManager(provider, budget=budget).new_conversation(conversation_id="gated")


def foreign_markup(html: str, attack: str) -> list[str]:
    """Return the tags that are neither the panel's own nor in the sanitizer's output for this attack."""
    rest = html.replace(answer_style(), "").replace(to_html(attack), "")
    return [f"<{piece}" for piece in rest.split("<")[1:] if not f"<{piece}".startswith(OWN_MARKUP)]


def fill(conversation: Conversation, turns: int) -> None:
    """Store this many turns."""
    for number in range(turns):
        conversation.store.append(conversation.id, said(f"question {number}"), create=False)


class TestSending:
    """Sending a message, and what the page then shows."""

    def test_shows_the_stored_turns(self, conv: Conversation) -> None:
        """A panel opens with the turns of the conversation."""
        conv.send("My name is Alice")
        page = PanelPage(conv, is_open=False)
        assert (page.questions, page.answers) == (["My name is Alice"], ["Your name is Alice."])
        assert (page.shown["busy"], page.shown["streaming"]) == (False, None)

    def test_answer_is_shown_and_stored(self, conv: Conversation) -> None:
        """A message sent in the panel becomes a turn like any other."""
        page = PanelPage(conv)
        page.say("My name is Alice")
        page.say("What's my name?")
        assert page.answers == ["Your name is Alice.", "Your name is Alice."]
        assert texts(conv.turns) == ["My name is Alice", "What's my name?"]
        assert [turn.cell_id for turn in conv.turns] == [None, None]

    def test_answer_streams(self) -> None:
        """The text so far is shown below the question before the answer ends."""
        provider, conversation = gated("Hello", " **you**")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        provider.let()
        page.wait_for_streamed("Hello")
        assert page.shown["streaming"]["question"] == "Hi"
        assert (page.shown["busy"], page.shown["turns"]) == (True, [])
        provider.let(2)
        page.wait(lambda: page.answers == ["Hello **you**"])
        assert (page.shown["busy"], page.shown["streaming"], page.shown["status"]) == (False, None, "")

    def test_update_carries_the_streaming_answer_only(self) -> None:
        """The cost of an update does not grow with the history."""
        provider, conversation = gated("a", "b", "c")
        fill(conversation, 50)
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        for text in ("a", "ab", "abc"):
            provider.let()
            page.wait_for_streamed(f">{text}<")
        streaming = [update for update in page.updates if update.get("streaming")]
        streamed = [update for update in streaming if "turns" not in update]
        assert len(streamed) >= 3
        assert {name for update in streamed for name in update} <= {"streaming", "status", "busy", "error"}
        provider.let()
        page.wait(lambda: not page.shown["busy"])

    def test_update_does_not_depend_on_the_length_of_the_conversation(self) -> None:
        """After 2,000 turns it is the same, byte for byte, as after 20."""

        def streamed(turns: int) -> list[str]:
            provider, conversation = gated("a", "b")
            turns_before = tuple(said(f"question {number}") for number in range(turns))
            conversation.store.set(replace(conversation.snapshot().state, turns=turns_before))
            page = PanelPage(conversation)
            page.do("send", text="Hi")
            for text in ("a", "ab"):
                provider.let()
                page.wait_for_streamed(f">{text}<")
            provider.let()
            page.wait(lambda: not page.shown["busy"])
            updates = [update for update in page.updates if update.get("streaming") and "turns" not in update]
            return list(dict.fromkeys(json.dumps(update) for update in updates if "error" not in update))

        assert streamed(2_000) == streamed(20)

    def test_answer_is_markdown_and_the_question_is_text(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Only the answer is formatted; the question is shown as it was typed."""
        chat_server.reply(Reply(text="**bold**"))
        page = PanelPage(conv)
        page.say("**not** bold\nsecond line")
        question, answer = page.shown["turns"][0]["entries"]
        assert question == {"label": "user", "text": "**not** bold\nsecond line", "html": "", "fold": ""}
        assert answer == {"label": "assistant", "text": "**bold**", "html": to_html("**bold**"), "fold": ""}

    def test_a_tool_call_is_a_line(self) -> None:
        """With its result and the model's text; the object is shown if this kernel ran the tool."""
        called = Message("assistant", "Let me look.", tool_calls=(ToolCall("1", "weather", "{}"),))
        result = Message("tool", "sunny", name="weather", tool_call_id="1")
        turn = Turn(messages=(Message("user", "Hi"), called, result, Message("assistant", "Sunny.")))
        fields = cast("Any", turn_fields(turn, 0, is_stale=False))
        _, line, _ = fields["entries"]
        assert (line["label"], line["fold"]) == ("assistant, calling tools", "")
        assert line["text"] == "Let me look.\n▸ weather() → sunny"
        assert line["html"] == tool_lines_html(lines_of(turn))
        fields = cast("Any", turn_fields(turn, 0, is_stale=False, calls={"1": "<b>sunny</b>"}))
        assert fields["entries"][1]["html"] == "<b>sunny</b>"

    def test_a_typed_answer_is_a_table(self) -> None:
        """As in a cell; copied is its JSON. What is not a value is the text of the answer."""
        messages = Message("user", "Hi"), Message("assistant", 'Here: {"label": "<b>"}')
        turn = Turn(messages=messages, value_json='{"label": "<b>"}')
        fields = cast("Any", turn_fields(turn, 0, is_stale=False))
        table = value_table({"label": "<b>"})[1]
        assert fields["entries"][1] == {"label": "assistant", "text": '{"label": "<b>"}', "html": table, "fold": ""}
        assert table in static_html(ConversationState("c", turns=(turn,)))
        fields = cast("Any", turn_fields(replace(turn, value_json="{"), 0, is_stale=False))
        assert fields["entries"][1]["html"] == to_html(messages[1].content)

    def test_tool_calls_without_results_are_folded(self) -> None:
        """So are results without their call, and all but the last result of a call."""
        calls = (ToolCall("1", "weather", "{}"), ToolCall("2", "time", "{}"))
        results = Message("tool", "sunny", tool_call_id="1"), Message("tool", "wet", name="weather", tool_call_id="1")
        messages = (Message("user", "Hi"), Message("assistant", "", tool_calls=calls), *results)
        fields = cast("Any", turn_fields(Turn(messages=messages), 0, is_stale=False))
        assert [(entry["label"], entry["fold"]) for entry in fields["entries"]] == [
            ("user", ""),
            ("assistant, calling tools", ""),
            ("assistant, calling a tool", "closed"),
            ("tool", "closed"),
        ]

    def test_second_message_during_an_answer_is_returned(self) -> None:
        """It is refused, its text is returned, and the answer continues."""
        provider, conversation = gated("a")
        page = PanelPage(conversation)
        page.do("send", text="first")
        page.do("send", text="second")
        page.wait(lambda: page.error)
        assert page.error == "An answer is still streaming: wait for it or stop it, then send this again."
        assert page.shown["error"]["unsent"] == "second"
        provider.let(2)
        page.wait(lambda: not page.shown["busy"])
        assert texts(conversation.turns) == ["first"]

    def test_panel_can_have_its_own_model(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Its calls use that model."""
        panel = ChatPanel(conv, model="gpt-4o")
        panel._on_message(panel, {"do": "send", "text": "Hi", "page": "v", "n": "1"}, [])
        PanelPage(conv, is_open=False).wait(lambda: conv.turns)
        assert chat_server.requests[0].body["model"] == "gpt-4o"
        panel.close()


class TestRetryAndEdit:
    """The buttons of a turn."""

    def test_retry_answers_in_place(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The turn is answered again, the previous answer becomes a version, later turns stay."""
        chat_server.reply(Reply(text="one"), Reply(text="two"), Reply(text="other"))
        page = PanelPage(conv)
        page.say("a")
        page.say("b")
        page.do("retry", turn=page.shown["turns"][0]["id"])
        page.wait(lambda: page.answers == ["other", "two"])
        assert [turn.text for turn in conv.versions(0)] == ["one"]
        assert page.questions == ["a", "b"]
        assert "stale" in page.shown["turns"][1]["notes"][-1]["text"]

    def test_edited_answer_keeps_the_models_own(self, conv: Conversation, chat_server: ChatServer) -> None:
        """As a version; later turns are stale, and nothing is sent."""
        conv.send("one")
        conv.send("two")
        page = PanelPage(conv)
        page.wait(lambda: len(page.questions) == 2)
        page.do("edit_reply", turn=page.shown["turns"][0]["id"], text="My **own** words")
        page.wait(lambda: page.answers[:1] == ["My **own** words"])
        assert [note["text"] for note in page.shown["turns"][1]["notes"]][-1].startswith("stale")
        assert [turn.text for turn in conv.versions(0)] == ["You said: one"]
        assert len(chat_server.requests) == 2

    def test_edited_answer_that_cannot_be_stored_is_returned(self, conv: Conversation) -> None:
        """With the error, to the page where it was typed."""
        conv.send("one")
        page = PanelPage(conv)
        page.do("edit_reply", turn="gone", text="My own words")
        page.wait(lambda: page.error)
        assert page.shown["error"]["unsent"] == "My own words"

    def test_retry_ignores_replay(self, chat_server: ChatServer) -> None:
        """Retry asks for another answer, not the stored one."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="sk-test", base_url=chat_server.url)
        conversation = ConversationManager(provider, replay="auto").new_conversation()
        chat_server.reply(Reply(text="one"), Reply(text="two"))
        page = PanelPage(conversation)
        page.say("a")
        page.do("retry", turn=page.shown["turns"][0]["id"])
        page.wait(lambda: page.answers == ["two"])

    def test_edit_makes_a_branch(self, conv: Conversation) -> None:
        """The turn and everything after it become a branch, and the new text is answered in its place."""
        page = PanelPage(conv)
        for text in ("a", "b", "c"):
            page.say(text)
        page.do("edit", turn=page.shown["turns"][1]["id"], text="B")
        page.wait(lambda: page.questions == ["a", "B"] and not page.shown["busy"])
        assert [texts(branch.turns) for branch in conv.branches()] == [["b", "c"]]

    def test_edit_of_a_removed_turn_is_refused(self, conv: Conversation) -> None:
        """The text of the edit is returned."""
        page = PanelPage(conv)
        page.do("edit", turn="nope", text="typed")
        page.wait(lambda: page.error)
        assert page.error.startswith("'nope' is not a current turn of 'panel-chat'")
        assert page.shown["error"]["unsent"] == "typed"


class TestStop:
    """Stop abandons the call and keeps the text that arrived."""

    def test_partial_answer_is_stored_at_once(self) -> None:
        """The turn is stored while the provider still waits for its next piece; later pieces are dropped."""
        provider, conversation = gated("Hello", " late")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        provider.let()
        page.wait_for_streamed("Hello")
        page.do("stop")
        page.wait(lambda: not page.shown["busy"])
        assert not provider.ended.is_set()
        assert [(turn.text, turn.finish_reason) for turn in conversation.turns] == [("Hello", "interrupted")]
        provider.let(2)
        assert provider.ended.wait(60)
        assert [turn.text for turn in conversation.turns] == ["Hello"]
        assert page.shown["status"] == "Stopped; the partial answer is kept."

    def test_before_any_text_nothing_is_stored(self) -> None:
        """The typed text is returned, the waiting call is abandoned, and its later result is dropped."""
        provider, conversation = gated("late")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        assert provider.waits.acquire(timeout=60)
        page.do("stop")
        page.wait(lambda: page.messages)
        assert page.messages == [{"unsent": "Hi", "page": "page"}]
        assert page.shown["status"] == "Stopped before any text arrived; the conversation is unchanged."
        provider.let(2)
        assert provider.ended.wait(60)
        assert conversation.turns == ()

    def test_abandoned_call_is_settled(self) -> None:
        """A budget counts the stopped call at its estimated cost, and keeps no reservation for it."""
        provider, conversation = gated("late", budget=Budget(5))
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        assert provider.waits.acquire(timeout=60)
        page.do("stop")
        page.wait(lambda: not page.shown["busy"])
        assert conversation.budget_lines() == ("budget $0.0008 of $5.00 in this conversation",)
        provider.let(2)
        assert provider.ended.wait(60)
        assert conversation.budget_lines() == ("budget $0.0008 of $5.00 in this conversation",)

    def test_stop_during_a_wait_sends_nothing_more(self, chat_server: ChatServer) -> None:
        """The wait before a retry is shown, and stopping during the wait ends the call."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="sk-test", base_url=chat_server.url)
        conversation = ConversationManager(provider).new_conversation()
        chat_server.reply(error_reply(429, "busy", headers={"retry-after-ms": "400"}))
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        page.wait(lambda: ", trying again in 0." in page.shown["status"])
        page.do("stop")
        page.wait(lambda: page.messages)
        page.wait(lambda: not [each for each in threading.enumerate() if each.name == "promptkit-answer"])
        assert len(chat_server.requests) == 1
        assert conversation.turns == ()
        page.say("Hello")

    def test_next_message_can_be_sent_at_once(self) -> None:
        """It does not wait for the abandoned call."""
        provider, conversation = gated("x")
        page = PanelPage(conversation)
        page.do("send", text="first")
        assert provider.waits.acquire(timeout=60)
        page.do("stop")
        page.do("send", text="second")
        assert provider.waits.acquire(timeout=60)
        provider.let(4)
        page.wait(lambda: page.questions == ["second"] and not page.shown["busy"])
        assert texts(conversation.turns) == ["second"]

    def test_stop_without_an_answer_does_nothing(self, conv: Conversation) -> None:
        """Esc in an idle panel is not an error."""
        page = PanelPage(conv)
        page.do("stop")
        page.say("Hi")
        assert page.error == ""


class TestErrors:
    """Errors are shown, and the typed text is returned."""

    def test_refusal_is_shown_and_the_text_is_returned(self, conv: Conversation, chat_server: ChatServer) -> None:
        """Nothing is stored; the next message works and removes the error."""
        chat_server.reply(error_reply(401, "bad key"))
        page = PanelPage(conv)
        page.do("send", text="Hi")
        page.wait(lambda: page.error)
        assert "HTTP 401: bad key" in page.error
        assert "sk-test" not in page.error
        assert (page.shown["error"]["unsent"], page.shown["error"]["page"]) == ("Hi", "page")
        page.wait(lambda: not page.shown["busy"])
        assert conv.turns == ()
        page.say("Hi")
        assert page.error == ""

    def test_broken_answer_is_shown_with_the_error(self, conv: Conversation, chat_server: ChatServer) -> None:
        """The text that arrived is not stored, and not lost."""
        chat_server.reply(Reply(text="half **an** answer", cut_after=3))
        page = PanelPage(conv)
        page.do("send", text="Hi")
        page.wait(lambda: page.error)
        assert "half" in page.shown["error"]["partial"]
        assert page.shown["error"]["unsent"] == "Hi"
        assert conv.turns == ()

    def test_error_of_a_custom_provider_is_shown(self) -> None:
        """A bug in a provider does not end the panel."""

        class Broken(DemoProvider):
            def stream(self, request: object) -> Any:
                raise RuntimeError(f"no {type(request).__name__} today")

        conversation = ConversationManager(Broken()).new_conversation()
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        page.wait(lambda: page.error)
        assert page.error == "RuntimeError: no ChatRequest today"
        page.do("new")
        page.wait(lambda: page.shown["conversation_id"] != conversation.id)

    def test_conversation_deleted_elsewhere_is_reported_once(self, conv: Conversation) -> None:
        """The screen keeps its content, and a message sent meanwhile is returned."""
        page = PanelPage(conv)
        page.say("Hi")
        conv.store.delete(conv.id)
        page.wait(lambda: page.error)
        assert page.error.startswith("There is no conversation 'panel-chat'.")
        assert page.questions == ["Hi"]
        number = page.shown["error"]["n"]
        page.do("send", text="lost?")
        page.wait(lambda: page.shown["error"].get("unsent") == "lost?")
        assert page.shown["error"]["n"] == number + 1

    @pytest.mark.parametrize(("command", "values"), [("rename", {"text": "mine"}), ("delete", {"id": "panel-chat"})])
    def test_panel_leaves_a_conversation_alone_if_another_user_has_its_id_now(
        self, conv: Conversation, manager: ConversationManager, command: str, values: dict[str, str]
    ) -> None:
        """Alice's panel is still open when her conversation is deleted and bob's gets its id."""
        page = PanelPage(conv)
        conv.store.delete(conv.id)
        bobs = manager.new_conversation(conversation_id="panel-chat", user_id="bob")
        page.wait(lambda: page.error)
        number = page.shown["error"]["n"]
        page.do(command, **values)
        page.wait(lambda: page.shown["conversation_id"] != "panel-chat" or page.shown["error"]["n"] > number)
        assert (bobs.user_id, dict(bobs.metadata)) == ("bob", {})

    @pytest.mark.parametrize(
        ("command", "values"), [("new", {}), ("delete", {"id": "panel-chat"}), ("use", {"id": "other"})]
    )
    def test_panel_can_leave_a_deleted_conversation(
        self, conv: Conversation, manager: ConversationManager, command: str, values: dict[str, str]
    ) -> None:
        """New, Delete and the selector still work."""
        page = PanelPage(conv)
        conv.store.delete(conv.id)
        page.wait(lambda: page.error)
        if command == "use":
            manager.new_conversation(conversation_id="other", user_id="alice")
        page.do("search", text="")
        page.do(command, **values)
        page.wait(lambda: page.shown["conversation_id"] != "panel-chat")
        assert page.error == ""
        page.wait(lambda: page.shown["footer"][:1] == ["0 turns · 0 tokens · $0.00"])
        page.say("Hi")

    def test_answer_to_a_deleted_conversation_is_shown(self) -> None:
        """It is paid for and cannot be stored, so the error shows it; the question is returned."""
        provider, conversation = gated("half ", "an **answer**")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        provider.let()
        page.wait_for_streamed("half")
        conversation.store.delete(conversation.id)
        provider.let(2)
        page.wait(lambda: page.shown["error"].get("partial"))
        assert page.shown["error"]["partial"] == to_html("half an **answer**")
        assert page.shown["error"]["unsent"] == "Hi"
        assert page.error.startswith("Conversation 'gated' was deleted before the answer arrived")

    def test_invalid_command_is_refused(self, conv: Conversation) -> None:
        """An unknown command, or one with a missing value, shows an error and ends nothing."""
        page = PanelPage(conv)
        page.do("explode")
        page.wait(lambda: page.error == "The panel has no command 'explode': reload the page.")
        page.do("send")
        page.wait(lambda: page.error == "KeyError: 'text'")
        page.say("Hi")

    def test_panel_takes_only_a_conversation(self) -> None:
        """The error says what to pass."""
        with pytest.raises(InvalidArgumentError, match="'persistent-chat' is not a Conversation: pass one from"):
            ChatPanel("persistent-chat")  # type: ignore[arg-type]  # as a user might


class TestInStep:
    """Several panels and cells in one conversation."""

    def test_two_panels_show_the_same(self, conv: Conversation, manager: ConversationManager) -> None:
        """A turn added in one panel appears in the other, once."""
        one, other = PanelPage(conv), PanelPage(manager.get_conversation(conv.id))
        one.say("from one")
        other.wait(lambda: other.questions == ["from one"])
        other.say("from the other")
        one.wait(lambda: one.questions == ["from one", "from the other"])
        assert texts(conv.turns) == ["from one", "from the other"]

    def test_two_panels_can_send_at_once(self, tmp_path: Path) -> None:
        """No answer is lost or stored twice; the later one is stale."""
        provider = GatedProvider("x")
        with DiskStore(tmp_path) as here, DiskStore(tmp_path) as there:
            mine = ConversationManager(provider, here).new_conversation(conversation_id="both")
            pages = PanelPage(mine), PanelPage(ConversationManager(provider, there).get_conversation("both"))
            for name, page in zip("ab", pages, strict=True):
                page.do("send", text=name)
                assert provider.waits.acquire(timeout=60)
            provider.let(4)
            one, other = pages
            one.wait(lambda: sorted(one.questions) == ["a", "b"] and not one.shown["busy"])
            other.wait(lambda: sorted(other.questions) == ["a", "b"] and not other.shown["busy"])
            assert sorted(texts(mine.turns)) == ["a", "b"]
            assert len(mine.stale_turns) == 1
            one.controller.close()
            other.controller.close()

    def test_cell_and_panel_show_the_same(self, conv: Conversation) -> None:
        """A turn sent elsewhere in this kernel appears in the panel."""
        page = PanelPage(conv)
        conv.send("from a cell")
        page.wait(lambda: page.questions == ["from a cell"])
        conv.undo()
        page.wait(lambda: page.questions == [])

    def test_panel_without_pages_does_not_poll(self, conv: Conversation) -> None:
        """After its last page is closed it does not read the store until a page opens."""
        page = PanelPage(conv)
        page.do("close")
        page.wait(lambda: page.controller._poll_interval_s() is None)
        conv.send("unseen")
        page.do("open")
        page.wait(lambda: page.questions == ["unseen"])


class TestConversations:
    """The selector and the buttons next to it."""

    def test_lists_the_users_conversations_newest_first(self, manager: ConversationManager) -> None:
        """Titles come from the metadata; other users' conversations are not shown."""
        manager.new_conversation(conversation_id="theirs", user_id="bob")
        manager.new_conversation(conversation_id="old", user_id="alice", metadata={"title": "An old one"})
        page = PanelPage(manager.new_conversation(conversation_id="new", user_id="alice"))
        page.wait(lambda: page.shown.get("conversations"))
        assert page.shown["conversations"] == [
            {"id": "new", "title": "new", "turns": 0},
            {"id": "old", "title": "An old one", "turns": 0},
        ]

    def test_search_looks_in_ids_and_titles(self, manager: ConversationManager) -> None:
        """Case is ignored, and the number of results is shown."""
        for name, title in (("trip-1", "Lisbon"), ("trip-2", "Porto"), ("work", "lisbon office")):
            manager.new_conversation(conversation_id=name, metadata={"title": title})
        page = PanelPage(manager.new_conversation(conversation_id="here"))
        page.do("search", text="LISBON")
        page.wait(lambda: [each["id"] for each in page.shown.get("conversations", ())] == ["work", "trip-1"])
        page.wait(
            lambda: page.shown["status"] == "2 conversations found: choose one from the list next to the search box."
        )
        page.do("search", text="")
        page.wait(lambda: len(page.shown["conversations"]) == 4 and page.shown["status"] == "")

    def test_result_of_a_search_is_shown_when_the_answer_has_ended(self) -> None:
        """While it streams, the status line tells about the answer."""
        provider, conversation = gated("a", "b")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        page.wait(lambda: page.shown["busy"])
        page.do("search", text="nothing")
        page.wait(lambda: page.shown["conversations"] == [])
        assert page.shown["status"] == "Answering…"
        provider.let(3)
        page.wait(lambda: not page.shown["busy"])
        page.wait(lambda: page.shown["status"] == "0 conversations found.")

    def test_switching_shows_the_other_one(self, conv: Conversation, manager: ConversationManager) -> None:
        """Its turns, title and totals."""
        manager.new_conversation(conversation_id="other", user_id="alice").send("over there")
        page = PanelPage(conv)
        page.do("use", id="other")
        page.wait(lambda: page.questions == ["over there"])
        page.wait(lambda: page.shown["footer"][:1] == ["1 turn · 15 tokens · $0.0000045"])
        assert (page.shown["conversation_id"], page.shown["title"]) == ("other", "other")

    def test_another_users_conversation_does_not_exist(self, conv: Conversation, manager: ConversationManager) -> None:
        """A page cannot open it by its id."""
        manager.new_conversation(conversation_id="theirs", user_id="bob")
        page = PanelPage(conv)
        page.do("use", id="theirs")
        page.wait(lambda: page.error)
        assert page.error.startswith("There is no conversation 'theirs'.")
        assert page.shown["conversation_id"] == "panel-chat"

    def test_answer_continues_while_another_conversation_is_shown(self) -> None:
        """After switching back it still streams, and it is stored in its own conversation."""
        provider, conversation = gated("a", "b")
        page = PanelPage(conversation)
        page.do("send", text="Hi")
        provider.let()
        page.wait_for_streamed(">a<")
        page.do("new")
        page.wait(lambda: page.shown["conversation_id"] != "gated")
        assert (page.shown["busy"], page.shown["streaming"]) == (False, None)
        page.do("use", id="gated")
        page.wait(lambda: page.shown["busy"])
        provider.let(2)
        page.wait(lambda: page.answers == ["ab"])

    def test_new_starts_with_the_same_prompt(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """System prompt, user and settings are those of the conversation that was shown."""
        page = PanelPage(manager.new_conversation(system_prompt="You help.", user_id="alice", model="gpt-4o"))
        page.do("new")
        page.wait(lambda: len(page.shown.get("conversations", ())) == 2)
        page.say("Hi")
        assert page.controller.conversation.user_id == "alice"
        assert chat_server.requests[0].body["messages"][0] == {"role": "system", "content": "You help."}
        assert chat_server.requests[0].body["model"] == "gpt-4o"

    def test_rename_sets_the_title(self, conv: Conversation) -> None:
        """It is stored in the metadata; an empty title restores the id."""
        page = PanelPage(conv)
        page.do("rename", text="  My\nchat ")
        page.wait(lambda: page.shown["title"] == "My chat")
        assert conv.metadata["title"] == "My chat"
        page.do("rename", text=" ")
        page.wait(lambda: page.shown["title"] == "panel-chat")

    def test_fork_switches_to_a_copy(self, conv: Conversation) -> None:
        """The copy names its origin, and its new turns stay in it."""
        conv.send("Hi")
        page = PanelPage(conv)
        page.do("fork")
        page.wait(lambda: page.shown["title"] == "panel-chat (copy)")
        page.say("in the copy")
        assert page.questions == ["Hi", "in the copy"]
        assert texts(conv.turns) == ["Hi"]
        assert page.controller.conversation.forked_from == "panel-chat"

    def test_delete_switches_to_the_newest_other_conversation(
        self, conv: Conversation, manager: ConversationManager
    ) -> None:
        """If there is none, it starts a new one."""
        other = manager.new_conversation(conversation_id="other", user_id="alice")
        page = PanelPage(conv)
        page.do("delete", id="panel-chat")
        page.wait(lambda: page.shown["conversation_id"] == "other")
        page.do("delete", id="panel-chat")
        page.wait(lambda: page.error)
        assert page.error == "The panel now shows another conversation: delete that one, or switch back."
        page.do("delete", id="other")
        page.wait(lambda: page.shown["conversation_id"] not in {"other", "panel-chat"})
        assert [head.conversation_id for head in other.store.list()] == [page.shown["conversation_id"]]


class TestFooter:
    """Turns, tokens, cost, context, budgets."""

    def test_shows_totals_context_and_budget(self, chat_server: ChatServer) -> None:
        """A line each, updated after every turn."""
        provider = OpenAIProvider("gpt-4o-mini", api_key="sk-test", base_url=chat_server.url)
        manager = ConversationManager(provider, budget=Budget(1))
        page = PanelPage(manager.new_conversation(conversation_id="c", max_tokens=1000))
        page.say("Hi")
        page.wait(lambda: page.shown["footer"][:1] == ["1 turn · 15 tokens · $0.0000045"])
        _, context, budget = page.shown["footer"]
        assert context.startswith("context ")
        assert "of 1,000 tokens" in context
        assert budget == manager.get_conversation("c").budget_lines()[0]

    def test_unknown_price_is_not_zero(self, chat_server: ChatServer) -> None:
        """A model without a price is reported as such."""
        provider = OpenAIProvider("my-model", api_key="sk-test", base_url=chat_server.url)
        page = PanelPage(ConversationManager(provider).new_conversation())
        page.say("Hi")
        page.wait(lambda: page.shown["footer"][0] == "1 turn · 15 tokens · price unknown")


class TestLongConversations:
    """Only the turns that the reader sees are sent."""

    def test_newest_turns_come_first_and_older_ones_when_asked(self, conv: Conversation) -> None:
        """The last turns at once, then a chunk for each request."""
        fill(conv, 50)
        page = PanelPage(conv)
        assert page.questions == [f"question {number}" for number in range(50 - CHUNK_TURNS, 50)]
        assert page.shown["first"] == 30
        for before, first in (("30", 10), ("10", 0)):
            page.do("older", before=before)
            page.wait(lambda: page.messages)
            older = page.messages.pop()
            assert [turn["index"] for turn in older["older"]] == list(range(first, int(before)))
            assert older["epoch"] == page.shown["epoch"]

    def test_new_turn_keeps_fetched_turns_valid(self, conv: Conversation) -> None:
        """Turns that were fetched stay on the page when the conversation grows."""
        fill(conv, 30)
        page = PanelPage(conv)
        epoch = page.shown["epoch"]
        page.say("one more")
        assert (page.shown["epoch"], page.shown["first"]) == (epoch, 11)

    def test_change_above_makes_fetched_turns_invalid(self, conv: Conversation) -> None:
        """If an older turn changes, fetched turns are out of date."""
        fill(conv, 30)
        page = PanelPage(conv)
        epoch = page.shown["epoch"]
        conv.store.replace(conv.id, conv.turns[0].id, said("changed"))
        page.wait(lambda: page.shown["epoch"] == epoch + 1)


class TestStaticTranscript:
    """The transcript in the saved notebook."""

    def test_turns_are_readable_without_a_widget(self, conv: Conversation) -> None:
        """As sanitized HTML and as text."""
        conv.send("My name is <b>Alice</b>")
        state = conv.snapshot().state
        assert "My name is &lt;b&gt;Alice&lt;/b&gt;" in static_html(state)
        assert static_text(state).splitlines() == [
            "Chat panel 'panel-chat', 1 turn. Run this cell again to continue.",
            "user: My name is <b>Alice</b>",
            "assistant: You said: My name is <b>Alice</b>",
        ]

    def test_is_written_again_after_each_turn(self, conv: Conversation) -> None:
        """The transcript follows the conversation."""
        page = PanelPage(conv)
        page.say("Hi")
        page.wait(lambda: page.transcripts and texts(page.transcripts[-1].state.turns) == ["Hi"])

    def test_long_conversation_keeps_its_newest_turns(self, conv: Conversation) -> None:
        """The file stays small, and says how many turns it leaves out."""
        fill(conv, STATIC_TURNS + 5)
        text = static_text(conv.snapshot().state)
        assert text.splitlines()[1] == "Only the newest 50 turns; %chat_export also writes the other 5."
        assert "question 4" not in text.split()
        assert text.count("user: ") == STATIC_TURNS

    def test_bundle_has_widget_html_and_text(self, conv: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the front end has widgets, the output has the widget and the transcript."""
        monkeypatch.setattr("promptkit_nb.rendering.widgets.can_use_widgets", lambda: True)
        panel = ChatPanel(conv)
        bundle, _ = panel._repr_mimebundle_()
        assert sorted(bundle) == [WIDGET_VIEW, "text/html", "text/plain"]
        panel.close()

    def test_batch_run_gets_the_transcript_alone(self, conv: Conversation) -> None:
        """Two panels of one conversation give the same output."""
        conv.send("Hi")
        bundles = [ChatPanel(conv)._repr_mimebundle_()[0] for _ in range(2)]
        assert bundles[0] == bundles[1]
        assert sorted(bundles[0]) == ["text/html", "text/plain"]


class TestUntrustedText:
    """Text from models, users and files never becomes markup."""

    @pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
    def test_only_sanitized_html_is_html(self, attack: str) -> None:
        """Each ``html`` field is empty, the sanitizer's output, or a tool call, whose parts are escaped."""
        for shown in turn_fields(hostile(attack), 0, is_stale=False)["entries"]:  # type: ignore[attr-defined]  # a list
            assert foreign_markup(shown["html"], attack) == []
            assert shown["label"].startswith("assistant, calling") or shown["html"] in {"", to_html(attack)}

    @pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
    def test_static_transcript_has_no_markup_of_theirs(self, attack: str, conv: Conversation) -> None:
        """Outside the sanitizer's output the attack is escaped: in titles, ids, names, tools and warnings."""
        state = replace(
            conv.snapshot().state, conversation_id=attack, metadata={"title": attack}, turns=(hostile(attack),)
        )
        assert foreign_markup(static_html(state), attack) == []

    def test_updates_are_json(self, conv: Conversation) -> None:
        """Lone surrogates and control characters do not break a panel."""
        conv.store.append(conv.id, said("\ud83d \x00 \x1b[31m"), create=False)
        page = PanelPage(conv)
        assert json.dumps(page.shown["turns"]).encode()
        assert page.shown["turns"][0]["entries"][0]["text"] == "\ufffd  [31m"


def test_panel_ends_its_thread_when_it_is_closed(conv: Conversation) -> None:
    """Closing the widget leaves no thread."""
    panel = ChatPanel(conv)
    panel._on_message(panel, {"do": "open", "page": "v", "n": "1"}, [])
    thread = panel._controller._worker._thread
    assert isinstance(thread, threading.Thread)
    panel.close()
    thread.join(60)
    assert not thread.is_alive()


def test_panel_works_with_a_memory_store() -> None:
    """Without a directory the conversation lasts as long as the kernel."""
    page = PanelPage(ConversationManager(DemoProvider(), MemoryStore()).new_conversation())
    page.say("My name is Al")
    assert page.answers[0].startswith("[demo] Nice to meet you, Al!")
