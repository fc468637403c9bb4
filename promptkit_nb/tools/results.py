"""Results of tools as text for the model, which is short and says what was left out."""

from __future__ import annotations

import sys
from typing import Any

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.rendering.tool_calls import ERROR
from promptkit_nb.text.plain_text import one_line, preview, without_keys
from promptkit_nb.text.values import value_text

MAX_CHARACTERS = 4_000
_MAX_ERROR_CHARACTERS = 500


def result_text(value: Any) -> str:
    """Return a result as text for the model, at most about 4,000 characters.

    DataFrames and other data are formatted as in chat cells; figures are described, because results are text.

    >>> result_text({"total": 4.5}), result_text(None)
    ('{"total": 4.5}', 'Done; nothing was returned.')
    """
    if value is None:
        return "Done; nothing was returned."
    if (figure := _figure_text(value)) is not None:
        return figure
    try:
        text = value_text(value, "result")
    except InvalidArgumentError:  # such as bytes, or an object without a text
        text = preview(_repr(value), MAX_CHARACTERS)
    return cut(text) if isinstance(text, str) else "An image, shown to the user."


def cut(text: str) -> str:
    """Return the text, cut at about 4,000 characters; the last line then says so."""
    if len(text) <= MAX_CHARACTERS:
        return text
    kept = text[:MAX_CHARACTERS]
    if "\n" in kept[MAX_CHARACTERS // 2 :]:
        kept = kept.rpartition("\n")[0]  # whole rows of a table
    return f"{kept}\n(The first {len(kept):,} of {len(text):,} characters; ask for less, filtered or aggregated.)"


def error_text(error: BaseException) -> str:
    """Return an exception as text for the model: type and message, without a traceback.

    >>> error_text(KeyError("ACME"))
    "Error: KeyError: 'ACME'"
    """
    try:
        said = one_line(str(error))
    except Exception:  # noqa: BLE001 - the tool's own exception may raise anything
        said = ""
    words = preview(without_keys(said), _MAX_ERROR_CHARACTERS)
    return f"{ERROR}{type(error).__name__}: {words}" if words else f"{ERROR}{type(error).__name__}"


def shape_text(value: Any) -> str:
    """Return a short description of a result, for the line of its call.

    >>> shape_text([1, 2]), shape_text("ACME"), shape_text(None)
    ('list of 2', 'ACME', 'done')
    """
    if value is None:
        return "done"
    if isinstance(value, (bool, int, float, complex)):
        return str(value)
    if isinstance(value, str):
        return preview(value, 40) or "empty text"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} {' × '.join(map(str, shape))}"  # noqa: RUF001 - as tables are measured
    is_collection = isinstance(value, (dict, list, tuple, set, frozenset))
    return f"{type(value).__name__} of {len(value)}" if is_collection else type(value).__name__


def _figure_text(value: Any) -> str | None:
    figures = sys.modules.get("matplotlib.figure")
    axes_module = sys.modules.get("matplotlib.axes")
    if axes_module is not None and isinstance(value, axes_module.Axes):
        value = value.figure
    if figures is None or not isinstance(value, figures.Figure):
        return None
    titles = [one_line(title) for axes in value.axes if (title := axes.get_title())]
    return "A figure, shown to the user" + (f": {'; '.join(titles)}." if titles else ".")


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - the value's own code may raise anything
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
