"""Rendering: texts of the pack nest, values of the caller are literal, missing names are errors."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from promptkit_nb.errors import MissingVariableError, PackValidationError
from promptkit_nb.packs.templates import as_text, fragment_texts, reachable, render, unsupported_in


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
    """Every placeholder is replaced, with or without blanks inside the braces."""
    assert filled(template, n="Ann") == rendered


@pytest.mark.parametrize(
    "text",
    ["{n}", "{{n", "n}}", "{{n}", "{ {n} }", '{"a": {"b": 1}}', r"\frac{a}{b}", "}}{{", "$n %s"],
)
def test_other_braces_are_plain_text(text: str) -> None:
    """Single and unclosed braces, JSON and LaTeX are kept."""
    assert filled(text, n="Ann") == text


@pytest.mark.parametrize("name", ["user.name", "first-name", "_x", "größe", "a1"])
def test_names_may_contain_dots_hyphens_and_letters(name: str) -> None:
    """A dotted name is one name, looked up as written."""
    assert render(f"{{{{{name}}}}}", texts={}, values={name: "v"}).text == "v"


def test_empty_value_is_a_value() -> None:
    """Empty text is a value."""
    assert filled("[{{n}}]", n="") == "[]"


@pytest.mark.parametrize("value", [r"\1 $1 \g<0>", "\"quotes\" 'too'", "line\nbreak", "back\\slash", "</script>"])
def test_special_characters_are_inserted_literally(value: str) -> None:
    """Values are never interpreted as patterns, escapes or markup."""
    assert filled("<{{n}}>", n=value) == f"<{value}>"


def test_caller_values_are_never_rescanned() -> None:
    """A value that looks like a placeholder is not rendered."""
    assert filled("{{a}}", a="{{hidden}}", hidden="42") == "{{hidden}}"


def test_placeholders_are_not_assembled_from_adjacent_values() -> None:
    """Two values that form a placeholder are not rendered."""
    assert filled("{{a}}{{b}}", a="{{hid", b="den}}", hidden="42") == "{{hidden}}"


@given(value=st.text(), before=st.sampled_from(["", "{", "{{", "{{n"]), after=st.sampled_from(["", "}", "}}"]))
def test_any_value_comes_out_as_it_went_in(value: str, before: str, after: str) -> None:
    """The result is always the text before, the value and the text after."""
    assume(not (before.startswith("{{") and after == "}}"))
    rendered = render(f"{before} {{{{v}}}} {after}", texts={"n": "wrong", "secret": "wrong"}, values={"v": value}).text
    assert rendered == f"{before} {value} {after}"


def test_texts_of_the_pack_nest() -> None:
    """A text of the pack may use another, which may use a value."""
    assert filled("{{a}}", {"a": "1 {{b}}", "b": "2 {{ n }}"}, n="Ann") == "1 2 Ann"


def test_caller_wins_over_the_pack() -> None:
    """A value replaces the pack's text with that name at every level."""
    assert filled("{{a}}", {"a": "{{b}}", "b": "pack"}, b="caller") == "caller"


def chain_of(levels: int) -> dict[str, str]:
    """Return texts that nest this deep, from t1 to the last."""
    return {f"t{level}": f"{{{{t{level + 1}}}}}" for level in range(1, levels)} | {f"t{levels}": "end"}


def test_ten_levels_are_allowed() -> None:
    """Ten levels work."""
    assert filled("{{t1}}", chain_of(10)) == "end"


@pytest.mark.parametrize("template", ["{{t1}}", "{{t9}} {{t5}} {{t1}}", "{{t1}} {{t9}}"])
def test_eleven_levels_are_refused_whatever_was_filled_before(template: str) -> None:
    """The error shows the chain; texts rendered earlier count with their depth."""
    with pytest.raises(PackValidationError, match=r"more than 10 levels deep: t1 → t2"):
        filled(template, chain_of(11))


def test_long_chains_raise() -> None:
    """A chain of thousands of texts is an error, not a crash."""
    with pytest.raises(PackValidationError, match="more than 10 levels"):
        filled("{{t1}}", chain_of(5000))


