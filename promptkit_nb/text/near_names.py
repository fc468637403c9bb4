"""Near matches: the known names that a misspelled one probably stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 3
_SHORT_NAME = 3


def near_names(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return up to three known names that ``name`` may stand for, the nearest first, equally near ones by name.

    A name that differs in case only comes before all others. Otherwise at most two letters may be added, left out,
    changed or swapped with their neighbour, and one where the known name has three letters or fewer.

    >>> near_names("Temprature", ["top_p", "temperature"]), near_names("xyz", ["x"])
    (('temperature',), ())
    """
    from rapidfuzz.distance import OSA  # noqa: PLC0415 - only who mistypes waits for it
    from rapidfuzz.process import extract  # noqa: PLC0415 - same

    candidates = list(known)
    found = extract(name, candidates, scorer=OSA.distance, score_cutoff=2, limit=None)
    ranked = [(distance, other) for other, distance, _ in found if 0 < distance <= _allowed(other)]
    folded = name.casefold()
    ranked += [(-1, other) for other in candidates if other != name and other.casefold() == folded]
    return tuple(dict.fromkeys(other for _, other in sorted(ranked)))[:_MOST]


class Suggestions:
    """Near matches for a checker of large files: where very many names are wrong, the first suggestions do."""

    def __init__(self, most: int = 200) -> None:
        """Search for at most so many names."""
        self._left = most

    def near(self, name: str, known: Iterable[str]) -> tuple[str, ...]:
        """Return what ``near_names`` does, and nothing once the searches are used up."""
        if self._left == 0:
            return ()
        self._left -= 1
        return near_names(name, known)


def _allowed(name: str) -> int:
    return min(len(name) - 1, 1 if len(name) <= _SHORT_NAME else 2)  # something has to stay the same


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question that ends a message; ``""`` without names.

    >>> did_you_mean(["tools"]), did_you_mean(["a", "b"]), did_you_mean([])
    ("; did you mean 'tools'?", "; did you mean 'a' or 'b'?", '')
    """
    listed = " or ".join(map(repr, names))
    return f"; did you mean {listed}?" if listed else ""
