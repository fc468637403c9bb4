"""Rendering of ``{{name}}`` in system prompts: the pack's own texts nest, values from outside are literal.

A value from outside can therefore never pull another value into the prompt.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.text.near_names import did_you_mean, near_names
from promptkit_nb.text.plain_text import preview

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905 - read as a sentence
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905 - same

TIME_NAMES = frozenset(f"current_{part}" for part in ("time", "date", "year", "month", "weekday", "hour"))


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
_MAX_CHARACTERS = 10_000_000  # filled in by one rendering; ten levels of nesting could exhaust the memory

FRAGMENTS = "fragments."  # {{fragments.NAME}} is the specification's syntax; {{fragment:NAME}} is promptpack-python's
PLACEHOLDER = re.compile(r"\{\{[ \t]*(?:fragment:[ \t]*([\w.-]+)|([A-Za-z_][\w.-]*))[ \t]*\}\}")
_BRACES = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)
_BLOCK = re.compile(r"\{\{\s*[#/^>]")


def name_in(placeholder: re.Match[str]) -> str:
    """Return the name in a match of ``PLACEHOLDER``; explicit references to fragments begin with ``FRAGMENTS``.

    >>> [name_in(found) for found in PLACEHOLDER.finditer("{{a}} {{fragment:b}} {{fragments.c}}")]
    ['a', 'fragments.b', 'fragments.c']
    """
    return f"{FRAGMENTS}{placeholder[1]}" if placeholder[1] else placeholder[2]


def fragment_texts(fragments: Mapping[str, str]) -> dict[str, str]:
    """Return the fragments under their names and under their explicit references."""
    return {f"{FRAGMENTS}{name}": text for name, text in fragments.items()} | dict(fragments)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Double braces that are not a placeholder; ``line`` and ``column`` count from 1 in the template."""

    text: str
    line: int
    column: int

    def __str__(self) -> str:
        """Say what is wrong, and where."""
        if _BLOCK.match(self.text):
            problem = "blocks are unsupported"
        elif "|" in self.text:
            problem = "filters are unsupported"
        else:
            problem = "this is not a name"
        return (
            f"{preview(self.text)} at line {self.line}, column {self.column}, but {problem}: "
            "only {{name}} and {{fragments.NAME}} are replaced"
        )


def unsupported_in(text: str) -> list[Unsupported]:
    """Return all double braces in a template that would be sent to the model as they are.

    >>> [found.text for found in unsupported_in("{{a}} {{b | upper}} {{c_{{d}}}} {{ {e}")]
    ['{{b | upper}}', '{{c_{{d}}}}']
    """
    masked = PLACEHOLDER.sub(lambda found: " " * len(found[0]), text)
    found = _BRACES.finditer(masked) if "{{" in masked else ()
    lines = Lines(text)
    return [Unsupported(text[slice(*each.span())], *lines.place_of(each.start())) for each in found]


