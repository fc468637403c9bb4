"""Conversations are opened, shown, and deleted by what ``%chat_list`` shows, in a real kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from day_in_cells import Day, day

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

NOTEBOOK = """
from promptkit_nb import ConversationState, DiskStore
from promptkit_nb.state import NotebookNote
with DiskStore() as store:
    store.create(ConversationState("nb:sales:0123abcd", notebook=NotebookNote("/work/sales.ipynb", "here", "k.json")))
"""
TWICE = "What is asked twice?"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file."""
    with day(tmp_path_factory.mktemp("titles")) as started:
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation."""
    shared.begin()
    return shared


def asked_in_a_new_conversation(cells: Day, question: str) -> str:
    """Ask in a new conversation, go on in another one, and return the id of the first."""
    started = cells.printed("%chat_new")
    cells.run(f"%chat {question}")
    cells.run("%chat_new")
    cells.server.requests.clear()
    return started.split("'")[1]


def ids(cells: Day) -> set[str]:
    """Return the ids of all stored conversations."""
    listed = (
        "from promptkit_nb import DiskStore\nprint(*(head.conversation_id for head in DiskStore().list()), sep='\\n')"
    )
    return set(cells.printed(listed).splitlines())


@pytest.mark.parametrize(
    ("question", "typed"),
    [
        ("Compare ridge and lasso please", "Compare ridge and lasso please"),
        ("What is a good churn threshold?", "What is a good churn threshold?"),
        ("What is a bad churn threshold?", "'What is a bad churn threshold?'"),
        ("Which folds leak?", "which FOLDS  leak?"),
        ("Caf\u00e9 or tea", "Cafe\u0301 or tea"),
        (f"Why {'very ' * 20}slow?", f"Why {'very ' * 11}\u2026"),
        (f"Why {'so ' * 30}slow?", f"Why {'so ' * 30}slow?"),
    ],
)
def test_a_first_question_names_its_conversation(cells: Day, question: str, typed: str) -> None:
    """As the list shows it, cut or not, in any case, quoted or not, with its question mark; none is created."""
    own = asked_in_a_new_conversation(cells, question)
    before = ids(cells)
    assert cells.printed(f"%chat_use {typed}").startswith(f"resumed '{own}', 1 turn")
    cells.run("%chat_new")
    shown = cells.run(f"%chat_history {typed}").contents("execute_result")[0]["data"]["text/plain"]
    assert shown.startswith("user       ")
    cells.run(f"%%chat -c '{typed.strip(chr(39))}'\nAnd now?")
    assert [message["role"] for message in cells.server.requests[-1].body["messages"]] == ["user", "assistant", "user"]
    assert cells.printed(f"%chat_delete {typed}") == f"deleted '{own}'\n"
    assert len(ids(cells) - before) == 1  # that of %chat_new
    assert own not in ids(cells)


def test_a_title_may_have_braces_and_dollar_signs(cells: Day) -> None:
    """They are not taken for values to fill in, unless no conversation has the title."""
    own = asked_in_a_new_conversation(cells, "Explain $R^2$ and {x:.2f}")
    assert cells.printed("%chat_use Explain $R^2$ and {x:.2f}").startswith(f"resumed '{own}', 1 turn")
    assert "is not filled in" in cells.error("%chat_use Explain $R^2$")


def test_a_notebook_is_named_by_its_file(cells: Day) -> None:
    """To show and to delete its conversation."""
    cells.run(NOTEBOOK)
    shown = cells.run("%chat_history sales.ipynb --versions").contents("execute_result")[0]["data"]["text/plain"]
    assert shown == "0 messages \u00b7 0 tokens \u00b7 $0.00"
    assert cells.printed("%chat_use SALES.ipynb").startswith("resumed 'nb:sales:0123abcd'")
    assert cells.printed("%chat_delete sales.ipynb") == "deleted 'nb:sales:0123abcd'\n"
    assert cells.error("%chat_history sales.ipynb") == (
        "ConversationNotFoundError: There is no conversation 'sales.ipynb'. Its id may be misspelled, or it was "
        "deleted or has expired; %chat_list shows the stored ones."
    )


def test_an_id_comes_before_a_title(cells: Day) -> None:
    """Another conversation may have it as its title."""
    cells.run("%chat_use forecast\n%chat Hello")
    cells.run("%chat_use other-forecast\n%chat Hello\n%chat_title forecast")
    assert cells.printed("%chat_use forecast").startswith("resumed 'forecast'")


def test_several_of_one_title_are_told_apart(cells: Day) -> None:
    """The error has their ids, turns, and last use; nothing is created, sent, or deleted, and the list has ids."""
    one, two = (asked_in_a_new_conversation(cells, TWICE) for _ in range(2))
    before = ids(cells)
    for line in (f"%chat_use {TWICE}", f"%chat_history {TWICE}", f"%chat_delete {TWICE}", f"%%chat -c '{TWICE}'\nHi"):
        assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", cells.error(line)) == (
            f"InvalidArgumentError: 2 conversations have the title '{TWICE}'; give the id of one: '{two}' "
            f"(1 turn, last used TIME UTC), '{one}' (1 turn, last used TIME UTC)."
        )
    assert (ids(cells), cells.asked) == (before, [])
    html = cells.run("%chat_list").contents("execute_result")[0]["data"]["text/html"]
    assert f">{one}</td>" in html
    assert f">{two}</td>" in html


def test_a_near_title_is_named(cells: Day) -> None:
    """A question without its question mark is probably the same; no conversation is started."""
    asked_in_a_new_conversation(cells, "Is the label leaking?")
    assert cells.error("%chat_use Is the label leaking") == (
        "ConversationNotFoundError: There is no conversation 'Is the label leaking', but there is 'Is the label "
        "leaking?': %chat_use Is the label leaking? resumes that one, %chat_new Is the label leaking starts "
        "another one."
    )


@pytest.mark.parametrize(
    "magic", ["chat_fork", "chat_export", "chat_title", "chat_search", "chat_tree", "chat_restore"]
)
def test_a_question_mark_after_a_text_is_no_help(cells: Day, magic: str) -> None:
    """The magic gets the text with its question mark; alone, a question mark is IPython's help."""
    ran = cells.run(f"%{magic} Is it so?")
    everything = ran.stdout + "".join(line for error in ran.contents("error") for line in error["traceback"])
    assert "not found" not in everything
    assert ran.payload == []
    assert [each["source"] for each in cells.run(f"%{magic}?").payload] == ["page"]


@pytest.mark.parametrize("magic", ["chat_use", "chat_delete"])
def test_without_a_name_the_error_says_what_the_list_shows(cells: Day, magic: str) -> None:
    """Ids and titles."""
    assert "Give a conversation id or title, for example: " in cells.error(f"%{magic}")
    assert cells.error(f"%{magic}").endswith("(%chat_list shows them).")
