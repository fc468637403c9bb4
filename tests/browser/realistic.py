"""What surfaces show in pictures and tests: an answer with all that models write, and a store as users have it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from browser.jupyter_lab import PROJECT
from chat_server import Reply, error_reply
from promptkit_nb import ConversationState, DiskStore, Message, Turn, Usage, import_chats
from promptkit_nb.state import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from chat_server import Request

ANSWER = r"""# Cleaning a messy sales table

Before you aggregate, **three things** need attention: the `amount` column is text, dates come in *two* formats, and
`region` is spelled five ways. 请先看**“地区”**一列。

## 1. What I would check first

1. Count missing values per column
2. Look at the distinct values of `region`
   - `north`, `North `, `NORTH` are the same place
   - `n/a` is not a region
3. Parse the dates with an explicit format

> **Note:** `pd.to_datetime(..., errors="coerce")` turns what it cannot read into `NaT`; count those first.

## 2. The code

```python
import pandas as pd

def clean(df: pd.DataFrame) -> pd.DataFrame:
    '''Return a tidy copy of the raw sales table.'''
    out = df.copy()
    out["amount"] = pd.to_numeric(out["amount"].astype(str).str.replace(r"[^0-9.\-]", "", regex=True), errors="coerce")
    out["date"] = pd.to_datetime(out["date"], errors="coerce", format="mixed")
    return out.dropna(subset=["amount"])  # 1 row = 1 order
```

### What the numbers say

| Region | Orders | Revenue | Share | Comment |
| --- | ---: | ---: | ---: | --- |
| north | 612 | 48,211.50 | 31.2% | steady growth<br>since March |
| south | 498 | 39,870.10 | 25.8% | two outliers above 5,000 |
| east | 455 | 35,012.00 | 22.6% | CO<sub>2</sub> and m<sup>2</sup> |

The share of region $r$ is $s_r = \frac{x_r}{\sum_i x_i}$, and

$$\sigma^2 = \frac{1}{n-1}\sum_{i=1}^n (x_i - \bar{x})^2$$

- [x] missing values counted
- [ ] outliers inspected

שלום עולם: הטבלה `df` נקייה עכשיו.

<details><summary>More</summary>Hidden text</details>

