"""The shape of a pack, as far as tolerant loading looks: known keys hold the right kind of JSON, unknown ones move out.

Everything else that the schema says is checked by strict loading only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import shown_value
from promptkit_nb.packs.names import WITHOUT_SUCCESSOR
from promptkit_nb.packs.schema import Node, definition, parent_of_key, pointer_to, resolved, schema
from promptkit_nb.packs.suggestions import did_you_mean, near_names

if TYPE_CHECKING:
    from promptkit_nb.packs.dialect import Reading

_Path = tuple[str | int, ...]  # made into a pointer where there is something to tell

_TYPES = {"null": type(None), "boolean": bool, "object": dict, "array": list, "string": str}


def check_pack(reading: Reading) -> None:
    """Raise ``PackValidationError`` for a pack that cannot be used; change the reading where something is left out.

    A known key that holds null counts as absent.
    """
    prompts = reading.data.get("prompts")
    if not prompts:
        raise reading.refuse(
            "", "it needs 'prompts', and that not empty" + _renamed(reading.data, "prompts", schema()), "PP101"
        )
    for key, prompt in prompts.items() if isinstance(prompts, dict) else ():
        if isinstance(prompt, dict):
            _check_needed(reading, prompt, pointer_to("/prompts", key))
    _visit(reading, reading.data, schema(), ())


def check_prompt(reading: Reading) -> None:
    """Do the same for one prompt, which is all of ``reading.data``."""
    _check_needed(reading, reading.data, "")
    _visit(reading, reading.data, definition("prompt"), ())


def unknown_key_hint(key: str, node: Node) -> str:
    """Return what to do about an unknown key of an object with this schema: another spelling, or another place.

    >>> unknown_key_hint("tempratur", definition("parameters")), unknown_key_hint("top_p", definition("prompt"))
    ("; did you mean 'temperature'?", "; it belongs under 'parameters'")
    """
    near = near_names(key, node.get("properties", ()))
    if near:
        return did_you_mean(near)
    parent = parent_of_key(node, key)
    return f"; it belongs under {parent!r}" if parent else ""


def _check_needed(reading: Reading, prompt: dict[str, Any], pointer: str) -> None:
    """Refuse a prompt without a system prompt, and variables without names."""
    if not prompt.get("system_template"):
        renamed = _renamed(prompt, "system_template", definition("prompt"))
        raise reading.refuse(pointer, f"it needs 'system_template', and that not empty{renamed}", "PP101")
    variables = prompt.get("variables")
    for index, variable in enumerate(variables if isinstance(variables, list) else ()):
        if isinstance(variable, dict) and not variable.get("name"):
            renamed = _renamed(variable, "name", definition("variable"))
            place = pointer_to(pointer, "variables", index)
            raise reading.refuse(place, f"it needs 'name', and that not empty{renamed}", "PP101")


def _renamed(holder: dict[str, Any], key: str, node: Node) -> str:
    near = near_names(key, [other for other in holder if other not in node["properties"]])
    return f" (found {near[0]!r}: rename it)" if near else ""


def _visit(reading: Reading, value: object, node: Node, path: _Path) -> None:
    node = resolved(node)
    kinds = node.get("type", ())
    if kinds and not (is_kind(value, kinds) if isinstance(kinds, str) else any(is_kind(value, kind) for kind in kinds)):
        listed = [kinds] if isinstance(kinds, str) else kinds
        expected = " or ".join(f"an {kind}" if kind[0] in "aio" else f"a {kind}" for kind in listed)
        raise reading.refuse(pointer_to("", *path), f"expected {expected}, found {shown_value(value)}")
    if isinstance(value, dict):
        _visit_object(reading, value, node, path)
    elif isinstance(value, list) and "items" in node:
        items = node["items"]
        for index, item in enumerate(value):
            _visit(reading, item, items, (*path, index))


def _visit_object(reading: Reading, value: dict[str, Any], node: Node, path: _Path) -> None:
    properties, others = node.get("properties", {}), node.get("additionalProperties", True)
    for key, item in list(value.items()):
        child = properties.get(key, others)
        if child is False:
            hint = "" if key in WITHOUT_SUCCESSOR else unknown_key_hint(key, node)
            reading.move_out(value, key, pointer_to("", *path), f"unknown key, kept but not applied{hint}")
        elif item is None and key in properties:
            if key != "example" and node is not definition("parameters"):  # null there unsets what the prompt sets
                del value[key]
                reading.warn(pointer_to("", *path, key), "null, read as absent")
        elif child is not True and child:
            _visit(reading, item, child, (*path, key))


def is_kind(value: object, kind: str) -> bool:
    """Return whether a JSON value is of a kind that JSON Schema names; 2.0 is an integer too.

    >>> is_kind(2.0, "integer"), is_kind(True, "number")
    (True, False)
    """
    if kind in _TYPES:
        return isinstance(value, _TYPES[kind])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return kind == "number" or float(value).is_integer()
