"""The prompt: a system prompt template with variables, one entry of a pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from promptkit_nb.characters import terminal_text
from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs import templates
from promptkit_nb.packs.dialect import LoadContext, templates_in
from promptkit_nb.packs.display import prompt_html, shown_variable
from promptkit_nb.packs.names import STOP_SEQUENCES, Eval, ModelOverride, Parameters, Tool, ToolPolicy, Validator
from promptkit_nb.packs.schema import check_prompt, object_items
from promptkit_nb.packs.variables import Variable, bound_values
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self


T = TypeVar("T")

_SHORT_NAME = 3
_SHOWN_CHARACTERS = 60
_WHOLE_NUMBERS = ("max_tokens", "top_k")
_CHECKED = "placeholders"  # in snapshots since unsupported placeholders are errors


@dataclass(frozen=True, slots=True)
class RenderReport:
    """A rendered system prompt and what went into it.

    ``prompt_hash`` is the SHA-256 of the text in hex. ``used`` lists the variables in the text, ``unused`` the given
    ones that are not, both sorted. ``fragments`` lists the fragments in the text, ``passes`` is the nesting depth.
    ``warnings`` describes double braces that an older conversation still sends.
    """

    text: str
    prompt_hash: str
    used: tuple[str, ...]
    unused: tuple[str, ...]
    fragments: tuple[str, ...]
    passes: int
    warnings: tuple[str, ...] = ()


def report_of(
    template: str,
    *,
    declared: Sequence[Variable],
    fragments: Mapping[str, str],
    given: Mapping[str, object],
    clock: Callable[[], datetime],
    where: str,
    keep_unsupported: bool = False,
) -> RenderReport:
    """Render the template; precedence rises from defaults to fragments, the time and the given values.

    ``where`` begins error messages. Raises the errors of ``Prompt.render``.
    """
    defaults = {variable.name: variable.default for variable in declared if variable.default is not None}
    shared = templates.fragment_texts(fragments)
    texts = {name: text for name, text in defaults.items() if isinstance(text, str)} | shared
    plain = {name: value for name, value in defaults.items() if name not in texts}
    asked = _names_in(template, texts)
    _refuse_misspelled(given, {*asked, *(variable.name for variable in declared)}, where)
    time = templates.time_values(clock()) if asked & templates.TIME_NAMES else {}
    values = plain | dict(time) | bound_values(declared, given)
    rendered = templates.render(
        template,
        texts=texts,
        values=values,
        required=[variable.name for variable in declared if variable.required],
        where=where,
        keep_unsupported=keep_unsupported,
    )
    included = rendered.used & (shared.keys() - values.keys())
    return RenderReport(
        rendered.text,
        sha256(rendered.text.encode("utf-8", "surrogatepass")).hexdigest(),
        tuple(sorted(rendered.used - included)),
        tuple(sorted(given.keys() - rendered.used)),
        tuple(name for name in fragments if included & {name, f"{templates.FRAGMENTS}{name}"}),
        rendered.passes,
        rendered.unsupported,
    )


def _names_in(template: str, texts: Mapping[str, str]) -> frozenset[str]:
    """Return all names that the template uses, directly or through other texts of the pack."""
    used = templates.reachable([template], texts)
    return templates.placeholders_in(template).union(*(templates.placeholders_in(texts[name]) for name in used))


def _refuse_misspelled(given: Mapping[str, object], known: set[str], where: str) -> None:
    """Raise for an unknown name close to one without a value: the answer would use the wrong prompt."""
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    for name in unknown:
        near = [
            other
            for other in near_names(name, known - given.keys())
            if len(other) > _SHORT_NAME or other.casefold() == name.casefold()
        ]
        if near:
            raise MissingVariableError(
                f"{where} has no variable {name!r}{did_you_mean(near)} Rename it, or give {near[0]!r} too."
            )


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """One prompt of a pack: ``name`` is its key there, ``definition`` its JSON in PromptPack 1.5.

    ``fragments`` holds the pack's fragments that this prompt uses, ``pack_tools`` the JSON of the pack's tools.
    ``extras`` holds values that the format has no key for, by their JSON pointer within the prompt.

    >>> from promptkit_nb import Prompt
    >>> prompt = Prompt("tutor", {"system_template": "You teach {{subject}}."})
    >>> prompt.render({"subject": "algebra"})
    'You teach algebra.'
    """

    name: str
    definition: Mapping[str, Any]
    fragments: Mapping[str, str] = field(default_factory=dict)
    pack_id: str = ""
    pack_version: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    _keep_unsupported: bool = field(default=False, repr=False)
    pack_tools: Mapping[str, Tool] = field(default_factory=dict)

    @classmethod
    def from_pack(cls, name: str, pack: Mapping[str, Any], extras: Mapping[str, Any]) -> Self:
        """Return a prompt from the JSON of a pack, whose shape was checked."""
        definition = pack["prompts"][name]
        fragments = _fragments_of(definition, pack.get("fragments") or {})
        tools = pack.get("tools") or {}
        return cls(name, definition, fragments, pack["id"], pack["version"], extras, pack_tools=tools)

    @classmethod
    def from_snapshot(cls, data: Mapping[str, Any]) -> Self:
        """Return the prompt from its ``snapshot``; raise ``PackValidationError`` if it is not one.

        Snapshots that older versions stored without the key ``placeholders`` keep double braces that are not a
        placeholder in the text, so that their conversations can continue; ``report`` warns about them.
        """
        where = "The stored prompt"
        try:
            name, pack_id, pack_version = data["name"], data["pack_id"], data["pack_version"]
            context = LoadContext(deepcopy(dict(data["prompt"])), where)
            fragments, extras = data["fragments"], data.get("extras", {})
            is_older = _CHECKED not in data
        except (KeyError, TypeError, ValueError) as error:
            raise PackValidationError(
                f"{where} is not a snapshot of a prompt: {error}. Give the pack again."
            ) from error
        check_prompt(context)
        tools = data.get("tools", {})
        return cls(name, context.data, fragments, pack_id, pack_version, extras, is_older, tools)

    @property
    def id(self) -> str:
        """The prompt's id, usually its name in the pack."""
        return self._section("id", self.name)

    @property
    def version(self) -> str:
        """The prompt's version, ``""`` if missing."""
        return self._section("version", "")

    @property
    def description(self) -> str:
        """The prompt's purpose, ``""`` if missing."""
        return self._section("description", "")

    @property
    def system_template(self) -> str:
        """The system prompt with placeholders."""
        return str(self.definition["system_template"])

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The declared variables, in file order."""
        return tuple(map(Variable.from_pack, self.definition.get("variables") or ()))

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that the prompt may use."""
        return tuple(self.definition.get("tools") or ())

    @property
    def lists_tools(self) -> bool:
        """Whether the prompt says which tools it may use; others are then not offered."""
        return self.definition.get("tools") is not None

    @property
    def tool_policy(self) -> ToolPolicy:
        """Rules for tools; empty if missing."""
        return self._section("tool_policy", ToolPolicy())

    @property
    def parameters(self) -> Parameters:
        """Parameters for every model, such as ``{"temperature": 0.2}``."""
        return self._section("parameters", Parameters())

    @property
    def model_overrides(self) -> Mapping[str, ModelOverride]:
        """Changes for some models, by model name or pattern with ``*``."""
        return self._section("model_overrides", {})

    @property
    def validators(self) -> Sequence[Validator]:
        """Checks of responses; kept, but not run."""
        return self._section("validators", [])

    @property
    def evals(self) -> Sequence[Eval]:
        """The prompt's own evals; kept, but not run."""
        return self._section("evals", [])

    @property
    def media(self) -> Mapping[str, Any]:
        """Accepted media, empty if missing; kept, but not applied."""
        return self._section("media", {})

    @property
    def tested_models(self) -> Sequence[Mapping[str, Any]]:
        """The models that the author tested, with results."""
        return self._section("tested_models", [])

    def render(
        self,
        variables: Mapping[str, object],
        *,
        model: str | None = None,
        clock: Callable[[], datetime] = templates.local_time,
    ) -> str:
        """Return the system prompt for this model with the variables filled in.

        Precedence rises from defaults to fragments, the time by ``clock`` (``current_time``, ``current_date``,
        ``current_year``, ``current_month``, ``current_weekday``, ``current_hour``) and ``variables``, which are
        inserted literally. Names that the prompt does not use are allowed, unless they look like a misspelled variable.

        Raises ``MissingVariableError`` for names without a value and for misspelled names, and ``PackValidationError``
        for a value that breaks the rules of its variable, for a fragment that does not exist, and for double braces in
        the pack's texts that are not a placeholder, such as ``{{name | upper}}``.
        """
        return self.report(variables, model=model, clock=clock).text

    def report(
        self,
        variables: Mapping[str, object],
        *,
        model: str | None = None,
        clock: Callable[[], datetime] = templates.local_time,
    ) -> RenderReport:
        """Return the rendered system prompt and what went into it; arguments and errors as for ``render``.

        >>> prompt = Prompt("tutor", {"system_template": "You teach {{subject}}."})
        >>> prompt.report({"subject": "algebra", "mood": "calm"}).unused
        ('mood',)
        """
        return report_of(
            self._template_for(model),
            declared=self.variables,
            fragments=self.fragments,
            given=variables,
            clock=clock,
            where=f"Prompt {self.name!r}",
            keep_unsupported=self._keep_unsupported,
        )

    def _section(self, key: str, absent: T) -> T:
        section: T = self.definition.get(key) or absent
        return section

    def parameters_for(self, model: str | None) -> dict[str, Any]:
        """Return the parameters for this model; overrides win key by key, and null removes a parameter.

        The override with the exact model name applies, else the one with the longest matching pattern, such as
        ``"gpt-4o*"``. ``stop`` comes from the ``stop_sequences`` of older packs.

        >>> definition = {"system_template": "Hi", "parameters": {"temperature": 1, "top_p": 0.9},
        ...               "model_overrides": {"gpt-4o": {"parameters": {"temperature": 0}}}}
        >>> Prompt("a", definition).parameters_for("gpt-4o")
        {'temperature': 0, 'top_p': 0.9}
        """
        merged: dict[str, Any] = {**self.parameters, **(self._override(model).get("parameters") or {})}
        for name in _WHOLE_NUMBERS:
            if isinstance(merged.get(name), float):
                merged[name] = int(merged[name])  # JSON's 600.0
        return {name: value for name, value in {**merged, **self._stop()}.items() if value is not None}

    def snapshot(self) -> dict[str, object]:
        """Return JSON values that a conversation stores to continue without the pack file.

        These are the prompt's JSON and name, its fragments and tools, and the pack's id and version.
        """
        kept = {
            "name": self.name,
            "pack_id": self.pack_id,
            "pack_version": self.pack_version,
            "prompt": dict(self.definition),
            "fragments": dict(self.fragments),
        }
        if self.extras:
            kept["extras"] = dict(self.extras)
        if self.tools and self.pack_tools:
            kept["tools"] = {name: self.pack_tools[name] for name in self.tools if name in self.pack_tools}
        if not self._keep_unsupported:
            kept[_CHECKED] = "checked"
        copied: dict[str, object] = json_copy(kept, "prompt")
        return copied

    def _override(self, model: str | None) -> ModelOverride:
        overrides = self.model_overrides
        if model is None or not overrides:
            return {}
        if model in overrides:
            return overrides[model] or {}
        fitting = [name for name in overrides if "*" in name and fnmatchcase(model, _pattern(name))]
        return overrides[max(fitting, key=len)] if fitting else {}

    def _stop(self) -> dict[str, Any]:
        """Return the stop sequences of older packs as request parameters."""
        for place in ("/parameters/", "/model_config/"):
            sequences = self.extras.get(f"{place}{STOP_SEQUENCES}")
            if sequences and isinstance(sequences, (str, list)):
                return {"stop": sequences}
        return {}

    def _template_for(self, model: str | None) -> str:
        override = self._override(model)
        replaced = override.get("system_template")
        base = self.system_template if replaced is None else replaced
        return f"{override.get('system_template_prefix') or ''}{base}{override.get('system_template_suffix') or ''}"

    def __repr__(self) -> str:
        """Return name, variables and the beginning of the system prompt."""
        text = " ".join(self.system_template.split())
        cut = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
        variables = ", ".join(map(shown_variable, self.variables)) or "none"
        return terminal_text(f"<Prompt {self.name!r}, variables: {variables}; {cut!r}>")

    def _repr_html_(self) -> str:
        return prompt_html(self)


