"""The pack: prompts, with the fragments and tools they share, read from a PromptPack JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from promptkit_nb.errors import PackValidationError, PromptNotFoundError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.dialect import Reading, read_dialect
from promptkit_nb.packs.display import pack_html
from promptkit_nb.packs.files import read_pack
from promptkit_nb.packs.findings import Findings
from promptkit_nb.packs.names import TemplateEngine, slug_of
from promptkit_nb.packs.prompt import Prompt
from promptkit_nb.packs.reference_findings import agent_references, workflow_findings
from promptkit_nb.packs.schema import check_pack, keys_of, pointer_to
from promptkit_nb.packs.validation import check_strictly, upgraded
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb.packs.files import PackFile, PackSource
    from promptkit_nb.packs.names import Agents, Composition, Eval, Tool, Workflow

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


__all__ = ["Pack", "Prompt", "load_pack"]

T = TypeVar("T")

_SHOWN_NAMES = 20


@dataclass(frozen=True, slots=True, repr=False)
class Pack:
    """A PromptPack as it was read.

    ``prompts`` are by the name they have in the file, in its order. ``definition`` is the pack's JSON as it is
    understood: what older dialects call otherwise has today's name. ``extras`` are values that have no place in the
    format, by their JSON pointer in the file. ``warnings`` say what was read as something else and what is not applied,
    each beginning with a pointer.

    >>> from promptkit_nb import load_pack
    >>> pack = load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach {{subject}}."}}})
    >>> pack.prompt().render({"subject": "algebra"})
    'You teach algebra.'
    """

    prompts: Mapping[str, Prompt]
    definition: Mapping[str, Any]
    extras: Mapping[str, Any]
    warnings: tuple[str, ...]
    _read: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """The pack's id; made from its name or its file's where it has none."""
        return str(self.definition["id"])

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.definition["name"])

    @property
    def version(self) -> str:
        """The pack's version."""
        return str(self.definition["version"])

    @property
    def description(self) -> str:
        """What the pack is for, ``""`` where it does not say."""
        return self._section("description", "")

    @property
    def template_engine(self) -> TemplateEngine:
        """How placeholders are written."""
        return self._section("template_engine", TemplateEngine())

    @property
    def fragments(self) -> Mapping[str, str]:
        """Texts that the prompts share, by name."""
        return self._section("fragments", {})

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools' JSON, by name."""
        return self._section("tools", {})

    @property
    def evals(self) -> Sequence[Eval]:
        """The evals for all prompts; kept, but not run."""
        return self._section("evals", [])

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Whatever the author noted."""
        return self._section("metadata", {})

    @property
    def compilation(self) -> Mapping[str, Any]:
        """What made the file, and when; empty where the pack does not say."""
        return self._section("compilation", {})

    @property
    def workflow(self) -> Workflow | None:
        """The workflow; kept, but not run."""
        return self._section("workflow", None)

    @property
    def agents(self) -> Agents | None:
        """The agents; kept, but not run."""
        return self._section("agents", None)

    @property
    def skills(self) -> Sequence[str | Mapping[str, Any]]:
        """The skills; kept, but not loaded."""
        return self._section("skills", [])

    @property
    def compositions(self) -> Mapping[str, Composition]:
        """The compositions, by name; kept, but not run."""
        return self._section("compositions", {})

    def prompt(self, name: str | None = None) -> Prompt:
        """Return the prompt of this name; without a name the only one.

        Raises ``PromptNotFoundError`` listing the names there are.
        """
        names = sorted(self.prompts)
        if name is None:
            if len(names) == 1:
                return self.prompts[names[0]]
            raise PromptNotFoundError(
                f"Pack {self.id!r} has {len(names)} prompts, so say which: prompt_name= one of {', '.join(names)}."
            )
        if name in self.prompts:
            return self.prompts[name]
        question = did_you_mean(near_names(str(name), names)[:1]).removeprefix("; d")
        hint = f" D{question}" if question else ""
        raise PromptNotFoundError(f"Pack {self.id!r} has no prompt {name!r}, only {', '.join(names)}.{hint}")

    def evals_for(self, prompt_name: str) -> list[Eval]:
        """Return the evals of one prompt: the pack's, save those that the prompt replaces by one of the same id."""
        own = list(self.prompt(prompt_name).evals)
        replaced = {each.get("id") for each in own}
        return [*(each for each in self.evals if each.get("id") not in replaced), *own]

    def to_dict(self) -> dict[str, Any]:
        """Return the pack's JSON, equal to what was read, as a fresh copy."""
        copied: dict[str, Any] = json_copy(dict(self._read), "pack")
        return copied

    def upgrade(self) -> dict[str, Any]:
        """Return the pack's JSON as PromptPack 1.5, which ``load_pack(…, strict=True)`` accepts.

        What the format has no place for, or refuses, stands in ``metadata.x_extras`` under its JSON pointer.

        >>> pack = load_pack({"version": "1.0", "prompts": {"chat": {"system_prompt": "You help."}}})
        >>> pack.upgrade()["prompts"]["chat"]["system_template"]
        'You help.'
        """
        return upgraded(self.definition, self.extras)

    def _section(self, key: str, absent: T) -> T:
        section: T = self.definition.get(key, absent)
        return section

    def __repr__(self) -> str:
        """Say what is in it."""
        warned = f"; {len(self.warnings)} warnings" if self.warnings else ""
        names = list(self.prompts)
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return f"<Pack {self.id!r} {self.version}, prompts: {', '.join(names[:_SHOWN_NAMES])}{more}{warned}>"

    def _repr_html_(self) -> str:
        return pack_html(self)


