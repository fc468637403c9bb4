"""Messages as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.views.batches import batch_of
from promptkit_nb.views.filters import Filters, frame_of, is_shown
from promptkit_nb.views.lines import Lines
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import MESSAGES, described_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from promptkit_nb.state import ConversationState
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.batches import Batch
    from promptkit_nb.views.filters import Moment, Status


@described_by(MESSAGES)
def messages_df(
    store: StateStore,
    *,
    user_id: str | None = None,
    prefix: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    model: str | None = None,
    conversation_id: str | None = None,
    status: Status = "current",
) -> pd.DataFrame:
    """Return one row a message, conversation by conversation in the order of their ids.

    The system prompt is no row: it belongs to no turn. Tokens and costs are those of turns, see ``turns_df``.

    Its columns, in this order:

    {columns}

    The filters, and what they raise, are those of ``turns_df``: a message is shown with its turn.

    >>> from promptkit_nb import MemoryStore, Message, Turn, messages_df
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello"))))
    >>> messages_df(store)[["conversation_id", "role", "content"]]
      conversation_id       role content
    0               a       user      Hi
    1               a  assistant   Hello
    """
    filters = Filters.of(
        user_id=user_id,
        prefix=prefix,
        since=since,
        until=until,
        model=model,
        conversation_id=conversation_id,
        status=status,
    )
    return frame_of(pa.Table.from_batches(message_batches(store, filters)), MESSAGES)


def standing_messages(state: ConversationState) -> pd.DataFrame:
    """Return the messages of the turns that stand in a conversation, those that a fork copied included."""
    lines = Lines()
    lines.add_state(state)
    batch = batch_of(lines)
    return frame_of(pa.Table.from_batches([_shown(batch, pc.is_valid(batch.turns["position"]))]), MESSAGES)


def message_batches(store: StateStore, filters: Filters) -> Iterator[pa.RecordBatch]:
    """Yield the messages that the filters let through, with the columns of their turns."""
    for batch in batches_of(store, filters):
        yield _shown(batch, is_shown(batch.turns, filters))


def _shown(batch: Batch, shown: pa.BooleanArray) -> pa.RecordBatch:
    """Return the messages of the turns that are shown."""
    of_shown = np.repeat(shown.to_numpy(zero_copy_only=False), batch.turns["messages"].to_numpy())
    return batch.messages if of_shown.all() else batch.messages.filter(pa.array(of_shown))
