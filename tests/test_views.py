"""The views of turns, messages and conversations: their rows and columns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from promptkit_nb import (
    ConversationManager,
    ConversationNotFoundError,
    ConversationState,
    DemoProvider,
    InvalidArgumentError,
    MemoryStore,
    Message,
    Summary,
    Turn,
    Usage,
    conversations_df,
    messages_df,
    search,
    turns_df,
    usage_df,
)
from promptkit_nb.turns import ToolCall
from promptkit_nb.views.schemas import CONVERSATIONS, KEYS, MESSAGES, TURNS, USAGE, table_of
from storing import START, Foreign, rich_state, said

if TYPE_CHECKING:
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.schemas import Schema

View = Any  # one of the four functions: their arguments differ

VIEWS: dict[View, Schema] = {
    conversations_df: CONVERSATIONS,
    turns_df: TURNS,
    messages_df: MESSAGES,
    usage_df: (KEYS[1], KEYS[6], *USAGE),
}


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    """Return the name of each column's dtype."""
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def shown(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """Return rows as tuples, with ``None`` for missing values."""
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame[list(columns)].to_numpy(object)]


@pytest.fixture
def rich() -> MemoryStore:
    """A memory store with a turn of every status, and a fork of it."""
    store = MemoryStore()
    store.create(rich_state())
    store.fork("rich", "zfork")
    return store


class TestColumns:
    """Columns and dtypes do not depend on what is stored."""

    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_columns_match_the_schema(self, view: View, rich: MemoryStore) -> None:
        """Names, order and dtypes match the schema."""
        assert dtypes(view(rich)) == {column.name: column.dtype for column in VIEWS[view]}
        assert list(view(rich).columns) == [column.name for column in VIEWS[view]]

    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_empty_store_has_the_same_columns(self, view: View) -> None:
        """Without rows, the dtypes are the same, including those of the categories."""
        frame = view(MemoryStore())
        assert len(frame) == 0
        assert dtypes(frame) == {column.name: column.dtype for column in VIEWS[view]}
        assert {str(frame[each.name].cat.categories.dtype) for each in VIEWS[view] if each.dtype == "category"} == {
            "str"
        }

    @pytest.mark.parametrize("view", [conversations_df, turns_df, messages_df], ids=lambda view: view.__name__)
    def test_docstring_contains_the_table_of_columns(self, view: View) -> None:
        """``help()`` shows each column with its dtype and meaning."""
        lines = [line.strip() for line in view.__doc__.splitlines()]
        assert [line for line in table_of(VIEWS[view]).splitlines() if line not in lines] == []
        assert "{columns}" not in view.__doc__

    def test_usage_describes_its_columns(self) -> None:
        """The docstring lists the figures; the caller chooses the keys."""
        assert usage_df.__doc__ is not None
        assert "unpriced_turns      Int64" in usage_df.__doc__

    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_each_store_shows_the_same(self, view: View, store: StateStore) -> None:
        """Memory, disk, Redis and custom stores give equal frames."""
        state = rich_state()
        memory = MemoryStore(clock=lambda: START)
        for each in (store, memory):
            each.set(state)
            each.append("another", said("one", id="1", model="m", cell_id="c1"))
            each.fork("rich", "zfork")
        status = {"status": "all"} if view in (turns_df, messages_df) else {}
        pd.testing.assert_frame_equal(view(store, **status), view(memory, **status))
        pd.testing.assert_frame_equal(view(Foreign(store), **status), view(memory, **status))


SHOW_STORAGES = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pandas as pd
from promptkit_nb import MemoryStore, conversations_df, messages_df, search, turns_df, usage_df
from storing import START, said
store = MemoryStore(clock=lambda: START)
store.append("a", said("one", id="1", model="m"))
print("pyarrow" in sys.modules)
for frame in conversations_df(store), turns_df(store), messages_df(store), search(store, "one"), usage_df(store):
    arrays = [frame[name].array for name in frame]
    texts = [array.categories if isinstance(array, pd.Categorical) else array for array in arrays]
    print({{text.dtype.storage for text in texts if text.dtype == "str"}}, frame.to_dict("tight"))