class Lines:
    r"""The lines of a text, to look up many offsets.

    >>> Lines("a\nbc").place_of(3)
    (2, 2)
    """

    def __init__(self, text: str) -> None:
        """Find the beginnings of the lines."""
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place_of(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset, both counted from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template: the text, the names that were filled in, and the nesting depth (1 without nesting).

    ``unsupported`` describes double braces that are still in the text.
    """

    text: str
    used: frozenset[str]
    passes: int
    unsupported: tuple[str, ...] = ()


def render(
    template: str,
    *,
    texts: Mapping[str, str],
    values: Mapping[str, object],
    required: Collection[str] = (),
    where: str = "The template",
    keep_unsupported: bool = False,
) -> Rendered:
    """Return the template with each ``{{name}}`` replaced.

    ``values`` come from the caller: they take precedence and are inserted literally. ``texts`` belong to the pack: they
    are rendered too, up to ten levels deep. Names in ``required`` need a value even if no placeholder uses them.
    ``where`` begins error messages. Single braces and unclosed ones are plain text.

    Raises ``MissingVariableError`` for names without a value, and ``PackValidationError`` for fragments that do not
    exist, cycles, deeper nesting, values that JSON does not have, and double braces that are not a placeholder, such as
    ``{{#if}}``; with ``keep_unsupported``, the last stay in the text, except for blocks.

    >>> render("{{greeting}}!", texts={"greeting": "Hello {{ name }}"}, values={"name": "{{secret}}"}).text
    'Hello {{secret}}!'
    """
    rendering = _Rendering(
        texts, values, where, {name for name in required if name not in {*texts, *values}}, keep_unsupported
    )
    text, _ = rendering.expand(template, ())
    rendering.refuse_missing()
    if "{{" in text and not rendering.unsupported:
        rendering.refuse_assembled(template)
    return Rendered(text, frozenset(rendering.filled), rendering.passes, tuple(rendering.unsupported))


def placeholders_in(text: str) -> frozenset[str]:
    """Return the names of the placeholders in a text.

    >>> sorted(placeholders_in("{{a}} {{ b }} {c} {{d"))
    ['a', 'b']
    """
    return frozenset(map(name_in, PLACEHOLDER.finditer(text)))


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
    keep_unsupported: bool = False
    unsupported: list[str] = field(default_factory=list)
    filled: dict[str, tuple[str, int]] = field(default_factory=dict)
    passes: int = 1
    characters: int = 0

    def expand(self, text: str, chain: tuple[str, ...]) -> tuple[str, int]:
        """Return the rendered text and its nesting depth; ``chain`` holds the names that led here."""
        self._check_braces(text, chain)
        pieces: list[str] = []
        end = depth = 0
        for found in PLACEHOLDER.finditer(text):
            if found[1] and self.keep_unsupported:  # older versions did not know this syntax
                problem = f"{found[0]}, whose text is not stored"
                self.unsupported.append(f"{self.where} contains {problem}: give the pack again.")
                continue
            filling, levels = self._fill(name_in(found), chain)
            pieces += (text[end : found.start()], filling)
            end, depth = found.end(), max(depth, levels)
            self._count(len(filling), chain)
        pieces.append(text[end:])
        return "".join(pieces), depth

    def _count(self, characters: int, chain: tuple[str, ...]) -> None:
        """Count the characters of a placeholder's value; raise if the total is too large."""
        self.characters += characters
        if self.characters > _MAX_CHARACTERS:
            place = f" in {_shown(chain)}" if chain else ""
            raise PackValidationError(
                f"{self.where} grows beyond {_MAX_CHARACTERS:,} characters{place}: let its texts refer to each other "
                "less often, or give shorter values."
            )

    def refuse_missing(self) -> None:
        """Raise for fragments that do not exist, and for names without a value."""
        fragments = {name.removeprefix(FRAGMENTS) for name in self.missing if name.startswith(FRAGMENTS)}
        if fragments:
            known = [name.removeprefix(FRAGMENTS) for name in self.texts if name.startswith(FRAGMENTS)]
            raise PackValidationError(
                f"{self.where} uses fragments that the pack does not have: {_with_near_names(fragments, known)}. "
                "Add them to the pack, or correct the names."
            )
        if self.missing:
            known = [name for name in {*self.texts, *self.values} if not name.startswith(FRAGMENTS)]
            listed = _with_near_names(self.missing, known)
            raise MissingVariableError(f"{self.where} has no value for {listed}. Give it in variables={{...}}.")

    def refuse_assembled(self, template: str) -> None:
        """Raise if several texts of the pack form double braces together; values of the caller may contain them."""
        blank = _Rendering(self.texts, dict.fromkeys(self.values, "\0"), self.where, set(), self.keep_unsupported)
        text, _ = blank.expand(template, ())
        formed = PLACEHOLDER.search(text) or _BRACES.search(text)
        if formed:
            problem = f"{preview(formed[0])}, formed by several texts of the pack and not replaced"
            self._report(f"{self.where} contains {problem}. Write the placeholder into one text.")

    def _check_braces(self, text: str, chain: tuple[str, ...]) -> None:
        place = f" (in {_shown(chain)})" if chain else ""
        for found in unsupported_in(text) if "{{" in text else ():
            message = f"{self.where} contains {found}{place}. Write the text out, or give it as a variable."
            if _BLOCK.match(found.text):
                raise PackValidationError(message)
            self._report(message)

    def _report(self, message: str) -> None:
        if not self.keep_unsupported:
            raise PackValidationError(message)
        self.unsupported.append(message)

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


def _shown(chain: tuple[str, ...]) -> str:
    return " → ".join(chain)


def _with_near_names(names: Collection[str], known: Collection[str]) -> str:
    """Return the names, sorted, each with its near matches."""
    questions = ((name, did_you_mean(near_names(name, known)).removeprefix("; ")) for name in sorted(names))
    return ", ".join(f"{name!r} ({question})" if question else repr(name) for name, question in questions)
