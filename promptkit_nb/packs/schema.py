"""The JSON schema of PromptPack 1.5, look-ups in it, and the shape check of tolerant loading."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import shown_value
from promptkit_nb.packs.names import KEYS_OF_RUNTIME, UNSUPPORTED_KEYS
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from promptkit_nb.packs.dialect import LoadContext

Node = dict[str, Any]


@cache
def schema() -> Node:
    """Return the schema, draft 2020-12; do not modify it."""
    text = files("promptkit_nb.packs").joinpath("promptpack.schema.json").read_text(encoding="utf-8")
    read: Node = json.loads(text)
    return read


def definition(name: str) -> Node:
    """Return the schema's definition of this name, such as ``"prompt"``."""
    found: Node = schema()["$defs"][name]
    return found


def resolved(node: Node) -> Node:
    """Follow references; return the node itself if it is not one."""
    while "$ref" in node:
        node = definition(node["$ref"].rpartition("/")[2])
    return node


def node_at(schema_path: Iterable[str | int]) -> Node:
    """Return the part of the schema at this path."""
    node: Any = schema()
    for step in schema_path:
        node = node[step]
    found: Node = node
    return found


def parents_of_key(node: Node, key: str) -> str:
    """Return the keys of ``node`` whose objects have the property ``key``, in words; ``""`` if there are none.

    >>> parents_of_key(definition("prompt"), "temperature"), parents_of_key(schema(), "entry")
    ("'parameters'", "'workflow' or 'agents'")
    """
    properties: Mapping[str, Node] = node.get("properties", {})
    parents = (name for name, child in properties.items() if key in resolved(child).get("properties", {}))
    return " or ".join(map(repr, parents))


def pointer_to(parent: str, *keys: str | int) -> str:
    """Return the JSON pointer to these keys below ``parent``.

    >>> pointer_to("/prompts", "a/b", 0)
    '/prompts/a~1b/0'
    """
    for key in keys:
        parent += "/" + str(key).replace("~", "~0").replace("/", "~1")
    return parent


def keys_of(pointer: str) -> list[str]:
    """Return the keys of a JSON pointer.

    >>> keys_of("/prompts/a~1b/0")
    ['prompts', 'a/b', '0']
    """
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def objects_in(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the members of an object whose values are objects."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield key, item


def texts_in(value: object) -> Iterator[tuple[str, str]]:
    """Yield the members of an object whose values are strings."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, str):
            yield key, item


def object_items(value: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the items of an array that are objects."""
    for index, item in enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield index, item


def text_items(value: object) -> Iterator[tuple[int, str]]:
    """Yield the items of an array that are strings."""
    for index, item in enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, str):
            yield index, item


def keys_in(value: object) -> Collection[str]:
    """Return the keys of an object; nothing for other values."""
    return value.keys() if isinstance(value, dict) else ()


_Path = tuple[str | int, ...]  # becomes a pointer only for messages

_TYPES = {"null": type(None), "boolean": bool, "object": dict, "array": list, "string": str}


def check_pack(context: LoadContext) -> None:
    """Raise ``PackValidationError`` if the pack cannot be used; move unknown keys to the extras.

    A known key with the value null counts as absent.
    """
    prompts = context.data.get("prompts")
    if prompts is None:
        problem = f"it needs 'prompts', not empty{_renamed(context.data, 'prompts', schema())}"
        raise context.refuse("", problem, "PP101")
    if prompts == {}:
        raise context.refuse("/prompts", "it needs at least one prompt", "PP107")
    for key, prompt in prompts.items() if isinstance(prompts, dict) else ():
        if isinstance(prompt, dict):
            _check_needed(context, prompt, pointer_to("/prompts", key))
    _visit(context, context.data, schema(), ())


def check_prompt(context: LoadContext) -> None:
    """Check one prompt, ``context.data``, in the same way."""
    _check_needed(context, context.data, "")
    _visit(context, context.data, definition("prompt"), ())


def unknown_key_hint(key: str, node: Node) -> str:
    """Return the remedy for an unknown key: a near match, or the key that it belongs under.

    >>> unknown_key_hint("tempratur", definition("parameters")), unknown_key_hint("top_p", definition("prompt"))
    ("; did you mean 'temperature'?", "; it belongs under 'parameters'")
    """
    near = near_names(key, node.get("properties", ()))
    if near:
        return did_you_mean(near)
    parents = parents_of_key(node, key)
    return f"; it belongs under {parents}" if parents else ""


def _check_needed(context: LoadContext, prompt: dict[str, Any], pointer: str) -> None:
    """Raise for a prompt without a system prompt and for variables without names."""
    template = prompt.get("system_template")
    if template is None:
        renamed = _renamed(prompt, "system_template", definition("prompt"))
        raise context.refuse(pointer, f"it needs 'system_template', not empty{renamed}", "PP101")
    if template == "":
        raise context.refuse(pointer_to(pointer, "system_template"), "it is empty", "PP107")
    variables = prompt.get("variables")
    for index, variable in enumerate(variables if isinstance(variables, list) else ()):
        if isinstance(variable, dict) and not variable.get("name"):
            renamed = _renamed(variable, "name", definition("variable"))
            place = pointer_to(pointer, "variables", index)
            raise context.refuse(place, f"it needs 'name', not empty{renamed}", "PP101")


def _renamed(holder: dict[str, Any], key: str, node: Node) -> str:
    near = near_names(key, [other for other in holder if other not in node["properties"]])
    return f" (found {near[0]!r}: rename it)" if near else ""


def _visit(context: LoadContext, value: object, node: Node, path: _Path) -> None:
    node = resolved(node)
    kinds = node.get("type", ())
    if kinds and not (is_kind(value, kinds) if isinstance(kinds, str) else any(is_kind(value, kind) for kind in kinds)):
        listed = [kinds] if isinstance(kinds, str) else kinds
        expected = " or ".join(f"an {kind}" if kind[0] in "aio" else f"a {kind}" for kind in listed)
        raise context.refuse(pointer_to("", *path), f"expected {expected}, found {shown_value(value)}")
    if isinstance(value, dict):
        _visit_object(context, value, node, path)
    elif isinstance(value, list) and "items" in node:
        items = node["items"]
        for index, item in enumerate(value):
            _visit(context, item, items, (*path, index))


def _visit_object(context: LoadContext, value: dict[str, Any], node: Node, path: _Path) -> None:
    properties, others = node.get("properties", {}), node.get("additionalProperties", True)
    for key, item in list(value.items()):
        child = properties.get(key, others)
        if child is False and any(node is definition(name) and key == kept for name, kept in KEYS_OF_RUNTIME.items()):
            context.warn(pointer_to("", *path, key), "not in the format; kept for other runtimes")
        elif child is False:
            hint = "" if key in UNSUPPORTED_KEYS else unknown_key_hint(key, node)
            context.move_out(value, key, pointer_to("", *path), f"unknown key, kept but not applied{hint}")
        elif item is None and key in properties:
            if key != "example" and node is not definition("parameters"):  # null there unsets what the prompt sets
                del value[key]
                context.warn(pointer_to("", *path, key), "null, read as absent")
        elif child is not True and child:
            _visit(context, item, child, (*path, key))


def is_kind(value: object, kind: str) -> bool:
    """Return whether a JSON value has this type of JSON Schema; 2.0 is an integer too.

    >>> is_kind(2.0, "integer"), is_kind(True, "number")
    (True, False)
    """
    if kind in _TYPES:
        return isinstance(value, _TYPES[kind])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return kind == "number" or float(value).is_integer()
