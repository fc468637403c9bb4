"""Near matches: the known names that a misspelled name probably means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 3
_SHORT_NAME = 3
_NUMBERS = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[\W_]+")


def near_names(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return up to three known names at most two typing errors away, nearest first, ties in alphabetical order.

    For words of a format, such as keys and enum values. A typing error is a letter added, left out, changed or swapped
    with its neighbor; names of up to three letters allow one. A name that differs only in case comes first.

    >>> near_names("Temprature", ["top_p", "temperature"]), near_names("xyz", ["x"])
    (('temperature',), ())
    """
    from rapidfuzz.distance import OSA  # noqa: PLC0415 - needed only after a typing error
    from rapidfuzz.process import extract  # noqa: PLC0415 - same

    candidates = list(known)
    found = extract(name, candidates, scorer=OSA.distance, score_cutoff=2, limit=None)
    ranked = [(distance, other) for other, distance, _ in found if 0 < distance <= _allowed(other)]
    folded = name.casefold()
    ranked += [(-1, other) for other in candidates if other != name and other.casefold() == folded]
    return tuple(dict.fromkeys(other for _, other in sorted(ranked)))[:_MOST]


def similar_names(name: str, known: Iterable[str], least: float = 0.6) -> tuple[str, ...]:
    """Return up to three known names like ``name``: at most two typing errors away first, then by common letters.

    For names that people make up and half remember, such as ids and file names. ``least`` is the smallest share of
    letters, 0 to 1, that both names have in the same order. Case does not count; ties keep the given order.

    >>> similar_names("first-chad", ["first-chat", "plans"]), similar_names("test.json", ["tests.pack.json"])
    (('first-chat',), ('tests.pack.json',))
    """
    from rapidfuzz.distance import OSA, Indel  # noqa: PLC0415 - needed only after a typing error
    from rapidfuzz.process import extract  # noqa: PLC0415 - same

    candidates = [other for other in known if other != name]
    likeness = Indel.normalized_similarity
    wanted, folded = name.casefold(), [other.casefold() for other in candidates]  # once, because there may be very many
    close = extract(wanted, folded, scorer=OSA.distance, score_cutoff=2, limit=_MOST)
    close = [found for found in close if likeness(wanted, found[0]) >= least]
    like = extract(wanted, folded, scorer=likeness, score_cutoff=least, limit=_MOST)
    return tuple(dict.fromkeys(candidates[at] for _, _, at in [*close, *like]))[:_MOST]


class Suggestions:
    """Near matches for a whole file, limited: if very many names are wrong, the first suggestions are enough."""

    def __init__(self, most: int = 200) -> None:
        """Allow this many searches."""
        self._left = most

    def near(self, name: str, known: Iterable[str]) -> tuple[str, ...]:
        """Return ``near_names(name, known)``, or nothing after the last search."""
        if self._left == 0:
            return ()
        self._left -= 1
        return near_names(name, known)


def _allowed(name: str) -> int:
    return min(len(name) - 1, 1 if len(name) <= _SHORT_NAME else 2)  # at least one letter stays the same


def is_mistyped(name: str, other: str) -> bool:
    """Return whether two names differ only by case, separators, or two letters swapped; never if digits differ.

    >>> [is_mistyped("first-chat", each) for each in ("First_chat", "first-caht", "first-chad", "first-chat-2")]
    [True, True, False, False]
    """
    if _NUMBERS.findall(name) != _NUMBERS.findall(other):
        return False
    one, two = (_SEPARATORS.sub("", each.casefold()) for each in (name, other))
    at = next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), 0)
    return two in (one, one[:at] + one[at : at + 2][::-1] + one[at + 2 :])


def did_you_mean(names: Iterable[str]) -> str:
    """Return the question that ends a message, ``""`` without names.

    >>> did_you_mean(["tools"]), did_you_mean(["a", "b"]), did_you_mean([])
    ("; did you mean 'tools'?", "; did you mean 'a' or 'b'?", '')
    """
    listed = " or ".join(map(repr, names))
    return f"; did you mean {listed}?" if listed else ""
