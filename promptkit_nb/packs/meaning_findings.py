"""Semantic checks: templates, variables, validators and evals that match the schema and still cannot work."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.dialect import SYNTAXES, opening_of, templates_in, with_double_braces
from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.names import CHECK_ALIASES, CHECKS, OLDER_CHECKS
from promptkit_nb.packs.patterns import problem_of
from promptkit_nb.packs.reference_findings import error_at, warning_at
from promptkit_nb.packs.schema import object_items, objects_in, pointer_to, texts_in
from promptkit_nb.packs.templates import (
    FRAGMENTS,
    PLACEHOLDER,
    TIME_NAMES,
    Lines,
    fragment_texts,
    name_in,
    placeholders_in,
    reachable,
    unsupported_in,
)
from promptkit_nb.packs.variables import VARIABLE_TYPES, Variable
from promptkit_nb.text.near_names import Suggestions, near_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Set by the runtime, without a declaration.
WELL_KNOWN = frozenset({"input", "workflow_context", *TIME_NAMES})


def template_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield findings about the templates, fragments and default texts of a pack.

    >>> pack = {"prompts": {"a": {"system_template": "{{topc}}", "variables": [{"name": "topic"}]}}}
    >>> [finding.text for finding in template_findings(pack)][0]
    "{{topc}} at line 1, column 1 is not declared; did you mean 'topic'?"
    """
    data = with_double_braces(data)
    checker = _TemplateChecker(dict(texts_in(data.get("fragments"))))
    for key, prompt in objects_in(data.get("prompts")):
        yield from checker.prompt_findings(prompt, pointer_to("/prompts", key))
    for key, text in checker.fragments.items():
        yield from _unsupported_findings(text, pointer_to("/fragments", key))


class _TemplateChecker:
    """Checks templates; remembers what it reported about fragments, which prompts share."""

    def __init__(self, fragments: dict[str, str]) -> None:
        self.fragments = fragments
        self._fragment_texts = fragment_texts(fragments)
        self._suggestions = Suggestions()
        self._reported: set[tuple[str, str]] = set()

    def prompt_findings(self, prompt: dict[str, Any], pointer: str) -> Iterator[Finding]:
        """Yield findings about one prompt, and about the fragments and defaults that it uses."""
        declared = {
            variable["name"]: (pointer_to(pointer, "variables", index), variable.get("default"))
            for index, variable in object_items(prompt.get("variables"))
            if isinstance(variable.get("name"), str)
        }
        defaults = {name: default for name, (_, default) in declared.items() if isinstance(default, str)}
        templates = dict(templates_in(prompt, pointer))
        for place, text in templates.items():
            yield from self._placeholder_findings(text, place, declared)
            yield from _unsupported_findings(text, place)
        texts = ChainMap(self._fragment_texts, defaults)
        used = set(chain.from_iterable(map(placeholders_in, templates.values())))
        for name in sorted(reachable(templates.values(), texts)):
            used |= placeholders_in(texts[name])
            if name in self._fragment_texts:
                place = pointer_to("/fragments", name.removeprefix(FRAGMENTS))
            else:
                place = pointer_to(declared[name][0], "default")
                yield from _unsupported_findings(texts[name], place)
            yield from self._placeholder_findings(texts[name], place, declared)
        for name, (place, _) in declared.items() if templates else ():
            if name not in used:
                yield warning_at("PP401", place, f"variable {name!r} is not used in any template")

    def _placeholder_findings(self, text: str, pointer: str, declared: Mapping[str, object]) -> Iterator[Finding]:
        lines = Lines(text)
        for found in PLACEHOLDER.finditer(text):
            name = name_in(found)
            if name in declared or name in self._fragment_texts or name in WELL_KNOWN or name.startswith("artifacts."):
                continue
            if (pointer, name) in self._reported:
                continue
            self._reported.add((pointer, name))
            place = "{} at line {}, column {}".format(found[0], *lines.place_of(found.start()))
            if name.startswith(FRAGMENTS):
                near = self._suggestions.near(name.removeprefix(FRAGMENTS), self.fragments)
                message = f"{place} is not among the pack's fragments"
                yield error_at("PP206", pointer, message, value=found[0], suggestions=near)
            else:
                near = self._suggestions.near(name, chain(declared, self.fragments, WELL_KNOWN))
                yield warning_at("PP400", pointer, f"{place} is not declared", value=found[0], suggestions=near)


