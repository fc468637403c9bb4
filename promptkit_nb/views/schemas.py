"""The columns of each view: their names, dtypes and meanings, in their order."""

from __future__ import annotations

import re
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
_USER_ID = Column("user_id", "category", "the user who owns the conversation")
_TURN_ID = Column("turn_id", "str", "the turn; missing for a summary")
_POSITION = Column("position", "Int64", "the turn's index in its conversation, from 0; missing if it is not current")
_MODEL = Column("model", "category", "the model that answered, as the server reports it")
_PROVIDER = Column("provider", "category", "the provider, such as openai")
_SOURCE = Column("source", "category", "promptkit_nb, or the tool that the conversation was imported from")
_PRICE_SOURCE = Column(
    "price_source", "category", "reported (by the server), list (of prices), or yours; missing if unknown"
)
_CELL_ID = Column("cell_id", "category", "the notebook cell that made the turn, if any")
_REPLAYED = Column("replayed", "bool", "whether the answer was replayed from the store, free of charge")
_INTERRUPTED = Column("interrupted", "bool", "whether the answer was stopped before its end")
_STATUS = Column("status", "category", "current, replaced, archived, inherited (copied by a fork) or summary")
_BRANCH = Column("branch", "category", "the branch of an archived turn")

_USAGE = (
    Column("input_tokens", "Int64", "tokens of the request"),
    Column("output_tokens", "Int64", "tokens of the answer"),
    Column("cached_tokens", "Int64", "the part of input_tokens that the provider read from its cache"),
    Column("reasoning_tokens", "Int64", "the part of output_tokens that the model reasoned with"),
    Column("total_tokens", "Int64", "input_tokens + output_tokens"),
    Column("cache_write_tokens", "Int64", "the part of input_tokens that the provider wrote to its cache"),
)

CONVERSATIONS: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    Column("turns", "Int64", "current turns, including inherited ones"),
    Column("messages", "Int64", "messages of these turns"),
    Column("stale_turns", "Int64", "current turns whose context changed since they were answered"),
    Column("total_tokens", "Int64", "all tokens ever spent in it"),
    Column("cost_usd", "float64", "all known costs ever spent in it, in US dollars; missing if none is known"),
    Column("unpriced_turns", "Int64", "turns that are not in cost_usd because their price is unknown"),
    Column("model", "category", "the model that answered the newest turn"),
    _SOURCE,
    Column("price_source", "category", "the source of its costs: list if any is from the list, else yours if any"),
    Column("title", "str", "its title; missing if it has none"),
    Column("metadata", "str", "its metadata, as JSON"),
    Column("created_at", TIME, "when it was created"),
    Column("updated_at", TIME, "when it was last written"),
)

TURNS: Schema = (
    _CONVERSATION_ID,
    _USER_ID,
    _TURN_ID,
    _POSITION,
    Column("created_at", TIME, "when it was answered"),
    Column("user_text", "str", "the message of the user"),
    Column("text", "str", "the final answer of the model"),
    Column("messages", "Int64", "the number of its messages"),
    _MODEL,
    _PROVIDER,
    _SOURCE,
    *_USAGE,
    Column("estimated", "bool", "whether the tokens were counted offline because the provider did not report them"),
    Column("cost_usd", "float64", "US dollars; missing if the price is unknown, 0 for a replay"),
    Column("saved_usd", "float64", "the original cost of a replayed answer, in US dollars"),
    _PRICE_SOURCE,
    Column("latency_ms", "float64", "from the request to the end of the answer; of a replay, the recorded one"),
    Column("tokens_per_second", "float64", "output_tokens divided by latency_ms / 1000"),
    Column("finish_reason", "category", "why the answer ended: stop, length, interrupted, …"),
    Column("truncated", "Int64", "older turns that were left out of the request"),
    _CELL_ID,
    Column("row_index", "str", "the index label of the first row of a DataFrame that asked this, if any did"),
    _REPLAYED,
    _INTERRUPTED,
    Column("stale", "bool", "whether its context changed since it was answered"),
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
    Column("reasoning", "str", "the reasoning before it, if the provider reports it"),
    Column("tool_calls", "str", "the tools that the model called, as JSON"),
    Column("tool_name", "str", "the tool whose result it is"),
    Column("tool_call_id", "str", "the call whose result it is"),
    Column("created_at", TIME, "when it was written; if unknown, when its turn was answered"),
    _MODEL,
    _PROVIDER,
    _SOURCE,
    _PRICE_SOURCE,
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
    Column("snippet", "str", "the text around the first match, on one line"),
    Column("created_at", TIME, "when it was written; if unknown, when its turn was answered"),
    _MODEL,
    _SOURCE,
    _STATUS,
)

KEYS: Schema = (
    Column("hour", TIME, "the start of the hour, in UTC or in tz"),
    Column("day", TIME, "the start of the day, in UTC or in tz"),
    Column("week", TIME, "the Monday that starts the week, in UTC or in tz"),
    Column("month", TIME, "the first day of the month, in UTC or in tz"),
    _CONVERSATION_ID,
    _USER_ID,
    _MODEL,
    _PROVIDER,
    _SOURCE,
    _PRICE_SOURCE,
    _CELL_ID,
    Column("finish_reason", "category", "why the answer ended: stop, length, interrupted, …"),
    Column("status", "category", "that of the turns, or dropped, or kept (no turn is stored any more)"),
)

USAGE: Schema = (
    Column("turns", "Int64", "turns and summaries that were paid for"),
    *_USAGE,
    Column("cost_usd", "float64", "the known costs in US dollars; missing if none is known"),
    Column("unpriced_turns", "Int64", "turns that are not in cost_usd because their price is unknown"),
)


def documents(schema: Schema) -> Callable[[F], F]:
    """Replace ``{columns}`` in a function's docstring with the table of a schema, indented like code."""

    def describe(function: F) -> F:
        # Python 3.13 removes the indentation of docstrings.
        place = re.compile(r"^( *)\{columns\}", re.MULTILINE)
        table = table_of(schema)
        function.__doc__ = place.sub(lambda found: indent(table, f"{found[1]}    "), function.__doc__ or "")
        return function

    return describe


def table_of(schema: Schema) -> str:
    """Return the schema as a text table.

    >>> print(table_of(USAGE[-2:]))
    cost_usd        float64  the known costs in US dollars; missing if none is known
    unpriced_turns  Int64    turns that are not in cost_usd because their price is unknown
    """
    names = max(len(column.name) for column in schema)
    dtypes = max(len(column.dtype) for column in schema)
    return "\n".join(f"{column.name:{names}}  {column.dtype:{dtypes}}  {column.meaning}" for column in schema)
