"""A notebook's value as it stands in a message: text that means something to a model, or an image."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Number, Rational, Real
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.notebook.data_text import data_text
from promptkit_nb.notebook.image_parts import image_part
from promptkit_nb.rendering.plain_text import one_line

if TYPE_CHECKING:
    from promptkit_nb.turns import ContentPart

MAX_VALUE_CHARACTERS = 100_000

_ADDRESS_ONLY = re.compile(r" at 0x[0-9A-Fa-f]{4,}|^<[\w.]+ object>$")


def value_text(value: Any, expression: str) -> str | ContentPart:
    """Return a value as text, or as an image; ``expression`` names it in errors.

    The first that fits: what its ``_repr_llm_()`` returns; text as it is; tables, arrays and scalars of pandas and
    NumPy (``data_text``); an image (``image_part``); what its ``_repr_markdown_()`` returns; dicts, lists, tuples, sets
    (sorted), dataclasses (without what they keep out of their repr) and pydantic models as JSON; anything else, numbers
    and ``None`` too, as ``str()`` gives it. The last holds for a dataclass with a ``__str__`` of its own as well, such
    as ``Response``.

    Only the pictures of data are cut. Raises ``InvalidArgumentError`` where a value other than text takes more than
    100,000 characters; where its text would be an address in memory, which tells a model nothing and changes with every
    run; for bytes that are no image; and, with the cause, where the value's own code fails.

    >>> value_text({"a": [1, None, {2}]}, "x")
    '{"a": [1, null, [2]]}'
    >>> value_text(None, "x"), value_text("{{ y }}", "x")
    ('None', '{{ y }}')
    """
    try:
        found = _found(value)
    except Exception as error:  # a value's own code may fail with anything
        why = str(error) if isinstance(error, InvalidArgumentError) else f"{type(error).__name__}: {error}"
        raise InvalidArgumentError(
            f"{{{{ {expression} }}}} cannot be written as text ({one_line(why)[:200]}). "
            "Assign the text that you mean to a variable, and name that."
        ) from error
    if isinstance(found, str) and len(found) > MAX_VALUE_CHARACTERS and not isinstance(value, str):
        raise InvalidArgumentError(
            f"{{{{ {expression} }}}} takes {len(found):,} characters, more than {MAX_VALUE_CHARACTERS:,}. "
            f"Take a part of it; to send it all, assign str({expression}) to a variable and name that."
        )
    return found


def _found(value: Any) -> str | ContentPart:
    said = _own_text(value, "_repr_llm_")
    if said is not None:
        return said
    if isinstance(value, str):
        return str(value)
    return data_text(value) or image_part(value) or _own_text(value, "_repr_markdown_") or _json_or_str(value)


def _own_text(value: Any, method_name: str) -> str | None:
    """Return what a method of the value's class says of it, if there is one and it says something."""
    method = getattr(type(value), method_name, None)
    text = None if method is None else method(value)
    return text if isinstance(text, str) else None


def _json_or_str(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: structures with plain values in them, other things as their text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value), key=json.dumps)
    return _plain_number(value) if isinstance(value, Number) else _plain_object(value)


def _plain_number(value: Number) -> object:
    """Return a number of NumPy's as one of Python's; others, which JSON cannot hold exactly, as text."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Rational):
        return float(str(value))  # 32-bit floats keep their short form
    return str(value)


def _plain_object(value: Any) -> Any:
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__:
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    return data_text(value) or _str(value)


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {key if isinstance(key, str) else _str(key): _plain(item) for key, item in value.items()}
    if len(plain) < len(value):
        raise InvalidArgumentError("it has two keys that read alike")
    return plain


def _str(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidArgumentError("it is bytes, and no PNG, JPEG, GIF or WebP image: decode them")
    text = str(value)
    if _ADDRESS_ONLY.search(text):
        raise InvalidArgumentError(
            "Python says no more of it than where it is in memory: name an attribute or item of it"
        )
    return text
