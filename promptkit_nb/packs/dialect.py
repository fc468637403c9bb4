"""Reading what is not quite PromptPack 1.5 as what it means: the older documentation's dialect, and what is left out.

Every change is one warning that begins with a JSON pointer into the pack as it was read. What has no place in the
format is moved out, into ``extras`` by its pointer, so that nothing is lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.findings import Finding, Findings, shown_value
from promptkit_nb.packs.names import (
    CHECKS,
    EXTRAS,
    PARAMS_OF_VALIDATOR,
    STOP_SEQUENCES,
    WITHOUT_SUCCESSOR,
    free_name,
    full_version,
    slug_of,
    type_of,
)
from promptkit_nb.packs.schema import definition, pointer_to
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENGINE = {"version": "v1", "syntax": "{{variable}}"}


@dataclass(slots=True)
class Reading:
    """A pack on its way to the format: ``data`` is changed in place."""

    data: dict[str, Any]
    where: str
    stem: str = ""
    warnings: list[str] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)

    def warn(self, pointer: str, message: str) -> None:
        """Record a change."""
        self.warnings.append(f"{pointer}: {message}")

    def move_out(self, parent: dict[str, Any], key: str, pointer: str, message: str) -> None:
        """Take a key out of its object, and keep what it holds."""
        place = pointer_to(pointer, key)
        self.keep(place, parent.pop(key))
        self.warn(place, message)

    def keep(self, pointer: str, value: object) -> None:
        """Keep what has no place in the format, beside what was kept before."""
        self.extras[free_name(pointer, self.extras)] = value

    def keep_former_extras(self) -> None:
        """Take up what an upgrade moved out before."""
        metadata = self.data.get("metadata")
        former = metadata.get(EXTRAS) if isinstance(metadata, dict) else None
        if isinstance(former, dict):
            self.extras.update(former)

    def refuse(self, pointer: str, problem: str, code: str = "PP102") -> PackValidationError:
        """Return the error for what cannot be read at all."""
        place = f"at {pointer}" if pointer else "at the top"
        findings = Findings([Finding(code, "error", pointer, problem)], self.where)
        return PackValidationError(f"{self.where} is no valid pack: {place}, {problem}.", findings=findings)


def read_dialect(reading: Reading) -> None:
    """Rename, complete and move out; leave alone what is of the wrong kind, which the check of shapes refuses.

    >>> reading = Reading({"id": "a", "prompts": {"chat": {"system_prompt": "You help."}}}, "The pack")
    >>> read_dialect(reading)
    >>> reading.data["prompts"]["chat"]["system_template"], reading.warnings[-1]
    ('You help.', "/prompts/chat/version: missing; read as '1.0.0'")
    """
    data = reading.data
    reading.keep_former_extras()
    if "version" in data:
        _complete_version(reading, data, "")
    _fill(reading, data, "", _missing_of_pack(data, reading.stem))
    for key in WITHOUT_SUCCESSOR:
        if key in data:
            reading.move_out(data, key, "", "kept, but not applied")
    prompts = data.get("prompts")
    for key, prompt in prompts.items() if isinstance(prompts, dict) else ():
        if isinstance(prompt, dict):
            _read_prompt(reading, key, prompt, pointer_to("/prompts", key))


def _missing_of_pack(data: Mapping[str, Any], stem: str) -> dict[str, object]:
    metadata = data.get("metadata")
    named = metadata.get("name") if isinstance(metadata, dict) else None
    name = next((str(text) for text in (data.get("name"), named, data.get("id"), stem) if _is_text(text)), "pack")
    return {"id": slug_of(name), "name": name[:200], "version": "1.0.0", "template_engine": dict(_ENGINE)}


def _read_prompt(reading: Reading, key: str, prompt: dict[str, Any], pointer: str) -> None:
    for older in ("system_prompt", "system"):
        _rename_template(reading, prompt, older, pointer)
    _rename(reading, prompt, "available_tools", "tools", pointer)
    _move_stop_sequences(reading, prompt, pointer)
    _read_model_config(reading, prompt, pointer)
    _read_variables(reading, prompt, pointer)
    _read_validators(reading, prompt, pointer)
    for unknown in WITHOUT_SUCCESSOR:
        if unknown in prompt:
            reading.move_out(prompt, unknown, pointer, "kept, but not applied")
    if "version" in prompt:
        _complete_version(reading, prompt, pointer)
    version = reading.data["version"] if _is_text(reading.data.get("version")) else "1.0.0"
    _fill(reading, prompt, pointer, {"id": slug_of(key, also="_"), "name": key or "prompt", "version": version})


def _fill(reading: Reading, holder: dict[str, Any], pointer: str, values: Mapping[str, object]) -> None:
    """Put values where there is nothing; null is nothing."""
    for key, value in values.items():
        if holder.get(key) is None:
            holder[key] = value
            shown = json.dumps(value) if isinstance(value, dict) else shown_value(value)
            reading.warn(pointer_to(pointer, key), f"missing; read as {shown}")


def _complete_version(reading: Reading, holder: dict[str, Any], pointer: str) -> None:
    """Read 1, 1.5 and ``"1.0"`` as semantic versions."""
    written = holder["version"]
    full = full_version(written)
    if full is not None and full != written:
        holder["version"] = full
        reading.warn(pointer_to(pointer, "version"), f"{shown_value(written)} read as {full!r}")


def _rename_template(reading: Reading, prompt: dict[str, Any], older: str, pointer: str) -> None:
    given, template = prompt.get(older), prompt.get("system_template")
    if _is_text(given) and _is_text(template) and given != template:
        raise reading.refuse(
            pointer, f"{older!r} and 'system_template' say different things: keep one, as 'system_template'"
        )
    _rename(reading, prompt, older, "system_template", pointer)


def _rename(reading: Reading, holder: dict[str, Any], older: str, name: str, pointer: str) -> bool:
    """Give a key its name of today; where that is there too, keep the older one aside."""
    if older not in holder:
        return False
    if holder.get(name) is None:
        holder[name] = holder.pop(older)
        reading.warn(pointer_to(pointer, older), f"read as {name!r}")
        return True
    if holder[name] == holder[older]:
        del holder[older]
        reading.warn(pointer_to(pointer, older), f"says the same as {name!r}, and left out")
    else:
        reading.move_out(holder, older, pointer, f"kept, but not applied, since there is {name!r}")
    return False


def _read_model_config(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    """Read ``model_config`` as ``parameters``; what those lack is kept aside."""
    if not _rename(reading, prompt, "model_config", "parameters", pointer):
        return
    parameters = prompt["parameters"]
    if not isinstance(parameters, dict):
        return
    known = definition("parameters")["properties"]
    for key in [key for key in parameters if key not in known]:
        reading.move_out(parameters, key, pointer_to(pointer, "model_config"), "kept, but not applied")


def _move_stop_sequences(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    for key in ("parameters", "model_config"):
        parameters = prompt.get(key)
        if isinstance(parameters, dict) and STOP_SEQUENCES in parameters:
            message = "not in the format; kept, and sent with the request as 'stop'"
            reading.move_out(parameters, STOP_SEQUENCES, pointer_to(pointer, key), message)


def _read_variables(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    place = pointer_to(pointer, "variables")
    variables = prompt.get("variables")
    if isinstance(variables, dict) and all(isinstance(variable, dict) for variable in variables.values()):
        prompt["variables"] = variables = [{"name": name} | variable for name, variable in variables.items()]
        reading.warn(place, "an object, read as an array of variables with names")
    _add_template_vars(reading, prompt, pointer)
    variables = prompt.get("variables")
    for index, variable in enumerate(variables if isinstance(variables, list) else ()):
        if isinstance(variable, dict) and _is_text(variable.get("name")):
            _read_variable(reading, variable, pointer_to(place, index))


def _read_variable(reading: Reading, variable: dict[str, Any], pointer: str) -> None:
    types = definition("variable")["properties"]["type"]["enum"]
    kind = variable.get("type")
    if isinstance(kind, str) and kind not in types:
        near = did_you_mean(near_names(kind, types))
        reading.move_out(variable, "type", pointer, f"{shown_value(kind)} is none of {', '.join(types)}{near}")
    _fill(reading, variable, pointer, {"type": type_of(variable.get("default")), "required": False})


def _add_template_vars(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    """Declare what ``template_vars`` gives as optional variables with these defaults."""
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
    reading.warn(pointer_to(pointer, "template_vars"), "read as 'variables' with these defaults")
    kept = {name: value for name, value in given.items() if name in names}
    if kept:
        reading.keep(pointer_to(pointer, "template_vars"), kept)


def _read_validators(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    validators = prompt.get("validators")
    if not isinstance(validators, list):
        return
    read: list[object] = []
    for index, validator in enumerate(validators):
        place = pointer_to(pointer, "validators", index)
        if isinstance(validator, str):
            read += _validators_named(reading, validator, place)
            continue
        if isinstance(validator, dict):
            _read_validator(reading, validator, place)
        read.append(validator)
    prompt["validators"] = read


def _validators_named(reading: Reading, name: str, pointer: str) -> list[object]:
    if name in CHECKS:
        reading.warn(pointer, f"{name!r} read as an enabled validator of this type")
        return [{"type": name, "enabled": True}]
    reading.keep(pointer, name)
    near = did_you_mean(near_names(name, CHECKS))
    reading.warn(pointer, f"there is no validator {shown_value(name)}: kept, but not applied{near}")
    return []


def _read_validator(reading: Reading, validator: dict[str, Any], pointer: str) -> None:
    _rename(reading, validator, "config", "params", pointer)
    for key in PARAMS_OF_VALIDATOR:
        params = validator.get("params") or {}
        if key in validator and isinstance(params, dict) and key not in params:
            validator["params"] = {**params, key: validator.pop(key)}
            reading.warn(pointer_to(pointer, key), "read as one of 'params'")
    _fill(reading, validator, pointer, {"enabled": True})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
