"""Rendering of ``{{name}}`` in system prompts: the pack's own texts nest, values from outside are literal.

A value from outside can therefore never pull another value into the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING

from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905 - read as a sentence
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905 - same

TIME_NAMES = frozenset(
    {"current_time", "current_date", "current_year", "current_month", "current_weekday", "current_hour"}
)


def local_time() -> datetime:
    """Return the current time in the local time zone."""
    return datetime.now().astimezone()


def time_values(now: datetime) -> Mapping[str, str]:
    """Return the values of ``TIME_NAMES``; months and weekdays are in English in every locale.

    >>> from datetime import UTC, datetime
    >>> values = time_values(datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC))
    >>> values["current_time"], values["current_weekday"], values["current_hour"]
    ('2026-03-01T09:05:07+00:00', 'Sunday', '09')
    """
    return {
        "current_time": now.isoformat(timespec="seconds"),
        "current_date": f"{now:%Y-%m-%d}",
        "current_year": str(now.year),
        "current_month": _MONTHS[now.month - 1],
        "current_weekday": _WEEKDAYS[now.weekday()],
        "current_hour": f"{now.hour:02}",
    }


MAX_NESTING = 10
_MAX_CHARACTERS = 10_000_000  # ten levels of nesting can exhaust the memory

PLACEHOLDER = re.compile(r"\{\{[ \t]*([A-Za-z_][\w.-]*)[ \t]*\}\}")
BLOCK = re.compile(r"\{\{[ \t]*[#/^>][ \t]*[A-Za-z_][^{}\n]*\}\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template: the text, the names that were filled in, and the nesting depth (1 without nesting)."""

    text: str
    used: frozenset[str]
    passes: int


def render(
    template: str,
    *,
    texts: Mapping[str, str],
    values: Mapping[str, object],
    required: Collection[str] = (),
    where: str = "The template",
) -> Rendered:
    """Return the template with each ``{{name}}`` replaced.

    ``values`` come from the caller: they take precedence and are inserted literally. ``texts`` belong to the pack: they
    are rendered too, up to ten levels deep. Names in ``required`` need a value even if no placeholder uses them.
    ``where`` begins error messages. Single braces and unclosed ones are plain text.

    Raises ``MissingVariableError`` for names without a value, and ``PackValidationError`` for cycles, deeper nesting,
    ``{{#if}}`` blocks and values that JSON does not have.

    >>> render("{{greeting}}!", texts={"greeting": "Hello {{ name }}"}, values={"name": "{{secret}}"}).text
    'Hello {{secret}}!'
    """
    rendering = _Rendering(texts, values, where, {name for name in required if name not in {*texts, *values}})
    text, _ = rendering.expand(template, ())
    if rendering.missing:
        known = sorted({*texts, *values})
        listed = ", ".join(f"{name!r}{_question(name, known)}" for name in sorted(rendering.missing))
        raise MissingVariableError(f"{where} has no value for {listed}. Give it in variables={{...}}.")
    return Rendered(text, frozenset(rendering.filled), rendering.passes)


def placeholders_in(text: str) -> frozenset[str]:
    """Return the names of the placeholders in a text.

    >>> sorted(placeholders_in("{{a}} {{ b }} {c} {{d"))
    ['a', 'b']
    """
    return frozenset(PLACEHOLDER.findall(text))


def reachable(templates: Iterable[str], texts: Mapping[str, str]) -> frozenset[str]:
    """Return the names in ``texts`` that the templates use, directly or through other texts.

    >>> sorted(reachable(["{{a}}"], {"a": "{{b}}", "b": "", "c": ""}))
    ['a', 'b']
    """
    found: set[str] = set()
    waiting = list(templates)
    while waiting:
        fresh = {name for name in placeholders_in(waiting.pop()) if name in texts and name not in found}
        found |= fresh
        waiting += [texts[name] for name in fresh]
    return frozenset(found)


def as_text(value: object, what: str) -> str:
    """Return a JSON value as prompt text; ``what`` names it in the error.

    Text is unchanged, numbers have their shortest form, lists and dicts are compact JSON.

    >>> as_text(True, "x"), as_text(2.0, "x"), as_text({"a": [1, "ä"]}, "x")
    ('true', '2', '{"a":[1,"ä"]}')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and isfinite(value):
        return repr(float(value)).removesuffix(".0")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise PackValidationError(
            f"{what} is a {type(value).__name__} that cannot be written into a prompt ({error}). "
            "Give text, a finite number, a boolean, or a list or dict of these."
        ) from error


@dataclass(slots=True)
class _Rendering:
    """The state of one ``render`` call."""

    texts: Mapping[str, str]
    values: Mapping[str, object]
    where: str
    missing: set[str]
    filled: dict[str, tuple[str, int]] = field(default_factory=dict)
    passes: int = 1

    def expand(self, text: str, chain: tuple[str, ...]) -> tuple[str, int]:
        """Return the rendered text and its nesting depth; ``chain`` holds the names that led here."""
        self._refuse_blocks(text, chain)
        pieces: list[str] = []
        end = depth = 0
        for found in PLACEHOLDER.finditer(text):
            filling, levels = self._fill(found[1], chain)
            pieces += (text[end : found.start()], filling)
            end, depth = found.end(), max(depth, levels)
        pieces.append(text[end:])
        if chain and sum(map(len, pieces)) > _MAX_CHARACTERS:
            raise PackValidationError(
                f"{self.where} grows beyond {_MAX_CHARACTERS:,} characters in {_shown(chain)}: "
                "let its texts refer to each other less often."
            )
        return "".join(pieces), depth

    def _fill(self, name: str, chain: tuple[str, ...]) -> tuple[str, int]:
        if name not in self.filled:
            self.filled[name] = self._filling(name, chain)
        text, levels = self.filled[name]
        if len(chain) + levels > MAX_NESTING:
            raise self._too_deep((*chain, name))
        self.passes = max(self.passes, len(chain) + max(levels, 1))
        return text, levels

    def _filling(self, name: str, chain: tuple[str, ...]) -> tuple[str, int]:
        if name in self.values:
            return as_text(self.values[name], f"Variable {name!r}"), 0
        if name not in self.texts:
            self.missing.add(name)
            return "", 0
        if name in chain:
            raise PackValidationError(
                f"{self.where} never ends: {_shown((*chain[chain.index(name) :], name))}. Break the cycle in the pack."
            )
        if len(chain) == MAX_NESTING:
            raise self._too_deep((*chain, name))
        text, levels = self.expand(self.texts[name], (*chain, name))
        return text, levels + 1

    def _too_deep(self, chain: tuple[str, ...]) -> PackValidationError:
        return PackValidationError(
            f"{self.where} nests more than {MAX_NESTING} levels deep: {_shown(chain)}. Put these texts together."
        )

    def _refuse_blocks(self, text: str, chain: tuple[str, ...]) -> None:
        block = BLOCK.search(text)
        if block is None:
            return
        place = f" (in {_shown(chain)})" if chain else ""
        raise PackValidationError(
            f"{self.where} contains {block[0]}{place}, but blocks are unsupported: only {{{{name}}}} is replaced. "
            "Write the text out, or give it as a variable."
        )


def _shown(chain: tuple[str, ...]) -> str:
    return " → ".join(chain)


def _question(name: str, known: Collection[str]) -> str:
    question = did_you_mean(near_names(name, known)).removeprefix("; ")
    return f" ({question})" if question else ""
