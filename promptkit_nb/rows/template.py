"""The question of each row: a template with the row's values in place of ``{{ column }}``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import pandas as pd

from promptkit_nb.chat.options import check_text
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.cell_text import CellText, Template, cell_text_of
from promptkit_nb.text.expressions import BUILTINS, FailedError, NotAllowedError, UnknownNameError, check, evaluate
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.values import value_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.text.cell_text import Piece

WHOLE_ROW = "row"
"""The name of the whole row, for columns whose name is not an identifier: ``{{ row["Unit price"] }}``."""

_OTHER_NAMES = frozenset({*BUILTINS, "Path"})


class RowNotAskedError(Exception):
    """The row has no question; the text says why. It never reaches users."""


class RowTemplate:
    """A template for the rows of one frame.

    >>> frame = pd.DataFrame({"text": ["It broke.", None]})
    >>> RowTemplate("Classify: {{ text }}", frame).text_of(0).text
    'Classify: It broke.'
    """

    def __init__(self, text: str, frame: pd.DataFrame) -> None:
        """Parse the template; raise ``InvalidArgumentError`` if it names no column, or one that the frame lacks."""
        check_text(text)
        self._pieces = Template.of(text).pieces
        nodes = [_allowed(piece) for piece in self._pieces if piece.node is not None]
        walked = [each for node in nodes for each in ast.walk(node)]
        names = dict.fromkeys(each.id for each in walked if isinstance(each, ast.Name))
        self._columns = {name: _column(frame, name) for name in names if _is_column(frame, name)}
        others = [name for name in names if name not in self._columns and name not in _OTHER_NAMES]
        self._row_keys: dict[object, Any] = {}
        if WHOLE_ROW in others:
            others.remove(WHOLE_ROW)
            keys = [key for each in walked if isinstance(each, ast.Subscript) for key in _keys_of(each)]
            self._row_keys = {key: _column(frame, key) for key in keys or frame.columns}
        if others:
            raise _no_column(others[0], frame)
        if not (self._columns or self._row_keys):
            raise InvalidArgumentError(
                f"template={one_line(text)!r:.80} names no column, so all rows would get the same question: write "
                f"{{{{ {next(filter(_is_identifier, frame.columns), 'text')} }}}} where the row's value belongs."
            )

    def text_of(self, position: int) -> CellText:
        """Return the question of the row at this position; raise ``RowNotAskedError`` if it has none.

        A missing value is left out, and a row whose values are all missing has no question.
        """
        values = dict(_present(self._columns, position))
        row = dict(_present(self._row_keys, position))
        if not (values or row):
            names = ", ".join(map(str, (*self._columns, *self._row_keys)))
            raise RowNotAskedError(f"not asked: {names} {'is' if ',' not in names else 'are'} missing")
        namespace: dict[str, Any] = dict.fromkeys(self._columns, "") | values
        if self._row_keys:
            namespace[WHOLE_ROW] = dict.fromkeys(self._row_keys, "") | row
        text = cell_text_of([self._filled(piece, namespace) for piece in self._pieces])
        if not text.text.strip():
            raise RowNotAskedError("not asked: the question is empty")
        return text

    @staticmethod
    def _filled(piece: Piece, namespace: dict[str, Any]) -> tuple[str, Any]:
        if piece.node is None:
            return "", piece.typed
        try:
            return piece.source, value_text(evaluate(piece.node, namespace), piece.source)
        except FailedError as error:
            why = one_line(f"{type(error.__cause__).__name__}: {error.__cause__}")[:200]
            raise RowNotAskedError(f"not asked: {{{{ {piece.source} }}}} cannot be read ({why})") from error
        except NotAllowedError as error:
            raise RowNotAskedError(f"not asked: {{{{ {piece.source} }}}} {error}") from error
        except UnknownNameError as error:
            raise RowNotAskedError(f"not asked: there is no {error}") from error
        except InvalidArgumentError as error:  # such as a picture that is not there
            raise RowNotAskedError(f"not asked: {error}") from error


def _allowed(piece: Piece) -> ast.expr:
    """Return the expression of a piece; raise ``InvalidArgumentError`` if it can never be evaluated."""
    node = piece.node
    try:
        if node is not None and check(node):
            return node
        why = "is a computation, and computations are not allowed here"
    except NotAllowedError as error:
        why = str(error)
    raise InvalidArgumentError(
        f'{{{{ {piece.source} }}}} {why}. Make a column of it, df["value"] = …, and write {{{{ value }}}}.'
    )


def _is_identifier(label: object) -> bool:
    return isinstance(label, str) and label.isidentifier()


def _is_column(frame: pd.DataFrame, name: object) -> bool:
    return name in frame.columns


def _column(frame: pd.DataFrame, label: Any) -> Any:
    if not _is_column(frame, label):
        raise _no_column(str(label), frame)
    found = frame[label]
    if not isinstance(found, pd.Series):
        raise InvalidArgumentError(f"Two columns are named {label!r}: rename one of them.")
    return found.array


def _keys_of(node: ast.Subscript) -> tuple[object, ...]:
    """Return the key of ``row[key]``; nothing for other items."""
    if isinstance(node.value, ast.Name) and node.value.id == WHOLE_ROW and isinstance(node.slice, ast.Constant):
        return (node.slice.value,)
    return ()


def _present(columns: dict[Any, Any], position: int) -> Iterator[tuple[Any, Any]]:
    for name, values in columns.items():
        value = values[position]
        if not (pd.api.types.is_scalar(value) and pd.isna(value)):
            yield name, value


def _no_column(name: str, frame: pd.DataFrame) -> InvalidArgumentError:
    columns = [str(each) for each in frame.columns]
    near = similar_names(name, columns)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"The columns are {', '.join(columns)[:200]}."
    return InvalidArgumentError(f"The template names the column {name!r}, which the DataFrame does not have. {hint}")