def test_cycles_show_their_chain() -> None:
    """The error for a cycle shows its chain."""
    with pytest.raises(PackValidationError, match=r"never ends: a → b → a\."):
        filled("{{start}}", {"start": "{{a}}", "a": "{{b}}", "b": "{{a}}"})


def test_exponential_growth_is_stopped() -> None:
    """Exponential growth is stopped early."""
    texts = {f"t{level}": f"{{{{t{level + 1}}}}}" * 10 for level in range(1, 10)} | {"t10": "x" * 10}
    started = time.thread_time()
    with pytest.raises(PackValidationError, match="grows beyond 10,000,000 characters"):
        filled("{{t1}}", texts)
    assert time.thread_time() - started < 2


TENFOLD = {f"t{level}": f"{{{{t{level + 1}}}}}" * 10 for level in range(1, 7)} | {"t7": "x" * 9}
SIDE_BY_SIDE = {f"w{each}": "{{t}}" * 9 for each in range(9)} | {"t": "x" * 99_999}


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{{t1}}" * 900, TENFOLD),
        ("".join(f"{{{{w{each}}}}}" for each in range(9)), SIDE_BY_SIDE),
        ("{{value}}" * 900, {}),
    ],
)
def test_growth_is_bounded_at_every_level(template: str, texts: dict[str, str]) -> None:
    """In the template itself, in texts side by side, and by values: 1.5 kB never take more than a few megabytes."""
    tracemalloc.start()
    try:
        with pytest.raises(PackValidationError, match="grows beyond 10,000,000 characters"):
            filled(template, texts, value="x" * 99_999)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_positions_in_a_large_text_take_one_pass() -> None:
    """Each has its line and column; to count lines from the beginning each time would take minutes."""
    found = unsupported_in("{{a b}}\n" * 100_000)
    assert [(each.line, each.column) for each in found] == [(line, 1) for line in range(1, 100_001)]


def test_exponential_references_to_an_empty_text_are_fast() -> None:
    """Each text is rendered once, so ten levels around an empty text are fast."""
    texts = {f"t{level}": f"{{{{t{level + 1}}}}}" * 10 for level in range(1, 10)} | {"t10": ""}
    assert filled("{{t1}}", texts) == ""


def test_all_missing_names_are_listed_sorted_with_near_matches() -> None:
    """One error lists all missing names, also those inside texts of the pack."""
    with pytest.raises(MissingVariableError) as caught:
        filled("{{zeta}} {{topc}} {{given}} {{frag}}", {"frag": "{{inner}}"}, topic="x", given="y")
    assert str(caught.value) == (
        "The template has no value for 'inner', 'topc' (did you mean 'topic'?), 'zeta'. Give it in variables={...}."
    )


def test_required_names_need_a_value_without_a_placeholder() -> None:
    """Required names need a value even if unused."""
    with pytest.raises(MissingVariableError, match="no value for 'a', 'b'"):
        render("{{b}}", texts={}, values={}, required=["a"])


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("{{name | upper}}", "line 1, column 1", "filters are unsupported"),
        ("Dear {{user name}}", "line 1, column 6", "this is not a name"),
        ("{{1}}", "line 1, column 1", "this is not a name"),
        ("a\nb {{}}", "line 2, column 3", "this is not a name"),
        ("{{persona_{{region}}}}", "line 1, column 1", "this is not a name"),
        ("{{fragment: }}", "line 1, column 1", "this is not a name"),
        ("{{\nname\n}}", "line 1, column 1", "this is not a name"),
        ('{{"a": 1}}', "line 1, column 1", "this is not a name"),
        ("{{{{name}}}}", "line 1, column 1", "this is not a name"),
        ("{{name}} {{#if x}}", "line 1, column 10", "blocks are unsupported"),
    ],
)
def test_double_braces_that_are_not_a_placeholder_are_refused(text: str, place: str, problem: str) -> None:
    """Nothing unrendered goes to the model: the error has the text, its line and column, and a remedy."""
    with pytest.raises(PackValidationError) as caught:
        filled(text, name="Ann", region="eu", x="1")
    assert f"at {place}, but {problem}: only {{{{name}}}} and {{{{fragments.NAME}}}} are replaced" in str(caught.value)
    assert filled("{{v}}", v=text) == text


