"""``%%chat -m a,b`` in a real kernel, with requests counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chat_server import Reply, error_reply
from day_in_cells import Day, day

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import CellResult

pytestmark = pytest.mark.kernel

ASK = "%%chat -m gpt-4o,gpt-4o-mini\nWhich?"
ANSWERS = {"gpt-4o": "Lisbon.\n```python\nprint(1)\n```", "gpt-4o-mini": "Porto."}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file."""
    with day(tmp_path_factory.mktemp("compare")) as started:
        started.server.usual = lambda request: Reply(text=ANSWERS[request.body["model"]], usage=USAGE)
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation."""
    shared.begin()
    return shared


def text_of(ran: CellResult) -> str:
    """Return the final text, without seconds."""
    assert ran.status == "ok", ran.traceback
    return re.sub(r"\d+\.\d s", "0 s", ran.last_bundle["text/plain"])


def asked(cells: Day) -> list[str]:
    """Return the models of the requests."""
    return [request.body["model"] for request in cells.server.requests]


def test_answers_are_shown_side_by_side(cells: Day) -> None:
    """With model, cost, and seconds; the second says how to pick it."""
    ran = cells.run(ASK)
    assert asked(cells) == ["gpt-4o", "gpt-4o-mini"]
    conversation_id = text_of(ran).splitlines()[-2].rpartition(" · ")[2]
    assert text_of(ran).replace(conversation_id, "ID").splitlines() == [
        "── gpt-4o ──",
        "Lisbon.",
        "```python",
        "print(1)",
        "```",
        "",
        "gpt-4o · 1,000/500 tokens · $0.0075 · 0 s · ID",
        "",
        "── gpt-4o-mini ──",
        "Porto.",
        "",
        "gpt-4o-mini · 1,000/500 tokens · $0.00045 · 0 s · ID",
        "a version of this turn: %chat_restore gpt-4o-mini picks it",
    ]
    html = ran.last_bundle["text/html"]
    assert html.count("flex:1 1 18em") == 2
    assert html.index("Lisbon.") < html.index("Porto.")


def test_one_output_is_updated(cells: Day) -> None:
    """The columns fill one after the other in the same output."""
    ran = cells.run(ASK)
    assert len(ran.contents("display_data")) == 1
    assert len(ran.contents("update_display_data")) >= 2


def test_run_all_asks_nothing_again(cells: Day) -> None:
    """The same cell is answered from the store, and keeps the answer that was picked."""
    cells.run(ASK, cell_id="c1")
    assert cells.printed("%chat_restore gpt-4o-mini") == "restored 'gpt-4o-mini'\n"
    shown = text_of(cells.run(ASK, cell_id="c1"))
    assert "gpt-4o · 1,000/500 tokens · replayed · $0.00 (saved $0.0075)" in shown
    assert shown.count("a version of this turn") == 1
    assert shown.index("%chat_restore gpt-4o picks it") < shown.index("── gpt-4o-mini ──")
    assert len(cells.asked) == 2
    history = cells.run("%chat_history").contents("execute_result")[0]["data"]["text/plain"]
    assert "Porto." in history
    assert "Lisbon." not in history


def test_a_model_is_picked_in_the_turn_that_the_notebook_has_reached(cells: Day) -> None:
    """A later comparison keeps its answer when the notebook runs again, and the answer that was picked is current."""
    later = ASK.replace("Which?", "Which later?")
    for line in ("restored 'gpt-4o-mini'\n", "nothing to restore: turn 1 has the answer of 'gpt-4o-mini' already\n"):
        cells.run(ASK, cell_id="c1")
        assert cells.printed("%chat_restore gpt-4o-mini") == line
        cells.run(later, cell_id="c2")
    history = cells.run("%chat_history").contents("execute_result")[0]["data"]["text/plain"]
    assert history.index("Porto.") < history.index("Which later?") < history.index("Lisbon.")
    assert len(cells.asked) == 4


def test_an_answer_that_was_picked_is_undone(cells: Day) -> None:
    """It is in the place of the one that this kernel got last."""
    cells.run(ASK, cell_id="c1")
    cells.run("%chat_restore gpt-4o-mini")
    assert cells.printed("%chat_undo") == "undid turn 1, 'Which?' (%chat_restore undone-1 brings it back)\n"


def test_the_next_cell_continues_from_the_turn(cells: Day) -> None:
    """It sees the first answer only."""
    cells.run(ASK, cell_id="c1")
    cells.run("%%chat\nWhy?", cell_id="c2")
    sent = cells.server.requests[-1].body["messages"]
    assert [message["content"] for message in sent] == ["Which?", "Lisbon.\n```python\nprint(1)\n```", "Why?"]


def test_a_variable_gets_all_responses_and_the_next_cell_the_code_of_the_turn(cells: Day) -> None:
    """``--to`` and ``--code`` work, and so does an assignment."""
    ran = cells.run(ASK.replace("\n", " --to both --code\n"))
    assert ran.status == "ok"
    assert (
        cells.printed("print([each.content[:6] for each in both], both.answer.model)")
        == "['Lisbon', 'Porto.'] gpt-4o\n"
    )
    assert [each["text"] for each in ran.payload if each["source"] == "set_next_input"] == ["print(1)"]
    cells.run("r = %chat -m gpt-4o,gpt-4o-mini Why?")
    assert cells.printed("print([each.content[:6] for each in r])") == "['Lisbon', 'Porto.']\n"


def test_a_dry_run_shows_what_each_costs(cells: Day) -> None:
    """Nothing is sent."""
    shown = cells.run(ASK.replace("\n", " --dry-run\n")).contents("execute_result")[0]["data"]["text/plain"]
    lines = shown.splitlines()
    assert lines[0].split()[:2] == ["user", "Which?"]
    assert [line.split(" · ")[:2] for line in lines if line.startswith("dry run")] == [
        ["dry run, nothing was sent", "gpt-4o"],
        ["dry run, nothing was sent", "gpt-4o-mini"],
    ]
    assert cells.asked == []


def test_a_model_that_fails_shows_its_error_in_its_column(cells: Day) -> None:
    """The cell succeeds, because another model answered."""
    cells.server.reply(error_reply(400, "no such model"))
    shown = text_of(cells.run(ASK))
    assert shown.startswith("── gpt-4o ──\nBadRequestError: ")
    assert "── gpt-4o-mini ──\nPorto." in shown
    assert "a version" not in shown


def test_if_all_fail_the_cell_fails(cells: Day) -> None:
    """The first error is the line of the cell."""
    for _ in range(2):
        cells.server.reply(error_reply(400, "no such model"))
    assert cells.error(ASK).startswith("BadRequestError: ")
    history = cells.run("%chat_history").contents("execute_result")[0]["data"]["text/plain"]
    assert history == "0 messages · 0 tokens · $0.00"


def test_a_batch_run_has_one_output(cells: Day) -> None:
    """It has no seconds and no ids."""
    ran = cells.run(f"{ASK} In batch?", allow_stdin=False)
    (output,) = ran.contents("display_data")
    assert ran.contents("update_display_data") == []
    assert "gpt-4o · 1,000/500 tokens · $0.0075\n" in output["data"]["text/plain"]
    assert not re.search(r"\d s\b|[0-9a-f]{8}", output["data"]["text/plain"])


@pytest.mark.parametrize("models", ["gpt-4o,", ",gpt-4o", "gpt-4o,,gpt-4o-mini", "gpt-4o,gpt-4o"])
def test_a_missing_or_repeated_name_is_refused(cells: Day, models: str) -> None:
    """Before anything is sent."""
    assert cells.error(f"%%chat -m {models}\nWhich?").startswith("InvalidArgumentError: ")
    assert cells.asked == []
