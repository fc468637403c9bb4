"""Texts of models in Excel files: they are texts, and never formulas or links."""

from __future__ import annotations

import ast
import inspect
import io
from typing import TYPE_CHECKING, Any

import openpyxl  # type: ignore[import-untyped]  # it has no types
import pandas as pd
import pytest

from promptkit_nb import (
    ConversationManager,
    DemoProvider,
    ImportReport,
    InvalidArgumentError,
    MemoryStore,
    ask_rows,
    conversations_df,
    messages_df,
    search,
    turns_df,
    usage_df,
    validate_pack,
)
from promptkit_nb.rendering.tool_calls import tool_calls_df
from promptkit_nb.text.expressions import evaluate
from promptkit_nb.text.text_frame import TextFrame
from promptkit_nb.text.values import value_text
from promptkit_nb.turns import Message, ToolCall, Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENGINES = ["openpyxl", "xlsxwriter"]
HOSTILE = ["=1+1", '=HYPERLINK("http://a.example","x")', "+1", "-1", "@x", "{=1}", "#N/A", "http://a.example", "=\x1b"]


def cells_of(file: Any, sheet: str = "Sheet1") -> list[tuple[str, Any]]:
    """Return the type and the value of each cell that is not empty."""
    rows = openpyxl.load_workbook(file)[sheet].iter_rows()
    return [(cell.data_type, cell.value) for row in rows for cell in row if cell.value is not None]


def hostile_frame() -> pd.DataFrame:
    """Return a view of conversations that try to run formulas."""
    store = MemoryStore()
    for number, text in enumerate(HOSTILE):
        store.append(f"={number}", Turn(messages=(Message("user", text), Message("assistant", text)), model="=model"))
    return messages_df(store, naive_utc=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_text_is_text(engine: str) -> None:
    """Whatever it begins with; control characters are visible, as in the frame."""
    file = io.BytesIO()
    frame = hostile_frame()
    frame.to_excel(file, engine=engine, index=False)
    cells = cells_of(file)
    assert {kind for kind, _ in cells} == {"s", "n", "d", "b"}
    assert not any(cell.hyperlink for row in openpyxl.load_workbook(file)["Sheet1"].iter_rows() for cell in row)
    kinds = {value: kind for kind, value in cells if isinstance(value, str)}
    shown = [text.replace("\x1b", "␛") for text in HOSTILE]
    assert {text: kinds[text] for text in (*shown, "=model", "=0")} == dict.fromkeys((*shown, "=model", "=0"), "s")


def views() -> dict[str, Callable[[], pd.DataFrame]]:
    """Return all that makes a frame of texts that are not the user's own."""
    store = MemoryStore()
    call = ToolCall(id="1", name="f", arguments="=1")
    asked, told = Message("assistant", "=1", tool_calls=(call,)), Message("tool", "=1", tool_call_id="1")
    turn = Turn(messages=(Message("user", "=1"), asked, told, Message("assistant", "=1")), model="=1")
    store.append("=1", turn)
    manager = ConversationManager(DemoProvider(), store)
    rows = pd.DataFrame({"text": ["=1"]})
    return {
        "conversations": lambda: conversations_df(store, naive_utc=True),
        "turns": lambda: turns_df(store, naive_utc=True),
        "messages": lambda: messages_df(store, naive_utc=True),
        "usage": lambda: usage_df(store, by="model", naive_utc=True),
        "search": lambda: search(store, "=1", naive_utc=True),
        "conversation": lambda: manager.get_conversation("=1").to_df().drop(columns=["created_at"]),
        "tool calls": lambda: tool_calls_df(turn),
        "import": lambda: ImportReport(source="=1").to_df(),
        "pack": lambda: validate_pack({"id": "=1"}).to_df(),
        "rows": lambda: ask_rows(rows, "{{ text }}", into="a", manager=manager),
    }


@pytest.mark.parametrize("name", [*views()])
def test_all_our_frames(name: str) -> None:
    """No formula is written by any of them."""
    frame = views()[name]()
    file = io.BytesIO()
    frame.to_excel(file, engine="xlsxwriter")
    assert "f" not in {kind for kind, _ in cells_of(file)}
    assert type(frame) is TextFrame


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[frame["role"] == "assistant"],
        lambda frame: frame[["content"]],
        lambda frame: frame.sort_values("content").head(20),
        lambda frame: frame.merge(pd.DataFrame({"role": ["user"], "who": ["me"]}), on="role"),
        lambda frame: frame.assign(copied=frame["content"]),
        lambda frame: frame.set_index("content"),
        lambda frame: frame.groupby("content", observed=True).first(),
        lambda frame: pd.concat([frame, frame]),
    ],
)
def test_what_is_made_of_a_view(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Selections and joins of it are as safe."""
    file = io.BytesIO()
    change(hostile_frame()).to_excel(file, engine="xlsxwriter")
    cells = cells_of(file)
    assert ("s", "=1+1") in cells
    assert "f" not in {kind for kind, _ in cells}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_writer_of_the_user(tmp_path: Path, engine: str) -> None:
    """Formulas that the user writes to the same sheet, before and after, stay formulas."""
    with pd.ExcelWriter(tmp_path / "x.xlsx", engine=engine) as writer:
        pd.DataFrame({"own": ["=2+2"]}).to_excel(writer, sheet_name="a", index=False)
        TextFrame({"theirs": ["=1+1"]}).to_excel(writer, sheet_name="a", index=False, startcol=1)
        pd.DataFrame({"own": ["=3+3"]}).to_excel(writer, sheet_name="a", index=False, startcol=2)
    kinds = {value: kind for kind, value in cells_of(tmp_path / "x.xlsx", "a")}
    assert (kinds["=1+1"], kinds["=2+2"], kinds["=3+3"]) == ("s", "f", "f")


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_of_pandas_are_left_alone(engine: str) -> None:
    """``pd.DataFrame(view)`` writes formulas, as the user asks for."""
    file = io.BytesIO()
    pd.DataFrame(TextFrame({"a": ["=1+1"]})).to_excel(file, engine=engine)
    assert ("f", "=1+1") in cells_of(file)


def test_what_cannot_be_kept_as_text_is_refused(tmp_path: Path) -> None:
    """An error says what to leave out."""
    with pytest.raises(InvalidArgumentError, match=r'"write_only": True'):
        TextFrame({"a": ["=1"]}).to_excel(tmp_path / "x.xlsx", engine="openpyxl", engine_kwargs={"write_only": True})


def test_they_equal_frames_of_pandas() -> None:
    """A test of a user may compare them, in either order."""
    ours, theirs = TextFrame({"a": ["x"]}), pd.DataFrame({"a": ["x"]})
    pd.testing.assert_frame_equal(ours, theirs)
    pd.testing.assert_frame_equal(theirs, ours)
    assert ours.equals(theirs)


@pytest.mark.parametrize("expression", ["df.head(1)", "len(df)", 'df.groupby("a").size()', "df.describe()"])
def test_chat_cells_read_them(expression: str) -> None:
    """In ``{{ }}``, as any other frame."""
    frames = [TextFrame({"a": ["x"]}), pd.DataFrame({"a": ["x"]})]
    node = ast.parse(expression, mode="eval").body
    ours, theirs = (value_text(evaluate(node, {"df": frame}), expression) for frame in frames)
    assert ours == theirs


def test_the_signature_is_that_of_pandas() -> None:
    """So that Shift+Tab and completion show the same arguments."""
    assert inspect.signature(TextFrame.to_excel) == inspect.signature(pd.DataFrame.to_excel)
