"""What a run has to ask: the distinct questions of the rows, and the answers that are known already."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any, Literal

from promptkit_nb.endings import ending_of
from promptkit_nb.errors import PromptKitError
from promptkit_nb.rows.columns import DoesNotFitError
from promptkit_nb.rows.template import RowNotAskedError
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.tools.answer_types import AnswerRejectedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.rows.columns import AnswerColumn
    from promptkit_nb.rows.stored_rows import RowConversation
    from promptkit_nb.rows.template import RowTemplate
    from promptkit_nb.tools.answer_types import AnswerType
    from promptkit_nb.turns import Turn

NOT_ASKED = -1
"""The question of a row that has none."""


class RowPlan:
    """The question of each row, as a number: rows with the same question have the same one.

    ``first_rows`` has the position of the first row of each question, which is read again when it is sent: no text is
    kept. ``not_asked`` says why a row has no question.
    """

    def __init__(self, template: RowTemplate, conversation: RowConversation, count: int) -> None:
        """Read the rows once."""
        self.numbers: dict[bytes, int] = {}
        self.questions = array("q", bytes(8 * count))
        self.first_rows = array("q")
        self.not_asked: dict[int, str] = {}
        for position in range(count):
            try:
                key = conversation.key_of(template.text_of(position))
            except RowNotAskedError as error:
                self.not_asked[position] = str(error)
                self.questions[position] = NOT_ASKED
                continue
            number = self.numbers.setdefault(key, len(self.numbers))
            if number == len(self.first_rows):
                self.first_rows.append(position)
            self.questions[position] = number

    def __len__(self) -> int:
        """Return the number of distinct questions."""
        return len(self.first_rows)


Source = Literal["missing", "failed", "answered", "replayed"]


class RowAnswers:
    """The answers to the questions of a plan, as values of the columns; turns and texts are not kept.

    ``cut`` has the questions whose answers were cut at the output limit.
    """

    def __init__(self, plan: RowPlan, columns: Sequence[AnswerColumn], answer_type: AnswerType | None) -> None:
        """Know no answer yet."""
        self.plan = plan
        self.columns = tuple(columns)
        self.errors: dict[int, str] = {}
        self.cut: set[int] = set()
        self.sources: list[Source] = ["missing"] * len(plan)
        self.costs_usd = array("d", [math.nan]) * len(plan)
        self._answer_type = answer_type
        self._values: list[tuple[Any, ...] | None] = [None] * len(plan)

    @property
    def missing(self) -> list[int]:
        """The questions without an answer."""
        return [number for number, source in enumerate(self.sources) if source == "missing"]

    def values_of(self, column: int) -> list[Any]:
        """Return the values of one column by question, ``None`` where there is none."""
        return [None if values is None else values[column] for values in self._values]

    def take_stored(self, stored: Iterable[tuple[bytes, Turn]]) -> None:
        """Take the answers of stored turns, oldest first: the last one that fits counts.

        They replace stored answers that were taken before, but not what this run has asked.
        """
        for key, turn in stored:
            number = self.plan.numbers.get(key)
            if number is None or self.sources[number] not in ("missing", "replayed"):
                continue
            try:
                value = turn.text if self._answer_type is None else self._answer_type.read(turn.text)
                self._take(number, value, turn.finish_reason, "replayed")
            except (AnswerRejectedError, DoesNotFitError):
                continue
            self.costs_usd[number] = 0.0

    def take(self, number: int, response: Response) -> None:
        """Take an answer that just arrived; it has failed if it does not fit."""
        value = response.content if self._answer_type is None else response.value
        self.costs_usd[number] = math.nan if response.cost is None else float(response.cost)
        try:
            self._take(number, value, response.finish_reason, "answered")
        except DoesNotFitError as error:
            self.fail(number, error)

    def fail(self, number: int, error: BaseException) -> None:
        """Note why a question has no answer, with the class of the error if users know it."""
        self.sources[number] = "failed"
        self.errors[number] = one_line(
            f"{type(error).__name__}: {error}" if isinstance(error, PromptKitError) else str(error)
        )

    def _take(self, number: int, value: Any, finish_reason: str | None, source: Source) -> None:
        """Take an answer; raise ``DoesNotFitError`` if a column has no place for it."""
        self._values[number] = tuple(column.value_in(value) for column in self.columns)
        self.sources[number] = source
        self.cut.discard(number)
        if ending_of(finish_reason) == "cut":
            self.cut.add(number)
