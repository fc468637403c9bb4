"""Findings as a sequence, as text, as a table and as a DataFrame."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.findings import Finding, Findings, shown_value

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TYPO = Finding("PP104", "error", "/promts", "unknown key", 12, 9, "an object", "", ("prompts",))
UNUSED = Finding("PP401", "warning", "", "<b>unused</b>", hint="use it")


def test_finding_is_one_line() -> None:
    """Code, severity, pointer, place, what is wrong, what was meant, what to do."""
    assert str(TYPO) == "PP104 error /promts (12:9): unknown key; did you mean 'prompts'?"
    assert str(UNUSED) == "PP401 warning /: <b>unused</b>; use it"


def test_findings_are_a_sequence() -> None:
    """Findings support length, indexing, slicing and comparison with lists."""
    findings = Findings([TYPO, UNUSED], "a.pack.json")
    assert (len(findings), findings[0], list(findings[1:])) == (2, TYPO, [UNUSED])
    assert findings == [TYPO, UNUSED]
    assert findings != 1
    assert hash(findings) == hash(Findings([TYPO, UNUSED]))
    assert (findings.errors, findings.warnings) == ((TYPO,), (UNUSED,))


def test_findings_are_read_as_lines() -> None:
    """The repr has the counts, each finding and the advice."""
    assert repr(Findings([TYPO, UNUSED], "a.pack.json", "Upgrade it.")) == (
        "a.pack.json: 1 error, 1 warning\n"
        "  PP104 error /promts (12:9): unknown key; did you mean 'prompts'?\n"
        "  PP401 warning /: <b>unused</b>; use it\n"
        "Upgrade it."
    )
    assert repr(Findings([])) == "The pack: no errors, no warnings"


def test_message_of_an_error_shows_the_first_twenty() -> None:
    """Error messages show at most twenty findings."""
    lines = Findings([TYPO] * 30).lines()
    assert len(lines) == 21
    assert lines[-1] == "  … and 10 more"


def test_findings_are_a_table_in_a_notebook() -> None:
    """All cells are escaped, and an exception shows the same table."""
    findings = Findings([TYPO, UNUSED], "<a>")
    shown = findings._repr_html_()
    assert "<b>unused" not in shown
    assert "&lt;b&gt;unused&lt;/b&gt;; use it" in shown
    assert '<td style="text-align:right">12:9</td>' in shown
    assert "&lt;a&gt;: 1 error, 1 warning" in shown
    assert PackValidationError("No.", findings=findings)._repr_html_() == shown
    assert PackValidationError("No.")._repr_html_() is None


def test_table_has_errors_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then by line; words and signs say how severe they are, and the path is relative to the working directory."""
    late = replace(TYPO, line=90)
    monkeypatch.chdir(tmp_path)
    shown = Findings([UNUSED, late, TYPO], str(tmp_path / "a.pack.json"))._repr_html_()
    assert re.findall("(✕ error|⚠ warning)<.*?>([0-9:]*)</td>", shown) == [
        ("✕ error", "12:9"),
        ("✕ error", "90:9"),
        ("⚠ warning", ""),
    ]
    assert ">a.pack.json: 2 errors, 1 warning</div>" in shown
    assert "<th></th>" not in shown


def test_table_of_very_many_findings_is_cut() -> None:
    """The table is cut, with the number of other rows."""
    shown = Findings([TYPO] * 250)._repr_html_()
    assert shown.count("<tr>") == 201
    assert "… and 50 more" in shown


def test_findings_become_a_dataframe() -> None:
    """Each finding is a row; columns and types are the same without rows."""
    frame = Findings([TYPO, UNUSED]).to_df()
    assert list(frame.columns) == [
        "code",
        "severity",
        "pointer",
        "message",
        "line",
        "column",
        "value",
        "expected",
        "suggestions",
        "hint",
    ]
    assert frame["line"].isna().tolist() == [False, True]
    assert frame.loc[0, "suggestions"] == ("prompts",)
    empty = Findings([]).to_df()
    assert list(empty.columns) == list(frame.columns)
    assert str(empty["line"].dtype) == str(frame["line"].dtype) == "Int64"


def test_values_are_shown_short() -> None:
    """Values are shown as in JSON, with at most 60 characters."""
    values: list[object] = [None, True, 1.5, "x", [], {}]
    assert list(map(shown_value, values)) == ["null", "true", "1.5", "'x'", "an empty array", "an empty object"]
    assert len(shown_value("x" * 1000)) < 63
