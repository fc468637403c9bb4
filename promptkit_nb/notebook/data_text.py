"""DataFrames, Series and NumPy arrays as a small Markdown picture: what a model needs to know of them, and no more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from promptkit_nb.rendering.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ROWS = 10
MAX_COLUMNS = 20
MAX_CELL_CHARACTERS = 60
MAX_TABLE_CHARACTERS = 8_000
_MAX_ARRAY_ITEMS = 100

_IN_A_CELL = str.maketrans({"|": r"\|", "\n": r"\n", "\r": r"\r"})


def data_text(value: Any) -> str | None:
    """Return a DataFrame, a Series, or an array or scalar of NumPy as text; ``None`` for anything else.

    Of a table: shape, dtypes, and the first 10 rows and 20 columns as a Markdown table, cells cut at 60 characters, all
    of it at most some 8,000; a last line says what is missing. Of an array: shape, dtype, and its items, of more than
    100 the outer ones. The same data give the same text. Neither pandas nor NumPy is imported: without them there is no
    such value.

    >>> data_text("no table")
    """
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _frame_text(value)
    if pandas is not None and isinstance(value, pandas.Series):
        return _series_text(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array_text(value, numpy)
    if numpy is not None and isinstance(value, numpy.generic):
        return str(value)
    return None


def _frame_text(frame: Any) -> str:
    rows, columns = frame.shape
    dtypes = [f"{_cell(name)} {_cell(dtype)}" for name, dtype in zip(frame.columns, frame.dtypes, strict=True)]
    told = ", ".join(dtypes[:MAX_COLUMNS])
    title = f"DataFrame, {counted(rows, 'row')}, {counted(columns, 'column')}"
    return "\n".join([title, *([f"dtypes: {told}", "", *_table(frame)] if columns else [])])


def _series_text(series: Any) -> str:
    name = "" if series.name is None else f", name {_cell(series.name)}"
    title = f"Series, {counted(len(series), 'value')}{name}, dtype {_cell(series.dtype)}"
    return "\n".join([title, "", *_table(series.to_frame("" if series.name is None else series.name))])


def _table(frame: Any) -> list[str]:
    """Return the lines of the Markdown table, and one that says what it lacks."""
    shown = frame.iloc[:MAX_ROWS, :MAX_COLUMNS]
    index_name = ", ".join(str(name) for name in shown.index.names if name is not None)
    lines = [_row([index_name, *shown.columns]), _row(["---"] * (len(shown.columns) + 1))]
    size = sum(map(len, lines))
    told = 0
    for row in shown.itertuples(name=None):
        line = _row(row)
        size += len(line)
        if size > MAX_TABLE_CHARACTERS:
            break
        lines.append(line)
        told += 1
    rows, columns = frame.shape
    cuts = [f"first {told} of {counted(rows, 'row')}"] if told < rows else []
    cuts += [f"first {MAX_COLUMNS} of {counted(columns, 'column')}"] if columns > MAX_COLUMNS else []
    is_cut = any("…" in line for line in lines)
    cuts += [f"cells of more than {MAX_CELL_CHARACTERS} characters are cut"] if is_cut else []
    return [*lines, *(["", f"({'; '.join(cuts)})"] if cuts else [])]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    text = str(value)
    if len(text) > MAX_CELL_CHARACTERS:
        text = f"{text[: MAX_CELL_CHARACTERS - 1]}…"
    return text.translate(_IN_A_CELL)


def _array_text(array: Any, numpy: Any) -> str:
    items = numpy.array2string(
        array, threshold=_MAX_ARRAY_ITEMS, edgeitems=3, max_line_width=100, separator=", ", floatmode="unique"
    )
    if len(items) > MAX_TABLE_CHARACTERS:
        items = f"{items[:MAX_TABLE_CHARACTERS]}…\n(cut at {MAX_TABLE_CHARACTERS:,} characters)"
    return f"array, shape {array.shape}, dtype {array.dtype}\n{items}"
