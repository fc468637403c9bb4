"""The cost of ``messages_df`` of a store on disk, relative to ``pandas.read_sql`` of a plain table with these columns.

The plain table is what one would make for analysis alone: a column per value, while the store has a line of JSON per
turn. Both give the same frame; the tables are created once and read in every round.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from promptkit_nb import ConversationState, DiskStore, messages_df
from ratio import Ratio, medians_ms
from typical_turn import typical_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {"100k": (100_000, 0.10), "1M": (1_000_000, 0.05)}
"""Messages, and the largest share of a full build that a refresh may take; at 100k the fixed 25 ms weigh more."""

TURNS = 100
"""Per conversation; a turn has two messages."""


def measure() -> list[Ratio]:
    """Return the ratios of building and refreshing a frame."""
    with tempfile.TemporaryDirectory() as directory:
        return [ratio for name, size in SIZES.items() for ratio in _of(Path(directory) / name, name, *size)]


def _of(directory: Path, name: str, messages: int, at_most: float) -> Iterator[Ratio]:
    with DiskStore(directory) as store, closing(sqlite3.connect(directory.with_suffix(".db"))) as plain:
        for number in range(messages // TURNS // 2):
            turns = tuple(typical_turn(place) for place in range(TURNS))
            store.create(ConversationState(f"user:{number % 97}:session:{number}", f"u{number % 97}", turns))
        messages_df(store).to_sql("messages", plain, index=False)

        def build() -> None:
            with DiskStore(directory) as fresh:
                messages_df(fresh)

        def refresh() -> None:
            store.append("user:5:session:5", typical_turn(0))
            messages_df(store)

        build_ms, read_ms, refresh_ms = medians_ms(3, build, lambda: _read_sql(plain), refresh)
    yield Ratio(f"messages_df of {name} / read_sql of a plain table", build_ms, read_ms, 1.0)
    yield Ratio(f"messages_df of {name}, two of them new / all anew", refresh_ms, build_ms, at_most)


def _read_sql(plain: sqlite3.Connection) -> pd.DataFrame:
    return pd.read_sql("SELECT * FROM messages", plain, parse_dates=["created_at"])
