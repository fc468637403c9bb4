"""A typed answer as a small table, and as the JSON that is stored with its turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from promptkit_nb.characters import printable
from promptkit_nb.text.tables import html_table, text_table

_MISSING = "none"


def value_table(value: Any) -> tuple[str, str]:
    """Return a typed answer as text and as HTML, in which nothing can be markup: a row for each field, or one value.

    >>> print(value_table({"label": "bug", "stars": 3})[0])
    label  bug
    stars  3
    """
    named = _fields_of(value)
    if named is None:
        return printable(_text(value)), html_table(["value"], [[printable(_text(value))]])
    rows = [[printable(str(name)), printable(_text(each))] for name, each in named.items()]
    return "\n".join(text_table(rows)) if rows else "", html_table(["field", "value"], rows)


def value_json(value: Any) -> str:
    """Return a typed answer as JSON, from which ``value_table`` makes the same table.

    >>> value_json({"label": "bug", "stars": None})
    '{"label": "bug", "stars": null}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def stored_table(stored_json: str | None) -> tuple[str, str] | None:
    """Return what ``value_table`` returns for a stored typed answer; ``None`` if there is none, or it is not JSON.

    >>> print(stored_table('{"label": "bug", "stars": null}')[0])
    label  bug
    stars  none
    """
    if stored_json is None:
        return None
    try:
        return value_table(json.loads(stored_json))
    except (ValueError, RecursionError):
        return None


def _fields_of(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if hasattr(type(value), "model_fields"):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return {each.name: getattr(value, each.name) for each in fields(value)} if is_dataclass(value) else None


def _text(value: Any) -> str:
    if value is None:
        return _MISSING
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False, default=str) if isinstance(plain, (dict, list)) else str(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    named = _fields_of(value)
    if named is not None:
        return {str(name): _plain(each) for name, each in named.items()}
    return [*map(_plain, value)] if isinstance(value, (list, tuple, set, frozenset)) else value
