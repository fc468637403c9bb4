"""Kept amounts in exports: they move with the conversations, and count once even if they are imported repeatedly.

Amounts have no ids, so a store remembers what it has added from each other store, and adds only new amounts.
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
from promptkit_nb.stores.kept_usage import HASH_BYTES, KeptUsage, packed, summed, unpacked
from promptkit_nb.turns import new_turn_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb.stores.kept_usage import PaidCall
    from promptkit_nb.stores.row_store import RowStore

OWN_ID = "store"
"""The row with the id of the store itself; other rows have the amounts added, by the id of their store."""

BATCH_IDS = 500
MOST_SECONDS = 1e12


class KeptSection(msgspec.Struct, frozen=True, kw_only=True):
    """The kept amounts of one store, the hashes of their turns, and the time of the newest turn in seconds."""

    store: str
    amounts: tuple[KeptUsage, ...] = ()
    hashes: bytes = b""
    newest_s: float = 0.0


def kept_sections(store: RowStore) -> list[KeptSection]:
    """Return the amounts that a store kept or added from other stores, each as a section of an export.

    A store narrowed to a user has only the amounts of that user, and no hashes, which are not kept per user.
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
    for each in section.amounts:
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
    amounts, hashes, newest_s = store._kept_by_hashes()  # noqa: SLF001 - of the same package
    own = KeptSection(
        store=own_id,
        amounts=tuple(summed(chain.from_iterable(each.amounts for each in added), -1, to=amounts)),
        hashes=packed(sorted(hashes.difference(*(unpacked(each.hashes) for each in added)))),
        newest_s=newest_s,
    )
    return [each for each in (_of_user(own, store.user_id), *added) if each.amounts]


def _of_user(section: KeptSection, user_id: str | None) -> KeptSection:
    if user_id is None:
        return section
    amounts = tuple(each for each in section.amounts if each.user_id == user_id)
    return msgspec.structs.replace(section, amounts=amounts, hashes=b"")


def _stored_calls(store: RowStore, hashes: set[int]) -> Iterator[PaidCall]:
    """Yield the calls with these hashes whose turns are stored."""
    ids = store.conversation_ids() if hashes else ()
    for start in range(0, len(ids), BATCH_IDS):
        for paid in store._paid_by(ids[start : start + BATCH_IDS]).values():  # noqa: SLF001 - of the same package
            yield from (each for each in paid.calls if each.hash in hashes)


def _keep(store: RowStore, section: KeptSection, stored: Sequence[PaidCall]) -> None:
    """Add the new amounts of a section, as one transaction."""
    store._check_keeps()  # noqa: SLF001 - of the same package
    section = _of_user(section, store.user_id)
    row = store.backend.kept_rows("imported", [section.store]).get(section.store)
    known = KeptSection(store=section.store) if row is None else decode(row, KeptSection)
    before = {*unpacked(known.hashes)}
    new = {*unpacked(section.hashes)} - before
    here = [each for each in stored if each.hash in new]
    amounts = summed(known.amounts, -1, to=section.amounts)
    store._keep_new(  # noqa: SLF001 - as above
        summed((each.amounts for each in here), -1, to=amounts),
        sorted(new.difference(each.hash for each in here)),
        section.newest_s,
    )
    added = KeptSection(
        store=section.store,
        amounts=tuple(summed(amounts, to=known.amounts)),
        hashes=packed(sorted(before | new)),
        newest_s=max(known.newest_s, section.newest_s),
    )
    store.backend.put_kept_row("imported", section.store, encode(added))
