"""Tolerant loading: convert older dialects to PromptPack 1.5 and fill in what is missing.

Each change adds one warning, which begins with a JSON pointer into the original pack. Values that the format has no key
for move to ``extras``, keyed by their pointer, so nothing is lost.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.findings import Finding, Findings, shown_value
from promptkit_nb.packs.names import (
    CHECKS,
    EXTRAS,
    PARAMS_OF_VALIDATOR,
    STOP_SEQUENCES,
    UNSUPPORTED_KEYS,
    free_name,
    full_version,
    slug_of,
    type_of,
)
from promptkit_nb.packs.schema import definition, object_items, objects_in, pointer_to, texts_in
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SYNTAXES = "'{{variable}}', '${variable}' or '{variable}'"
_ENGINE = {"version": "v1", "syntax": "{{variable}}"}
_SYNTAX = re.compile(r"\s*(\{\{|\$\{|\{)\s*[A-Za-z_][\w.-]*\s*(\}\}|\})\s*")
_TEMPLATES = ("system_template", "system_template_prefix", "system_template_suffix")
# What to rewrite in the other syntaxes. Dollar braces that are not a name become unsupported double braces.
_REWRITES = {
    "{": re.compile(r"(?<![{$])\{((?:fragment:)?[A-Za-z_][\w.-]*)\}(?!\})"),
    "${": re.compile(r"\$\{((?:(?!\$\{|\}).)*)\}", re.DOTALL),
}


@dataclass(slots=True)
class LoadContext:
    """A pack being loaded; ``data`` is modified in place."""

    data: dict[str, Any]
    where: str
    stem: str = ""
    warnings: list[str] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)

    def warn(self, pointer: str, message: str) -> None:
        """Record a change."""
        self.warnings.append(f"{pointer}: {message}")

    def move_out(self, parent: dict[str, Any], key: str, pointer: str, message: str) -> None:
        """Move a key from its object to the extras."""
        place = pointer_to(pointer, key)
        self.keep(place, parent.pop(key))
        self.warn(place, message)

    def keep(self, pointer: str, value: object) -> None:
        """Add a value to the extras, without replacing an earlier one."""
        self.extras[free_name(pointer, self.extras)] = value

    def keep_previous_extras(self) -> None:
        """Read the extras that an earlier upgrade wrote."""
        metadata = self.data.get("metadata")
        previous = metadata.get(EXTRAS) if isinstance(metadata, dict) else None
        if isinstance(previous, dict):
            self.extras.update(previous)

    def refuse(self, pointer: str, problem: str, code: str = "PP102") -> PackValidationError:
        """Return the error for a pack that cannot be loaded."""
        place = f"at {pointer}" if pointer else "at the top"
        findings = Findings([Finding(code, "error", pointer, problem)], self.where)
        return PackValidationError(f"{self.where} is not a valid pack: {place}, {problem}.", findings=findings)


def normalize_dialect(context: LoadContext) -> None:
    """Rename, complete and move keys; values of the wrong type are left for ``check_pack`` to report.

    >>> context = LoadContext({"id": "a", "prompts": {"chat": {"system_prompt": "You help."}}}, "The pack")
    >>> normalize_dialect(context)
    >>> context.data["prompts"]["chat"]["system_template"], context.warnings[-1]
    ('You help.', "/prompts/chat/version: missing; read as '1.0.0'")
    """
    data = context.data
    context.keep_previous_extras()
    _read_pack_version(context, data)
    if "version" in data:
        _complete_version(context, data, "")
    _fill(context, data, "", _missing_of_pack(data, context.stem))
    for key in UNSUPPORTED_KEYS:
        if key in data:
            context.move_out(data, key, "", "kept, but not applied")
    for key, prompt in objects_in(data.get("prompts")):
        _read_prompt(context, key, prompt, pointer_to("/prompts", key))
    for index, skill in object_items(data.get("skills")):
        _rename(context, skill, "dir", "path", pointer_to("/skills", index))


def read_syntax(context: LoadContext) -> None:
    """Rewrite placeholders in another syntax of the schema as ``{{name}}``; raise for a syntax that is not one."""
    syntax = context.data["template_engine"].get("syntax", "{{variable}}")
    if opening_of(syntax) is None:
        raise context.refuse("/template_engine/syntax", f"expected {SYNTAXES}, found {shown_value(syntax)}", "PP305")
    rewritten = with_double_braces(context.data)
    if rewritten is not context.data:
        context.data = rewritten
        context.warn("/template_engine/syntax", f"{shown_value(syntax)}; placeholders read as '{{{{variable}}}}'")


def opening_of(syntax: str) -> str | None:
    """Return the opening braces of a template syntax; ``None`` if it is not one of ``SYNTAXES``.

    >>> opening_of("{{variable}}"), opening_of("${name}"), opening_of("jinja2")
    ('{{', '${', None)
    """
    found = _SYNTAX.fullmatch(syntax)
    return found[1] if found and (found[1] == "{{") == (found[2] == "}}") else None


def with_double_braces(data: dict[str, Any]) -> dict[str, Any]:
    """Return the pack, if needed as a copy, with placeholders in double braces.

    >>> pack = {"template_engine": {"syntax": "${variable}"}, "fragments": {"hello": "Hello ${name}!"}}
    >>> with_double_braces(pack)["fragments"]
    {'hello': 'Hello {{name}}!'}
    """
    engine = data.get("template_engine")
    syntax = engine.get("syntax") if isinstance(engine, dict) else None
    pattern = _REWRITES.get(opening_of(syntax) or "") if isinstance(syntax, str) else None
    if pattern is None:
        return data
    copied = deepcopy(data)
    copied["template_engine"]["syntax"] = _ENGINE["syntax"]

    def rewrite(text: str) -> str:
        count = 1
        while count:  # the outer braces of nested ones come next
            text, count = pattern.subn(r"{{\1}}", text)
        return text

    change_templates(copied, rewrite)
    return copied


def change_templates(data: dict[str, Any], change: Callable[[str], str]) -> None:
    """Change all templates, fragments and default texts of a pack in place."""
    fragments = data.get("fragments")
    for name, text in list(texts_in(fragments)):
        data["fragments"][name] = change(text)
    for _, prompt in objects_in(data.get("prompts")):
        overrides = [override for _, override in objects_in(prompt.get("model_overrides"))]
        for holder in (prompt, *overrides):
            holder.update({key: change(text) for key, text in texts_in(holder) if key in _TEMPLATES})
        for _, variable in object_items(prompt.get("variables")):
            if isinstance(variable.get("default"), str):
                variable["default"] = change(variable["default"])


def templates_in(prompt: Mapping[str, Any], pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield pointers and texts of a prompt's templates."""
    for key, text in texts_in(prompt):
        if key in _TEMPLATES:
            yield pointer_to(pointer, key), text
    for model, override in objects_in(prompt.get("model_overrides")):
        for key, text in texts_in(override):
            if key in _TEMPLATES:
                yield pointer_to(pointer, "model_overrides", model, key), text


