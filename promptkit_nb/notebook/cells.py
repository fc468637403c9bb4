"""Which notebook cell is running, and which turn a chat call belongs to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from promptkit_nb.chat.options import AT_THE_END, CellCall, Target
from promptkit_nb.frontend import cell_code, cell_id
from promptkit_nb.text import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.notebook.cell_turns import KernelMemory
    from promptkit_nb.notebook.saved_notebook import SavedNotebook
    from promptkit_nb.state import CellAct
    from promptkit_nb.turns import Turn

_KEY_NAMES = r"(?:key|token|secret|password|passwd|authorization)"
_BLANK = r"[^\S\n]"
_SHORTEST_KEY = 6
_KEY_IN_CODE = re.compile(
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


class RunningCell:
    """The running cell of a shell, and its chat calls."""

    def __init__(self, shell: InteractiveShell) -> None:
        """Start without a cell."""
        self._shell = shell
        self._source: str | None = None
        self._calls = 0
        self._acts = 0
        self._running: ExecutionInfo | None = None
        self.failed: tuple[str, Exception] | None = None
        """The source of the last cell that failed, and its exception."""

    def watch(self) -> None:
        """Start watching."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def next_call(self) -> CellCall:
        """Return the next chat call of the running cell."""
        call = self._call(self._calls)
        self._calls += 1
        return call

    def next_act(self) -> CellCall:
        """Return the next call of the running cell that changes a conversation without asking; counted separately."""
        call = self._call(self._acts)
        self._acts += 1
        return call

    def _call(self, index: int) -> CellCall:
        source = self._source or cell_code()
        return CellCall(
            cell_id=cell_id(), cell_call=index, cell_source=None if source is None else without_keys(source)
        )

    def stop(self) -> None:
        """Stop watching."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self._running = None

    def _begin(self, info: ExecutionInfo) -> None:
        """Begin a cell; one that runs within another, as with ``%run``, is part of that one."""
        if self._running is None:
            self._running = info
            self._source = info.raw_cell
            self._calls = self._acts = 0

    def _end(self, result: ExecutionResult | None) -> None:
        if result is None or result.info is self._running:  # without a result the cell was aborted
            self._running = None
            error = None if result is None else result.error_before_exec or result.error_in_exec
            if isinstance(error, Exception) and not _is_explained(error):
                self.failed = self._source or "", error


def _is_explained(error: Exception) -> bool:
    """Return whether a magic already explained the error in one line, so that ``%chat_fix`` ignores it."""
    return isinstance(error, UsageError) or "_render_traceback_" in vars(error)


def without_keys(source: str) -> str:
    r"""Return the source without keys: a cell may contain some, and a recording is shared.

    >>> without_keys('provider = OpenAIProvider(api_key="0123abcd")\n%chat Hi')
    'provider = OpenAIProvider(api_key="[key]")\n%chat Hi'
    """
    from promptkit_nb.providers.endpoints import KEY_VARIABLES  # noqa: PLC0415 - at the first chat

    keys = (value.strip() for value in map(os.environ.get, KEY_VARIABLES) if value)  # lazy: no variable holds keys
    source = re.sub("|".join(re.escape(key) for key in keys if len(key) >= _SHORTEST_KEY) or "(?!)", "[key]", source)
    source = plain_text.without_keys(source)
    return _KEY_IN_CODE.sub(lambda found: f"{found[1] or found[3] or found[4] or found[5]}[key]", source)


@dataclass(frozen=True, slots=True)
class _BatchRun:
    """How far the cells of a batch run match the turns of a conversation: ``passed`` are the ids of their turns."""

    passed: frozenset[str] = frozenset()
    matched: bool = False
    over: bool = False


class CellMatching:
    """Matches the chat calls of one kernel with turns, for all its conversations.

    It uses the rules of ``find_turn`` or, in a batch run, the order of the cells. Running a cell again thus answers
    its turn again.
    """

    def __init__(self) -> None:
        """Start before the first cell."""
        self._runs: dict[str, _BatchRun] = {}
        self._pending: dict[str, _BatchRun] = {}
        self._last: dict[str, str] = {}
        self._memories: dict[str, KernelMemory] = {}
        self._first_calls: dict[str, tuple[str, int]] = {}  # the cell and the call that came first, by conversation
        self._passed: dict[str, set[CellAct]] = {}

    def target_of(
        self,
        call: CellCall,
        message: str,
        snapshot: Snapshot,
        *,
        in_batch: bool,
        saved: Callable[[], SavedNotebook | None] = lambda: None,
    ) -> Target:
        """Return the place for the answer to a call with this message; ``in_batch`` if a program runs the notebook.

        ``saved`` returns the saved notebook, ``None`` if it cannot be read.
        """
        from promptkit_nb.notebook.cell_turns import find_turn  # noqa: PLC0415 - %load_ext takes no time for it

        if call.cell_id is None:
            return self._target_in_batch(call, snapshot) if in_batch else AT_THE_END
        if call.cell_call == 0:  # a new run of the cell
            self._memories = {each: memory.in_a_new_run() for each, memory in self._memories.items()}
        conversation_id = snapshot.state.conversation_id
        memory = self._memory_of(conversation_id)
        versions = snapshot.state.versions.items()
        current_ids = {previous.id: turn_id for turn_id, each in versions for previous in each}
        memory = replace(memory, last=self._last.get(conversation_id)).as_of(current_ids)
        turn = find_turn(call, message, snapshot.state.turns, memory, saved)
        return Target(archived=snapshot.archived_turn_of(call)) if turn is None else Target(in_place_of=turn)

    def answered(
        self,
        conversation_id: str,
        turn: Turn,
        call: CellCall | None = None,
        version: tuple[int, int] | None = None,
    ) -> None:
        """Record the turn of a call, and the version of the saved file; a call that fails changes nothing."""
        self._last[conversation_id] = turn.id
        if call is not None and call.cell_id is not None:
            this_call = (call.cell_id, call.cell_call)
            if self._first_calls.setdefault(conversation_id, this_call) == this_call:  # the notebook starts over
                self._passed.pop(conversation_id, None)
            self._memories[conversation_id] = self._memory_of(conversation_id).with_turn(turn.id, call, version)
        run = self._pending.pop(conversation_id, None)
        if run is not None:
            self._runs[conversation_id] = replace(run, passed=run.passed | {turn.id})

    def last_turn(self, conversation_id: str) -> str | None:
        """Return the id of the last turn that a cell of this kernel made or replayed, ``None`` before the first."""
        return self._last.get(conversation_id)

    def forked(self, conversation_id: str, turns: Sequence[Turn]) -> None:
        """Record that the cells so far match the inherited turns of a fork: the next cell comes after them."""
        inherited = frozenset(turn.id for turn in turns if turn.inherited)
        self._runs.setdefault(conversation_id, _BatchRun(inherited, matched=bool(inherited)))

    def undone(self, conversation_id: str, turns: Sequence[Turn]) -> None:
        """Record that the newest turn was undone; ``turns`` remain."""
        self._reach(conversation_id, turns[-1].id if turns else "")

    def passed(self, conversation_id: str) -> set[CellAct]:
        """Return the changes that this kernel made, or did not repeat, since its first chat call ran last."""
        return self._passed.setdefault(conversation_id, set())

    def repeated(self, conversation_id: str, act: CellAct) -> None:
        """Record that a cell made this change in an earlier run, so that it is not made again."""
        self.passed(conversation_id).add(act)
        self._reach(conversation_id, act.next_reached)

    def _reach(self, conversation_id: str, turn_id: str) -> None:
        if turn_id:
            self._last[conversation_id] = turn_id
        else:
            self._last.pop(conversation_id, None)

    def _memory_of(self, conversation_id: str) -> KernelMemory:
        from promptkit_nb.notebook.cell_turns import KernelMemory  # noqa: PLC0415 - as above

        return self._memories.get(conversation_id) or KernelMemory()

    def _target_in_batch(self, call: CellCall, snapshot: Snapshot) -> Target:
        conversation_id = snapshot.state.conversation_id
        run = self._pending[conversation_id] = self._runs.get(conversation_id, _BatchRun())
        following = None if run.over else _next_cell_turn(run.passed, snapshot)
        if following is None:
            return AT_THE_END
        is_current = any(turn.id == following.id for turn in snapshot.state.turns)
        if following.cell_source == call.cell_source:
            self._pending[conversation_id] = replace(run, matched=True)
            return Target(in_place_of=following) if is_current else Target(archived=following)
        for undone in snapshot.undone:  # this cell's turn was undone, and the next cell's took its place
            if run.matched and undone.cell_source == call.cell_source and undone.id not in run.passed:
                return Target(archived=undone)
        self._pending[conversation_id] = replace(run, over=True)
        if run.matched and snapshot.state.turns:
            return Target(branch_from=snapshot.position_of(following) if is_current else 0)
        return AT_THE_END


def _next_cell_turn(passed: Collection[str], snapshot: Snapshot) -> Turn | None:
    """Return the first turn made by a cell after those that the cells of this run matched."""
    versions = snapshot.state.versions
    following = None
    for turn in reversed(snapshot.turns_ever_current):
        if turn.id in passed or any(previous.id in passed for previous in versions.get(turn.id, ())):
            break
        if turn.cell_source is not None:
            following = turn
    return following
