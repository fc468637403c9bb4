"""Edge cases of the three stores, which behave alike; the contract itself is in ``promptkit_nb.testing``."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from promptkit_nb.codec import encode_turn
from promptkit_nb.errors import (
    ConversationChangedError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
    InvalidConversationIdError,
    StoreUnavailableError,
)
from promptkit_nb.state import ConversationState, Head, Settings
from promptkit_nb.stores.checks import checked_state
from promptkit_nb.turns import Turn, Usage
from storing import START, rich_state, said, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptkit_nb.stores.base import Duration, SortKey, StateStore
    from promptkit_nb.stores.row_store import RowStore
    from storing import Clock, OpenStore


class TestCreating:
    """``create`` stores a conversation once."""

    def test_id_is_given_once(self, store: StateStore) -> None:
        """The second one is refused, and the first is unchanged, whoever owns it."""
        store.create(ConversationState("a", "alice", turns=(said("hello"),)))
        before = store.get("a")
        with pytest.raises(ConversationExistsError, match="'a' exists already; nothing was changed"):
            store.create(ConversationState("a", "bob"))
        assert store.get("a") == before

    def test_deleted_id_is_free_again(self, store: StateStore) -> None:
        """The new conversation has nothing of the previous one."""
        store.create(rich_state("a"))
        store.delete("a")
        assert store.create(ConversationState("a")).token_count == 0
        assert store.get("a").turns == ()

    def test_long_conversation_is_stored_as_any_other(self, store: StateStore) -> None:
        """Of a long one, only the first lines are kept in memory until they are written."""
        state = rich_state("a")
        sizes = {turn.id: len(encode_turn(turn)) for turn in state.turns}
        with patch("promptkit_nb.stores.checks.MOST_BYTES_OF_LINES", sizes[state.turns[0].id]):
            assert [*checked_state(state)[1]] == [state.turns[0].id]
            store.create(state)
        assert store.get("a") == state

    def test_one_that_is_refused_leaves_the_others(self, store: RowStore) -> None:
        """``create_each`` stores all that can be stored, and says for each of the others why not."""
        store.create(ConversationState("taken"))
        a, again, twice = rich_state("a"), ConversationState("a"), ConversationState("c", turns=(said("hello"),) * 2)
        states = [a, *map(ConversationState, ("taken", " ", "b")), again, twice]
        assert [type(each) for each in store.create_each(states)] == [
            *(Head, ConversationExistsError, InvalidConversationIdError),
            *(Head, ConversationExistsError, InvalidArgumentError),
        ]
        assert store.get("a") == a
        assert {head.conversation_id for head in store.list()} == {"taken", "a", "b"}


class TestIds:
    """Any text is an id, and ids that look alike are different."""

    @pytest.mark.parametrize(
        "conversation_id",
        [
            "a",
            "user:alice:session:1",
            "../../etc/passwd",
            "a/b\\c",
            "a:meta",
            "h:a",
            "日本語:Привет:مرحبا",
            "🙂",
            " leading",
            "line\nbreak",
            "nul\0inside",
            "%_*?[x]",
            "'; DROP TABLE Cache; --",
            "last \U0010ffff",
            "x" * 300,
            "é" * 1000,
        ],
    )
    def test_any_text_is_an_id(self, store: StateStore, conversation_id: str) -> None:
        """A conversation is created, appended to, read, listed and deleted under exactly that id."""
        store.create(ConversationState(conversation_id))
        store.append(conversation_id, said("hi"))
        assert store.get(conversation_id).conversation_id == conversation_id
        assert [head.conversation_id for head in store.list(prefix=conversation_id)] == [conversation_id]
        store.delete(conversation_id)
        assert store.list() == []

    @pytest.mark.parametrize(("one", "other"), [("a", "a:meta"), ("a", "A"), ("a", "a "), ("a", "a\0"), ("1", "01")])
    def test_ids_that_look_alike_are_different(self, store: StateStore, one: str, other: str) -> None:
        """Deleting one leaves the other."""
        store.append(one, said("one"))
        store.append(other, said("other"))
        store.delete(one)
        assert texts(store.get(other).turns) == ["other"]

    @pytest.mark.parametrize("bad", ["", " ", "\n\t", "x" * 1001, "\ud83d", None, 7])
    def test_invalid_id_is_refused_by_every_call(self, store: StateStore, bad: Any) -> None:
        """Blank, too long, half a character or not text: ``InvalidConversationIdError``, and nothing is stored."""
        calls: list[Callable[[], object]] = [
            lambda: store.create(ConversationState(bad)),
            lambda: store.get(bad),
            lambda: store.set(ConversationState(bad)),
            lambda: store.append(bad, said("x")),
            lambda: store.recent(bad, -1),
            lambda: store.head(bad),
            lambda: store.update_metadata(bad, x=object()),
            lambda: store.delete(bad),
        ]
        for call in calls:
            with pytest.raises(InvalidConversationIdError):
                call()
        assert store.list() == []

    @pytest.mark.parametrize("bad", ["", "  ", "\ud83d", "x" * 1001, None])
    def test_invalid_user_is_refused(self, store: StateStore, bad: Any) -> None:
        """User ids follow the same rules as conversation ids; nothing is stored."""
        with pytest.raises(InvalidArgumentError, match="cannot be a user id"):
            store.create(ConversationState("a", bad))
        with pytest.raises(InvalidArgumentError, match="cannot be a user id"):
            store.append("a", said("x"), user_id=bad)
        assert store.list() == []


class TestSetting:
    """``set`` writes exactly what it is given."""

    def test_later_state_replaces_the_former(self, store: StateStore) -> None:
        """Other turns, fewer turns, none: what was written last is stored, and nothing else."""
        for said_now in (["a", "b", "c"], ["a", "b", "c", "d"], ["x"], []):
            store.set(ConversationState("a", turns=tuple(said(text) for text in said_now)))
            assert texts(store.get("a").turns) == said_now
            assert texts(store.recent("a", 9)) == said_now
            assert store.head("a").turn_count == len(said_now)

    def test_turns_may_be_appended_after_a_set(self, store: StateStore) -> None:
        """They come after those of the state; versions and branches are unchanged."""
        store.set(rich_state())
        before = store.get("rich")
        store.append("rich", said("four"))
        after = store.get("rich")
        assert texts(after.turns) == ["one", "two", "three", "four"]
        assert (after.versions, after.branches) == (before.versions, before.branches)
        assert texts(store.recent("rich", 2)) == ["three", "four"]

    def test_state_of_another_store_keeps_its_totals(self, open_store: OpenStore) -> None:
        """A copy of a conversation that lost turns has the totals of the original."""
        one, other = open_store(), open_store()
        one.set(rich_state())
        one.set(replace(one.get("rich"), turns=(), versions={}))
        other.set(one.get("rich"))
        assert other.head("rich").token_count == one.head("rich").token_count == 56

    def test_version_of_a_turn_that_is_not_there_is_refused(self, store: StateStore) -> None:
        """No call could ever return it."""
        with pytest.raises(InvalidArgumentError, match="neither a current turn nor on a branch"):
            store.set(ConversationState("a", versions={"ghost": (said("x"),)}))

    def test_state_is_a_state(self, store: StateStore) -> None:
        """``None`` or a dict is refused with our error."""
        wrong: Any
        for wrong in (None, {}, "a"):
            with pytest.raises(InvalidArgumentError, match="is not a state"):
                store.set(wrong)
            with pytest.raises(InvalidArgumentError, match="is not a state"):
                store.create(wrong)


class TestRevisions:
    """Revisions count writes, so that a stale one is noticed."""

    def test_append_that_creates_is_at_revision_one(self, store: StateStore) -> None:
        """The conversation is created together with its turn."""
        assert store.append("a", said("x")).revision == 1

    def test_revision_zero_means_not_there(self, store: StateStore) -> None:
        """So a conversation can be written on condition that it is new."""
        assert store.set(ConversationState("a"), expected_revision=0).revision == 1
        with pytest.raises(ConversationChangedError):
            store.set(ConversationState("a"), expected_revision=0)
        with pytest.raises(ConversationChangedError):
            store.set(ConversationState("b"), expected_revision=1)
        assert [head.conversation_id for head in store.list()] == ["a"]


class TestAppending:
    """``append`` adds one turn at the end."""

    def test_missing_conversation_is_created_for_the_user(self, store: StateStore, clock: Clock) -> None:
        """It has just this turn, and its times are the current time."""
        clock.pass_s(60)
        turn = said("hi")
        head = store.append("a", turn, user_id="alice")
        assert (head.user_id, head.turn_count, head.created_at, head.updated_at) == ("alice", 1, clock.now, clock.now)
        assert store.get("a").turns == (turn,)

    def test_same_turn_twice_is_once_however_old(self, store: StateStore) -> None:
        """Appending the first of 50 turns again changes neither turns nor totals nor times."""
        first = said("0")
        store.append("a", first)
        for number in range(1, 50):
            store.append("a", said(str(number)))
        before = store.head("a")
        assert store.append("a", first) == before
        assert len(store.get("a").turns) == 50

    def test_half_of_an_emoji_is_cleaned(self, store: StateStore) -> None:
        """No encoder accepts it, but every store keeps the turn, in the same form."""
        store.append("a", said("x", cell_source="a\ud83db", model="\ud83d\ude42"))
        (turn,) = store.get("a").turns
        assert (turn.cell_source, turn.model) == ("a\ufffdb", "🙂")

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            {"messages": []},
            said("x", latency_ms="fast"),
            said("x", cost="free"),
            said("x", cost=Decimal("NaN")),
            said("x", usage=Usage("many", 1)),  # type: ignore[arg-type]  # a mistake of the caller
            said("x", created_at=datetime(2026, 3, 1)),  # noqa: DTZ001 - without a zone on purpose
            said("x", model=None),
        ],
        ids=["none", "dict", "latency", "cost", "nan", "usage", "naive", "model"],
    )
    def test_turn_that_could_not_be_read_back_is_refused(self, store: StateStore, wrong: Any) -> None:
        """It would be lost, or damage the whole conversation; nothing is written, not even the conversation."""
        with pytest.raises(InvalidArgumentError):
            store.append("a", wrong)
        assert store.list() == []

    def test_cost_given_as_a_float_becomes_exact(self, store: StateStore) -> None:
        """A float that a user types is stored as a decimal."""
        assert store.append("a", said("x", cost=0.0019)).total_cost == Decimal("0.0019")
        assert store.get("a").turns[0].cost == Decimal("0.0019")

    def test_readers_and_writers_mix(self, store: StateStore) -> None:
        """Readers see the conversation before or after an append, never in between."""
        store.create(ConversationState("a"))

        def write() -> None:
            for number in range(10):
                store.append("a", said(str(number)))

        def read() -> None:
            for _ in range(10):
                state, head = store.get("a"), store.head("a")
                assert state.token_count == 10 * len(state.turns)
                assert head.token_count == 10 * head.turn_count
                assert len(store.recent("a", 3)) <= 3

        run_together([write] * 5 + [read] * 5)
        assert store.head("a").turn_count == 50

    def test_asyncio_tasks_share_a_store(self, store: StateStore) -> None:
        """On one thread and in others: a failing task does not undo acknowledged writes of another."""

        async def task(number: int) -> None:
            store.append("a", said(f"{number} here"))
            await asyncio.sleep(0)
            with pytest.raises(InvalidArgumentError):
                store.archive("a", 5, 1, as_branch="none")
            await asyncio.to_thread(store.append, "a", said(f"{number} there"))
            assert f"{number} here" in texts(store.get("a").turns)

        async def together() -> None:
            await asyncio.gather(*map(task, range(10)))

        asyncio.run(together())
        expected = {f"{number} {where}" for number in range(10) for where in ("here", "there")}
        assert set(texts(store.get("a").turns)) == expected
        assert store.head("a").turn_count == 20


class TestRecent:
    """``recent`` returns the newest turns, oldest first."""

    @pytest.mark.parametrize(
        ("n", "expected"),
        [(0, ""), (1, "j"), (3, "hij"), (10, "abcdefghij"), (11, "abcdefghij"), (10**30, "abcdefghij")],
    )
    def test_newest_come_in_order(self, store: StateStore, n: int, expected: str) -> None:
        """Of ten turns: none, some, all, and more than there are."""
        for text in "abcdefghij":
            store.append("a", said(text))
        assert texts(store.recent("a", n)) == list(expected)

    @pytest.mark.parametrize("n", [-1, 1.5, "3", True, None])
    def test_invalid_count_is_refused(self, store: StateStore, n: Any) -> None:
        """The error is a ``ValueError``, too."""
        store.append("a", said("x"))
        with pytest.raises(InvalidArgumentError, match="n="):
            store.recent("a", n)
        with pytest.raises(ValueError, match="n="):
            store.recent("a", n)


class TestTotals:
    """Totals: replayed and inherited turns cost nothing, and an unknown cost is never zero."""

    @pytest.mark.parametrize(
        ("turns", "totals"),
        [
            ([], (0, Decimal(0), 0)),
            ([said("a")], (10, Decimal("0.001"), 0)),
            ([said("a", cost=None)], (10, None, 1)),
            ([said("a"), said("b", cost=None), said("c", cost=None)], (30, Decimal("0.001"), 2)),
            ([said("a", cost=Decimal(0))], (10, Decimal(0), 0)),
            ([said("a", replayed=True, cost=Decimal(0))], (0, Decimal(0), 0)),
            ([said("a", inherited=True), said("b", inherited=True, cost=None)], (0, Decimal(0), 0)),
        ],
        ids=["none", "priced", "unpriced", "mixed", "free", "replayed", "inherited"],
    )
    @pytest.mark.parametrize("way", ["append", "set"])
    def test_totals_are_those_of_the_turns(
        self, store: StateStore, way: str, turns: list[Turn], totals: tuple[int, Decimal | None, int]
    ) -> None:
        """Tokens, cost and unpriced turns, whether appended one by one or set at once; head and state agree."""
        store.create(ConversationState("a"))
        for turn in turns if way == "append" else ():
            store.append("a", turn)
        if way == "set":
            store.set(ConversationState("a", turns=tuple(turns)))
        head, state = store.head("a"), store.get("a")
        assert head.turn_count == len(turns)
        assert (head.token_count, head.total_cost, head.unpriced_turns) == totals
        assert (state.token_count, state.total_cost, state.unpriced_turns) == totals

    def test_versions_branches_and_summaries_count(self, store: StateStore) -> None:
        """Turns one, two and three (replayed), two versions, one turn of its own on a branch, one summary."""
        store.set(rich_state())
        head = store.head("rich")
        assert (head.token_count, head.total_cost, head.unpriced_turns) == (56, Decimal("0.006"), 1)

    def test_totals_go_on_after_forgetting(self, store: StateStore) -> None:
        """What a ``set`` dropped and what is appended later add up, in the head and in the state."""
        store.set(ConversationState("a", turns=(said("x"), said("y"))))
        store.set(ConversationState("a"))
        head = store.append("a", said("z"))
        assert (head.turn_count, head.token_count, head.total_cost) == (1, 30, Decimal("0.003"))
        assert store.get("a").total_cost == Decimal("0.003")


class TestMetadata:
    """``update_metadata`` merges JSON values."""

    def test_changes_are_merged(self, store: StateStore, clock: Clock) -> None:
        """New keys are added, known ones replaced, others kept, and the history is unchanged."""
        state = rich_state()
        store.set(state)
        clock.pass_s(120)
        head = store.update_metadata("rich", topic="food", new=True)
        assert head.metadata == {"topic": "food", "stars": 5, "tags": ["a", {"b": None}], "new": True}
        assert store.get("rich") == replace(state, metadata=head.metadata, updated_at=clock.now)

    def test_change_is_dated_and_an_empty_one_is_none(self, store: StateStore, clock: Clock) -> None:
        """``updated_at`` is the time of the last change; an empty change counts as none."""
        store.create(ConversationState("a", created_at=START, updated_at=START))
        clock.pass_s(5)
        assert store.update_metadata("a").updated_at == START
        assert store.update_metadata("a", x=1).updated_at == clock.now

    @pytest.mark.parametrize(
        "value", [3, 3.0, True, None, "text", "", "é🙂", [], {}, [1, [2]], {"a": {"b": [1.5]}}, 2**64 - 1, -(2**63)]
    )
    def test_json_values_keep_their_types(self, store: StateStore, value: object) -> None:
        """3 remains an integer, 3.0 a float, and ``True`` a boolean."""
        store.create(ConversationState("a"))
        store.update_metadata("a", value=value)
        found = store.get("a").metadata["value"]
        assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (object(), r"metadata\['value'\] is .*, a object, which is not JSON"),
            ({"deep": [1, {2}]}, r"metadata\['value'\]\['deep'\]\[1\] is \{2\}, a set"),
            (b"bytes", "a bytes"),
            (Decimal(1), "a Decimal"),
            (START, "a datetime"),
            (float("nan"), "which JSON does not have"),
            (float("inf"), "which JSON does not have"),
            (2**64, "which is too large for JSON"),
            ({1: 2}, "has the key 1, but JSON keys are text"),
            ("\ud83d", "half of a character"),
            ({"\ud83d": 1}, "half of a character"),
        ],
    )
    def test_what_json_cannot_hold_is_refused_by_name(self, store: StateStore, value: object, words: str) -> None:
        """The error names its path; nothing is changed, by ``set`` and in settings, too."""
        store.create(ConversationState("a", metadata={"old": 1}))
        with pytest.raises(InvalidArgumentError, match=words):
            store.update_metadata("a", value=value)
        with pytest.raises(InvalidArgumentError, match=words):
            store.set(ConversationState("a", metadata={"value": value}))
        with pytest.raises(InvalidArgumentError, match=r"settings\.variables"):
            store.set(ConversationState("a", settings=Settings(variables={"value": value})))
        assert (store.get("a").metadata, store.head("a").revision) == ({"old": 1}, 1)

    def test_metadata_that_holds_itself_is_refused(self, store: StateStore) -> None:
        """Such a value has no end."""
        endless: dict[str, object] = {}
        endless["self"] = endless
        store.create(ConversationState("a"))
        with pytest.raises(InvalidArgumentError, match="nested more than 400 levels deep, or contains itself"):
            store.update_metadata("a", endless=endless)

    def test_any_name_is_a_key(self, store: StateStore) -> None:
        """Even the names of the call's own parameters."""
        store.create(ConversationState("a"))
        store.update_metadata("a", **{"self": 1, "conversation_id": 2, "with space": 3})
        assert store.get("a").metadata == {"self": 1, "conversation_id": 2, "with space": 3}


