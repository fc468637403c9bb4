"""What a data scientist does on the first day, with nothing but the README, in a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from chat_server import Reply, Request
from day_in_cells import Day, day

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
CSV = "tea,price\ngreen,18\nblack,24\nwhite,61\n"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}

# Each is in the README as it is typed here.
TYPED = (
    "%%chat",
    "{{ df.describe() }}",
    "%chat_fix --code",
    "%%chat -m gpt-4o,gpt-4o-mini",
    "%chat_search invoice",
    "%chat_usage",
    'usage_df(store, by="day", tz="Europe/Berlin", naive_utc=True).to_excel("cost.xlsx")',
)


def answer(request: Request) -> Reply:
    """Answer like a model that reads the table, the failure, or the name of the model."""
    asked = request.body["messages"][-1]["content"]
    if "KeyError: 'prise'" in asked:
        return Reply(text="A typing error:\n\n```python\ndf['price'].sum()\n```", usage=USAGE)
    if "| green |" in asked or "mean" in asked:
        return Reply(text="Green tea is the cheapest; see the invoice.", usage=USAGE)
    return Reply(text=f"I am {request.body['model']}.", usage=USAGE)


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[Day]:
    """A kernel in a directory with a CSV file."""
    (tmp_path / "teas.csv").write_text(CSV)
    with day(tmp_path) as started:
        started.server.usual = answer
        started.run(f"import os; os.chdir({str(tmp_path)!r})")
        yield started


@pytest.mark.parametrize("line", TYPED)
def test_the_readme_says_what_to_type(line: str) -> None:
    """A stranger finds each line of this day in it."""
    assert line in README


def test_a_day(cells: Day, tmp_path: Path) -> None:
    """Ask about a CSV, fix a cell, compare two models, find an answer, see the cost, and export it: four requests."""
    cells.run("import pandas as pd\ndf = pd.read_csv('teas.csv')")
    asked = cells.run("%%chat\nWhich is the cheapest?\n{{ df.describe() }}").last_bundle["text/plain"]
    assert asked.startswith("Green tea is the cheapest")

    assert cells.run("df['prise'].sum()").status == "error"
    fixed = cells.run("%chat_fix --code")
    assert [each["text"] for each in fixed.payload if each["source"] == "set_next_input"] == ["df['price'].sum()"]

    compared = cells.run("%%chat -m gpt-4o,gpt-4o-mini\nWho are you?").last_bundle["text/plain"]
    assert "── gpt-4o ──\nI am gpt-4o.\n" in compared
    assert "── gpt-4o-mini ──\nI am gpt-4o-mini.\n" in compared

    (found,) = cells.run("%chat_search invoice").contents("execute_result")
    assert "see the invoice." in found["data"]["text/plain"]

    (usage,) = cells.run("%chat_usage --by model").contents("execute_result")
    assert [line.split()[1:3] for line in usage["data"]["text/plain"].splitlines()[1:3]] == [
        ["gpt-4o", "1"],
        ["gpt-4o-mini", "3"],
    ]

    exported = cells.run(f"from promptkit_nb import DiskStore, usage_df\nstore = DiskStore()\n{TYPED[-1]}")
    assert exported.status == "ok", exported.traceback
    table = pd.read_excel(tmp_path / "cost.xlsx", engine="calamine")
    assert (table["turns"].sum(), round(table["cost_usd"].sum(), 6)) == (4, 0.00885)
    assert len(cells.server.requests) == 4
