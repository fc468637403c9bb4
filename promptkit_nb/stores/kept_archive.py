"""Kept amounts in exports: they move with the conversations, and count once even if they are imported repeatedly.

Each call has a hash, so a call that several stores kept counts once. Earlier versions kept only sums: a store remembers
what it has added of these from each other store, and adds only new amounts.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from promptkit_nb.codec import check_spent, check_totals, decode, encode
from promptkit_nb.errors import InvalidArgumentError, StoreError
from promptkit_nb.ids import check_user_id
from promptkit_nb.state import Totals
from promptkit_nb.stores.kept_usage import HASH_BYTES, KeptCalls, KeptUsage, packed, summed, unpacked
from promptkit_nb.turns import new_turn_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb.stores.kept_usage import PaidCall
    from promptkit_nb.stores.row_store import RowStore

OWN_ID = "store"
"""The row with the id of the store itself; other rows have the amounts added, by the id of their store."""

BATCH_IDS = 500
MOST_SECONDS = 1e12


class KeptSection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The kept amounts of one store, the hashes of their turns, and the time of the newest turn in seconds.

    ``calls`` has the amounts of single turns, which are included in ``amounts``; earlier versions wrote none.
    """

    store: str
    amounts: tuple[KeptUsage, ...] = ()
    hashes: bytes = b""
    newest_s: float = 0.0
    calls: KeptCalls = KeptCalls()


def kept_sections(store: RowStore) -> list[KeptSection]:
    """Return the amounts that a store kept or added from other stores, each as a section of an export.

    A store narrowed to a user has only the amounts and calls of that user.
    """
    if not store.kept_usage():
        return []
    return store.backend.run(partial(_sections, store, _own_id(store)), write=False)


def keep_sections(store: RowStore, sections: Sequence[KeptSection]) -> None:
    """Add amounts of other stores, except those added before, and those of turns that are stored here."""
    own_id = _own_id(store)
    for section in sections:
        if section.store != own_id:
            stored = [*_stored_calls(store, {*unpacked(section.hashes)})]
            store.backend.run(partial(_keep, store, section, stored), write=True)


def check_section(section: KeptSection) -> None:
    """Raise ``InvalidArgumentError`` for values that a store never writes."""
    is_id = re.fullmatch("[0-9a-f]{32}", section.store, re.ASCII)
    if not is_id or len(section.hashes) % HASH_BYTES:
        raise InvalidArgumentError(f"the kept amounts of the store {section.store!a:.60} are damaged")
    if not 0 <= section.newest_s <= MOST_SECONDS:
        raise InvalidArgumentError(f"newest_s cannot be {section.newest_s}")
    if not all(0 <= each.group < len(section.calls.groups) and 0 <= each.hash < 2**64 for each in section.calls.calls):
        raise InvalidArgumentError(f"the kept calls of the store {section.store!a:.60} are damaged")
    for each in (*section.amounts, *(call.amounts for call in section.calls.paid_calls())):
        check_user_id(each.user_id)
        check_totals(Totals(each.total_tokens, each.cost, each.calls - each.unpriced, each.unpriced))
        check_spent("kept amount", each.usage, None)
        if each.calls < 1 or each.other_tokens < 0:
            raise InvalidArgumentError(f"kept amounts cannot be of {each.calls} calls and {each.other_tokens} tokens")


def _own_id(store: RowStore) -> str:
    """Return the id of a store, which is generated when it is first needed."""

    def find() -> str:
        return store.backend.kept_rows("imported", [OWN_ID]).get(OWN_ID, b"").decode()

    def make() -> str:
        store._keep_dropped()  # noqa: SLF001 - of the same package
        if not (found := find()):
            store.backend.put_kept_row("imported", OWN_ID, (found := new_turn_id()).encode())
        return found

    with suppress(StoreError):  # a user of a server who may only read can still export
        return store.backend.run(make, write=True)
    return store.backend.run(find, write=False) or blake2b(store.backend.where.encode(), digest_size=16).hexdigest()


