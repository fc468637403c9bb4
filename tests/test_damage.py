"""One conversation that cannot be read is reported by name and left out, and hides no other."""

from __future__ import annotations

import warnings
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from promptkit_nb import (
    ConversationManager,
    DemoProvider,
    DiskStore,
    conversations_df,
    export_store,
    messages_df,
    search,
    turns_df,
    usage_df,
)
from promptkit_nb.codec import encode
from promptkit_nb.errors import ConversationNotFoundError, StoreCorruptedError, StoreError, StoreUnavailableError
from promptkit_nb.stores.layout import Record, record_of
from storing import Foreign, said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.row_store import RowStore
    from storing import Clock


def put_record(store: RowStore, **changes: Any) -> None:
    """Change what is stored of the conversation ``bad``."""

    def put() -> None:
        record: Record = record_of(store.backend.record("bad") or b"", "bad")
        store.backend.put_record("bad", record.user_id, encode(structs.replace(record, **changes)))

    store.backend.run(put, write=True)


def put_turn(store: RowStore) -> None:
    """Append a turn that is not JSON to the conversation ``bad``."""

    def put() -> None:
        record = record_of(store.backend.record("bad") or b"", "bad")
        store.backend.put_turn(record.cid, record.next_place, "x", b"{no JSON")
        counts = {"turn_count": record.turn_count + 1, "next_place": record.next_place + 1}
        store.backend.put_record("bad", record.user_id, encode(structs.replace(record, **counts)))

    store.backend.run(put, write=True)


def write(store: RowStore, method: str, *args: object) -> None:
    """Call a method of the backend in a transaction."""
    store.backend.run(partial(getattr(store.backend, method), *args), write=True)


UNLISTED: dict[str, Callable[[RowStore], None]] = {
    "record": lambda store: write(store, "put_record", "bad", "default", b"{no JSON"),
    "empty record": lambda store: write(store, "put_record", "bad", "default", b""),
    "frame": lambda store: write(store, "put_frame", "bad", b"{no JSON"),
    "newer format": lambda store: put_record(store, format=99),
    "absurd numbers": lambda store: put_record(store, next_place=10**15, turn_count=10**15),
}
LISTED: dict[str, Callable[[RowStore], None]] = {
    "turn": put_turn,
    "missing turn": lambda store: put_record(store, next_place=2, turn_count=2),
    "absurd order": lambda store: write(store, "put_frame", "bad", b'{"order":[[0,1000000000000000]]}'),
}
DAMAGES = UNLISTED | LISTED
USAGE, SEARCH = partial(usage_df, by="conversation_id"), partial(search, text="Hello")
VIEWS = [conversations_df, turns_df, messages_df, USAGE, SEARCH]


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, store: RowStore) -> RowStore:
    """A store of each kind with the conversations ``bad`` and ``good``, of which the first is damaged."""
    for name in ("bad", "good"):
        store.append(name, said("Hello"))
    DAMAGES[request.param](store)
    return store


@pytest.mark.parametrize("view", VIEWS)
def test_views_leave_it_out(damaged: RowStore, view: Any) -> None:
    """They show the others, and one warning names it with a count."""
    with pytest.warns(UserWarning, match=r"^1 conversation in .* cannot be read and is left out: 'bad' \(.*on_damaged"):
        frame = view(damaged)
    assert list(frame["conversation_id"].dropna().unique()) == ["good"]  # Redis keeps what the damaged one cost


@pytest.mark.parametrize("view", VIEWS[:-1])
def test_it_raises_where_it_is_asked_for(damaged: RowStore, view: Any) -> None:
    """Reading it, and a view of it alone; the others are read without a warning."""
    for call in (lambda: damaged.get("bad"), lambda: view(damaged, conversation_id="bad")):
        with pytest.raises((StoreCorruptedError, StoreUnavailableError), match="'bad'"):
            call()
    with warnings.catch_warnings(action="error"):
        assert len(view(damaged, conversation_id="good")) >= 1


