"""``export_parquet``: all turns and messages as datasets for DuckDB, Spark, or BigQuery.

pyarrow is required by the extra ``arrow`` only, and imported with the first export.
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from promptkit_nb.errors import InvalidArgumentError, MissingDependencyError, StoreUnavailableError
from promptkit_nb.stores.checks import path_of
from promptkit_nb.views.columns import STR, Columns, frame_of
from promptkit_nb.views.filters import Filters, is_shown
from promptkit_nb.views.messages import messages_of
from promptkit_nb.views.reading import batches_of
from promptkit_nb.views.schemas import MESSAGES, TIME, TURNS
from promptkit_nb.views.turns import shown_turns

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import FilterArguments
    from promptkit_nb.views.schemas import Schema

BUFFERED_BYTES = 64 * 2**20
"""Rows are written when this many bytes are waiting in a dataset."""

NO_MONTH = "__HIVE_DEFAULT_PARTITION__"
"""The partition of rows without a time, as Hive names it."""

_DATASETS = ("turns", "messages")

_OURS = re.compile(r"(turns|messages)(/month=[\w-]+(/part-0\.parquet)?)?")


def export_parquet(store: StateStore, folder: str | os.PathLike[str], **filters: Unpack[FilterArguments]) -> int:
    """Write turns and messages as Parquet files, one folder per month; return the number of turns.

    ``folder/turns/month=2026-03/part-0.parquet`` has the columns of ``turns_df(store, status="all")`` for turns of
    March 2026 (UTC), and ``folder/messages`` those of ``messages_df``. ``status = 'current'`` selects what the
    conversations say now. To sum up what was paid, leave out the status ``inherited``. Amounts without a turn, such as
    those of deleted conversations, are in ``usage_df`` only.

    A later export replaces an earlier one. Memory use does not grow with the store.

    Args:
        store: The store that holds the conversations.
        folder: A new folder, an empty one, or one with an earlier export.
        filters: Those of ``turns_df``, except for ``status``.

    Raises:
        InvalidArgumentError: The folder has other files, or a filter is invalid.
        MissingDependencyError: pyarrow is not installed.
        StoreUnavailableError: The folder cannot be written.

    >>> import tempfile
    >>> from promptkit_nb import MemoryStore, Message, Turn, export_parquet
    >>> store = MemoryStore()
    >>> _ = store.append("a", Turn(messages=(Message("user", "Hi"), Message("assistant", "Hello"))))
    >>> export_parquet(store, f"{tempfile.mkdtemp()}/chats")
    1
    """
    checked = Filters.of(status="all", **filters)
    root = path_of("folder", folder).absolute()
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, 0.3 s
    except ImportError as error:
        raise MissingDependencyError("export_parquet needs pyarrow: pip install 'promptkit-nb[arrow]'") from error
    try:
        return _written(store, checked, root)
    except OSError as error:
        raise StoreUnavailableError(
            f"{root} cannot be written: {error.strerror or error}. Choose a folder you can write to."
        ) from error


def _written(store: StateStore, filters: Filters, root: Path) -> int:
    _check_has_nothing_else(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = Path(mkdtemp(dir=root, prefix=".new-"))
    try:
        with _Dataset.writing(new / "turns", TURNS) as turns, _Dataset.writing(new / "messages", MESSAGES) as messages:
            for batch in batches_of(store, filters, with_stale=True):
                shown = is_shown(batch.turns, filters)
                turns.add(shown_turns(batch, shown))
                messages.add(messages_of(batch, shown))
        _replace(root, new)
    except BaseException:
        for name in _DATASETS:
            shutil.rmtree(new / name, ignore_errors=True)
        with suppress(OSError):  # it holds an earlier export that could not be moved back
            new.rmdir()
        raise
    shutil.rmtree(new, ignore_errors=True)
    return turns.row_count


def _replace(root: Path, new: Path) -> None:
    """Swap the datasets in ``root`` for those in ``new``: all of them, or after an error none."""
    with ExitStack() as undo:
        for name in _DATASETS:
            current, previous = root / name, new / f"previous-{name}"
            if current.exists():
                current.rename(previous)
                undo.callback(previous.rename, current)
            (new / name).rename(current)
            undo.callback(current.rename, new / name)
        undo.pop_all()


def _check_has_nothing_else(root: Path) -> None:
    """Raise ``InvalidArgumentError`` if the folder has anything but an earlier export, which is replaced."""
    if root.exists() and not root.is_dir():
        raise InvalidArgumentError(f"folder={str(root)!r} is a file: give a new or an empty folder.")
    found = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    other = next((name for name in found if not name.startswith(".") and _OURS.fullmatch(name) is None), None)
    if other is not None:
        raise InvalidArgumentError(
            f"folder={str(root)!r} has other files, such as {other!r}: give a new or an empty folder."
        )


class _Dataset:
    """Parquet files of rows of one schema, one file per month."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        folder.mkdir(mode=0o700)
        self.row_count = 0
        self._folder = folder
        self._schema = schema
        self._arrow_schema = _arrow_schema(schema)
        self._waiting: dict[str, list[Any]] = {}  # tables, by month
        self._waiting_bytes = 0
        self._writers: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def writing(cls, folder: Path, schema: Schema) -> Iterator[_Dataset]:
        """Open an empty dataset, whose files are whole at the end of the block."""
        dataset = cls(folder, schema)
        try:
            yield dataset
            dataset._write()
        finally:
            for writer in dataset._writers.values():
                writer.close()

    def add(self, rows: Columns) -> None:
        """Add rows, each to its month."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        created_at = rows.arrays["created_at"]
        names = [column.name for column in self._schema if column.dtype == "category"]
        frame = frame_of([rows], self._schema).astype(dict.fromkeys(names, STR))
        months = np.where(np.isnat(created_at), NO_MONTH, np.datetime_as_string(created_at, unit="M"))
        for month in np.unique(months).tolist():
            part = frame[months == month]
            table = pa.Table.from_pandas(part, self._arrow_schema, preserve_index=False)
            self._waiting.setdefault(month, []).append(table.replace_schema_metadata(None))
            self._waiting_bytes += table.nbytes
        self.row_count += len(frame)
        if self._waiting_bytes > BUFFERED_BYTES:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415 - an extra

        for month, tables in self._waiting.items():
            if month not in self._writers:
                folder = self._folder / f"month={month}"
                folder.mkdir(mode=0o700)
                self._writers[month] = ParquetWriter(folder / "part-0.parquet", self._arrow_schema)
            self._writers[month].write_table(pa.concat_tables(tables))
        self._waiting = {}
        self._waiting_bytes = 0


def _arrow_schema(schema: Schema) -> Any:
    """Return the types of the columns in the files, which are the same whatever the rows are."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    types = {
        "category": pa.string(),
        "str": pa.string(),
        "Int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        TIME: pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(column.name, types[column.dtype]) for column in schema])
