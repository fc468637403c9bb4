"""Making a system prompt of its template, the pack's texts, the time and what the caller gives."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from promptkit_nb.errors import MissingVariableError
from promptkit_nb.packs.suggestions import did_you_mean, near_names
from promptkit_nb.packs.templates import placeholders_in, reachable, render
from promptkit_nb.packs.time_names import TIME_NAMES, time_values
from promptkit_nb.packs.variables import bound_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from promptkit_nb.packs.variables import Variable

_SHORT_NAME = 3


@dataclass(frozen=True, slots=True)
class RenderReport:
    """A system prompt as the model gets it, and what it was made of.

    ``prompt_hash`` is the SHA-256 of the text in hex. ``used`` are the names that were filled, ``unused`` those given
    for nothing, both sorted; ``fragments`` are those of the pack that are in it, ``passes`` how deep texts nest.
    """

    text: str
    prompt_hash: str
    used: tuple[str, ...]
    unused: tuple[str, ...]
    fragments: tuple[str, ...]
    passes: int


def report_of(
    template: str,
    *,
    declared: Sequence[Variable],
    fragments: Mapping[str, str],
    given: Mapping[str, object],
    clock: Callable[[], datetime],
    where: str,
) -> RenderReport:
    """Return the template filled: defaults give way to fragments, those to the time, and all to what is given.

    ``where`` begins the messages. Raises ``MissingVariableError`` and ``PackValidationError`` as ``Prompt.render``.
    """
    defaults = {variable.name: variable.default for variable in declared if variable.default is not None}
    texts = {name: text for name, text in defaults.items() if isinstance(text, str)} | dict(fragments)
    plain = {name: value for name, value in defaults.items() if name not in texts}
    asked = _names_in(template, texts)
    _refuse_misspelt(given, {*asked, *(variable.name for variable in declared)}, where)
    time = time_values(clock()) if asked & TIME_NAMES else {}
    rendered = render(
        template,
        texts=texts,
        values=plain | dict(time) | bound_values(declared, given),
        required=[variable.name for variable in declared if variable.required],
        where=where,
    )
    return RenderReport(
        rendered.text,
        sha256(rendered.text.encode("utf-8", "surrogatepass")).hexdigest(),
        tuple(sorted(rendered.used)),
        tuple(sorted(given.keys() - rendered.used)),
        tuple(name for name in fragments if name in rendered.used and given.get(name) is None),
        rendered.passes,
    )


def _names_in(template: str, texts: Mapping[str, str]) -> frozenset[str]:
    """Return all names that the template asks for, directly or through the pack's texts."""
    used = reachable([template], texts)
    return placeholders_in(template).union(*(placeholders_in(texts[name]) for name in used))


def _refuse_misspelt(given: Mapping[str, object], known: set[str], where: str) -> None:
    """Refuse a name that is unknown here and near to one without a value: nobody wants to pay for that answer."""
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
