"""Shows the models of a server as a table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape

from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import MATH_OFF, amount_text, note_html

_COLUMNS = ("model", "in, $ per million", "out, $ per million")
_NONE = "no models"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model with its prices in US dollars per million input and output tokens; ``None`` if they are unknown."""

    name: str
    input_usd: Decimal | None
    output_usd: Decimal | None

    def cells(self) -> list[str]:
        """Return the row of a table."""
        prices = ("unknown" if usd is None else amount_text(usd) for usd in (self.input_usd, self.output_usd))
        return [one_line(self.name), *prices]


class ModelTable(list["ModelRow"]):
    """Models, shown as a table."""

    def __repr__(self) -> str:
        """Return the table as text."""
        if not self:
            return _NONE
        rows = [[*_COLUMNS], *(model.cells() for model in self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _repr_html_(self) -> str:
        if not self:
            return note_html(_NONE)
        heading = "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in model.cells())}</tr>" for model in self)
        return f"<table {MATH_OFF}><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"
