"""Names in a pack that lead nowhere: tools of prompts, prompts and states of workflows, members of agents.

Whatever the schema refused already is passed over here, so that one mistake is one finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.schema import pointer_to
from promptkit_nb.packs.suggestions import Suggestions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Names:
    """The names that may be referred to, of one kind, such as ``"tool"``."""

    def __init__(self, kind: str, known: Collection[str]) -> None:
        """Keep the names; looking one up in ``known`` should take no time."""
        self.kind = kind
        self.known = known
        self._suggestions = Suggestions()

    def missing(self, name: str, pointer: str, what: str = "") -> Iterator[Finding]:
        """Yield the finding for a name that is not known; ``what`` says what refers to it."""
        if name in self.known:
            return
        begin = f"{what}: " if what else ""
        message = f"{begin}there is no {self.kind} {shown_value(name)}"
        expected = f"the name of a {self.kind}"
        near = self._suggestions.near(name, self.known)
        yield Finding("PP201", "error", pointer, message, None, None, shown_value(name), expected, near)


def objects_in(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the members of an object that are objects."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield key, item


def texts_in(value: object) -> Iterator[tuple[str, str]]:
    """Yield the members of an object that are texts."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, str):
            yield key, item


def object_items(value: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the items of an array that are objects."""
    for index, item in enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield index, item


def text_items(value: object) -> Iterator[tuple[int, str]]:
    """Yield the items of an array that are texts."""
    for index, item in enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, str):
            yield index, item


def keys_in(value: object) -> Collection[str]:
    """Return the keys of an object; of anything else none."""
    return value.keys() if isinstance(value, dict) else ()


def prompt_references(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the prompts and tools refer to and the pack lacks.

    >>> pack = {"prompts": {"a": {"tools": ["serch"]}}, "tools": {"search": {}}}
    >>> [str(finding) for finding in prompt_references(pack)]
    ["PP201 error /prompts/a/tools/0: there is no tool 'serch'; did you mean 'search'?"]
    """
    tools = Names("tool", keys_in(data.get("tools")))
    for key, prompt in objects_in(data.get("prompts")):
        for index, name in text_items(prompt.get("tools")):
            yield from tools.missing(name, pointer_to("/prompts", key, "tools", index))
        if isinstance(prompt.get("id"), str) and prompt["id"] != key:
            pointer = pointer_to("/prompts", key, "id")
            yield doubt(
                "PP402", pointer, f"it is {shown_value(prompt['id'])}, but the prompt is found by its key, {key!r}"
            )
    for key, tool in objects_in(data.get("tools")):
        if isinstance(tool.get("name"), str) and tool["name"] != key:
            pointer = pointer_to("/tools", key, "name")
            yield doubt(
                "PP402", pointer, f"it is {shown_value(tool['name'])}, but the tool is found by its key, {key!r}"
            )


def agent_references(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong between agents, prompts and workflow, as far as the schema cannot say it."""
    agents = data.get("agents")
    if not isinstance(agents, dict):
        return
    members = Names("member", keys_in(agents.get("members")))
    if isinstance(agents.get("entry"), str) and isinstance(agents.get("members"), dict):
        yield from members.missing(agents["entry"], "/agents/entry")
    prompts = Names("prompt", keys_in(data.get("prompts")))
    workflow = data.get("workflow")
    states = Names("state", keys_in(workflow.get("states") if isinstance(workflow, dict) else None))
    for name, agent in objects_in(agents.get("members")):
        pointer = pointer_to("/agents/members", name)
        yield from prompts.missing(name, pointer)
        for modes in ("input_modes", "output_modes"):
            for index, mode in text_items(agent.get(modes)):
                yield from _mime_findings(mode, pointer_to(pointer, modes, index))
        if isinstance(agent.get("state"), str):
            what = "" if isinstance(workflow, dict) else "the pack has no workflow"
            yield from states.missing(agent["state"], pointer_to(pointer, "state"), what)


def _mime_findings(mode: str, pointer: str) -> Iterator[Finding]:
    kind, _, subtype = mode.partition("/")
    if not kind or not subtype or "/" in subtype:
        expected = "a MIME type such as 'text/plain'"
        message = f"expected {expected}, found {shown_value(mode)}"
        yield Finding("PP105", "error", pointer, message, None, None, shown_value(mode), expected)


def doubt(code: str, pointer: str, message: str, **more: Any) -> Finding:
    """Return a warning."""
    return Finding(code, "warning", pointer, message, **more)


def mistake(code: str, pointer: str, message: str, **more: Any) -> Finding:
    """Return an error."""
    return Finding(code, "error", pointer, message, **more)