def load_pack(path: PackSource, *, strict: bool = False) -> Pack:
    """Return the pack in this file, or in a dict already parsed.

    The file is UTF-8 JSON in PromptPack's format, and is read anew at every call. Nothing is lost: ``to_dict()`` equals
    what was read. Sections that are not applied are kept, and ``warnings`` says so.

    What older documentation calls otherwise, or leaves out, is understood, with one warning for each change. With
    ``strict=True`` it is refused, as is everything else that ``validate_pack`` calls an error.

    Raises ``PackNotFoundError`` with the absolute path, and ``PackValidationError`` for what is no JSON (line and
    column), for a key twice in one object, no prompts, a prompt without a system prompt, a known key of the wrong type,
    a workflow or an agent that refers to nothing (its JSON pointer), or with all findings where ``strict``.

    >>> from promptkit_nb import load_pack
    >>> load_pack({"id": "mine", "prompts": {"hello": {"system_template": "You are polite."}}}).prompt("hello").name
    'hello'
    """
    file = read_pack(path)
    return _strict_pack(file) if strict else _tolerant_pack(file)


def _strict_pack(file: PackFile) -> Pack:
    told = [f"{finding.pointer}: {finding.text}" for finding in check_strictly(file)]
    reading = Reading(file.data, file.where)
    reading.keep_former_extras()
    return _pack(reading, file, told)


def _tolerant_pack(file: PackFile) -> Pack:
    reading = Reading(deepcopy(file.data), file.where, file.stem)
    read_dialect(reading)
    check_pack(reading)
    _check_references(reading.data, file.where)
    return _pack(reading, file, [*reading.warnings, *doubts(reading.data)])


def _pack(reading: Reading, file: PackFile, warnings: list[str]) -> Pack:
    definition, extras = reading.data, reading.extras
    own = _extras_of_prompts(extras)
    prompts = {name: Prompt.from_pack(name, definition, own.get(name, {})) for name in definition["prompts"]}
    return Pack(prompts, definition, extras, (*warnings, *not_run(definition)), file.data)


def _extras_of_prompts(extras: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what belongs to each prompt, by pointers that begin at the prompt."""
    found: dict[str, dict[str, Any]] = {}
    for pointer, value in extras.items():
        keys = keys_of(pointer)
        if len(keys) > 2 and keys[0] == "prompts":  # noqa: PLR2004 - and the prompt's name
            found.setdefault(keys[1], {})[pointer_to("", *keys[2:])] = value
    return found


def _check_references(data: dict[str, Any], where: str) -> None:
    """Refuse a workflow or agents that refer to nothing: they would not be what their author meant."""
    found = [*workflow_findings(data), *agent_references(data)]
    dangling = [finding for finding in found if finding.code == "PP201"]
    if dangling:
        first = dangling[0]
        raise PackValidationError(
            f"{where} is no valid pack: at {first.pointer}, {first.text}.", findings=Findings(dangling, where)
        )
