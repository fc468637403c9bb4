"""The tools of one call, and the rules for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.near_names import near_names
from promptkit_nb.tools.tool import Tool, check_arguments

if TYPE_CHECKING:
    from promptkit_nb.packs.prompt import Prompt

ToolChoice = Literal["auto", "required", "none"]

MAX_ROUNDS = 10
MAX_CALLS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The tools that one call offers; at most ``max_rounds`` answers may call them, ``max_calls`` times in all.

    ``blocked`` are names that the pack's policy forbids. ``warnings`` are for the user.
    """

    tools: Mapping[str, Tool]
    choice: ToolChoice = "auto"
    max_rounds: int = MAX_ROUNDS
    max_calls: int = MAX_CALLS
    blocked: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        given: Iterable[Callable[..., object] | Tool] | None,
        registered: Mapping[str, Tool],
        prompt: Prompt | None = None,
    ) -> Toolbox:
        """Return the tools of a call: the given ones, else the registered ones that the prompt may use.

        A tool of the prompt's pack gets the pack's description and schema; the prompt's policy sets the limits.
        Raises ``InvalidArgumentError`` for two tools of one name, for a given tool that the policy blocks, and for a
        function that does not fit the pack's schema.
        """
        policy: Mapping[str, Any] = {} if prompt is None else prompt.tool_policy
        of_pack = {} if prompt is None else prompt.pack_tools
        blocked = frozenset(policy.get("blocklist") or ())
        warnings: tuple[str, ...] = ()
        if given is None:
            chosen = {name: tool for name, tool in registered.items() if name not in blocked}
            if prompt is not None and prompt.lists_tools:
                chosen = {name: chosen[name] for name in prompt.tools if name in chosen}
                missing = [name for name in prompt.tools if name not in registered and name not in blocked]
                warnings = tuple(map(_without_function, missing))
        else:
            chosen = _by_name(given)
            for name in blocked & chosen.keys():
                raise InvalidArgumentError(
                    f"The tool_policy of prompt {getattr(prompt, 'name', '')!r} blocks the tool {name!r}: leave it "
                    "out, or change the pack."
                )
        bound = {name: bound_to_pack(tool, of_pack[name]) if name in of_pack else tool for name, tool in chosen.items()}
        choice: ToolChoice = policy.get("tool_choice") or "auto"
        return cls(
            tools={} if choice == "none" else bound,
            choice=choice,
            max_rounds=int(policy.get("max_rounds") or MAX_ROUNDS),
            max_calls=int(policy.get("max_tool_calls_per_turn") or MAX_CALLS),
            blocked=blocked,
            warnings=warnings,
        )

    @property
    def definitions(self) -> tuple[dict[str, Any], ...]:
        """The tools in OpenAI's format."""
        return tuple(tool.definition for tool in self.tools.values())

    @property
    def key(self) -> tuple[dict[str, Any], ...]:
        """The part of the replay key for tools: names, descriptions, and schemas, and a choice other than "auto"."""
        return (*self.definitions, *([] if self.choice == "auto" else [{"tool_choice": self.choice}]))


def bound_to_pack(tool: Tool, of_pack: Mapping[str, Any]) -> Tool:
    """Return the tool with the pack's description and schema, which is checked before the function's own types.

    Raises ``InvalidArgumentError`` if the parameters of the function differ from those in the pack.
    """
    schema: Mapping[str, Any] = of_pack.get("parameters") or {}
    ours, theirs = tool.schema.get("properties") or {}, schema.get("properties") or {}
    unknown = [name for name in theirs if name not in ours]
    missing = [name for name in tool.schema.get("required") or () if name not in theirs]
    if unknown or missing:
        what = f"does not take {unknown[0]!r}" if unknown else f"needs {missing[0]!r}, which the pack does not have"
        raise InvalidArgumentError(
            f"The function of tool {tool.name!r} {what}: give it the parameters of the pack's tool, "
            f"{', '.join(map(repr, theirs)) or 'none'}."
        )

    def parse(given: Mapping[str, object]) -> dict[str, object]:
        check_arguments(schema, given)
        return tool.arguments(given)

    description = of_pack.get("description") or tool.description
    return replace(tool, description=description, schema=schema, parse=parse)


def named(names: str, variables: Mapping[str, object]) -> tuple[Callable[..., object] | Tool, ...]:
    """Return the functions of a notebook with these comma-separated names.

    >>> named("len, abs", {"len": len, "abs": abs})
    (<built-in function len>, <built-in function abs>)
    """
    found: list[Callable[..., object] | Tool] = []
    for name in filter(None, map(str.strip, names.split(","))):
        value = variables.get(name)
        if isinstance(value, Tool) or callable(value):
            found.append(value)
        elif name in variables:
            raise InvalidArgumentError(f"--tools {name}: it is a {type(value).__name__}, not a function.")
        else:
            functions = [each for each, value in variables.items() if callable(value) and not each.startswith("_")]
            near = near_names(name, functions)
            hint = f" Did you mean {near[0]}?" if near else " Run the cell that defines it."
            raise InvalidArgumentError(f"--tools {name}: there is no function of this name.{hint}")
    return tuple(found)


def _by_name(given: Iterable[Callable[..., object] | Tool]) -> dict[str, Tool]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise InvalidArgumentError(f"tools={given!r:.80} is not a list of functions: give tools=[function].")
    found: dict[str, Tool] = {}
    for each in given:
        tool = Tool.of(each)
        if tool.name in found and found[tool.name].call is not tool.call:
            raise InvalidArgumentError(
                f'Two tools are named {tool.name!r}: give one of them another name, with Tool.of(function, name="…").'
            )
        found[tool.name] = tool
    return found


def _without_function(name: str) -> str:
    return f"The prompt's tool {name!r} was not offered: it has no function, see manager.register_tool()."
