"""The pack: prompts with their shared fragments and tools, loaded from a PromptPack JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from promptkit_nb.characters import printable, terminal_text
from promptkit_nb.errors import PackValidationError, PromptNotFoundError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.dialect import LoadContext, normalize_dialect, read_syntax
from promptkit_nb.packs.display import pack_html
from promptkit_nb.packs.files import PackFile, PackSource, read_pack
from promptkit_nb.packs.findings import Findings
from promptkit_nb.packs.meaning_findings import meaning_findings, template_findings
from promptkit_nb.packs.names import Agents, Composition, Eval, TemplateEngine, Tool, Workflow
from promptkit_nb.packs.prompt import Prompt
from promptkit_nb.packs.reference_findings import agent_references, prompt_references, workflow_findings
from promptkit_nb.packs.schema import check_pack, keys_of, pointer_to
from promptkit_nb.packs.validation import check_strictly, upgraded
from promptkit_nb.text.near_names import did_you_mean, near_names

__all__ = ["Pack", "Prompt", "load_pack"]

T = TypeVar("T")

_SHOWN_NAMES = 20

_REPORTED_CODES = {"PP402", "PP403", "PP410"}  # keys and ids that differ, required with a default, unknown evals
_NOT_RUN_OF_PACK = ("evals", "workflow", "agents", "skills", "compositions")
_NOT_RUN_OF_PROMPT = ("pipeline", "validators", "evals", "media")


@dataclass(frozen=True, slots=True, repr=False)
class Pack:
    """A loaded PromptPack.

    ``prompts`` maps the names in the file to prompts, in file order. ``definition`` is the pack's JSON with the
    key names of PromptPack 1.5. ``extras`` holds values that the format has no key for, by their JSON pointer in the
    file. ``warnings`` lists conversions and sections that are not applied; each begins with a pointer.

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
        """The pack's id; if the pack has none, made from its name or file name."""
        return str(self.definition["id"])

    @property
    def name(self) -> str:
        """The pack's display name."""
        return str(self.definition["name"])

    @property
    def version(self) -> str:
        """The pack's version."""
        return str(self.definition["version"])

    @property
    def description(self) -> str:
        """The pack's purpose, ``""`` if missing."""
        return self._section("description", "")

    @property
    def template_engine(self) -> TemplateEngine:
        """The syntax of placeholders."""
        return self._section("template_engine", TemplateEngine())

    @property
    def fragments(self) -> Mapping[str, str]:
        """Shared texts, by name."""
        return self._section("fragments", {})

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The JSON of the tools, by name."""
        return self._section("tools", {})

    @property
    def evals(self) -> Sequence[Eval]:
        """Evals for all prompts; kept, but not run."""
        return self._section("evals", [])

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Free notes of the author."""
        return self._section("metadata", {})

    @property
    def compilation(self) -> Mapping[str, Any]:
        """Compiler and date of the file; empty if missing."""
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
        """Return the prompt with this name; without a name, the only prompt.

        Raises ``PromptNotFoundError``, which lists the available names.
        """
        names = sorted(self.prompts)
        if name is None:
            if len(names) == 1:
                return self.prompts[names[0]]
            raise PromptNotFoundError(
                f"Pack {self.id!r} has {len(names)} prompts: give prompt_name=, one of {', '.join(names)}."
            )
        if name in self.prompts:
            return self.prompts[name]
        question = did_you_mean(near_names(str(name), names)[:1]).removeprefix("; d")
        hint = f" D{question}" if question else ""
        raise PromptNotFoundError(f"Pack {self.id!r} has no prompt {name!r}, only {', '.join(names)}.{hint}")

    def evals_for(self, prompt_name: str) -> list[Eval]:
        """Return the evals of one prompt: its own, and the pack's with other ids."""
        own = list(self.prompt(prompt_name).evals)
        replaced = {each.get("id") for each in own}
        return [*(each for each in self.evals if each.get("id") not in replaced), *own]

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the pack's JSON, equal to the file."""
        copied: dict[str, Any] = json_copy(dict(self._read), "pack")
        return copied

    def upgrade(self) -> dict[str, Any]:
        """Return the pack's JSON as PromptPack 1.5, which ``load_pack(…, strict=True)`` accepts.

        Values that the format does not allow move to ``metadata.x_extras``, keyed by their JSON pointer. References to
        fragments get their canonical syntax, ``{{fragments.NAME}}``. Placeholders that cannot be rendered stay as they
        are: strict loading names them.

        >>> pack = load_pack({"version": "1.0", "prompts": {"chat": {"system_prompt": "You help."}}})
        >>> pack.upgrade()["prompts"]["chat"]["system_template"]
        'You help.'
        """
        return upgraded(self.definition, self.extras)

    def _section(self, key: str, absent: T) -> T:
        section: T = self.definition.get(key, absent)
        return section

    def __repr__(self) -> str:
        """Return id, version, prompts and the number of warnings."""
        warned = f"; {len(self.warnings)} warnings" if self.warnings else ""
        names = list(self.prompts)
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return terminal_text(
            f"<Pack {self.id!r} {self.version}, prompts: {', '.join(names[:_SHOWN_NAMES])}{more}{warned}>"
        )

    def _repr_html_(self) -> str:
        return pack_html(self)


