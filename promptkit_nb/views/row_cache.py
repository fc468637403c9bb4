"""A cache of the rows that views read from a store on disk: the next view reads only what changed."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from promptkit_nb.chat.stored_conversation import stale_turns
from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.frontend import is_batch
from promptkit_nb.views.batches import Batch, TurnLines, batch_of, with_stale_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from promptkit_nb.stores.backend import Backend
    from promptkit_nb.stores.damage import Damage
    from promptkit_nb.stores.row_reader import ConversationRows, ReadPosition, RowReader
    from promptkit_nb.stores.row_store import RowStore
    from promptkit_nb.views.filters import Filters

LINES_PER_BATCH = 10_000

MAX_SLICES = 64
"""A conversation cached in more slices is read again as a whole."""

MIN_TURNS_FOR_PROGRESS = 50_000
"""Fewer turns are read within a second."""

PROGRESS_DELAY_S = 2


class BatchSlice(NamedTuple):
    """Consecutive rows of a batch: half-open ranges of its turns and of their messages."""

    batch: Batch
    turns: tuple[int, int]
    messages: tuple[int, int]

    def joined(self, following: BatchSlice) -> BatchSlice | None:
        """Return both as one slice, or ``None`` if the other does not follow immediately."""
        if self.batch is not following.batch or self.turns[1] != following.turns[0]:
            return None
        return BatchSlice(self.batch, (self.turns[0], following.turns[1]), (self.messages[0], following.messages[1]))

    def rows(self) -> Batch:
        """Return the rows as a separate batch, without copying them."""
        return Batch(self.batch.turns.select(slice(*self.turns)), self.batch.messages.select(slice(*self.messages)))


class CachedConversation(NamedTuple):
    """The rows of a conversation as last read, or with ``is_appended`` only those appended since.

    ``current`` holds the current turns and ``others`` all other rows, which come after them. ``stale`` is the set of
    its stale turns' ids, ``None`` until it is needed.
    """

    position: ReadPosition
    current: tuple[BatchSlice, ...]
    others: BatchSlice
    stale: frozenset[str] | None
    line_count: int
    is_appended: bool = False

    @property
    def slices(self) -> tuple[BatchSlice, ...]:
        """All rows in their order."""
        return (*self.current, self.others) if self.others.turns[0] < self.others.turns[1] else self.current

    def followed_by(self, new: CachedConversation) -> CachedConversation:
        """Return this conversation after a read; appended turns never make an older turn stale."""
        if not new.is_appended:
            return new
        current = (*self.current, *new.current) if new.line_count else self.current
        stale = self.stale if new.stale is not None else None
        return CachedConversation(new.position, current, self.others, stale, self.line_count + new.line_count)


class RowCache:
    """Cached conversations of a store, by id.

    It has no lock, which a forked child process might find locked forever. Its dictionary is replaced as a whole, so
    threads that refresh at the same time only read more than necessary.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._conversations: dict[str, CachedConversation] = {}
        self._lines_read = 0

    def batches(
        self, reader: RowReader, records: Mapping[str, bytes], filters: Filters, damage: Damage, *, with_stale: bool
    ) -> Iterator[Batch]:
        """Read what changed in these conversations, and yield them in order, consecutive rows of a batch together.

        Unreadable conversations are added to ``damage`` instead.
        """
        cached = self._refreshed(reader, records, filters, damage)  # not self: other threads may replace it
        ids = [each for each in records if each in cached]
        stale = _stale_turns(cached, reader, ids, damage) if with_stale else set()
        ids = [each for each in ids if each not in damage.errors]
        for rows in _joined(each_slice for each in ids for each_slice in cached[each].slices):
            yield with_stale_turns(rows.rows(), stale)

    def _refreshed(
        self, reader: RowReader, records: Mapping[str, bytes], filters: Filters, damage: Damage
    ) -> dict[str, CachedConversation]:
        cached = {
            each: found
            for each, found in self._conversations.items()
            if each in records or filters.selects_some_conversations
        }
        if self._lines_read > LINES_PER_BATCH + 2 * sum(found.line_count for found in cached.values()):
            cached, self._lines_read = {}, 0  # most rows in memory are outdated ones, which their batches keep alive
        changed = {each: stored for each, stored in records.items() if not _is_unchanged(cached.get(each), stored)}
        for group in read_in_groups(changed, damage, cached):
            found = _read(reader, group, cached, filters.user_id, damage)
            self._lines_read += sum(each.line_count for each in found.values())
            before = {each: cached.pop(each, None) for each in group}  # a conversation that was deleted stays out
            for each, new in found.items():
                previous = before[each]
                cached[each] = new if previous is None else previous.followed_by(new)
        self._conversations = cached
        return cached


_ROW_CACHES: WeakKeyDictionary[Backend, RowCache] = WeakKeyDictionary()


def row_cache_of(store: RowStore) -> RowCache:
    """Return the cache of a store, which lives as long as its backend; narrowed stores share it."""
    return _ROW_CACHES.setdefault(store.backend, RowCache())


