"""Which notebook cell is running, and how many chat calls it has made in this execution."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptkit_nb.rendering.frontend import cell_code, cell_id

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

    from promptkit_nb.turns import Turn

_ANY_KEY = re.compile(r"\bsk-[\w-]{6,}")
_KEY_NAMES = r"(?:key|token|secret|password|passwd|authorization)"
_BLANK = r"[^\S\n]"
_SAID_AS_KEY = re.compile(
    rf"""
    # api_key="…", api_key: str = "…", os.environ["X_KEY"] = "…"
    ({_KEY_NAMES} ["']? \]? (?: {_BLANK}*+ : {_BLANK}*+ \w++ )? \s*+ [=:,] \s*+ \(? \s*+ [bfru]{{,2}}
        (\"\"\"|\'\'\'|["']) ) (?: \\. | (?!\2)[^\n\\] )+
    # %env X_KEY=…
    | (^ {_BLANK}*+ %(?:set_)?env {_BLANK}++ (?=\w*?{_KEY_NAMES}) \w++ (?: {_BLANK}*+ = {_BLANK}*+ | {_BLANK}++ ))
        [^\n]++
    # !export X_KEY=…
    | (^ {_BLANK}*+ (?: ! | export\b ) [^\n]*? \b (?=\w*?{_KEY_NAMES}) \w++ = ) (?!["']) \S++
    # redis://user:…@host
    | (:// [^\s/@:"']*+ :) [^\s/@"']++ (?=@)
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_SHORTEST_KEY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCall:
    """The notebook cell that asks: its id, the how manieth chat call of its execution this is (from 0), its source."""

    cell_id: str | None
    cell_call: int = 0
    cell_source: str | None = None

    def made(self, turn: Turn) -> bool:
        """Return whether this very call of this cell made the turn, as far as a cell's id tells it."""
        return self.cell_id is not None and (self.cell_id, self.cell_call) == (turn.cell_id, turn.cell_call)


class RunningCell:
    """Watches the shell; ``next_call()`` says where a chat call comes from."""

    def __init__(self, shell: InteractiveShell) -> None:
        """Know nothing of the cell that is running yet."""
        self._shell = shell
        self._source: str | None = None
        self._calls = 0
        self._running: ExecutionInfo | None = None

    def watch(self) -> None:
        """Watch from now on."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def next_call(self) -> CellCall:
        """Return the place of the next chat call of the cell that is running."""
        call = CellCall(
            cell_id=cell_id(), cell_call=self._calls, cell_source=_without_keys(self._source or cell_code())
        )
        self._calls += 1
        return call

    def stop(self) -> None:
        """Watch no longer."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self._running = None

    def _begin(self, info: ExecutionInfo) -> None:
        """Begin a cell; one that runs within another, as ``%run`` does it, is a part of that one."""
        if self._running is None:
            self._running = info
            self._source = info.raw_cell
            self._calls = 0

    def _end(self, result: ExecutionResult | None) -> None:
        if result is None or result.info is self._running:  # without a result it was torn down
            self._running = None


def _without_keys(source: str | None) -> str | None:
    r"""Return the source as it may be stored: keys may stand in the same cell, and a recording goes to others.

    >>> _without_keys('provider = OpenAIProvider(api_key="0123abcd")\n%chat Hi')
    'provider = OpenAIProvider(api_key="[key]")\n%chat Hi'
    """
    if source is None:
        return None
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if len(key) >= _SHORTEST_KEY:
        source = source.replace(key, "[key]")
    source = _SAID_AS_KEY.sub(lambda found: f"{found[1] or found[3] or found[4] or found[5]}[key]", source)
    return _ANY_KEY.sub("[key]", source)
