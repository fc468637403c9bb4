"""The tool calls of a turn as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from promptkit_nb.tools.calls import ToolRun
    from promptkit_nb.turns import ToolCall, Turn

ERROR = "Error: "
"""The beginning of the result of a failed call."""


def tool_calls_df(turn: Turn, runs: Sequence[ToolRun] = ()) -> pd.DataFrame:
    """Return one row for each tool call of a turn; ``runs`` has the durations, if this kernel ran them."""
    import pandas as pd  # noqa: PLC0415 - half a second

    from promptkit_nb.text.text_frame import TextFrame  # noqa: PLC0415 - pandas

    seconds = {run.call.id: run.seconds for run in runs}
    rounds = _rounds(turn)
    calls = [(call, told) for call, told, _ in answered_calls(turn)]
    results = [None if told.startswith(ERROR) else told for _, told in calls]
    errors = [told.removeprefix(ERROR) if told.startswith(ERROR) else None for _, told in calls]
    return TextFrame(
        {
            "round": pd.array([rounds[call.id] for call, _ in calls], dtype="Int64"),
            "tool": pd.array([call.name for call, _ in calls], dtype="str"),
            "arguments": pd.array([call.arguments for call, _ in calls], dtype="str"),
            "result": pd.array(results, dtype="str"),
            "seconds": pd.array([seconds.get(call.id) for call, _ in calls], dtype="Float64"),
            "error": pd.array(errors, dtype="str"),
        }
    )


def answered_calls(turn: Turn) -> Iterator[tuple[ToolCall, str, str]]:
    """Yield each call that has a result, the result, and for the first call of an answer the answer's text."""
    results = {message.tool_call_id: message.content for message in turn.messages if message.role == "tool"}
    for message in turn.messages:
        said = message.text
        for call in message.tool_calls:
            if call.id in results:
                yield call, results[call.id], said
                said = ""


def _rounds(turn: Turn) -> dict[str, int]:
    """Return the round of each call, by its id."""
    calling = (message for message in turn.messages if message.tool_calls)
    return {call.id: number for number, message in enumerate(calling, 1) for call in message.tool_calls}