def _sections(store: RowStore, own_id: str) -> list[KeptSection]:
    rows = store.backend.kept_rows("imported")
    added = [_of_user(decode(row, KeptSection), store.user_id) for name, row in rows.items() if name != OWN_ID]
    hashes, calls, newest_s = store._kept_by_hashes()  # noqa: SLF001 - of the same package
    hashes = hashes.difference(*(unpacked(each.hashes) for each in added))
    own = KeptSection(
        store=own_id,
        amounts=tuple(
            summed(chain.from_iterable(each.amounts for each in added), -1, to=store._kept_usage(store.user_id))  # noqa: SLF001 - as above
        ),
        hashes=packed(sorted(hashes)),
        newest_s=newest_s,
        calls=KeptCalls.of(each for each in calls if each.hash in hashes),
    )
    return [each for each in (_of_user(own, store.user_id), *added) if each.amounts]


def _of_user(section: KeptSection, user_id: str | None) -> KeptSection:
    """Return the part of a section of one user, or of all; whose hashes they are is known of single calls only."""
    if user_id is None:
        return section
    amounts = tuple(each for each in section.amounts if each.user_id == user_id)
    calls = [each for each in section.calls.paid_calls() if each.amounts.user_id == user_id]
    hashes = packed(sorted(each.hash for each in calls))
    return msgspec.structs.replace(section, amounts=amounts, hashes=hashes, calls=KeptCalls.of(calls))


def _stored_calls(store: RowStore, hashes: set[int]) -> Iterator[PaidCall]:
    """Yield the calls with these hashes whose turns are stored."""
    ids = store.conversation_ids() if hashes else ()
    for start in range(0, len(ids), BATCH_IDS):
        for paid in store._paid_by(ids[start : start + BATCH_IDS]).values():  # noqa: SLF001 - of the same package
            yield from (each for each in paid.calls if each.hash in hashes)


def _keep(store: RowStore, section: KeptSection, stored: Sequence[PaidCall]) -> None:
    """Add the new calls and amounts of a section, as one transaction."""
    store._check_keeps()  # noqa: SLF001 - of the same package
    section = _of_user(section, store.user_id)
    kept_hashes, kept_calls, _ = store._kept_by_hashes()  # noqa: SLF001 - as above
    there = {each.hash: each for each in (*kept_calls, *stored)}
    known = kept_hashes | there.keys()
    calls = section.calls.paid_calls()
    rest = _without_calls(section, calls)
    row = store.backend.kept_rows("imported", [section.store]).get(section.store)
    before = KeptSection(store=section.store) if row is None else decode(row, KeptSection)
    new = {*unpacked(rest.hashes)}.difference(unpacked(before.hashes))
    amounts = summed(before.amounts, -1, to=rest.amounts)
    here = [there[each] for each in new & there.keys()]
    store._keep_new(  # noqa: SLF001 - as above
        [each for each in calls if each.hash not in known],
        section.newest_s,
        amounts=summed((each.amounts for each in here), -1, to=amounts),
        hashes=sorted(new - there.keys()),
    )
    if amounts or new:
        added = KeptSection(
            store=section.store,
            amounts=tuple(summed(amounts, to=before.amounts)),
            hashes=packed(sorted(new.union(unpacked(before.hashes)))),
            newest_s=max(before.newest_s, section.newest_s),
        )
        store.backend.put_kept_row("imported", section.store, encode(added))


def _without_calls(section: KeptSection, calls: Sequence[PaidCall]) -> KeptSection:
    """Return the amounts of a section of which only the sum is known."""
    amounts = summed((each.amounts for each in calls), -1, to=section.amounts)
    hashes = {*unpacked(section.hashes)}.difference(each.hash for each in calls)
    return KeptSection(store=section.store, amounts=tuple(amounts), hashes=packed(sorted(hashes)))