"""

BLOCK_PYARROW = """
import sys
class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked)
"""


def test_texts_have_one_storage_with_and_without_pyarrow() -> None:
    """Without an explicit storage, pandas would choose Arrow's if pyarrow is installed."""
    with_it, without = (
        subprocess.run(
            [sys.executable, "-c", before + SHOW_STORAGES], capture_output=True, text=True, check=True
        ).stdout
        for before in ("import sys, pyarrow", BLOCK_PYARROW)
    )
    assert (with_it[:5], without[:5]) == ("True\n", "False")
    assert [line.partition("} ")[0] for line in with_it.splitlines()[1:]] == ["{'python'"] * 5
    assert with_it.splitlines()[1:] == without.splitlines()[1:]


class TestTurns:
    """One row per turn."""

    def test_fields_of_a_turn_are_its_columns(self) -> None:
        """Each value is in its column; cached and reasoning tokens are separate."""
        store = MemoryStore()
        turn = said(
            "Hi",
            id="t1",
            usage=Usage(1000, 200, cached_tokens=400, reasoning_tokens=50, estimated=True),
            cost=Decimal("0.0019"),
            model="small",
            provider="openai",
            latency_ms=500.0,
            finish_reason="length",
            truncated=3,
            cell_id="cell-1",
        )
        store.append("a", turn, user_id="alice")
        assert turns_df(store).iloc[0].to_dict() == {
            "conversation_id": "a",
            "user_id": "alice",
            "turn_id": "t1",
            "position": 0,
            "created_at": pd.Timestamp(START),
            "user_text": "Hi",
            "text": "You said Hi.",
            "messages": 2,
            "model": "small",
            "provider": "openai",
            "source": "promptkit_nb",
            "input_tokens": 1000,
            "output_tokens": 200,
            "cached_tokens": 400,
            "reasoning_tokens": 50,
            "total_tokens": 1200,
            "cache_write_tokens": 0,
            "estimated": True,
            "cost_usd": 0.0019,
            "saved_usd": pytest.approx(float("nan"), nan_ok=True),
            "price_source": pytest.approx(float("nan"), nan_ok=True),
            "latency_ms": 500.0,
            "tokens_per_second": 400.0,
            "finish_reason": "length",
            "truncated": 3,
            "cell_id": "cell-1",
            "row_index": pytest.approx(float("nan"), nan_ok=True),
            "replayed": False,
            "interrupted": False,
            "stale": False,
            "status": "current",
            "branch": pytest.approx(float("nan"), nan_ok=True),
        }

    def test_unknown_is_missing_and_never_zero(self) -> None:
        """Unknown costs, latencies and speeds are missing; a replay shows what it saved."""
        store = MemoryStore()
        store.append("a", said("unpriced", cost=None))
        store.append("a", said("again", cost=Decimal(0), replayed=True, saved=Decimal("0.25"), latency_ms=0.0))
        assert shown(turns_df(store), "cost_usd", "saved_usd", "latency_ms", "tokens_per_second", "replayed") == [
            (None, None, None, None, False),
            (0.0, 0.25, 0.0, None, True),
        ]

    def test_costs_are_the_nearest_floating_point_numbers(self) -> None:
        """No cost is off in the last digit."""
        store = MemoryStore()
        costs = ["0.0019", "1E-7", "0.1", "123456.789012345678", "0.000000000000000000001", "0.3"]
        for cost in costs:
            store.append("a", said(cost, cost=Decimal(cost)))
        assert turns_df(store)["cost_usd"].tolist() == [0.0019, 1e-7, 0.1, 123456.789012345678, 0.0, 0.3]

    def test_current_turns_are_shown(self, rich: MemoryStore) -> None:
        """By default, the view shows current turns that were said in their conversation."""
        assert shown(turns_df(rich), "conversation_id", "position", "user_text", "status") == [
            ("rich", 0, "one", "current"),
            ("rich", 1, "two", "current"),
            ("rich", 2, "three", "current"),
        ]

    def test_all_adds_every_other_row(self, rich: MemoryStore) -> None:
        """Previous versions, branches, turns that a fork copied, and summaries."""
        found = turns_df(rich, status="all")
        columns = ("conversation_id", "position", "user_text", "text", "status", "branch")
        assert shown(found[found["conversation_id"] == "rich"], *columns) == [
            ("rich", 0, "one", "You said one.", "current", None),
            ("rich", 1, "two", "You said two.", "current", None),
            ("rich", 2, "three", "You said three.", "current", None),
            ("rich", None, "zero", "You said zero.", "replaced", None),
            ("rich", None, "half", "You said half.", "replaced", None),
            ("rich", None, "left", "You said left.", "archived", "before"),
            ("rich", None, "far", "You said far.", "inherited", "before"),
            ("rich", None, None, "They talked.", "summary", None),
        ]
        assert found[found["conversation_id"] == "zfork"]["status"].tolist() == ["inherited"] * 7 + ["summary"]

    def test_dropped_turns_have_no_row(self, rich: MemoryStore) -> None:
        """Turns that a ``set`` removed are only in the totals."""
        rich.set(replace(rich.get("rich"), turns=(), versions={}, branches=(), summaries=()))
        assert len(turns_df(rich, conversation_id="rich", status="all")) == 0

    def test_interrupted_turns_are_marked(self) -> None:
        """A column says whether the answer was stopped."""
        store = MemoryStore()
        store.append("a", said("stop", finish_reason="interrupted"))
        store.append("a", said("go", finish_reason="stop"))
        assert turns_df(store)["interrupted"].tolist() == [True, False]

    def test_stale_turns_are_marked(self) -> None:
        """A turn is stale while its context differs from the one it was answered in."""
        conv = ConversationManager(DemoProvider()).new_conversation(conversation_id="a")
        first = conv.send("one").turn
        conv.send("two")
        conv.rerun(0, "uno")
        store = conv.store
        assert turns_df(store)["stale"].tolist() == [False, True]
        store.restore("a", first)
        assert turns_df(store)["stale"].tolist() == [False, False]


