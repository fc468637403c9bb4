"""Answers of several models to one question, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple, overload

from promptkit_nb.characters import terminal_text
from promptkit_nb.errors import PromptKitError
from promptkit_nb.rendering.markdown import answer_style
from promptkit_nb.rendering.responses import Response
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE, note_html, receipt_of

_ROW_STYLE = "display:flex;flex-wrap:wrap;gap:12px 24px"
_COLUMN_STYLE = "flex:1 1 18em;min-width:0"
_NAME_STYLE = f"{SMALL_STYLE};font-weight:600;border-bottom:1px solid rgba(128,128,128,.28);margin-bottom:6px"


class Column(NamedTuple):
    """The answer of one model, as text and as HTML, with a note below it."""

    model: str
    text: str = ""
    html: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison(Sequence[Response]):
    """The responses of the models that answered one question, shown side by side.

    ``models`` are all that were asked, ``errors`` the errors of those that failed, by model. ``turn_id`` is the turn:
    ``answer`` is its response; the others are versions of it, which ``restore`` picks.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> conv = ConversationManager(DemoProvider()).new_conversation()
    >>> answers = conv.compare("My city is Porto", models=["demo", "demo-2"])
    >>> len(answers), answers[0].turn == conv.turns[0], conv.versions(0) == (answers[1].turn,), dict(answers.errors)
    (2, True, True, {})
    """

    responses: tuple[Response, ...]
    models: tuple[str, ...]
    errors: Mapping[str, PromptKitError] = field(default_factory=dict)
    turn_id: str = ""

    @property
    def answer(self) -> Response:
        """The response that is the turn."""
        return next((each for each in self.responses if each.turn.id == self.turn_id), self.responses[0])

    @property
    def answered(self) -> tuple[str, ...]:
        """The models that answered, in order."""
        return tuple(model for model in self.models if model not in self.errors)

    def __len__(self) -> int:
        """Return the number of models that answered."""
        return len(self.responses)

    @overload
    def __getitem__(self, index: int) -> Response: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Response, ...]: ...
    def __getitem__(self, index: int | slice) -> Response | tuple[Response, ...]:
        """Return one response, or several."""
        return self.responses[index]

    def __iter__(self) -> Iterator[Response]:
        """Yield the responses in the order of the models."""
        return iter(self.responses)

    def __str__(self) -> str:
        """Return the answers one after the other, each with the name of its model."""
        return columns_text(self._columns())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return columns_html(self._columns())

    def _columns(self) -> Iterator[Column]:
        responses = iter(self.responses)
        for model in self.models:
            if model in self.errors:
                yield error_column(model, self.errors[model])
                continue
            each = next(responses)
            text = f"{terminal_text(each.content)}\n\n{receipt_of(each, '')}"
            yield Column(model, text, each._repr_html_(), self.note_of(each))

    def note_of(self, response: Response) -> str:
        """Return how to pick an answer that is not the turn."""
        return "" if response is self.answer else "a version of this turn; restore() picks it"


def error_column(model: str, error: PromptKitError) -> Column:
    """Return the column of a model that failed."""
    line = one_line(f"{type(error).__name__}: {error}")
    return Column(model, line, note_html(line))


def columns_text(columns: Iterable[Column]) -> str:
    """Return columns as text, one below the other."""
    return "\n\n".join(
        "\n".join(filter(None, [f"── {one_line(each.model)} ──", each.text, each.note])) for each in columns
    )


def columns_html(columns: Iterable[Column]) -> str:
    """Return columns next to each other; on a narrow page, they are below each other."""
    cells = "".join(
        f'<div style="{_COLUMN_STYLE}"><div {MATH_OFF} style="{_NAME_STYLE}">{escape(one_line(each.model))}</div>'
        f"{each.html}{note_html(each.note) if each.note else ''}</div>"
        for each in columns
    )
    style = answer_style()
    once = style + cells.replace(style, "") if style in cells else cells
    return f'<div class="promptkit-comparison" style="{_ROW_STYLE}">{once}</div>'
