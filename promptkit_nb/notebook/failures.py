"""A failed cell as text for a model: its source, the exception, a short traceback, and the types of its variables."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from promptkit_nb.notebook.cells import without_keys
from promptkit_nb.text.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FIX_REQUEST = (
    "A cell of my notebook failed. Say in one or two sentences why, and give the corrected cell as one block of Python."
)
"""The question of ``%chat_fix``, before the text of the failure."""

MAX_FRAMES = 10
MAX_VARIABLES = 20
MAX_MESSAGE_CHARACTERS = 2_000
MAX_SOURCE_CHARACTERS = 20_000

_NAME = re.compile(r"\b[A-Za-z_]\w*")
_ADDRESS = re.compile(r"\b0x[0-9A-Fa-f]{4,}")


def failure_text(source: str, error: BaseException, namespace: Mapping[str, object]) -> str:
    """Return a failure as text, which is the same if the same cell fails in the same way, so that it is replayed.

    Keys in the source and the message are left out, as are frames of libraries, and values of variables.
    """
    cell = without_keys(source.strip("\n"))[:MAX_SOURCE_CHARACTERS]
    parts = [f"The cell:\n\n{_fenced(cell)}", _exception_line(error)]
    frames = list(_frames(error))[-MAX_FRAMES:]
    variables = list(_variables(source, namespace))[:MAX_VARIABLES]
    parts += ["\n".join(["Where:", *frames])] if frames else []
    parts += ["\n".join(["Variables:", *variables])] if variables else []
    return "\n\n".join(parts)


def _fenced(code: str) -> str:
    longest = max(map(len, re.findall("`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def _exception_line(error: BaseException) -> str:
    message = f"{error.msg} (line {error.lineno})" if isinstance(error, SyntaxError) else str(error)
    message = _ADDRESS.sub("0x…", without_keys(message))[:MAX_MESSAGE_CHARACTERS]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _frames(error: BaseException) -> Iterator[str]:
    """Yield one line for each frame of the notebook and of the user's own files."""
    for frame in traceback.extract_tb(error.__traceback__):
        if _is_cell(frame.filename):
            where = "cell"
        elif _is_library(frame.filename):
            continue
        else:
            where = Path(frame.filename).name
        yield f"{where}, line {frame.lineno}, in {frame.name}: {without_keys(frame.line or '')}"


def _is_cell(filename: str) -> bool:
    return filename.startswith("<ipython-input") or Path(filename).parent.name.startswith("ipykernel_")


def _is_library(filename: str) -> bool:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} | {str(Path(__file__).parents[1])}
    return filename.startswith("<") or any(Path(filename).is_relative_to(folder) for folder in folders)


def _variables(source: str, namespace: Mapping[str, object]) -> Iterator[str]:
    """Yield the type, shape, or length of each variable in the source, without its value."""
    for name in dict.fromkeys(_NAME.findall(source)):
        value = namespace.get(name)
        if name in namespace and not name.startswith("_") and not callable(value) and not isinstance(value, ModuleType):
            yield f"{name}: {_kind(value)}"


def _kind(value: object) -> str:
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        dtypes = ", ".join(f"{name} {dtype}" for name, dtype in list(value.dtypes.items())[:MAX_VARIABLES])
        return f"DataFrame, {counted(len(value), 'row')}, {counted(len(value.columns), 'column')} ({dtypes})"
    if pandas is not None and isinstance(value, pandas.Series):
        return f"Series, {counted(len(value), 'value')}, dtype {value.dtype}"
    if numpy is not None and isinstance(value, numpy.ndarray):
        return f"array, shape {value.shape}, dtype {value.dtype}"
    if type(value) in (list, tuple, dict, set, str):
        return f"{type(value).__name__}, length {len(value)}"  # type: ignore[arg-type]  # one of these types
    return type(value).__name__