class TestMessages:
    """One row per message."""

    def test_each_message_is_a_row_with_its_turn(self) -> None:
        """Role and text belong to the message, all other values to its turn."""
        store = MemoryStore()
        store.append("a", said("Hi", id="t1", model="small", provider="demo", cell_id="c", replayed=True))
        assert shown(messages_df(store), "turn_id", "position", "role", "content", "model", "cell_id", "replayed") == [
            ("t1", 0, "user", "Hi", "small", "c", True),
            ("t1", 0, "assistant", "You said Hi.", "small", "c", True),
        ]

    def test_tool_calls_and_reasoning_are_columns(self) -> None:
        """Calls are JSON; results are messages of the role ``tool``."""
        store = MemoryStore()
        messages = (
            Message("user", "Weather?"),
            Message("assistant", tool_calls=(ToolCall("1", "weather", '{"city":"Bern"}'),), reasoning="Look."),
            Message("tool", "sunny", tool_call_id="1", name="weather"),
            Message("assistant", "Sunny."),
        )
        store.append("a", Turn(messages=messages))
        found = shown(messages_df(store), "role", "tool_name", "tool_call_id")
        assert found[2:3] == [("tool", "weather", "1")]
        assert shown(messages_df(store), "role", "content", "reasoning", "tool_calls") == [
            ("user", "Weather?", None, None),
            ("assistant", "", "Look.", '[{"id":"1","name":"weather","arguments":"{\\"city\\":\\"Bern\\"}"}]'),
            ("tool", "sunny", None, None),
            ("assistant", "Sunny.", None, None),
        ]

    def test_message_without_a_time_has_its_turns(self) -> None:
        """A message without a time shows the time of its turn."""
        store = MemoryStore()
        asked = START - timedelta(seconds=2)
        messages = (Message("user", "Hi", timestamp=asked), Message("assistant", "Hello"))
        store.append("a", Turn(messages=messages, created_at=START))
        assert messages_df(store)["created_at"].tolist() == [pd.Timestamp(asked), pd.Timestamp(START)]

    def test_all_adds_the_messages_of_other_turns(self, rich: MemoryStore) -> None:
        """A summary is a message of the model that belongs to no turn."""
        found = messages_df(rich, conversation_id="rich", status="all")
        assert found["status"].value_counts().to_dict() == {
            "current": 6,
            "replaced": 4,
            "archived": 2,
            "inherited": 2,
            "summary": 1,
        }
        assert shown(found.tail(1), "turn_id", "role", "content") == [(None, "assistant", "They talked.")]


