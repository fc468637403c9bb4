"""What was read from a store of rows, kept: the next look reads only what changed since."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from promptkit_nb.chat.snapshot import stale_turns
from promptkit_nb.frontend import is_batch
from promptkit_nb.stores.feed import record_of
from promptkit_nb.views.batches import Batch, batch_of, marked
from promptkit_nb.views.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.stores.backend import Backend
    from promptkit_nb.stores.feed import ConversationRows, Feed, Seen
    from promptkit_nb.stores.row_store import RowStore
    from promptkit_nb.views.filters import Filters

FEWEST_TURNS = 50_000
"""Fewer are read within a second."""

DELAY_S = 2


@contextmanager
def reading(turns: int) -> Iterator[Callable[[int], object]]:
    """Give what is to be called with each number of turns read; a bar shows after two seconds, and goes at the end.

    In a batch run there is none, as it would be in the saved output.
    """
    if turns < FEWEST_TURNS or is_batch():
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - a fifth of a second, which few turns do not need

    with tqdm(total=turns, desc="Reading", unit=" turns", unit_scale=True, delay=DELAY_S, leave=False) as bar:
        yield bar.update


LINES_AT_ONCE = 10_000

MOST_PIECES = 64
"""In how many pieces a conversation may be kept; with one more, all of it is read anew."""


class Piece(NamedTuple):
    """Rows of a batch, from a first one to before the last: of its turns, and of its messages."""

    batch: Batch
    turns: tuple[int, int]
    messages: tuple[int, int]

    def with_next(self, following: Piece) -> Piece | None:
        """Return both as one, ``None`` unless they follow each other."""
        if self.batch is not following.batch or self.turns[1] != following.turns[0]:
            return None
        return Piece(self.batch, (self.turns[0], following.turns[1]), (self.messages[0], following.messages[1]))

    def rows(self) -> Batch:
        """Return the rows alone; nothing is copied."""
        (start, stop), (first, last) = self.turns, self.messages
        return Batch(self.batch.turns.slice(start, stop - start), self.batch.messages.slice(first, last - first))


class Kept(NamedTuple):
    """One conversation as it was read last, or (``goes_on``) what was appended since.

    ``current`` are the turns that stand in it, ``others`` all other rows, which stand behind them; ``stale`` are ids of
    its turns, ``None`` until they are asked for.
    """

    seen: Seen
    current: tuple[Piece, ...]
    others: Piece
    stale: frozenset[str] | None
    goes_on: bool = False

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All rows in their order."""
        return (*self.current, self.others) if self.others.turns[0] < self.others.turns[1] else self.current


