"""``df.promptkit``: where it comes from, and whom it asks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import promptkit_nb.frames  # noqa: F401 - registers df.promptkit
from kernels import kernel
from promptkit_nb import ConversationManager, DemoProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    TraceFunction = Callable[[FrameType, str, object], "TraceFunction"]

ASK = """
df = pd.DataFrame({"city": ["Porto", "Lisbon", "Porto"]})
out = df.promptkit.ask("My city is {{ city }}", into="noted")
print(out["noted"].str.len().gt(0).all(), len(pk.MemoryStore().list()))
"""

UNUSED = """
import sys
import promptkit_nb.frames
from promptkit_nb import ConversationManager, DemoProvider, DiskStore, ChatPanel, turns_df
manager = ConversationManager(DemoProvider())
manager.new_conversation().send("Hi")
print(sorted(name for name in sys.modules if name.startswith("promptkit_nb.rows")))
"""

LOOKED_FOR = """
import sys
from importlib.util import find_spec
from promptkit_nb.notebook.pandas_import import register_with_pandas
finders = len(sys.meta_path)
register_with_pandas()
print(all(find_spec("pandas") is not None for _ in range(2)), "pandas" not in sys.modules)
import pandas as pd
print(len(pd.DataFrame({"a": [1]}).promptkit._df), len(sys.meta_path) - finders, type(pd.__spec__.loader).__name__)
"""


def test_the_accessor_asks_like_the_function() -> None:
    """With the same arguments."""
    df = pd.DataFrame({"city": ["Porto", "Lisbon", "Porto"]})
    out = df.promptkit.ask("My city is {{ city }}", into="noted", manager=ConversationManager(DemoProvider()))
    assert out["noted"].str.startswith("[demo] Noted: your city is").all()
    estimate = df.promptkit.ask(
        "My city is {{ city }}", into="noted", estimate=True, manager=ConversationManager(DemoProvider())
    )
    assert estimate.distinct_texts == 2


def test_it_asks_under_a_debugger() -> None:
    """Which reads the local variables at each line."""
    df = pd.DataFrame({"city": ["Porto"]})

    def look(frame: FrameType, event: str, value: object) -> TraceFunction:
        del event, value
        assert frame.f_locals is not None
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        estimate = df.promptkit.ask("{{ city }}", into="a", estimate=True, manager=ConversationManager(DemoProvider()))
    finally:
        sys.settrace(before)
    assert estimate.distinct_texts == 1


def test_looking_for_pandas_keeps_the_hook() -> None:
    """Libraries look whether pandas is installed; its later import registers the accessor, and removes the hook."""
    run = subprocess.run([sys.executable, "-c", LOOKED_FOR], capture_output=True, text=True, check=True)
    assert run.stdout == "True True\n1 0 SourceFileLoader\n"


def test_the_rest_of_the_package_does_not_import_rows() -> None:
    """Nor does registering the accessor."""
    run = subprocess.run([sys.executable, "-c", UNUSED], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.kernel
def test_in_a_notebook(kernel_home: Path) -> None:
    """``%load_ext`` registers it, though pandas is imported later; it asks with the notebook's settings."""
    cells = ["%load_ext promptkit_nb", "%chat_setup --provider demo", "import promptkit_nb as pk, pandas as pd"]
    with kernel(*cells) as each:
        result = each.run(ASK)
        assert result.status == "ok", result
        assert result.stdout.splitlines()[-1] == "True 0"
        assert "rows:noted" in str(each.run("%chat_list rows:").messages)
        assert each.run("print(pd.__spec__.loader.__class__.__name__)").stdout == "SourceFileLoader\n"
