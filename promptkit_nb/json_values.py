"""Copies of JSON values, so that later changes by the caller do not matter; other values are refused."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.plain import plain

MOST_DEPTH = 400
"""How deep lists and dicts may be nested: less than Python's stack allows, so that it is the same everywhere."""


def reason_of(error: BaseException | None) -> str:
    """Return why JSON could not be read; each version of Python has its own words for very deep nesting."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def json_copy(values: object, what: str) -> Any:  # the type of JSON is the type of what was given
    """Return a deep copy of JSON values; ``InvalidArgumentError``, naming the value, if one is not JSON."""
    try:
        return _json_copy(values, what, MOST_DEPTH)
    except RecursionError as error:
        raise InvalidArgumentError(
            f"{what} is nested more than {MOST_DEPTH} levels deep, or contains itself; give less nested values."
        ) from error


def _json_copy(value: object, path: str, levels: int) -> object:
    value = plain(value)
    if isinstance(value, (list, tuple, Mapping)) and not levels:
        raise RecursionError
    if isinstance(value, (list, tuple)):
        items: list[object] = []
        for index, item in enumerate(value):  # a comprehension would need twice as many frames
            items.append(_json_copy(item, f"{path}[{index}]", levels - 1))
        return items
    if isinstance(value, Mapping):
        pairs: dict[str, object] = {}
        for key, item in value.items():
            pairs[_json_key(key, path)] = _json_copy(item, f"{path}[{key!r}]", levels - 1)
        return pairs
    if (problem := _problem_of(value)) is not None:
        raise InvalidArgumentError(f"{path} is {value!a:.60}, {problem}")
    return value


def _json_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidArgumentError(f"{path} has the key {key!r}, but JSON keys are text.")
    if (problem := _problem_of(key)) is not None:
        raise InvalidArgumentError(f"{path} has the key {key!a:.60}, {problem}")
    return str.__str__(key)


def _problem_of(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**64
        return None if fits else "which is too large for JSON; store it as text."
    if isinstance(value, float):
        return None if isfinite(value) else "which JSON does not have; use None or text instead."
    if isinstance(value, str):
        whole = without_lone_surrogates(value) == value
        return None if whole else "which has half of a character (a lone surrogate)."
    return f"a {type(value).__name__}, which is not JSON; give text, numbers, booleans, None, lists or dicts."
