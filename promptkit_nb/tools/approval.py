"""Asks the user whether a tool may run, if the user can be asked."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.rendering.tool_lines import call_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptkit_nb.tools.tool import Tool
    from promptkit_nb.tools.tool_host import ToolHost
    from promptkit_nb.turns import ToolCall

_YES = frozenset({"y", "yes"})
_ALWAYS = frozenset({"a", "always"})
_NO = frozenset({"n", "no", ""})
_MAX_SHOWN_CHARACTERS = 2_000

_always_allowed: set[Callable[..., object]] = set()
"""The functions that the user has always allowed, in this kernel."""

NO_USER = "it needs approval, but the user cannot be asked here; run it interactively, or register it with approve=…"


def verdict_of(tool: Tool, arguments: Mapping[str, object], call: ToolCall, host: ToolHost) -> bool | str:
    """Return whether a call may run, or the reason why not."""
    approve = tool.approve
    if approve == "never":
        return True
    if callable(approve):
        return host.run(lambda: approve(tool.name, arguments))
    return tool.call in _always_allowed or host.ask(tool, call)


def ask_at_prompt(tool: Tool, call: ToolCall) -> bool | str:
    """Ask the user with ``input()``; "always" allows the function in this kernel."""
    shown = call_text(call, _MAX_SHOWN_CHARACTERS)
    answer = input(terminal_text(f"Run {shown}? [yes / no / always, or why not] ")).strip()
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
