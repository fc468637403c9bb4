"""What was paid for turns that are no longer stored: amounts without ids and without text.

When a conversation is deleted, its amounts are added to those of the same user and day, and hashes of its turns are
kept. If a turn is stored again, for example from an export, its amounts are subtracted, so it does not count twice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from promptkit_nb.codec import decode, encode_json
from promptkit_nb.errors import InvalidArgumentError, StoreCorruptedError
from promptkit_nb.state import ConversationState, Summary, Totals
from promptkit_nb.stores.checks import check_usd
from promptkit_nb.turns import NO_USAGE, OWN_SOURCE, Turn, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promptkit_nb.stores.layout import Frame, Record

HASH_BYTES = 8


class KeptUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Usage and cost of calls without stored turns, for one user, UTC day, provider, model, and source.

    ``usage`` and ``cost`` are sums, ``cost`` in US dollars, without the ``unpriced`` calls, whose price is unknown.
    ``other_tokens`` were input or output, which is unknown; so is their day.

    >>> from datetime import date
    >>> KeptUsage(user_id="alice", day=date(2026, 11, 22), model="gpt-4o-mini", usage=Usage(8, 2)).total_tokens
    10
    """

    user_id: str
    day: date | None
    provider: str = ""
    model: str = ""
    source: str = OWN_SOURCE
    calls: int = 1
    unpriced: int = 0
    usage: Usage = NO_USAGE
    other_tokens: int = 0
    cost: Decimal = Decimal(0)

    @classmethod
    def of(
        cls,
        usage: Usage,
        cost: Decimal | None,
        *,
        user_id: str,
        at: datetime,
        provider: str,
        model: str,
        source: str = OWN_SOURCE,
    ) -> KeptUsage:
        """Return the amounts of one call; ``cost`` is ``None`` if its price is unknown."""
        return cls(
            user_id=user_id,
            day=at.astimezone(UTC).date(),
            provider=provider,
            model=model,
            source=source,
            unpriced=int(cost is None),
            usage=replace(usage, estimated=False, unknown=False) if usage.estimated or usage.unknown else usage,
            cost=cost or Decimal(0),
        )

    @property
    def total_tokens(self) -> int:
        """All tokens."""
        return self.usage.total_tokens + self.other_tokens

    @property
    def known_cost(self) -> Decimal | None:
        """The sum of the known costs in US dollars; ``None`` if no call has a known price."""
        return None if self.unpriced == self.calls else self.cost

    @property
    def row(self) -> str:
        """The name of the row with the amounts of this user and day."""
        return f"{'' if self.day is None else self.day.isoformat()}:{self.user_id}"

    def plus(self, other: KeptUsage, sign: int = 1) -> KeptUsage:
        """Return the sum of both, or the difference with ``sign=-1``."""
        usage, more = self.usage, other.usage
        return structs.replace(
            self,
            calls=self.calls + sign * other.calls,
            unpriced=self.unpriced + sign * other.unpriced,
            usage=Usage(
                usage.input_tokens + sign * more.input_tokens,
                usage.output_tokens + sign * more.output_tokens,
                usage.cached_tokens + sign * more.cached_tokens,
                usage.reasoning_tokens + sign * more.reasoning_tokens,
                cache_write_tokens=usage.cache_write_tokens + sign * more.cache_write_tokens,
            ),
            other_tokens=self.other_tokens + sign * other.other_tokens,
            cost=self.cost + sign * other.cost,
        )


class PaidCall(msgspec.Struct, frozen=True, gc=False):
    """One call that was paid for, by the hash of its turn; ``at`` is when it was answered, if known.

    Python's garbage collector, during which all threads wait, does not look at calls: a long conversation has many.
    """

    hash: int
    amounts: KeptUsage
    at: datetime | None = None


class _PaidTurn(msgspec.Struct, omit_defaults=True):
    """The fields of a stored turn that determine its amounts."""

    id: str
    created_at: datetime
    usage: Usage = NO_USAGE
    cost: Decimal | None = None
    model: str = ""
    provider: str = ""
    source: str = OWN_SOURCE
    replayed: bool = False
    inherited: bool = False


def log_line(user_id: str, line: bytes) -> bytes:
    """Return the log line for the cost of a stored turn, without its id and text; empty if it cost nothing."""
    try:
        turn = decode(line, _PaidTurn)
    except StoreCorruptedError:
        return b""
    if turn.replayed or turn.inherited:
        return b""
    return encode_json(structs.replace(turn, id=str(PaidCalls(user_id).hash_of(turn.id)))) + b"\n"


