"""Absurd counts and costs are refused on input; stored ones read as unknown, and break nothing."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    MemoryStore,
    Summary,
    Turn,
    Usage,
    codec,
    conversations_df,
    export_store,
    import_store,
    messages_df,
    turns_df,
    usage_df,
)
from promptkit_nb.codec import encode
from promptkit_nb.errors import ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.state import Branch, Settings, Totals
from promptkit_nb.stores.layout import Frame, Record
from storing import START, said, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.row_store import RowStore

ABSURD: list[dict[str, Any]] = [
    {"usage": Usage(10**12 + 1, 0)},
    {"usage": Usage(0, 2**63)},
    {"usage": Usage(1, 1, cached_tokens=-1)},
    {"usage": Usage(1, 1, cache_write_tokens=10**13)},
    {"cost": Decimal("1000000000.01")},
    {"cost": Decimal("NaN")},
    {"cost": Decimal("Infinity")},
    {"cost": Decimal("-0.01")},
    {"cost": Decimal("1E-999999")},
    {"cost": Decimal("0E+999999")},
    {"saved": Decimal("1E+30")},
    {"truncated": 10**13},
    {"counted_input_tokens": -1},
    {"cell_call": 10**13},
    {"latency_ms": 1e300},
]
LARGE = {"usage": Usage(10**12, 10**12, 10**12, 10**12), "cost": Decimal(10**9), "truncated": 10**12}


@pytest.mark.parametrize("fields", ABSURD)
def test_absurd_turn_is_refused(store: RowStore, fields: dict[str, Any]) -> None:
    """By each call that stores one; nothing is changed."""
    first = said("first")
    store.append("a", first)
    absurd = said("absurd", **fields)
    before = store.get("a")
    calls: list[Callable[[], object]] = [
        lambda: store.append("a", absurd),
        lambda: store.append("new", absurd),
        lambda: store.replace("a", first.id, absurd),
        lambda: store.set(replace(before, turns=(absurd,))),
        lambda: store.create(ConversationState("new", turns=(absurd,))),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match=r"^A turn's \w+ cannot be"):
            call()
    assert store.get("a") == before
    assert [head.conversation_id for head in store.list()] == ["a"]


@pytest.mark.parametrize("fields", [each for each in ABSURD if each.keys() & {"usage", "cost"}])
def test_absurd_summary_is_refused(store: RowStore, fields: dict[str, Any]) -> None:
    """By each call that stores one; nothing is changed."""
    store.append("a", said("x"))
    with pytest.raises(InvalidArgumentError, match=r"^A summary's \w+ cannot be"):
        store.add_summary("a", Summary(0, 0, "x", **fields))


def test_the_largest_values_are_kept(store: RowStore) -> None:
    """They are stored, summed, and shown."""
    for number in range(3):
        store.append("a", said(str(number), **LARGE))
    assert (store.head("a").token_count, store.head("a").total_cost) == (6 * 10**12, Decimal(3 * 10**9))
    assert turns_df(store)["input_tokens"].tolist() == [10**12] * 3
    assert usage_df(store, by=[])["total_tokens"].tolist() == [6 * 10**12]
    assert conversations_df(store)["total_tokens"].tolist() == [6 * 10**12]


@pytest.mark.parametrize("frames", [0, 300])
def test_depth_limit_is_the_same_everywhere(store: RowStore, frames: int) -> None:
    """Nested 400 levels deep, metadata and variables are read back, and one more is refused, wherever it is called."""
    if frames:
        return test_depth_limit_is_the_same_everywhere(store, frames - 1)
    deep: list[object] = []
    for _ in range(397):
        deep = [deep]
    store.create(ConversationState("a", created_at=START, updated_at=START))
    store.update_metadata("a", value=[deep])
    variables = Settings(variables={"value": [deep]})
    store.update_settings("a", variables, system_prompt=None)
    state = store.get("a")
    assert (state.metadata, state.settings) == ({"value": [deep]}, variables)
    writes: list[Callable[[], object]] = [
        lambda: store.update_metadata("a", value=[[deep]]),
        lambda: store.update_settings("a", Settings(variables={"value": [[deep]]}), system_prompt=None),
        lambda: store.set(ConversationState("a", metadata={"value": [[deep]]})),
        lambda: store.create(ConversationState("b", metadata={"value": [[deep]]})),
    ]
    for write in writes:
        with pytest.raises(InvalidArgumentError, match="is nested more than 400 levels deep"):
            write()
    assert [head.revision for head in store.list()] == [3]
    return None


def test_size_is_limited_wherever_data_comes_in(store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how large it is; nothing is stored, and the conversation goes on."""
    store.append("a", said("x"))
    state = store.get("a")
    monkeypatch.setattr(codec, "MOST_BYTES", 1000)
    large, text = said("x" * 1000), "y" * 1000
    turns: list[Callable[[], object]] = [
        lambda: store.append("a", large),
        lambda: store.append("new", large),
        lambda: store.replace("a", state.turns[0].id, large),
        lambda: store.create(ConversationState("new", turns=(large,))),
        lambda: store.set(replace(state, branches=(Branch(id="b", turns=(large,), start=0),))),
    ]
    others: list[Callable[[], object]] = [
        lambda: store.update_metadata("a", text=text),
        lambda: store.set(replace(state, system_prompt=text)),
        lambda: store.update_settings("a", Settings(), system_prompt=text),
        lambda: store.add_summary("a", Summary(0, 0, text)),
    ]
    for what, writes in (("This turn is", turns), ("Settings, metadata, and summaries are", others)):
        for write in writes:
            with pytest.raises(InvalidArgumentError, match=rf"{what} too large: \d,\d+ bytes as JSON, more than 1,000"):
                write()
    assert ([head.conversation_id for head in store.list()], store.get("a")) == (["a"], state)
    assert store.append("a", said("y")).turn_count == 2


