"""Asks the user whether a tool may run, if the user can be asked."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.text.plain_text import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptkit_nb.tools.tool import Tool

_YES = frozenset({"y", "yes"})
_ALWAYS = frozenset({"a", "always"})
_NO = frozenset({"n", "no", ""})

_always_allowed: set[Callable[..., object]] = set()
"""The functions that the user has always allowed, in this kernel."""

NO_USER = "it needs approval, but the user cannot be asked here; run it interactively, or register it with approve=…"


def verdict_of(tool: Tool, arguments: Mapping[str, object], shown: str) -> bool | str:
    """Return whether a call may run, or the reason why not; ``shown`` is the call as shown to the user."""
    if tool.approve == "never":
        return True
    if callable(tool.approve):
        return tool.approve(tool.name, arguments)
    return tool.call in _always_allowed or (_asked(tool, shown) if can_ask() else NO_USER)


def _asked(tool: Tool, shown: str) -> bool | str:
    answer = input(terminal_text(f"Run {preview(shown, 300)}? [yes / no / always, or why not] ")).strip()
    if answer.casefold() in _ALWAYS:
        _always_allowed.add(tool.call)
        return True
    if answer.casefold() in _YES:
        return True
    return False if answer.casefold() in _NO else _reason(answer)


def can_ask() -> bool:
    """Return whether ``input()`` reaches the user: in the main thread of a notebook or terminal, not in a batch run."""
    if threading.current_thread() is not threading.main_thread() or is_batch():
        return False
    return getattr(running_shell(), "kernel", None) is not None or (sys.stdin is not None and sys.stdin.isatty())


def _reason(answer: str) -> str:
    """Return the reason after "no", which is sent to the model."""
    first, _, rest = answer.partition(" ")
    return rest.strip() or answer if first.casefold().strip(",.:;") in _NO else answer
