"""DataFrames with texts of models: in Excel files, too, their texts are texts."""

from __future__ import annotations

from contextlib import contextmanager
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import pandas as pd

from promptkit_nb.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_THE_FILE = ("engine", "storage_options", "engine_kwargs")
_CONVERTING = ("strings_to_formulas", "strings_to_urls")  # settings of a sheet of xlsxwriter


class _AnyFrame(type):
    """Lets ``pandas.testing.assert_frame_equal`` compare a frame of pandas with one of ours, in either order."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, pd.DataFrame)


class TextFrame(pd.DataFrame, metaclass=_AnyFrame):  # type: ignore[misc]  # pandas has no types
    """A DataFrame whose ``to_excel`` writes no formulas and no links, because they could be those of a model.

    Selections and joins of it are such frames, too. ``pd.DataFrame(frame)``, a single column, and what pandas makes of
    single columns, as with ``groupby(…).agg({…})``, are pandas' own.

    >>> frame = TextFrame({"text": ["=1+1"]})
    >>> type(frame[frame["text"] != ""]).__name__
    'TextFrame'
    """

    @property
    def _constructor(self) -> type[TextFrame]:
        return TextFrame

    def to_excel(self, excel_writer: Any, **options: Any) -> None:
        """Write to a file or an ``ExcelWriter`` as pandas does, but every text as text."""
        if not isinstance(excel_writer, pd.ExcelWriter):
            of_the_file = {name: options.pop(name) for name in _OF_THE_FILE if name in options}
            with pd.ExcelWriter(excel_writer, **of_the_file) as writer:
                self.to_excel(writer, **options)
            return
        with _text_only(excel_writer, options.get("sheet_name", "Sheet1")):
            super().to_excel(excel_writer, **options)


update_wrapper(TextFrame.to_excel, pd.DataFrame.to_excel, assigned=())  # the signature, for Shift+Tab


@contextmanager
def _text_only(writer: Any, sheet_name: str) -> Iterator[None]:
    """Write texts as texts in the block; what is written before and after it is left alone."""
    if writer.engine == "xlsxwriter":
        sheet = writer.sheets.get(sheet_name) or writer.book.add_worksheet(sheet_name)
        previous = {name: getattr(sheet, name) for name in _CONVERTING}
        vars(sheet).update(dict.fromkeys(_CONVERTING, False))
        try:
            yield
        finally:
            vars(sheet).update(previous)
    elif writer.engine == "openpyxl":
        if writer.book.write_only:
            raise InvalidArgumentError(
                'engine_kwargs={"write_only": True} of openpyxl would write texts that begin with = as formulas: leave '
                'it out, or use engine="xlsxwriter".'
            )
        before = {cell.coordinate: cell.value for cell in _converted(writer, sheet_name)}
        yield
        for cell in _converted(writer, sheet_name):
            if before.get(cell.coordinate) != cell.value:
                cell.data_type = "s"
    else:  # OpenDocument, which has no such conversion
        yield


def _converted(writer: Any, sheet_name: str) -> Iterator[Any]:
    """Yield the cells of a sheet that are formulas or errors such as ``#N/A``."""
    if sheet_name in writer.sheets:
        for row in writer.sheets[sheet_name].iter_rows():
            yield from (cell for cell in row if cell.data_type in ("f", "e"))
