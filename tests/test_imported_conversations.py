"""Imported conversations in use: what is refused, what a fork can do, and how views and magics show them."""

from __future__ import annotations

import shutil
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pytest
from IPython.core.interactiveshell import InteractiveShell

from other_tools import DATA, SESSION, claude_log
from promptkit_nb import (
    Budget,
    ConversationManager,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    StateStore,
    conversations_df,
    import_chats,
    messages_df,
    plot_cost,
    search,
    turns_df,
    usage_dashboard,
    usage_df,
)
from promptkit_nb.panel import conversation_list
from promptkit_nb.panel.conversation_list import Titles
from promptkit_nb.panel.search_thread import Search
from shells import Notebook, new_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from promptkit_nb import Conversation

ID = f"claude-code:{SESSION}"


@pytest.fixture(scope="module")
def imported() -> MemoryStore:
    """A store with the sample of Claude Code, and a conversation of our own."""
    store = MemoryStore()
    import_chats(DATA / "claude-code", store)
    ConversationManager(DemoProvider(), store).new_conversation(conversation_id="ours").send("Hello")
    return store


@pytest.fixture
def conversation() -> Conversation:
    """The imported session, opened."""
    store = MemoryStore()
    import_chats(DATA / "claude-code", store)
    return ConversationManager(DemoProvider(), store, budget=Budget("0.01")).get_conversation(ID)


def test_imported_conversation_refuses_every_question(conversation: Conversation) -> None:
    """The error says how to continue; nothing is stored."""
    asks: list[Callable[[], object]] = [
        partial(conversation.send, "Hi"),
        partial(conversation.stream, "Hi"),
        partial(conversation.rerun, 0),
        partial(conversation.edit, 0, "Hi"),
        partial(conversation.summarize, keep_last=0),
    ]
    for ask in asks:
        with pytest.raises(InvalidArgumentError, match=r"was imported from claude-code .*fork\(\"my-copy\"\)\.send"):
            ask()
    assert len(conversation.turns) == 3


def test_fork_is_ours_and_goes_on(conversation: Conversation) -> None:
    """Its copied turns keep their source and are in no total; a new turn has our own source."""
    copy = conversation.fork("copy")
    assert copy.send("What's my name?").turn.source == "promptkit_nb"
    head = copy.store.head("copy")
    assert (head.kind, head.source, head.total_cost) == ("chat", "promptkit_nb", Decimal(0))
    assert [turn.source for turn in copy.turns] == ["claude-code"] * 3 + ["promptkit_nb"]


def test_imported_amounts_are_in_no_budget(conversation: Conversation) -> None:
    """The ledger does not contain them, although they cost more than the budget."""
    assert conversation.total_cost == Decimal("0.040725")
    assert conversation.store.spending("user:default").spent == 0
    assert conversation.fork("copy").send("Hi").cost == 0


def test_every_view_names_the_source(imported: MemoryStore) -> None:
    """As a column, as a filter, and as a group; ours is ``promptkit_nb``."""
    for view in (turns_df, messages_df, conversations_df):
        assert set(view(imported)["source"]) == {"claude-code", "promptkit_nb"}
        assert set(view(imported, source="claude-code")["source"]) == {"claude-code"}
        listed = view(imported, source="claude-code", price_source="list")
        assert set(listed["conversation_id"]) == {ID, f"{ID}:agent:a1b2c3d"}
        assert view(imported, source="claude-code", price_source="reported").empty
    assert set(search(imported, "hello", source="promptkit_nb")["conversation_id"]) == {"ours"}
    usage = usage_df(imported, by=["source", "price_source"])
    assert list(usage["turns"]) == [3, 1, 1]
    assert list(usage["cost_usd"].round(6).dropna()) == [0.051085, 0.0]


def test_unknown_usage_is_missing_and_never_zero(imported: MemoryStore) -> None:
    """The turn that failed has no tokens and no price."""
    last = turns_df(imported, conversation_id=ID).iloc[-1]
    assert last[["input_tokens", "total_tokens", "cost_usd", "price_source"]].isna().all()
    assert usage_df(imported, by=[], source="claude-code")["unpriced_turns"][0] == 1


