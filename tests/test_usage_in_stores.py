"""Usage and sources of costs in stores and views, also those of earlier versions."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from promptkit_nb import (
    ConversationState,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    Message,
    Summary,
    Turn,
    Usage,
    turns_df,
    usage_df,
)
from promptkit_nb.codec import encode_turn
from promptkit_nb.exports.archives import read_conversation, write_conversation
from promptkit_nb.stores.row_store import RowStore

if TYPE_CHECKING:
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore

WRITTEN = Usage(2600, 300, cached_tokens=2000, cache_write_tokens=400)
SAID = (Message("user", "Hi"), Message("assistant", "Hello"))
OLD = Turn(messages=SAID, usage=Usage(8, 2), cost=Decimal("0.0019"), model="m", price_source="genai-prices 0.2.3")
NEW = Turn(messages=SAID, usage=WRITTEN, cost=Decimal("0.0027"), model="m", price_source="list", price_list="x 1")
UNKNOWN = Turn(messages=SAID, usage=Usage(0, 0, unknown=True), model="m")


def format_of(store: StateStore, conversation_id: str) -> int:
    """Return the format of a stored conversation."""
    assert isinstance(store, RowStore)
    stored = store.backend.run(lambda: store.backend.record(conversation_id), write=False)
    assert stored is not None
    version: int = json.loads(stored).get("format", 1)
    return version


@pytest.mark.parametrize("turn", [NEW, UNKNOWN], ids=["written", "unknown"])
def test_only_what_is_new_makes_a_newer_format(store: StateStore, turn: Turn) -> None:
    """An earlier version then refuses only conversations that it would damage."""
    store.append("old", OLD)
    store.append("appended", OLD)
    store.append("appended", turn)
    store.append("replaced", OLD)
    store.replace("replaced", OLD.id, turn)
    store.create(ConversationState("created", turns=(OLD, turn)))
    store.append("summarized", OLD)
    store.add_summary("summarized", Summary(OLD.id, OLD.id, "They said hello.", usage=turn.usage))
    store.fork("created", "copy")
    store.set(replace(store.get("created"), conversation_id="set"))
    names = ["old", "appended", "replaced", "created", "summarized", "copy", "set"]
    assert [format_of(store, name) for name in names] == [1, 2, 2, 2, 2, 2, 2]


def test_usage_is_read_back(store: StateStore) -> None:
    """With cached and written input, and where the cost comes from."""
    for turn in (NEW, UNKNOWN, OLD):
        store.append("talk", turn)
    assert store.get("talk").turns == (NEW, UNKNOWN, OLD)
    assert store.get("talk").token_count == 2910


def test_line_of_an_ordinary_turn_is_as_before() -> None:
    """Fields that are not set are not written."""
    assert json.loads(encode_turn(Turn(messages=SAID, usage=Usage(8, 2))))["usage"] == {
        "input_tokens": 8,
        "output_tokens": 2,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "estimated": False,
    }


def test_file_has_a_newer_format_only_if_it_holds_something_new(tmp_path: Path) -> None:
    """And is read back equal."""
    for turn, version in ((OLD, 1), (NEW, 2)):
        state = ConversationState("talk", turns=(turn,), summaries=(Summary(turn.id, turn.id, "x", usage=turn.usage),))
        path = write_conversation(state, tmp_path / f"{version}.json")
        assert json.loads(path.read_text("utf-8"))["format"] == version
        assert read_conversation(path) == state


def test_negative_written_tokens_are_refused() -> None:
    """Like the other counts."""
    with pytest.raises(InvalidArgumentError, match="cache_write_tokens=-1"):
        MemoryStore().append("talk", replace(OLD, usage=Usage(8, 2, cache_write_tokens=-1)))


def test_views_have_the_columns(tmp_path: Path) -> None:
    """The source of a cost in the words of today, also of earlier turns; unknown usage is missing, and never 0."""
    with DiskStore(tmp_path) as store:
        for turn in (
            OLD,
            NEW,
            UNKNOWN,
            replace(OLD, id="u", price_source="user"),
            replace(OLD, id="r", price_source="openai"),
        ):
            store.append("talk", turn)
        shown = turns_df(store)
        assert shown["cache_write_tokens"].to_list() == [0, 400, pd.NA, 0, 0]
        assert shown["input_tokens"].to_list() == [8, 2600, pd.NA, 8, 8]
        sources = shown["price_source"].astype("object").fillna("missing").to_list()
        assert sources == ["list", "list", "missing", "yours", "reported"]
        assert str(shown["price_source"].dtype) == "category"
        (usage,) = usage_df(store, by="model").to_dict("records")
        assert (usage["cache_write_tokens"], usage["total_tokens"], usage["unpriced_turns"]) == (400, 2930, 1)