class TestIsolation:
    """Arguments and results belong to the caller."""

    def test_changing_what_was_given_changes_nothing_stored(self, store: StateStore) -> None:
        """At any depth, in state, settings, versions and metadata."""
        metadata: dict[str, Any] = {"list": [1, {"x": 1}]}
        variables: dict[str, Any] = {"names": ["a"]}
        turn = said("x")
        versions = {turn.id: (said("previous"),)}
        store.set(
            ConversationState(
                "a", turns=(turn,), versions=versions, metadata=metadata, settings=Settings(variables=variables)
            )
        )
        nested: dict[str, Any] = {"deep": [1]}
        store.update_metadata("a", nested=nested)
        before = store.get("a")
        metadata["list"][1]["x"] = 2
        variables["names"].append("b")
        versions.clear()
        nested["deep"].append(2)
        assert store.get("a") == before
        assert before.metadata == {"list": [1, {"x": 1}], "nested": {"deep": [1]}}

    @pytest.mark.parametrize("read", ["get", "head", "list", "update_metadata"])
    def test_changing_what_was_read_changes_nothing_stored(self, store: StateStore, read: str) -> None:
        """Whichever call read it."""
        store.create(ConversationState("a", metadata={"list": [1]}))
        reads: dict[str, Callable[[], Any]] = {
            "get": lambda: store.get("a"),
            "head": lambda: store.head("a"),
            "list": lambda: store.list()[0],
            "update_metadata": lambda: store.update_metadata("a", more=[2]),
        }
        found = reads[read]()
        found.metadata["list"].append("mine")
        found.metadata["new"] = 1
        assert store.head("a").metadata["list"] == [1]
        assert "new" not in store.get("a").metadata

    def test_settings_that_were_read_are_the_readers_own(self, store: StateStore) -> None:
        """The same is true of versions."""
        state = rich_state()
        store.set(state)
        found: Any = store.get("rich")
        found.settings.parameters["temperature"] = 2
        found.versions.clear()
        assert store.get("rich") == state


