"""``%chat_search``, ``%chat_title`` and ``Conversation.title``, in a real kernel and from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from day_in_cells import Day, day
from promptkit_nb import ConversationManager, ConversationState, DemoProvider, MemoryStore
from promptkit_nb.notebook.titles import titles_of
from promptkit_nb.state import NotebookNote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb import StateStore


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file."""
    with day(tmp_path_factory.mktemp("search")) as started:
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation."""
    shared.begin()
    return shared


def shown(cells: Day, cell: str) -> list[list[str]]:
    """Return the rows of the table that a cell shows, as words."""
    text = cells.run(cell).contents("execute_result")[0]["data"]["text/plain"]
    return [line.split() for line in text.splitlines()]


@pytest.mark.kernel
def test_what_was_said_is_found(cells: Day) -> None:
    """In every conversation of the user, newest first, with the turn; nothing is sent."""
    cells.run("%chat_use invoices-may")
    cells.run("%chat Hello")
    cells.run("%chat the invoice is late")
    cells.run("%chat_use invoices-june")
    cells.run("%chat_title June")
    cells.run("%chat another INVOICE came")
    cells.server.requests.clear()
    rows = [row for row in shown(cells, "%chat_search invoice") if "user" in row]
    assert [(row[0], row[row.index("user") - 1], row[-1]) for row in rows] == [
        ("June", "1", "invoices-june"),
        ("Hello", "2", "invoices-may"),
    ]
    assert len([row for row in shown(cells, '%chat_search "the invoice"') if "user" in row]) == 1
    assert shown(cells, "%chat_search {{ 'nothing' }}") == [["nothing", "found"]]
    assert cells.asked == []


@pytest.mark.kernel
def test_no_words_are_an_error(cells: Day) -> None:
    """The line has an example."""
    assert cells.error("%chat_search") == (
        "InvalidArgumentError: Give the words to look for, for example: %chat_search invoice"
    )


@pytest.mark.kernel
def test_a_title_is_set_once(cells: Day) -> None:
    """It may end with a question mark and have values; setting it again writes nothing."""
    cells.run("%chat Where is Lisbon?")
    assert cells.printed("%chat_title") == "title 'Where is Lisbon?'\n"
    cells.run("city = 'Porto'")
    assert cells.printed("%chat_title Where is {{ city }}?") == "title 'Where is Porto?'\n"
    revision = "print(get_ipython().meta['promptkit_nb'].conversations.current('default').snapshot().state.revision)"
    before = cells.printed(revision)
    cells.run("%chat_title Where is {{ city }}?")
    assert cells.printed(revision) == before


def test_a_title_is_set_or_the_first_question_or_the_id(store: StateStore) -> None:
    """In every store."""
    conversation = ConversationManager(DemoProvider(), store).new_conversation(conversation_id="trip")
    assert conversation.title == "trip"
    conversation.send("My city is Lisbon")
    assert conversation.title == "My city is Lisbon"
    store.update_metadata("trip", title="A trip")
    assert conversation.title == "A trip"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/work/eda.ipynb", "eda.ipynb"), (r"C:\work\eda.ipynb", "eda.ipynb"), (r"/work/a\b.ipynb", r"a\b.ipynb")],
)
def test_the_notebook_names_a_conversation(path: str, name: str) -> None:
    """The same in ``title`` and in completions, whatever the system on which it was stored."""
    store = MemoryStore()
    store.create(ConversationState("trip", notebook=NotebookNote(path)))
    assert ConversationManager(DemoProvider(), store).get_conversation("trip").title == name
    assert [*titles_of(store, "default")] == [("trip", name)]
