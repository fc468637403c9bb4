"""Converting values to text that a model can read, or to images."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from io import BytesIO
from numbers import Integral, Number, Rational, Real
from pathlib import Path
from typing import Any

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.regular_files import read_file
from promptkit_nb.text.plain_text import counted, one_line
from promptkit_nb.turns import ContentPart

MAX_ROWS = 10
MAX_COLUMNS = 20
MAX_CELL_CHARACTERS = 60
MAX_TABLE_CHARACTERS = 8_000
MAX_FILE_BYTES = 20_000_000
_MAX_ARRAY_ITEMS = 100
_MEDIA_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf")
_PDF = b"%PDF-"
_BYTES_NAME = "document.pdf"

_IN_A_CELL = str.maketrans({"|": r"\|", "\n": r"\n", "\r": r"\r"})


def data_text(value: Any) -> str | None:
    """Return a DataFrame, a Series, or a NumPy array or scalar as text; ``None`` for anything else.

    A table becomes its shape, its dtypes, how many values of each column are missing and distinct, and a Markdown table
    of the first 10 rows and 20 columns, with cells cut at 60 characters, about 8,000 characters in all; the last line
    says what was cut. An array becomes its shape, its dtype and its items; if there are more than 100, only the outer
    ones. Equal data give equal text. pandas and NumPy are not imported: if they were not imported before, no such value
    exists.

    >>> data_text("not a table")
    """
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _frame_text(value)
    if pandas is not None and isinstance(value, pandas.Series):
        return _series_text(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array_text(value, numpy)
    if numpy is not None and isinstance(value, numpy.generic):
        return str(value)
    return None


def _frame_text(frame: Any) -> str:
    rows, columns = frame.shape
    dtypes = [f"{_cell(name)} {_cell(dtype)}" for name, dtype in zip(frame.columns, frame.dtypes, strict=True)]
    shown = ", ".join(dtypes[:MAX_COLUMNS])
    title = f"DataFrame, {counted(rows, 'row')}, {counted(columns, 'column')}"
    return "\n".join([title, *([f"dtypes: {shown}", *_column_counts(frame), "", *_table(frame)] if columns else [])])


def _column_counts(frame: Any) -> list[str]:
    """Return how many values of each column are missing, and how many different ones there are."""
    shown = frame.iloc[:, :MAX_COLUMNS]
    counts = zip(shown.columns, shown.isna().sum(), strict=True)
    missing = [f"{_cell(name)} {count}" for name, count in counts if count]
    distinct = []
    for at, name in enumerate(shown.columns):
        try:
            distinct.append(f"{_cell(name)} {shown.iloc[:, at].nunique()}")
        except TypeError:  # lists and dicts cannot be compared
            continue
    lines = ["missing: " + (", ".join(missing) or "none")]
    return [*lines, *([f"distinct: {', '.join(distinct)}"] if distinct else [])]


def _series_text(series: Any) -> str:
    name = "" if series.name is None else f", name {_cell(series.name)}"
    title = f"Series, {counted(len(series), 'value')}{name}, dtype {_cell(series.dtype)}"
    return "\n".join([title, "", *_table(series.to_frame("" if series.name is None else series.name))])


def _table(frame: Any) -> list[str]:
    """Return the lines of the Markdown table, and a line that says what was cut."""
    shown = frame.iloc[:MAX_ROWS, :MAX_COLUMNS]
    index_name = ", ".join(str(name) for name in shown.index.names if name is not None)
    lines = [_row([index_name, *shown.columns]), _row(["---"] * (len(shown.columns) + 1))]
    size = sum(map(len, lines))
    row_count = 0
    for row in shown.itertuples(name=None):
        line = _row(row)
        size += len(line)
        if size > MAX_TABLE_CHARACTERS:
            break
        lines.append(line)
        row_count += 1
    rows, columns = frame.shape
    cuts = [f"first {row_count} of {counted(rows, 'row')}"] if row_count < rows else []
    cuts += [f"first {MAX_COLUMNS} of {counted(columns, 'column')}"] if columns > MAX_COLUMNS else []
    is_cut = any("…" in line for line in lines)
    cuts += [f"cells of more than {MAX_CELL_CHARACTERS} characters are cut"] if is_cut else []
    return [*lines, *(["", f"({'; '.join(cuts)})"] if cuts else [])]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    text = str(value)
    if len(text) > MAX_CELL_CHARACTERS:
        text = f"{text[: MAX_CELL_CHARACTERS - 1]}…"
    return text.translate(_IN_A_CELL)


def _array_text(array: Any, numpy: Any) -> str:
    items = numpy.array2string(
        array, threshold=_MAX_ARRAY_ITEMS, edgeitems=3, max_line_width=100, separator=", ", floatmode="unique"
    )
    if len(items) > MAX_TABLE_CHARACTERS:
        items = f"{items[:MAX_TABLE_CHARACTERS]}…\n(cut at {MAX_TABLE_CHARACTERS:,} characters)"
    return f"array, shape {array.shape}, dtype {array.dtype}\n{items}"


_LONGEST_SIGNATURE_BYTES = 12


def image_part(value: Any) -> ContentPart | None:
    r"""Return a value that is an image as a content part; ``None`` for anything else.

    Images are the bytes of a PNG, JPEG, GIF or WebP file, matplotlib figures, and objects that display as PNG or JPEG
    in a notebook (``_repr_png_``, ``_repr_jpeg_``), such as Pillow images and ``IPython.display.Image``. None of these
    libraries is imported.

    >>> image_part(b"\x89PNG\r\n\x1a\n").url
    'data:image/png;base64,iVBORw0KGgo='
    """
    data = value if isinstance(value, bytes) else _rendered(value)
    kind = None if data is None else _kind_of(data[:_LONGEST_SIGNATURE_BYTES])
    if data is None or kind is None:
        return None
    return ContentPart("image_url", url=f"data:image/{kind};base64,{b64encode(data).decode()}")


def _kind_of(start: bytes) -> str | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "webp" if start[:4] == b"RIFF" and start[8:] == b"WEBP" else None


def _rendered(value: Any) -> bytes | None:
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and isinstance(value, figures.Figure):
        buffer = BytesIO()
        value.savefig(buffer, format="png")
        return buffer.getvalue()
    for name in ("_repr_png_", "_repr_jpeg_"):
        method = getattr(type(value), name, None)
        result = None if method is None else method(value)
        data = result[0] if isinstance(result, tuple) else result  # the second item is metadata, such as the width
        if data:
            return b64decode(data) if isinstance(data, str) else bytes(data)
    return None


def media_part(value: Any, name: str = _BYTES_NAME) -> ContentPart | None:
    """Return an image, as ``image_part`` does, or the bytes of a PDF with the name of its file; ``None`` otherwise.

    >>> media_part(b"%PDF-1.7", "report.pdf")
    ContentPart(type='file', text='report.pdf', url='data:application/pdf;base64,JVBERi0xLjc=', detail=None)
    """
    if isinstance(value, bytes) and value.startswith(_PDF):
        return ContentPart("file", name, f"data:application/pdf;base64,{b64encode(value).decode()}")
    return image_part(value)


MAX_VALUE_CHARACTERS = 100_000

_CUT = re.compile(r"\n\(([^\n]+)\)$")  # the last line of a table that was cut
_ADDRESS_ONLY = re.compile(r" at 0x[0-9A-Fa-f]{4,}|^<[\w.]+ object>$")


def value_text(value: Any, expression: str) -> str | ContentPart:
    """Return a value as text, or as an image; ``expression`` names it in errors.

    The first that applies: the result of ``_repr_llm_()``; text as it is; an exception with its class; the image or PDF
    in the file of a path; pandas and NumPy data (``data_text``); an image (``image_part``); the result of
    ``_repr_markdown_()``; dicts, lists, tuples, sets (sorted), dataclasses (without fields that are not in their repr)
    and pydantic models as JSON; anything else, including numbers, ``None`` and dataclasses with their own ``__str__``,
    as ``str()``.

    Only data is cut. Raises ``InvalidArgumentError`` if a value other than text takes more than 100,000 characters; if
    its text would be a memory address, which means nothing to a model and changes with every run; for bytes that are
    not an image; and, with the cause, if the value's own code fails.

    >>> value_text({"a": [1, None, {2}]}, "x")
    '{"a": [1, null, [2]]}'
    >>> value_text(None, "x"), value_text("{{ y }}", "x")
    ('None', '{{ y }}')
    """
    try:
        converted = _converted(value)
    except Exception as error:  # the value's own code may raise anything
        why = str(error) if isinstance(error, InvalidArgumentError) else f"{type(error).__name__}: {error}"
        raise InvalidArgumentError(
            f"{{{{ {expression} }}}} cannot be written as text ({one_line(why)[:200]}). "
            "Assign the text you want to send to a variable and use that."
        ) from error
    if isinstance(converted, str) and len(converted) > MAX_VALUE_CHARACTERS and not isinstance(value, str):
        raise InvalidArgumentError(
            f"{{{{ {expression} }}}} takes {len(converted):,} characters, more than {MAX_VALUE_CHARACTERS:,}. "
            f"Use a part of it; to send all of it, assign str({expression}) to a variable and use that."
        )
    return converted


def what_is_left_out(value: Any, text: str | ContentPart) -> str:
    """Return what the text of a value, from ``value_text``, does not contain; ``""`` if it contains everything.

    >>> what_is_left_out(12, "12")
    ''
    """
    if isinstance(value, Path) and isinstance(text, str) and value.is_file():
        return "the path is sent, not the file; for its content, read it into a variable and use that"
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and value.size > _MAX_ARRAY_ITEMS:
        return "sent in part (only the outer items)"
    is_table = pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))
    cut = _CUT.search(text) if is_table and isinstance(text, str) else None
    return f"sent in part ({cut[1]})" if cut else ""


def _converted(value: Any) -> str | ContentPart:
    own_text = _own_text(value, "_repr_llm_")
    if own_text is not None:
        return own_text
    if isinstance(value, str):
        return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, Path) and value.suffix.lower() in _MEDIA_SUFFIXES:
        return _media_in(value)
    return data_text(value) or media_part(value) or _own_text(value, "_repr_markdown_") or _json_or_str(value)


def _media_in(path: Path) -> ContentPart:
    """Return the image or the PDF in a file."""
    try:
        part = media_part(read_file(path, MAX_FILE_BYTES), path.name)
    except OSError as error:
        raise InvalidArgumentError(f"the file {str(path)!r} cannot be read: {error.strerror}") from error
    if part is None:
        raise InvalidArgumentError(f"the file {str(path)!r} is not a PNG, JPEG, GIF or WebP image, or a PDF")
    return part


def with_attachments(text: str, attachments: Sequence[object] | None) -> tuple[ContentPart, ...]:
    r"""Return the parts of a message with this text, these images, and PDFs; nothing without attachments.

    Raises ``InvalidArgumentError`` for a file that cannot be read, and for a value that is not an image or a PDF.

    >>> [part.type for part in with_attachments("What is this?", [b"\x89PNG\r\n\x1a\n"])]
    ['text', 'image_url']
    """
    if not attachments:
        return ()
    if isinstance(attachments, (str, bytes, Path)):
        raise InvalidArgumentError("attachments is a list: attachments=[…], also for one.")
    return (ContentPart("text", text), *map(_attachment, attachments))


def _attachment(value: object) -> ContentPart:
    if isinstance(value, (str, Path)):
        return _media_in(Path(value))
    part = media_part(value)
    if part is None:
        raise InvalidArgumentError(
            f"An attachment of the type {type(value).__name__} is not an image or a PDF: give the path or the bytes of "
            "a PNG, JPEG, GIF, WebP or PDF file, a Pillow image, or a matplotlib figure."
        )
    return part


def _own_text(value: Any, method_name: str) -> str | None:
    """Return the text that a method of the value's class returns, or ``None``."""
    method = getattr(type(value), method_name, None)
    text = None if method is None else method(value)
    return text if isinstance(text, str) else None


def _json_or_str(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return the value as JSON types; anything that is not JSON becomes text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value), key=json.dumps)
    return _plain_number(value) if isinstance(value, Number) else _plain_object(value)


def _plain_number(value: Number) -> object:
    """Return a NumPy number as a Python number; numbers that JSON cannot hold exactly become text."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Rational):
        return float(str(value))  # 32-bit floats keep their short form
    return str(value)


def _plain_object(value: Any) -> Any:
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__:
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    return data_text(value) or _str(value)


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {key if isinstance(key, str) else _str(key): _plain(item) for key, item in value.items()}
    if len(plain) < len(value):
        raise InvalidArgumentError("it has two keys with the same text")
    return plain


def _str(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidArgumentError("it is bytes, but not a PNG, JPEG, GIF or WebP image: decode it")
    text = str(value)
    if _ADDRESS_ONLY.search(text):
        raise InvalidArgumentError("its only text is a memory address: use an attribute or item of it")
    return text
