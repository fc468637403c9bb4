"""Declared variables of a prompt, and validation of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs import patterns
from promptkit_nb.text.near_names import did_you_mean, near_names

if TYPE_CHECKING:
    from typing import Self

VARIABLE_TYPES = ("string", "number", "boolean", "object", "array")


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared variable of a prompt.

    ``type`` is one of ``VARIABLE_TYPES``, or ``None`` for any value. ``default`` is ``None`` if there is none.
    ``validation`` holds rules: ``pattern`` (found anywhere in the text), ``min_length``, ``max_length``, ``minimum``,
    ``maximum``, ``enum``. ``example`` is for readers, ``binding`` for other runtimes.

    >>> Variable("tone", "string", default="friendly").required
    False
    """

    name: str
    type: str | None = None
    required: bool = False
    default: object = None
    description: str = ""
    validation: Mapping[str, Any] = field(default_factory=dict)
    example: object = None
    binding: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_pack(cls, data: Mapping[str, object]) -> Self:
        """Return the variable from its JSON, whose shape was checked."""
        present = {key: data[key] for key in cls.__slots__ if data.get(key) is not None}
        return cls(**present)  # type: ignore[arg-type]  # check_pack ensures these types

    def check(self, value: object) -> None:
        """Raise ``PackValidationError`` if the value breaks the type or a rule.

        >>> Variable("age", "number", validation={"minimum": 0}).check(41)
        """
        if self.type is not None and not _is_type(value, self.type):
            raise self._refused(value, f"its type is {self.type}")
        for rule, bound in self.validation.items():
            if bound is not None and self._breaks(value, rule, bound):
                near = near_names(value, map(str, bound)) if rule == "enum" and isinstance(value, str) else ()
                raise self._refused(value, f"its {rule} is {bound!r}{did_you_mean(near)}")

    def _breaks(self, value: Any, rule: str, bound: Any) -> bool:
        broken = False
        if rule == "enum":
            broken = not any(_equals(value, choice) for choice in bound)
        elif rule == "pattern" and isinstance(value, str):
            broken = not self._is_found(bound, value)
        elif rule == "min_length" and isinstance(value, str):
            broken = len(value) < bound
        elif rule == "max_length" and isinstance(value, str):
            broken = len(value) > bound
        elif rule == "minimum" and _is_type(value, "number"):
            broken = value < bound
        elif rule == "maximum" and _is_type(value, "number"):
            broken = value > bound
        return broken

    def _is_found(self, pattern: str, value: str) -> bool:
        if problem := patterns.problem_of(pattern):
            raise PackValidationError(
                f"The pattern {pattern!r:.100} of variable {self.name!r} is not a valid regular expression "
                f"({problem}): correct it in the pack."
            )
        try:
            return patterns.is_found(pattern, value)
        except OverflowError as error:
            raise PackValidationError(
                f"The pattern {pattern!r:.100} of variable {self.name!r} cannot be used ({error}): simplify it in the "
                "pack."
            ) from error

    def _refused(self, value: object, rule: str) -> PackValidationError:
        end = "" if rule.endswith("?") else "."
        return PackValidationError(f"Variable {self.name!r} cannot be {value!r:.100}: {rule}{end}")


def bound_values(declared: Sequence[Variable], given: Mapping[str, object]) -> dict[str, object]:
    """Return the caller's values, checked against the declared variables.

    ``None`` counts as missing, and so does blank text for a required variable. Undeclared names are kept.

    >>> bound_values([Variable("subject", required=True)], {"subject": " ", "tone": None, "mood": "calm"})
    {'mood': 'calm'}
    """
    values = {name: value for name, value in given.items() if value is not None}
    for variable in declared:
        value = values.get(variable.name)
        if value is None:
            continue
        if variable.required and isinstance(value, str) and not value.strip():
            del values[variable.name]
            continue
        variable.check(value)
    return values


def _is_type(value: object, name: str) -> bool:
    if name == "string":
        return isinstance(value, str)
    if name == "boolean":
        return isinstance(value, bool)
    if name == "number":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and isfinite(value)
        )
    if name == "object":
        return isinstance(value, Mapping)
    return isinstance(value, (list, tuple))


def _equals(value: object, choice: object) -> bool:
    return isinstance(value, bool) == isinstance(choice, bool) and value == choice
