"""Separates thinking that a model writes at the beginning of its text, as in ``<think>…</think>``, from the answer.

Many servers report it separately; other servers, and conversations stored by version 0.1, have it in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_NAMES = ("think", "thinking", "thought", "seed:think")
_PAIRS = {f"<{name}>": f"</{name}>" for name in _NAMES} | {"[think]": "[/think]"}
MAY_BE_THINKING = ("<", "[t", "[T", " ", "\n", "\t", "\r")
"""Possible beginnings of a text that starts with thinking; a quick test, because most texts do not."""

_OPENING = re.compile(rf"\s*({'|'.join(map(re.escape, _PAIRS))})", re.IGNORECASE)
_CLOSING = re.compile("|".join(map(re.escape, _PAIRS.values())), re.IGNORECASE)


def split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking at the beginning of a text, and the rest; an unclosed block takes the whole text.

    >>> split_thinking("<think>Hmm, 6 times 7.</think>It is 42.")
    ('Hmm, 6 times 7.', 'It is 42.')
    >>> split_thinking("Tags such as <think> are text here.")
    ('', 'Tags such as <think> are text here.')
    """
    splitter = ThinkingSplitter()
    begun, ended = splitter.feed(text), splitter.flush()
    return (begun[0] + ended[0]).strip(), begun[1] + ended[1]


@dataclass(slots=True)
class ThinkingSplitter:
    """Separates thinking from text that arrives in pieces; the possible beginning of a tag is held back."""

    _state: Literal["start", "opened", "thinking", "closed", "text"] = "start"
    _held: str = ""
    _close: str = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the further thinking and text that are certain now."""
        if self._state == "text":
            return "", piece
        self._held += piece
        thinking = ""
        if self._state == "start":
            self._begin()
        if self._state in ("opened", "thinking"):
            thinking = self._more_thinking()
        return thinking, self._more_text()

    def flush(self) -> tuple[str, str]:
        """Return the text held back, at the end of the answer."""
        held, self._held = self._held, ""
        return ("", held) if self._state in ("start", "text") else (held, "")

    def _begin(self) -> None:
        opened = _OPENING.match(self._held)
        if opened is not None:
            self._state, self._close = "opened", _PAIRS[opened[1].lower()]
            self._held = self._held[opened.end() :]
        elif closed := _CLOSING.match(self._held.lstrip()):  # the prompt or the server consumed the opening tag
            self._state = "closed"
            self._held = self._held.lstrip()[closed.end() :]
        elif not self._may_be_tag(self._held.lstrip()):
            self._state = "text"

    def _more_thinking(self) -> str:
        if self._state == "opened":
            self._held = self._held.lstrip()
            self._state = "thinking" if self._held else "opened"
        closed = re.search(re.escape(self._close), self._held, re.IGNORECASE)
        if closed is not None:
            thinking, self._held = self._held[: closed.start()], self._held[closed.end() :]
            self._state = "closed"
            return thinking
        certain = len(self._held) - self._length_of_tag_begun()
        thinking, self._held = self._held[:certain], self._held[certain:]
        return thinking

    def _more_text(self) -> str:
        if self._state == "closed":
            self._held = self._held.lstrip()
            self._state = "text" if self._held else "closed"
        if self._state != "text":
            return ""
        text, self._held = self._held, ""
        return text

    def _may_be_tag(self, beginning: str) -> bool:
        lower = beginning.lower()
        return any(tag.startswith(lower) for pair in _PAIRS.items() for tag in pair)

    def _length_of_tag_begun(self) -> int:
        """Return how many of the last characters may be the beginning of the closing tag."""
        tail = self._held[-len(self._close) + 1 :].lower()
        return next((len(tail) - at for at in range(len(tail)) if self._close.startswith(tail[at:])), 0)
