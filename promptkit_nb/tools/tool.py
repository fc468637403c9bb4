"""A tool: something with a name and a schema that a model may call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.json_values import json_copy
from promptkit_nb.plain import plain
from promptkit_nb.tools.arguments import ArgumentsRejectedError

Approval = Literal["never", "ask"] | Callable[[str, Mapping[str, object]], bool | str]
"""Who approves a call: no approval is needed, the user is asked, or a function of name and arguments decides.

The function returns whether to run the call, or text with the reason why not.
"""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_DESCRIPTION_CHARACTERS = 1_024  # OpenAI refuses longer ones


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call: ``call`` gets the arguments by name, after they were checked.

    ``schema`` is the JSON schema of the arguments, an object. ``parse`` checks the JSON object that the model sent and
    returns the arguments, or raises ``ArgumentsRejectedError``; without it they are checked against the schema.
    ``timeout_s`` limits a call in the main thread. ``Tool.of`` makes a tool from a function.

    Raises ``InvalidArgumentError`` for a name that servers refuse, or a schema that is not one of an object.

    >>> tool = Tool("double", "Double a number.", {"type": "object", "properties": {"n": {"type": "integer"}}}, abs)
    >>> tool.definition["function"]["name"]
    'double'
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    call: Callable[..., object]
    parse: Callable[[Mapping[str, object]], dict[str, object]] | None = None
    timeout_s: float | None = None
    approve: Approval = "never"

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidArgumentError(
                f"A tool cannot be named {self.name!r:.80}: give a name of up to 64 letters, digits, _ and -, with "
                'name="…".'
            )
        object.__setattr__(self, "schema", _checked_schema(self.name, self.schema))
        object.__setattr__(self, "description", _cut(str(self.description or "")))
        object.__setattr__(self, "timeout_s", _checked_timeout(self.timeout_s))
        if self.approve not in ("never", "ask") and not callable(self.approve):
            raise InvalidArgumentError(
                f'approve={self.approve!r:.80} is unknown: use "never", "ask", or a function of the name and the '
                "arguments."
            )

    @classmethod
    def of(
        cls,
        function: Callable[..., object] | Tool,
        *,
        name: str | None = None,
        timeout: float | None = None,
        approve: Approval = "never",
    ) -> Tool:
        """Return a function as a tool, with a schema from its signature, type hints, and docstring.

        Raises ``InvalidArgumentError`` for a function that a model cannot call, and says what to change.

        >>> def orders(customer: str, limit: int = 10) -> list[str]:
        ...     "Return the newest orders of a customer."
        ...     return []
        >>> Tool.of(orders).schema["required"]
        ['customer']
        """
        if isinstance(function, Tool):
            return function
        from promptkit_nb.tools.functions import read_function  # noqa: PLC0415 - pydantic, imported when used

        read = read_function(function, name)
        return cls(read.name, read.description, read.schema, read.call, read.parse, timeout_s=timeout, approve=approve)

    @property
    def definition(self) -> dict[str, Any]:
        """The tool in OpenAI's format."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.schema)}
        return {"type": "function", "function": function}

    def arguments(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments for the function; raise ``ArgumentsRejectedError`` if they are invalid."""
        if self.parse is not None:
            return self.parse(given)
        check_arguments(self.schema, given)
        return dict(given)


def check_arguments(schema: Mapping[str, Any], given: Mapping[str, object]) -> None:
    """Raise ``ArgumentsRejectedError`` for arguments that the schema refuses.

    >>> check_arguments({"properties": {"n": {"type": "integer"}}}, {"n": 7})
    """
    import jsonschema_rs  # noqa: PLC0415 - imported when used

    found = [
        f"{'.'.join(map(str, error.instance_path)) or 'arguments'}: {error.message:.200}"
        for error in jsonschema_rs.validator_for(dict(schema)).iter_errors(dict(given))
    ]
    if found:
        raise ArgumentsRejectedError("; ".join(found[:5]))


def _checked_schema(name: str, schema: object) -> dict[str, Any]:
    import jsonschema_rs  # noqa: PLC0415 - imported when used

    if not isinstance(schema, Mapping):
        raise InvalidArgumentError(f"The schema of tool {name!r} is {schema!r:.80}: give a JSON schema of an object.")
    copied: dict[str, Any] = {"type": "object", "properties": {}} | json_copy(schema, f"the schema of tool {name!r}")
    try:
        jsonschema_rs.validator_for(copied)
    except ValueError as error:
        raise InvalidArgumentError(f"The schema of tool {name!r} is not a JSON schema: {error!s:.200}.") from error
    if copied["type"] != "object":
        raise InvalidArgumentError(f"The schema of tool {name!r} is of type {copied['type']!r}: only objects are sent.")
    return copied


def _checked_timeout(timeout_s: object) -> float | None:
    timeout_s = plain(timeout_s)
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not isfinite(timeout_s):
        raise InvalidArgumentError(f"timeout={timeout_s!r:.80} is not a number of seconds.")
    if timeout_s <= 0:
        raise InvalidArgumentError(f"timeout={timeout_s!r} is out of range: give seconds above 0, or None.")
    return timeout_s


def _cut(text: str) -> str:
    if len(text) <= _MAX_DESCRIPTION_CHARACTERS:
        return text
    return f"{text[: _MAX_DESCRIPTION_CHARACTERS - 1]}…"
