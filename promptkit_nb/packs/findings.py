"""What checking a pack finds: each with its place, what is there, what was expected, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal, overload

from promptkit_nb.text.near_names import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning"]

_SHOWN = 20
MATH_OFF = 'class="mathjax_ignore tex2jax_ignore"'  # as in note_html.py, which stands above the packs
_COLORS = {"error": "var(--jp-error-color1,#c62828)", "warning": "var(--jp-warn-color1,#b26a00)"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, or one doubt, in a pack.

    ``code`` is stable: PP0xx the file, PP1xx the schema, PP2xx references, PP3xx meaning, PP4xx doubts. ``pointer`` is
    a JSON pointer (``""`` is the whole pack); ``line`` and ``column`` count from 1 and point at the key, or at the item
    of an array; they are ``None`` where the pack was given as a dict. ``value`` is what stands there, shortened;
    ``expected`` what should; ``suggestions`` are names that may have been meant, ``hint`` is what to do.

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
        """The message with the hint and the suggestions."""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.message}{hint}{did_you_mean(self.suggestions)}"

    def __str__(self) -> str:
        """Show it on one line."""
        place = "" if self.line is None else f" ({self.line}:{self.column})"
        return f"{self.code} {self.severity} {self.pointer or '/'}{place}: {self.text}"


class Findings(Sequence[Finding]):
    """All findings of one pack, in the order of its file; shown as a table in a notebook.

    ``source`` is the path of the file, or ``"The pack"``. ``advice`` says what helps against all of them at once.
    """

    def __init__(self, findings: Iterable[Finding], source: str = "The pack", advice: str = "") -> None:
        """Keep the findings in the order in which they are given."""
        self._findings = tuple(findings)
        self.source = source
        self.advice = advice

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those for which ``load_pack(path, strict=True)`` refuses the pack."""
        return tuple(finding for finding in self._findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The others."""
        return tuple(finding for finding in self._findings if finding.severity == "warning")

    def to_df(self) -> pd.DataFrame:
        """Return one row per finding, with the fields of ``Finding`` as columns; ``line`` and ``column`` are Int64."""
        import pandas as pd  # noqa: PLC0415 - heavy, and seldom wanted

        names = [field.name for field in fields(Finding)]
        frame = pd.DataFrame([asdict(finding) for finding in self._findings], columns=names)
        return frame.astype({"line": "Int64", "column": "Int64"})

    @property
    def counts(self) -> str:
        """How many there are, in words."""
        counts = Counter(finding.severity for finding in self._findings)
        return f"{_counted(counts['error'], 'error')}, {_counted(counts['warning'], 'warning')}"

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: int | slice) -> Finding | Findings:
        """Return one finding, or some of them."""
        if isinstance(index, slice):
            return Findings(self._findings[index], self.source, self.advice)
        return self._findings[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._findings)

    def __eq__(self, other: object) -> bool:
        """Compare with other findings, or with a tuple or list of them."""
        if isinstance(other, (Findings, tuple, list)):
            return self._findings == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        """Hash by the findings."""
        return hash(self._findings)

    def __repr__(self) -> str:
        """Show the summary, and each finding on a line of its own; of very many the first ones."""
        return "\n".join([f"{self.source}: {self.counts}", *self.lines(len(self))])

    def lines(self, most: int = _SHOWN) -> list[str]:
        """Return one line per finding, at most so many, then how many more there are, then the advice."""
        more = len(self) - most
        return [
            *(f"  {finding}" for finding in self._findings[:most]),
            *([f"  … and {more} more"] if more > 0 else []),
            *([self.advice] if self.advice else []),
        ]

    def _repr_html_(self) -> str:
        shown = self._findings[:200]
        rows = "".join(map(_row, shown))
        more = f"<div>… and {len(self) - len(shown)} more</div>" if len(self) > len(shown) else ""
        heading = "".join(f'<th style="text-align:left">{name}</th>' for name in ("", "where", "line", "what"))
        table = f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>" if shown else ""
        advice = f"<div>{escape(self.advice)}</div>" if self.advice else ""
        return f"<div {MATH_OFF}><div>{escape(self.source)}: {self.counts}</div>{table}{more}{advice}</div>"


def shown_value(value: Any) -> str:
    """Return a JSON value on one line, shortened to 60 characters; of an object or array only what it is.

    >>> shown_value("x" * 100), shown_value({"a": 1}), shown_value(None)
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'", 'an object', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = value if isinstance(value, str) else f"{value!r}"
    cut = text if len(text) <= 58 else f"{text[:58]}…"  # noqa: PLR2004 - 60 with its quotes
    return repr(cut) if isinstance(value, str) else cut


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _row(finding: Finding) -> str:
    left = "text-align:left"
    place = "" if finding.line is None else f"{finding.line}:{finding.column}"
    return (
        f'<tr><td style="{left};white-space:nowrap;color:{_COLORS[finding.severity]}">{finding.code} '
        f'{finding.severity}</td><td style="{left}"><code>{escape(finding.pointer or "/")}</code></td>'
        f'<td>{place}</td><td style="{left}">{escape(finding.text)}</td></tr>'
    )
