"""Shows the models of a server as a table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import amount_text, note_html
from promptkit_nb.text.tables import html_table, text_table

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
        return "\n".join(text_table([_COLUMNS, *self._cells()])) if self else _NONE

    def _repr_html_(self) -> str:
        return html_table(_COLUMNS, self._cells()) if self else note_html(_NONE)

    def _cells(self) -> list[list[str]]:
        return [model.cells() for model in self]
