"""Takes the pictures of README, except the panel's: ``python tests/browser/readme_pictures.py``.

A notebook in JupyterLab talks to the test server, so answers and prices look as a user would see them.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.jupyter_lab import PROJECT, LabServer, chromium_page
from chat_server import ChatServer, Reply
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider

if TYPE_CHECKING:
    from browser.jupyter_lab import LabNotebook
    from chat_server import Request

IMAGES = PROJECT / "notebooks" / "images"
FIRST_DAY = datetime(2026, 11, 9, 12, tzinfo=UTC)

TEAS = """import pandas as pd

teas = pd.DataFrame({"tea": ["green", "black", "white"], "price": [18, 24, 61]})
%load_ext promptkit_nb
%chat_use teas"""
QUESTION = "%%chat\nWhich of these teas is the cheapest, by how much?\n\n{{ teas }}"
AGAIN = "%chat And in one word?"
TABLE = """**Green** tea is the cheapest:

| tea | price per kg | more than green |
| --- | --- | --- |
| green | 18 € | |
| black | 24 € | 6 € |
| white | 61 € | 43 € |"""

FRAMES = """from promptkit_nb import DiskStore, plot_cost, usage_df

store = DiskStore()
usage_df(store, by="model")[["model", "turns", "total_tokens", "cost_usd"]]"""
ROWS = f"""import pandas as pd
%load_ext promptkit_nb
reviews = pd.read_csv({str(PROJECT / "notebooks" / "data" / "reviews.csv")!r}, index_col="id")
labels = ["praise", "complaint", "question"]"""
LABELED = """labeled = reviews.promptkit.ask("Classify: {{ text }}", into="label", schema=labels)
labeled[["text", "label", "label_error", "label_cost_usd"]]"""
PLOT = 'plot_cost(store, by=["day", "model"])'

VIEWS = [TEAS, "%chat_history", "%chat_list", "%chat_usage --by model", ""]
DASHBOARD = ["from promptkit_nb import DiskStore, usage_dashboard", "usage_dashboard(DiskStore())", ""]


def main() -> None:
    """Chat, spend, and take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as home, ChatServer() as chat:
        settings = {"OPENAI_BASE_URL": chat.url, "OPENAI_API_KEY": "unused", "PROMPTKIT_MODEL": "gpt-4o-mini"}
        settings["PROMPTKIT_HOME"] = f"{home}/promptkit"
        with LabServer(Path(home), settings) as lab, chromium_page(Path(home) / "profile") as page:
            page.set_viewport_size({"width": 900, "height": 1600})
            with DiskStore(settings["PROMPTKIT_HOME"]) as store:
                _spend(store, chat)
            _picture(lab.open_notebook(page, [FRAMES, PLOT, ""], name="costs.ipynb"), "cost_frames.png")
            page.set_viewport_size({"width": 1200, "height": 1600})
            _picture(lab.open_notebook(page, DASHBOARD, name="dashboard.ipynb"), "dashboard.png", first=1)
            page.set_viewport_size({"width": 900, "height": 1600})
            usage = {"prompt_tokens": 112, "completion_tokens": 58, "total_tokens": 170}
            chat.reply(Reply(text=TABLE, usage=usage), Reply(text="Green.", usage=usage | {"completion_tokens": 2}))
            _picture(lab.open_notebook(page, [TEAS, QUESTION, AGAIN, ""], name="teas.ipynb"), "chat_cells.png")
            _picture(lab.open_notebook(page, VIEWS, name="teas.ipynb"), "views.png", first=1)
            chat.usual = _labeling
            _picture(lab.open_notebook(page, [ROWS, LABELED, ""], name="rows.ipynb"), "rows.png", first=1)


def _spend(store: DiskStore, chat: ChatServer) -> None:
    """Ask three models on ten days, with varying token counts."""
    for day in range(10):
        for number, model in enumerate(("gpt-4o", "gpt-4o-mini", "o4-mini")):
            thousands = 3 + (day * 7 + number * 5) % 9
            usage = {"prompt_tokens": thousands * 1000, "completion_tokens": thousands * 300, "total_tokens": 0}
            chat.reply(Reply(text="Here it is.", usage=usage, model=model))
            provider = OpenAIProvider(model, api_key="unused", base_url=chat.url)
            _ask(store, provider, FIRST_DAY + timedelta(days=day))


def _labeling(request: Request) -> Reply:
    """Answer with the label that the text names."""
    said = str(request.body["messages"][-1]["content"]).lower()
    label = next(each for each in ("praise", "complaint", "question") if each in said)
    return Reply(text=f'{{"value": "{label}"}}', usage={"prompt_tokens": 92, "completion_tokens": 7}, delay_s=0.3)


def _ask(store: DiskStore, provider: OpenAIProvider, now: datetime) -> None:
    manager = ConversationManager(provider, store, clock=lambda: now)
    manager.open_conversation(conversation_id=f"analysis-{provider.model}").send("How is it today?")


def _picture(notebook: LabNotebook, name: str, *, first: int = 0) -> None:
    """Run all cells and take their picture, from the first on; the last is empty, and as the active one not in it."""
    page = notebook.page
    notebook.run_all()
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    notebook.select(cells.count() - 1)
    page.wait_for_timeout(1500)
    boxes = [box for cell in cells.all()[first:-1] if (box := cell.bounding_box())]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    page.screenshot(path=IMAGES / name, clip={"x": left, "y": top, "width": right - left, "height": bottom - top - 6})
    with Image.open(IMAGES / name) as picture:
        picture.convert("RGB").quantize(128).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
