"""The prompt: a system prompt with variables, as one entry of a pack declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from promptkit_nb.codec import json_copy
from promptkit_nb.errors import PackValidationError
from promptkit_nb.pack_format import PROMPT, check_shape
from promptkit_nb.templates import reachable, render
from promptkit_nb.variables import Variable, bound_values

if TYPE_CHECKING:
    from typing import Self

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """One prompt of a pack: ``name`` is its key there, ``definition`` its JSON as it stands in the pack.

    ``fragments`` are those of the pack's texts that this prompt uses.

    >>> prompt = Prompt("tutor", {"system_template": "You teach {{subject}}."})
    >>> prompt.render({"subject": "algebra"})
    'You teach algebra.'
    """

    name: str
    definition: Mapping[str, Any]
    fragments: Mapping[str, str] = field(default_factory=dict)
    pack_id: str = ""
    pack_version: str = ""

    @classmethod
    def from_pack(cls, name: str, pack: Mapping[str, Any]) -> Self:
        """Return the prompt of this name from a pack's JSON, its shape checked before."""
        definition = pack["prompts"][name]
        fragments = pack.get("fragments") or {}
        used = reachable(_texts_of(definition), fragments)
        return cls(
            name,
            definition,
            {key: text for key, text in fragments.items() if key in used},
            pack.get("id") or "",
            pack.get("version") or "",
        )

    @classmethod
    def from_snapshot(cls, data: Mapping[str, Any]) -> Self:
        """Return the prompt that ``snapshot`` kept; ``PackValidationError`` where it is none."""
        where = "The stored prompt"
        try:
            prompt = cls(data["name"], data["prompt"], data["fragments"], data["pack_id"], data["pack_version"])
        except (KeyError, TypeError) as error:
            raise PackValidationError(f"{where} is no snapshot of a prompt: {error}. Give the pack again.") from error
        check_shape(prompt.definition, PROMPT, where)
        return prompt

    @property
    def id(self) -> str:
        """The prompt's own id, which should be its name in the pack."""
        return self.definition.get("id") or self.name

    @property
    def version(self) -> str:
        """The prompt's version, ``""`` where the pack gives none."""
        return self.definition.get("version") or ""

    @property
    def description(self) -> str:
        """What the prompt is for, ``""`` where the pack does not say."""
        return self.definition.get("description") or ""

    @property
    def system_template(self) -> str:
        """The system prompt with its placeholders."""
        return str(self.definition["system_template"])

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The declared variables, in the pack's order."""
        return tuple(map(Variable.from_pack, self.definition.get("variables") or ()))

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that the prompt may use."""
        return tuple(self.definition.get("tools") or ())

    @property
    def tool_policy(self) -> Mapping[str, Any]:
        """How tools may be used; empty where the pack does not say."""
        return self.definition.get("tool_policy") or {}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What goes to every model with the request, such as ``{"temperature": 0.2}``."""
        return self.definition.get("parameters") or {}

    @property
    def model_overrides(self) -> Mapping[str, Mapping[str, Any]]:
        """What differs for single models, by their exact names."""
        return self.definition.get("model_overrides") or {}

    def render(self, variables: Mapping[str, object], *, model: str | None = None) -> str:
        """Return the system prompt for this model, with the variables filled in.

        Defaults give way to fragments, and fragments to ``variables``. Those are inserted literally. Names that the
        prompt does not use are allowed.

        Raises ``MissingVariableError`` naming all that have no value, and ``PackValidationError`` for a value that
        breaks its variable's rules.
        """
        declared = self.variables
        defaults = {variable.name: variable.default for variable in declared if variable.default is not None}
        texts = {name: text for name, text in defaults.items() if isinstance(text, str)} | dict(self.fragments)
        plain = {name: value for name, value in defaults.items() if name not in texts}
        return render(
            self._template_for(model),
            texts=texts,
            values=plain | bound_values(declared, variables),
            required=[variable.name for variable in declared if variable.required],
            where=f"Prompt {self.name!r}",
        )

    def parameters_for(self, model: str | None) -> dict[str, Any]:
        """Return the parameters for this model: its overrides win key by key, and null unsets one.

        >>> definition = {"system_template": "Hi", "parameters": {"temperature": 1, "top_p": 0.9},
        ...               "model_overrides": {"gpt-4o": {"parameters": {"temperature": 0}}}}
        >>> Prompt("a", definition).parameters_for("gpt-4o")
        {'temperature': 0, 'top_p': 0.9}
        """
        merged = {**self.parameters, **(self._override(model).get("parameters") or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def snapshot(self) -> dict[str, object]:
        """Return, as JSON values, what a conversation keeps to go on without the pack file.

        The prompt's JSON as it stands in the pack, its name there, the fragments it uses, the pack's id and version.
        """
        kept = {
            "name": self.name,
            "pack_id": self.pack_id,
            "pack_version": self.pack_version,
            "prompt": dict(self.definition),
            "fragments": dict(self.fragments),
        }
        copied: dict[str, object] = json_copy(kept, "prompt")
        return copied

    def _override(self, model: str | None) -> Mapping[str, Any]:
        return {} if model is None else self.model_overrides.get(model) or {}

    def _template_for(self, model: str | None) -> str:
        override = self._override(model)
        replaced = override.get("system_template")
        base = self.system_template if replaced is None else replaced
        return f"{override.get('system_template_prefix') or ''}{base}{override.get('system_template_suffix') or ''}"

    def __repr__(self) -> str:
        """Say what is in it."""
        text = " ".join(self.system_template.split())
        cut = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
        variables = ", ".join(map(_shown_variable, self.variables)) or "none"
        return f"<Prompt {self.name!r}, variables: {variables}; {cut!r}>"

    def _repr_html_(self) -> str:
        facts = [("variables", ", ".join(map(_shown_variable, self.variables))), ("tools", ", ".join(self.tools))]
        facts += [("parameters", ", ".join(f"{name} {value}" for name, value in self.parameters.items()))]
        lines = "".join(f"<br>{label}: {escape(text)}" for label, text in facts if text)
        described = f" — {escape(self.description)}" if self.description else ""
        return (
            f"<div><strong>{escape(self.name)}</strong>{described}{lines}"
            f'<pre style="white-space: pre-wrap">{escape(self.system_template)}</pre></div>'
        )


def _texts_of(definition: Mapping[str, Any]) -> list[str]:
    """Return all texts of a prompt in which placeholders are filled."""
    templates = [definition, *(definition.get("model_overrides") or {}).values()]
    keys = ("system_template", "system_template_prefix", "system_template_suffix")
    texts = [template.get(key) for template in templates for key in keys]
    texts += [variable.get("default") for variable in definition.get("variables") or ()]
    return [text for text in texts if isinstance(text, str)]


def _shown_variable(variable: Variable) -> str:
    if variable.default is not None:
        return f"{variable.name}={variable.default!r:.40}"
    return f"{variable.name} (required)" if variable.required else variable.name
