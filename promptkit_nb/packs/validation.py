"""Strict validation: schema, references and semantics, all findings at once with positions; and the upgrade."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PackValidationError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs import reference_findings
from promptkit_nb.packs.dialect import change_templates
from promptkit_nb.packs.files import PackFile, PackSource, positions_of, read_pack
from promptkit_nb.packs.findings import Finding, Findings
from promptkit_nb.packs.meaning_findings import WELL_KNOWN, meaning_findings, template_findings
from promptkit_nb.packs.names import EXTRAS, free_name, slug_of
from promptkit_nb.packs.schema import definition, keys_of, object_items, objects_in, pointer_to
from promptkit_nb.packs.schema_findings import OLDER, schema_findings
from promptkit_nb.packs.templates import FRAGMENTS, PLACEHOLDER, name_in

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping


_CHECKS = (
    schema_findings,
    reference_findings.prompt_references,
    reference_findings.agent_references,
    reference_findings.workflow_findings,
    reference_findings.composition_findings,
    meaning_findings,
    template_findings,
)
_ADVICE = "This pack uses the dialect of older documentation: load_pack(path).upgrade() converts it."


def validate_pack(path: PackSource) -> Findings:
    """Return all errors and warnings about a pack, in file order.

    ``path`` is a file or a parsed dict. The result is a sequence of ``Finding``, shown as a table in a notebook;
    ``.errors`` and ``.warnings`` are its parts, ``.to_df()`` returns a DataFrame. ``load_pack(path, strict=True)``
    loads a pack without errors.

    Raises ``PackNotFoundError`` if the file does not exist.

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
    """Return all findings for a pack file."""
    found = _placed(_all_findings(file.data), file)
    older = any(finding.hint.startswith(OLDER) for finding in found)
    return Findings(found, file.where, _ADVICE if older else "")


def _all_findings(data: dict[str, Any]) -> list[Finding]:
    """Return all findings for a pack's JSON, unordered and without positions."""
    return [finding for check in _CHECKS for finding in check(data)]


def check_strictly(file: PackFile) -> Findings:
    """Return the warnings; raise ``PackValidationError`` with all findings if there are errors."""
    findings = findings_of(file)
    if findings.errors:
        lines = "\n".join(findings.lines())
        raise PackValidationError(f"{file.where} is not a valid pack: {findings.counts}.\n{lines}", findings=findings)
    return findings


def _placed(findings: list[Finding], file: PackFile) -> list[Finding]:
    """Return the findings in file order, with line and column if there is a file."""
    if not findings:
        return []
    text = file.text or json.dumps(file.data)
    places = positions_of(text, (finding.pointer for finding in findings))
    ordered = sorted(findings, key=lambda finding: places[finding.pointer].offset)
    if not file.text:
        return ordered
    return [replace(each, line=places[each.pointer].line, column=places[each.pointer].column) for each in ordered]


_UNREPAIRABLE = {"PP206", "PP304"}  # placeholders: only the author knows what they mean
_ROUNDS = 12  # after these, whole sections are moved, so that it ends
_ENGINE = {"version": "v1", "syntax": "{{variable}}"}


