"""Spending outlives deletion: the cost of deleted turns stays in the usage, without ids and text."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import Reply
from promptkit_nb import (
    Budget,
    ConversationManager,
    ConversationNotFoundError,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    Price,
    ProviderUnavailableError,
    RedisStore,
    Summary,
    Turn,
    Usage,
    export_store,
    import_store,
    plot_cost,
    usage_dashboard,
    usage_df,
)
from promptkit_nb.providers.base import Completion
from promptkit_nb.providers.demo import DemoProvider
from storing import START, Foreign, rich_state, said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chat_server import ChatServer
    from promptkit_nb.providers.base import ChatRequest, StreamEvent
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.stores.kept_usage import KeptUsage
    from promptkit_nb.stores.row_store import RowStore
    from storing import Clock, OpenStore

DAY = timedelta(days=1)


def spent(store: StateStore, **filters: Any) -> tuple[int, int, float]:
    """Return turns, tokens and dollars of the whole usage."""
    frame = usage_df(store, by=[], **filters)
    return int(frame["turns"][0]), int(frame["total_tokens"][0]), round(float(frame["cost_usd"].fillna(0)[0]), 9)


def statuses(store: StateStore, **filters: Any) -> dict[str, int]:
    """Return the number of turns by status."""
    frame = usage_df(store, by="status", **filters)
    return dict(zip(frame["status"], frame["turns"], strict=True))


class TestDeletion:
    """Amounts stay after every kind of deletion."""

    @pytest.mark.parametrize(
        "delete",
        [
            lambda store: store.delete("rich"),
            lambda store: store.delete_prefix("ri"),
            lambda store: store.cleanup(START + DAY),
            lambda store: store.for_user("alice").delete("rich"),
        ],
        ids=["delete", "prefix", "cleanup", "narrowed"],
    )
    def test_usage_does_not_fall(self, store: StateStore, delete: Callable[[StateStore], object]) -> None:
        """Versions, branches, summaries and dropped turns count as before; all have the status ``kept``."""
        store.create(rich_state())
        store.set(replace(store.get("rich"), versions={}))
        before = spent(store)
        by_model = usage_df(store, by=["day", "model", "user_id"])
        delete(store)
        assert before == spent(store) == (6, 56, 0.006)
        assert statuses(store) == {"kept": 6}
        assert usage_df(store, by=["day", "model", "user_id"]).equals(by_model)
        assert usage_df(store, by="conversation_id")["conversation_id"].isna().all()

    @pytest.mark.parametrize("open_store", ["memory", "disk"], indirect=True)  # on Redis, the server's clock decides
    def test_expired_conversations_count(self, open_store: OpenStore, clock: Clock) -> None:
        """At once when they expire, and after they are swept or their id is taken again."""
        store = open_store(60)
        for name in ("swept", "again"):
            store.append(name, said(name))
        clock.pass_s(61)
        assert statuses(store) == {"kept": 2}
        store.append("again", said("new"))
        assert statuses(store) == {"current": 1, "kept": 2}
        assert store.cleanup(1000) == ("swept",)
        assert statuses(store) == {"current": 1, "kept": 2}

    def test_what_redis_expires_counts(self, redis_url: str) -> None:
        """The server drops the conversation; its amounts were written with its turns, and nothing else is left."""
        with RedisStore(redis_url, prefix="expiring:", ttl=0.2) as store:
            store.append("a", said("x", model="m"), user_id="alice")
            store.append("a", said("y", model="m"))
            exported = store.get("a")
            assert statuses(store) == {"current": 2}
            time.sleep(0.5)
            assert (statuses(store), spent(store)) == ({"kept": 2}, (2, 20, 0.002))
            assert store.cleanup(1000) == ()
            assert statuses(store) == {"kept": 2}
            assert [(each.user_id, each.model, each.calls) for each in store.kept_usage()] == [("alice", "m", 2)]
            store.create(exported)
            assert statuses(store) == {"current": 2}

    def test_spending_may_be_deleted_too(self, store: StateStore) -> None:
        """It leaves the views; the accounts of budgets stay."""
        manager = ConversationManager(PricedDemo(), store, budget=Budget(5, per="user"))
        for name in ("a", "b:1", "b:2"):
            manager.new_conversation(conversation_id=name, user_id="alice").send("Hello")
        account = store.spending("user:alice")
        assert account.spent > 0
        manager.delete_conversation("a", keep_spending=False)
        store.delete_prefix("b:", keep_spending=False)
        assert store.kept_usage() == ()
        assert spent(store) == (0, 0, 0.0)
        assert store.spending("user:alice") == account

    def test_only_what_was_paid_is_kept(self, store: StateStore) -> None:
        """Replayed and inherited turns leave no amounts, nor does a conversation without turns."""
        store.append("a", said("x", replayed=True, cost=Decimal(0)))
        store.append("b", said("y"))
        store.fork("b", "c")
        for name in "ac":
            store.delete(name)
        assert store.kept_usage() == ()

    def test_amounts_have_neither_id_nor_text(self, tmp_path: Path) -> None:
        """After a deletion, the files hold user, day and model of the turn, and nothing else of it."""
        turn = said("a secret question", model="small-model", provider="somewhere", cell_id="cell-1")
        with DiskStore(tmp_path) as store:
            store.append("secret-id", turn, user_id="alice")
            store.delete("secret-id")
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert [files.count(each) > 0 for each in (b"alice", b"2026-03-01", b"small-model", b"somewhere")] == [True] * 4
        assert [files.count(each) for each in (b"secret", turn.id.encode(), b"cell-1")] == [0, 0, 0]

    def test_damaged_turns_keep_the_totals(self, tmp_path: Path) -> None:
        """If a turn cannot be read, what it cost is still known, without its day and model."""
        with DiskStore(tmp_path) as store:
            store.append("a", said("x", model="m"))
            store.append("a", said("y", model="m"))
            backend = store.backend
            row = f"UPDATE Cache SET value = CAST('no JSON' AS BLOB) WHERE key = {1 << 24}"  # noqa: S608 - a constant
            backend.run(lambda: backend._connection.execute(row), write=True)
            store.delete("a")
            assert [(each.model, each.calls, each.total_tokens, each.cost) for each in store.kept_usage()] == [
                ("m", 1, 10, Decimal("0.001")),
                ("", 1, 10, Decimal("0.001")),
            ]


class TestStoredAgain:
    """A deleted turn that is stored again counts once."""

    def test_import_counts_once(self, store: StateStore, tmp_path: Path) -> None:
        """An export of the whole conversation, imported after it was deleted, replaces its kept amounts."""
        store.create(rich_state())
        before = spent(store)
        export_store(store, tmp_path / "all.jsonl")
        for _ in range(2):
            store.delete("rich")
            assert (spent(store), [*statuses(store)]) == (before, ["kept"])
            import_store(tmp_path / "all.jsonl", store)
            assert (spent(store), store.kept_usage()) == (before, ())

    def test_older_export_counts_once(self, store: StateStore) -> None:
        """What came after the export stays kept."""
        first, second = said("x"), said("y", cost=None)
        store.append("a", first)
        exported = store.get("a")
        store.append("a", second)
        store.delete("a")
        store.create(exported)
        assert statuses(store) == {"current": 1, "kept": 1}
        assert [(each.calls, each.unpriced, each.cost) for each in store.kept_usage()] == [(1, 1, Decimal(0))]

    @pytest.mark.parametrize("way", ["create", "set", "append", "append to another"])
    def test_any_way_counts_once(self, store: StateStore, clock: Clock, way: str) -> None:
        """This includes another id, and newer turns in the same conversation."""
        clock.pass_s(1)
        turn, newer = said("x"), said("newer", created_at=START + DAY)
        store.append("a", turn)
        store.append("other", newer)
        state = store.get("a")
        store.delete("a")
        if way == "append":
            store.append("b", turn)
        elif way == "append to another":
            store.get("other")
            store.append("other", turn)
        else:
            {"create": store.create, "set": store.set}[way](replace(state, conversation_id="b"))
        assert statuses(store) == {"current": 2}

    def test_forgotten_spending_counts_when_it_is_imported(self, store: StateStore) -> None:
        """Nothing was kept, so the stored turn counts as any other."""
        store.append("a", said("x"))
        state = store.get("a")
        store.delete("a", keep_spending=False)
        store.create(state)
        assert statuses(store) == {"current": 1}


def both_of(paths: dict[str, Path]) -> None:
    """Write exports of two stores that held the same conversation and deleted it, the second with one more turn.

    Beside them is ``held.jsonl``, from before.
    """
    first, second = MemoryStore(), MemoryStore()
    for text in "xy":
        first.append("c", said(text), user_id="alice")
    first.add_summary("c", Summary(0, 1, "Said x.", Usage(8, 2), Decimal("0.001"), "m", START))
    held = paths["first"].parent / "held.jsonl"
    export_store(first, held)
    import_store(held, second)
    second.append("c", said("z"))
    for name, store in (("first", first), ("second", second)):
        store.delete("c")
        export_store(store, paths[name])


def drop_calls(store: RowStore) -> None:
    """Delete the rows that earlier versions did not write."""
    for name in store.backend.kept_rows("calls"):
        store.backend.put_kept_row("calls", name, None)


class TestMoving:
    """Kept amounts are in exports."""

    @pytest.fixture
    def source(self) -> MemoryStore:
        """A store with a stored conversation, and a deleted one that had every kind of cost."""
        source = MemoryStore()
        source.append("stored", said("x"), user_id="bob")
        source.create(rich_state())
        source.set(replace(source.get("rich"), versions={}))
        source.delete("rich")
        return source

    def test_usage_is_the_same(self, source: MemoryStore, store: StateStore, tmp_path: Path) -> None:
        """After moving to any store, and after importing the same or a later export again."""
        expected = usage_df(source, by=["day", "model", "user_id", "status"])
        for _ in range(2):
            assert export_store(source, tmp_path / "all.jsonl") == 1
            import_store(tmp_path / "all.jsonl", store)
            assert usage_df(store, by=["day", "model", "user_id", "status"]).equals(expected)
            store.delete("stored", keep_spending=False)
        source.append("later", said("y"))
        source.delete("later")
        export_store(source, tmp_path / "all.jsonl")
        import_store(tmp_path / "all.jsonl", store)
        assert spent(store) == spent(source) == (8, 76, 0.008)

    def test_expired_conversations_move_too(self, clock: Clock, tmp_path: Path) -> None:
        """They are not exported, but what they cost is; sweeping them at the source adds nothing."""
        source, store = MemoryStore(60, clock=clock), MemoryStore(clock=clock)
        source.append("a", said("x"))
        clock.pass_s(61)
        for _ in range(2):
            assert export_store(source, tmp_path / "all.jsonl") == 0
            import_store(tmp_path / "all.jsonl", store)
            assert statuses(store) == {"kept": 1}
            assert source.cleanup(1000) in {("a",), ()}

    def test_deleted_turn_counts_once_in_the_other_store(self, store: StateStore, tmp_path: Path) -> None:
        """An export from before the deletion, imported after the one from after it."""
        source = MemoryStore()
        source.append("a", said("x"))
        export_store(source, tmp_path / "before.jsonl")
        source.delete("a")
        export_store(source, tmp_path / "after.jsonl")
        import_store(tmp_path / "after.jsonl", store)
        import_store(tmp_path / "before.jsonl", store)
        assert statuses(store) == {"current": 1}
        import_store(tmp_path / "after.jsonl", store)
        assert statuses(store) == {"current": 1}
        store.delete("a")
        import_store(tmp_path / "after.jsonl", store)
        assert statuses(store) == {"kept": 1}

    def test_turn_that_is_stored_here_counts_once(self, store: StateStore, tmp_path: Path) -> None:
        """It was imported, and then deleted at the source."""
        source = MemoryStore()
        for name in "ab":
            source.append(name, said(name))
        export_store(source, tmp_path / "all.jsonl")
        import_store(tmp_path / "all.jsonl", store)
        store.delete("b")
        source.delete("a")
        source.delete("b", keep_spending=False)
        export_store(source, tmp_path / "all.jsonl")
        import_store(tmp_path / "all.jsonl", store)
        assert statuses(store) == {"current": 1, "kept": 1}

    def test_own_export_adds_nothing(self, store: StateStore, tmp_path: Path) -> None:
        """Importing it into the store that wrote it."""
        store.append("a", said("x"))
        store.delete("a")
        export_store(store, tmp_path / "all.jsonl")
        import_store(tmp_path / "all.jsonl", store)
        assert statuses(store) == {"kept": 1}

    def test_amounts_count_once_on_every_way(self, source: MemoryStore, tmp_path: Path) -> None:
        """From a store directly, and through another one."""
        between, last = MemoryStore(), MemoryStore()
        export_store(source, tmp_path / "source.jsonl")
        import_store(tmp_path / "source.jsonl", between)
        between.append("own", said("y"))
        between.delete("own")
        export_store(between, tmp_path / "between.jsonl")
        import_store(tmp_path / "between.jsonl", last)
        last.delete("stored", keep_spending=False)
        import_store(tmp_path / "source.jsonl", last)
        assert spent(last) == spent(between) == (8, 76, 0.008)

    @pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
    def test_deleted_in_two_stores_counts_once(self, store: StateStore, tmp_path: Path, order: tuple[str, str]) -> None:
        """Both held the conversation, one of them with one more turn, and another store gets what both kept."""
        path_of = {name: tmp_path / f"{name}.jsonl" for name in order}
        both_of(path_of)
        for name in (*order, *order):
            import_store(path_of[name], store)
        assert (spent(store), statuses(store)) == ((4, 40, 0.004), {"kept": 4})
        last = MemoryStore()
        export_store(store, tmp_path / "merged.jsonl")
        for path in (tmp_path / "merged.jsonl", *path_of.values()):
            import_store(path, last)
            assert spent(last) == (4, 40, 0.004)

    @pytest.mark.parametrize("user_id", [None, "alice"])
    def test_deleted_here_and_there_counts_once(self, store: StateStore, tmp_path: Path, user_id: str | None) -> None:
        """The same for what this store deleted itself, also if it is narrowed to a user."""
        both_of({"first": tmp_path / "first.jsonl", "second": tmp_path / "second.jsonl"})
        mine = store if user_id is None else store.for_user(user_id)
        import_store(tmp_path / "held.jsonl", mine)
        mine.delete("c")
        for name in ("second", "first", "second"):
            import_store(tmp_path / f"{name}.jsonl", mine)
            assert (spent(mine), statuses(mine)) == ((4, 40, 0.004), {"kept": 4})
        import_store(tmp_path / "held.jsonl", mine)
        assert statuses(mine) == {"current": 2, "summary": 1, "kept": 1}
        mine.delete("c")
        import_store(tmp_path / "second.jsonl", mine)
        assert (spent(mine), statuses(mine)) == ((4, 40, 0.004), {"kept": 4})

    def test_export_without_single_calls_counts_once(self, store: StateStore, tmp_path: Path) -> None:
        """An earlier version wrote only sums and hashes: those of what was deleted here are left out."""
        both_of({"first": tmp_path / "first.jsonl", "second": tmp_path / "second.jsonl"})
        path = tmp_path / "second.jsonl"
        header, line = path.read_bytes().splitlines()
        section = json.loads(line)
        assert len(section["kept"].pop("calls")[1]) == 4
        path.write_bytes(header + b"\n" + json.dumps(section, separators=(",", ":")).encode() + b"\n")
        for name in ("first", "second", "second", "first"):
            import_store(tmp_path / f"{name}.jsonl", store)
        assert (spent(store), statuses(store)) == ((4, 40, 0.004), {"kept": 4})

    def test_store_of_an_earlier_version_keeps_sums(self, store: RowStore, tmp_path: Path) -> None:
        """It has no single calls; what it kept is still exported, and counts once."""
        store.append("a", said("x"))
        store.delete("a")
        store.backend.run(lambda: drop_calls(store), write=True)
        store.append("b", said("y"))
        store.delete("b")
        export_store(store, tmp_path / "all.jsonl")
        copy = MemoryStore()
        for _ in range(2):
            import_store(tmp_path / "all.jsonl", copy)
            assert (spent(copy), statuses(copy)) == (spent(store), {"kept": 2})
        export_store(copy, tmp_path / "copy.jsonl")
        import_store(tmp_path / "copy.jsonl", store)
        assert statuses(store) == {"kept": 2}

    def test_narrowed_store_moves_its_own(self, source: MemoryStore, tmp_path: Path) -> None:
        """Exported or imported for one user, the amounts of the others stay out."""
        source.delete("stored")
        export_store(source.for_user("bob"), tmp_path / "bobs.jsonl")
        export_store(source, tmp_path / "all.jsonl")
        for path, user_id in (("bobs.jsonl", None), ("all.jsonl", "bob")):
            store = MemoryStore()
            import_store(tmp_path / path, store if user_id is None else store.for_user(user_id))
            assert [(each.user_id, each.calls) for each in store.kept_usage()] == [("bob", 1)]
        assert b"alice" not in (tmp_path / "bobs.jsonl").read_bytes()

    def test_file_has_neither_id_nor_text(self, tmp_path: Path) -> None:
        """Of what was deleted; earlier versions refuse the file by its format."""
        store, turn = MemoryStore(), said("a secret question", cell_id="cell-1")
        store.append("secret-id", turn)
        store.delete("secret-id")
        export_store(store, tmp_path / "all.jsonl")
        written = (tmp_path / "all.jsonl").read_bytes()
        assert written.startswith(b'{"promptkit_nb":"store","format":2}\n{"kept":')
        assert [written.count(each) for each in (b"secret", turn.id.encode(), b"cell-1")] == [0, 0, 0]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"store": "mine"},
            {"hashes": "AAAA"},
            {"newest_s": -1},
            {"amounts": [{"user_id": "", "day": None}]},
            {"amounts": [{"user_id": "a", "day": None, "calls": 0}]},
            {"amounts": [{"user_id": "a", "day": None, "cost": "NaN"}]},
            {"amounts": [{"user_id": "a", "day": None, "calls": 1, "unpriced": 2}]},
            {"amounts": [{"user_id": "a", "day": None, "usage": {"input_tokens": -5, "output_tokens": 9}}]},
        ],
    )
    def test_damaged_amounts_are_refused(self, store: StateStore, tmp_path: Path, wrong: dict[str, Any]) -> None:
        """Before anything is imported."""
        kept = {"store": "0" * 32, "hashes": "", "amounts": [], "newest_s": 0.0, **wrong}
        path = tmp_path / "all.jsonl"
        lines = [{"promptkit_nb": "store", "format": 2}, {"conversation_id": "a"}]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [*lines, {"kept": kept}])
        path.write_text(text, "utf-8")
        with pytest.raises(InvalidArgumentError, match="is not an exported store"):
            import_store(path, store)
        assert (store.list(), store.kept_usage()) == ([], ())

    def test_store_of_your_own_says_that_it_cannot_keep_them(self, source: MemoryStore, tmp_path: Path) -> None:
        """It gets the conversations, and a warning."""
        export_store(source, tmp_path / "all.jsonl")
        own: Any = Foreign(MemoryStore())
        with pytest.warns(UserWarning, match="What deleted conversations cost, in .* was left out: Foreign"):
            import_store(tmp_path / "all.jsonl", own)
        assert statuses(own.store) == {"current": 1}


class TestCallsWithoutTurn:
    """What a call used counts even if it left no turn."""

    def test_answer_to_a_deleted_conversation(self, store: StateStore) -> None:
        """It is paid for and kept, in the usage and in the ledger."""
        manager = ConversationManager(PricedDemo(), store, budget=Budget(5, per="total"))
        conv = manager.new_conversation(conversation_id="a", user_id="alice")
        stream = conv.stream("Hello")
        next(stream)
        store.delete("a")
        with pytest.raises(ConversationNotFoundError) as caught:
            list(stream)
        assert caught.value.response is not None
        (kept,) = store.kept_usage(user_id="alice")
        assert (kept.calls, kept.cost, kept.model) == (1, Decimal("0.25"), "demo")
        assert kept.usage.total_tokens == caught.value.response.usage.total_tokens
        assert store.spending("total").spent == Decimal("0.25")

    def test_broken_answer(self, store: StateStore, chat_server: ChatServer) -> None:
        """One that breaks off is an error, and what the server says that it used is kept, with its cost."""
        prices = {"m": Price(input=1, output=2, cached_input=0.5)}
        provider = OpenAIProvider("m", base_url=chat_server.url, max_retries=0, prices=prices)
        conv = ConversationManager(provider, store).new_conversation(user_id="alice")
        usage = {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 400},
            "completion_tokens_details": {"reasoning_tokens": 30},
        }
        chunks = [{"delta": {"content": "Paris is"}}, {"delta": {}, "finish_reason": "error"}]
        chat_server.reply(
            Reply(chunks=[{"id": "c", "model": "m", "choices": [each], "usage": usage} for each in chunks])
        )
        with pytest.raises(ProviderUnavailableError, match="broke off"):
            conv.send("Where is Paris?")
        (kept,) = store.kept_usage(user_id="alice")
        assert (kept.calls, kept.model, kept.usage) == (1, "m", Usage(1000, 100, 400, 30))
        assert kept.cost == Decimal("0.001")  # 600 at 1, 400 at 0.5, 100 at 2 dollars per million
        assert (conv.turns, statuses(store)) == ((), {"kept": 1})

    def test_refused_summary(self, store: StateStore) -> None:
        """An empty summary is an error, and its tokens are kept, even if their price is unknown."""
        manager = ConversationManager(EmptySummaries(), store)
        conv = manager.new_conversation()
        for number in range(12):
            conv.send(f"My day {number} is sunny")
        with pytest.raises(Exception, match="empty summary"):
            conv.summarize(keep_last=2)
        (kept,) = store.kept_usage()
        assert (kept.calls, kept.unpriced, kept.usage.output_tokens) == (1, 1, 0)
        assert kept.usage.input_tokens > 0
        assert statuses(store) == {"current": 12, "kept": 1}


class TestViews:
    """Kept amounts in the views."""

    @pytest.fixture
    def kept(self) -> MemoryStore:
        """A store in which alice's conversation is stored, and bob's and alice's older one were deleted."""
        store = MemoryStore()
        for name, user, days, model in (
            ("a", "alice", 0, "small"),
            ("b", "bob", 1, "large"),
            ("c", "alice", 2, "large"),
        ):
            turn = said(name, model=model, created_at=START + days * DAY, provider="openai")
            store.append(name, turn, user_id=user)
        store.delete("b")
        store.delete("c")
        return store

    def test_filters_apply(self, kept: MemoryStore) -> None:
        """By user, model and day; filters by id exclude what has no id."""
        assert statuses(kept) == {"current": 1, "kept": 2}
        assert statuses(kept, user_id="alice") == {"current": 1, "kept": 1}
        assert statuses(kept.for_user("bob")) == {"kept": 1}
        assert statuses(kept, model="large") == {"kept": 2}
        assert statuses(kept, since="2026-03-02", until="2026-03-02") == {"kept": 1}
        assert statuses(kept, since=START + DAY + timedelta(hours=5)) == {"kept": 2}, "the whole day counts"
        assert statuses(kept, prefix="a") == {"current": 1}
        assert statuses(kept, conversation_id="a") == {"current": 1}

    def test_charts_and_dashboard_have_rows_of_their_own(self, kept: MemoryStore) -> None:
        """They label turns that are not stored any more, and a click on them opens nothing."""
        legend = plot_cost(kept, by=["day", "status"]).axes[0].get_legend()
        labels = [] if legend is None else [each.get_text().strip() for each in legend.get_texts()]
        assert sorted(labels) == ["current", "kept"]
        assert plot_cost(kept).axes[0].get_title(loc="left") == "Cost: $0.0030"
        dashboard = usage_dashboard(kept)
        assert dashboard.total == "3 turns · 30 tokens · $0.0030"
        table = dashboard.tables[-1]
        assert [row[0] for row in table["rows"]] == ["a", "(no longer stored)", "(no longer stored)"]
        assert table["opens"] == ("a", "", "")

    def test_deletion_while_reading_is_not_missed(self) -> None:
        """A conversation that is deleted after it was listed counts once."""

        class Deleting(MemoryStore):
            is_first = True

            def kept_usage(self, *, user_id: str | None = None) -> tuple[KeptUsage, ...]:
                found = super().kept_usage(user_id=user_id)
                if self.is_first:
                    self.is_first = False
                    self.delete("a")
                return found

        store = Deleting()
        store.append("a", said("x"))
        assert statuses(store) == {"kept": 1}

    def test_store_of_your_own_may_keep_nothing(self) -> None:
        """A store without ``kept_usage`` is shown as before."""

        class Own:
            def __init__(self) -> None:
                self.store = MemoryStore()

            def __getattr__(self, name: str) -> Any:
                if name == "kept_usage":
                    raise AttributeError(name)
                return getattr(self.store, name)

        own: Any = Own()
        own.append("a", said("x"))
        assert statuses(own) == {"current": 1}