See the [pandas guide](https://pandas.pydata.org/docs/). Press <kbd>Shift</kbd>+<kbd>Enter</kbd>.
"""

THINKING = "The amounts are text, so the currency signs go first. Then the dates."
REVIEW = '{"label": "complaint", "stars": 2, "summary": "The parcel came late, and the tea was broken."}'
SHORT = "Group by region, and sum:\n\n```python\ndf.groupby('region')['amount'].sum()\n```"

SETUP = """import os
os.environ["OPENAI_API_KEY"] = "unused"
import pandas as pd
from pydantic import BaseModel
from promptkit_nb import DiskStore, plot_cost, plot_tokens, usage_dashboard, validate_pack
df = pd.DataFrame({{"region": ["north", "South ", "east"], "amount": ["1,200 €", "n/a", "830 €"]}})

class Review(BaseModel):
    label: str
    stars: int
    summary: str

%load_ext promptkit_nb
%chat_setup --provider openai --base-url {url} --model gpt-4o-mini --store {store} --budget 0.05/day
%chat_use sales-review"""

CELLS = {
    "answer": "%%chat\nHow should I clean this table? {{ df }}",
    "typed answer": "%%chat --schema Review\nWhat does this review say? The parcel came late, and the tea broke.",
    "comparison": "%%chat -m gpt-4o,gpt-4o-mini\nHow do I sum by region?",
    "error": "%%chat\nAnd by month?",
    "stale mark": "%%chat_edit 1\nDrop the rows without an amount.",
    "dry run": "%%chat --dry-run --max-output-tokens 500\nAnd by month?",
    "history": "%chat_history",
    "list": "%chat_list",
    "search": "%chat_search region",
    "usage": "%chat_usage",
    "context": "%chat_context",
    "tree": "%chat_tree",
    "validation": "validate_pack('broken.pack.json')",
    "help": "%chat_help",
    "rows": "%chat_rows",
    "import report": "%chat_import codex",
    "models": "%chat_models",
    "cost": 'plot_cost(DiskStore("year"), by=["day", "model"])',
    "tokens": 'plot_tokens(DiskStore("day"))',
    "dashboard of a year": 'usage_dashboard(DiskStore("year"))',
    "dashboard of a day": 'usage_dashboard(DiskStore("day"))',
}
"""The surfaces, and the cell that shows each; they run in this order."""

MODEL_LIST: list[dict[str, object]] = [{"id": name} for name in ("gpt-4o", "gpt-4o-mini", "さくらモデル-7B")]
NAMES = (
    "通义千问-Max",
    "さくらモデル-7B",
    "한국어-모델-13B",
    "gpt-5.4",
    "gpt-5.4-mini",
    "claude-sonnet-5",
    "llama-4-scout",
)
MODELS = (*NAMES, *(f"research-model-{number:02}" for number in range(8, 21)))
TITLES = ("周报", "週報", "주간 보고", "weekly report")
BROKEN_PACK = """{
  "id": "sales",
  "name": "Sales",
  "version": "1.0.0",
  "template_engine": {"version": "v1", "syntax": "{{variable}}"},
  "promts": {},
  "prompts": {
    "clean": {
      "id": "clean",
      "name": "Clean",
      "version": "1.0",
      "system_template": "You clean {{table}} for {{reader}}.",
      "variables": [{"name": "table", "type": "strin", "required": true}]
    }
  }
}
"""


def replies(request: Request) -> Reply:
    """Return what a model would say, by the question."""
    said = str(request.body["messages"][-1]["content"])
    usage = {"prompt_tokens": 412, "completion_tokens": 655, "total_tokens": 1067}
    if "clean" in said:
        return Reply(text=ANSWER, reasoning=THINKING, usage=usage)
    if "review" in said or "Classify" in said:
        return Reply(text=REVIEW, usage=usage | {"completion_tokens": 38})
    if "month" in said:
        return error_reply(429, "You exceeded your current quota.", code="insufficient_quota")
    return Reply(text=SHORT, usage=usage | {"completion_tokens": 31})


def fill(directory: Path) -> None:
    """Store a year of twenty models, a day of one, older conversations, a broken pack, and a log to import."""
    now = datetime.now(UTC)
    directory.mkdir(exist_ok=True)
    talks: dict[str, list[Turn]] = {}
    for day in range(0, 365, 2):
        for number in range(1 + day % 3):
            model, cost = MODELS[(day * 7 + number * 11) % len(MODELS)], Decimal(5 + day * 13 % 40) / 1000
            turn = _turn("How did sales go?", model, cost, now - timedelta(days=day, hours=number))
            talks.setdefault(TITLES[day // 2 % 4], []).append(turn)
    with DiskStore(directory / "year") as year:
        for name, turns in talks.items():
            year.create(ConversationState(name, ("ann", "bob")[name == "周报"], tuple(turns[::-1])))
        year.append("old", _turn("Anything else?", "gpt-5.4", Decimal("0.21"), now), user_id="bob")
        year.delete("old")
    with DiskStore(directory / "day") as day_store:
        for minutes in (3, 9, 40):
            turn = _turn("How did sales go?", "gpt-4o-mini", Decimal("0.0021"), now - timedelta(minutes=minutes))
            day_store.append("nb:analysis:1c9353f9", turn)
    import_chats(PROJECT / "notebooks" / "data" / "other_tools" / "codex", DiskStore(directory / "year"))
    with DiskStore(directory / "store") as store:
        for name, hours in (("nb:analysis:1c9353f9", 3), ("rows:labels", 26), ("tea-prices", 24 * 9)):
            turn = _turn("Which region sells most?", "gpt-4o-mini", Decimal("0.0021"), now - timedelta(hours=hours))
            settings = Settings(kind="rows" if name.startswith("rows:") else "chat")
            at = turn.created_at
            store.create(ConversationState(name, turns=(turn,), settings=settings, created_at=at, updated_at=at))
    (directory / "broken.pack.json").write_text(BROKEN_PACK)
    log = shutil.copytree(PROJECT / "notebooks" / "data" / "other_tools" / "codex", directory / "codex")
    with next(log.rglob("*.jsonl")).open("a") as file:
        file.write("not JSON\n")


def _turn(question: str, model: str, cost_usd: Decimal, at: datetime) -> Turn:
    said = (Message("user", question), Message("assistant", "The north leads: the region grew by 4 %."))
    return Turn(messages=said, model=model, cost=cost_usd, usage=Usage(900, 240), created_at=at, latency_ms=2100.0)
