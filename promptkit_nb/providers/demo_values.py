"""The demo's typed answers: values that fit a JSON schema, taken from the message or else chosen by its hash."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_WORD = re.compile(r"\w+")
_DAY = "2026-03-01"
_MOST_STARS = 5
_SHOWN_CHARACTERS = 60
_DEEPEST = 10


def demo_value(schema: Mapping[str, Any], message: str, facts: Mapping[str, str]) -> Any:
    """Return a value for a schema: the same for the same message; ``facts`` are texts by the name of their property.

    A label that the message contains is chosen, else one by the hash of the message; a number is the message's first.

    >>> demo_value({"enum": ["bug", "idea"]}, "I have an idea: dark mode.", {})
    'idea'
    >>> demo_value({"type": "integer"}, "It took 3 days.", {})
    3
    """
    return _Values(message, facts, schema.get("$defs") or {}).of(schema, "", 0)


class _Values:
    def __init__(self, message: str, facts: Mapping[str, str], definitions: Mapping[str, Any]) -> None:
        """Answer this message."""
        self._message = message
        self._facts = facts
        self._definitions = definitions
        self._hash = int.from_bytes(sha256(message.encode()).digest()[:4])

    def of(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        """Return a value for a part of the schema, the property ``name``."""
        if "$ref" in schema:
            schema = self._definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        if "anyOf" in schema:
            others = [each for each in schema["anyOf"] if each.get("type") != "null"]
            return self.of(others[0], name, depth) if others and depth < _DEEPEST else None
        if "enum" in schema or "const" in schema:
            return self._label(schema.get("enum") or [schema["const"]])
        kind = schema.get("type")
        if kind == "object":
            fields = schema.get("properties") or {}
            return {each: self.of(part, each, depth + 1) for each, part in fields.items()}
        if kind == "array":
            return [self.of(schema.get("items") or {}, name, depth + 1)] if depth < _DEEPEST else []
        if kind in {"integer", "number"}:
            return self._number(schema, is_whole=kind == "integer")
        return self._hash % 2 == 0 if kind == "boolean" else self._text(schema, name)

    def _label(self, labels: Sequence[Any]) -> Any:
        said = {word.casefold() for word in _WORD.findall(self._message)}
        named = [label for label in labels if {word.casefold() for word in _WORD.findall(str(label))} <= said]
        return named[0] if named else labels[self._hash % len(labels)]

    def _number(self, schema: Mapping[str, Any], *, is_whole: bool) -> float:
        found = _NUMBER.search(self._message)
        value = float(found[0]) if found else 1 + self._hash % _MOST_STARS
        value = min(max(value, schema.get("minimum", value)), schema.get("maximum", value))
        return int(value) if is_whole else value

    def _text(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in {"date", "date-time"}:
            found = _DATE.search(self._message)
            day = found[0] if found else _DAY
            return day if schema["format"] == "date" else f"{day}T00:00:00"
        return self._facts.get(name.lower().replace("_", " "), self._message[:_SHOWN_CHARACTERS])
