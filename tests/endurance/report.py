"""What a long run found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """The figures of one long run, and the violations that it found."""

    name: str
    figures: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def expect(self, *, true: bool, otherwise: str) -> None:
        """Note a violation unless this is true."""
        if not true:
            self.violations.append(otherwise)

    def __str__(self) -> str:
        """Return one line of figures, and one for each violation."""
        figures = ", ".join(f"{value} {name}" for name, value in self.figures.items())
        lines = [f"{self.name}: {figures}, {len(self.violations)} violations"]
        return "\n  ".join([*lines, *self.violations[:20]])
