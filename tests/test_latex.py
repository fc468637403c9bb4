"""Formulas: found by their delimiters, shown as MathML or as their source."""

from __future__ import annotations

import pytest

from promptkit_nb.rendering.formulas import to_mathml
from promptkit_nb.rendering.markdown import to_html

X = "<mrow><mi>x</mi></mrow></math>"
SOURCE = '<span class="pk-latex"><code>x</code></span>'
INLINE = f'<span class="pk-math" style="display:none"><math display="inline">{X}</span>{SOURCE}'
BLOCK = (
    '<div class="pk-formula" style="overflow-x:auto;overflow-y:hidden">'
    f'<span class="pk-math" style="display:none"><math display="block">{X}</span>{SOURCE}</div>'
)


@pytest.mark.parametrize("text", ["a $x$ b", r"a \(x\) b"])
def test_inline_formula(text: str) -> None:
    """Dollars and parentheses delimit inline formulas."""
    assert f"<p>a {INLINE} b</p>" in to_html(text)


@pytest.mark.parametrize("text", ["a\n\n$$x$$\n\nb", "a\n\\[x\\]\nb", "a\n$$\nx\n$$\nb", "a\n\\[\n\nx\n\n\\]\nb"])
def test_display_formula(text: str) -> None:
    """Double dollars and brackets at the start of a line make a block, even right after a paragraph."""
    assert f"<p>a</p>\n{BLOCK}\n<p>b</p>" in to_html(text)


def test_display_formula_within_a_line() -> None:
    """Brackets inside a paragraph delimit a formula in display style; the text around it is kept."""
    html = to_html(r"The error is \[x\] here.")
    assert '<p>The error is <span class="pk-math" style="display:none"><math display="block">' in html
    assert html.endswith(f"{X}</span>{SOURCE} here.</p>\n</div>")


def test_a_long_list_of_formulas_is_shown_as_source() -> None:
    """After 20,000 characters of formulas the others are code; a formula takes time that text does not."""
    html = to_html(f"${'x' * 100}$ " * 300)
    assert (html.count("<math"), html.count("<code>xx")) == (200, 300)


def test_lines_of_a_formula_are_not_a_list() -> None:
    """A line that begins with a sign belongs to the formula."""
    html = to_html("\\[\nx\n- y\n+ z\n\\]")
    assert "<li>" not in html
    assert "<mi>x</mi><mo>−</mo><mi>y</mi><mo>+</mo><mi>z</mi>" in html  # noqa: RUF001 - the minus of MathML


def test_formula_in_a_list_and_in_a_quote() -> None:
    """Formulas stay inside their list item or quote."""
    assert f"<li>\n<p>a</p>\n{BLOCK}\n</li>" in to_html("- a\n\n  $$\n  x\n  $$\n")
    assert f"<blockquote>\n{BLOCK}\n</blockquote>" in to_html("> $$\n> x\n> $$\n")


def test_two_display_formulas_in_one_line() -> None:
    """The text after a formula on its line is kept."""
    assert to_html("$$x$$ and $$x$$, done").count("<math") == 2
    assert ", done</p>" in to_html("$$x$$ and $$x$$, done")


@pytest.mark.parametrize("text", ["$5 or $6", "between $5 and $10 a month", "US$5 each, $30 in all"])
def test_amounts_of_money_are_not_formulas(text: str) -> None:
    """Dollars next to digits and blanks stay text."""
    assert f"<p>{text}</p>" in to_html(text)


@pytest.mark.parametrize("text", ["$$\nx", r"\[x", r"\(x", "$x"])
def test_unfinished_formula_is_text(text: str) -> None:
    """While a formula streams, its source is shown."""
    assert "<math" not in to_html(text)
    assert "x" in to_html(text)


@pytest.mark.parametrize("latex", [r"\frac{1}{", r"x_", r"\begin{matrix}", r"\left(x", "x" * 2001])
def test_invalid_latex_is_code(latex: str) -> None:
    """Broken or overlong LaTeX is shown as its source."""
    assert to_mathml(latex) == f"<code>{latex}</code>"


def test_macros_are_not_expanded() -> None:
    """A few macros can expand forever, so LaTeX that defines any is shown as code."""
    bomb = r"\def\a{\b\b}\def\b{\c\c}\def\c{x}\a"
    assert to_mathml(bomb) == f"<code>{bomb}</code>"


def test_markup_in_a_formula_stays_escaped() -> None:
    """The text of a formula cannot become an element, even before sanitizing."""
    assert "&lt;img&gt;" in to_mathml(r"\text{<img>}")
    assert "<img" not in to_mathml(r"\unicode{3c;<img>}")


def test_arg_is_known() -> None:
    r"""``\arg\min`` is common in answers about machine learning."""
    assert to_mathml(r"\arg\min_x f").startswith('<math display="inline"><mrow><mo>arg</mo><msub><mo>min</mo>')
