"""``%chat_fix``, ``{{ error }}`` and ``--code`` in a real kernel, with requests counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_server import Reply
from day_in_cells import Day, day
from promptkit_nb.rendering.python_blocks import python_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import CellResult

pytestmark = pytest.mark.kernel

FAILING = "def total(frame):\n    return frame['prise'].sum()\n\ntotal(df)"
FRAME = "import pandas as pd; df = pd.DataFrame({'price': [1.5, 2.0], 'secret': ['s3cret', 'x']})"
REQUEST = (
    "A cell of my notebook failed. Say in one or two sentences why, and give the corrected cell as one block of Python."
)
FAILURE = f"""The cell:

```python
{FAILING}
```

KeyError: 'prise'

Where:
cell, line 4, in <module>: total(df)
cell, line 2, in total: return frame['prise'].sum()

Variables:
df: DataFrame, 2 rows, 2 columns (price float64, secret str)"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file, in which no cell has failed yet."""
    with day(tmp_path_factory.mktemp("fix")) as started:
        (note,) = started.run("%chat_fix").contents("stream")
        assert note["text"] == "No cell has failed in this kernel, so nothing was asked.\n"
        assert started.asked == []
        started.run(FRAME)
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation, after a cell failed."""
    shared.begin()
    assert shared.run(FAILING).status == "error"
    return shared


def as_sent(text: str) -> str:
    """Return a message with the dtype of text as pandas 2 and 3 name it."""
    return text.replace("secret object", "secret str")


def test_the_failure_is_asked_about(cells: Day) -> None:
    """Source, exception, the frames of the notebook, and shapes and dtypes of variables; no values."""
    assert cells.run("%chat_fix").status == "ok"
    assert [as_sent(text) for text in cells.asked] == [f"{REQUEST}\n\n{FAILURE}"]
    assert "s3cret" not in cells.asked[0]


def test_a_hint_and_options(cells: Day) -> None:
    """The options are those of ``%chat``, the hint stands before the failure, with its expressions filled in."""
    cells.run("%chat_fix -m gpt-4o is it {{ df.columns[0] }}?")
    assert as_sent(cells.asked[0]) == f"{REQUEST}\n\nis it price?\n\n{FAILURE}"
    assert cells.server.requests[0].body["model"] == "gpt-4o"


def test_an_unchanged_error_is_replayed(cells: Day) -> None:
    """The same failure in another run of the cell makes the same message."""
    cells.run("%chat_fix", cell_id="0fc1d2e3")
    cells.run(FAILING)
    ran = cells.run("%chat_fix", cell_id="0fc1d2e3")
    assert len(cells.asked) == 1
    assert "stored answer" in ran.last_bundle["text/plain"] or "replayed" in ran.last_bundle["text/plain"]


def test_a_chat_cell_is_never_the_failure(cells: Day) -> None:
    """Nor is a mistyped magic: the failure stays that of the cell before."""
    cells.run("%chat --modle x Hi")
    cells.run("%chat {{ nothing }}")
    cells.run("%nosuchmagic")
    cells.run("%chat_fix")
    assert [as_sent(text) for text in cells.asked] == [f"{REQUEST}\n\n{FAILURE}"]


def test_a_dry_run_shows_what_would_leave(cells: Day) -> None:
    """Nothing is sent."""
    shown = cells.run("%chat_fix --dry-run").contents("execute_result")[0]["data"]["text/html"]
    assert "prise" in shown
    assert cells.asked == []


def test_braces_of_the_source_are_not_filled_in(cells: Day) -> None:
    """The source leaves as it was typed, and so does its error; keys do not."""
    cells.run("api_key = 'sk-0123456789abcdef'\nprint(f'{{ nothing }}', 1 / 0)")
    cells.run("%chat_fix")
    assert "print(f'{{ nothing }}', 1 / 0)" in cells.asked[0]
    assert "ZeroDivisionError: division by zero" in cells.asked[0]
    assert "sk-0123456789abcdef" not in cells.asked[0]


def test_a_syntax_error_has_no_file_name(cells: Day) -> None:
    """IPython's names of cells change with every run."""
    cells.run("x = = 1")
    cells.run("%chat_fix")
    assert "\nSyntaxError: invalid syntax (line 1)" in cells.asked[0]


def test_error_in_a_message(cells: Day) -> None:
    """``{{ error }}`` is the failure, unless the notebook has a variable of that name; an exception keeps its class."""
    cells.run("%chat Why? {{ error }}")
    cells.run("try:\n    {}['a']\nexcept KeyError as caught:\n    err = caught")
    cells.run("%chat Why? {{ err }}")
    cells.run("error = 'mine'")
    cells.run("%chat Why? {{ error }}")
    cells.run("del error")
    assert [as_sent(text) for text in cells.asked] == [f"Why? {FAILURE}", "Why? KeyError: 'a'", "Why? mine"]


def written(ran: CellResult) -> list[str]:
    """Return the cells that a run put below itself."""
    return [each["text"] for each in ran.payload if each["source"] == "set_next_input"]


def test_the_corrected_cell_is_put_below_once(cells: Day) -> None:
    """Only the Python; run again without change, nothing is put; another answer says where the previous is."""
    first = "Because:\n\n```python\ntotal = 1\n```\n\n```sh\nls\n```\n\n```json\n{}\n```"
    cells.server.reply(Reply(text=first), Reply(text=first.replace("= 1", "= 2")))
    assert written(cells.run("%chat_fix --code", cell_id="1fc1d2e3")) == ["total = 1"]
    assert written(cells.run("%chat_fix --code", cell_id="1fc1d2e3")) == []
    again = cells.run("%chat_fix --code --fresh", cell_id="1fc1d2e3")
    assert written(again) == ["total = 2"]
    assert "the one below it has that of the previous answer: delete it." in again.stdout
    assert len(cells.asked) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\na = 1\n```\ntext\n```py\nb = 2\n```", ["a = 1", "b = 2"]),
        ("```\na = 1\n```", ["a = 1"]),
        ("```\nprint(1)\n```\n```\n1\n```", ["print(1)"]),
        ('```\n{"a": 1}\n```', []),
        ("```\n$ pip install x\n```", []),
        ("```diff\n-a = 1\n+a = 2\n```", []),
        ("```json\n[1]\n```\n```bash\nls\n```\n```text\na = 1\n```", []),
        ("```python\na = 1\n```\n```\nb = 2\n```", ["a = 1"]),
        ("```\n%matplotlib inline\nplot(1)\n```", ["%matplotlib inline\nplot(1)"]),
        ("`a = 1`", []),
    ],
)
def test_only_python_is_code(answer: str, code: list[str]) -> None:
    """Not shell, JSON, output or diffs; unmarked blocks count only if there is no marked one."""
    assert python_blocks(answer) == code
