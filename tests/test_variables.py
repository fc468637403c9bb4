"""Declared variables: values are checked against type and rules."""

from __future__ import annotations

from typing import Any

import pytest

from promptkit_nb.errors import PackValidationError
from promptkit_nb.packs.variables import Variable, bound_values


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", ""),
        ("number", 0),
        ("number", -1.5),
        ("number", 10**400),
        ("boolean", False),
        ("object", {}),
        ("array", []),
        ("array", (1, 2)),
        (None, 7),
        (None, "text"),
    ],
)
def test_values_of_the_declared_type_pass(kind: str | None, value: object) -> None:
    """A tuple is an array; a variable without a type accepts anything."""
    Variable("v", kind).check(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", 7),
        ("number", "7"),
        ("number", True),
        ("number", float("nan")),
        ("boolean", 1),
        ("boolean", "true"),
        ("object", []),
        ("array", "abc"),
    ],
)
def test_values_of_another_type_are_refused(kind: str, value: object) -> None:
    """Booleans are not numbers, text is not an array; the error names variable, value and type."""
    with pytest.raises(PackValidationError) as caught:
        Variable("v", kind).check(value)
    assert str(caught.value) == f"Variable 'v' cannot be {value!r}: its type is {kind}."


@pytest.mark.parametrize(
    ("validation", "value"),
    [
        ({"pattern": "b"}, "abc"),
        ({"min_length": 2, "max_length": 2}, "🧀🧀"),
        ({"minimum": 0, "maximum": 0}, 0),
        ({"enum": ["a", 1]}, 1),
        ({"enum": [None, True]}, True),
        ({"minimum": 5}, "text has no minimum"),
        ({"min_length": 5}, 1),
        ({"minimum": None}, -1),
    ],
)
def test_values_within_the_rules_pass(validation: dict[str, Any], value: object) -> None:
    """Bounds are inclusive, lengths are characters, a pattern may be found anywhere."""
    Variable("v", validation=validation).check(value)


@pytest.mark.parametrize(
    ("validation", "value", "rule"),
    [
        ({"pattern": "^a+$"}, "abc", "its pattern is '^a+$'"),
        ({"min_length": 2}, "a", "its min_length is 2"),
        ({"max_length": 2}, "abc", "its max_length is 2"),
        ({"minimum": 0}, -1, "its minimum is 0"),
        ({"maximum": 1.5}, 2, "its maximum is 1.5"),
        ({"enum": ["a", "b"]}, "c", "its enum is ['a', 'b']"),
        ({"enum": [1]}, True, "its enum is [1]"),
    ],
)
def test_values_that_break_a_rule_are_refused(validation: dict[str, Any], value: object, rule: str) -> None:
    """The error names variable, value and the rule with its bound."""
    with pytest.raises(PackValidationError) as caught:
        Variable("v", validation=validation).check(value)
    assert str(caught.value) == f"Variable 'v' cannot be {value!r}: {rule}."


def test_near_choice_is_named() -> None:
    """A misspelled enum value gets a near match."""
    with pytest.raises(PackValidationError) as caught:
        Variable("language", validation={"enum": ["German", "English"]}).check("Germn")
    assert str(caught.value).endswith("its enum is ['German', 'English']; did you mean 'German'?")


def test_patterns_that_python_does_not_know_are_named() -> None:
    """An invalid pattern is an error of the pack, not a crash."""
    with pytest.raises(PackValidationError, match=r"pattern .* of variable 'v' is not a valid regular expression"):
        Variable("v", validation={"pattern": "(?<n>x)"}).check("x")


def test_binding_leaves_what_was_given_untouched() -> None:
    """The caller's mapping is not modified; undeclared names are kept."""
    given = {"a": " ", "b": None, "c": 3}
    assert bound_values([Variable("a", required=True)], given) == {"c": 3}
    assert given == {"a": " ", "b": None, "c": 3}


def test_blank_text_is_a_value_where_nothing_is_required() -> None:
    """Blank text is a value for optional variables."""
    assert bound_values([Variable("a")], {"a": ""}) == {"a": ""}
