"""Columns of rows: numpy arrays, with names that repeat stored once, and the DataFrames made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from promptkit_nb.characters import visible
from promptkit_nb.text.text_frame import TextFrame
from promptkit_nb.views.schemas import TIME, Dtype, Schema

if TYPE_CHECKING:
    from datetime import datetime, tzinfo


Array = NDArray[Any]
"""An array of numpy, or pandas' array of texts, which has the same operations."""

MISSING = np.iinfo(np.int64).min
"""Marks a missing number in a column of integers, as NaT does in a column of times."""

SMALLEST_USD = 1e-18

STR = pd.StringDtype("python", na_value=np.nan)
"""The dtype ``str``; pandas alone would choose another storage if pyarrow is installed."""


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """A column of names that repeat: ``codes`` are indexes into ``names``, -1 if missing."""

    codes: NDArray[np.int32]
    names: Sequence[str]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Names:
        """Encode a list of names.

        >>> Names.of(["a", None, "a"]).codes
        array([ 0, -1,  0], dtype=int32)
        """
        distinct = dict.fromkeys(values)
        names = [name for name in distinct if name is not None]
        if len(distinct) == 1:  # usual, and faster
            return cls(np.full(len(values), len(names) - 1, np.int32), names)
        codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
        codes[None] = -1
        return cls(np.fromiter(map(codes.__getitem__, values), np.int32, len(values)), names)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def __getitem__(self, rows: slice | Array) -> Names:
        """Return some of the rows."""
        return Names(self.codes[rows], self.names)

    def equals(self, name: str) -> NDArray[np.bool_]:
        """Return for each row whether it has this name."""
        return np.equal(self.codes, self.names.index(name) if name in self.names else len(self.names))

    def where(self, rows: NDArray[np.bool_], name: str) -> Names:
        """Return the column with this name in some of the rows."""
        return Names(np.where(rows, np.int32(len(self.names)), self.codes), [*self.names, name])

    def values(self) -> list[str | None]:
        """Return the name of each row."""
        names = [*self.names, None]
        return [names[code] for code in self.codes.tolist()]

    def categorical(self) -> pd.Categorical:
        """Return the names with sorted categories, without unused ones, which could show names of other users."""
        occurs = np.zeros(len(self.names) + 1, bool)  # the last one is for the code -1
        occurs[self.codes] = True
        ordered = sorted(np.flatnonzero(occurs[:-1]).tolist(), key=self.names.__getitem__)
        ranks = np.full(len(self.names) + 1, -1, np.int32)
        ranks[ordered] = np.arange(len(ordered), dtype=np.int32)
        categories = pd.Index([self.names[code] for code in ordered], dtype=STR)
        return pd.Categorical.from_codes(ranks[self.codes], categories, validate=False)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Rows as columns of equal length: names that repeat, and arrays of all other values."""

    names: Mapping[str, Names]
    arrays: Mapping[str, Array]

    def select(self, rows: slice | Array) -> Columns:
        """Return some rows: a slice, a mask or indexes."""
        return Columns(
            {name: column[rows] for name, column in self.names.items()},
            {name: column[rows] for name, column in self.arrays.items()},
        )

    def with_arrays(self, **arrays: Array) -> Columns:
        """Return the rows with these columns added or replaced."""
        return Columns(self.names, {**self.arrays, **arrays})


def frame_of(parts: Sequence[Columns], schema: Schema, *, zone: tzinfo = UTC, is_naive: bool = False) -> pd.DataFrame:
    """Return the rows of at least one part, in order, as a DataFrame that shares no memory with them.

    Times are in the zone, and without it if they are to be naive. Names are made visible here; texts are made visible
    by the view, which knows its columns.
    """
    columns = {}
    for name, dtype in ((column.name, column.dtype) for column in schema):
        if dtype == "category":
            columns[name] = _concatenated_names([part.names[name] for part in parts]).categorical()
        else:
            columns[name] = _concatenated([part.arrays[name] for part in parts], dtype)
        if dtype == TIME:
            in_zone = columns[name] if zone is UTC else columns[name].tz_convert(zone)
            columns[name] = in_zone.tz_localize(None) if is_naive else in_zone
    return TextFrame(columns, copy=False)


def _concatenated_names(parts: Sequence[Names]) -> Names:
    unified: dict[str, int] = {}
    new_codes: dict[int, NDArray[np.int32] | None] = {}
    for part in parts:
        if id(part.names) not in new_codes:  # parts of a batch share their names
            codes = [unified.setdefault(visible(name), len(unified)) for name in part.names]
            are_the_same = codes == [*range(len(codes))]
            new_codes[id(part.names)] = None if are_the_same else np.array([*codes, -1], np.int32)
    codes_of_parts = []
    for part in parts:
        new = new_codes[id(part.names)]
        codes_of_parts.append(part.codes if new is None else new[part.codes])
    return Names(np.concatenate(codes_of_parts), [*unified])


def texts(values: Sequence[str | None] | Array) -> Array:
    """Return a column of texts, with NaN for ``None``."""
    column: Array = pd.array(np.array(values, object), dtype=STR, copy=False)
    return column


def integers(values: Sequence[int | None]) -> NDArray[np.int64]:
    """Return a column of integers, with ``MISSING`` for ``None``."""
    return np.array([MISSING if value is None else value for value in values], np.int64)


def times(values: Sequence[datetime | None]) -> Array:
    """Return a column of times in UTC, with NaT for ``None``."""
    if values.count(None) == len(values):
        return np.full(len(values), "NaT", "M8[us]")
    column: Array = pd.DatetimeIndex(values, dtype=TIME).tz_localize(None).to_numpy()
    return column


def dollars(costs: Array) -> NDArray[np.float64]:
    """Return exact costs as the nearest floating-point numbers, with NaN for ``None``; less than 1e-18 is 0."""
    amounts = costs.astype(np.float64)
    amounts[np.abs(amounts) < SMALLEST_USD] = 0
    return amounts


def _concatenated(parts: Sequence[Array], dtype: Dtype) -> Any:
    """Return an array that pandas uses without a conversion."""
    if dtype == "str":  # unlike pandas.array, this does not check every text again
        return parts[0]._concat_same_type(parts)  # type: ignore[attr-defined]  # noqa: SLF001 - for authors of arrays
    column = np.concatenate(parts)
    if dtype == "Int64":
        missing = column == MISSING
        column[missing] = 0
        return pd.arrays.IntegerArray(column, missing)
    return pd.DatetimeIndex(column).tz_localize("UTC") if dtype == TIME else column
