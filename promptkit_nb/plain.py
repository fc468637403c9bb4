"""Values that are almost Python's own, such as ``numpy.int64`` or a subclass of ``str``, made plain."""

from __future__ import annotations

from numbers import Integral, Rational, Real
from typing import Any

_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:  # the type of the result is the plain one of what was given
    """Return a text or a number as Python's own type; any other value unchanged.

    A subclass of ``str`` may format, compare, or hash as it likes, and libraries refuse the numbers of NumPy.

    >>> class Shouting(str):
    ...     def __str__(self):
    ...         return self.upper()
    >>> plain(Shouting("hello"))
    'hello'
    """
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Rational):
        return float(value)
    is_numpys_bool = kind.__module__ == "numpy" and kind.__name__ in {"bool", "bool_"}
    return bool(value) if is_numpys_bool else value
