"""Searching what was said, as a DataFrame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.views.batches import TEXT
from promptkit_nb.views.filters import Filters, frame_of
from promptkit_nb.views.messages import message_batches
from promptkit_nb.views.schemas import HITS, described_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import Moment, Status

BEFORE_CHARACTERS = 30
SNIPPET_CHARACTERS = 100

_WORDS = re.compile(r'"([^"]+)"|(\S+)')


@described_by(HITS)
def search(
    store: StateStore,
    text: str,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    conversation_id: str | None = None,
    status: Status = "current",
) -> pd.DataFrame:
    """Return one row for each message in which all of these words occur, in the order of ``messages_df``.

    Upper and lower case are alike, and a word may be part of another; ``"words in quotes"`` are looked for as they
    stand there.

    Its columns, in this order:

    {columns}

    The filters, and what they raise, are those of ``turns_df``; a text without words raises
    ``InvalidArgumentError``, too.

    >>> from promptkit_nb import MemoryStore, Message, Turn, search
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "My name is Alice"), Message("assistant", "Hello"))))
    >>> search(store, "alice name")[["conversation_id", "role", "snippet"]]
      conversation_id  role           snippet
    0               a  user  My name is Alice
    """
    words = _words_in(text)
    filters = Filters.of(
        user_id=user_id,
        prefix=prefix,
        since=since,
        until=until,
        model=model,
        conversation_id=conversation_id,
        status=status,
    )
    found = [_matching(messages, words) for messages in message_batches(store, filters)]
    table = pa.Table.from_batches(found)
    snippets = pa.array([_snippet(content, words) for content in table["content"].to_pylist()], TEXT)
    return frame_of(table.append_column("snippet", snippets), HITS)


def _words_in(text: str) -> list[str]:
    if not isinstance(text, str):
        raise InvalidArgumentError(f"text={text!r:.80} is no text: give words to search for.")
    words = [quoted.strip() or word for quoted, word in _WORDS.findall(text)]
    if not any(words):
        raise InvalidArgumentError(f"text={text!r:.80} holds no word: give words to search for.")
    return [word for word in words if word]


def _matching(messages: pa.RecordBatch, words: Sequence[str]) -> pa.RecordBatch:
    for word in words:
        messages = messages.filter(pc.match_substring(messages["content"], word, ignore_case=True))
    return messages


def _snippet(content: str, words: Sequence[str]) -> str:
    """Return what stands around the word that is found first, on one line."""
    found = (re.search(re.escape(word), content, re.IGNORECASE) for word in words)
    first = min((match.start() for match in found if match), default=0)
    start = max(0, first - BEFORE_CHARACTERS)
    stop = start + SNIPPET_CHARACTERS
    return f"{'…' * (start > 0)}{one_line(content[start:stop])}{'…' * (stop < len(content))}"