@pytest.mark.parametrize("damage", UNLISTED)
def test_lists_and_cleanup_leave_it_out(store: RowStore, clock: Clock, damage: str) -> None:
    """Listing, listing by a prefix, near matches, deletion by a prefix, and cleanup; it is not changed."""
    for name in ("bad", "good", "better"):
        store.append(name, said("Hello"))
    UNLISTED[damage](store)
    warned = partial(pytest.warns, UserWarning, match=r"^1 conversation in .* is left out: 'bad' \(")
    with warned():
        assert [head.conversation_id for head in store.list(sort_by="conversation_id")] == ["good", "better"]
    with warned():
        assert [head.conversation_id for head in store.list(prefix="b")] == ["better"]
    with pytest.raises(ConversationNotFoundError, match="Did you mean 'good'"):
        ConversationManager(DemoProvider(), store).get_conversation("goof")
    if damage == "frame":
        return  # it is not read to delete
    with warned():
        assert store.delete_prefix("b") == ("better",)
    clock.pass_s(3600)
    for dry_run in (True, False):
        with warned():
            assert store.cleanup(timedelta(minutes=30), dry_run=dry_run) == ("good",)
    assert store.conversation_ids() == ("bad",)


def test_turns_are_streamed_without_it(damaged: RowStore) -> None:
    """``iter_turns`` yields the others', and warns at the end."""
    with pytest.warns(UserWarning, match="'bad'"):
        assert [stored.conversation_id for stored in damaged.iter_turns()] == ["good"]


def test_export_never_leaves_it_out_silently(damaged: RowStore, tmp_path: Path) -> None:
    """It raises an error, unless ``on_damaged`` is given."""
    with pytest.raises(StoreError, match="'bad'"):
        export_store(damaged, tmp_path / "all.jsonl")


def test_a_narrowed_store_reports_only_its_own(store: RowStore) -> None:
    """Other users' ids are not shown."""
    for name in ("bad", "good"):
        store.append(name, said("Hello"), user_id=name)
    write(store, "put_record", "bad", "bad", b"{no JSON")
    with warnings.catch_warnings(action="error"):
        assert [head.conversation_id for head in store.for_user("good").list()] == ["good"]
        assert len(turns_df(store.for_user("good"))) == 1


def test_many_are_counted(store: RowStore) -> None:
    """The first five are named."""
    for number in range(12):
        store.append(f"{number:02}", said("x"))
    for number in range(1, 9):
        write(store, "put_record", f"{number:02}", "default", b"{}")
    with pytest.warns(UserWarning, match=r"^8 conversations in .* are left out: '01' \(.*'05' \(.*\) and 3 more\. "):
        assert len(store.list()) == 4
    with pytest.warns(UserWarning, match=r"^8 conversations in"):
        assert len(turns_df(store)) == 4


def test_views_of_custom_stores_leave_it_out(store: RowStore) -> None:
    """A custom store raises an error for one conversation."""
    for name in ("bad", "good"):
        store.append(name, said("Hello"))
    put_turn(store)
    with pytest.warns(UserWarning, match=r"is left out: 'bad' \("):
        assert list(turns_df(Foreign(store))["conversation_id"]) == ["good"]


def test_row_of_another_program_is_left_out(tmp_path: Path) -> None:
    """A pickle in the database is neither executed nor does it hide the other conversations."""
    with DiskStore(tmp_path) as store:
        for name in ("bad", "good"):
            store.append(name, said("Hello"))
        change = "UPDATE Cache SET mode = 4, value = x'80049501' WHERE key = 'h:bad'"
        store.backend.run(lambda: store.backend._connection.execute(change), write=True)
        for call in (store.list, lambda: store.list(user_id="default"), lambda: [*store.iter_turns()]):
            with pytest.warns(UserWarning, match=r"'bad' \("):
                assert len(call()) == 1
        with pytest.raises(StoreCorruptedError):
            store.get("bad")