@dataclass(slots=True)
class PaidCalls:
    """The calls that a conversation paid for."""

    user_id: str
    calls: list[PaidCall] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)

    @classmethod
    def of_rows(
        cls, conversation_id: str, record: Record, frame: Frame | None, lines: Mapping[int, bytes]
    ) -> PaidCalls:
        """Return the paid calls of a stored conversation.

        For unreadable turns, the amounts are computed from the conversation's totals; only their day and model are
        unknown.
        """
        found = cls(record.user_id)
        if frame is not None and frame.settings.kind == "imported":
            return found  # another tool paid for it
        for place, line in lines.items():
            try:
                turn = decode(line, _PaidTurn, conversation_id)
            except StoreCorruptedError:
                continue
            if frame is None or not frame.is_inherited(place):
                found.add_turn(turn)
        found.add_summaries(() if frame is None else frame.summaries)
        found.add_rest(conversation_id, record.created_at, record.totals)
        return found

    @classmethod
    def of_log(cls, user_id: str, log: bytes) -> PaidCalls:
        """Return the paid calls of a conversation of which only the log is left."""
        found = cls(user_id)
        for line in log.splitlines():
            turn = decode(line, _PaidTurn)
            found.add_turn(turn)
            found.calls[-1] = structs.replace(found.calls[-1], hash=int(turn.id))
        return found

    @classmethod
    def of_state(cls, state: ConversationState) -> PaidCalls:
        """Return the paid calls of a conversation that is about to be stored."""
        found = cls(state.user_id)
        if state.settings.kind == "imported":
            return found
        for turn in state.stored_turns:
            found.add_turn(turn)
        found.add_summaries(state.summaries)
        found.add_rest(state.conversation_id, state.created_at, state.totals)
        return found

    def add_turn(self, turn: Turn | _PaidTurn) -> None:
        """Add a turn, unless it was replayed or inherited."""
        if not (turn.replayed or turn.inherited):
            origin = {"provider": turn.provider, "model": turn.model, "source": turn.source}
            self._add(turn.id, turn.usage, turn.cost, turn.created_at, **origin)

    def add_summaries(self, summaries: Iterable[Summary]) -> None:
        """Add the summaries that were paid for."""
        for each in summaries:
            if each.counts:
                name = f"summary {each.first_turn} {each.last_turn} {each.created_at.timestamp()}"
                self._add(name, each.usage, each.cost, each.created_at, provider="", model=each.model)

    def add_rest(self, conversation_id: str, created_at: datetime, totals: Totals) -> None:
        """Add the part of the totals that is not yet covered, such as turns that ``set`` dropped."""
        calls = totals.priced + totals.unpriced - self.totals.priced - self.totals.unpriced
        tokens, cost = totals.tokens - self.totals.tokens, totals.cost - self.totals.cost
        if calls <= 0 or tokens < 0 or cost < 0:
            return
        unpriced = min(max(totals.unpriced - self.totals.unpriced, 0), calls)
        amounts = KeptUsage(
            user_id=self.user_id, day=None, calls=calls, unpriced=unpriced, other_tokens=tokens, cost=cost
        )
        name = f"rest {conversation_id} {created_at.timestamp()} {calls} {tokens} {cost}"
        self.calls.append(PaidCall(self.hash_of(name), amounts))

    def _add(self, name: str, usage: Usage, cost: Decimal | None, at: datetime, **origin: str) -> None:
        amounts = KeptUsage.of(usage, cost, user_id=self.user_id, at=at, **origin)
        self.calls.append(PaidCall(self.hash_of(name), amounts, at))
        self.totals = self.totals.plus(usage, cost)

    def hash_of(self, name: str) -> int:
        """Return a hash of a call and its user, because amounts are kept per user."""
        digest = blake2b(f"{self.user_id}\n{name}".encode(), digest_size=HASH_BYTES)
        return int.from_bytes(digest.digest(), "little")


def summed(amounts: Iterable[KeptUsage], sign: int = 1, to: Iterable[KeptUsage] = ()) -> list[KeptUsage]:
    """Return ``to`` with these amounts added, summed by user, day, provider, model, and source.

    With ``sign=-1`` they are subtracted; empty results are left out.
    """
    sums = {_group_of(each): each for each in to}
    for each in amounts:
        group = _group_of(each)
        before = sums.get(group)
        sums[group] = (_empty(each) if before is None else before).plus(each, sign)
    return [each for each in sums.values() if each.calls > 0]


