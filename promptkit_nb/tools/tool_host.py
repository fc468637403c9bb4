"""Where the tools of a turn run, and who is asked whether they may run."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from promptkit_nb.tools.approval import NO_USER, ask_at_prompt, can_ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.tools.tool import Tool
    from promptkit_nb.turns import ToolCall

Result = TypeVar("Result")


class ToolHost:
    """Runs tools in the thread that sends the message, and asks where ``input()`` asks."""

    def run(self, work: Callable[[], Result]) -> Result:
        """Run some work of a tool, and return its result."""
        return work()

    def ask(self, tool: Tool, call: ToolCall) -> bool | str:
        """Return whether the user allows a call, or the reason why not."""
        return ask_at_prompt(tool, call) if can_ask() else NO_USER