def upgraded(data: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the pack without errors, with the extras in its metadata; only templates may need an author.

    >>> pack = upgraded({"id": "a", "name": "A", "version": "1.0.0", "prompts": {"chat": {"id": "chat", "name": "Chat",
    ...                  "version": "1.0.0", "system_template": "Hi", "parameters": {"temperature": 7}}}}, {})
    >>> pack["metadata"]
    {'x_extras': {'/prompts/chat/parameters/temperature': 7}}
    """
    pack: dict[str, Any] = json_copy(data, "pack")
    kept = dict(extras)
    for tried in range(2 * _ROUNDS):
        found = _all_findings(pack)
        errors = [each for each in found if each.severity == "error" and each.code not in _UNREPAIRABLE]
        if not errors:
            break
        _repair(pack, errors, kept, whole_sections=tried >= _ROUNDS)
    _move_ambiguous_media(pack, kept)
    _make_fragments_explicit(pack)
    if kept:
        metadata = pack.setdefault("metadata", {})
        previous = metadata.get(EXTRAS, {})
        metadata[EXTRAS] = kept if isinstance(previous, dict) else {**kept, f"/metadata/{EXTRAS}": previous}
    return pack


def _move_ambiguous_media(pack: dict[str, Any], kept: dict[str, Any]) -> None:
    """Move settings of other media kinds that look like those of a known kind: PromptKit's schema refuses them."""
    known = definition("media")["properties"]
    closed = [set(known[kind]["properties"]) for kind in ("image", "audio", "video", "document")]
    for name, prompt in objects_in(pack["prompts"]):
        for kind, settings in list(objects_in(prompt.get("media"))):
            if kind not in known and any(settings.keys() <= keys for keys in closed):
                _move_out(pack, ("prompts", name, "media", kind), kept)


def _make_fragments_explicit(pack: dict[str, Any]) -> None:
    """Write references to fragments as ``{{fragments.NAME}}``, unless the name is a variable of some prompt too."""
    prompts = [prompt for _, prompt in objects_in(pack["prompts"])]
    variables = {variable["name"] for prompt in prompts for _, variable in object_items(prompt.get("variables"))}
    plain = pack.get("fragments", {}).keys() - variables - WELL_KNOWN

    def explicit(placeholder: re.Match[str]) -> str:
        name = name_in(placeholder)
        if name in plain:
            return f"{{{{{FRAGMENTS}{name}}}}}"
        return f"{{{{{name}}}}}" if name.startswith(FRAGMENTS) else placeholder[0]

    change_templates(pack, lambda text: PLACEHOLDER.sub(explicit, text))


def _repair(pack: dict[str, Any], errors: Iterable[Finding], kept: dict[str, Any], *, whole_sections: bool) -> None:
    """Add missing keys and move other errors to the extras, last first, so that indices stay valid."""
    places: set[tuple[str, ...]] = set()
    for finding in errors:
        keys = tuple(keys_of(finding.pointer))
        if finding.code == "PP101" and _make_up(pack, keys, finding.expected):
            continue
        places.add(keys[: 3 if keys[0] == "prompts" else 1] if whole_sections else keys)
    for keys in sorted(places, key=_order, reverse=True):
        _move_out(pack, keys, kept)


def _make_up(pack: dict[str, Any], keys: tuple[str, ...], missing: str) -> bool:
    """Add a missing key to the pack, its template engine, a prompt or a state; return whether it applied."""
    if missing == "on_event":
        states: dict[str, Any] = pack["workflow"]["states"]
        states[keys[2]]["on_event"] = {}
        return True
    is_prompt = len(keys) == 2 and keys[0] == "prompts"  # noqa: PLR2004 - and its name
    if keys and not is_prompt and keys != ("template_engine",):
        return False
    holder: dict[str, Any] = pack
    for key in keys:
        holder = holder[key]
    name = keys[1] if is_prompt else str(pack.get("name") or "pack")
    slug = slug_of(name, also="_" if is_prompt else "")
    generated = {"id": slug, "name": name[:200] or "prompt", "version": "1.0.0", "template_engine": dict(_ENGINE)}
    holder[missing] = (_ENGINE if keys == ("template_engine",) else generated)[missing]
    return True


def _order(keys: tuple[str, ...]) -> tuple[tuple[bool, int, str], ...]:
    """Return a sort key that compares indices as numbers."""
    return tuple((key.isdecimal(), int(key) if key.isdecimal() else 0, key) for key in keys)


def _move_out(pack: dict[str, Any], keys: tuple[str, ...], kept: dict[str, Any]) -> None:
    holder: Any = pack
    for key in keys[:-1]:
        holder = holder[int(key)] if isinstance(holder, list) else holder[key]
    value = holder.pop(int(keys[-1]) if isinstance(holder, list) else keys[-1])
    kept[free_name(pointer_to("", *keys), kept)] = value
