"""References in a pack: tools, prompts, agents, workflow states and composition steps that do not exist."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.names import slug_of
from promptkit_nb.packs.schema import keys_in, object_items, objects_in, pointer_to, text_items
from promptkit_nb.text.near_names import Suggestions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


# Tools of the runtime itself.
RESERVED = re.compile(r"(?:workflow|skill|memory|a2a|mcp|composition)__.*")


class KnownNames:
    """The known names of one kind, such as ``"tool"``."""

    def __init__(self, kind: str, known: Collection[str], *, is_required: bool = False) -> None:
        """Keep the names, a set or a dict; if ``is_required``, a pack without any has an error already."""
        self.kind = kind
        self.known = known
        self.is_required = is_required
        self._suggestions = Suggestions()

    def missing(self, name: str, pointer: str, what: str = "") -> Iterator[Finding]:
        """Yield a finding if the name is unknown; ``what`` describes the referring object."""
        if name in self.known or (self.is_required and not self.known):
            return
        begin = f"{what}: " if what else ""
        message = f"{begin}there is no {self.kind} {shown_value(name)}"
        expected = f"the name of {'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"
        near = self._suggestions.near(name, self.known)
        yield Finding("PP201", "error", pointer, message, None, None, shown_value(name), expected, near)


def prompt_references(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield dangling references of prompts and tools, and keys that differ from ids.

    >>> pack = {"prompts": {"a": {"tools": ["serch"]}}, "tools": {"search": {}}}
    >>> [str(finding) for finding in prompt_references(pack)]
    ["PP201 error /prompts/a/tools/0: there is no tool 'serch'; did you mean 'search'?"]
    """
    agents = data.get("agents")
    members = agents.get("members") if isinstance(agents, dict) else None
    tools = KnownNames("tool", {*keys_in(data.get("tools")), *keys_in(members)})
    for key, prompt in objects_in(data.get("prompts")):
        for index, name in text_items(prompt.get("tools")):
            yield from tools.missing(name, pointer_to("/prompts", key, "tools", index))
        policy = prompt.get("tool_policy")
        for index, name in text_items(policy.get("blocklist") if isinstance(policy, dict) else None):
            if not RESERVED.fullmatch(name):
                yield from tools.missing(name, pointer_to("/prompts", key, "tool_policy", "blocklist", index))
        yield from _media_findings(prompt.get("media"), pointer_to("/prompts", key, "media"))
        yield from _repeated_evals(prompt.get("evals"), pointer_to("/prompts", key, "evals"))
        if isinstance(prompt.get("id"), str) and prompt["id"] not in {key, slug_of(key, also="_")}:
            pointer = pointer_to("/prompts", key, "id")
            yield warning_at(
                "PP402", pointer, f"it is {shown_value(prompt['id'])}, but the prompt is found by its key, {key!r}"
            )
    yield from _repeated_evals(data.get("evals"), "/evals")
    for key, tool in objects_in(data.get("tools")):
        yield from _required_properties(tool, pointer_to("/tools", key))
        if isinstance(tool.get("name"), str) and tool["name"] != key:
            pointer = pointer_to("/tools", key, "name")
            yield warning_at(
                "PP402", pointer, f"it is {shown_value(tool['name'])}, but the tool is found by its key, {key!r}"
            )


