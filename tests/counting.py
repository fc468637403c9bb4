"""Servers that count the tokens of a request in their own way and report them, and texts in several scripts."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from chat_server import Reply, Request, error_reply
from promptkit_nb.tokens import count_tokens

if TYPE_CHECKING:
    import random

Count = Callable[[str], int]

SERVERS: dict[str, Count] = {
    "o200k": cache(lambda text: count_tokens(text, "gpt-4o")),
    "cl100k": cache(lambda text: count_tokens(text, "gpt-4")),
    "half_of_the_characters": lambda text: math.ceil(len(text) / 2),
}

_PARTS = {
    "english": ["the", "committee", "agreed", "that", "a", "proposal", "should", "be", "reviewed", "again", "today"],
    "cyrillic": ["комитет", "согласился", "что", "предложение", "следует", "рассмотреть", "ещё", "раз", "сегодня"],
    "cjk": [*"委员会同意在月底之前再次审查该提案因为有几位成员还没有读过它然而彼らは重要だと考えています제안"],
}
SCRIPTS = (*_PARTS, "base64")


def text_in(script: str, length: int, chance: random.Random) -> str:
    """Return a text of this many words, or of about that length in scripts without spaces."""
    if script == "base64":
        return base64.b64encode(chance.randbytes(4 * length)).decode()
    parts = chance.choices(_PARTS[script], k=length * (2 if script == "cjk" else 1))
    return ("" if script == "cjk" else " ").join(parts)


def prompt_tokens(body: dict[str, Any], count: Count) -> int:
    """Return the number of tokens of a request: 4 tokens around each message, 3 for the reply."""
    return 3 + sum(4 + count(message["content"]) for message in body["messages"])


def counting(
    count: Count,
    *,
    limit: int | None = None,
    answer: Callable[[], str] = lambda: "Noted.",
    output_tokens: int | None = None,
) -> Callable[[Request], Reply]:
    """Return the usual reply of a server that reports its own count and rejects requests above its limit."""

    def reply(request: Request) -> Reply:
        read = prompt_tokens(request.body, count)
        if limit is not None and read > limit:
            return error_reply(
                400,
                f"This model's maximum context length is {limit} tokens. However, your messages resulted in {read} "
                "tokens. Please reduce the length of the messages.",
                code="context_length_exceeded",
            )
        text = answer()
        said = count(text) if output_tokens is None else output_tokens
        usage = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
        return Reply(text=text, usage=usage)

    return reply