def _read_pack_version(context: LoadContext, data: dict[str, Any]) -> None:
    """Read the pack's version from the metadata of the older dialect, whose ``version`` is that of the dialect."""
    metadata, version = data.get("metadata"), data.get("version")
    own = full_version(metadata.get("pack_version")) if isinstance(metadata, dict) else None
    if own is not None and (version is None or full_version(version) not in {None, version}):
        data["version"] = own
        context.warn("/metadata/pack_version", f"read as 'version' {own!r}, instead of {shown_value(version)}")


def _missing_of_pack(data: Mapping[str, Any], stem: str) -> dict[str, object]:
    metadata = data.get("metadata")
    named = metadata.get("name") if isinstance(metadata, dict) else None
    name = next((str(text) for text in (data.get("name"), named, data.get("id"), stem) if _is_text(text)), "pack")
    return {"id": slug_of(name), "name": name[:200], "version": "1.0.0", "template_engine": dict(_ENGINE)}


def _read_prompt(context: LoadContext, key: str, prompt: dict[str, Any], pointer: str) -> None:
    for older in ("system_prompt", "system"):
        _rename_template(context, prompt, older, pointer)
    _rename(context, prompt, "available_tools", "tools", pointer)
    _move_stop_sequences(context, prompt, pointer)
    _read_model_config(context, prompt, pointer)
    _read_variables(context, prompt, pointer)
    _read_validators(context, prompt, pointer)
    for unknown in UNSUPPORTED_KEYS:
        if unknown in prompt:
            context.move_out(prompt, unknown, pointer, "kept, but not applied")
    if "version" in prompt:
        _complete_version(context, prompt, pointer)
    version = context.data["version"] if _is_text(context.data.get("version")) else "1.0.0"
    _fill(context, prompt, pointer, {"id": slug_of(key, also="_"), "name": key or "prompt", "version": version})


def _fill(context: LoadContext, holder: dict[str, Any], pointer: str, values: Mapping[str, object]) -> None:
    """Set missing keys; null counts as missing."""
    for key, value in values.items():
        if holder.get(key) is None:
            holder[key] = value
            shown = json.dumps(value) if isinstance(value, dict) else shown_value(value)
            context.warn(pointer_to(pointer, key), f"missing; read as {shown}")


def _complete_version(context: LoadContext, holder: dict[str, Any], pointer: str) -> None:
    """Convert 1, 1.5 and ``"1.0"`` to semantic versions."""
    written = holder["version"]
    full = full_version(written)
    if full is not None and full != written:
        holder["version"] = full
        context.warn(pointer_to(pointer, "version"), f"{shown_value(written)} read as {full!r}")


