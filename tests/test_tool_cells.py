"""Tools in chat cells, in a real kernel: what is shown, who is asked, and what Ctrl-C stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import CellResult, Kernel

pytestmark = pytest.mark.kernel

FUNCTIONS = """
import time
import pandas as pd
from promptkit_nb.tools.tool import Tool

ran = []

def orders(customer: str) -> pd.DataFrame:
    "Return the orders of a customer."
    ran.append(customer)
    return pd.DataFrame({"customer": [customer, "<img src=x onerror=alert(1)>"], "usd": [120, 80]})

def fails() -> None:
    "Fail."
    raise ValueError("<script>alert(1)</script>")

def sleeps() -> None:
    "Sleep."
    print("sleeping")
    time.sleep(60)

def removes(name: str) -> str:
    "Remove a file."
    ran.append(name)
    return "removed"

guarded = Tool.of(removes, approve="ask")
not_a_function = 7
"""
ASK = '%%chat --tools orders --to answer\nWhat is orders(customer="ACME")?'


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel with functions and the demo provider, which calls what a message spells out."""
    home = tmp_path_factory.mktemp("home")
    environment = {"PROMPTKIT_HOME": str(home / "store"), "IPYTHONDIR": str(home / "ipython")}
    with kernel("%load_ext promptkit_nb", "%chat_setup --provider demo", FUNCTIONS, **environment) as started:
        yield started


def value(notebook: Kernel, expression: str) -> str:
    """Return what an expression prints."""
    return notebook.run(f"print({expression})").stdout.strip()


def answered(notebook: Kernel, cell: str, answer: str) -> CellResult:
    """Run a cell whose question gets this answer from the user."""
    request_id = notebook.send(cell)
    question = notebook.client.get_stdin_msg(timeout=60)
    assert question["content"]["prompt"] == ('Run removes(name="a.csv")? [yes / no / always, or why not] ')
    notebook.client.input(answer)
    return notebook.result(request_id)


def test_calls_are_shown_and_unfold(notebook: Kernel) -> None:
    """A line above the answer, with arguments, what the model was told, and the table; then the receipt."""
    result = notebook.run(ASK.replace("%%chat", "%%chat --fresh"), cell_id="orders")
    text = result.last_bundle["text/plain"]
    assert '▸ orders(customer="ACME") → DataFrame 2 × 2 · 0.' in text  # noqa: RUF001 - as shown
    assert "2 requests · 1 tool call" in text
    html = result.last_bundle["text/html"]
    assert '<details class="promptkit-tool"' in html
    assert '<pre style="' in html
    assert "<td>ACME</td>" in html
    assert "<img src=x" not in html
    shown = [each["data"]["text/plain"] for each in result.contents("update_display_data")]
    assert any(each.startswith('▸ orders(customer="ACME") …') for each in [*shown, *_first(result)])
    assert value(notebook, "answer.tool_results[0].shape") == "(2, 2)"


def _first(result: CellResult) -> list[str]:
    return [each["data"]["text/plain"] for each in result.contents("display_data")]


def test_a_replayed_cell_runs_no_tool(notebook: Kernel) -> None:
    """The same cell again: the calls are shown as they were told, and nothing runs."""
    notebook.run(ASK, cell_id="orders")
    before = value(notebook, "len(ran)")
    text = notebook.run(ASK, cell_id="orders").last_bundle["text/plain"]
    assert '▸ orders(customer="ACME") → DataFrame, 2 rows, 2 columns' in text
    assert "replayed · tools not run" in text
    assert value(notebook, "len(ran)") == before


def test_errors_are_shown_escaped(notebook: Kernel) -> None:
    """The model is told, the cell goes on, and nothing executes."""
    bundle = notebook.run("%%chat --tools fails\nTry fails()").last_bundle
    assert "▸ fails() → Error: ValueError: <script>alert(1)</script>" in bundle["text/plain"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]


def test_a_batch_run_shows_no_seconds(notebook: Kernel) -> None:
    """So that saved outputs can be compared."""
    result = notebook.run('%%chat --fresh --tools orders\nWhat is orders(customer="Bolt")?', allow_stdin=False)
    assert '▸ orders(customer="Bolt") → DataFrame 2 × 2\n' in result.last_bundle["text/plain"]  # noqa: RUF001 - as shown


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("order", "InvalidArgumentError: --tools order: there is no function of this name. Did you mean orders?"),
        ("not_a_function", "InvalidArgumentError: --tools not_a_function: it is a int, not a function."),
    ],
)
def test_names_that_are_no_functions(notebook: Kernel, names: str, words: str) -> None:
    """One line, before anything is sent."""
    assert notebook.run(f"%%chat --tools {names}\nHi").traceback == [words]


def test_dry_run_lists_the_tools(notebook: Kernel) -> None:
    """What leaves the machine."""
    result = notebook.run("%%chat --dry-run --tools orders,fails\nHi")
    assert "tools: orders, fails" in result.contents("execute_result")[0]["data"]["text/plain"]


def test_the_user_is_asked(notebook: Kernel) -> None:
    """Yes runs it once, other words are told to the model, and always asks no more for this function."""
    cell = '%%chat --fresh --tools guarded\nPlease removes(name="a.csv")'
    assert '▸ removes(name="a.csv") → removed' in answered(notebook, cell, "yes").last_bundle["text/plain"]
    refused = answered(notebook, cell, "no, keep it").last_bundle["text/plain"]
    assert "Error: Not run, the user did not allow this call: keep it" in refused
    assert "did not allow this call." in answered(notebook, cell, "").last_bundle["text/plain"]
    assert "→ removed" in answered(notebook, cell, "always").last_bundle["text/plain"]
    assert "→ removed" in notebook.run(cell).last_bundle["text/plain"]


def test_nobody_is_asked_in_a_batch_run(notebook: Kernel) -> None:
    """The call is refused, with the reason."""
    notebook.run(FUNCTIONS)
    result = notebook.run('%%chat --fresh --tools guarded\nPlease removes(name="b.csv")', allow_stdin=False)
    assert "it needs approval, but the user cannot be asked here" in result.last_bundle["text/plain"]


def test_ctrl_c_stops_a_tool(notebook: Kernel) -> None:
    """The cell ends, and nothing is stored."""
    turns = "len(answer.turn.messages)"
    notebook.run(ASK, cell_id="orders")
    request_id = notebook.send("%%chat --fresh --tools sleeps\nPlease sleeps()")
    while "sleeping" not in str(notebook.client.get_iopub_msg(timeout=60)["content"].get("text")):
        pass
    notebook.manager.interrupt_kernel()
    result = notebook.result(request_id)
    assert result.status == "error"
    assert result.traceback == ["Stopped before any text arrived; the conversation is unchanged."]
    assert value(notebook, turns) == "4"
