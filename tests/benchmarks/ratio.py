"""A measured ratio, and alternating measurements."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two measured times in milliseconds, and the highest allowed ratio."""

    name: str
    ours_ms: float
    reference_ms: float
    at_most: float

    @property
    def value(self) -> float:
        """Our time divided by the reference."""
        return self.ours_ms / self.reference_ms

    @property
    def is_met(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.value <= self.at_most


def medians_ms(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Return the median time of each task in milliseconds, measured in turns."""
    taken: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for index, task in enumerate(tasks):
            started = time.perf_counter()
            task()
            taken[index].append((time.perf_counter() - started) * 1000)
    return [median(times) for times in taken]


def table_of(ratios: Sequence[Ratio]) -> str:
    """Return the ratios as a table."""
    width = max(len(ratio.name) for ratio in ratios)
    lines = [f"{'':{width}}  {'ours ms':>9}  {'ref. ms':>9}  {'ratio':>6}  {'demand':>6}"]
    lines += [
        f"{ratio.name:{width}}  {ratio.ours_ms:9.2f}  {ratio.reference_ms:9.2f}  {ratio.value:6.2f}  "
        f"≤ {ratio.at_most:4.2f}  {'' if ratio.is_met else 'MISSED'}".rstrip()
        for ratio in ratios
    ]
    return "\n".join(lines)
