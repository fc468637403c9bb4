"""Tool calls as a notebook shows them: one line each, which unfolds; everything is escaped or sanitized."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import printable
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.tool_calls import answered_calls
from promptkit_nb.text.plain_text import preview
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE
from promptkit_nb.text.values import image_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.turns import ToolCall, Turn

_MAX_SHOWN_CHARACTERS = 80
_STYLE = f"{SMALL_STYLE};margin:0.2em 0"
_BLOCK_STYLE = "margin:0.2em 0 0.2em 1em;white-space:pre-wrap;overflow-wrap:anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLine:
    """One call: a line, and the parts that it unfolds to. ``said`` is the answer's text, on its first call only.

    ``told`` is the result for the model, empty while the tool runs; ``value`` is the result object, if this kernel ran
    the tool.
    """

    line: str
    arguments: str
    told: str = ""
    value: object = None
    said: str = ""


def lines_of(turn: Turn) -> list[ToolLine]:
    """Return the lines of a stored turn, which has no result objects."""
    return [
        ToolLine(
            line=f"{call_text(call)} → {preview(told, _MAX_SHOWN_CHARACTERS)}",
            arguments=call.arguments,
            told=told,
            said=said,
        )
        for call, told, said in answered_calls(turn)
    ]


def call_text(call: ToolCall, max_characters: int = _MAX_SHOWN_CHARACTERS) -> str:
    """Return a call in Python syntax, with its arguments shortened.

    >>> from promptkit_nb.turns import ToolCall
    >>> call_text(ToolCall("1", "orders", '{"customer": "ACME"}'))
    'orders(customer="ACME")'
    """
    try:
        given = json.loads(call.arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return f"{preview(call.name)}({preview(call.arguments, max_characters)})"
    shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"{preview(call.name)}({preview(shown, max_characters)})"


def tool_lines_text(lines: Sequence[ToolLine]) -> str:
    """Return the calls as text, one line each, with the model's text before them."""
    return "\n".join(part for each in lines for part in (printable(each.said), f"▸ {printable(each.line)}") if part)


def tool_lines_html(lines: Sequence[ToolLine]) -> str:
    """Return the calls as HTML that runs and fetches nothing: each unfolds to arguments, result, and object."""
    return "".join(map(_line_html, lines))


def _line_html(shown: ToolLine) -> str:
    said = to_html(shown.said) if shown.said.strip() else ""
    blocks = [("arguments", _pre(shown.arguments))]
    if shown.told:
        blocks.append(("what the model was told", _pre(shown.told)))
    if (rich := _rich_html(shown.value)) is not None:
        blocks.append(("returned", rich))
    unfolded = "".join(f"<div>{label}</div>{block}" for label, block in blocks)
    return (
        f'{said}<details class="promptkit-tool" style="{_STYLE}"><summary {MATH_OFF}>{escape(printable(shown.line))}'
        f"</summary><div {MATH_OFF}>{unfolded}</div></details>"
    )


def _pre(text: str) -> str:
    return f'<pre style="{_BLOCK_STYLE}">{escape(printable(text))}</pre>'


def _rich_html(value: Any) -> str | None:
    """Return an object as sanitized HTML: a table or a picture; ``None`` if it has only a text form."""
    try:
        picture = image_part(value)
        if picture is not None:
            return f'<img src="{picture.url}" alt="returned by the tool" style="max-width:100%">'
        method = getattr(type(value), "_repr_html_", None)
        html = None if method is None else method(value)
    except Exception:  # noqa: BLE001 - the value's own code may raise anything
        return None
    if not isinstance(html, str):
        return None
    import nh3  # noqa: PLC0415 - imported when used

    sizes = {"colspan", "rowspan"}
    clean = nh3.clean(html, tags=_TABLE_TAGS, attributes={"td": sizes, "th": sizes})
    return clean.replace("<th></th>", "<td></td>")  # the corner of a DataFrame, which is not a header


_TABLE_TAGS = {"div", "p", "span", "b", "i", "em", "strong", "code", "pre", "br", "ul", "ol", "li"} | {
    *("table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption")
}
"""The HTML elements that an object may use; styles, links, and pictures are removed."""
