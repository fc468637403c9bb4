"""The path of a message through the package stays short, and is the one that CONTRIBUTING describes."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from call_trace import CallTrace
from kernels import kernel

pytestmark = pytest.mark.kernel

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")

START = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import call_trace; call_trace.install()"
PRICED = """
from decimal import Decimal
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.pricing import CallCost
DemoProvider.price = lambda self, model, usage, at: CallCost(Decimal("0.001"), "yours")
"""
CONVERSATION = """
import tempfile, promptkit_nb as pk
manager = pk.ConversationManager(pk.DemoProvider(), store=pk.DiskStore(tempfile.mkdtemp()), budget={budget})
conv = manager.new_conversation()
conv.send("My name is Alice")
"""


@dataclass(frozen=True)
class Traces:
    """The second ``%%chat`` of a notebook, and the second ``send`` of a conversation, both on disk."""

    chat: CallTrace
    send: CallTrace


def traces(home: Path, *, priced: bool = False, budget: bool = False) -> Traces:
    """Trace both in a real kernel with the demo provider, whose calls cost a tenth of a cent if ``priced``."""
    cells = [START, "%load_ext promptkit_nb", PRICED if priced else ""]
    with kernel(*cells, PROMPTKIT_HOME=str(home / "store"), IPYTHONDIR=str(home / "ipython")) as each:

        def traced(cell: str) -> CallTrace:
            each.run("trace = call_trace.start()")
            assert each.run(cell).status == "ok"
            return CallTrace(**ast.literal_eval(each.run("call_trace.stop(); print(vars(trace))").stdout))

        each.run("%chat_setup --provider demo" + (" --budget 5/day" if budget else ""))
        each.run("%%chat\nMy name is Alice")
        chat = traced("%%chat\nWhat's my name?")
        each.run(CONVERSATION.format(budget="pk.Budget(5)" if budget else None))
        return Traces(chat, traced('answer = conv.send("What\'s my name?")'))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """The traces of calls that cost nothing."""
    return traces(tmp_path_factory.mktemp("plain"))


def test_chat_is_short(plain: Traces) -> None:
    """``%%chat`` runs through few files and few levels, and asks the store a few times."""
    assert len(plain.chat.files) <= 35, plain.chat.files
    assert len(plain.chat.deepest) <= 16, plain.chat.deepest
    assert plain.chat.reads <= 3
    assert plain.chat.writes == 1


def test_send_is_short(plain: Traces) -> None:
    """``send`` from Python is shorter than ``%%chat``."""
    files = [path for path in plain.send.files if not path.startswith("notebook/")]  # the cell's own hooks
    assert len(files) <= 27, files
    assert len(plain.send.deepest) <= 14, plain.send.deepest
    assert plain.send.reads <= 3
    assert plain.send.writes == 1


def test_a_price_needs_no_further_transaction(tmp_path: Path) -> None:
    """The append itself charges the ledger."""
    found = traces(tmp_path, priced=True)
    assert (found.chat.writes, found.send.writes) == (1, 1)


def test_a_budget_needs_one_more_write_transaction(tmp_path: Path) -> None:
    """It reserves the price before the request."""
    found = traces(tmp_path, priced=True, budget=True)
    assert (found.chat.writes, found.send.writes) == (2, 2)


def test_definitions_can_be_followed(plain: Traces) -> None:
    """No function without a name lies between ``ChatMagics.chat`` or ``send`` and the backend's ``append``."""
    names = [name for _, name in [*plain.chat.append_frames, *plain.send.append_frames]]
    assert {"ChatMagics.chat", "Conversation.send", "DiskBackend.append"} <= set(names)
    assert [name for name in names if "<lambda>" in name] == []


def test_contributing_describes_the_path(plain: Traces) -> None:
    """Its numbered list has the files and functions on the stack of the append, from ``ChatMagics.chat`` on."""
    start = [name for _, name in plain.chat.append_frames].index("ChatMagics.chat")
    by_file = groupby(plain.chat.append_frames[start:], key=lambda frame: frame[0])
    path = [(file, [name for _, name in frames]) for file, frames in by_file]
    steps = re.findall(r"^\d+\. `(\S+\.py)`: ((?:`[\w.]+`(?:, )?)+)", CONTRIBUTING, re.MULTILINE)
    assert [(file, re.findall(r"`([\w.]+)`", names)) for file, names in steps] == path
