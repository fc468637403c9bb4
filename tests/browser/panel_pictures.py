"""The pictures of the chat panel in ``notebooks/images``, made anew: ``python tests/browser/panel_pictures.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.jupyter_lab import PROJECT, LabServer, chromium_page
from browser.panel import Panel, opened, wait
from chat_server import ChatServer, Reply

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
LONG = "Yes: `teas.nsmallest(1, 'price')` reads well, and it gives more than one row when you ask for more than one."


def main() -> None:
    """Talk, and take the pictures."""
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
        chat.reply(Reply(text=TABLE), Reply(text=CODE), Reply(text=LONG, pause_s=0.3))
        panel.say("Which of these teas is the cheapest?")
        panel.log.get_by_text("times as much").wait_for()
        wait(panel.is_idle)
        _picture(panel, "panel_table.png")
        panel.say("How do I find it in pandas?")
        panel.log.get_by_text("Take the row").wait_for()
        wait(panel.is_idle)
        notebook.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
        page.wait_for_selector("body[data-jp-theme-name='JupyterLab Dark']", state="attached")
        page.wait_for_timeout(1000)
        _picture(panel, "panel_dark.png")
        notebook.command("apputils:change-theme", {"theme": "JupyterLab Light"})
        page.wait_for_selector("body[data-jp-theme-name='JupyterLab Light']", state="attached")
        page.wait_for_timeout(1000)
        panel.say("Is there a shorter way?")
        panel.log.get_by_text("reads well").wait_for()
        _picture(panel, "panel_streaming.png")
        panel.box.press("Escape")
        wait(panel.is_idle)


def _picture(panel: Panel, name: str) -> None:
    panel.page.wait_for_timeout(300)
    panel.root.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
