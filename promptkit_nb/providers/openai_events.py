"""Reads the server-sent events of a streamed reply, including deviations from the standard.

Some servers separate events with a single line break, or send an error in a field named ``error``; a reply that is not
streamed is one event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from promptkit_nb.providers.openai_errors import json_or_text

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = "[DONE]"

EventKind = Literal["data", "error", "other", "body"]

_KINDS: dict[str, EventKind] = {"": "data", "message": "data", "error": "error"}
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: ``data``, an ``error``, one with an ``other`` name, or the ``body`` of an unstreamed reply."""

    kind: EventKind
    data: str


def read_events(received: Iterator[bytes]) -> Iterator[ServerEvent]:
    r"""Yield each event; if there are none, the whole body once it has arrived.

    Only line feeds and carriage returns end a line: text may contain other characters that Python treats as line ends.
    An event that is cut off by the end of the reply is yielded, too.

    >>> [event.data for event in read_events(iter([b'data: {"a": 1}\ndata: [DONE]\n']))]
    ['{"a": 1}', '[DONE]']
    """
    name = ""
    data: list[str] = []
    body: list[str] = []
    has_events = False
    for line in _lines(received):
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        # Any other line ends a complete event, even if the empty line between them is missing.
        if data and (not line or (field in {"data", "event", "error"} and _is_complete(data))):
            yield ServerEvent(_KINDS.get(name, "other"), "\n".join(data))
            data, name = [], ""
        if field == "data":
            has_events = True
            data.append(value)
        elif field == "event":
            name = value.strip().casefold()
        elif not line and name != "error":  # the name of an event without data is not the next one's
            name = ""
        elif field == "error" and colon:
            has_events = True
            yield ServerEvent("error", value)
        elif not has_events and field not in ("", "id", "retry"):
            body.append(line)
    if data:
        yield ServerEvent(_KINDS.get(name, "other"), "\n".join(data))
    if body and not has_events:
        yield ServerEvent("body", "\n".join(body))


def _is_complete(data: list[str]) -> bool:
    text = "\n".join(data)
    return text.startswith(DONE) or isinstance(json_or_text(text), dict)


def _lines(received: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for block in received:
        rest += block
        whole = rest.removesuffix(b"\r")  # a line feed may follow in the next block
        *lines, last = _LINE_END.split(whole)
        rest = last + rest[len(whole) :]
        for line in lines:
            yield _decoded(line)
    if rest:
        yield _decoded(rest.removesuffix(b"\r"))


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").removeprefix("\ufeff")
