"""What is wrong with a workflow beyond its shape: states that are not there, and states that lead nowhere or round."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.reference_findings import Names, doubt, keys_in, mistake, objects_in
from promptkit_nb.packs.schema import pointer_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EVENT = re.compile(r"[A-Z][A-Za-z0-9]*")
_VERSIONS = (1, 2)


def workflow_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the schema cannot say about the workflow.

    >>> pack = {"prompts": {"a": {}}, "workflow": {"entry": "b", "states": {"a": {"prompt_task": "a"}}}}
    >>> [str(finding) for finding in workflow_findings(pack)]
    ["PP201 error /workflow/entry: there is no state 'b'"]
    """
    workflow = data.get("workflow")
    states = workflow.get("states") if isinstance(workflow, dict) else None
    if not isinstance(workflow, dict) or not isinstance(states, dict) or not states:
        return
    version = workflow.get("version")
    if isinstance(version, int) and version > max(_VERSIONS):
        yield mistake("PP103", "/workflow/version", f"expected 1 or 2, found {version}", expected="1 or 2")
    names = Names("state", states)
    if isinstance(workflow.get("entry"), str):
        yield from names.missing(workflow["entry"], "/workflow/entry")
    prompts = Names("prompt", keys_in(data.get("prompts")))
    compositions = Names("composition", keys_in(data.get("compositions")))
    for key, state in objects_in(states):
        pointer = pointer_to("/workflow/states", key)
        what = f"state {key!r}"
        if isinstance(state.get("prompt_task"), str):
            yield from prompts.missing(state["prompt_task"], pointer_to(pointer, "prompt_task"), what)
        yield from _composition(state, compositions, pointer, what)
        yield from _exits(state, names, pointer, what)
        yield from _limits(state, states, names, pointer, what)
        if version == max(_VERSIONS) and not state.get("terminal") and not state.get("on_event"):
            yield doubt("PP405", pointer, f"{what} has no way out and is not marked as terminal")
    yield from _circles(states)


def _composition(state: dict[str, Any], compositions: Names, pointer: str, what: str) -> Iterator[Finding]:
    if not isinstance(state.get("composition"), str):
        return
    place = pointer_to(pointer, "composition")
    if state.get("orchestration") != "composition":
        hint = "set 'orchestration' to 'composition', or leave it out"
        yield mistake("PP109", place, f"{what} is not orchestrated by a composition", hint=hint)
    yield from compositions.missing(state["composition"], place, what)


def _exits(state: dict[str, Any], names: Names, pointer: str, what: str) -> Iterator[Finding]:
    events = state.get("on_event")
    for event, target in events.items() if isinstance(events, dict) else ():
        place = pointer_to(pointer, "on_event", event)
        if isinstance(target, str):
            yield from names.missing(target, place, f"{what}, event {event!r}")
        if not _EVENT.fullmatch(event):
            suggested = "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", event))
            near = (suggested,) if _EVENT.fullmatch(suggested) else ()
            yield doubt("PP404", place, f"{what}: events are written like 'OrderShipped'", suggestions=near)
    if state.get("terminal") is True and events:
        yield doubt("PP405", pointer_to(pointer, "on_event"), f"{what} is terminal, so its events lead nowhere")


def _limits(
    state: dict[str, Any], states: Mapping[str, Any], names: Names, pointer: str, what: str
) -> Iterator[Finding]:
    target = state.get("on_max_visits")
    if not isinstance(target, str):
        return
    place = pointer_to(pointer, "on_max_visits")
    yield from names.missing(target, place, what)
    after = states.get(target)
    if isinstance(after, dict) and "max_visits" in after:
        yield doubt("PP405", place, f"{what} leads to {target!r}, whose visits are limited too")
    if "max_visits" not in state:
        yield doubt("PP405", place, f"{what} has no 'max_visits', so this never applies")


def _circles(states: dict[str, Any]) -> Iterator[Finding]:
    """Yield one warning for each state from which events lead back to itself; states on one circle share it."""
    targets = {
        key: [target for target in (state.get("on_event") or {}).values() if isinstance(target, str)]
        for key, state in objects_in(states)
        if isinstance(state.get("on_event") or {}, dict)
    }
    for circle in circles_of(targets):
        shown = shown_value(" → ".join([*circle[:6], *(["…"] if len(circle) > 6 else []), circle[0]]))  # noqa: PLR2004 - as many as are read
        yield doubt("PP405", pointer_to("/workflow/states", circle[0]), f"events lead in a circle: {shown}")


def circles_of(targets: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield the circles that a walk along the targets closes, one for each arrow back, without recursion.

    >>> list(circles_of({"a": ["b"], "b": ["c", "a"], "c": []}))
    [['a', 'b']]
    """
    done: set[str] = set()
    for start in targets:
        path: list[str] = []
        on_path: dict[str, int] = {}
        walks = [iter([start])]
        while walks:
            step = next(walks[-1], None)
            if step is None:
                walks.pop()
                if path:
                    left = path.pop()
                    del on_path[left]
                    done.add(left)
                continue
            if step in on_path:
                yield path[on_path[step] :]
            elif step not in done and step in targets:
                on_path[step] = len(path)
                path.append(step)
                walks.append(iter(targets[step]))