class KeptStore:
    """Conversations of a store by their ids.

    It has no lock, which a forked child could never get again: what it holds is replaced at once, and threads that
    look at the same time cost each other a reading.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._kept: dict[str, Kept] = {}
        self._lines_read = 0

    def refresh(self, feed: Feed, records: Mapping[str, bytes], filters: Filters) -> None:
        """Read what changed in these conversations."""
        kept = {each: found for each, found in self._kept.items() if each in records or filters.narrow_conversations}
        if self._lines_read > LINES_AT_ONCE + 2 * sum(map(_line_count, kept.values())):
            kept, self._lines_read = {}, 0  # most lines in memory are those of conversations that were read anew since
        changed = {each: stored for each, stored in records.items() if not _is_as_seen(kept.get(each), stored)}
        groups = list(groups_of(changed, kept))
        with reading(sum(turns for _, turns in groups)) as advance:
            for group, turns in groups:
                found = _read(feed, group, kept, filters.user_id)
                self._lines_read += sum(map(_line_count, found.values()))
                before = {each: kept.pop(each, None) for each in group}  # one that is gone since stays so
                kept |= {each: _behind(before[each], new) for each, new in found.items()}
                advance(turns)
        self._kept = kept

    def batches(self, feed: Feed, conversation_ids: Iterable[str], *, with_stale: bool) -> Iterator[Batch]:
        """Yield these conversations in their order; what stands together in memory, at once."""
        kept = self._kept  # another thread may replace it meanwhile
        ids = [each for each in conversation_ids if each in kept]
        stale = {(each, turn_id) for each in ids for turn_id in _stale_of(kept, feed, each)} if with_stale else set()
        for piece in _joined(piece for each in ids for piece in kept[each].pieces):
            yield marked(piece.rows(), stale)


_KEPT: WeakKeyDictionary[Backend, KeptStore] = WeakKeyDictionary()


def kept_of(store: RowStore) -> KeptStore:
    """Return what is kept of a store as long as its backend lives, which narrowed stores share."""
    return _KEPT.setdefault(store.backend, KeptStore())


def groups_of(
    records: Mapping[str, bytes], kept: Mapping[str, Kept] = MappingProxyType({})
) -> Iterator[tuple[list[str], int]]:
    """Yield conversations to be read at once, and how many turns of them: about ``LINES_AT_ONCE``, or one with more."""
    group: list[str] = []
    turns = 0
    for each, stored in records.items():
        group.append(each)
        already = kept[each].seen.next_place if each in kept else 0
        turns += max(0, record_of(stored, each).next_place - already)
        if turns >= LINES_AT_ONCE:
            yield group, turns
            group, turns = [], 0
    if group:
        yield group, turns


def _read(
    feed: Feed, conversation_ids: Sequence[str], kept: Mapping[str, Kept], user_id: str | None
) -> dict[str, Kept]:
    """Return conversations, or what was appended to them since, as pieces of one batch."""
    seen = {
        each: kept[each].seen for each in conversation_ids if each in kept and len(kept[each].current) < MOST_PIECES
    }
    lines = Lines()
    spans: list[tuple[ConversationRows, int, int]] = []
    for conversation in feed.read(conversation_ids, seen, user_id):
        start = len(lines)
        try:
            lines.add_stored(conversation)
        except KeyError as error:
            raise feed.incomplete(conversation.conversation_id) from error
        spans.append((conversation, start, len(lines)))
    batch = batch_of(lines)
    said = [0, *np.cumsum(batch.turns["messages"].to_numpy()).tolist()]
    return {
        conversation.conversation_id: _kept(conversation, batch, start, stop, said)
        for conversation, start, stop in spans
    }


def _stale_of(kept: dict[str, Kept], feed: Feed, conversation_id: str) -> frozenset[str]:
    found = kept[conversation_id]
    if found.stale is not None:
        return found.stale
    state = feed.state(conversation_id)
    stale = frozenset() if state is None else stale_turns(state)
    kept[conversation_id] = found._replace(stale=stale)
    return stale


def _kept(conversation: ConversationRows, batch: Batch, start: int, stop: int, said: Sequence[int]) -> Kept:
    """Return the lines from ``start`` to before ``stop``; ``said`` is how many messages stand before each line."""
    before = conversation.since
    middle = start + conversation.record.turn_count - (0 if before is None else before.turn_count)
    has_contexts = any(b'"context_hash"' in line for line in conversation.lines.values())
    return Kept(
        conversation.seen,
        (Piece(batch, (start, middle), (said[start], said[middle])),),
        Piece(batch, (middle, stop), (said[middle], said[stop])),
        None if has_contexts else frozenset(),
        goes_on=before is not None,
    )


def _behind(before: Kept | None, new: Kept) -> Kept:
    """Return what was read now, behind what it goes on from; nothing that was appended makes an older turn stale."""
    if before is None or not new.goes_on:
        return new
    grown = new.current if _line_count(new) else ()
    return Kept(new.seen, (*before.current, *grown), before.others, before.stale if new.stale is not None else None)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    run: Piece | None = None
    for piece in pieces:
        longer = None if run is None else run.with_next(piece)
        if run is not None and longer is None:
            yield run
        run = longer or piece
    if run is not None:
        yield run


def _is_as_seen(kept: Kept | None, stored_record: bytes) -> bool:
    return kept is not None and kept.seen.stored_record == stored_record


def _line_count(kept: Kept) -> int:
    return sum(stop - start for _, (start, stop), _ in kept.pieces)
