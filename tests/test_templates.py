"""Filling placeholders: the pack's texts nest, what callers give is literal, what is missing is named."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.packs.templates import as_text, reachable, render


def filled(template: str, texts: dict[str, str] | None = None, **values: object) -> str:
    """Render with the pack's texts and the caller's values."""
    return render(template, texts=texts or {}, values=values).text


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("Hi {{n}}", "Hi Ann"),
        ("Hi {{ n }}", "Hi Ann"),
        ("{{n}}{{n}} and {{\tn }}", "AnnAnn and Ann"),
        ("nothing to fill", "nothing to fill"),
        ("", ""),
        ("{{{n}}}", "{Ann}"),
    ],
)
def test_placeholders_are_replaced(template: str, rendered: str) -> None:
    """With and without blanks inside the braces, as often as they occur."""
    assert filled(template, n="Ann") == rendered


@pytest.mark.parametrize(
    "text",
    ["{n}", "{{n", "n}}", "{{n}", "{ {n} }", '{"a": {"b": 1}}', r"\frac{a}{b}", "{{}}", "{{1}}", "{{a b}}", "$n %s"],
)
def test_other_braces_are_plain_text(text: str) -> None:
    """Single and unclosed braces, JSON and LaTeX stay as they are."""
    assert filled(text, n="Ann") == text


@pytest.mark.parametrize("name", ["user.name", "first-name", "_x", "größe", "a1"])
def test_names_may_contain_dots_hyphens_and_letters(name: str) -> None:
    """A dotted name is one name, looked up as it is written."""
    assert render(f"{{{{{name}}}}}", texts={}, values={name: "v"}).text == "v"


def test_empty_value_is_a_value() -> None:
    """An empty text makes the placeholder disappear and is no error."""
    assert filled("[{{n}}]", n="") == "[]"


@pytest.mark.parametrize("value", [r"\1 $1 \g<0>", "\"quotes\" 'too'", "line\nbreak", "back\\slash", "</script>"])
def test_special_characters_are_inserted_literally(value: str) -> None:
    """No value is taken for a pattern, an escape or markup."""
    assert filled("<{{n}}>", n=value) == f"<{value}>"


def test_caller_values_are_never_rescanned() -> None:
    """A value that looks like a placeholder stays text, also where that name has a value."""
    assert filled("{{a}}", a="{{hidden}}", hidden="42") == "{{hidden}}"


def test_placeholders_are_not_assembled_from_adjacent_values() -> None:
    """Two values, each half a placeholder, stay two values."""
    assert filled("{{a}}{{b}}", a="{{hid", b="den}}", hidden="42") == "{{hidden}}"


@given(value=st.text(), before=st.sampled_from(["", "{", "{{", "{{n"]), after=st.sampled_from(["", "}", "}}"]))
def test_any_value_comes_out_as_it_went_in(value: str, before: str, after: str) -> None:
    """Whatever the value and whatever stands around it, the text is before + value + after."""
    rendered = render(f"{before} {{{{v}}}} {after}", texts={"n": "wrong", "secret": "wrong"}, values={"v": value}).text
    assert rendered == f"{before} {value} {after}"


def test_texts_of_the_pack_nest() -> None:
    """A text of the pack may ask for another, which may ask for a value."""
    assert filled("{{a}}", {"a": "1 {{b}}", "b": "2 {{ n }}"}, n="Ann") == "1 2 Ann"


def test_caller_wins_over_the_pack() -> None:
    """A value given replaces the pack's text of that name, also deep inside."""
    assert filled("{{a}}", {"a": "{{b}}", "b": "pack"}, b="caller") == "caller"


def chain_of(levels: int) -> dict[str, str]:
    """Return texts that nest this deep, from t1 to the last."""
    return {f"t{level}": f"{{{{t{level + 1}}}}}" for level in range(1, levels)} | {f"t{levels}": "end"}


def test_ten_levels_are_allowed() -> None:
    """The tenth level is still filled."""
    assert filled("{{t1}}", chain_of(10)) == "end"


@pytest.mark.parametrize("template", ["{{t1}}", "{{t9}} {{t5}} {{t1}}", "{{t1}} {{t9}}"])
def test_eleven_levels_are_refused_whatever_was_filled_before(template: str) -> None:
    """The error shows the chain; texts filled for an earlier placeholder do not hide how deep they are."""
    with pytest.raises(PackValidationError, match=r"more than 10 levels deep: t1 → t2"):
        filled(template, chain_of(11))


