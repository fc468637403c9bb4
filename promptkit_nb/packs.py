"""The pack: prompts, with the fragments and tools they share, read from a PromptPack JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING, Any

from promptkit_nb.codec import json_copy
from promptkit_nb.errors import PromptNotFoundError
from promptkit_nb.pack_files import read_pack
from promptkit_nb.pack_format import PACK, check_shape, pointer_to
from promptkit_nb.prompts import Prompt

if TYPE_CHECKING:
    import os

__all__ = ["Pack", "Prompt", "load_pack"]

_NOT_RUN_OF_PACK = ("evals", "workflow", "agents", "skills", "compositions")
_NOT_RUN_OF_PROMPT = ("pipeline", "validators", "evals")


@dataclass(frozen=True, slots=True, repr=False)
class Pack:
    """A PromptPack as it was read.

    ``prompts`` are by the name they have in the file, in its order; ``tools`` are the tools' JSON by name; ``warnings``
    say what the pack contains that is not applied.

    >>> pack = load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach {{subject}}."}}})
    >>> pack.prompt().render({"subject": "algebra"})
    'You teach algebra.'
    """

    id: str
    name: str
    version: str
    description: str
    prompts: Mapping[str, Prompt]
    fragments: Mapping[str, str]
    tools: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]
    _definition: Mapping[str, Any] = field(repr=False)

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
        near = get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PromptNotFoundError(f"Pack {self.id!r} has no prompt {name!r}, only {', '.join(names)}.{hint}")

    def to_dict(self) -> dict[str, Any]:
        """Return the pack's JSON, equal to what was read, as a fresh copy."""
        copied: dict[str, Any] = json_copy(dict(self._definition), "pack")
        return copied

    def __repr__(self) -> str:
        """Say what is in it."""
        version = f" {self.version}" if self.version else ""
        warned = f"; {len(self.warnings)} warnings" if self.warnings else ""
        return f"<Pack {self.id!r}{version}, prompts: {', '.join(self.prompts)}{warned}>"

    def _repr_html_(self) -> str:
        title = f"<strong>{escape(self.name or self.id)}</strong> {escape(self.version)}"
        described = f"<br>{escape(self.description)}" if self.description else ""
        warnings = "".join(f"<br>⚠ {escape(warning)}" for warning in self.warnings)
        prompts = "".join(
            f"<details><summary>{escape(name)}</summary>{prompt._repr_html_()}</details>"
            for name, prompt in self.prompts.items()
        )
        return f"<div>{title}{described}{warnings}{prompts}</div>"


def load_pack(path: str | os.PathLike[str] | Mapping[str, object]) -> Pack:
    """Return the pack in this file, or in a dict already parsed.

    The file is UTF-8 JSON in PromptPack's canonical format. Sections that are not applied are kept, so that
    ``to_dict()`` loses nothing. The file is read anew at every call.

    Raises ``PackNotFoundError`` with the absolute path, and ``PackValidationError`` for what is no JSON (line and
    column), for a key twice in one object, no prompts, a prompt without ``system_template``, and a known key of the
    wrong type (its JSON pointer).

    >>> load_pack({"id": "mine", "prompts": {"hello": {"system_template": "You are polite."}}}).prompt("hello").name
    'hello'
    """
    data, where = read_pack(path)
    warnings = check_shape(data, PACK, where)
    return Pack(
        data.get("id") or "",
        data.get("name") or "",
        data.get("version") or "",
        data.get("description") or "",
        {name: Prompt.from_pack(name, data) for name in data["prompts"]},
        data.get("fragments") or {},
        data.get("tools") or {},
        (*warnings, *_doubts(data)),
        data,
    )


def _doubts(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings for what has the right shape and still is not what its author may think."""
    for section in _NOT_RUN_OF_PACK:
        if data.get(section):
            yield f"/{section}: kept, but not run"
    for key, prompt in data["prompts"].items():
        yield from _doubts_of_prompt(key, prompt, data.get("tools") or {})


def _doubts_of_prompt(key: str, prompt: Mapping[str, Any], tools: Mapping[str, Any]) -> Iterator[str]:
    pointer = pointer_to("/prompts", key)
    if (prompt.get("id") or key) != key:
        yield f"{pointer}/id: it is {prompt['id']!r}, but the prompt is found by its key, {key!r}"
    for section in _NOT_RUN_OF_PROMPT:
        if prompt.get(section):
            yield f"{pointer}/{section}: kept, but not run"
    for index, tool in enumerate(prompt.get("tools") or ()):
        if tool not in tools:
            yield f"{pointer}/tools/{index}: {tool!r} is not among the pack's tools"
    for index, variable in enumerate(prompt.get("variables") or ()):
        if variable.get("required") and variable.get("default") is not None:
            yield f"{pointer}/variables/{index}: {variable['name']!r} is required and has a default, which satisfies it"
