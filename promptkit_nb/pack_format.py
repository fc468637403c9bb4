"""The shape of a PromptPack: which keys there are and which kind of JSON each holds.

What has the wrong kind is an error with its JSON pointer. What is unknown is kept and warned about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from promptkit_nb.errors import PackValidationError
from promptkit_nb.variables import VARIABLE_TYPES


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place.

    ``kind`` is a JSON type, ``"integer"`` or ``"any"``. ``keys`` are the known keys of a closed object; ``items`` is
    the shape of everything in an array or an open map. ``required`` keys must be there and not be empty;
    ``expected`` ones should. ``choices`` are all the texts allowed.
    """

    kind: str
    keys: Mapping[str, Shape] | None = None
    items: Shape | None = None
    required: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


_ANY = Shape("any")
_TEXT = Shape("string")
_NUMBER = Shape("number")
_INTEGER = Shape("integer")
_OBJECT = Shape("object")
_ARRAY = Shape("array")
_TEXTS = Shape("array", items=_TEXT)

_VALIDATION = Shape(
    "object",
    keys={
        "pattern": _TEXT,
        "min_length": _INTEGER,
        "max_length": _INTEGER,
        "minimum": _NUMBER,
        "maximum": _NUMBER,
        "enum": _ARRAY,
    },
)

_VARIABLE = Shape(
    "object",
    keys={
        "name": _TEXT,
        "type": Shape("string", choices=VARIABLE_TYPES),
        "required": Shape("boolean"),
        "default": _ANY,
        "description": _TEXT,
        "example": _ANY,
        "validation": _VALIDATION,
    },
    required=("name",),
)

_PARAMETERS = Shape(
    "object",
    keys={
        "temperature": _NUMBER,
        "max_tokens": _INTEGER,
        "top_p": _NUMBER,
        "top_k": _INTEGER,
        "frequency_penalty": _NUMBER,
        "presence_penalty": _NUMBER,
    },
)

_OVERRIDE = Shape(
    "object",
    keys={
        "system_template": _TEXT,
        "system_template_prefix": _TEXT,
        "system_template_suffix": _TEXT,
        "parameters": _PARAMETERS,
    },
)

_TOOL_POLICY = Shape(
    "object",
    keys={
        "tool_choice": _TEXT,
        "max_rounds": _INTEGER,
        "max_tool_calls_per_turn": _INTEGER,
        "blocklist": _TEXTS,
    },
)

_TOOL = Shape("object", keys={"name": _TEXT, "description": _TEXT, "parameters": _OBJECT})

PROMPT = Shape(
    "object",
    keys={
        "id": _TEXT,
        "name": _TEXT,
        "version": _TEXT,
        "description": _TEXT,
        "system_template": _TEXT,
        "variables": Shape("array", items=_VARIABLE),
        "tools": _TEXTS,
        "tool_policy": _TOOL_POLICY,
        "pipeline": _ANY,
        "parameters": _PARAMETERS,
        "validators": _ARRAY,
        "evals": _ARRAY,
        "tested_models": _ARRAY,
        "model_overrides": Shape("object", items=_OVERRIDE),
        "media": _OBJECT,
    },
    required=("system_template",),
    expected=("id", "name", "version"),
)

PACK = Shape(
    "object",
    keys={
        "$schema": _TEXT,
        "id": _TEXT,
        "name": _TEXT,
        "version": _TEXT,
        "description": _TEXT,
        "template_engine": _OBJECT,
        "prompts": Shape("object", items=PROMPT),
        "fragments": Shape("object", items=_TEXT),
        "tools": Shape("object", items=_TOOL),
        "evals": _ARRAY,
        "metadata": _OBJECT,
        "compilation": _OBJECT,
        "workflow": _OBJECT,
        "agents": _OBJECT,
        "skills": _ANY,
        "compositions": _ANY,
    },
    required=("prompts",),
    expected=("id", "name", "version", "template_engine"),
)


def check_shape(data: object, shape: Shape, where: str) -> tuple[str, ...]:
    """Return the warnings for data that has the shape; raise ``PackValidationError`` where it has not.

    ``where`` begins the message. A known key that holds null counts as absent.

    >>> check_shape({"system_template": "Hi", "id": "a", "name": "A", "version": "1.0.0", "nam": 1}, PROMPT, "it")
    ("/nam: unknown key, kept but not applied; did you mean 'name'?",)
    """
    check = _Check(where)
    check.visit(data, shape, "")
    return tuple(check.warnings)


def pointer_to(parent: str, key: str) -> str:
    """Return the JSON pointer to a key of the object at ``parent``.

    >>> pointer_to("/prompts", "a/b")
    '/prompts/a~1b'
    """
    return f"{parent}/{key.replace('~', '~0').replace('/', '~1')}"


@dataclass(slots=True)
class _Check:
    """One walk over a pack: where it is from, and the warnings so far, in the order of the file."""

    where: str
    warnings: list[str] = field(default_factory=list)

    def visit(self, value: object, shape: Shape, pointer: str) -> None:
        """Check the value that stands at the pointer, and all in it."""
        if not _is_kind(value, shape.kind):
            raise self._invalid(pointer, f"expected {_with_article(shape.kind)}, found {_shown(value)}")
        if shape.choices and value not in shape.choices:
            near = get_close_matches(str(value), shape.choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self._invalid(pointer, f"{_shown(value)} is none of {', '.join(shape.choices)}{hint}")
        if isinstance(value, Mapping):
            self._visit_object(value, shape, pointer)
        elif isinstance(value, list) and shape.items is not None:
            for index, item in enumerate(value):
                self.visit(item, shape.items, f"{pointer}/{index}")

    def _visit_object(self, value: Mapping[str, object], shape: Shape, pointer: str) -> None:
        for key in shape.required:
            if not value.get(key):
                near = get_close_matches(key, [other for other in value if other not in (shape.keys or {})], n=1)
                hint = f" (found {near[0]!r}: rename it)" if near else ""
                raise self._invalid(pointer, f"it needs {key!r}, and that not empty{hint}")
        for key in shape.expected:
            if value.get(key) is None:
                self.warnings.append(f"{pointer_to(pointer, key)}: missing, though the format requires it")
        for key, item in value.items():
            if shape.items is not None:
                self.visit(item, shape.items, pointer_to(pointer, key))
            elif shape.keys is not None:
                self._visit_key(key, item, shape.keys, pointer)

    def _visit_key(self, key: str, item: object, keys: Mapping[str, Shape], pointer: str) -> None:
        if key in keys:
            if item is not None:
                self.visit(item, keys[key], pointer_to(pointer, key))
            return
        near = get_close_matches(key, keys, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        self.warnings.append(f"{pointer_to(pointer, key)}: unknown key, kept but not applied{hint}")

    def _invalid(self, pointer: str, problem: str) -> PackValidationError:
        place = f"at {pointer}" if pointer else "at the top"
        return PackValidationError(f"{self.where} is no valid pack: {place}, {problem}.")


def _is_kind(value: object, kind: str) -> bool:
    if kind == "any":
        return True
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return _kind_of(value) == kind


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, (Mapping, list)):
        return _with_article(_kind_of(value))
    return f"{value!r:.60}"


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
