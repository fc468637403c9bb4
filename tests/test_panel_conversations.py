"""Titles and search in the panel's list of conversations, and the versions of a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from panel_page import GatedProvider, PanelPage
from promptkit_nb import Conversation, ConversationManager, DemoProvider, MemoryStore, StoreUnavailableError
from promptkit_nb.panel import conversation_list, search_thread
from promptkit_nb.panel.search_thread import Search, SearchThread
from promptkit_nb.panel.transcript import static_text

if TYPE_CHECKING:
    from promptkit_nb import StateStore

CHOOSE = "choose one from the list next to the search box."


@pytest.fixture
def manager() -> ConversationManager:
    """A manager with the demo provider."""
    return ConversationManager(DemoProvider())


def listed_titles(page: PanelPage) -> list[str]:
    """Return the titles in the list."""
    return [each["title"] for each in page.shown.get("conversations", ())]


def listed_ids(page: PanelPage) -> list[str]:
    """Return the ids in the list."""
    return [each["id"] for each in page.shown.get("conversations", ())]


class TestTitles:
    """No generated id is shown as a title."""

    def test_untitled_conversation_is_called_by_its_first_question(self, manager: ConversationManager) -> None:
        """At the top, in the list, and in the saved notebook; before, it is new, and a title that is set wins."""
        page = PanelPage(manager.new_conversation())
        page.wait(lambda: listed_titles(page) == ["New conversation"])
        assert page.shown["title"] == "New conversation"
        page.say("My name\nis Alice")
        page.wait(lambda: listed_titles(page) == ["My name is Alice"])
        assert page.shown["title"] == "My name is Alice"
        assert static_text(page.transcripts[-1].state).startswith("Chat panel 'My name is Alice', 1 turn.")
        page.do("rename", text="Alice")
        page.wait(lambda: (page.shown["title"], *listed_titles(page)) == ("Alice", "Alice"))
        page.do("rename", text="")
        page.wait(lambda: (page.shown["title"], *listed_titles(page)) == ("My name is Alice",) * 2)
        page.do("edit", turn=page.shown["turns"][0]["id"], text="My name is Bob")
        page.wait(lambda: (page.shown["title"], *listed_titles(page)) == ("My name is Bob",) * 2)

    def test_copy_is_called_after_the_first_question(self, manager: ConversationManager) -> None:
        """As the conversation itself is."""
        page = PanelPage(manager.new_conversation())
        page.say("Hello")
        page.do("fork")
        page.wait(lambda: page.shown["title"] == "Hello (copy)")

    def test_questions_are_read_once(self, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """And again only after the conversation has changed; empty and titled ones are never read."""
        manager = ConversationManager(DemoProvider(), store)
        first, second, _ = (manager.new_conversation() for _ in range(3))
        titled = manager.new_conversation(metadata={"title": "Titled"})
        for each in (first, second, titled):
            each.send(f"My name is {each.id[-6:]}")
        read: list[str] = []

        def read_question(store: StateStore, conversation_id: str) -> str:
            read.append(conversation_id)
            return "A question"

        monkeypatch.setattr(conversation_list, "first_question", read_question)
        titles = conversation_list.Titles()
        for _ in range(2):
            conversation_list.find(first, titles, Search())
            assert sorted(read) == sorted([first.id, second.id])
        second.send("Again")
        found = conversation_list.find(first, titles, Search("a question"))
        assert {each["id"] for each in found} == {first.id, second.id}
        assert sorted(read) == sorted([first.id, second.id, second.id])


class TestSearch:
    """What was said is found, too."""

    @pytest.fixture
    def page(self, manager: ConversationManager) -> PanelPage:
        """A panel of Alice, who talked about pears in one conversation, and about plums in the one that is shown."""
        manager.new_conversation(conversation_id="theirs", user_id="bob").send("pears and plums")
        manager.new_conversation(conversation_id="fruit", user_id="alice").send("My city is Pears, not far")
        return PanelPage(manager.new_conversation(conversation_id="here", user_id="alice"))

    def test_finds_what_was_said(self, page: PanelPage) -> None:
        """All words must be in one message, in any case; other users' conversations are not searched."""
        page.say("My name is Plums")
        page.do("search", text="PEARS far")
        page.wait(lambda: page.shown["status"] == f"1 conversation found: {CHOOSE}")
        assert listed_ids(page) == ["fruit"]
        page.do("search", text="plums")
        page.wait(lambda: page.shown["status"] == f"1 conversation found: {CHOOSE}" and listed_ids(page) == ["here"])
        page.do("search", text="pears plums")
        page.wait(lambda: page.shown["status"] == "0 conversations found.")
        page.do("search", text="  ")
        page.wait(lambda: len(listed_ids(page)) == 2 and page.shown["status"] == "")

    def test_titles_are_found_at_once(self, page: PanelPage) -> None:
        """While the messages are searched, and the status says so."""
        page.do("search", text="FRUIT")
        page.wait(lambda: page.shown["status"] == f"1 conversation found: {CHOOSE}")
        statuses = [update["status"] for update in page.updates if update.get("status")]
        assert statuses[0] == "1 conversation found by title; searching what was said…"

    def test_too_many_messages_are_not_searched(self, page: PanelPage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Titles are, and the status names the magic that searches the rest."""
        monkeypatch.setattr(search_thread, "MAX_SEARCHED_TURNS", 0)
        page.do("search", text="pears")
        page.wait(lambda: page.shown["status"].endswith("by title; %chat_search finds what was said."))
        assert listed_ids(page) == []

    def test_result_of_an_earlier_text_is_not_shown(self, page: PanelPage) -> None:
        """Only that of the newest one."""
        page.do("search", text="pears")
        page.do("search", text="plums")
        page.do("search", text="far")
        page.wait(lambda: page.shown["status"] == f"1 conversation found: {CHOOSE}")
        assert listed_ids(page) == ["fruit"]
        page.controller.post({"do": "open", "page": "page"})
        page.wait(page.controller._worker._jobs.empty)
        assert listed_ids(page) == ["fruit"]

    def test_text_without_words_is_no_error(self, page: PanelPage) -> None:
        """A quote that is being typed has no word yet."""
        page.do("search", text='"')
        page.do("search", text='""')
        page.wait(lambda: page.shown["status"] == "0 conversations found.")
        assert page.error == ""

    def test_store_that_cannot_be_searched_is_reported(self, manager: ConversationManager) -> None:
        """As any error of the panel; the next search is a new one."""
        errors: list[Exception] = []
        found: list[Search] = []
        conversation = manager.new_conversation()
        thread = SearchThread(found.append, errors.append)
        page = PanelPage(conversation)
        conversation.store.close()
        thread.start(conversation, Search("a"))
        page.wait(lambda: errors)
        assert isinstance(errors[0], StoreUnavailableError)
        thread.start(conversation, Search("b"))
        page.wait(lambda: len(errors) == 2)
        assert found == []


class TestVersions:
    """What a turn keeps besides itself."""

    @pytest.fixture
    def conv(self) -> Conversation:
        """A conversation with one turn, whose answer counts the answers."""
        provider = GatedProvider("yes")
        provider.let(1000)
        conv = ConversationManager(provider, MemoryStore()).new_conversation()
        conv.send("one")
        return conv

    def test_versions_are_counted_and_restored(self, conv: Conversation) -> None:
        """By time: Retry adds one at the end, and each can be restored, as often as wanted."""
        page = PanelPage(conv)
        page.wait(lambda: page.questions)
        assert "version" not in page.shown["turns"][0]
        ids = [page.shown["turns"][0]["id"]]
        for number in (2, 3):
            page.do("retry", turn=ids[-1])
            page.wait(lambda number=number: page.shown["turns"][0].get("version", {}).get("number") == number)  # type: ignore[misc]  # bound to each number
            ids.append(page.shown["turns"][0]["id"])
        first, second, third = ids
        assert page.shown["turns"][0]["version"] == {"number": 3, "count": 3, "previous": second, "next": ""}
        page.do("restore", id=second)
        page.wait(lambda: page.shown["turns"][0]["id"] == second)
        assert page.shown["turns"][0]["version"] == {"number": 2, "count": 3, "previous": first, "next": third}
        page.do("restore", id=first)
        page.wait(lambda: page.shown["turns"][0]["version"]["number"] == 1)
        assert conv.turns[0].id == first
        assert {each.id for each in conv.versions(0)} == {second, third}

    def test_unknown_version_is_an_error(self, conv: Conversation) -> None:
        """Nothing is changed."""
        page = PanelPage(conv)
        page.do("restore", id="gone")
        page.wait(lambda: page.error)
        assert "gone" in page.error
        assert len(conv.turns) == 1

    def test_edited_turn_names_its_branch(self, conv: Conversation) -> None:
        """With the magics that show and restore it; other turns do not."""
        conv.send("two")
        page = PanelPage(conv)
        page.wait(lambda: len(page.questions) == 2)
        page.do("edit", turn=page.shown["turns"][1]["id"], text="other")
        page.wait(lambda: page.questions == ["one", "other"] and not page.shown["busy"])
        before, edited = page.shown["turns"]
        assert edited["notes"][-1] == {
            "text": "1 branch",
            "title": "1 branch with what followed here before: %chat_tree lists, %chat_restore brings back",
        }
        assert "branch" not in str(before["notes"])


def test_empty_panel_says_nothing_of_its_context(manager: ConversationManager) -> None:
    """From the first turn on it does."""
    page = PanelPage(manager.new_conversation(max_tokens=4000))
    page.wait(lambda: page.shown.get("usage"))
    assert page.shown["usage"] == {"totals": "0 turns · $0.00", "context": "", "percent": None}
    page.say("Hello")
    page.wait(lambda: page.shown["usage"]["context"].endswith("% of context"))


def test_changed_answer_removes_the_error(manager: ConversationManager) -> None:
    """Of the last call that failed."""
    conv = manager.new_conversation()
    conv.send("Hello")
    page = PanelPage(conv)
    page.do("edit_reply", turn="gone", text="mine")
    page.wait(lambda: page.error)
    page.do("edit_reply", turn=page.shown["turns"][0]["id"], text="mine")
    page.wait(lambda: page.answers == ["mine"])
    assert page.error == ""
