"""Converts values such as ``numpy.int64``, or a subclass of ``str``, to Python's built-in types."""

from __future__ import annotations

from numbers import Integral, Rational, Real
from typing import Any

_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:  # the result's type depends on the value
    """Return text and numbers as built-in types; return any other value unchanged.

    A subclass of ``str`` may change formatting, comparison, or hashing, and some libraries refuse NumPy's numbers.

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