class TestConversations:
    """One row per conversation."""

    def test_row_matches_the_head(self, rich: MemoryStore) -> None:
        """Counts, totals and times match the store's; a fork cost nothing."""
        columns = ("conversation_id", "user_id", "turns", "messages", "total_tokens", "cost_usd", "unpriced_turns")
        assert shown(conversations_df(rich), *columns) == [
            ("rich", "alice", 3, 6, 56, 0.006, 1),
            ("zfork", "alice", 3, 6, 0, 0.0, 0),
        ]
        assert conversations_df(rich)["updated_at"].iloc[0] == pd.Timestamp(START + timedelta(minutes=1))
        assert conversations_df(rich)["metadata"].iloc[0] == '{"topic":"travel","stars":5,"tags":["a",{"b":null}]}'

    def test_conversation_without_turns_is_a_row(self) -> None:
        """A conversation without turns cost 0; one whose only turn has no price has no cost."""
        store = MemoryStore()
        store.create(ConversationState("empty"))
        store.append("unpriced", said("x", cost=None, model="mine"))
        assert shown(conversations_df(store), "conversation_id", "turns", "messages", "cost_usd", "model") == [
            ("empty", 0, 0, 0.0, None),
            ("unpriced", 1, 2, None, "mine"),
        ]

    def test_stale_turns_are_counted(self) -> None:
        """The number of turns whose context has changed."""
        conv = ConversationManager(DemoProvider()).new_conversation(conversation_id="a")
        for text in ("one", "two", "three"):
            conv.send(text)
        conv.rerun(0, "uno")
        assert conversations_df(conv.store)["stale_turns"].tolist() == [2]

    def test_time_filters_select_active_conversations(self) -> None:
        """A conversation passes if it was created before the end and written after the start."""
        store = MemoryStore()
        for day in (1, 5, 9):
            when = datetime(2026, 3, day, tzinfo=UTC)
            store.create(ConversationState(f"d{day}", created_at=when, updated_at=when + timedelta(days=1)))
        assert list(conversations_df(store, since="2026-03-06", until="2026-03-08")["conversation_id"]) == ["d5"]
        assert list(conversations_df(store, since="2026-03-06")["conversation_id"]) == ["d5", "d9"]
        assert list(conversations_df(store, until=date(2026, 3, 5))["conversation_id"]) == ["d1", "d5"]

    def test_model_filter_matches_answering_and_requested_model(self) -> None:
        """A server may report a longer model name than the one requested."""
        store = MemoryStore()
        store.append("a", said("x", requested_model="mini", model="mini-2026"))
        store.append("b", said("y", model="large"))
        store.create(ConversationState("c"))
        assert list(conversations_df(store, model="mini")["conversation_id"]) == ["a"]
        assert list(conversations_df(store, model="large")["conversation_id"]) == ["b"]


