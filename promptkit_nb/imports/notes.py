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

    def add_damaged(self, place: str, problem: str) -> None:
        """Add a record that cannot be read, with its place."""
        if len(self.damaged) < MOST_DAMAGED:
            self.damaged.append((place, problem))
        else:
            self.add_omission("further damaged records")

    def add_unknown_type(self, name: str) -> None:
        """Add a record of an unknown type."""
        self.unknown_types[name[:80]] += 1

    def add_unpriced(self, model: str) -> None:
        """Add a call with an unknown price."""
        self.unpriced_models[model or "(no model)"] += 1

    def add_omission(self, what: str, count: int = 1) -> None:
        """Add something that is not imported, or not in full."""
        self.omissions[what] += count