def test_long_chains_end_in_our_error() -> None:
    """Thousands of texts in a row are refused, not a crash of the interpreter."""
    with pytest.raises(PackValidationError, match="more than 10 levels"):
        filled("{{t1}}", chain_of(5000))


def test_cycles_show_their_chain() -> None:
    """A text that comes back to itself is an error that names the way."""
    with pytest.raises(PackValidationError, match=r"never ends: a → b → a\."):
        filled("{{start}}", {"start": "{{a}}", "a": "{{b}}", "b": "{{a}}"})


def test_texts_that_multiply_are_stopped() -> None:
    """Ten levels of ten references each would be ten thousand million characters: refused at once."""
    texts = {f"t{level}": f"{{{{t{level + 1}}}}}" * 10 for level in range(1, 10)} | {"t10": "x" * 10}
    started = time.perf_counter()
    with pytest.raises(PackValidationError, match="grows beyond 10,000,000 characters"):
        filled("{{t1}}", texts)
    assert time.perf_counter() - started < 2


def test_references_that_multiply_to_nothing_cost_nothing() -> None:
    """Each text is filled once, so the same ten levels around an empty text take no time."""
    texts = {f"t{level}": f"{{{{t{level + 1}}}}}" * 10 for level in range(1, 10)} | {"t10": ""}
    assert filled("{{t1}}", texts) == ""


def test_all_missing_names_are_listed_sorted_with_near_matches() -> None:
    """One error names everything that is missing, here and inside the pack's texts."""
    with pytest.raises(MissingVariableError) as caught:
        filled("{{zeta}} {{topc}} {{given}} {{frag}}", {"frag": "{{inner}}"}, topic="x", given="y")
    assert str(caught.value) == (
        "The template has no value for 'inner', 'topc' (did you mean 'topic'?), 'zeta'. Give it in variables={...}."
    )


def test_required_names_need_a_value_without_a_placeholder() -> None:
    """What is required is asked for, used or not."""
    with pytest.raises(MissingVariableError, match="no value for 'a', 'b'"):
        render("{{b}}", texts={}, values={}, required=["a"])


@pytest.mark.parametrize("block", ["{{#if x}}", "{{/if}}", "{{ #each items }}", "{{^x}}", "{{> part }}"])
def test_blocks_are_refused(block: str) -> None:
    """Conditions and loops are not silently sent to the model: the error names the block and the remedy."""
    with pytest.raises(PackValidationError) as caught:
        filled(f"Hello {block}", x="1")
    assert block in str(caught.value)
    assert "blocks are unsupported" in str(caught.value)


def test_blocks_in_nested_texts_say_where_they_are() -> None:
    """The chain leads to the text that has the block."""
    with pytest.raises(PackValidationError, match=r"\(in a → b\)"):
        filled("{{a}}", {"a": "{{b}}", "b": "{{#if x}}"})


def test_blocks_in_caller_values_are_text() -> None:
    """A caller may write about templates."""
    assert filled("{{a}}", a="{{#if x}}") == "{{#if x}}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("raw", "raw"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-0.5, "-0.5"),
        (2.0, "2"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        ([1, "ä", None], '[1,"ä",null]'),
        ({"a": {"b": [True]}}, '{"a":{"b":[true]}}'),
        ([], "[]"),
    ],
)
def test_values_are_written_as_json_writes_them(value: object, text: str) -> None:
    """Text raw, numbers in their shortest form, lists and dicts compact."""
    assert as_text(value, "it") == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), [object()], b"bytes"])
def test_values_that_json_lacks_are_refused_where_they_are_used(value: object) -> None:
    """The error names the variable; where no placeholder asks for it, the value does not matter."""
    with pytest.raises(PackValidationError, match=r"Variable 'v' is a .* that cannot be written into a prompt"):
        filled("{{v}}", v=value)
    assert filled("no placeholder", v=value) == "no placeholder"


def test_reachable_follows_texts_through_cycles() -> None:
    """Everything that a template may come to need, and nothing else."""
    assert reachable(["{{a}} {{x}}"], {"a": "{{b}}", "b": "{{a}}", "c": "{{a}}"}) == {"a", "b"}