class TestFilters:
    """Filters, which all views share."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """A memory store with one turn per day, by two users and two models."""
        store = MemoryStore()
        for day, (user, model) in enumerate([("alice", "small"), ("bob", "small"), ("alice", "large")], 1):
            turn = said(f"day {day}", created_at=datetime(2026, 3, day, 12, tzinfo=UTC), model=model)
            store.append(f"user:{user}:{day}", turn, user_id=user)
        return store

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({}, [1, 3, 2]),
            ({"user_id": "alice"}, [1, 3]),
            ({"user_id": "nobody"}, []),
            ({"prefix": "user:bob:"}, [2]),
            ({"model": "small"}, [1, 2]),
            ({"conversation_id": "user:bob:2"}, [2]),
            ({"conversation_id": "user:bob"}, []),
            ({"conversation_id": "user:bob:2", "user_id": "alice"}, []),
            ({"since": "2026-03-02"}, [3, 2]),
            ({"until": "2026-03-02"}, [1, 2]),
            ({"since": date(2026, 3, 2), "until": date(2026, 3, 2)}, [2]),
            ({"since": datetime(2026, 3, 1, 12, tzinfo=UTC), "until": "2026-03-02T12:00:00Z"}, [1]),
            ({"since": datetime(2026, 3, 3, 13, tzinfo=timezone(timedelta(hours=1)))}, [3]),
            ({"since": pd.Timestamp("2026-03-03", tz="UTC"), "user_id": "alice", "model": "large"}, [3]),
        ],
    )
    def test_filters_narrow_the_rows(self, store: MemoryStore, filters: dict[str, Any], found: list[int]) -> None:
        """A row has to pass every filter."""
        assert list(turns_df(store, **filters)["user_text"]) == [f"day {day}" for day in found]
        assert list(messages_df(store, **filters)["content"])[::2] == [f"day {day}" for day in found]
        assert usage_df(store, by=[], **filters)["turns"].tolist() == [len(found)]

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({}, [1, 3, 2]),
            ({"user_id": "alice"}, [1, 3]),
            ({"prefix": "user:bob:"}, [2]),
            ({"conversation_id": "user:bob:2"}, [2]),
            ({"conversation_id": "user:bob:2", "user_id": "alice"}, []),
            ({"model": "small"}, [1, 2]),
        ],
    )
    def test_filters_narrow_conversations_and_searches(
        self, store: MemoryStore, filters: dict[str, Any], found: list[int]
    ) -> None:
        """Conversations and search results have to pass every filter."""
        days = conversations_df(store, **filters)["conversation_id"].astype("str").str[-1].astype("int")
        assert list(days) == found
        assert list(search(store, "said day", **filters)["snippet"]) == [f"You said day {day}." for day in found]

    def test_time_filters_narrow_a_search(self, store: MemoryStore) -> None:
        """Time filters apply to searches."""
        assert len(search(store, "said", since="2026-03-02")) == 2
        assert len(search(store, "said", until="2026-03-01")) == 1

    def test_filtered_frame_has_no_other_categories(self, store: MemoryStore) -> None:
        """Categories are only those that occur: no other user's name, model or conversation."""
        found = turns_df(store, user_id="bob")
        assert {name: list(found[name].cat.categories) for name in ("conversation_id", "user_id", "model")} == {
            "conversation_id": ["user:bob:2"],
            "user_id": ["bob"],
            "model": ["small"],
        }

    @pytest.mark.parametrize(
        ("filters", "message"),
        [
            ({"since": datetime(2026, 3, 1)}, "since=.* has no time zone: give an aware datetime"),  # noqa: DTZ001 - meant
            ({"until": "soon"}, "until='soon' is not a time: give \"2026-11-22\""),
            ({"until": 5}, "until=5 is not a time: give a date"),
            ({"until": date.max}, "until=.* is at the end of the calendar"),
            (
                {"since": "2026-03-02", "until": "2026-03-01"},
                "since='2026-03-02' is after until='2026-03-01'; swap them",
            ),
            ({"user_id": 5}, "user_id=5 is not text"),
            ({"prefix": 5}, "prefix=5 is not text"),
            ({"model": ["a"]}, r"model=\['a'\] is not text; leave it out for all"),
            ({"conversation_id": 5}, "conversation_id=5 is not text; leave it out for all"),
        ],
    )
    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_invalid_filter_is_refused(
        self, view: View, store: MemoryStore, filters: dict[str, Any], message: str
    ) -> None:
        """The error names the value and what to give instead."""
        with pytest.raises(InvalidArgumentError, match=message):
            view(store, **filters)

    @pytest.mark.parametrize("wrong", [None, "conversations", ConversationManager(DemoProvider())])
    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_anything_but_a_store_is_refused(self, view: View, wrong: Any) -> None:
        """A manager or a directory is not a store."""
        with pytest.raises(InvalidArgumentError, match=r"^store=.* is not a store; give DiskStore.* or manager\.store"):
            view(wrong)

    @pytest.mark.parametrize("view", [turns_df, messages_df], ids=lambda view: view.__name__)
    def test_unknown_status_is_refused(self, view: View, store: MemoryStore) -> None:
        """The status is "current" or "all"."""
        with pytest.raises(InvalidArgumentError, match="status='gone' is unknown: use 'current' or 'all'"):
            view(store, status="gone")

    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
    def test_narrowed_store_shows_one_user(self, view: View, store: MemoryStore) -> None:
        """A narrowed store shows its user's rows; another user's id raises."""
        bobs = ConversationManager(DemoProvider(), store).for_user("bob").store
        assert len(view(bobs)) == len(view(store, user_id="bob")) > 0
        assert len(view(bobs, conversation_id="user:alice:1")) == 0
        for filters in ({}, {"conversation_id": "user:bob:2"}):
            with pytest.raises(
                InvalidArgumentError, match="user_id='alice' is another user: this store is narrowed to 'bob'"
            ):
                view(bobs, user_id="alice", **filters)

    def test_conversation_deleted_during_the_read_is_omitted(self) -> None:
        """A conversation deleted between listing and reading is not an error."""

        class Vanishing(Foreign):
            def get(self, conversation_id: str) -> ConversationState:
                if conversation_id == "b":
                    self.store.delete("b")
                return self.store.get(conversation_id)

        vanishing = Vanishing(MemoryStore())
        for name in "abc":
            vanishing.append(name, said(name))
        assert list(turns_df(vanishing)["user_text"]) == ["a", "c"]


