r"""Replacing ``{{ expression }}`` in a message with values: of the notebook, or of a row of a DataFrame.

People paste JSON, LaTeX, CSS and templates into chat cells, so only simple expressions between double braces count: a
name followed by attributes, items, and calls that only read. Everything else stays as typed. Inserted values are not
expanded again; to send ``{{ x }}`` itself, put it into a variable or use ``--raw``.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import typed
from promptkit_nb.text.expressions import FailedError, NotAllowedError, UnknownNameError, check, evaluate
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.values import value_text, what_is_left_out
from promptkit_nb.turns import ContentPart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PIECE = re.compile(
    r"""
    (?: \\[A-Za-z]++ \*? (?:\[[^\]{}\n]{0,100}+\])?   # LaTeX is left alone: a command,
      | \^                                            # a superscript
      | (?<!\w\w)(?<=[A-Za-z])_                       # or the subscript of a letter,
    )
    (?: [_^]? (?: \{[^{}\n]*+\} | \{\{(?!\s)[^{}\n]*+(?<!\s)\}\} ) )++    # with its arguments
    | \{\{ (?P<body>[^{}\n]{1,200}+) \}\}
    """,
    re.VERBOSE,
)

_OPERATIONS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp)


@dataclass(frozen=True, slots=True)
class CellText:
    """The message of a chat cell.

    If it has images, ``parts`` is what the model receives, and ``text`` has ``[image NAME]`` in place of each image.
    ``notes`` says what the message does not contain of the values, in a line each.
    """

    text: str
    parts: tuple[ContentPart, ...] = ()
    notes: tuple[str, ...] = ()


def fill(text: str, namespace: Mapping[str, object], *, images: bool = True) -> CellText:
    r"""Return the text with each ``{{ expression }}`` replaced by its value in the namespace.

    An expression is a name followed by attributes and items: ``df``, ``df.shape[0]``, ``config["model"]``,
    ``rows[-1]``, ``df.loc[2:5, "price"]``; or a call that only reads: ``df.describe()``, ``len(df)``. It is on one
    line, has at most 200 characters and uses no private attributes. ``expressions`` lists the calls; ``value_text``
    defines how values are written.

    Everything else stays as typed: single braces, ``{{}}``, JSON, CSS, ``{{#if x}}``, ``{{ x | upper }}``, and LaTeX
    arguments without spaces (``\frac{{a}}{{b}}``, ``x^{{n}}``, ``x_{{i}}``). A preceding dollar sign changes nothing:
    ``${{ price }}`` is a price, so GitHub workflows need ``--raw``.

    Raises ``InvalidArgumentError``, before anything is sent, if a name is unknown; if an attribute or item is missing
    or reading it fails; for other calls, items that are not literals, and operators between known names, because they
    are probably meant to be evaluated; for an image if ``images`` is false; and if a value cannot be written as text.

    >>> fill('{"n": {{ rows[-1] }}}, {{"n": 1}}', {"rows": [1, 2]}).text
    '{"n": 2}, {{"n": 1}}'
    """
    return Template.of(text).fill(namespace, images=images) if "{{" in text else CellText(text)


class Piece(NamedTuple):
    """A piece of a template: text as typed, or an expression with its source and its parsed form."""

    typed: str
    source: str = ""
    node: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with ``{{ expressions }}``, parsed once, to be filled in with several namespaces; ``fill`` has the rules.

    >>> template = Template.of("Classify: {{ text }}")
    >>> [template.fill({"text": text}).text for text in ("It broke.", "Why?")]
    ['Classify: It broke.', 'Classify: Why?']
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """Parse a text."""
        pieces: list[Piece] = []
        end = 0
        for found in _PIECE.finditer(text):
            source = (found["body"] or "").strip()
            node = _parse(source)
            if node is not None:
                pieces += (Piece(text[end : found.start()]), Piece(found[0], source, node))
                end = found.end()
        return cls((*pieces, Piece(text[end:])))

    def fill(self, namespace: Mapping[str, object], *, images: bool = True) -> CellText:
        """Return the text with the values of the namespace; raises the errors of ``fill``."""
        values: dict[str, str | ContentPart | None] = {}
        notes: list[str] = []
        filled: list[tuple[str, str | ContentPart]] = []
        for written, source, node in self.pieces:
            if node is not None and source not in values:
                values[source], note = _evaluate(node, source, namespace)
                notes += filter(None, [note])
            value = values.get(source) if node is not None else None
            if not images and isinstance(value, ContentPart):
                raise InvalidArgumentError(
                    f"{_braced(source)} is {'a PDF' if value.type == 'file' else 'an image'}, and only text can be "
                    "sent here. Describe it in words, or use the data it was made from."
                )
            filled.append(("", written) if value is None else (source, value))
        return replace(cell_text_of(filled), notes=tuple(notes))


def cell_text_of(filled: Sequence[tuple[str, str | ContentPart]]) -> CellText:
    """Return the message with these pieces, each with the expression that it comes from."""
    text = "".join(_placeholder(source, piece) if isinstance(piece, ContentPart) else piece for source, piece in filled)
    return CellText(text, _parts(piece for _, piece in filled))


def _placeholder(source: str, part: ContentPart) -> str:
    return f"[file {one_line(part.text)}]" if part.type == "file" else f"[image {source}]"


def expressions(text: str) -> list[str]:
    """Return the expressions between double braces, each once, in order.

    >>> expressions("{{ df }} and {{ rows[0] }}, {{ df }}, {{ x | upper }}")
    ['df', 'rows[0]']
    """
    sources = ((found["body"] or "").strip() for found in _PIECE.finditer(text))
    return [source for source in dict.fromkeys(sources) if (node := _parse(source)) and _is_lookup(node)]


def _is_lookup(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name)


def _parts(pieces: Iterable[str | ContentPart]) -> tuple[ContentPart, ...]:
    """Return the images and the texts between them; nothing if there is no image."""
    parts: list[ContentPart] = []
    for is_text, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            text = "".join(map(str, run))
            parts += [ContentPart("text", without_lone_surrogates(text))] if text else []
        else:
            parts += [piece for piece in run if isinstance(piece, ContentPart)]
    return tuple(parts) if any(part.type != "text" for part in parts) else ()


def _evaluate(node: ast.expr, source: str, namespace: Mapping[str, object]) -> tuple[str | ContentPart | None, str]:
    """Return the value to insert, ``None`` if the source stays as typed, and a note about what is not inserted."""
    try:
        if not check(node):
            _refuse_computation(node, source, namespace)
            return None, ""
        value = evaluate(node, namespace)
        text = value_text(value, source)
        left_out = what_is_left_out(value, text)
        return text, f"{_braced(source)}: {left_out}" if left_out else ""
    except UnknownNameError as error:
        raise _unknown_name(str(error), source, namespace) from None
    except NotAllowedError as error:
        raise _not_allowed(source, str(error)) from None
    except FailedError as error:
        cause = error.__cause__
        raise InvalidArgumentError(
            f"{_braced(source)} cannot be read ({one_line(f'{type(cause).__name__}: {cause}')[:200]}). "
            f"Try it in a separate cell, or {typed('raw')} to send braces as typed."
        ) from cause


def _parse(source: str) -> ast.expr | None:
    """Parse the source as a Python expression that begins with a name; return ``None`` if it is not one."""
    if not source[:1].isidentifier():
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # about backslashes, for example
            node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return node if node.end_col_offset == len(source.encode()) else None  # None if a comment follows


def _refuse_computation(node: ast.expr, source: str, namespace: Mapping[str, object]) -> None:
    """Raise if the source is an operation on known names; ``|`` is left alone because templates use it for filters."""
    is_filter = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    is_known = all(name in namespace or hasattr(builtins, name) for name in names)
    if isinstance(node, _OPERATIONS) and not is_filter and names and is_known:
        raise _not_allowed(source, "is a computation, and computations are not allowed here")


def _unknown_name(name: str, source: str, namespace: Mapping[str, object]) -> InvalidArgumentError:
    near = similar_names(name, (known for known in namespace if not known.startswith("_")))
    hint = f"Did you mean {' or '.join(near)}?" if near else "Run the cell that defines it first."
    return InvalidArgumentError(
        f"{_braced(source)}: {name!r} is not defined in the notebook. {hint} To send braces as typed, {typed('raw')}."
    )


def _not_allowed(source: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{_braced(source)} {why}. Two lines do it: value = {one_line(source)} in a cell, and {{{{ value }}}} here; or "
        f"{typed('raw')} to send braces as typed."
    )


def _braced(source: str) -> str:
    return f"{{{{ {one_line(source)} }}}}"