class TestListing:
    """``list`` returns heads in a total and stable order."""

    def test_empty_store_lists_nothing(self, store: StateStore) -> None:
        """Whichever filter is given."""
        assert store.list() == store.list("x") == store.list(user_id="x") == store.list(limit=0, offset=7) == []

    def test_prefix_is_of_whole_parts_where_it_ends_in_a_colon(self, store: StateStore) -> None:
        """``user:alice:`` does not match ``user:alicia:``; ``user:ali`` matches both."""
        for conversation_id in ("user:alice:1", "user:alice:2", "user:alicia:1", "user:alice", "USER:ALICE:1", "z"):
            store.create(ConversationState(conversation_id))
        assert ids(store.list("user:alice:", sort_by="conversation_id", descending=False)) == [
            "user:alice:1",
            "user:alice:2",
        ]
        assert len(store.list("user:ali")) == 4
        assert len(store.list("")) == 6
        assert store.list("none") == []

    @pytest.mark.parametrize("prefix", ["%", "_", "*", "[a]", "'", "\U0010ffff", "\ud7ff", "a\0"])
    def test_prefix_is_taken_literally(self, store: StateStore, prefix: str) -> None:
        """No character is special, not even the highest code point."""
        for conversation_id in (f"{prefix}1", prefix + "\U0010ffff\U0010ffff", prefix, "a", "zz"):
            store.create(ConversationState(conversation_id))
        assert sorted(ids(store.list(prefix))) == sorted([f"{prefix}1", prefix + "\U0010ffff\U0010ffff", prefix])

    @pytest.mark.parametrize("user_id", ["t:1", "u:x", "h:", "é🙂", "a\0b", "*"])
    def test_user_is_taken_literally(self, store: StateStore, user_id: str) -> None:
        """No character in a user id is special."""
        store.append("a", said("x", id="1"), user_id=user_id)
        store.append("b", said("x", id="2"))
        assert ids(store.list(user_id=user_id)) == ["a"]

    @pytest.mark.parametrize("sort_by", ["updated_at", "created_at"])
    def test_times_sort_and_ids_decide_between_equal_ones(self, store: StateStore, sort_by: SortKey) -> None:
        """Newest first is the reverse of oldest first."""
        for minute, conversation_id in ((2, "c"), (1, "b"), (1, "a"), (3, "d")):
            at = START + timedelta(minutes=minute)
            other = START - timedelta(minutes=minute)
            times = (at, other) if sort_by == "updated_at" else (other, at)
            store.create(ConversationState(conversation_id, updated_at=times[0], created_at=times[1]))
        assert ids(store.list(sort_by=sort_by)) == ["d", "c", "b", "a"]
        assert ids(store.list(sort_by=sort_by, descending=False)) == ["a", "b", "c", "d"]

    def test_times_of_different_zones_sort_as_moments(self, store: StateStore) -> None:
        """Noon in Tokyo comes before noon in London."""
        tokyo = datetime.fromisoformat("2026-03-01T12:00:00+09:00")
        store.create(ConversationState("tokyo", created_at=tokyo))
        store.create(ConversationState("london", created_at=START))
        assert ids(store.list(sort_by="created_at", descending=False)) == ["tokyo", "london"]
        assert store.head("tokyo").created_at == tokyo

    def test_default_order_is_last_changed_first(self, store: StateStore, clock: Clock) -> None:
        """Appending moves a conversation to the front; reading does not."""
        for conversation_id in "abc":
            clock.pass_s(1)
            store.append(conversation_id, said("x"))
        clock.pass_s(1)
        store.append("a", said("y"))
        store.get("b")
        assert ids(store.list()) == ["a", "c", "b"]

    def test_pages_are_disjoint_and_complete(self, store: StateStore) -> None:
        """25 conversations in pages of 10 give 10, 10, 5 and none."""
        for number in range(25):
            store.create(ConversationState(f"{number:02}", updated_at=START, metadata={"n": number}))
        pages = [store.list(limit=10, offset=offset) for offset in (0, 10, 20, 30)]
        assert [len(page) for page in pages] == [10, 10, 5, 0]
        assert [head for page in pages for head in page] == store.list()
        assert [head.metadata["n"] for head in pages[0]] == list(range(24, 14, -1))
        assert store.list(limit=0) == []
        assert len(store.list(limit=10**30)) == 25

    @pytest.mark.parametrize(
        "arguments",
        [
            {"limit": -1},
            {"limit": 1.5},
            {"limit": True},
            {"offset": -1},
            {"offset": None},
            {"offset": "1"},
            {"sort_by": "size"},
            {"sort_by": ""},
            {"sort_by": None},
            {"prefix": 5},
            {"prefix": "\ud83d"},
            {"user_id": 5},
            {"user_id": "\ud83d"},
        ],
    )
    @pytest.mark.parametrize("filled", [False, True])
    def test_argument_out_of_range_is_refused(
        self, store: StateStore, arguments: dict[str, Any], *, filled: bool
    ) -> None:
        """An empty store refuses it, too; the error names the argument."""
        if filled:
            store.create(ConversationState("a"))
        with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
            store.list(**arguments)

    def test_many_conversations_are_listed_whole(self, store: StateStore) -> None:
        """Each with its own counts, totals and metadata."""
        for number in range(60):
            store.create(ConversationState(f"{number:03}", f"user-{number % 3}", metadata={"n": number}))
            for _ in range(number % 4):
                store.append(f"{number:03}", said("x"))
        heads = store.list(sort_by="conversation_id", descending=False)
        assert [head.turn_count for head in heads] == [number % 4 for number in range(60)]
        assert [head.metadata for head in heads] == [{"n": number} for number in range(60)]
        assert heads == [store.head(f"{number:03}") for number in range(60)]


