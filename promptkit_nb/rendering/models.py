"""Shows the models of a server as a table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.text.tables import ListTable

_COLUMNS = ("model", "in, $ per million", "out, $ per million")


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


class ModelTable(ListTable[ModelRow]):
    """Models, shown as a table."""

    _EMPTY = "no models"
    _NUMBERS = _COLUMNS[1:]

    def _heading(self) -> tuple[str, ...]:
        return _COLUMNS

    def _cells(self) -> list[list[str]]:
        return [model.cells() for model in self]