def read_in_groups(
    records: Mapping[str, bytes], damage: Damage, cached: Mapping[str, CachedConversation] = MappingProxyType({})
) -> Iterator[list[str]]:
    """Yield conversations to read together: about ``LINES_PER_BATCH`` turns, or one with more. Show a progress bar."""
    groups: list[tuple[list[str], int]] = []
    group: list[str] = []
    turns = 0
    for each, record in damage.readable(records.items()):
        group.append(each)
        already = cached[each].position.next_place if each in cached else 0
        turns += max(0, record.next_place - already)
        if turns >= LINES_PER_BATCH:
            groups.append((group, turns))
            group, turns = [], 0
    groups.append((group, turns))
    with _progress(sum(turns for _, turns in groups)) as advance:
        for group, turns in groups:
            if group:
                yield group
                advance(turns)


@contextmanager
def _progress(turns: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar after two seconds; not in a batch run, which would save it in the output."""
    if turns < MIN_TURNS_FOR_PROGRESS or is_batch():
        yield lambda _: None
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - a fifth of a second, which few turns do not need

    with tqdm(total=turns, desc="Reading", unit=" turns", unit_scale=True, delay=PROGRESS_DELAY_S, leave=False) as bar:
        yield bar.update


def _read(
    reader: RowReader,
    conversation_ids: Sequence[str],
    cached: Mapping[str, CachedConversation],
    user_id: str | None,
    damage: Damage,
) -> dict[str, CachedConversation]:
    """Read conversations; if one of them is damaged, split them in half until it is alone."""
    try:
        return _read_together(reader, conversation_ids, cached, user_id)
    except StoreCorruptedError as error:
        if len(conversation_ids) == 1:
            damage.add(conversation_ids[0], error)
            return {}
    middle = len(conversation_ids) // 2
    halves = conversation_ids[:middle], conversation_ids[middle:]
    return {each: found for half in halves for each, found in _read(reader, half, cached, user_id, damage).items()}


def _read_together(
    reader: RowReader, conversation_ids: Sequence[str], cached: Mapping[str, CachedConversation], user_id: str | None
) -> dict[str, CachedConversation]:
    """Read conversations, or what was appended to them since, as slices of one batch."""
    positions = {
        each: cached[each].position
        for each in conversation_ids
        if each in cached and len(cached[each].current) < MAX_SLICES
    }
    lines = TurnLines()
    ranges: list[tuple[ConversationRows, int, int]] = []
    for conversation in reader.read(conversation_ids, positions, user_id):
        start = len(lines)
        try:
            lines.add_rows(conversation)
        except KeyError as error:
            raise reader.incomplete(conversation.conversation_id) from error
        ranges.append((conversation, start, len(lines)))
    batch = batch_of(lines)
    first_message = [0, *np.cumsum(batch.turns.arrays["messages"]).tolist()]
    return {
        conversation.conversation_id: _cached(conversation, batch, start, stop, first_message)
        for conversation, start, stop in ranges
    }


def _cached(
    conversation: ConversationRows, batch: Batch, start: int, stop: int, first_message: Sequence[int]
) -> CachedConversation:
    """Return the rows from ``start`` to ``stop``; ``first_message`` is the index of the first message of each turn."""
    before = conversation.since
    middle = start + conversation.record.turn_count - (0 if before is None else before.turn_count)
    has_contexts = batch.turns.arrays["has_context"][start:stop].any()
    return CachedConversation(
        conversation.position,
        (BatchSlice(batch, (start, middle), (first_message[start], first_message[middle])),),
        BatchSlice(batch, (middle, stop), (first_message[middle], first_message[stop])),
        None if has_contexts else frozenset(),
        stop - start,
        is_appended=before is not None,
    )


def _stale_turns(
    cached: dict[str, CachedConversation], reader: RowReader, conversation_ids: Iterable[str], damage: Damage
) -> set[tuple[str, str]]:
    """Return the stale turns of these conversations, by conversation and id."""
    stale: set[tuple[str, str]] = set()
    for each in conversation_ids:
        try:
            stale |= {(each, turn_id) for turn_id in _stale_of(cached, reader, each)}
        except StoreCorruptedError as error:
            damage.add(each, error)
    return stale


def _stale_of(cached: dict[str, CachedConversation], reader: RowReader, conversation_id: str) -> frozenset[str]:
    found = cached[conversation_id]
    if found.stale is not None:
        return found.stale
    state = reader.state(conversation_id)
    stale = frozenset() if state is None else stale_turns(state)
    cached[conversation_id] = found._replace(stale=stale)
    return stale


def _joined(slices: Iterable[BatchSlice]) -> Iterator[BatchSlice]:
    run: BatchSlice | None = None
    for each in slices:
        longer = None if run is None else run.joined(each)
        if run is not None and longer is None:
            yield run
        run = longer or each
    if run is not None:
        yield run


def _is_unchanged(cached: CachedConversation | None, stored_record: bytes) -> bool:
    return cached is not None and cached.position.stored_record == stored_record
