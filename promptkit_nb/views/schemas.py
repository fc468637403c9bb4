"""The columns of each view: their names in their order, what they hold and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

Dtype = Literal["category", "str", "Int64", "float64", "bool", "datetime64[us, UTC]"]

TIME: Dtype = "datetime64[us, UTC]"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a DataFrame."""

    name: str
    dtype: Dtype
    meaning: str


Schema = tuple[Column, ...]

_CONVERSATION_ID = Column("conversation_id", "category", "the conversation")
_USER_ID = Column("user_id", "category", "whose conversation it is")
_TURN_ID = Column("turn_id", "str", "the turn; missing for a summary")
_POSITION = Column("position", "Int64", "where the turn stands in its conversation, from 0; missing where it does not")
_MODEL = Column("model", "category", "who answered, as the server says")
_PROVIDER = Column("provider", "category", "such as openai")
_CELL_ID = Column("cell_id", "category", "the notebook cell that made the turn, if one did")
_REPLAYED = Column("replayed", "bool", "whether a stored answer was given again, for nothing")
_INTERRUPTED = Column("interrupted", "bool", "whether the answer was stopped before its end")
_STATUS = Column("status", "category", "current, replaced, archived, inherited (copied by a fork) or summary")
_BRANCH = Column("branch", "category", "the branch of an archived turn")

_USAGE = (
    Column("input_tokens", "Int64", "tokens of the request"),
    Column("output_tokens", "Int64", "tokens of the answer"),
    Column("cached_tokens", "Int64", "the part of input_tokens that the provider had cached"),
    Column("reasoning_tokens", "Int64", "the part of output_tokens that the model thought with"),
    Column("total_tokens", "Int64", "input and output"),
)

CONVERSATIONS: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    Column("turns", "Int64", "turns that stand in it, inherited ones included"),
    Column("messages", "Int64", "messages of these turns"),
    Column("stale_turns", "Int64", "turns whose context today is another than the one they were answered in"),
    Column("total_tokens", "Int64", "all tokens ever spent in it"),
    Column("cost_usd", "float64", "all known costs ever spent in it, in US dollars; missing where none is known"),
    Column("unpriced_turns", "Int64", "how many turns are not in cost_usd, as their price is unknown"),
    Column("model", "category", "who answered the newest turn"),
    Column("metadata", "str", "what was stored beside it, as JSON"),
    Column("created_at", TIME, "when it was created"),
    Column("updated_at", TIME, "when it was last written"),
)

TURNS: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    _TURN_ID,
    _POSITION,
    Column("created_at", TIME, "when it was answered"),
    Column("user_text", "str", "what the user said"),
    Column("text", "str", "what the model answered in the end"),
    Column("messages", "Int64", "how many messages it has"),
    _MODEL,
    _PROVIDER,
    *_USAGE,
    Column("estimated", "bool", "whether the tokens were counted here, as the provider did not report them"),
    Column("cost_usd", "float64", "US dollars; missing where the price is unknown, 0 for a replay"),
    Column("saved_usd", "float64", "what a replayed answer cost when it was made, in US dollars"),
    Column("latency_ms", "float64", "from request to the end of the answer; of a replay, as it was then"),
    Column("tokens_per_second", "float64", "output_tokens over latency_ms"),
    Column("finish_reason", "category", "why the answer ended: stop, length, interrupted, …"),
    Column("truncated", "Int64", "how many older turns were left out of the request"),
    _CELL_ID,
    _REPLAYED,
    _INTERRUPTED,
    Column("stale", "bool", "whether its context today is another than the one it was answered in"),
    _STATUS,
    _BRANCH,
)

MESSAGES: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    _TURN_ID,
    _POSITION,
    Column("role", "category", "user, assistant or tool"),
    Column("content", "str", "the text"),
    Column("reasoning", "str", "what the model thought before it, where the provider tells"),
    Column("tool_calls", "str", "the tools that the model called, as JSON"),
    Column("created_at", TIME, "when it was said; else when its turn was answered"),
    _MODEL,
    _PROVIDER,
    _CELL_ID,
    _REPLAYED,
    _INTERRUPTED,
    _STATUS,
    _BRANCH,
)

SEARCH_RESULTS: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    _TURN_ID,
    _POSITION,
    Column("role", "category", "user, assistant or tool"),
    Column("snippet", "str", "the text around the first word that was found, on one line"),
    Column("created_at", TIME, "when it was said; else when its turn was answered"),
    _MODEL,
    _STATUS,
)

KEYS: Schema = (
    Column("hour", TIME, "the hour in UTC, by its beginning"),
    Column("day", TIME, "the day in UTC, by its beginning"),
    Column("week", TIME, "the week in UTC, by its Monday"),
    Column("month", TIME, "the month in UTC, by its first day"),
    _CONVERSATION_ID,
    _USER_ID,
    _MODEL,
    _PROVIDER,
    _CELL_ID,
    Column("finish_reason", "category", "why the answer ended: stop, length, interrupted, …"),
    _STATUS,
)

USAGE: Schema = (
    Column("turns", "Int64", "turns that were paid for, and summaries"),
    *_USAGE,
    Column("cost_usd", "float64", "the known costs in US dollars; missing where none is known"),
    Column("unpriced_turns", "Int64", "how many of them are not in cost_usd, as their price is unknown"),
)


def documents(schema: Schema) -> Callable[[F], F]:
    """Put the table of a schema in place of ``{columns}`` in a function's docstring, indented as code is."""

    def describe(function: F) -> F:
        function.__doc__ = (function.__doc__ or "").replace("    {columns}", indent(table_of(schema), " " * 8))
        return function

    return describe


def table_of(schema: Schema) -> str:
    """Return the schema as a table to read.

    >>> print(table_of(USAGE[-2:]))
    cost_usd        float64  the known costs in US dollars; missing where none is known
    unpriced_turns  Int64    how many of them are not in cost_usd, as their price is unknown
    """
    names = max(len(column.name) for column in schema)
    dtypes = max(len(column.dtype) for column in schema)
    return "\n".join(f"{column.name:{names}}  {column.dtype:{dtypes}}  {column.meaning}" for column in schema)
