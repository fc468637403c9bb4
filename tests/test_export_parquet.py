"""``export_parquet``: turns and messages as datasets that other programs read, partitioned by month."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from promptkit_nb import (
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    MissingDependencyError,
    StoreUnavailableError,
    export_parquet,
    messages_df,
    turns_df,
)
from promptkit_nb.views import parquet
from promptkit_nb.views.filters import Filters
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import TURNS
from promptkit_nb.views.turns import shown_turns
from storing import said

MARCH, APRIL = (datetime(2026, month, 31 if month == 3 else 1, 23, 59, tzinfo=UTC) for month in (3, 4))


@pytest.fixture
def store() -> MemoryStore:
    """A store with turns of two months by two users: current, replaced, archived, and copied by a fork."""
    store = MemoryStore()
    for conversation_id, user_id, at in (("a", "alice", MARCH), ("a", "alice", APRIL), ("b", "bob", APRIL)):
        store.append(conversation_id, said(f"{user_id} \x1b[31m", created_at=at, model="m"), user_id=user_id)
    first = store.get("a").turns[0]
    store.replace("a", first.id, said("again", created_at=MARCH))
    store.fork("a", "copy")
    store.archive("a", 1, 2, as_branch="undone")
    return store


def files_in(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def dataset(folder: Path) -> pd.DataFrame:
    """Read a dataset as other programs do, with the month of each row."""
    table = ds.dataset(folder, partitioning=ds.partitioning(flavor="hive")).to_table()
    return table.to_pandas()


def check_is_equal(read: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Check that a dataset has the rows of a DataFrame, in any order, and their months."""
    texts = {name: "str" for name in frame if str(frame[name].dtype) == "category"}
    wanted = frame.astype(texts).assign(month=frame["created_at"].dt.strftime("%Y-%m"))
    assert list(read.columns) == list(wanted.columns)
    rows = [
        sorted(map(str, each.astype(object).where(each.notna(), None).to_numpy().tolist()))
        for each in (read.astype(wanted.dtypes), wanted)
    ]
    assert rows[0] == rows[1]


def test_has_all_turns_and_messages_by_month(store: MemoryStore, tmp_path: Path) -> None:
    """The datasets have the columns and rows of the views with every status, in one file per month."""
    assert export_parquet(store, tmp_path / "chats") == len(turns_df(store, status="all")) == 7
    months = ["2026-03", "2026-04"]
    assert files_in(tmp_path / "chats") == [
        f"{name}/month={month}/part-0.parquet" for name in ("messages", "turns") for month in months
    ]
    check_is_equal(dataset(tmp_path / "chats" / "turns"), turns_df(store, status="all"))
    check_is_equal(dataset(tmp_path / "chats" / "messages"), messages_df(store, status="all"))


def test_types_do_not_depend_on_the_rows(store: MemoryStore, tmp_path: Path) -> None:
    """A store without costs, models, and branches has the same schema."""
    sparse = MemoryStore()
    sparse.append("a", said("x", created_at=APRIL, cost=None))
    for each, name in ((store, "full"), (sparse, "sparse")):
        export_parquet(each, tmp_path / name)
    full, empty = (ds.dataset(tmp_path / name / "turns").schema for name in ("full", "sparse"))
    assert full.equals(empty, check_metadata=True)
    assert {str(each) for each in full.types} == {"string", "int64", "double", "bool", "timestamp[us, tz=UTC]"}


def test_costs_add_up(store: MemoryStore, tmp_path: Path) -> None:
    """Without the status inherited, the costs are those of the usage."""
    export_parquet(store, tmp_path)
    turns = dataset(tmp_path / "turns")
    paid = turns[turns["status"] != "inherited"]
    heads = [head.total_cost for head in store.list()]
    assert round(paid["cost_usd"].sum(), 9) == 0.004
    assert sum(filter(None, heads), Decimal(0)) == Decimal("0.004")


def test_a_later_export_replaces_an_earlier_one(store: MemoryStore, tmp_path: Path) -> None:
    """Months and conversations that are gone leave nothing behind."""
    export_parquet(store, tmp_path / "chats")
    for each in ("a", "copy"):
        store.delete(each)
    assert export_parquet(store, str(tmp_path / "chats")) == 1
    assert files_in(tmp_path / "chats") == [f"{name}/month=2026-04/part-0.parquet" for name in ("messages", "turns")]
    assert list(dataset(tmp_path / "chats" / "turns")["conversation_id"]) == ["b"]


