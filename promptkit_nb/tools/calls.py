"""Runs the calls of one turn: checks arguments, turns errors into results, and enforces limits."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from promptkit_nb.errors import ToolError
from promptkit_nb.frontend import is_batch
from promptkit_nb.rendering.tool_calls import ERROR
from promptkit_nb.rendering.tool_lines import ToolLine, call_text
from promptkit_nb.text.near_names import did_you_mean, near_names
from promptkit_nb.text.plain_text import preview
from promptkit_nb.tools.approval import verdict_of
from promptkit_nb.tools.arguments import ArgumentsRejectedError, read_arguments
from promptkit_nb.tools.results import error_text, result_text, shape_text
from promptkit_nb.tools.time_limits import TimeLimitReached, can_limit_time, run, time_limit
from promptkit_nb.tools.tool_host import ToolHost
from promptkit_nb.turns import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptkit_nb.tools.tool import Tool
    from promptkit_nb.tools.toolbox import Toolbox

MAX_IDENTICAL_CALLS = 2
_MAX_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """One call and its result; ``text`` is the result for the model, ``value`` the object.

    ``round`` counts the answers of the turn that called tools, from 1; ``said`` is the text of that answer, for its
    first call. ``seconds`` is ``None`` while it runs, and if it was not run.
    """

    call: ToolCall
    round: int
    text: str = ""
    value: object = None
    seconds: float | None = None
    is_error: bool = False
    is_over: bool = False
    said: str = ""

    @property
    def line(self) -> str:
        """The call and its result in one line, such as ``orders(customer="ACME") → list of 41 · 0.2 s``.

        A batch run leaves out the seconds, so that the same run gives the same output.
        """
        if not self.is_over:
            return f"{call_text(self.call)} …"
        result = preview(self.text, _MAX_SHOWN_CHARACTERS) if self.is_error else shape_text(self.value)
        seconds = "" if self.seconds is None or is_batch() else f" · {self.seconds:.1f} s"
        return f"{call_text(self.call)} → {result}{seconds}"

    @property
    def shown(self) -> ToolLine:
        """The call as shown in a notebook."""
        return ToolLine(line=self.line, arguments=self.call.arguments, told=self.text, value=self.value, said=self.said)


class TurnCalls:
    """The calls of one turn; ``on_run`` is called at the start and the end of each call. ``host`` runs them."""

    def __init__(
        self,
        toolbox: Toolbox,
        turn_id: str,
        on_run: Callable[[ToolRun], None] | None = None,
        host: ToolHost | None = None,
    ) -> None:
        """Start without calls."""
        self.toolbox = toolbox
        self.runs: list[ToolRun] = []
        self.warnings: list[str] = []
        self.rounds = 0
        self._turn_id = turn_id
        self._on_run = on_run
        self._host = host or ToolHost()
        self._ids: set[str] = set()
        self._identical: Counter[str] = Counter()
        self._started = 0
        self._said = ""

    def begin_round(self, said: str = "") -> None:
        """Count an answer that calls tools, and its text; raise ``ToolError`` beyond the limit."""
        if self.rounds >= self.toolbox.max_rounds:
            raise ToolError(
                f"The model called tools in {self.rounds} answers without coming to an end; nothing was stored. Ask "
                "for less, or raise max_rounds in the tool_policy of a pack."
            )
        self.rounds += 1
        self._said = said

    def run(self, call: ToolCall) -> ToolRun:
        """Run one call, and return it with its result; its id is unique in the turn, its arguments valid JSON."""
        call = replace(call, id=self._unique_id(call.id))
        started = ToolRun(call=call, round=self.rounds, said=self._said)
        self._said = ""
        try:
            arguments = read_arguments(call.arguments)
        except ArgumentsRejectedError as error:
            return self._refused(replace(started, call=replace(call, arguments="{}")), str(error))
        started = replace(started, call=replace(call, arguments=_kept(call.arguments, arguments)))
        tool = self.toolbox.tools.get(call.name)
        if tool is None:
            return self._refused(started, self._unknown(call.name))
        if self._is_repeated(call.name, arguments):
            return self._refused(
                started, "This call was made before, with the same arguments: use its result, or do something else."
            )
        if self._started >= self.toolbox.max_calls:
            return self._refused(
                started, f"Not run: a turn may make {self.toolbox.max_calls} calls. Answer with what you have."
            )
        self._started += 1
        return self._checked_run(started, tool, arguments)

    def _checked_run(self, started: ToolRun, tool: Tool, given: Mapping[str, object]) -> ToolRun:
        try:
            arguments = tool.arguments(given)
            verdict = verdict_of(tool, given, started.call, self._host)
        except ArgumentsRejectedError as error:
            return self._refused(started, f"The arguments do not fit: {error}")
        except Exception as error:  # noqa: BLE001 - code of the user: a validator, or the function that approves
            return self._refused(started, error_text(error).removeprefix(ERROR))
        if verdict is not True:
            why = f": {verdict}" if isinstance(verdict, str) else "."
            return self._refused(started, f"Not run, the user did not allow this call{why}")
        self._tell(started)
        return self._host.run(lambda: self._called(started, tool, arguments))

    def _called(self, started: ToolRun, tool: Tool, arguments: Mapping[str, object]) -> ToolRun:
        """Call the function: its errors are results; Ctrl-C and the end of the process are not."""
        if tool.timeout_s is not None and not can_limit_time():
            self._warn(f"The time limit of tool {tool.name!r} was not kept: only the main thread can stop a function.")
        began_s = time.perf_counter()
        try:
            with time_limit(tool.timeout_s):
                value = run(tool.call, arguments)
            text, is_error = result_text(value), False
        except TimeLimitReached:
            value, is_error = None, True
            text = f"{ERROR}It took longer than {tool.timeout_s:g} s and was stopped."
        except Exception as error:  # noqa: BLE001 - a tool may raise anything
            value, is_error, text = None, True, error_text(error)
        seconds = time.perf_counter() - began_s
        return self._told(replace(started, text=text, value=value, seconds=seconds, is_error=is_error, is_over=True))

    def _refused(self, started: ToolRun, why: str) -> ToolRun:
        return self._told(replace(started, text=f"{ERROR}{why}", is_error=True, is_over=True))

    def _told(self, ended: ToolRun) -> ToolRun:
        self.runs.append(ended)
        self._tell(ended)
        return ended

    def _tell(self, run: ToolRun) -> None:
        if self._on_run is not None:
            self._on_run(run)

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _unknown(self, name: str) -> str:
        if name in self.toolbox.blocked:
            return f"The tool {name!r} is blocked."
        names = sorted(self.toolbox.tools)
        near = did_you_mean(near_names(name, names)[:1]) or "."
        return f"There is no tool {preview(name)!r}, only {', '.join(names)}{near}"

    def _is_repeated(self, name: str, arguments: Mapping[str, object]) -> bool:
        """Count a call; raise ``ToolError`` if the model repeats it after it was told not to."""
        key = json.dumps([name, arguments], sort_keys=True)
        self._identical[key] += 1
        if self._identical[key] > MAX_IDENTICAL_CALLS + 1:
            raise ToolError(
                f"The model keeps calling {name!r} with the same arguments; nothing was stored. Rephrase the message, "
                "or let the tool return a more helpful result."
            )
        return self._identical[key] > MAX_IDENTICAL_CALLS

    def _unique_id(self, given: str) -> str:
        """Return an id that is unique in the turn; if the server sent none, generate 9 letters and digits."""
        made, number = given, len(self._ids)
        while not made or made in self._ids or _is_generated(made):
            made = blake2b(f"{self._turn_id}:{number}".encode(), digest_size=5).hexdigest()[:9]
            number += 1
        self._ids.add(made)
        return made


def _kept(written: str, read: Mapping[str, object]) -> str:
    """Return the arguments for the history: as the model wrote them if they are valid JSON, else as parsed."""
    try:
        is_valid = json.loads(written) == read
    except ValueError:
        is_valid = False
    return written if is_valid else json.dumps(read)


def _is_generated(call_id: str) -> bool:
    """Return whether our reader generated the id because the server sent none; such ids are not unique."""
    return call_id.startswith("call_") and call_id[5:].isdecimal() and len(call_id) <= 7  # noqa: PLR2004 - two digits
