"""Tables in outputs: what they align, mark and shorten."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd

from promptkit_nb import ConversationManager, DemoProvider, MemoryStore, Usage
from promptkit_nb.chat.budgets import SpentBudget
from promptkit_nb.rendering.conversations import HeadTable
from promptkit_nb.rendering.found_messages import FoundMessage, FoundMessages
from promptkit_nb.text.cell_text import fill
from promptkit_nb.views.usage import usage_df
from promptkit_nb.views.usage_table import UsageTable
from storing import said

AT = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
SCRIPT = "<script>alert(1)</script>"


def cells(html: str) -> list[list[str]]:
    """Return the texts of a table's cells, heading first."""
    rows = re.findall("<tr>(.*?)</tr>", html)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def used(*turns: tuple[str, Any], by: str = "day,model", budgets: tuple[SpentBudget, ...] = ()) -> UsageTable:
    """Return the usage of these turns: each a model, and fields of the turn."""
    store = MemoryStore()
    for model, fields in turns:
        store.append("a", said("Hi", model=model, **{"created_at": AT, "cost": Decimal("0.0019"), **fields}))
    return UsageTable(usage_df(store, by), budgets)


def test_usage_has_days_names_figures_and_a_total() -> None:
    """Parts of tokens that nobody used have no column, and neither does the index."""
    table = used(("small", {}), ("large", {"usage": Usage(1200, 30)}))
    assert cells(table._repr_html_()) == [
        ["day", "model", "turns", "input", "output", "cost"],
        ["27 Nov", "large", "1", "1,200", "30", "$0.0019"],
        ["27 Nov", "small", "1", "8", "2", "$0.0019"],
        ["total", "", "2", "1,208", "32", "$0.0038"],
    ]


def test_usage_shows_parts_and_unpriced_turns_only_if_there_are() -> None:
    """Cached and reasoning tokens, and turns without a price, which are no zero."""
    usage = Usage(100, 30, cached_tokens=40, reasoning_tokens=10)
    table = used(("small", {"usage": usage, "cost": None}), by="model")
    assert cells(table._repr_html_()) == [
        ["model", "turns", "input", "output", "cached", "reasoning", "cost", "without a price"],
        ["small", "1", "100", "30", "40", "10", "price unknown", "1"],
    ]


def test_usage_of_several_years_names_the_earlier_one() -> None:
    """A month and an hour are as short as they are clear."""
    earlier = {"created_at": AT.replace(year=2025)}
    assert [row[0] for row in cells(used(("m", earlier), ("m", {}))._repr_html_())[1:3]] == ["27 Nov 2025", "27 Nov"]
    assert cells(used(("m", {}), by="month")._repr_html_())[1][0] == "Nov 2026"
    assert cells(used(("m", {}), by="hour")._repr_html_())[1][0] == "27 Nov 09:00"


def test_usage_has_its_budgets_above() -> None:
    """As thin bars on a page, as lines in text."""
    table = used(("small", {}), budgets=(SpentBudget("budget $0.42 of $1.00 in total", 42),))
    assert repr(table).splitlines()[0] == "budget $0.42 of $1.00 in total"
    assert 'aria-label="budget $0.42 of $1.00 in total"' in table._repr_html_()
    assert ";width:42%" in table._repr_html_()


def test_usage_is_a_dataframe() -> None:
    """What is computed from it is a view like any other, and messages can use it as one."""
    table = used(("small", {}), ("large", {}))
    assert type(table.head(1)) is type(usage_df(MemoryStore()))
    assert list(pd.DataFrame(table)["model"]) == ["large", "small"]
    assert table["turns"].sum() == 2
    assert "| large |" in fill("{{ usage.head(1) }}", {"usage": table}).text


def test_usage_escapes_names() -> None:
    """They come from servers."""
    assert "<script" not in used((SCRIPT, {}))._repr_html_()


def test_empty_usage_is_its_heading() -> None:
    """There is no total of nothing."""
    assert cells(used()._repr_html_()) == [["day", "model", "turns", "input", "output", "cost"]]


def test_long_usage_shows_its_end_and_the_total_of_all() -> None:
    """The newest hundred rows."""
    table = used(*((f"m{number:03}", {}) for number in range(130)), by="model")
    shown = cells(table._repr_html_())
    assert (len(shown), shown[1][0], shown[-1][:2]) == (102, "m030", ["total", "130"])
    assert "the last 100 of 130 rows" in table._repr_html_()


def test_heads_show_titles_and_users_only_if_there_are_several() -> None:
    """A notebook's conversation is its file; the id is in the tooltip."""
    manager = ConversationManager(DemoProvider())
    manager.new_conversation(conversation_id="nb:analysis:1c9353f9", user_id="alice")
    html = manager.list_conversations()._repr_html_()
    assert cells(html) == [["conversation", "turns", "cost", "last used"], ["analysis.ipynb", "0", "$0.00", "just now"]]
    assert 'title="nb:analysis:1c9353f9"' in html
    manager.new_conversation(conversation_id="b", user_id="bob")
    assert cells(HeadTable(manager.list_conversations())._repr_html_())[0][:2] == ["conversation", "user"]


def test_found_messages_mark_the_words() -> None:
    """In any case, escaped, what was said first."""
    found = FoundMessage("nb:a:1c9353f9", "a.ipynb", 3, "user", f"Tea, and TEA {SCRIPT}", AT)
    html = FoundMessages([found], words=["tea"])._repr_html_()
    assert "<mark>Tea</mark>, and <mark>TEA</mark> &lt;script&gt;" in html
    assert "<script" not in html
    assert cells(html)[0] == ["said", "conversation", "turn", "who", "when"]
    assert cells(html)[1][1:4] == ["a.ipynb", "3", "You"]
