"""What a message is written in, and how many tokens it may be for a tokenizer that nothing is known of."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from promptkit_nb.turns import without_lone_surrogates
from promptkit_nb.window.tokens import said_hash

if TYPE_CHECKING:
    from promptkit_nb.turns import Message

Script = Literal["words", "dense", "letters", "wide"]
"""English and code; base64 and digits; other alphabets; Chinese, Japanese, Korean, emoji."""

_FRAMING_TOKENS = 8  # of a chat template, around a message
_FEW_FOREIGN = 8  # one accent in as many letters makes no other alphabet
_WORD_CHARACTERS = 25  # with a blank in as many characters, a text is made of words
_DIGITS = re.compile(r"[0-9]+")
_REMEMBERED_MESSAGES = 50_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a message is written in, and the tokens that hardly any tokenizer makes more of."""

    script: Script
    bound: int


_shapes: dict[int, Shape] = {}


def shape_of(message: Message) -> Shape:
    """Return the shape of a message; it is looked at once.

    >>> from promptkit_nb.turns import Message
    >>> shape_of(Message("user", "Hello, world"))
    Shape(script='words', bound=14)
    """
    key = said_hash(message)
    shape = _shapes.get(key)
    if shape is None:
        calls = (f"{call.name}{call.arguments}" for call in message.tool_calls)
        parts = () if message.content else (part.text for part in message.parts)
        text = without_lone_surrogates("".join([message.content, message.name or "", *parts, *calls]))
        bound = _bound(text) + _FRAMING_TOKENS * (1 + len(message.tool_calls))
        shape = Shape(_script_of(text), bound)
        if len(_shapes) >= _REMEMBERED_MESSAGES:
            _shapes.clear()
        _shapes[key] = shape
    return shape


def _script_of(text: str) -> Script:
    ascii_count = len(text.encode("ascii", "ignore"))
    foreign = len(text) - ascii_count
    if foreign * _FEW_FOREIGN < ascii_count:
        return "words" if text.count(" ") * _WORD_CHARACTERS >= len(text) else "dense"
    foreign_bytes = len(text.encode()) - ascii_count
    return "wide" if foreign_bytes * 2 > foreign * 5 else "letters"


def _bound(text: str) -> int:
    """Every digit, every letter of two bytes, every other two characters a token; three bytes count as one and a half.

    Tokenizers of few words come near it in what they were not made for.
    """
    ascii_count = len(text.encode("ascii", "ignore"))
    digits = ascii_count and sum(map(len, _DIGITS.findall(text)))
    foreign_bytes = len(text.encode()) - ascii_count
    return math.ceil((ascii_count + digits + foreign_bytes) / 2)
