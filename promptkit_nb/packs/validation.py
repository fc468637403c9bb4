"""Checking a pack strictly: the schema, the references and the meaning, all findings at once and where each stands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.composition_findings import composition_findings
from promptkit_nb.packs.files import read_pack
from promptkit_nb.packs.findings import Finding, Findings
from promptkit_nb.packs.json_positions import positions_of
from promptkit_nb.packs.meaning_findings import meaning_findings
from promptkit_nb.packs.reference_findings import agent_references, prompt_references
from promptkit_nb.packs.schema_findings import OLDER, schema_findings
from promptkit_nb.packs.template_findings import template_findings
from promptkit_nb.packs.workflow_findings import workflow_findings

if TYPE_CHECKING:
    from typing import Any

    from promptkit_nb.packs.files import PackFile, PackSource

_CHECKS = (
    schema_findings,
    prompt_references,
    agent_references,
    workflow_findings,
    composition_findings,
    meaning_findings,
    template_findings,
)
_ADVICE = (
    "This pack is in the dialect of older documentation: load_pack(path).upgrade() returns it as it is written now."
)


def validate_pack(path: PackSource) -> Findings:
    """Return everything that strict loading finds in a pack: errors and warnings, in the order of the file.

    The pack is a file, or a dict already parsed; it need not be one that can be loaded. The findings are a sequence of
    ``Finding``, shown as a table in a notebook; ``.errors`` and ``.warnings`` are parts of it, ``.to_df()`` returns a
    DataFrame. A pack without errors is one that ``load_pack(path, strict=True)`` loads.

    Raises ``PackNotFoundError`` where there is no file.

    >>> from promptkit_nb import validate_pack
    >>> findings = validate_pack({"id": "mine", "promts": {}})
    >>> findings[-1].pointer, findings[-1].suggestions
    ('/promts', ('prompts',))
    """
    try:
        return findings_of(read_pack(path))
    except PackValidationError as error:
        return error.findings if isinstance(error.findings, Findings) else Findings(error.findings)


def findings_of(file: PackFile) -> Findings:
    """Return all findings of a pack that was read."""
    found = _placed(errors_of(file.data), file)
    older = any(finding.hint.startswith(OLDER) for finding in found)
    return Findings(found, file.where, _ADVICE if older else "")


def errors_of(data: dict[str, Any]) -> list[Finding]:
    """Return all findings of a pack's JSON, in no order and without lines."""
    return [finding for check in _CHECKS for finding in check(data)]


def check_strictly(file: PackFile) -> Findings:
    """Return the warnings of a pack; raise ``PackValidationError`` with all findings where one is an error."""
    findings = findings_of(file)
    if findings.errors:
        lines = "\n".join(findings.lines())
        raise PackValidationError(f"{file.where} is no valid pack: {findings.counts}.\n{lines}", findings=findings)
    return findings


def _placed(findings: list[Finding], file: PackFile) -> list[Finding]:
    """Return the findings in the order of the file, with line and column where there is a file."""
    if not findings:
        return []
    text = file.text or json.dumps(file.data)
    places = positions_of(text, (finding.pointer for finding in findings))
    ordered = sorted(findings, key=lambda finding: places[finding.pointer].offset)
    if not file.text:
        return ordered
    return [
        replace(finding, line=places[finding.pointer].line, column=places[finding.pointer].column)
        for finding in ordered
    ]