def _required_properties(tool: dict[str, Any], pointer: str) -> Iterator[Finding]:
    parameters = tool.get("parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get("properties"), dict):
        properties = KnownNames("property", parameters["properties"])
        for index, name in text_items(parameters.get("required")):
            yield from properties.missing(name, pointer_to(pointer, "parameters", "required", index))


def _media_findings(media: object, pointer: str) -> Iterator[Finding]:
    """Yield parts of examples of a type that the prompt does not support."""
    supported = {kind for _, kind in text_items(media.get("supported_types"))} if isinstance(media, dict) else set()
    if not isinstance(media, dict) or not supported:
        return
    kinds = KnownNames("supported type", {"text", *supported})
    for index, example in object_items(media.get("examples")):
        for number, part in object_items(example.get("parts")):
            if isinstance(part.get("type"), str):
                place = pointer_to(pointer, "examples", index, "parts", number, "type")
                yield from kinds.missing(part["type"], place)


def _repeated_evals(evals: object, pointer: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, each in object_items(evals):
        eval_id = each.get("id")
        if isinstance(eval_id, str) and eval_id in seen:
            yield error_at("PP203", pointer_to(pointer, index, "id"), f"duplicate eval {shown_value(eval_id)}")
        elif isinstance(eval_id, str):
            seen.add(eval_id)


def agent_references(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield errors about agents that the schema cannot express."""
    agents = data.get("agents")
    if not isinstance(agents, dict):
        return
    members = KnownNames("member", keys_in(agents.get("members")), is_required=True)
    if isinstance(agents.get("entry"), str):
        yield from members.missing(agents["entry"], "/agents/entry")
    prompts = KnownNames("prompt", keys_in(data.get("prompts")), is_required=True)
    workflow = data.get("workflow")
    states = KnownNames("state", keys_in(workflow.get("states") if isinstance(workflow, dict) else None))
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


def warning_at(code: str, pointer: str, message: str, **more: Any) -> Finding:
    """Return a warning."""
    return Finding(code, "warning", pointer, message, **more)


def error_at(code: str, pointer: str, message: str, **more: Any) -> Finding:
    """Return an error."""
    return Finding(code, "error", pointer, message, **more)


_EVENT = re.compile(r"[A-Z][A-Za-z0-9]*")
_VERSIONS = (1, 2)


def workflow_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield errors and warnings about the workflow that the schema cannot express.

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
        yield error_at("PP103", "/workflow/version", f"expected 1 or 2, found {version}", expected="1 or 2")
    names = KnownNames("state", states)
    if isinstance(workflow.get("entry"), str):
        yield from names.missing(workflow["entry"], "/workflow/entry")
    prompts = KnownNames("prompt", keys_in(data.get("prompts")), is_required=True)
    compositions = KnownNames("composition", keys_in(data.get("compositions")))
    for key, state in objects_in(states):
        pointer = pointer_to("/workflow/states", key)
        what = f"state {key!r}"
        if isinstance(state.get("prompt_task"), str):
            yield from prompts.missing(state["prompt_task"], pointer_to(pointer, "prompt_task"), what)
        yield from _use_of_composition(state, compositions, pointer, what)
        yield from _exit_findings(state, names, pointer, what)
        yield from _limit_findings(state, states, names, pointer, what)
        if version == max(_VERSIONS) and state.get("terminal") is not True and state.get("on_event") == {}:
            yield warning_at("PP405", pointer, f"{what} has no events and is not terminal")
    yield from _cycles(states)


def _use_of_composition(state: dict[str, Any], compositions: KnownNames, pointer: str, what: str) -> Iterator[Finding]:
    if not isinstance(state.get("composition"), str):
        return
    place = pointer_to(pointer, "composition")
    if state.get("orchestration") != "composition":
        hint = "set 'orchestration' to 'composition', or remove this key"
        yield error_at("PP109", place, f"{what} does not use orchestration by composition", hint=hint)
    yield from compositions.missing(state["composition"], place, what)


def _exit_findings(state: dict[str, Any], names: KnownNames, pointer: str, what: str) -> Iterator[Finding]:
    events = state.get("on_event")
    for event, target in events.items() if isinstance(events, dict) else ():
        place = pointer_to(pointer, "on_event", event)
        if isinstance(target, str):
            yield from names.missing(target, place, f"{what}, event {event!r}")
        if not _EVENT.fullmatch(event):
            suggested = "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", event))
            near = (suggested,) if _EVENT.fullmatch(suggested) else ()
            yield warning_at("PP404", place, f"{what}: event names are written like 'OrderShipped'", suggestions=near)
    if state.get("terminal") is True and events:
        yield warning_at("PP405", pointer_to(pointer, "on_event"), f"{what} is terminal, so its events have no effect")


def _limit_findings(
    state: dict[str, Any], states: Mapping[str, Any], names: KnownNames, pointer: str, what: str
) -> Iterator[Finding]:
    target = state.get("on_max_visits")
    if not isinstance(target, str):
        return
    place = pointer_to(pointer, "on_max_visits")
    yield from names.missing(target, place, what)
    after = states.get(target)
    if isinstance(after, dict) and "max_visits" in after:
        yield warning_at("PP405", place, f"{what} leads to {target!r}, which limits visits too")
    if "max_visits" not in state:
        yield warning_at("PP405", place, f"{what} has no 'max_visits', so this has no effect")


def _cycles(states: dict[str, Any]) -> Iterator[Finding]:
    """Yield one warning for each cycle of events."""
    targets = {
        key: [target for target in (state.get("on_event") or {}).values() if isinstance(target, str)]
        for key, state in objects_in(states)
        if isinstance(state.get("on_event") or {}, dict)
    }
    for cycle in cycles_of(targets):
        shown = shown_value(" → ".join([*cycle[:6], *(["…"] if len(cycle) > 6 else []), cycle[0]]))  # noqa: PLR2004 - enough to find the cycle
        yield warning_at("PP405", pointer_to("/workflow/states", cycle[0]), f"events form a cycle: {shown}")


def cycles_of(targets: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield the cycles in a graph, one for each back edge of a depth-first search, without recursion.

    >>> list(cycles_of({"a": ["b"], "b": ["c", "a"], "c": []}))
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


_STRATEGIES = ("append", "barrier", "replace")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def composition_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield errors about compositions that the schema cannot express.

    >>> pack = {"compositions": {"c": {"output": "b", "steps": [{"id": "a", "kind": "tool"}]}}}
    >>> [str(finding) for finding in composition_findings(pack)]
    ["PP201 error /compositions/c/output: there is no step 'b'"]
    """
    prompts = KnownNames("prompt", keys_in(data.get("prompts")), is_required=True)
    tools = KnownNames("tool", keys_in(data.get("tools")))
    prompt_evals = (prompt.get("evals") for _, prompt in objects_in(data.get("prompts")))
    listed = chain.from_iterable(map(object_items, (data.get("evals"), *prompt_evals)))
    evals = KnownNames("eval", {each["id"] for _, each in listed if isinstance(each.get("id"), str)})
    for name, composition in objects_in(data.get("compositions")):
        pointer = pointer_to("/compositions", name)
        if RESERVED.fullmatch(name):
            yield error_at("PP205", pointer, f"{name!r} is reserved for tools of the runtime: choose another name")
        yield from _CompositionChecker(composition, pointer, prompts, tools, evals).findings()


class _CompositionChecker:
    """Checks one composition: its steps at all levels, and their references."""

    def __init__(
        self, composition: dict[str, Any], pointer: str, prompts: KnownNames, tools: KnownNames, evals: KnownNames
    ) -> None:
        self.composition = composition
        self.pointer = pointer
        self.steps = list(_all_steps(composition.get("steps"), pointer_to(pointer, "steps")))
        self.ids = [step["id"] for _, step in self.steps if isinstance(step.get("id"), str)]
        steps = set(self.ids) if len(set(self.ids)) == len(self.ids) else set()
        self.step_names = KnownNames("step", steps, is_required=True)
        self.roots = KnownNames("step or input", steps and {"input", *steps}, is_required=True)
        self.prompts = prompts
        self.tools = tools
        self.evals = evals

    def findings(self) -> Iterator[Finding]:
        """Yield all findings."""
        seen: set[str] = set()
        for pointer, step in self.steps:
            step_id = step.get("id")
            if isinstance(step_id, str) and step_id in seen:
                yield error_at("PP203", pointer_to(pointer, "id"), f"duplicate step {shown_value(step_id)}")
            elif isinstance(step_id, str):
                seen.add(step_id)
            yield from self._references(step, pointer)
            yield from self._reducer(step.get("reduce"), pointer_to(pointer, "reduce"))
        if isinstance(self.composition.get("output"), str):
            yield from self.step_names.missing(self.composition["output"], pointer_to(self.pointer, "output"))
        if len(seen) == len(self.ids):  # a duplicate may close a cycle that is none
            yield from self._cycles()

    def _references(self, step: dict[str, Any], pointer: str) -> Iterator[Finding]:
        for key, names in (
            ("prompt_task", self.prompts),
            ("tool", self.tools),
            ("then", self.step_names),
            ("else", self.step_names),
        ):
            if isinstance(step.get(key), str):
                yield from names.missing(step[key], pointer_to(pointer, key))
        for key, names in (("tools", self.tools), ("depends_on", self.step_names)):
            for index, name in text_items(step.get(key)):
                yield from names.missing(name, pointer_to(pointer, key, index))
        modifiers = step.get("modifiers")
        for index, name in text_items(modifiers.get("eval") if isinstance(modifiers, dict) else None):
            yield from self.evals.missing(name, pointer_to(pointer, "modifiers", "eval", index))
        for key in ("input", "args", "predicate"):
            yield from self._values(step.get(key), pointer_to(pointer, key))
        termination = step.get("termination")
        if isinstance(termination, dict) and isinstance(termination.get("tool_called"), str):
            yield from self.tools.missing(termination["tool_called"], pointer_to(pointer, "termination", "tool_called"))

    def _values(self, value: object, pointer: str) -> Iterator[Finding]:
        """Yield references such as ``${step.output.field}`` whose first name is unknown."""
        if isinstance(value, str):
            for found in _REFERENCE.finditer(value):
                root = re.split(r"[.\[]", found[1].strip(), maxsplit=1)[0]
                yield from self.roots.missing(root, pointer)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from self._values(item, pointer_to(pointer, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._values(item, pointer_to(pointer, index))

    def _reducer(self, reducer: object, pointer: str) -> Iterator[Finding]:
        strategy = reducer.get("strategy") if isinstance(reducer, dict) else None
        if isinstance(strategy, str) and strategy not in _STRATEGIES:
            expected = f"one of {', '.join(_STRATEGIES)}"
            message = f"expected {expected}, found {shown_value(strategy)}"
            near = KnownNames("strategy", _STRATEGIES)
            for finding in near.missing(strategy, pointer):
                yield error_at(
                    "PP103",
                    pointer_to(pointer, "strategy"),
                    message,
                    value=shown_value(strategy),
                    expected=expected,
                    suggestions=finding.suggestions,
                )

    def _cycles(self) -> Iterator[Finding]:
        pointers = {step["id"]: pointer for pointer, step in self.steps if isinstance(step.get("id"), str)}
        for cycle in cycles_of(self._waits_for()):
            shown = " → ".join([*cycle[:6], cycle[0]])
            yield error_at("PP204", pointers[cycle[0]], f"steps depend on each other in a cycle: {shown_value(shown)}")

    def _waits_for(self) -> dict[str, list[str]]:
        """Return the dependencies of each step; without ``depends_on`` a step follows the one above it."""
        named = [step for _, step in self.steps if isinstance(step.get("id"), str)]
        waits_for = {step["id"]: [name for _, name in text_items(step.get("depends_on"))] for step in named}
        chosen: set[object] = set()
        for step in named:
            for target in (step.get("then"), step.get("else")):
                if isinstance(target, str) and target in waits_for:
                    waits_for[target].append(step["id"])
                    chosen.add(target)
        above: str | None = None
        for _, step in object_items(self.composition.get("steps")):
            step_id = step.get("id")
            if above is not None and isinstance(step_id, str) and "depends_on" not in step and step_id not in chosen:
                waits_for[step_id].append(above)
            above = step_id if isinstance(step_id, str) else above
        return waits_for


def _all_steps(steps: object, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, step in object_items(steps):
        place = pointer_to(pointer, index)
        yield place, step
        yield from _all_steps(step.get("branches"), pointer_to(place, "branches"))
