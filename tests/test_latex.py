"""Formulas: found between their delimiters, shown as MathML, or as their source."""

from __future__ import annotations

import pytest

from promptkit_nb.rendering.latex import to_mathml
from promptkit_nb.rendering.markdown import to_html

X = "<mrow><mi>x</mi></mrow></math>"
INLINE = f'<math display="inline">{X}'
BLOCK = f'<div style="overflow-x:auto;overflow-y:hidden;margin:0 0 1em"><math display="block">{X}</div>'


@pytest.mark.parametrize("text", ["a $x$ b", r"a \(x\) b"])
def test_a_formula_in_a_line(text: str) -> None:
    """Dollars and parentheses stand for inline style."""
    assert f"<p>a {INLINE} b</p>" in to_html(text)


@pytest.mark.parametrize("text", ["a\n\n$$x$$\n\nb", "a\n\\[x\\]\nb", "a\n$$\nx\n$$\nb", "a\n\\[\n\nx\n\n\\]\nb"])
def test_a_formula_of_its_own(text: str) -> None:
    """Double dollars and brackets at the start of a line make a block, also right after a paragraph."""
    assert f"<p>a</p>\n{BLOCK}\n<p>b</p>" in to_html(text)


def test_lines_of_a_formula_are_no_list() -> None:
    """A line of a formula that begins with a sign belongs to the formula."""
    html = to_html("\\[\nx\n- y\n+ z\n\\]")
    assert "<li>" not in html
    assert "<mi>x</mi><mo>−</mo><mi>y</mi><mo>+</mo><mi>z</mi>" in html  # noqa: RUF001 - the minus of MathML


def test_a_formula_in_a_list_and_in_a_quotation() -> None:
    """Formulas keep to the list item or quotation that they stand in."""
    assert f"<li>\n<p>a</p>\n{BLOCK}\n</li>" in to_html("- a\n\n  $$\n  x\n  $$\n")
    assert f"<blockquote>\n{BLOCK}\n</blockquote>" in to_html("> $$\n> x\n> $$\n")


def test_two_display_formulas_in_one_line() -> None:
    """What follows a formula on its line is not swallowed."""
    assert to_html("$$x$$ and $$x$$, done").count("<math") == 2
    assert ", done</p>" in to_html("$$x$$ and $$x$$, done")


@pytest.mark.parametrize("text", ["$5 or $6", "between $5 and $10 a month", "US$5 each, $30 in all"])
def test_amounts_of_money_are_no_formulas(text: str) -> None:
    """Dollars around digits and blanks stay dollars."""
    assert f"<p>{text}</p>" in to_html(text)


@pytest.mark.parametrize("text", ["$$\nx", r"\[x", r"\(x", "$x"])
def test_an_unfinished_formula_is_text(text: str) -> None:
    """While a formula streams in, its source is shown."""
    assert "<math" not in to_html(text)
    assert "x" in to_html(text)


@pytest.mark.parametrize("latex", [r"\frac{1}{", r"x_", r"\begin{matrix}", r"\left(x", "x" * 2001])
def test_latex_that_cannot_be_shown_is_code(latex: str) -> None:
    """Broken or overlong LaTeX is shown as it was written."""
    assert to_mathml(latex) == f"<code>{latex}</code>"


def test_macros_are_not_expanded() -> None:
    """A handful of macros could expand without end, so LaTeX that defines any is shown as code."""
    bomb = r"\def\a{\b\b}\def\b{\c\c}\def\c{x}\a"
    assert to_mathml(bomb) == f"<code>{bomb}</code>"


def test_markup_in_a_formula_stays_escaped() -> None:
    """The text of a formula cannot become an element, even before it is sanitized."""
    assert "&lt;img&gt;" in to_mathml(r"\text{<img>}")
    assert "<img" not in to_mathml(r"\unicode{3c;<img>}")


def test_arg_is_known() -> None:
    r"""``\arg\min`` is in every other answer about machine learning."""
    assert to_mathml(r"\arg\min_x f").startswith('<math display="inline"><mrow><mo>arg</mo><msub><mo>min</mo>')
