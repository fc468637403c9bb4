"""The JSON schema of PromptPack 1.5, which stands beside this file, and looking things up in it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Node = dict[str, Any]


@cache
def schema() -> Node:
    """Return the schema, Draft 2020-12; do not change it."""
    text = files("promptkit_nb.packs").joinpath("promptpack.schema.json").read_text(encoding="utf-8")
    read: Node = json.loads(text)
    return read


def definition(name: str) -> Node:
    """Return the schema's definition of this name, such as ``"prompt"``."""
    found: Node = schema()["$defs"][name]
    return found


def resolved(node: Node) -> Node:
    """Return what the node refers to, or itself."""
    while "$ref" in node:
        node = definition(node["$ref"].rpartition("/")[2])
    return node


def node_at(schema_path: Iterable[str | int]) -> Node:
    """Return what stands in the schema at this path."""
    node: Any = schema()
    for step in schema_path:
        node = node[step]
    found: Node = node
    return found


def parent_of_key(node: Node, key: str) -> str | None:
    """Return the known key of ``node`` whose object knows ``key``, else ``None``.

    >>> parent_of_key(definition("prompt"), "temperature")
    'parameters'
    """
    properties: Mapping[str, Node] = node.get("properties", {})
    for name, child in properties.items():
        if key in resolved(child).get("properties", {}):
            return name
    return None


def pointer_to(parent: str, *keys: str | int) -> str:
    """Return the JSON pointer to what stands under these keys of the value at ``parent``.

    >>> pointer_to("/prompts", "a/b", 0)
    '/prompts/a~1b/0'
    """
    steps = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    return "/".join((parent, *steps))


def keys_of(pointer: str) -> list[str]:
    """Return the keys of a JSON pointer.

    >>> keys_of("/prompts/a~1b/0")
    ['prompts', 'a/b', '0']
    """
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
