"""What a run says: a progress bar while it lasts, and lines before and after it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from promptkit_nb.characters import terminal_text
from promptkit_nb.frontend import is_batch
from promptkit_nb.text.receipts import amount_text

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from promptkit_nb.rows.estimate import RowsEstimate
    from promptkit_nb.rows.plan import RowAnswers


class Progress:
    """A bar of the questions to send, with failures, dollars, and waits; a batch run, which is saved, has none."""

    def __init__(self, estimate: RowsEstimate) -> None:
        """Show nothing yet."""
        self._estimate = estimate
        self._failed = 0
        self._spent_usd: Decimal | None = Decimal(0)
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Show the bar."""
        if not is_batch():
            from tqdm.auto import tqdm  # noqa: PLC0415 - a fifth of a second

            self._bar = tqdm(total=self._estimate.to_send, desc=self._estimate.name, unit="text", dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def answered(self, cost_usd: Decimal | None) -> None:
        """Count an answer with its cost."""
        self._spent_usd = None if cost_usd is None or self._spent_usd is None else self._spent_usd + cost_usd
        self._advance()

    def failed(self) -> None:
        """Count a failure."""
        self._failed += 1
        self._advance()

    def say(self, words: str) -> None:
        """Show why nothing happens."""
        if self._bar is not None:
            self._bar.set_postfix_str(words)

    def _advance(self) -> None:
        if self._bar is None:
            return
        spent = "price unknown" if self._spent_usd is None else amount_text(self._spent_usd)
        of = "" if self._spent_usd is None else f" of {self._estimate.cost_text}"
        self._bar.set_postfix_str(f"{self._failed:,} failed, {spent}{of}", refresh=False)
        self._bar.update()


def show(line: str) -> None:
    """Print a line of a run."""
    print(terminal_text(line))  # noqa: T201 - a status line, as of tqdm


def closing_line(answers: RowAnswers, spent_usd: Decimal, unpriced: int) -> str:
    """Return what became of the rows, and what this run cost."""
    by_source = {"missing": 0, "failed": 0, "answered": 0, "replayed": 0}
    cut = 0
    for number in answers.plan.questions:
        if number >= 0:
            by_source[answers.sources[number]] += 1
            cut += number in answers.cut
    parts = [f"{by_source['answered'] + by_source['replayed']:,} ok"]
    parts += [f"{cut:,} cut at max_output_tokens"] if cut else []
    parts += [f"{by_source['failed']:,} failed"] if by_source["failed"] else []
    parts += [f"{len(answers.plan.not_asked):,} without a question"] if answers.plan.not_asked else []
    parts += [f"{by_source['missing']:,} not asked yet"] if by_source["missing"] else []
    is_unknown = unpriced and not spent_usd
    parts.append("price unknown" if is_unknown else amount_text(spent_usd))
    parts += [f"{unpriced:,} without a price"] if unpriced and spent_usd else []
    parts += [f"{by_source['replayed']:,} replayed"] if by_source["replayed"] else []
    return " · ".join(parts)
