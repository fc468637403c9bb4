"""What is wrong with compositions beyond their shape: steps that are not there, twice there, or wait for each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.reference_findings import Names, keys_in, mistake, object_items, objects_in, text_items
from promptkit_nb.packs.schema import pointer_to
from promptkit_nb.packs.workflow_findings import circles_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVED = re.compile(r"(?:workflow|skill|memory|a2a|mcp|composition)__.*")
_STRATEGIES = ("append", "barrier", "replace")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def composition_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the schema cannot say about the compositions.

    >>> pack = {"compositions": {"c": {"output": "b", "steps": [{"id": "a", "kind": "tool"}]}}}
    >>> [str(finding) for finding in composition_findings(pack)]
    ["PP201 error /compositions/c/output: there is no step 'b'"]
    """
    prompts, tools = Names("prompt", keys_in(data.get("prompts"))), Names("tool", keys_in(data.get("tools")))
    for name, composition in objects_in(data.get("compositions")):
        pointer = pointer_to("/compositions", name)
        if RESERVED.fullmatch(name):
            yield mistake("PP205", pointer, f"{name!r} is reserved for the runtime's own tools: choose another name")
        yield from _Composition(composition, pointer, prompts, tools).findings()


class _Composition:
    """One composition, its steps at all levels, and what they may refer to."""

    def __init__(self, composition: dict[str, Any], pointer: str, prompts: Names, tools: Names) -> None:
        self.composition = composition
        self.pointer = pointer
        self.steps = list(_all_steps(composition.get("steps"), pointer_to(pointer, "steps")))
        self.ids = [step["id"] for _, step in self.steps if isinstance(step.get("id"), str)]
        self.step_names = Names("step", set(self.ids))
        self.roots = Names("step or input", {"input", *self.ids})
        self.prompts = prompts
        self.tools = tools

    def findings(self) -> Iterator[Finding]:
        """Yield all of them."""
        seen: set[str] = set()
        for pointer, step in self.steps:
            step_id = step.get("id")
            if isinstance(step_id, str) and step_id in seen:
                yield mistake("PP203", pointer_to(pointer, "id"), f"there is a step {shown_value(step_id)} already")
            elif isinstance(step_id, str):
                seen.add(step_id)
            yield from self._references(step, pointer)
            yield from self._reducer(step.get("reduce"), pointer_to(pointer, "reduce"))
        if isinstance(self.composition.get("output"), str):
            yield from self.step_names.missing(self.composition["output"], pointer_to(self.pointer, "output"))
        yield from self._circles()

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
        for key in ("input", "args", "predicate"):
            yield from self._values(step.get(key), pointer_to(pointer, key))
        termination = step.get("termination")
        if isinstance(termination, dict) and isinstance(termination.get("tool_called"), str):
            yield from self.tools.missing(termination["tool_called"], pointer_to(pointer, "termination", "tool_called"))

    def _values(self, value: object, pointer: str) -> Iterator[Finding]:
        """Yield the references in a value, ``${step.output.field}``, whose first name is unknown."""
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
            near = Names("strategy", _STRATEGIES)
            for finding in near.missing(strategy, pointer):
                yield mistake(
                    "PP103",
                    pointer_to(pointer, "strategy"),
                    message,
                    value=shown_value(strategy),
                    expected=expected,
                    suggestions=finding.suggestions,
                )

    def _circles(self) -> Iterator[Finding]:
        pointers = {step["id"]: pointer for pointer, step in self.steps if isinstance(step.get("id"), str)}
        for circle in circles_of(self._waits_for()):
            shown = " → ".join([*circle[:6], circle[0]])
            yield mistake("PP204", pointers[circle[0]], f"steps wait for each other in a circle: {shown_value(shown)}")

    def _waits_for(self) -> dict[str, list[str]]:
        """Return for each step those that come before it: a step without a word on that follows the one above it."""
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