@pytest.mark.parametrize("buffered_bytes", [1, parquet.BUFFERED_BYTES])
def test_rows_of_any_size_are_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffered_bytes: int
) -> None:
    """However little is buffered, nothing is lost; a store on disk is read in batches."""
    monkeypatch.setattr(parquet, "BUFFERED_BYTES", buffered_bytes)
    monkeypatch.setattr("promptkit_nb.views.row_cache.LINES_PER_BATCH", 2)
    with DiskStore(tmp_path / "store") as store:
        for index in range(7):
            store.append(f"c{index}", said("x" * index, created_at=(MARCH, APRIL)[index % 2]))
        assert export_parquet(store, tmp_path / "chats") == 7
        check_is_equal(dataset(tmp_path / "chats" / "turns"), turns_df(store))


def test_takes_the_filters_of_the_views(store: MemoryStore, tmp_path: Path) -> None:
    """A narrowed store has the turns of its user only."""
    assert export_parquet(store, tmp_path / "one", user_id="alice", since="2026-04-01") == 2
    assert export_parquet(store.for_user("bob"), tmp_path / "two") == 1
    assert set(dataset(tmp_path / "two" / "messages")["user_id"]) == {"bob"}


def test_a_row_without_a_time_has_no_month(tmp_path: Path) -> None:
    """It is in the partition that Hive, DuckDB, and Spark read as a missing month."""
    store = MemoryStore()
    store.append("a", said("x", created_at=MARCH))
    batch = [*batches_of(store, Filters())][-1]
    rows = shown_turns(batch, batch.turns.arrays["messages"] > 0)
    with parquet._Dataset.writing(tmp_path / "turns", TURNS) as turns:
        turns.add(rows)
        turns.add(rows.with_arrays(created_at=rows.arrays["created_at"] + np.timedelta64("NaT", "us")))
    none, march = "turns/month=__HIVE_DEFAULT_PARTITION__/part-0.parquet", "turns/month=2026-03/part-0.parquet"
    assert files_in(tmp_path) == [march, none]
    assert dataset(tmp_path / "turns")["month"].fillna("none").tolist() == ["2026-03", "none"]


@pytest.mark.parametrize("name", ["notes.txt", "turns/month=2026-03/other.parquet", "turns/readme"])
def test_a_folder_with_other_files_is_refused(store: MemoryStore, tmp_path: Path, name: str) -> None:
    """The error names one of them, and nothing is changed."""
    file = tmp_path / "chats" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InvalidArgumentError, match=f"has other files, such as '{name}': give a new or an empty folder"):
        export_parquet(store, tmp_path / "chats")
    assert files_in(tmp_path / "chats") == [name]


def test_a_folder_that_cannot_be_written_is_an_error(store: MemoryStore, tmp_path: Path) -> None:
    """A file in its place is, too."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidArgumentError, match="is a file: give a new or an empty folder"):
        export_parquet(store, tmp_path / "file")
    with pytest.raises(StoreUnavailableError, match="cannot be written: Not a directory"):
        export_parquet(store, tmp_path / "file" / "chats")


def test_a_failed_export_leaves_the_earlier_one(store: MemoryStore, tmp_path: Path, monkeypatch: Any) -> None:
    """The new files replace it only when all of them are written."""
    export_parquet(store, tmp_path)
    before = dataset(tmp_path / "turns")
    monkeypatch.setattr(parquet, "BUFFERED_BYTES", 1)
    monkeypatch.setattr(parquet, "messages_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_parquet(store, tmp_path)
    pd.testing.assert_frame_equal(dataset(tmp_path / "turns"), before)
    assert len(files_in(tmp_path)) == 4


@pytest.mark.parametrize("failing", ["turns", "messages"])
def test_a_failed_replacement_leaves_the_earlier_export(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Both datasets are as before, also if only one of them could not be replaced."""
    export_parquet(store, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    rename = Path.rename

    def refuses(path: Path, target: Path) -> Path:
        if (path.name, target.parent) == (failing, tmp_path):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    store.delete("a")
    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(StoreUnavailableError, match="cannot be written: Permission denied"):
        export_parquet(store, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["messages", "turns"]


def test_needs_pyarrow(tmp_path: Path) -> None:
    """Without it, the error says how to install it."""
    code = f"""
import sys
sys.modules["pyarrow"] = None
from promptkit_nb import MemoryStore, export_parquet
export_parquet(MemoryStore(), {str(tmp_path)!r})
"""
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        f"{MissingDependencyError.__name__}: export_parquet needs pyarrow: pip install 'promptkit-nb[arrow]'"
        in failed.stderr
    )
