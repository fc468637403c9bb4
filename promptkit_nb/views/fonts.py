"""Fonts for names in any script: matplotlib's own has no Chinese, Japanese or Korean characters."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

if TYPE_CHECKING:
    from collections.abc import Sequence

_REGULAR = 400
_UNASSIGNED = "\u0378"
"""A code without a character: fonts that draw it draw boxes for everything."""


def drawable(text: str, families: Sequence[str] = ("sans-serif",)) -> tuple[str, list[str]]:
    r"""Return a text as it can be drawn, and the font families to draw it with.

    Characters that ``families`` lack are drawn with the first installed font that has all of them. If no font has
    them, they are shown as their codes, as in a terminal that cannot show them, instead of as boxes.
    """
    missing = _missing(text, tuple(families))
    if not missing:
        return text, [*families]
    found = _family_with(missing)
    if found is not None:
        return text, [*families, found]
    shown = (each.encode("ascii", "backslashreplace").decode() if each in missing else each for each in text)
    return "".join(shown), [*families]


def _missing(text: str, families: tuple[str, ...]) -> frozenset[str]:
    if text.isascii():
        return frozenset()
    return frozenset(text) - _characters(findfont(FontProperties(family=[*families])))


@lru_cache(maxsize=64)
def _family_with(characters: frozenset[str]) -> str | None:
    """Return the family of the first installed font that has these characters, upright and of regular weight first."""
    fonts = sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.weight != _REGULAR, font.name))
    sets = ((font.name, _characters(font.fname)) for font in fonts)
    return next((name for name, known in sets if characters <= known and _UNASSIGNED not in known), None)


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return frozenset()