def store_as_before(store: RowStore, conversation_id: str, turn: Turn, totals: Totals) -> None:
    """Store a conversation with absurd values, as earlier versions did."""
    state = ConversationState(conversation_id, turns=(said("first"),), created_at=START, updated_at=START)

    def put() -> None:
        record: Record = store._write(state, 1).record
        store.backend.put_turn(record.cid, 1, turn.id, encode(turn))
        record = structs.replace(record, turn_count=2, next_place=2, totals=totals)
        store.backend.put_record(conversation_id, record.user_id, encode(record))
        frame = Frame(summaries=(Summary(0, 0, "x", Usage(2**62, 0), Decimal("1E+40")),), dropped=Totals(-5))
        store.backend.put_frame(conversation_id, encode(frame))

    store.backend.run(put, write=True)


ABSURD_TURN = said(
    "absurd",
    usage=Usage(2**63, 2**63),
    cost=Decimal("1E+30"),
    saved=Decimal("NaN"),
    truncated=2**63,
    cell_call=-1,
    counted_input_tokens=2**63,
    latency_ms=1e300,
)


@pytest.fixture
def absurd(store: RowStore) -> RowStore:
    """A store of each kind with a conversation whose stored values are absurd, and another one."""
    store_as_before(store, "absurd", ABSURD_TURN, Totals(2**64 - 1, Decimal("1E+30"), 2, 0))
    store.append("good", said("hello"))
    return store


def test_stored_values_read_as_unknown(absurd: RowStore) -> None:
    """Never as zero: the usage is unknown, and so is the cost."""
    turn = absurd.get("absurd").turns[1]
    assert (turn.usage, turn.cost, turn.saved) == (Usage(0, 0, unknown=True), None, None)
    assert (turn.truncated, turn.cell_call, turn.counted_input_tokens, turn.latency_ms) == (0, 0, None, None)
    assert absurd.recent("absurd", 1)[0] == turn
    (summary,) = absurd.get("absurd").summaries
    assert (summary.usage.unknown, summary.cost) == (True, None)
    assert absurd.head("absurd").total_cost is None
    assert absurd.get("absurd").unpriced_turns >= 1


def test_views_show_unknown_values_as_missing(absurd: RowStore) -> None:
    """The other conversations are unaffected."""
    turns = turns_df(absurd).set_index("conversation_id")
    assert turns["total_tokens"].isna().tolist() == [False, True, False]
    assert turns["cost_usd"].isna().tolist() == [False, True, False]
    assert len(messages_df(absurd)) == 6
    assert len(conversations_df(absurd)) == 2
    assert usage_df(absurd, by="conversation_id")["conversation_id"].tolist() == ["absurd", "good"]


def test_everything_can_be_done_with_it(absurd: RowStore, tmp_path: Path) -> None:
    """It is listed, continued, exported, imported again, forked and deleted."""
    manager = ConversationManager(DemoProvider(), absurd)
    conv = manager.get_conversation("absurd")
    assert len(conv.send("And on").turn.messages) == 2
    assert "absurd" in repr(manager.list_conversations()) + repr(conv.history()) + repr(conv.tree())
    for suffix in ("json", "md", "html"):
        assert conv.export(tmp_path / f"a.{suffix}").stat().st_size > 0
    assert export_store(absurd, tmp_path / "all.jsonl") == 2
    other = MemoryStore()
    assert [head.turn_count for head in import_store(tmp_path / "all.jsonl", other)] == [3, 1]
    assert other.get("absurd").turns[1].usage.unknown
    absurd.fork("absurd", "copy")
    assert texts(absurd.get("copy").turns) == ["first", "absurd", "And on"]
    absurd.set(absurd.get("absurd"))
    absurd.delete("absurd")
    with pytest.raises(ConversationNotFoundError):
        absurd.get("absurd")


def test_absurd_file_is_refused(store: RowStore, tmp_path: Path) -> None:
    """An import says which value."""
    path = tmp_path / "all.jsonl"
    turn = '{"messages":[{"role":"user","content":"x"}],"usage":{"input_tokens":1,"output_tokens":9999999999999}}'
    path.write_text(f'{{"promptkit_nb":"store","format":1}}\n{{"conversation_id":"a","turns":[{turn}]}}\n', "utf-8")
    with pytest.raises(InvalidArgumentError, match=r"is not an exported store \(A turn's usage cannot be .*999999"):
        import_store(path, store)
    assert store.list() == []
