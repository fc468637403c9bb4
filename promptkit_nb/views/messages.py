"""Messages as a DataFrame, all of them or those that contain some words."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from promptkit_nb.characters import folded
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.views.batches import Batch, TurnLines, batch_of
from promptkit_nb.views.columns import MISSING, Columns, frame_of, texts
from promptkit_nb.views.filters import Filters, Moment, Status, is_shown
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import MESSAGES, SEARCH_RESULTS, documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import PriceSource
    from promptkit_nb.views.zones import TimeZone

CHARACTERS_BEFORE = 30
SNIPPET_CHARACTERS = 100

_WORDS = re.compile(r'"([^"]+)"|(\S+)')


@documents(MESSAGES)
def messages_df(
    store: StateStore,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    source: str | None = None,
    price_source: PriceSource | None = None,
    conversation_id: str | None = None,
    tz: TimeZone | None = None,
    status: Status = "current",
    naive_utc: bool = False,
) -> pd.DataFrame:
    """Return one row per message, ordered by conversation id.

    The system prompt has no row: it belongs to no turn. Tokens and costs belong to turns, see ``turns_df``.

    Its columns, in this order:

    {columns}

    The filters, ``naive_utc``, and the errors they raise are those of ``turns_df``: a message is shown if its turn is.

    >>> from promptkit_nb import MemoryStore, Message, Turn, messages_df
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello"))))
    >>> messages_df(store)[["conversation_id", "role", "content"]]
      conversation_id       role content
    0               a       user      Hi
    1               a  assistant   Hello
    """
    filters = Filters.given(locals())
    return frame_of([*_shown_messages(store, filters)], MESSAGES, is_naive=naive_utc)


@documents(SEARCH_RESULTS)
def search(
    store: StateStore,
    text: str,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    source: str | None = None,
    price_source: PriceSource | None = None,
    conversation_id: str | None = None,
    tz: TimeZone | None = None,
    status: Status = "current",
    naive_utc: bool = False,
) -> pd.DataFrame:
    """Return one row for each message that contains all of these words, in the order of ``messages_df``.

    Case is ignored, in every script, and so is the encoding of accents. A word may be part of a longer one;
    ``"words in quotes"`` must occur exactly as given.

    Its columns, in this order:

    {columns}

    The filters, ``naive_utc``, and the errors they raise are those of ``turns_df``; a text without words raises
    ``InvalidArgumentError``.

    >>> from promptkit_nb import MemoryStore, Message, Turn, search
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "My name is Alice"), Message("assistant", "Hello"))))
    >>> search(store, "alice name")[["conversation_id", "role", "snippet"]]
      conversation_id  role           snippet
    0               a  user  My name is Alice
    """
    words = words_in(text)
    filters = Filters.given(locals())
    found = [_matching(messages, words) for messages in _shown_messages(store, filters)]
    return frame_of(found, SEARCH_RESULTS, is_naive=naive_utc)


def current_messages_df(state: ConversationState) -> pd.DataFrame:
    """Return the messages of a conversation's current turns, including those that a fork copied."""
    lines = TurnLines()
    lines.add_state(state)
    batch = batch_of(lines)
    return frame_of([messages_of(batch, batch.turns.arrays["position"] != MISSING)], MESSAGES)


def _shown_messages(store: StateStore, filters: Filters) -> Iterator[Columns]:
    for batch in batches_of(store, filters):
        yield messages_of(batch, is_shown(batch.turns, filters))


def messages_of(batch: Batch, turns: NDArray[np.bool_]) -> Columns:
    """Return the messages of some turns."""
    return batch.messages if turns.all() else batch.messages.select(np.repeat(turns, batch.turns.arrays["messages"]))


def words_in(text: str) -> list[str]:
    """Return the words of a search, and its quoted phrases as they are.

    >>> words_in('tea "per kg"')
    ['tea', 'per kg']
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(f"text={text!r:.80} is not text: give words to search for.")
    words = [quoted.strip() or word for quoted, word in _WORDS.findall(text)]
    if not any(words):
        raise InvalidArgumentError(f"text={text!r:.80} contains no word: give words to search for.")
    return [word for word in words if word]


def _matching(messages: Columns, words: Sequence[str]) -> Columns:
    """Return the messages that contain all words, with a snippet of each."""
    words = [*map(folded, words)]
    are_found = [all(word in text for word in words) for text in map(folded, np.asarray(messages.arrays["content"]))]
    messages = messages.select(np.array(are_found, bool))
    contents = np.asarray(messages.arrays["content"])
    return messages.with_arrays(snippet=texts([_snippet(content, words) for content in contents]))


def _snippet(content: str, words: Sequence[str]) -> str:
    """Return the text around the first match of a folded word, on one line."""
    start = max(0, min(_start_of(word, content) for word in words) - CHARACTERS_BEFORE)
    stop = start + SNIPPET_CHARACTERS
    return f"{'…' * (start > 0)}{one_line(content[start:stop])}{'…' * (stop < len(content))}"


def _start_of(word: str, content: str) -> int:
    """Return the position of a folded word in a text that contains it; folding may change the length of a text."""
    if content.isascii():
        return content.lower().index(word)
    end = bisect_left(range(len(content)), True, key=lambda end: word in folded(content[:end]))  # noqa: FBT003 - a key
    return max(0, end - len(word))