def test_copied_summary_costs_nothing(rich: MemoryStore) -> None:
    """A fork shows the summary it copied, which cost it nothing."""
    rich.add_summary("zfork", Summary("a", "b", "More.", Usage(3, 1), Decimal("0.5"), "m", START))
    found = turns_df(rich, conversation_id="zfork", status="all").tail(2)
    assert shown(found, "text", "total_tokens", "cost_usd") == [("They talked.", 0, 0.0), ("More.", 4, 0.5)]


class TestFromTheManager:
    """The views as methods of a manager and a conversation."""

    def test_manager_shows_its_store(self) -> None:
        """Each view is a method with the same filters."""
        manager = ConversationManager(DemoProvider())
        manager.new_conversation(conversation_id="a", user_id="alice").send("Hi")
        manager.new_conversation(conversation_id="b", user_id="bob").send("Ho")
        assert list(manager.conversations_df(user_id="bob")["conversation_id"]) == ["b"]
        assert list(manager.turns_df(prefix="a")["user_text"]) == ["Hi"]
        assert manager.messages_df(conversation_id="b", status="all")["content"].iloc[0] == "Ho"
        assert list(manager.usage_df("user_id")["turns"]) == [1, 1]
        assert list(manager.for_user("bob").usage_df(["user_id"])["user_id"]) == ["bob"]

    def test_conversation_shows_its_messages(self) -> None:
        """The frame has the current messages, including those that a fork copied."""
        manager = ConversationManager(DemoProvider())
        manager.new_conversation(conversation_id="a").send("Hi")
        manager.new_conversation(conversation_id="b").send("Ho")
        fork = manager.get_conversation("a").fork("c")
        fork.send("More")
        fork.rerun(1, "Less")
        assert dtypes(fork.to_df()) == {column.name: column.dtype for column in MESSAGES}
        assert shown(fork.to_df(), "conversation_id", "position", "role", "status")[::2] == [
            ("c", 0, "user", "inherited"),
            ("c", 1, "user", "current"),
        ]
        assert list(fork.to_df()["content"])[::2] == ["Hi", "Less"]

    def test_deleted_conversation_raises(self) -> None:
        """It raises like its other properties."""
        manager = ConversationManager(DemoProvider())
        conv = manager.new_conversation(conversation_id="a")
        manager.delete_conversation("a")
        with pytest.raises(ConversationNotFoundError, match="'a'"):
            conv.to_df()
