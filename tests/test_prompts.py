"""Prompts: variables, fragments and model overrides become one system prompt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.packs.pack import Prompt, load_pack

DATA = Path(__file__).parent / "data"


def prompt_of(template: str, *variables: dict[str, object], **more: Any) -> Prompt:
    """Return the only prompt of a pack with these variables; ``fragments`` go to the pack."""
    fragments = more.pop("fragments", {})
    definition = {"system_template": template, "variables": list(variables), **more}
    return load_pack({"id": "p", "version": "1.0.0", "fragments": fragments, "prompts": {"a": definition}}).prompt()


@pytest.fixture
def first_line() -> Prompt:
    """Return a prompt with every section of the format."""
    return load_pack(DATA / "support.pack.json").prompt("first_line")


def test_prompt_is_filled_from_defaults_fragments_and_variables(first_line: Prompt) -> None:
    """Fragments and defaults may use each other; numbers and lists are written as JSON."""
    assert first_line.render({"company": "Müller & Co"}) == (
        "You help customers of Müller & Co in German.\n"
        "Open orders: []\n"
        "Never promise a refund above 50 EUR. Sign as the Müller & Co team, Müller & Co."
    )


def test_precedence_rises_from_default_to_fragment_to_variable() -> None:
    """Variables win over fragments, and fragments over defaults."""
    declared: dict[str, object] = {"name": "x", "default": "default"}
    assert prompt_of("{{x}}", declared).render({}) == "default"
    assert prompt_of("{{x}}", declared, fragments={"x": "fragment"}).render({}) == "fragment"
    assert prompt_of("{{x}}", declared, fragments={"x": "fragment"}).render({"x": "variable"}) == "variable"


def test_fragments_win_over_defaults_of_any_type() -> None:
    """A fragment wins over a numeric default too."""
    assert prompt_of("{{x}}", {"name": "x", "default": 1}, fragments={"x": "fragment"}).render({}) == "fragment"


@pytest.mark.parametrize("variables", [{}, {"subject": ""}, {"subject": " \n"}, {"subject": None}])
def test_required_variable_must_have_text(variables: dict[str, object]) -> None:
    """Absent, null, empty and blank values are missing; the error names prompt and variable."""
    with pytest.raises(MissingVariableError, match=r"^Prompt 'a' has no value for 'subject'"):
        prompt_of("No placeholder.", {"name": "subject", "required": True}).render(variables)


def test_default_satisfies_a_required_variable() -> None:
    """A required variable may have a default, which also replaces blank text."""
    prompt = prompt_of("{{x}}", {"name": "x", "required": True, "default": "d"})
    assert prompt.render({}) == "d"
    assert prompt.render({"x": ""}) == "d"


def test_empty_default_counts_and_null_does_not() -> None:
    """The default "" is a value, null is not."""
    assert prompt_of("[{{x}}]", {"name": "x", "default": ""}).render({}) == "[]"
    with pytest.raises(MissingVariableError, match="no value for 'x'"):
        prompt_of("[{{x}}]", {"name": "x", "default": None}).render({})


def test_required_and_unresolved_names_are_reported_together() -> None:
    """One error lists all names, sorted."""
    prompt = prompt_of("{{z}} {{b}}", {"name": "a", "required": True})
    with pytest.raises(MissingVariableError, match="no value for 'a', 'b', 'z'"):
        prompt.render({})


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"language": "Dutch"}, "Variable 'language' cannot be 'Dutch': its enum is ['German', 'English']."),
        ({"refund_limit": 501}, "Variable 'refund_limit' cannot be 501: its maximum is 500."),
        ({"agent": "<b>"}, "Variable 'agent' cannot be '<b>': its pattern is '^[^<>]*$'."),
        ({"vip": 1}, "Variable 'vip' cannot be 1: its type is boolean."),
    ],
)
def test_values_that_break_the_packs_rules_are_refused(
    first_line: Prompt, variables: dict[str, object], message: str
) -> None:
    """The error has the variable, the value and the rule."""
    with pytest.raises(PackValidationError) as caught:
        first_line.render({"company": "Shop", **variables})
    assert str(caught.value) == message


def test_unknown_variables_are_allowed(first_line: Prompt) -> None:
    """Names that the prompt does not use are ignored."""
    assert first_line.render({"company": "Shop", "other": object()}) == first_line.render({"company": "Shop"})


def test_misspelled_variable_is_refused_with_the_right_spelling(first_line: Prompt) -> None:
    """A misspelled name is an error, so that no request uses the default by accident."""
    with pytest.raises(MissingVariableError) as caught:
        first_line.render({"company": "Shop", "langauge": "English"})
    assert str(caught.value) == (
        "Prompt 'first_line' has no variable 'langauge'; did you mean 'language'? Rename it, or give 'language' too."
    )


@pytest.mark.parametrize("variables", [{"langauge": "x", "language": "German"}, {"unrelated": 1}, {"vop": 1}])
def test_names_of_other_prompts_are_allowed(first_line: Prompt, variables: dict[str, object]) -> None:
    """Unknown names are allowed if the similar one is given too, if none is similar, or if the names are very short."""
    assert first_line.render({"company": "Shop", **variables})


def test_time_can_be_asked_for() -> None:
    """The time wins over defaults and fragments, and values of the caller win over the time."""
    prompt = prompt_of(
        "{{current_weekday}} {{current_date}} {{current_hour}}h, {{current_month}} {{current_year}}: {{current_time}}",
        {"name": "current_hour", "default": "unknown"},
        fragments={"current_year": "unknown"},
    )
    at_nine = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    assert prompt.render({}, clock=lambda: at_nine) == ("Sunday 2026-03-01 09h, March 2026: 2026-03-01T09:30:00+00:00")
    assert prompt.render({"current_time": "noon"}, clock=lambda: at_nine).endswith(": noon")


def test_time_is_not_asked_for_without_need() -> None:
    """The clock is read only if the prompt uses the time."""

    def no_clock() -> datetime:
        raise AssertionError

    assert prompt_of("{{x}}", {"name": "x", "default": "d"}).render({}, clock=no_clock) == "d"


def test_report_lists_what_went_into_a_system_prompt(first_line: Prompt) -> None:
    """The report has hash, used and unused names, fragments and nesting depth."""
    report = first_line.report({"company": "Shop", "zebra": 1, "other": 2})
    assert report.text == first_line.render({"company": "Shop"})
    assert report.prompt_hash == sha256(report.text.encode()).hexdigest()
    assert report.used == ("agent", "company", "language", "orders", "refund_limit")
    assert report.unused == ("other", "zebra")
    assert report.fragments == ("policy", "signature")
    assert report.passes == 4
    assert prompt_of("plain").report({}).passes == 1


def test_report_counts_a_fragment_that_a_variable_replaces_as_a_variable() -> None:
    """``used`` names what has a value of its own, ``fragments`` what comes from the pack."""
    prompt = prompt_of("{{f}} {{fragments.g}}", fragments={"f": "F", "g": "{{x}}"})
    report = prompt.report({"f": "mine", "x": "X"})
    assert (report.text, report.used, report.fragments) == ("mine X", ("f", "x"), ("g",))
    assert prompt.report({"f": None, "x": "X"}).fragments == ("f", "g")


def test_missing_fragment_is_named_with_its_near_match() -> None:
    """Also if nothing else uses the fragment that was meant."""
    prompt = prompt_of("{{fragments.greting}}", fragments={"greeting": "Hello", "other": "x"})
    with pytest.raises(PackValidationError, match=r"^Prompt 'a' uses .*: 'greting' \(did you mean 'greeting'\?\)"):
        prompt.render({})


def test_fragment_may_be_named_like_a_reference() -> None:
    """Packs that called a fragment ``fragments.x`` keep working, also beside one called ``x``."""
    prompt = prompt_of("{{fragments.x}} {{fragments.y}}", fragments={"fragments.x": "X", "fragments.y": "Y", "y": "?"})
    assert prompt.render({}) == "X Y"


def test_prompts_that_older_versions_stored_go_on_with_a_warning() -> None:
    """A snapshot without the mark of this version sends what it sent before; one with it raises."""
    snapshot = prompt_of("Hi {{1}} {{n}} {{fragment:f}}", fragments={"f": "F"}).snapshot()
    snapshot["fragments"] = {}
    with pytest.raises(PackValidationError, match=r"contains \{\{1\}\} at line 1, column 4, but this is not a name"):
        Prompt.from_snapshot(snapshot).render({"n": "Ann"})
    del snapshot["placeholders"]
    older = Prompt.from_snapshot(snapshot)
    report = older.report({"n": "Ann"})
    assert report.text == "Hi {{1}} Ann {{fragment:f}}"
    assert len(report.warnings) == 2
    assert report.warnings[1] == "Prompt 'a' contains {{fragment:f}}, whose text is not stored: give the pack again."
    assert older.snapshot() == snapshot


@given(value=st.text(min_size=1).filter(str.strip))
def test_any_text_of_a_caller_comes_out_literally(value: str) -> None:
    """Values are inserted literally, whatever they contain."""
    prompt = prompt_of("<{{x}}>{{f}}", {"name": "x", "type": "string", "required": True}, fragments={"f": "{{x}}!"})
    assert prompt.render({"x": value}) == f"<{value}>{value}!"


def test_override_puts_text_around_the_template(first_line: Prompt) -> None:
    """Prefix and suffix are rendered."""
    plain = first_line.render({"company": "Shop"})
    overridden = first_line.render({"company": "Shop"}, model="gpt-4o-mini")
    assert overridden == f"Think briefly.\n{plain}\nKeep to German."


def test_override_replaces_the_template_first() -> None:
    """An override may replace the template and use its own fragments."""
    override = {
        "system_template": "[{{f}}]",
        "system_template_prefix": "before ",
        "system_template_suffix": " after",
    }
    prompt = prompt_of("base", model_overrides={"m": override}, fragments={"f": "fragment"})
    assert prompt.render({}, model="m") == "before [fragment] after"


def test_patterns_apply_to_matching_models() -> None:
    """The exact name wins, then the longest pattern; only the star is special."""
    overrides = {
        "gpt-*": {"system_template": "any gpt", "parameters": {"temperature": 1}},
        "gpt-4o-mini*": {"system_template": "mini"},
        "gpt-4o-mini": {"system_template": "exact"},
        "[x]?*": {"system_template": "brackets"},
        "gpt-4": {"system_template": "no pattern"},
    }
    prompt = prompt_of("base", model_overrides=overrides)
    rendered = {model: prompt.render({}, model=model) for model in ("gpt-4o", "gpt-4o-mini-2024", "gpt-4o-mini", "x-1")}
    assert rendered == {"gpt-4o": "any gpt", "gpt-4o-mini-2024": "mini", "gpt-4o-mini": "exact", "x-1": "base"}
    assert prompt.render({}, model="[x]?1") == "brackets"
    assert prompt.parameters_for("gpt-4o") == {"temperature": 1}


def test_whole_numbers_written_as_fractions_are_whole() -> None:
    """600.0 in the file is sent as 600."""
    (tokens,) = prompt_of("x", parameters={"max_tokens": 600.0}).parameters_for(None).values()
    assert tokens == 600
    assert isinstance(tokens, int)


@pytest.mark.parametrize("model", [None, "gpt-4o", "gpt-4o-mini-2024-07-18", "GPT-4o-mini"])
def test_override_without_a_pattern_applies_to_its_model_only(first_line: Prompt, model: str | None) -> None:
    """Other models use the prompt and the parameters unchanged."""
    assert first_line.render({"company": "Shop"}, model=model) == first_line.render({"company": "Shop"})
    assert first_line.parameters_for(model)["temperature"] == 0.2


def test_parameters_are_merged_key_by_key_and_null_unsets(first_line: Prompt) -> None:
    """An override wins key by key, and null removes a parameter."""
    assert first_line.parameters_for("gpt-4o-mini") == {
        "temperature": 0,
        "max_tokens": 600,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
    }
    assert first_line.parameters["temperature"] == 0.2


def test_prompt_says_what_it_declares(first_line: Prompt) -> None:
    """All sections of a prompt are available."""
    assert (first_line.name, first_line.id, first_line.version) == ("first_line", "first_line", "1.4.0")
    assert first_line.description == "Answers the first question of a customer."
    assert first_line.tools == ("order_status", "open_ticket")
    assert first_line.tool_policy["blocklist"] == ["open_ticket"]
    assert list(first_line.model_overrides) == ["gpt-4o-mini", "llama3.2"]
    assert [variable.name for variable in first_line.variables if variable.required] == ["company"]
    assert [variable.name for variable in first_line.variables if not variable.required] == [
        "language",
        "agent",
        "refund_limit",
        "orders",
        "vip",
    ]


def test_snapshot_brings_back_an_equal_prompt(first_line: Prompt) -> None:
    """A prompt restored from JSON is equal and renders the same."""
    restored = Prompt.from_snapshot(json.loads(json.dumps(first_line.snapshot())))
    assert restored == first_line
    assert (
        restored.render({"company": "Shop"}, model="llama3.2") == "Help customers of Shop. Sign as the Shop team, Shop."
    )


def test_snapshot_keeps_the_fragments_it_uses_and_no_others(first_line: Prompt) -> None:
    """A snapshot holds only the fragments that the prompt uses."""
    snapshot = first_line.snapshot()
    assert list(snapshot) == ["name", "pack_id", "pack_version", "prompt", "fragments", "tools", "placeholders"]
    assert (snapshot["pack_id"], snapshot["pack_version"]) == ("customer-support", "v2.3.1")
    assert snapshot["fragments"] == {
        "signature": "Sign as {{agent}}, {{company}}.",
        "policy": "Never promise a refund above {{refund_limit}} EUR. {{signature}}",
    }


def test_snapshot_is_a_copy(first_line: Prompt) -> None:
    """Changing a snapshot does not change the prompt."""
    definition = first_line.snapshot()["prompt"]
    assert isinstance(definition, dict)
    definition["parameters"]["temperature"] = 2
    assert first_line.parameters["temperature"] == 0.2


@pytest.mark.parametrize("data", [{}, {"name": "a"}, {**prompt_of("x").snapshot(), "prompt": {}}])
def test_broken_snapshot_is_refused(data: dict[str, object]) -> None:
    """An invalid snapshot is an error with a remedy."""
    with pytest.raises(PackValidationError, match=r"^The stored prompt is not"):
        Prompt.from_snapshot(data)


def test_repr_says_what_is_in_the_prompt() -> None:
    """The repr has name, variables and the beginning of the system prompt."""
    prompt = prompt_of("You teach {{s}}.\nBe kind.", {"name": "s", "required": True}, {"name": "t", "default": "x"})
    assert repr(prompt) == "<Prompt 'a', variables: s (required), t='x'; 'You teach {{s}}. Be kind.'>"


def test_html_escapes_everything() -> None:
    """All texts of a pack are escaped."""
    evil = "<img src=x onerror=alert(1)>"
    prompt = prompt_of(
        evil,
        {"name": evil, "default": evil},
        description=evil,
        tools=[evil],
        tool_policy={"blocklist": [evil]},
        model_overrides={evil: {}},
    )
    shown = prompt._repr_html_()
    assert "<img" not in shown
    assert shown.count("&lt;img") == 7
