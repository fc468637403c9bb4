"""What a pack that loads is told about: sections without effect, and what its author may not have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.names import slug_of
from promptkit_nb.packs.schema import pointer_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NOT_RUN_OF_PACK = ("evals", "workflow", "agents", "skills", "compositions")
_NOT_RUN_OF_PROMPT = ("pipeline", "validators", "evals", "media")


def not_run(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each section that has no effect here."""
    for section in _NOT_RUN_OF_PACK:
        if data.get(section):
            yield f"/{section}: kept, but not run"
    for key, prompt in data["prompts"].items():
        for section in _NOT_RUN_OF_PROMPT:
            if prompt.get(section):
                yield f"{pointer_to('/prompts', key, section)}: kept, but not run"


def doubts(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings for what has the right shape and still is not what its author may think."""
    tools = data.get("tools") or {}
    for key, prompt in data["prompts"].items():
        pointer = pointer_to("/prompts", key)
        if prompt["id"] not in {key, slug_of(key, also="_")}:
            yield f"{pointer}/id: it is {prompt['id']!r}, but the prompt is found by its key, {key!r}"
        for index, tool in enumerate(prompt.get("tools") or ()):
            if tool not in tools:
                yield f"{pointer}/tools/{index}: {tool!r} is not among the pack's tools"
        for index, variable in enumerate(prompt.get("variables") or ()):
            if variable.get("required") and variable.get("default") is not None:
                name = variable.get("name")
                yield f"{pointer}/variables/{index}: {name!r} is required and has a default, which satisfies it"