def test_sums_are_exact() -> None:
    """Amounts of the same user, day, provider and model are added; the day is that in UTC."""
    store = MemoryStore()
    for number in range(10):
        at = START.replace(hour=23) + timedelta(minutes=number)
        turn = Turn(messages=(Message("user", "x"),), usage=Usage(8, 2, 4, 1), cost=Decimal("0.1"), created_at=at)
        store.append(f"{number}", turn, user_id="alice")
        store.delete(f"{number}")
    (kept,) = store.kept_usage()
    assert (kept.day, kept.calls, kept.usage, kept.cost) == (
        date(2026, 3, 1),
        10,
        Usage(80, 20, 40, 10),
        Decimal("1.0"),
    )


class PricedDemo(DemoProvider):
    """A demo whose calls cost a quarter of a dollar."""

    def price(self, model: str, usage: Usage, at: Any) -> Any:
        """Return the price of one call."""
        return replace(super().price(model, usage, at), usd=Decimal("0.25"))


class EmptySummaries(DemoProvider):
    """A demo without prices that answers requests for summaries with nothing."""

    def price(self, model: str, usage: Usage, at: Any) -> Any:
        """Return an unknown price."""
        return replace(super().price(model, usage, at), usd=None)

    def stream(self, request: ChatRequest) -> Any:
        """Leave out the text of a summary."""
        is_summary = "You summarize conversations" in request.messages[0].content
        events: list[StreamEvent] = [*super().stream(request)]
        if is_summary:
            events = [Completion(model=request.model, finish_reason="stop", usage=Usage(50, 0))]
        yield from events