class TestDeleting:
    """``delete`` is permanent."""

    def test_append_after_delete_is_a_new_conversation(self, store: StateStore) -> None:
        """Even with a turn that the previous one had; without ``create`` it is not found."""
        turn = said("x")
        store.append("a", turn, user_id="alice")
        store.delete("a")
        with pytest.raises(ConversationNotFoundError):
            store.append("a", turn, create=False)
        head = store.append("a", turn, user_id="bob")
        assert (head.user_id, head.turn_count, head.token_count) == ("bob", 1, 10)


class TestClosing:
    """``close`` releases everything."""

    def test_closed_store_refuses_every_call(self, store: StateStore) -> None:
        """``StoreUnavailableError``; closing again is fine."""
        store.append("a", said("x"))
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.create(ConversationState("b")),
            lambda: store.get("a"),
            lambda: store.set(ConversationState("a")),
            lambda: store.append("a", said("x")),
            lambda: store.recent("a", 0),
            lambda: store.head("a"),
            store.list,
            lambda: store.list(limit=0),
            lambda: store.update_metadata("a"),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="closed"):
                call()
        assert "closed" in repr(store)

    def test_block_closes_the_store(self, open_store: OpenStore) -> None:
        """At its end, and if it fails."""
        with open_store() as store:
            store.create(ConversationState("a"))
        with pytest.raises(StoreUnavailableError):
            store.head("a")

    def test_close_in_one_thread_is_seen_in_others(self, store: StateStore) -> None:
        """Their calls are refused and do not hang."""
        outcomes: list[str] = []

        def append_until_closed() -> None:
            try:
                while True:
                    store.append("a", said("x"))
            except StoreUnavailableError:
                outcomes.append("closed")

        threads = [threading.Thread(target=append_until_closed) for _ in range(4)]
        for thread in threads:
            thread.start()
        store.close()
        for thread in threads:
            thread.join(60)
        assert outcomes == ["closed"] * 4


