"""How a store deletes one conversation, those of a prefix, or old ones in batches. Their cost is kept.

Conversations are read before the transaction that deletes them, because other writers wait for that transaction.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from promptkit_nb.errors import StoreCorruptedError
from promptkit_nb.ids import check_conversation_id, check_own_user
from promptkit_nb.stores import checks
from promptkit_nb.stores.base import Duration, PeriodicCleanup
from promptkit_nb.stores.damage import Damage
from promptkit_nb.stores.kept_usage import (
    KeptUsage,
    PaidCall,
    PaidCalls,
    amounts_in,
    by_row,
    calls_in,
    packed,
    row_of,
    row_of_calls,
    summed,
    unpacked,
)
from promptkit_nb.stores.layout import ASIDE, Record, record_of
from promptkit_nb.stores.row_access import RowAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.turns import Turn

T = TypeVar("T")

BATCH_IDS = 100
BATCH_TURNS = 500
BUSY_S = 0.03
"""How long one batch of a cleanup blocks other writers, and other threads, in seconds."""

PAUSE_S = 0.03
"""Pause between two batches in seconds: a writer that waits in SQLite first tries again within 25 ms."""

NEWEST = "newest"
"""The row with the time of the newest turn with a kept hash, in seconds: any newer turn is a new one."""


class RowErasure(RowAccess):
    """Deletes conversations; the docstrings of ``StateStore`` apply."""

    def delete(self, conversation_id: str, *, keep_spending: bool = True, expected_revision: int | None = None) -> None:
        """Delete the conversation permanently; its cost is kept."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        paid = self._paid_by([conversation_id]) if keep_spending else {}

        def delete() -> None:
            record = self._visible(conversation_id)
            checks.check_revision(conversation_id, record.revision, expected_revision)
            self._erase_all({conversation_id: record}, paid, keep_spending=keep_spending)

        self.backend.run(delete, write=True)
        self._erase_rest()

    def delete_prefix(self, prefix: str, *, keep_spending: bool = True) -> tuple[str, ...]:
        """Delete the conversations whose id has the prefix, in one transaction; return their ids, sorted."""
        prefix = self.stored_prefix(check_conversation_id(prefix))
        ids = self.backend.run(partial(self._ids, prefix), write=False)
        paid: dict[bytes, PaidCalls] = {}
        damage = Damage()
        for part in _batches(ids, BATCH_IDS) if keep_spending else ():
            paid |= self._paid_by(part)

        def delete() -> tuple[str, ...]:
            found = dict(damage.readable(self.backend.records(prefix, self.user_id)))
            self._erase_all(found, paid, keep_spending=keep_spending)
            return tuple(sorted(found))

        deleted = self.backend.run(delete, write=True)
        self._erase_rest()
        damage.warn(self.backend.where)
        return deleted

    def cleanup(self, older_than: Duration | datetime, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete what was last updated before then, and what has expired; return the ids, sorted."""
        cutoff = checks.cutoff_of("older_than", older_than, self._clock())
        deleted: list[str] = []
        damage = Damage()
        if not dry_run:
            self.backend.run(self._keep_dropped, write=True)
        for part in _batches(self.conversation_ids(), BATCH_IDS):
            old, ahead = self.backend.run(partial(self._old, part, cutoff, damage), write=False)
            if dry_run:
                deleted += old
                continue
            if ahead:
                self.backend.run(partial(self._age, [*ahead], cutoff), write=True)
            for some in _parts_by_turns(old):
                paid = self._paid_by(some)
                left: Sequence[str] = some
                while left:
                    done, left = self.backend.run(partial(self._erase_old, left, cutoff, paid), write=True)
                    deleted += done
                    self._let_others_write()
        self._erase_rest()
        damage.warn(self.backend.where)
        return tuple(sorted(deleted))

    def start_cleanup(self, every: Duration, older_than: Duration | datetime) -> PeriodicCleanup:
        """Clean up periodically on a thread, until its ``stop()`` or ``close()``."""
        self.cleanup(older_than, dry_run=True)  # raises errors here, before they are only logged in the background
        self._cleanups.append(PeriodicCleanup(lambda: self.cleanup(older_than), checks.seconds_of("every", every)))
        return self._cleanups[-1]

    def kept_usage(self, *, user_id: str | None = None) -> tuple[KeptUsage, ...]:
        """Return what was paid for turns that are not stored any more."""
        check_own_user(self.user_id, user_id)
        user_id = self.user_id or (None if user_id is None else self.stored_user(user_id))
        return self.backend.run(partial(self._kept_usage, user_id), write=False)

    def conversation_ids(self) -> tuple[str, ...]:
        """Return the ids of all conversations, sorted, including damaged ones."""
        ids: dict[str, None] = {}  # sorted already, in most stores, which makes sorting fast
        start, is_more = "", True
        while is_more:
            some, is_more = self.backend.run(partial(self.backend.ids_from, start, self.user_id), write=False)
            ids.update(dict.fromkeys(some))
            start = some[-1] if some else start
        return tuple(sorted(ids))

    def count(self, prefix: str | None = None, user_id: str | None = None) -> int:
        """Return how many conversations ``list`` would return."""
        prefix, user_id = checks.checked_filters(prefix, user_id)
        check_own_user(self.user_id, user_id)
        user_id = self.user_id or (None if user_id is None else self.stored_user(user_id))
        return self.backend.run(partial(self._count, self.stored_prefix(prefix or ""), user_id), write=False)

    def _count(self, prefix: str, user_id: str | None) -> int:
        return sum(
            not self._has_expired(conversation_id, stored)
            for conversation_id, stored in self.backend.records(prefix, user_id)
        )

    def _has_expired(self, conversation_id: str, stored: bytes) -> bool:
        """Return whether a conversation has expired; False for a damaged one."""
        if self.ttl_s is None and b'"expires_at"' not in stored:
            return False
        return any(self._is_expired(record) for _, record in Damage().readable([(conversation_id, stored)]))

    def _ids(self, prefix: str = "") -> tuple[str, ...]:
        return tuple(sorted(set(self.backend.ids(prefix, self.user_id))))

    def _old(
        self, conversation_ids: Sequence[str], cutoff: datetime, damage: Damage
    ) -> tuple[dict[str, Record], dict[str, Record]]:
        """Return the ids last updated before the cutoff or expired, and those with times far in the future."""
        old, ahead = {}, {}
        now = self._clock()
        for conversation_id, record in damage.readable(self.backend.records_of(conversation_ids)):
            if self._is_hidden(record):
                continue
            if _is_older(record, cutoff, now) or self._is_expired(record):
                old[conversation_id] = record
            elif record.is_ahead(now):
                ahead[conversation_id] = structs.replace(record, noticed_at=record.noticed_at or now)
        return old, ahead

    def _age(self, conversation_ids: Sequence[str], cutoff: datetime) -> None:
        """Record when a time in the future was noticed, so that the conversation ages from that moment."""
        for conversation_id, record in self._old(conversation_ids, cutoff, Damage())[1].items():
            self._report_ahead(conversation_id, record, self._clock())
            self._put_record(conversation_id, record)

    def _paid_by(self, conversation_ids: Sequence[str]) -> dict[bytes, PaidCalls]:
        """Return the paid calls of conversations, by their stored records."""

        def read() -> dict[str, bytes]:
            return {each: value for each, value in self.backend.records_of(conversation_ids) if value}

        stored = self.backend.run(read, write=False)
        records = dict(Damage().readable(stored.items()))
        long = {each: self._lines_in_parts(record) for each, record in records.items() if _is_long(record)}

        def read_rows(left: Sequence[str]) -> list[tuple[bytes, Callable[[], PaidCalls]]]:
            some = _for_busy_s(left)
            return [(stored[each], self._paid_by_rows(each, stored[each], long.get(each))) for each in some]

        paid: dict[bytes, PaidCalls] = {}
        left = [*records]
        while left:
            found = self.backend.run(partial(read_rows, left), write=False)
            paid.update((value, calls()) for value, calls in found)
            left = left[len(found) :]
        return paid

    def _lines_in_parts(self, record: Record) -> dict[int, bytes]:
        """Return the rows of a long conversation, of which none ever changes; other threads can read in between."""
        lines: dict[int, bytes] = {}
        with suppress(StoreCorruptedError):  # as below
            for places in (range(record.next_place), range(ASIDE, record.next_aside)):
                for part in _batches(places, BATCH_TURNS):
                    found = self.backend.run(partial(self.backend.turns_at, record.cid, part), write=False)
                    lines.update((at, line) for at, line in zip(part, found, strict=True) if line is not None)
        return lines

    def _paid_by_rows(
        self, conversation_id: str, stored: bytes, lines: Mapping[int, bytes] | None = None
    ) -> Callable[[], PaidCalls]:
        """Read the rows of a conversation, unless given; return a function that decodes its paid calls."""
        record = record_of(stored, conversation_id)
        if not record.totals.priced + record.totals.unpriced:
            return partial(PaidCalls, record.user_id)
        frame = None
        with suppress(StoreCorruptedError):  # its totals are known, and it can be deleted
            frame = self._frame(conversation_id)
            lines = dict(self.backend.turns(record.cid)) if lines is None else lines
        return partial(PaidCalls.of_rows, conversation_id, record, frame, lines or {})

    def _erase_old(
        self, conversation_ids: Sequence[str], cutoff: datetime, paid: Mapping[bytes, PaidCalls]
    ) -> tuple[list[str], Sequence[str]]:
        """Delete conversations that are still old, for ``BUSY_S``; return their ids, and the remaining work."""
        erased: list[str] = []
        calls: list[PaidCall] = []
        left = iter(conversation_ids)
        for each in _for_busy_s(left):
            for conversation_id, record in self._old([each], cutoff, Damage())[0].items():
                calls += self._erase_paid(conversation_id, record, paid)
                erased.append(conversation_id)
        self._keep(calls)
        return erased, [*left]

    def _erase_all(
        self, records: Mapping[str, Record], paid: Mapping[bytes, PaidCalls], *, keep_spending: bool
    ) -> None:
        calls: list[PaidCall] = []
        for conversation_id, record in records.items():
            if keep_spending:
                calls += self._erase_paid(conversation_id, record, paid)
            else:
                self._erase(conversation_id, record)
        self._keep(calls)

    def _erase_paid(self, conversation_id: str, record: Record, paid: Mapping[bytes, PaidCalls]) -> list[PaidCall]:
        """Delete a conversation; return its paid calls, which are read again if it changed after ``paid`` was read."""
        stored = self.backend.record(conversation_id) or b""
        found = paid.get(stored) or self._paid_by_rows(conversation_id, stored)()
        self._erase(conversation_id, record)
        return found.calls

    def _erase_expired(self, conversation_id: str, record: Record) -> None:
        self._keep(self._erase_paid(conversation_id, record, {}))

    def _erase_rest(self) -> None:
        """Delete the remaining turns of long conversations, step by step."""
        while self.backend.run(self.backend.erase_rest, write=True):
            self._let_others_write()

    def _let_others_write(self) -> None:
        while not self.backend.checkpoint():
            time.sleep(PAUSE_S)
        time.sleep(PAUSE_S)

    def _keep(self, calls: Sequence[PaidCall]) -> None:
        """Keep the amounts and hashes of calls whose turns are deleted."""
        if not calls:
            return
        newest_s = max((each.at.timestamp() for each in calls if each.at is not None), default=0.0)
        self._keep_new(calls, newest_s)

    def _keep_new(
        self,
        calls: Sequence[PaidCall],
        newest_s: float,
        *,
        amounts: Sequence[KeptUsage] = (),
        hashes: Sequence[int] = (),
    ) -> None:
        """Keep calls, and amounts of which only the sum is known, with the hashes of their turns.

        The newest of all these turns is from ``newest_s``.
        """
        self._keep_amounts([*(each.amounts for each in calls), *amounts])
        hashes = [*(each.hash for each in calls), *hashes]
        if hashes:
            name = f"{time.time_ns():020}-{hashes[0]:x}"
            self.backend.put_kept_row("counted", name, packed(hashes))
            if calls:
                self.backend.put_kept_row("calls", name, row_of_calls(calls))
            newest_s = max(self._newest_kept_s(), newest_s)
            self.backend.put_kept_row("counted", NEWEST, repr(newest_s).encode())

    def _keep_amounts(self, amounts: Iterable[KeptUsage], sign: int = 1) -> None:
        """Add amounts to the kept ones, or subtract them."""
        changes = by_row(amounts)
        stored = self.backend.kept_rows("kept", [*changes])
        for name, change in changes.items():
            left = summed(change, sign, to=amounts_in(stored.get(name)))
            self.backend.put_kept_row("kept", name, row_of(left) if left else None)

    def _count_again(self, calls: Sequence[PaidCall]) -> None:
        """Subtract calls from the kept amounts, because their turns are stored again."""
        if not calls:
            return
        newest_s = self._newest_kept_s()
        if all(each.at is not None and each.at.timestamp() > newest_s for each in calls):
            return
        wanted = {each.hash: each for each in calls}
        back: list[KeptUsage] = []
        for name, stored in self.backend.kept_rows("counted").items():
            hashes = () if name == NEWEST else unpacked(stored)
            found = wanted.keys() & set(hashes)
            if found:
                back += [wanted.pop(each).amounts for each in found]
                left = [each for each in hashes if each not in found]
                self.backend.put_kept_row("counted", name, packed(left) if left else None)
                self._drop_calls(name, found)
        self._keep_amounts(back, -1)

    def _drop_calls(self, name: str, hashes: set[int]) -> None:
        """Drop calls from a row, if it exists: earlier versions kept none."""
        for stored in self.backend.kept_rows("calls", [name]).values():
            left = [each for each in calls_in(stored) if each.hash not in hashes]
            self.backend.put_kept_row("calls", name, row_of_calls(left) if left else None)

    def _count_turn_again(self, user_id: str, turn: Turn) -> None:
        paid = PaidCalls(user_id)
        paid.add_turn(turn)
        self._count_again(paid.calls)

    def _newest_kept_s(self) -> float:
        return float(self.backend.kept_rows("counted", [NEWEST]).get(NEWEST, b"0"))

    def _dropped_calls(self, user_id: str | None, *, forget: bool) -> list[PaidCall]:  # noqa: ARG002 - for a server
        """Return the paid calls of conversations that expired on a server; other stores have none."""
        return []

    def _keep_dropped(self) -> None:
        self._keep(self._dropped_calls(self.user_id, forget=True))

    def _kept_usage(self, user_id: str | None) -> tuple[KeptUsage, ...]:
        kept = [each.amounts for each in self._calls_to_keep(user_id)]
        kept += [each for row in self.backend.kept_rows("kept").values() for each in amounts_in(row)]
        return tuple(summed(each for each in kept if user_id in (None, each.user_id)))

    def _kept_by_hashes(self) -> tuple[set[int], list[PaidCall], float]:
        """Return the hashes of all kept turns, those with known amounts, and the time of the newest, in seconds."""
        rows = dict(self.backend.kept_rows("counted"))
        newest_s = float(rows.pop(NEWEST, b"0"))
        expired = self._calls_to_keep(self.user_id)
        hashes = {each.hash for each in expired}.union(*map(unpacked, rows.values()))
        times_s = (each.at.timestamp() for each in expired if each.at is not None)
        calls = [each for row in self.backend.kept_rows("calls").values() for each in calls_in(row)]
        return hashes, expired + calls, max(newest_s, max(times_s, default=0.0))

    def _calls_to_keep(self, user_id: str | None) -> list[PaidCall]:
        """Return the calls of conversations that have expired, whose amounts are not kept yet."""
        calls = self._dropped_calls(user_id, forget=False)
        for conversation_id, stored in self.backend.records("", user_id):
            if self._has_expired(conversation_id, stored):  # not deleted yet
                calls += self._paid_by_rows(conversation_id, stored)().calls
        return calls


def _is_older(record: Record, cutoff: datetime, now: datetime) -> bool:
    """Return whether a conversation is older than the cutoff; for a future cutoff, its stored time is compared."""
    return (record.last_used(now) if cutoff <= now else record.updated_at) < cutoff


def _is_long(record: Record) -> bool:
    return record.next_place + record.next_aside - ASIDE > BATCH_TURNS


def _batches(items: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]


def _for_busy_s(items: Iterable[T]) -> Iterator[T]:
    """Yield items for ``BUSY_S``, and at least one."""
    started_s = time.monotonic()
    for each in items:
        yield each
        if time.monotonic() - started_s >= BUSY_S:
            return


def _parts_by_turns(records: Mapping[str, Record]) -> Iterator[list[str]]:
    """Yield the ids in groups of some thousand turns, so that their rows fit in memory; a long one is alone."""
    part: list[str] = []
    turns = 0
    for conversation_id, record in records.items():
        if part and turns + record.next_place > BATCH_TURNS:
            yield part
            part, turns = [], 0
        part.append(conversation_id)
        turns += record.next_place
    if part:
        yield part
