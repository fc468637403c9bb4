"""Patterns of packs have the same meaning as in Python, and are matched in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import PackValidationError, Prompt, load_pack
from promptkit_nb.packs.patterns import is_found, problem_of
from promptkit_nb.packs.variables import Variable

PATTERNS = [
    *(r"^\w+$", r"^[\w ]+$", r"[^\w]", r"\W", r"[\W]", r"[\Wx]", r"[^\W\d_]+$", r"^[^\W]+$"),
    *(r"\d", r"\D", r"[\d\-]+", r"\bé\b", r"^\s+$", r"[\s\S]", ".", "(?s).", r"\.(?:jpe?g|png)$"),
    *("^a\\Z", r"\A\d+\Z", "(?i)abc", "(?P<x>a)(?P=x)", r"(a)\1", "(?#why)a", "(?<=x)a", "a(?!b)"),
    *("a{e}", "^{.*}$", "{", "x{", "}{", "a{,2}b", "a{2}", "a{1,}$", "[[a]", "[]a]", "[^]a]", r"[\]]", r"[\b]"),
    *(r"\é", r"\0", "^#?[0-9a-fA-F]{6}$", "^[^<>]*$", r"^[A-Z]{2}-\d{3}$", "^(?=.*[A-Z])(?=.*[0-9]).{4,}$", "a|", ""),
]
TEXTS = st.text("aAbcxyZ09_-.<>{}[] \n\té日٣\u0301😀\0\b#", max_size=8)
CATASTROPHIC = ["(a|aa)+$", "(a+)+$", "(x+x+)+y", r"^(\w+\s?)*$", "(.*)*(.*)*(.*)*x$", "^(?:(?:.*a){20})$"]


@pytest.mark.filterwarnings("ignore:Possible nested set")
@given(st.sampled_from(PATTERNS), TEXTS)
def test_pattern_means_what_it_means_in_python(pattern: str, text: str) -> None:
    """Letters and digits of every writing system included; only ``$`` is strictly the end."""
    strict = re.sub(r"\$(?=$|\|)", r"\\Z", pattern)
    assert is_found(pattern, text) == bool(re.search(strict, text))


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_catastrophic_pattern_takes_no_time(pattern: str) -> None:
    """Python's engine would practically never end."""
    for text in ("a" * 5000 + "b!", "x" * 5000, "a " * 2500 + "!"):
        assert is_found(pattern, text) in {True, False}


def test_steps_are_limited() -> None:
    """A pattern that looks around or back cannot be matched in linear time; the error says what to do."""
    variable = Variable("v", validation={"pattern": r"^(a|aa)+(?!c)\1$"})
    with pytest.raises(PackValidationError, match=r"'v' cannot be used \(it takes more than .* steps .*\): simplify"):
        variable.check("a" * 60 + "b")
    variable.check("aaa")


@pytest.mark.parametrize("pattern", ["((((a{100}){100}){100}){100}){100}", "(?>a)", "(a)(?(1)b|c)"])
def test_what_the_engine_does_not_take_is_an_error(pattern: str) -> None:
    """A pattern that would fill the memory, and the few things that only Python has."""
    with pytest.raises(PackValidationError, match=r"cannot be used \(it is too large, or has syntax that is not supp"):
        Variable("v", validation={"pattern": pattern}).check("a")


def test_long_pattern_is_refused() -> None:
    """When it is loaded, and when it is used."""
    pattern = "a|" * 5_001
    assert problem_of(pattern) == "it has 10,002 characters, more than 10,000"
    with pytest.raises(PackValidationError, match="not a valid regular expression"):
        Variable("v", validation={"pattern": pattern}).check("a")


def test_warnings_of_python_are_no_errors() -> None:
    """Under ``-W error``, too, a pattern that may mean something else one day can be used."""
    assert (problem_of("[[a]"), is_found("[[a]", "[")) == ("", True)


def test_pack_of_a_stranger_cannot_stop_the_kernel() -> None:
    """From the file to the rendered prompt."""
    prompt = {
        "system_template": "Hello {{name}}",
        "variables": [{"name": "name", "type": "string", "validation": {"pattern": "^(a|a)*$"}}],
        "validators": [{"type": "regex", "enabled": True, "params": {"pattern": "^(a|a)*$"}}],
    }
    loaded: Prompt = load_pack({"id": "mine", "prompts": {"a": prompt}}).prompt()
    with pytest.raises(PackValidationError, match="its pattern is"):
        loaded.render({"name": "a" * 1000 + "b"})