def _unsupported_findings(text: str, pointer: str) -> Iterator[Finding]:
    for found in unsupported_in(text) if "{{" in text else ():
        hint = "write the text out, or declare a variable for it"
        yield error_at("PP304", pointer, str(found), value=shown_value(found.text), hint=hint)


_UNSUPPORTED_FEATURES = {"conditionals", "loops", "filters"}
# Checks that need one of these params.
_NEEDED_PARAMS = {
    "max_length": ("max", "max_characters", "max_chars", "max_tokens"),
    "min_length": ("min", "min_characters", "min_chars"),
    "regex": ("pattern", "patterns"),
}
_DIRECTIONS = ("input", "output", "both")


def meaning_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield findings about variables, validators, evals and the template engine.

    >>> pack = {"prompts": {"a": {"variables": [{"name": "n", "type": "number", "default": "many"}]}}}
    >>> [finding.code for finding in meaning_findings(pack)]
    ['PP302']
    """
    engine = data.get("template_engine")
    engine = engine if isinstance(engine, dict) else {}
    syntax, features = engine.get("syntax"), engine.get("features")
    if isinstance(syntax, str) and opening_of(syntax) is None:
        message = f"expected {SYNTAXES}, found {shown_value(syntax)}"
        yield error_at("PP305", "/template_engine/syntax", message, value=shown_value(syntax), expected=SYNTAXES)
    for index, feature in enumerate(features if isinstance(features, list) else ()):
        if isinstance(feature, str) and feature in _UNSUPPORTED_FEATURES:
            yield warning_at(
                "PP406", pointer_to("/template_engine/features", index), f"{feature!r} is not supported here"
            )
    for key, prompt in objects_in(data.get("prompts")):
        pointer = pointer_to("/prompts", key)
        yield from _variable_findings(prompt, pointer_to(pointer, "variables"))
        for index, validator in object_items(prompt.get("validators")):
            yield from _validator_findings(validator, pointer_to(pointer, "validators", index))
        yield from _eval_findings(prompt.get("evals"), pointer_to(pointer, "evals"))
    yield from _eval_findings(data.get("evals"), "/evals")


def _variable_findings(prompt: dict[str, Any], pointer: str) -> Iterator[Finding]:
    names: set[str] = set()
    for index, variable in object_items(prompt.get("variables")):
        place = pointer_to(pointer, index)
        name = variable.get("name")
        if isinstance(name, str):
            if name in names:
                yield warning_at("PP402", pointer_to(place, "name"), f"variable {name!r} is declared twice")
            names.add(name)
        default = variable.get("default")
        if variable.get("required") is True and default is not None:
            message = f"{shown_value(name)} is required and has a default, so it is never missing"
            yield warning_at("PP403", pointer_to(place, "default"), message)
        yield from _validation_findings(variable, place)


def _validation_findings(variable: dict[str, Any], pointer: str) -> Iterator[Finding]:
    """Yield invalid patterns, contradictory rules, and a default that breaks its type or rules."""
    rules = variable.get("validation")
    rules = {key: rule for key, rule in rules.items() if rule is not None} if isinstance(rules, dict) else {}
    pattern = rules.get("pattern")
    if isinstance(pattern, str) and (problem := problem_of(pattern)):
        place = pointer_to(pointer, "validation", "pattern")
        message = f"{shown_value(pattern)} is not a regular expression: {problem}"
        yield error_at("PP301", place, message, value=shown_value(pattern), expected="a regular expression")
        return
    for low, high in (("min_length", "max_length"), ("minimum", "maximum")):
        if _is_number(rules.get(low)) and _is_number(rules.get(high)) and rules[low] > rules[high]:
            place = pointer_to(pointer, "validation", low)
            yield warning_at("PP407", place, f"{rules[low]} is more than {high!r}, {rules[high]}: no value is valid")
    default, kind = variable.get("default"), variable.get("type")
    if default is None or (kind is not None and kind not in VARIABLE_TYPES):
        return
    if isinstance(default, str) and "{{" in default:
        rules = {}  # the rules apply to the rendered value
    try:
        Variable(str(variable.get("name")), kind, validation=rules).check(default)
    except (PackValidationError, TypeError) as error:
        message = f"the default breaks the variable's rules: {error}"
        yield error_at("PP302", pointer_to(pointer, "default"), message, value=shown_value(default))


def _validator_findings(validator: dict[str, Any], pointer: str) -> Iterator[Finding]:
    kind = validator.get("type")
    if validator.get("enabled") is False:
        yield warning_at("PP408", pointer, f"the validator {shown_value(kind)} is disabled")
        return
    if not isinstance(kind, str) or not kind:
        return
    place = pointer_to(pointer, "type")
    if kind not in CHECKS:
        yield _unknown_check("validator", kind, place)
        return
    check, params = CHECK_ALIASES.get(kind, kind), validator.get("params")
    if params is None and check in _NEEDED_PARAMS:
        yield warning_at("PP409", pointer, f"{kind!r} has no effect without params", expected="params")
    if isinstance(params, dict):
        yield from _param_findings(check, kind, params, pointer_to(pointer, "params"))
        yield from _direction_findings(params.get("direction", "output"), pointer_to(pointer, "params", "direction"))


def _param_findings(check: str, kind: str, params: dict[str, Any], place: str) -> Iterator[Finding]:
    needed = _NEEDED_PARAMS.get(check)
    if needed is None:
        return
    given = next((name for name in needed if params.get(name) is not None), None)
    if given is None:
        meant = sorted({name for key in params for name in near_names(key, needed)})
        message = f"{kind!r} needs one of these params: {', '.join(map(repr, needed))}"
        yield error_at("PP303", place, message, expected=", ".join(needed), suggestions=tuple(meant[:3]))
    elif check != "regex":
        if not _is_number(params[given]) or params[given] < 1:
            message = f"expected a number of at least 1, found {shown_value(params[given])}"
            yield error_at("PP303", pointer_to(place, given), message, value=shown_value(params[given]))
    elif isinstance(params[given], str) and (problem := problem_of(params[given])):
        message = f"{shown_value(params[given])} is not a regular expression: {problem}"
        yield error_at("PP301", pointer_to(place, given), message, value=shown_value(params[given]))


def _direction_findings(direction: object, pointer: str) -> Iterator[Finding]:
    if direction not in _DIRECTIONS:
        message = f"expected one of {', '.join(_DIRECTIONS)}, found {shown_value(direction)}; read as 'output'"
        near = near_names(direction, _DIRECTIONS) if isinstance(direction, str) else ()
        yield warning_at("PP409", pointer, message, value=shown_value(direction), suggestions=near)


def _eval_findings(evals: object, pointer: str) -> Iterator[Finding]:
    for index, each in object_items(evals):
        kind = each.get("type")
        if isinstance(kind, str) and kind and kind not in CHECKS and each.get("enabled") is not False:
            finding = _unknown_check("eval", kind, pointer_to(pointer, index, "type"))
            # Runtimes register their own evals, so only a name that looks misspelled is an error.
            yield finding if finding.suggestions else replace(finding, code="PP410", severity="warning")


def _unknown_check(what: str, kind: str, pointer: str) -> Finding:
    near = (OLDER_CHECKS[kind],) if kind in OLDER_CHECKS else near_names(kind, CHECKS)
    message = f"there is no {what} {shown_value(kind)}"
    return error_at("PP202", pointer, message, value=shown_value(kind), suggestions=near)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
