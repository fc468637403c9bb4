r"""``{{ expression }}`` in a chat cell, replaced by a value of the notebook; everything else stays as it was typed.

People paste JSON, LaTeX, CSS and templates into chat cells. So only what is an expression between double braces counts:
a name, then attributes and items, which are read and never computed. The values are literal: braces in them mean
nothing, which is also the way to say ``{{ x }}`` to a model (as the value of a variable, or with ``--raw``).
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.notebook.values import value_text
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.turns import ContentPart, without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_PIECE = re.compile(
    r"""
    (?: \\[A-Za-z]++ \*? (?:\[[^\]{}\n]{0,100}+\])?   # LaTeX, which stays as it is: a command,
      | \^                                            # a superscript,
      | (?<!\w\w)(?<=[A-Za-z])_                       # the subscript of a letter,
    )
    (?: [_^]? (?: \{[^{}\n]*+\} | \{\{(?!\s)[^{}\n]*+(?<!\s)\}\} ) )++    # and the arguments
    | \{\{ (?P<body>[^{}\n]{1,200}+) \}\}
    """,
    re.VERBOSE,
)

_COMPUTED = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp)


@dataclass(frozen=True, slots=True)
class CellText:
    """What a chat cell says.

    ``parts`` are there only where it shows an image: they are what the model gets then, and in ``text`` stands
    ``[image NAME]`` in its place.
    """

    text: str
    parts: tuple[ContentPart, ...] = ()


def fill(text: str, namespace: Mapping[str, object], *, images: bool = True) -> CellText:
    r"""Return the text with each ``{{ expression }}`` replaced by its value in the namespace.

    An expression is a name, then attributes and items: ``df``, ``df.shape[0]``, ``config["model"]``, ``rows[-1]``,
    ``df.loc[2:5, "price"]``, on one line, of at most 200 characters, without private attributes. How values are
    written says ``value_text``.

    As typed stays what is no such expression: single braces, ``{{}}``, JSON, CSS, ``{{#if x}}``, ``{{ x | upper }}``,
    and in LaTeX what stands without blanks as an argument (``\frac{{a}}{{b}}``, ``x^{{n}}``, ``x_{{i}}``). A dollar
    before it changes nothing: ``${{ price }}`` is a price, so a workflow of GitHub needs ``--raw``.

    Raises ``InvalidArgumentError``, always before anything is sent: for an unknown name; for an attribute or item that
    is not there or whose code fails; for a call or an item that is no literal, as they are surely meant to be computed;
    for an operator if all names around it are known; for an image where ``images`` is false; and for a value that
    cannot be written.

    >>> fill('{"n": {{ rows[-1] }}}, {{"n": 1}}', {"rows": [1, 2]}).text
    '{"n": 2}, {{"n": 1}}'
    """
    if "{{" not in text:
        return CellText(text)
    fillings: dict[str, str | ContentPart | None] = {}
    pieces: list[tuple[str, str | ContentPart]] = []
    end = 0
    for found in _PIECE.finditer(text):
        source = (found["body"] or "").strip()
        if source not in fillings:
            fillings[source] = _filling(source, namespace)
        filling = fillings[source]
        if filling is None:
            continue
        if not images and isinstance(filling, ContentPart):
            raise InvalidArgumentError(
                f"{_shown(source)} is an image, and only text can be sent here: say in words what it shows, "
                "or name the data behind it."
            )
        pieces += (("", text[end : found.start()]), (source, filling))
        end = found.end()
    pieces.append(("", text[end:]))
    told = "".join(f"[image {source}]" if isinstance(piece, ContentPart) else piece for source, piece in pieces)
    return CellText(told, _parts(piece for _, piece in pieces))


def _parts(pieces: Iterable[str | ContentPart]) -> tuple[ContentPart, ...]:
    """Return the images with the texts between them; nothing where there is no image."""
    parts: list[ContentPart] = []
    for is_text, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            said = "".join(map(str, run))
            parts += [ContentPart("text", without_lone_surrogates(said))] if said else []
        else:
            parts += [piece for piece in run if isinstance(piece, ContentPart)]
    return tuple(parts) if any(part.type == "image_url" for part in parts) else ()


def _filling(source: str, namespace: Mapping[str, object]) -> str | ContentPart | None:
    """Return what stands for the expression, or ``None`` where it is none."""
    node = _parsed(source)
    chain = None if node is None else _chain(node, source)
    if chain is None:
        if node is not None:
            _refuse_computed(node, source, namespace)
        return None
    name, steps = chain
    if name not in namespace:
        raise _unknown(name, source, namespace)
    value = namespace[name]
    for step in steps:
        try:
            value = step(value)
        except Exception as error:  # a property may fail with anything
            raise InvalidArgumentError(
                f"{_shown(source)} cannot be read ({one_line(f'{type(error).__name__}: {error}')[:200]}). "
                "Check it in a cell of its own, or add --raw to send braces as typed."
            ) from error
    return value_text(value, source)


def _parsed(source: str) -> ast.expr | None:
    """Return the source as a Python expression that begins with a name, or ``None``."""
    if not source[:1].isidentifier():
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # such as those about backslashes
            node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return node if node.end_col_offset == len(source.encode()) else None  # else a comment follows


def _chain(node: ast.expr, source: str) -> tuple[str, list[Callable[[Any], Any]]] | None:
    """Return the name and the steps from it to the value; ``None`` where the node does not begin with a name."""
    steps: list[Callable[[Any], Any]] = []
    refused = ""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            refused = f"reads the private attribute {node.attr}" if node.attr.startswith("_") else refused
            steps.append(attrgetter(node.attr))
            node = node.value
        elif isinstance(node, ast.Subscript):
            try:
                steps.append(itemgetter(_item(node.slice)))
            except ValueError:
                refused = f"asks for the item [{ast.unparse(node.slice)}], which is no literal"
            node = node.value
        elif isinstance(node, ast.Call):
            refused = "is a call, and calls are not run here"
            node = node.func
        else:
            return None
    if refused:
        raise _not_read(source, refused)
    return node.id, steps[::-1]


def _item(node: ast.expr) -> object:
    """Return a literal item, slice, or tuple of them; ``ValueError`` where it would have to be computed."""
    if isinstance(node, ast.Slice):
        bounds = (node.lower, node.upper, node.step)
        return slice(*(None if bound is None else ast.literal_eval(bound) for bound in bounds))
    if isinstance(node, ast.Tuple):
        return tuple(map(_item, node.elts))
    return ast.literal_eval(node)


def _refuse_computed(node: ast.expr, source: str, namespace: Mapping[str, object]) -> None:
    """Raise for an operator among names that are all known; a ``|`` is a template's filter."""
    is_filter = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    if isinstance(node, _COMPUTED) and not is_filter and names and names <= namespace.keys():
        raise _not_read(source, "would have to be computed, and nothing is computed here")


def _unknown(name: str, source: str, namespace: Mapping[str, object]) -> InvalidArgumentError:
    near = similar_names(name, (known for known in namespace if not known.startswith("_")))
    hint = f"did you mean {' or '.join(near)}?" if near else "run the cell that makes it first."
    return InvalidArgumentError(
        f"{_shown(source)}: the notebook has no {name!r}; {hint} To send braces as typed, add --raw."
    )


def _not_read(source: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{_shown(source)} {why}: assign the value to a variable and name that, or add --raw to send braces as typed."
    )


def _shown(source: str) -> str:
    return f"{{{{ {one_line(source)} }}}}"
