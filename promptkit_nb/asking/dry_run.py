"""What a question would send and what it may cost, without sending it."""

from __future__ import annotations

from dataclasses import dataclass

from promptkit_nb.asking.context import Context
from promptkit_nb.money.estimates import CostRange
from promptkit_nb.rendering.note_html import note_html


@dataclass(frozen=True, slots=True)
class DryRun:
    """The whole request with its tokens, what it may cost in US dollars, and how much of each budget is spent."""

    context: Context
    cost: CostRange
    budgets: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the request line by line, the cost, and a line for each budget."""
        return "\n".join([str(self.context), *self._below()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.context._repr_html_() + "".join(map(note_html, self._below()))

    def _below(self) -> list[str]:
        return [f"dry run, nothing was sent · {self.cost}", *self.budgets]
