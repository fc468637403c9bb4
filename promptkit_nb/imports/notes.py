"""Notes for the report of an import: damaged records, unknown types, and what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_DAMAGED = 1000
"""Further damaged records are counted, but not listed."""


@dataclass(slots=True)
class Notes:
    """Notes for the report of one import."""

    damaged: list[tuple[str, str]] = field(default_factory=list)
    unknown_types: Counter[str] = field(default_factory=Counter)
    unpriced_models: Counter[str] = field(default_factory=Counter)
    omissions: Counter[str] = field(default_factory=Counter)

    def is_damaged(self, place: str, problem: str) -> None:
        """Note a record that cannot be read, with its place."""
        if len(self.damaged) < MOST_DAMAGED:
            self.damaged.append((place, problem))
        else:
            self.left_out("further damaged records")

    def has_unknown_type(self, name: str) -> None:
        """Note a record of a type that no reader knows."""
        self.unknown_types[name[:80]] += 1

    def has_no_price(self, model: str) -> None:
        """Note a call whose price is unknown."""
        self.unpriced_models[model or "(no model)"] += 1

    def left_out(self, what: str, count: int = 1) -> None:
        """Note something that is not imported, or not in full."""
        self.omissions[what] += count