def _rename_template(context: LoadContext, prompt: dict[str, Any], older: str, pointer: str) -> None:
    given, template = prompt.get(older), prompt.get("system_template")
    if _is_text(given) and _is_text(template) and given != template:
        raise context.refuse(pointer, f"{older!r} and 'system_template' differ: keep one of them, as 'system_template'")
    _rename(context, prompt, older, "system_template", pointer)


def _rename(context: LoadContext, holder: dict[str, Any], older: str, name: str, pointer: str) -> bool:
    """Rename a key; if the new name is present too, move the old one to the extras."""
    if older not in holder:
        return False
    if holder.get(name) is None:
        holder[name] = holder.pop(older)
        context.warn(pointer_to(pointer, older), f"read as {name!r}")
        return True
    if holder[name] == holder[older]:
        del holder[older]
        context.warn(pointer_to(pointer, older), f"same as {name!r}, dropped")
    else:
        context.move_out(holder, older, pointer, f"kept, but not applied, because {name!r} is present")
    return False


def _read_model_config(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    """Rename ``model_config`` to ``parameters``; unknown parameters move to the extras."""
    if not _rename(context, prompt, "model_config", "parameters", pointer):
        return
    parameters = prompt["parameters"]
    if not isinstance(parameters, dict):
        return
    known = definition("parameters")["properties"]
    for key in [key for key in parameters if key not in known]:
        context.move_out(parameters, key, pointer_to(pointer, "model_config"), "kept, but not applied")


def _move_stop_sequences(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    for key in ("parameters", "model_config"):
        parameters = prompt.get(key)
        if isinstance(parameters, dict) and STOP_SEQUENCES in parameters:
            message = "not in the format; kept, and sent with the request as 'stop'"
            context.move_out(parameters, STOP_SEQUENCES, pointer_to(pointer, key), message)


def _read_variables(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    place = pointer_to(pointer, "variables")
    variables = prompt.get("variables")
    if isinstance(variables, dict) and all(isinstance(variable, dict) for variable in variables.values()):
        prompt["variables"] = variables = [{"name": name} | variable for name, variable in variables.items()]
        context.warn(place, "an object, read as an array of named variables")
    _add_template_vars(context, prompt, pointer)
    variables = prompt.get("variables")
    for index, variable in enumerate(variables if isinstance(variables, list) else ()):
        if isinstance(variable, dict) and _is_text(variable.get("name")):
            _read_variable(context, variable, pointer_to(place, index))


def _read_variable(context: LoadContext, variable: dict[str, Any], pointer: str) -> None:
    types = definition("variable")["properties"]["type"]["enum"]
    kind = variable.get("type")
    if isinstance(kind, str) and kind not in types:
        near = did_you_mean(near_names(kind, types))
        context.move_out(variable, "type", pointer, f"{shown_value(kind)} is not one of {', '.join(types)}{near}")
    _fill(context, variable, pointer, {"type": type_of(variable.get("default")), "required": False})


def _add_template_vars(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    """Declare ``template_vars`` as optional variables with these defaults."""
    given, declared = prompt.get("template_vars"), prompt.get("variables") or []
    if not isinstance(given, dict) or not isinstance(declared, list):
        return
    names = {variable.get("name") for variable in declared if isinstance(variable, dict)}
    added = [
        {"name": name, "type": type_of(value), "required": False, "default": value}
        for name, value in given.items()
        if name not in names and value is not None
    ]
    prompt["variables"] = [*declared, *added]
    del prompt["template_vars"]
    context.warn(pointer_to(pointer, "template_vars"), "read as 'variables' with these defaults")
    kept = {name: value for name, value in given.items() if name in names}
    if kept:
        context.keep(pointer_to(pointer, "template_vars"), kept)


def _read_validators(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    validators = prompt.get("validators")
    if not isinstance(validators, list):
        return
    read: list[object] = []
    for index, validator in enumerate(validators):
        place = pointer_to(pointer, "validators", index)
        if isinstance(validator, str):
            read += _validators_named(context, validator, place)
            continue
        if isinstance(validator, dict):
            _read_validator(context, validator, place)
        read.append(validator)
    prompt["validators"] = read


def _validators_named(context: LoadContext, name: str, pointer: str) -> list[object]:
    if name in CHECKS:
        context.warn(pointer, f"{name!r} read as an enabled validator of this type")
        return [{"type": name, "enabled": True}]
    context.keep(pointer, name)
    near = did_you_mean(near_names(name, CHECKS))
    context.warn(pointer, f"there is no validator {shown_value(name)}: kept, but not applied{near}")
    return []


def _read_validator(context: LoadContext, validator: dict[str, Any], pointer: str) -> None:
    _rename(context, validator, "config", "params", pointer)
    for key in PARAMS_OF_VALIDATOR:
        params = validator.get("params") or {}
        if key in validator and isinstance(params, dict) and key not in params:
            validator["params"] = {**params, key: validator.pop(key)}
            context.warn(pointer_to(pointer, key), "moved into 'params'")
    _fill(context, validator, pointer, {"enabled": True})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