def test_unsupported_braces_can_be_kept() -> None:
    """Prompts stored by older versions keep them in the text and describe them."""
    rendered = render("{{1}} {{a}} {{b | c}}", texts={}, values={"a": "A"}, keep_unsupported=True)
    assert rendered.text == "{{1}} A {{b | c}}"
    assert [message.split(",")[0] for message in rendered.unsupported] == [
        "The template contains {{1}} at line 1",
        "The template contains {{b | c}} at line 1",
    ]


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{{open}}n}}", {"open": "{{"}),
        ("{{open}}{{close}}", {"open": "{{1 |", "close": " x}}"}),
        ("{{{f}}", {"f": "{n}}"}),
    ],
)
def test_placeholders_are_not_assembled_from_texts_of_the_pack(template: str, texts: dict[str, str]) -> None:
    """Texts that form double braces together are an error, too; the same from a value is text."""
    with pytest.raises(PackValidationError, match="formed by several texts of the pack"):
        filled(template, texts, n="Ann")
    assert "{{" in render(template, texts={}, values=texts).text


@pytest.mark.parametrize("reference", ["{{fragments.sig}}", "{{fragment:sig}}", "{{ fragment: sig }}", "{{sig}}"])
def test_fragments_have_three_syntaxes(reference: str) -> None:
    """The specification's, that of promptpack-python, and that of PromptKit's examples."""
    texts = fragment_texts({"sig": "Yours, {{fragment:name}}", "name": "{{fragments.who}}", "who": "{{user}}"})
    rendered = render(f"{reference}!", texts=texts, values={"user": "Ann"})
    assert rendered.text == "Yours, Ann!"
    assert rendered.passes == 4


def test_explicit_references_are_fragments_only() -> None:
    """A value replaces a fragment of its name only for the plain syntax."""
    texts = fragment_texts({"sig": "fragment"})
    assert filled("{{sig}} {{fragments.sig}} {{fragment:sig}}", texts, sig="value") == "value fragment fragment"


def test_missing_fragments_are_named_with_near_matches() -> None:
    """One error names all of them, whatever else is missing."""
    with pytest.raises(PackValidationError) as caught:
        filled("{{fragments.sgi}} {{fragment:zzz}} {{other}}", fragment_texts({"sig": "x"}))
    assert str(caught.value) == (
        "The template uses fragments that the pack does not have: 'sgi' (did you mean 'sig'?), 'zzz'. "
        "Add them to the pack, or correct the names."
    )


@pytest.mark.parametrize("block", ["{{#if x}}", "{{/if}}", "{{ #each items }}", "{{^x}}", "{{> part }}"])
def test_blocks_are_refused(block: str) -> None:
    """Blocks and partials raise with the block and a remedy."""
    with pytest.raises(PackValidationError) as caught:
        filled(f"Hello {block}", x="1")
    assert block in str(caught.value)
    assert "blocks are unsupported" in str(caught.value)


def test_blocks_in_nested_texts_say_where_they_are() -> None:
    """The error shows the chain to the text with the block."""
    with pytest.raises(PackValidationError, match=r"\(in a → b\)"):
        filled("{{a}}", {"a": "{{b}}", "b": "{{#if x}}"})


def test_blocks_in_caller_values_are_text() -> None:
    """A value may contain a block as text."""
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
    """Text is raw, numbers are short, lists and dicts are compact JSON."""
    assert as_text(value, "it") == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), [object()], b"bytes"])
def test_values_that_json_lacks_are_refused_if_used(value: object) -> None:
    """The error names the variable; unused values do not matter."""
    with pytest.raises(PackValidationError, match=r"Variable 'v' is a .* that cannot be written into a prompt"):
        filled("{{v}}", v=value)
    assert filled("no placeholder", v=value) == "no placeholder"


def test_reachable_follows_texts_through_cycles() -> None:
    """All texts that a template can use, and no others."""
    assert reachable(["{{a}} {{x}}"], {"a": "{{b}}", "b": "{{a}}", "c": "{{a}}"}) == {"a", "b"}
