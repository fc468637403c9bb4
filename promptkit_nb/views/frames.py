"""From Arrow to pandas: the same columns and dtypes whatever was found, and nobody's names but those that were."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from promptkit_nb.views.lines import DROPPED

if TYPE_CHECKING:
    from promptkit_nb.views.filters import Filters
    from promptkit_nb.views.schemas import Schema


def is_meant(turns: pa.RecordBatch, filters: Filters) -> pa.Array:
    """Return for each turn whether model and time let it through; what is unknown does not pass a filter."""
    conditions = [pa.repeat(True, len(turns))]  # noqa: FBT003 - Arrow's signature
    if filters.model is not None:
        conditions.append(is_of_model(turns, filters.model))
    if filters.since is not None:
        conditions.append(_is_true(pc.greater_equal(turns["created_at"], pa.scalar(filters.since))))
    if filters.until is not None:
        conditions.append(_is_true(pc.less(turns["created_at"], pa.scalar(filters.until))))
    return reduce(pc.and_, conditions)


def is_of_model(turns: pa.RecordBatch, model: str | None) -> pa.Array:
    """Return for each turn whether this model answered it, or was asked to."""
    names = (pc.cast(turns[name], pa.string()) for name in ("model", "requested_model"))
    return pc.or_(*(_is_true(pc.equal(each, pa.scalar(model, pa.string()))) for each in names))


def is_shown(turns: pa.RecordBatch, filters: Filters) -> pa.Array:
    """Return for each turn whether a list of turns shows it: as ``is_meant``, and by its status."""
    status = pc.cast(turns["status"], pa.string())
    wanted = pc.equal(status, "current") if filters.status == "current" else pc.not_equal(status, DROPPED)
    return pc.and_(is_meant(turns, filters), wanted)


def frame_of(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return the columns of a schema as a DataFrame; text is not copied."""
    plain = table.select([column.name for column in schema if column.dtype != "category"])
    frame = plain.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get, split_blocks=True)
    columns = {
        column.name: _categories_of(table[column.name]) if column.dtype == "category" else frame[column.name]
        for column in schema
    }
    return pd.DataFrame(columns, index=frame.index, copy=False)


def _categories_of(names: pa.ChunkedArray) -> pd.Categorical:
    """Return the names with those categories only that occur, sorted: a filter leaves nobody else's behind."""
    if not pa.types.is_dictionary(names.type):
        names = names.dictionary_encode()
    whole = names.unify_dictionaries().combine_chunks()
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    present = np.flatnonzero(np.bincount(codes + 1, minlength=len(whole.dictionary) + 1)[1:])
    found = whole.dictionary.take(pa.array(present))
    order = pc.sort_indices(found)
    ranks = np.full(len(whole.dictionary) + 1, -1, np.int32)  # the last one is that of the code -1
    ranks[present[order.to_numpy()]] = np.arange(len(order), dtype=np.int32)
    categories = pd.Index(found.take(order).to_pylist(), dtype="str")
    return pd.Categorical.from_codes(ranks[codes], categories)


def _is_true(condition: pa.Array) -> pa.Array:
    return pc.fill_null(condition, False)  # noqa: FBT003 - Arrow's signature