def _group_of(each: KeptUsage) -> tuple[str, date | None, str, str, str]:
    return each.user_id, each.day, each.provider, each.model, each.source


def by_row(amounts: Iterable[KeptUsage]) -> dict[str, list[KeptUsage]]:
    """Return the amounts by the name of their row."""
    rows: dict[str, list[KeptUsage]] = {}
    for each in amounts:
        rows.setdefault(each.row, []).append(each)
    return rows


class KeptCall(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The amounts of one deleted call; ``group`` is the index of its user, day, and origin in ``KeptCalls.groups``."""

    hash: int
    group: int
    cost: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    other_tokens: int = 0
    unpriced: int = 0
    calls: int = 1

    def amounts(self, group: KeptUsage) -> KeptUsage:
        """Return the amounts as usage of the group."""
        usage = Usage(
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.reasoning_tokens,
            cache_write_tokens=self.cache_write_tokens,
        )
        return structs.replace(
            group, calls=self.calls, unpriced=self.unpriced, usage=usage, other_tokens=self.other_tokens, cost=self.cost
        )


class KeptCalls(msgspec.Struct, frozen=True, array_like=True):
    """Single deleted calls, which can be recognized if another store kept them, too."""

    groups: tuple[KeptUsage, ...] = ()
    calls: tuple[KeptCall, ...] = ()

    @classmethod
    def of(cls, paid: Iterable[PaidCall]) -> KeptCalls:
        """Return these calls, without their times."""
        places: dict[tuple[object, ...], int] = {}
        groups: list[KeptUsage] = []
        calls: list[KeptCall] = []
        for each in paid:
            amounts = each.amounts
            key = _group_of(amounts)
            if key not in places:
                places[key] = len(groups)
                groups.append(_empty(amounts))
            usage = amounts.usage
            calls.append(
                KeptCall(
                    each.hash,
                    places[key],
                    amounts.cost,
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cached_tokens,
                    usage.cache_write_tokens,
                    usage.reasoning_tokens,
                    amounts.other_tokens,
                    amounts.unpriced,
                    amounts.calls,
                )
            )
        return cls(tuple(groups), tuple(calls))

    def paid_calls(self) -> list[PaidCall]:
        """Return the calls."""
        return [PaidCall(each.hash, each.amounts(self.groups[each.group])) for each in self.calls]


def _empty(group: KeptUsage) -> KeptUsage:
    """Return no calls of the same user, day, provider, model, and source."""
    return KeptUsage(
        user_id=group.user_id,
        day=group.day,
        provider=group.provider,
        model=group.model,
        source=group.source,
        calls=0,
    )


class KeptRow(msgspec.Struct, frozen=True):
    """A stored row of amounts, all of one user and day."""

    amounts: tuple[KeptUsage, ...]


def amounts_in(stored: bytes | None) -> tuple[KeptUsage, ...]:
    """Return the amounts of a stored row; none if there is no row."""
    return () if stored is None else decode(stored, KeptRow).amounts


def row_of(amounts: Iterable[KeptUsage]) -> bytes:
    """Encode a row of amounts."""
    return encode_json(KeptRow(tuple(amounts)))


def calls_in(stored: bytes) -> list[PaidCall]:
    """Return the calls of a stored row."""
    return decode(stored, KeptCalls).paid_calls()


def row_of_calls(calls: Iterable[PaidCall]) -> bytes:
    """Encode a row of calls."""
    return encode_json(KeptCalls.of(calls))


def packed(hashes: Iterable[int]) -> bytes:
    """Encode hashes, eight bytes each."""
    return b"".join(each.to_bytes(HASH_BYTES, "little") for each in hashes)


def unpacked(stored: bytes) -> tuple[int, ...]:
    """Decode the hashes of a stored row."""
    return struct.unpack(f"<{len(stored) // HASH_BYTES}Q", stored)


def check_kept(kept: KeptUsage) -> None:
    """Raise ``InvalidArgumentError`` unless this is ``KeptUsage``."""
    if not isinstance(kept, KeptUsage):
        raise InvalidArgumentError(f"kept={kept!r:.80} is not KeptUsage; give KeptUsage.of(usage, cost, …).")
    check_usd("kept.cost", kept.cost)
