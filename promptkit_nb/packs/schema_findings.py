"""Errors of the JSON schema as findings, with near matches and remedies."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.names import (
    CHECKS,
    KEYS_OF_RUNTIME,
    OLDER_NAMES,
    PARAMS_OF_VALIDATOR,
    UNSUPPORTED_KEYS,
    full_version,
)
from promptkit_nb.packs.schema import Node, node_at, parents_of_key, pointer_to, schema
from promptkit_nb.text.near_names import near_names
from promptkit_nb.text.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jsonschema_rs import Draft202012Validator, ValidationError


OLDER = "a name from older documentation"
_HINTS = {"on_event": "or set 'terminal' to true"}


def schema_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield all violations of the schema.

    >>> [str(finding) for finding in schema_findings({"id": "Mine"})][:2]
    ["PP101 error /: it needs 'name'", "PP101 error /: it needs 'version'"]
    """
    for error in _validator().iter_errors(data):
        yield from _findings_of(error)


@cache
def _validator() -> Draft202012Validator:
    from jsonschema_rs import Draft202012Validator  # noqa: PLC0415 - needed only for validation

    return Draft202012Validator(schema())


def _findings_of(error: ValidationError) -> Iterator[Finding]:
    said: dict[str, Any] = error.kind.as_dict()
    pointer = pointer_to("", *error.instance_path)
    node = node_at(error.schema_path[:-1])
    name = error.kind.name
    value: Any = error.instance
    if name == "required":
        yield _missing(said["property"], value, node, error.schema_path, pointer)
    elif name == "additionalProperties":
        for key in said["unexpected"]:
            yield _unknown(key, value[key], node, error.schema_path, pointer)
    else:
        code, expected = _EXPECTATIONS.get(name, _by_description)(said, node)
        yield _refused(code, value, expected, pointer, said.get("options", ()))


def _missing(key: str, holder: dict[str, Any], node: Node, schema_path: list[str | int], pointer: str) -> Finding:
    properties = node.get("properties") or node_at(schema_path[:2])["properties"]  # required by a condition
    near = near_names(key, [other for other in holder if other not in properties])
    older = [old for names in OLDER_NAMES.values() for old, new in names.items() if new == key and old in holder]
    hint = f"rename {[*older, *near][0]!r}" if older or near else _HINTS.get(key, "")
    return Finding("PP101", "error", pointer, f"it needs {key!r}", expected=key, hint=hint)


def _unknown(key: str, value: object, node: Node, schema_path: list[str | int], pointer: str) -> Finding:
    where = str(schema_path[1]) if schema_path[0] == "$defs" else ""
    suggestions, hint = near_names(key, node["properties"]), ""
    if key in OLDER_NAMES.get(where, {}):
        suggestions, hint = (OLDER_NAMES[where][key],), OLDER
    elif KEYS_OF_RUNTIME.get(where) == key:
        suggestions, hint = (), "PromptKit reads it, but the format does not have it: remove it"
    elif where == "validator" and key in PARAMS_OF_VALIDATOR:
        suggestions, hint = (), "it belongs under 'params'"
    elif key in UNSUPPORTED_KEYS and where in {"", "prompt"}:
        suggestions, hint = (), f"{OLDER}; the format has no equivalent"
    elif not suggestions and (parents := parents_of_key(node, key)):
        hint = f"it belongs under {parents}"
    place = pointer_to(pointer, key)
    known = f"one of {', '.join(node['properties'])}"
    return Finding(
        "PP104",
        "error",
        place,
        "unknown key",
        value=shown_value(value),
        expected=known,
        suggestions=suggestions,
        hint=hint,
    )


def _refused(code: str, value: object, expected: str, pointer: str, options: Sequence[object]) -> Finding:
    near = near_names(value, list(map(str, options))) if isinstance(value, str) else ()
    version = full_version(value) if pointer.endswith("/version") and code == "PP105" else None
    shown, meant = shown_value(value), near or ((version,) if version else ())
    message = f"expected {expected}, found {shown}"
    names_check = isinstance(value, str) and pointer.rpartition("/")[0].endswith("/validators")
    hint = f"{OLDER}: write {json.dumps({'type': value, 'enabled': True})}" if names_check and value in CHECKS else ""
    return Finding(code, "error", pointer, message, value=shown, expected=expected, suggestions=meant, hint=hint)


def _kinds(said: dict[str, Any], _: Node) -> tuple[str, str]:
    return "PP102", " or ".join(f"an {kind}" if kind[0] in "aio" else f"a {kind}" for kind in said["types"])


def _options(said: dict[str, Any], _: Node) -> tuple[str, str]:
    options = said["options"]
    return "PP103", f"one of {', '.join(map(str, options))}" if len(options) > 1 else repr(options[0])


def _by_description(_: dict[str, Any], node: Node) -> tuple[str, str]:
    return "PP108", str(node.get("description", "another form"))


def _at_least(noun: str, prefix: str = "") -> Callable[[dict[str, Any], Node], tuple[str, str]]:
    return lambda said, _: ("PP107", f"{prefix}at least {counted(said['limit'], noun)}")


_EXPECTATIONS: dict[str, Callable[[dict[str, Any], Node], tuple[str, str]]] = {
    "type": _kinds,
    "enum": _options,
    "const": lambda said, _: ("PP103", shown_value(said["expected_value"])),
    "pattern": lambda _, node: ("PP105", str(node["description"])),
    "minimum": lambda said, _: ("PP106", f"at least {said['limit']}"),
    "maximum": lambda said, _: ("PP106", f"at most {said['limit']}"),
    "minLength": _at_least("character", "text of "),
    "maxLength": lambda said, _: ("PP107", f"text of at most {said['limit']} characters"),
    "minItems": _at_least("item"),
    "minProperties": lambda _, __: ("PP107", "at least 1 entry"),
}
