"""Reads the arguments of a tool call, as models and servers write them."""

from __future__ import annotations

import json
import re

from promptkit_nb.text.plain_text import preview

MAX_CHARACTERS = 100_000
_END = re.compile(r"\s*(?:```|</[\w:|-]+>)?\s*")
_BEGINNING = re.compile(r"\s*(?:```(?:json)?\s*)?", re.IGNORECASE)


class ArgumentsRejectedError(Exception):
    """The model's arguments are invalid; the text tells the model why. It is never raised to users."""


def read_arguments(text: str) -> dict[str, object]:
    r"""Return the JSON object that a model sent as arguments.

    Empty text and ``null`` count as no arguments. An object inside a JSON string is decoded, and a code fence or a
    closing tag around it is ignored. Raises ``ArgumentsRejectedError`` for anything else.

    >>> read_arguments('"{\\"city\\": \\"Bern\\"}"'), read_arguments(""), read_arguments('{"n": 1}\n```')
    ({'city': 'Bern'}, {}, {'n': 1})
    """
    if len(text) > MAX_CHARACTERS:
        raise ArgumentsRejectedError(
            f"The arguments take {len(text):,} characters, more than {MAX_CHARACTERS:,}. Send less."
        )
    found = _value_in(text)
    if isinstance(found, str):
        found = _value_in(found)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ArgumentsRejectedError(f"The arguments are not a JSON object: {preview(text, 100)}")
    return found


def _value_in(text: str) -> object:
    if not text.strip():
        return None
    begin = _BEGINNING.match(text)
    start = 0 if begin is None else begin.end()
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise ArgumentsRejectedError(f"The arguments are not valid JSON ({error}): {preview(text, 100)}") from None
    if _END.fullmatch(text, end) is None:
        raise ArgumentsRejectedError(f"The arguments are followed by other text: {preview(text[end:], 100)}")
    found: object = value
    return found


def _refused_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refused_number)