def load_pack(path: PackSource, *, strict: bool = False) -> Pack:
    """Load a pack from a UTF-8 JSON file in the PromptPack format, or from a parsed dict.

    The file is read at every call. ``to_dict()`` equals the file; sections that are not applied are kept and named in
    ``warnings``. Keys of older dialects are renamed and missing keys filled in, with one warning per change. With
    ``strict=True`` these, and everything else that ``validate_pack`` reports as an error, raise instead.

    Raises ``PackNotFoundError`` with the absolute path, and ``PackValidationError`` for invalid JSON (with line and
    column), a repeated key, no prompts, a prompt without a system prompt, a known key of the wrong type, and dangling
    references of workflow or agents (with JSON pointers); if ``strict``, with all findings.

    >>> from promptkit_nb import load_pack
    >>> load_pack({"id": "mine", "prompts": {"hello": {"system_template": "You are polite."}}}).prompt("hello").name
    'hello'
    """
    file = read_pack(path)
    return _strict_pack(file) if strict else _tolerant_pack(file)


def _strict_pack(file: PackFile) -> Pack:
    warnings = [f"{finding.pointer}: {finding.text}" for finding in check_strictly(file)]
    context = LoadContext(file.data, file.where)
    context.keep_previous_extras()
    read_syntax(context)
    return _pack(context, file, [*context.warnings, *warnings])


def _tolerant_pack(file: PackFile) -> Pack:
    context = LoadContext(deepcopy(file.data), file.where, file.stem)
    normalize_dialect(context)
    check_pack(context)
    read_syntax(context)
    _check_references(context.data, file.where)
    return _pack(context, file, [*context.warnings, *_semantic_warnings(context.data)])


def _pack(context: LoadContext, file: PackFile, warnings: list[str]) -> Pack:
    definition, extras = context.data, context.extras
    own = _extras_of_prompts(extras)
    prompts = {name: Prompt.from_pack(name, definition, own.get(name, {})) for name in definition["prompts"]}
    return Pack(prompts, definition, extras, tuple(map(printable, [*warnings, *_unapplied(definition)])), file.data)


def _extras_of_prompts(extras: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the extras of each prompt, with pointers relative to the prompt."""
    found: dict[str, dict[str, Any]] = {}
    for pointer, value in extras.items():
        keys = keys_of(pointer)
        if len(keys) > 2 and keys[0] == "prompts":  # noqa: PLR2004 - the name of the prompt
            found.setdefault(keys[1], {})[pointer_to("", *keys[2:])] = value
    return found


def _check_references(data: dict[str, Any], where: str) -> None:
    """Raise for dangling references of the workflow and the agents."""
    found = [*workflow_findings(data), *agent_references(data)]
    dangling = [finding for finding in found if finding.code == "PP201"]
    if dangling:
        first = dangling[0]
        raise PackValidationError(
            f"{where} is not a valid pack: at {first.pointer}, {first.text}.", findings=Findings(dangling, where)
        )


def _unapplied(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each section that has no effect here."""
    for section in _NOT_RUN_OF_PACK:
        if data.get(section):
            yield f"/{section}: kept, but not run"
    for key, prompt in data["prompts"].items():
        for section in _NOT_RUN_OF_PROMPT:
            if prompt.get(section):
                yield f"{pointer_to('/prompts', key, section)}: kept, but not run"


def _semantic_warnings(data: dict[str, Any]) -> Iterator[str]:
    """Yield warnings about what strict loading refuses or reports, although the pack can be used."""
    for check in (prompt_references, meaning_findings, template_findings):
        for finding in check(data):
            if finding.severity == "error" or finding.code in _REPORTED_CODES:
                yield f"{finding.pointer}: {finding.text}"
