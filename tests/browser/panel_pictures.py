"""Takes the pictures of the chat panel in ``notebooks/images``: ``python tests/browser/panel_pictures.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.jupyter_lab import PROJECT, LabNotebook, LabServer, chromium_page
from browser.panel import Panel, opened, wait
from chat_server import ChatServer, Reply, error_reply

IMAGES = PROJECT / "notebooks" / "images"

TABLE = """Green tea is the **cheapest**:

| tea | price per kg |
| --- | --- |
| green | 18 € |
| black | 24 € |
| white | 61 € |

White tea costs $\\frac{61}{18} \\approx 3.4$ times as much."""
CODE = '''Take the row with the lowest price:

```python
def cheapest(teas: pd.DataFrame) -> pd.Series:
    """Return the row with the lowest price."""
    return teas.loc[teas["price"].idxmin()]
```'''
SHORTER = "Yes: `teas.nsmallest(1, 'price')` reads well, and it gives more rows when you ask for more."
NARROW = "Best is what you like. Of the three, **white tea** is the mildest:\n\n1. white\n2. green\n3. black"
LONG_CODE = '''Here is the whole script:

```python
"""The cheapest teas, drawn."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

TEAS = Path("teas.csv")


def cheapest(teas: pd.DataFrame, *, at_most_eur: float = 30.0, columns: tuple[str, ...] = ("tea", "price")) -> pd.DataFrame:
    """Return the teas that cost no more than this, the cheapest first."""
    affordable = teas[teas["price"] <= at_most_eur]  # one comparison for all rows
    return affordable.sort_values("price").loc[:, list(columns)]


def draw(teas: pd.DataFrame) -> None:
    """Draw one bar for each tea."""
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.barh(teas["tea"], teas["price"], color="tab:green")
    axes.set_xlabel("€ per kg")
    figure.savefig("teas.png", dpi=150)


draw(cheapest(pd.read_csv(TEAS)))
```'''  # noqa: E501 - the picture shows a line that is too long for the panel


def main() -> None:
    """Chat, and take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with (
        TemporaryDirectory() as home,
        ChatServer() as chat,
        LabServer(Path(home)) as lab,
        chromium_page(Path(home) / "profile") as page,
    ):
        page.set_viewport_size({"width": 1000, "height": 900})
        notebook, panel = opened(lab, page, chat, Path(home) / "store")
        panel.button("Rename").click()
        panel.root.get_by_role("textbox", name="New title").fill("Teas")
        panel.button("Save").click()
        _ask(panel, chat, "Which of these teas is the cheapest?", Reply(text=TABLE, usage=_usage(96, 61)))
        _picture(panel, "panel_table.png")
        _ask(panel, chat, "How do I find it in pandas?", Reply(text=CODE, usage=_usage(172, 58)))
        _use_theme(notebook, "JupyterLab Dark")
        _picture(panel, "panel_dark.png")
        _use_theme(notebook, "JupyterLab Light")
        chat.reply(Reply(text=SHORTER, pause_s=0.3))
        panel.say("Is there a shorter way?")
        panel.log.get_by_text("reads well").wait_for()
        _picture(panel, "panel_streaming.png")
        wait(panel.is_idle)
        _ask(panel, chat, "The whole script, please", Reply(text=LONG_CODE, usage=_usage(251, 224)))
        panel.log.evaluate("log => { log.scrollTop -= 260; }")
        _picture(panel, "panel_long_code.png")
        chat.reply(error_reply(429, "You exceeded your current quota.", code="insufficient_quota"))
        panel.say("And without matplotlib?")
        panel.error.wait_for()
        _picture(panel, "panel_error.png")
        panel.button("Dismiss").click()
        panel.box.fill("")
        panel.root.evaluate("root => { root.style.width = '400px'; }")
        _ask(panel, chat, "And which one is the best?", Reply(text=NARROW, usage=_usage(489, 22)))
        _picture(panel, "panel_narrow.png")


def _ask(panel: Panel, chat: ChatServer, question: str, reply: Reply) -> None:
    chat.reply(reply)
    panel.say(question)
    wait(lambda: panel.questions()[-1:] == [question] and panel.is_idle())


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return usage as a server counts it, so that the receipts look real."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def _use_theme(notebook: LabNotebook, theme: str) -> None:
    notebook.command("apputils:change-theme", {"theme": theme})
    notebook.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
    notebook.page.wait_for_timeout(1000)


def _picture(panel: Panel, name: str) -> None:
    panel.page.wait_for_timeout(2000)  # the footer comes last
    panel.root.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