def test_titles_come_along(imported: MemoryStore) -> None:
    """One without a title has none."""
    titles = conversations_df(imported).set_index("conversation_id")["title"]
    assert titles[ID] == "List files and explore"
    assert titles.isna()["ours"]


def test_pictures_tell_list_prices_from_what_was_paid(imported: MemoryStore) -> None:
    """They are hatched, and the title has both sums."""
    picture = plot_cost(imported, by=["month", "source"])
    assert picture.axes[0].get_title(loc="left") == (
        "Cost: $0.0000, and $0.0511 at list price (hatched), and 1 turn without a price"
    )
    assert [bar.get_hatch() for bar in picture.axes[0].patches].count("////") > 0
    dashboard = usage_dashboard(imported)
    assert dashboard.total.endswith("$0.00 + 1 turn without a price · $0.0511 at list price")
    assert {"Sources", "Prices"} <= {table["name"] for table in dashboard.tables}
    assert dashboard.choices["source"] == ["claude-code", "promptkit_nb"]


def test_panel_lists_only_what_can_be_continued(imported: MemoryStore) -> None:
    """An imported conversation is not among the choices."""
    ours = ConversationManager(DemoProvider(), imported).get_conversation("ours")
    assert [each["id"] for each in conversation_list.find(ours, Titles(), Search())] == ["ours"]
    assert conversation_list.newest_other(ours) is None


def test_custom_store_keeps_the_kind(store: StateStore, tmp_path: Path) -> None:
    """Every store returns it in heads and states."""
    log = claude_log(tmp_path)
    log.ask("One")
    import_chats(log.write(), store)
    assert [(head.kind, head.source) for head in store.list()] == [("imported", "claude-code")]
    assert store.get(ID).settings.kind == "imported"
    assert store.fork(ID, "copy").kind == "chat"


class TestMagics:
    """``%chat_import`` and ``%chat_list --all``."""

    @pytest.fixture
    def notebook(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
        """A notebook with a demo provider and a store of its own."""
        monkeypatch.setenv("PROMPTKIT_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
        monkeypatch.chdir(tmp_path)
        shutil.copytree(DATA / "claude-code" / "projects", tmp_path / "projects")
        notebook = Notebook(new_shell())
        notebook.run("%chat_setup --provider demo")
        yield notebook
        notebook.run("%unload_ext promptkit_nb")
        InteractiveShell.clear_instance()

    def test_import_reports_and_lists(self, notebook: Notebook, tmp_path: Path) -> None:
        """The report is shown; the conversations are listed only with ``--all``, with their titles."""
        shown = notebook.run("report = %chat_import projects\nprint(report)")
        assert "2 created · 1 damaged · 4 new turns" in shown.stdout
        assert "%chat_list --all lists those of default, conversations_df(store) those of all users\n" in shown.stdout
        assert "claude-code" not in str(notebook.run("print(%chat_list)").stdout)
        listed = notebook.run("everything = %chat_list --all\nprint(everything)").stdout
        assert "List files and explore" in listed
        with DiskStore(tmp_path / "home") as store:
            assert len(store.list()) == 2

    def test_chatting_in_it_is_refused_with_the_way_on(self, notebook: Notebook) -> None:
        """``%chat_fork`` makes a copy, which answers."""
        notebook.run("%chat_import projects --tool-output drop")
        notebook.run(f"%chat_use {ID}")
        assert "%chat_fork my-copy" in str(notebook.run("%%chat\nWhat's my name?").error)
        notebook.run("%chat_fork my-copy")
        assert "Your name is Alice" in notebook.run("%%chat\nWhat's my name?").everything

    def test_errors_are_one_line(self, notebook: Notebook) -> None:
        """Bad options and sources are named."""
        assert "kind='chatgpt' is unknown" in str(notebook.run("%chat_import projects --kind chatgpt").error)
        assert "No such file" in str(notebook.run("%chat_import nothing").error)