def is_stored(prompt: Prompt, stored: Mapping[str, Any] | None) -> bool:
    """Return whether a conversation has this snapshot of the prompt, written by this version or an older one."""
    return stored is not None and {**prompt.snapshot(), _CHECKED: ""} == {**stored, _CHECKED: ""}


def _texts_of(definition: Mapping[str, Any]) -> list[str]:
    """Return all templates and default texts of a prompt."""
    defaults = (variable.get("default") for _, variable in object_items(definition.get("variables")))
    return [text for _, text in templates_in(definition)] + [text for text in defaults if isinstance(text, str)]


def _fragments_of(definition: Mapping[str, Any], fragments: Mapping[str, str]) -> dict[str, str]:
    """Return the fragments that a prompt uses, and near matches of those that do not exist, for the error message."""
    found: set[str] = set()
    waiting = _texts_of(definition)
    while waiting:
        for name in templates.placeholders_in(waiting.pop()):
            key = name if name in fragments else name.removeprefix(templates.FRAGMENTS)
            if key in fragments and key not in found:
                found.add(key)
                waiting.append(fragments[key])
            elif key != name and key not in fragments:
                found.update(near_names(key, fragments))
    return {name: fragments[name] for name in sorted(found)}


def _pattern(name: str) -> str:
    """Return the name as a pattern in which only the star is special."""
    return name.replace("[", "[[]").replace("?", "[?]")
