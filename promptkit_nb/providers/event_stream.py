"""Server-sent events, as chat servers send them: one JSON text each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def payloads(received: Iterator[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event; where there is none at all, the whole body at its end.

    Only line feeds end a line: text may hold other characters that Python takes for one. An event that the end of the
    reply cuts short is given too.
    """
    data: list[str] = []
    body: list[str] = []
    has_events = False
    for line in _lines(received):
        name, _, value = line.partition(":")
        if name == "data":
            has_events = True
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
        elif not has_events and name not in ("", "event", "id", "retry"):
            body.append(line)
    if data:
        yield "\n".join(data)
    if body and not has_events:
        yield "\n".join(body)


def _lines(received: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for block in received:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r").removeprefix("\ufeff")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r").removeprefix("\ufeff")