class TestExpiry:
    """A TTL counts from the last read or write of the content; without one nothing ever expires."""

    def test_without_a_ttl_nothing_expires(self, store: StateStore, clock: Clock) -> None:
        """Not even after a hundred years."""
        store.append("a", said("x"))
        clock.pass_s(100 * 365 * 86400)
        assert len(store.get("a").turns) == 1

    @pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
    def test_expired_is_missing_everywhere(self, open_store: OpenStore, clock: Clock, ttl: Duration) -> None:
        """After a minute, given in any unit."""
        store = open_store(ttl)
        store.set(rich_state("a"))
        clock.pass_s(59.999)
        assert ids(store.list()) == ["a"]
        clock.pass_s(0.001)
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.recent("a", 1),
            lambda: store.head("a"),
            lambda: store.update_metadata("a", x=1),
            lambda: store.append("a", said("x"), create=False),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(ConversationNotFoundError):
                call()
        assert store.list() == store.list("a") == store.list(user_id="alice") == []

    @pytest.mark.parametrize("use", ["get", "recent", "append", "same turn", "set", "update_metadata"])
    def test_use_of_the_content_keeps_it_alive(self, open_store: OpenStore, clock: Clock, use: str) -> None:
        """Each read or write restarts the TTL."""
        store = open_store(60)
        turn = said("x")
        store.append("a", turn)
        for _ in range(3):
            clock.pass_s(59)
            uses: dict[str, Callable[[], object]] = {
                "get": lambda: store.get("a"),
                "recent": lambda: store.recent("a", 0),
                "append": lambda: store.append("a", said("y")),
                "same turn": lambda: store.append("a", turn),
                "set": lambda: store.set(ConversationState("a")),
                "update_metadata": lambda: store.update_metadata("a"),
            }
            uses[use]()
        assert ids(store.list()) == ["a"]

    @pytest.mark.parametrize("use", ["head", "list"])
    def test_looking_at_heads_does_not(self, open_store: OpenStore, clock: Clock, use: str) -> None:
        """Listing conversations does not keep them alive."""
        store = open_store(60)
        store.append("a", said("x"))
        clock.pass_s(59)
        store.head("a") if use == "head" else store.list()
        clock.pass_s(1)
        assert store.list() == []

    def test_expired_id_is_free(self, open_store: OpenStore, clock: Clock) -> None:
        """Append, create and set start a new conversation; nothing is carried over."""
        store = open_store(60)
        for conversation_id in "abc":
            store.set(rich_state(conversation_id))
        clock.pass_s(60)
        head = store.append("a", said("new"), user_id="bob")
        assert (head.turn_count, head.token_count, head.user_id, head.created_at) == (1, 10, "bob", clock.now)
        assert store.create(ConversationState("b")).token_count == 0
        assert store.set(ConversationState("c"), expected_revision=0).revision == 1
        assert [len(store.get(conversation_id).turns) for conversation_id in "abc"] == [1, 0, 0]

    def test_each_conversation_has_its_own_time(self, open_store: OpenStore, clock: Clock) -> None:
        """The older one expires first."""
        store = open_store(60)
        store.append("old", said("x"))
        clock.pass_s(30)
        store.append("new", said("x"))
        clock.pass_s(30)
        assert ids(store.list()) == ["new"]

    def test_threads_meet_a_conversation_that_expires(self, open_store: OpenStore, clock: Clock) -> None:
        """Each call finds it whole or missing while it expires and starts again."""
        store = open_store(60)

        def write() -> None:
            for number in range(10):
                store.append("a", said(str(number)))
                clock.pass_s(25)

        def read() -> None:
            for _ in range(10):
                with suppress(ConversationNotFoundError):
                    state = store.get("a")
                    assert state.token_count == 10 * len(state.turns) > 0
                with suppress(ConversationNotFoundError):
                    assert len(store.recent("a", 3)) > 0
                store.list()
                store.cleanup(3600)
                clock.pass_s(25)

        run_together([write] * 3 + [read] * 3)
        clock.pass_s(60)
        assert store.append("a", said("anew")).turn_count == 1

    @pytest.mark.parametrize("ttl", [0, -1, timedelta(0), timedelta(days=-1)])
    def test_zero_and_negative_ttls_are_none(self, open_store: OpenStore, clock: Clock, ttl: Duration) -> None:
        """Zero and negative values switch it off: nothing expires."""
        store = open_store(ttl)
        store.append("a", said("x"))
        clock.pass_s(100 * 365 * 86400)
        assert len(store.get("a").turns) == 1

    @pytest.mark.parametrize("ttl", [float("nan"), float("inf"), True, "60", 1e12])
    def test_invalid_duration_is_refused(self, open_store: OpenStore, ttl: Any) -> None:
        """The error is a ``ValueError``, too."""
        with pytest.raises(InvalidArgumentError, match="ttl="):
            open_store(ttl)


def ids(heads: list[Head]) -> list[str]:
    """Return the ids of the heads, in order."""
    return [head.conversation_id for head in heads]


def run_together(jobs: Sequence[Callable[[], object]]) -> None:
    """Run the jobs in threads that start at the same moment, and raise what any of them raised."""
    barrier = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]
