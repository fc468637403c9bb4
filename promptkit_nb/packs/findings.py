"""Findings: the errors and warnings of a pack, each with its position, the expected value and a remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from promptkit_nb.characters import terminal_text, visible
from promptkit_nb.text.near_names import did_you_mean
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import note_html
from promptkit_nb.text.tables import Cell, html_table

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning"]

_SHOWN = 20
_SHOWN_IN_HTML = 200
_SIGNS = {"error": "✕", "warning": "⚠"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One error or warning about a pack.

    ``code`` is stable: PP0xx file, PP1xx schema, PP2xx references, PP3xx meaning, PP4xx warnings. ``pointer`` is a JSON
    pointer (``""`` is the whole pack). ``line`` and ``column`` count from 1 and point at the key, or at the array item;
    both are ``None`` for a pack given as a dict. ``value`` is the value found, shortened; ``expected`` is the value
    required; ``suggestions`` are near matches; ``hint`` is the remedy.

    >>> print(Finding("PP104", "error", "/promts", "unknown key", suggestions=("prompts",)))
    PP104 error /promts: unknown key; did you mean 'prompts'?
    """

    code: str
    severity: Severity
    pointer: str
    message: str
    line: int | None = None
    column: int | None = None
    value: str = ""
    expected: str = ""
    suggestions: tuple[str, ...] = ()
    hint: str = ""

    @property
    def text(self) -> str:
        """The message, the hint and the suggestions."""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.message}{hint}{did_you_mean(self.suggestions)}"

    def __str__(self) -> str:
        """Return the finding on one line."""
        place = "" if self.line is None else f" ({self.line}:{self.column})"
        return terminal_text(f"{self.code} {self.severity} {self.pointer or '/'}{place}: {self.text}")


class Findings(Sequence[Finding]):
    """All findings for one pack, in file order; shown as a table in a notebook.

    ``source`` is the path of the file, or ``"The pack"``. ``advice`` is a remedy for all of them at once.
    """

    def __init__(self, findings: Iterable[Finding], source: str = "The pack", advice: str = "") -> None:
        """Keep the findings in the given order."""
        self._findings = tuple(findings)
        self.source = source
        self.advice = advice

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make ``load_pack(path, strict=True)`` fail."""
        return tuple(finding for finding in self._findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that do not."""
        return tuple(finding for finding in self._findings if finding.severity == "warning")

    def to_df(self) -> pd.DataFrame:
        """Return one row per finding; the columns are the fields of ``Finding``, ``line`` and ``column`` as Int64."""
        from promptkit_nb.text.text_frame import TextFrame  # noqa: PLC0415 - pandas, which is rarely needed

        names = [field.name for field in fields(Finding)]
        frame = TextFrame([_row_of(finding) for finding in self._findings], columns=names)
        return frame.astype({"line": "Int64", "column": "Int64"})

    @property
    def counts(self) -> str:
        """The numbers of errors and warnings, in words."""
        counts = Counter(finding.severity for finding in self._findings)
        return f"{_count_text(counts['error'], 'error')}, {_count_text(counts['warning'], 'warning')}"

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: int | slice) -> Finding | Findings:
        """Return one finding, or a slice of them."""
        if isinstance(index, slice):
            return Findings(self._findings[index], self.source, self.advice)
        return self._findings[index]

    def __len__(self) -> int:
        """Return the number of findings."""
        return len(self._findings)

    def __eq__(self, other: object) -> bool:
        """Compare with findings, or with a tuple or list of them."""
        if isinstance(other, (Findings, tuple, list)):
            return self._findings == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        """Hash by the findings."""
        return hash(self._findings)

    def __repr__(self) -> str:
        """Return the summary line and one line per finding."""
        return terminal_text("\n".join([f"{self.source}: {self.counts}", *self.lines(len(self))]))

    def lines(self, most: int = _SHOWN) -> list[str]:
        """Return one line for each of the first ``most`` findings, the number of others, and the advice."""
        more = len(self) - most
        return [
            *(f"  {finding}" for finding in self._findings[:most]),
            *([f"  … and {more} more"] if more > 0 else []),
            *([self.advice] if self.advice else []),
        ]

    def _repr_html_(self) -> str:
        """Return a table, errors first, then by position."""
        shown = sorted(self._findings, key=lambda each: (each.severity, each.line or 0, each.column or 0))[
            :_SHOWN_IN_HTML
        ]
        table = html_table(("severity", "pointer", "line", "finding", "code"), map(_row, shown), numbers=("line",))
        more = len(self) - len(shown)
        notes = [*([f"… and {more} more"] if more else []), *([self.advice] if self.advice else [])]
        heading = note_html(f"{_from_here(self.source)}: {self.counts}", "font-weight:600")
        return "".join([heading, table if shown else "", *map(note_html, notes)])


def _row_of(finding: Finding) -> dict[str, object]:
    """Return the fields of a finding, in a form that is safe to print in a terminal."""
    texts = {name: visible(value) for name, value in asdict(finding).items() if isinstance(value, str)}
    return asdict(finding) | texts | {"suggestions": tuple(map(visible, finding.suggestions))}


def shown_value(value: Any) -> str:
    """Return a JSON value on one line, shortened to 60 characters; objects and arrays by their type only.

    >>> shown_value("x" * 100), shown_value({"a": 1}), shown_value(None)
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'", 'an object', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    text = value if isinstance(value, str) else f"{value!r}"
    cut = text if len(text) <= 58 else f"{text[:58]}…"  # noqa: PLR2004 - 60 with its quotes
    return repr(cut) if isinstance(value, str) else cut


def _count_text(number: int, noun: str) -> str:
    return counted(number, noun) if number else f"no {noun}s"


def _row(finding: Finding) -> list[str | Cell]:
    place = "" if finding.line is None else f"{finding.line}:{finding.column}"
    return [
        Cell(f"{_SIGNS[finding.severity]} {finding.severity}", look=finding.severity),
        Cell(finding.pointer or "/", look="code"),
        place,
        Cell(finding.text, look="wide"),
        Cell(finding.code, look="soft"),
    ]


def _from_here(source: str) -> str:
    """Return a path relative to the working directory if it is below it; other sources as they are."""
    try:
        return str(Path(source).relative_to(Path.cwd()))
    except ValueError:
        return source
