"""What templates ask for and nobody declares, what is declared and never asked for, and blocks, which stay text."""

from __future__ import annotations

from collections import ChainMap
from itertools import chain
from typing import TYPE_CHECKING, Any

from promptkit_nb.packs.findings import Finding, shown_value
from promptkit_nb.packs.reference_findings import doubt, object_items, objects_in, texts_in
from promptkit_nb.packs.schema import pointer_to
from promptkit_nb.packs.suggestions import Suggestions
from promptkit_nb.packs.templates import BLOCK, PLACEHOLDER, placeholders_in, reachable
from promptkit_nb.packs.time_names import TIME_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Filled by whoever runs the prompt, without being declared.
WELL_KNOWN = frozenset({"input", "workflow_context", *TIME_NAMES})
_TEMPLATES = ("system_template", "system_template_prefix", "system_template_suffix")


def template_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield doubts about the templates, fragments and default texts of a pack.

    >>> pack = {"prompts": {"a": {"system_template": "{{topc}}", "variables": [{"name": "topic"}]}}}
    >>> [finding.text for finding in template_findings(pack)][0]
    "{{topc}} at character 1 is declared nowhere; did you mean 'topic'?"
    """
    checker = _Checker(dict(texts_in(data.get("fragments"))))
    for key, prompt in objects_in(data.get("prompts")):
        yield from checker.prompt_findings(prompt, pointer_to("/prompts", key))
    for key, text in checker.fragments.items():
        yield from _block_findings(text, pointer_to("/fragments", key))


class _Checker:
    """The fragments, which all prompts share, and what was told of them already."""

    def __init__(self, fragments: dict[str, str]) -> None:
        self.fragments = fragments
        self._suggestions = Suggestions()
        self._told: set[tuple[str, str]] = set()

    def prompt_findings(self, prompt: dict[str, Any], pointer: str) -> Iterator[Finding]:
        """Yield what concerns one prompt, and the fragments and defaults that it uses."""
        declared = {
            variable["name"]: (pointer_to(pointer, "variables", index), variable.get("default"))
            for index, variable in object_items(prompt.get("variables"))
            if isinstance(variable.get("name"), str)
        }
        defaults = {name: default for name, (_, default) in declared.items() if isinstance(default, str)}
        templates = dict(_templates_of(prompt, pointer))
        for place, text in templates.items():
            yield from self._placeholder_findings(text, place, declared)
            yield from _block_findings(text, place)
        texts = ChainMap(self.fragments, defaults)
        used = set(chain.from_iterable(map(placeholders_in, templates.values())))
        for name in sorted(reachable(templates.values(), texts)):
            used |= placeholders_in(texts[name])
            in_fragment = name in self.fragments
            place = pointer_to("/fragments", name) if in_fragment else pointer_to(declared[name][0], "default")
            yield from self._placeholder_findings(texts[name], place, declared)
        for name, (place, _) in declared.items() if templates else ():
            if name not in used:
                yield doubt("PP401", place, f"variable {name!r} is used in no template")

    def _placeholder_findings(self, text: str, pointer: str, declared: Mapping[str, object]) -> Iterator[Finding]:
        for found in PLACEHOLDER.finditer(text):
            name = found[1]
            if name in declared or name in self.fragments or name in WELL_KNOWN or name.startswith("artifacts."):
                continue
            if (pointer, name) in self._told:
                continue
            self._told.add((pointer, name))
            near = self._suggestions.near(name, chain(declared, self.fragments, WELL_KNOWN))
            message = f"{{{{{name}}}}} at character {found.start() + 1} is declared nowhere"
            yield doubt("PP400", pointer, message, value=f"{{{{{name}}}}}", suggestions=near)


def _templates_of(prompt: dict[str, Any], pointer: str) -> Iterator[tuple[str, str]]:
    for key, text in texts_in(prompt):
        if key in _TEMPLATES:
            yield pointer_to(pointer, key), text
    for model, override in objects_in(prompt.get("model_overrides")):
        for key, text in texts_in(override):
            if key in _TEMPLATES:
                yield pointer_to(pointer, "model_overrides", model, key), text


def _block_findings(text: str, pointer: str) -> Iterator[Finding]:
    found = BLOCK.search(text)
    if found:
        block = shown_value(found[0])
        message = f"{block} at character {found.start() + 1}: blocks are not supported, only {{{{name}}}}"
        yield doubt("PP406", pointer, message, value=block)
