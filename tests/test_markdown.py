"""A model's Markdown as HTML: what is shown, and that only allowed HTML comes out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptkit_nb import ConversationManager, DemoProvider
from promptkit_nb.rendering.markdown import _parser, to_html

if TYPE_CHECKING:
    from markdown_it.rules_inline import StateInline

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

# The allowed HTML, written independently of the module.
HTML_TAGS = "a blockquote br code details div em hr img kbd li mark ol p pre s span strong sub summary sup u ul"
TABLE_TAGS = "table thead tbody tr th td"
MATH_TAGS = """
    math menclose mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt mstyle msub msubsup msup mtable mtd
    mtext mtr munder munderover
"""
MATH_ATTRIBUTE = re.compile(r"[-+.#\w ]{0,999}")
ADDRESS = re.compile(r"(https?://|mailto:)\S+", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[\w+/=]+")
LABELS = {
    "div class": "pk-(h[1-3]|code|language|formula)",
    "div role": "heading",
    "div aria-level": "[3-6]",
    "span class": "pk-(math|latex)",
    "span role": "img",
    "span aria-label": "done|not done",
    "pre aria-label": r"code( [\w+#.-]+)?",
    "pre role": "group",
    "pre tabindex": "0",
}
STYLE = re.compile(
    r"(?:[a-z-]+: ?(?:[a-z0-9 .%-]+|rgba\([\d.,]+\)|var\(--jp-mirror-editor-[a-z0-9-]+-color,#\w{6}\));?)+"
)


class Inspector(HTMLParser):
    """Parses HTML and fails on anything that this file does not allow."""

    def __init__(self) -> None:
        """Start with no open element."""
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check an element and its attributes."""
        assert tag in f"{HTML_TAGS} {TABLE_TAGS} {MATH_TAGS}".split()
        for name, value in attrs:
            if self.open and f"{tag} {name}" in LABELS:
                assert re.fullmatch(LABELS[f"{tag} {name}"], value or "")
            else:
                self.check(tag, name, value or "")
        if tag not in {"br", "hr", "img"}:
            self.open.append(tag)

    def check(self, tag: str, name: str, value: str) -> None:
        """Check one attribute."""
        match tag, name:
            case "div", "class":
                assert (self.open, value) == ([], "promptkit-markdown mathjax_ignore tex2jax_ignore")
            case "a", "href":
                assert ADDRESS.fullmatch(value)
            case "a", "rel":
                assert value == "noopener noreferrer nofollow"
            case "a", "target":
                assert value == "_blank"
            case "img", "src":
                assert PICTURE.fullmatch(value)
            case "img", "alt":
                pass
            case "ol", "start":
                assert value.isdecimal()
            case _, "dir":
                assert value == "auto"
            case _, "style":
                assert STYLE.fullmatch(value)
                assert "url" not in value
                assert "position" not in value
            case _:
                assert tag in MATH_TAGS.split()
                assert not name.startswith("on")
                assert name not in {"href", "class", "id", "src", "actiontype"}
                assert MATH_ATTRIBUTE.fullmatch(value)

    def handle_endtag(self, tag: str) -> None:
        """Check that elements are closed in the right order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data

    def handle_comment(self, data: str) -> None:
        """Fail: comments are not allowed."""
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        """Fail: declarations are not allowed."""
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        """Fail: processing instructions are not allowed."""
        raise AssertionError(data)


def inspected(text: str) -> str:
    """Check the HTML of the text and return the visible text."""
    inspector = Inspector()
    inspector.feed(to_html(text))
    inspector.close()
    assert inspector.open == []
    return inspector.text.strip()


def inner(text: str) -> str:
    """Return the HTML inside the box."""
    box, _, rest = to_html(text).partition(">")
    assert box.startswith('<div class="promptkit-markdown ')
    return rest.removesuffix("</div>").strip()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*a* **b** ~~c~~ `d`", "<p><em>a</em> <strong>b</strong> <s>c</s> <code>d</code></p>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("> a", "<blockquote>\n<p>a</p>\n</blockquote>"),
        ("a < b & c", "<p>a &lt; b &amp; c</p>"),
        ("", ""),
    ],
)
def test_markdown_is_shown_as_html(text: str, html: str) -> None:
    """CommonMark with strikethrough becomes elements without classes or ids."""
    assert inner(text) == html


@pytest.mark.parametrize(
    ("text", "kind", "level", "px"),
    [("# a", 1, 3, 18), ("## a", 2, 4, 16), ("### a", 3, 5, 14), ("###### a", 3, 6, 14)],
)
def test_headings_are_below_those_of_the_notebook(text: str, kind: int, level: int, px: int) -> None:
    """They are no ``<h1>``, which would enter the table of contents; size and weight are in them, for plain pages."""
    style = f"font-size:{px}px;font-weight:600"
    assert inner(text) == f'<div class="pk-h{kind}" role="heading" aria-level="{level}" style="{style}">a</div>'


def test_code_scrolls_and_has_its_language() -> None:
    """Long lines are not wrapped; the keyboard can scroll them, and a screen reader names the block."""
    html = inner("```python\nx\n```")
    assert html.startswith(
        '<div class="pk-code"><div class="pk-language">python</div><pre style="white-space:pre;overflow'
    )
    assert '" tabindex="0" role="group" aria-label="code python"><code' in html
    assert 'role="group" aria-label="code"><code' in inner("    x")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("| a |\n|---|\n| b<br>c<br/>d |", '<td style="text-align:left">b<br>c<br>d</td>'),
        ("CO<sub>2</sub>, m<sup>2</sup>", "CO<sub>2</sub>, m<sup>2</sup>"),
        ("<kbd>Ctrl</kbd> <mark>a</mark> <u>b</u>", "<kbd>Ctrl</kbd> <mark>a</mark> <u>b</u>"),
        ("<details><summary>More</summary>Hidden</details>", "<details><summary>More</summary>Hidden</details>"),
        ("<details>\n<summary>**a**</summary>\n\n*b*\n\n</details>", "<summary><strong>a</strong></summary>"),
        ("An `<u>` and <u>, or List<T>", "An <code>&lt;u&gt;</code> and &lt;u&gt;, or List&lt;T&gt;"),
        ("Use <details> and </details>", "Use &lt;details&gt; and "),
        ('<br class="x"> <sub id=a>b</sub>', '&lt;br class="x"&gt; &lt;sub id=a&gt;b'),
    ],
)
def test_tags_that_models_write_into_markdown(text: str, html: str) -> None:
    """Eight tags without attributes are HTML if they are in pairs; everything else that looks like a tag is text."""
    assert html in inner(text)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("これは**「重要」**です", "これは<strong>「重要」</strong>です"),
        ("**文。**次", "<strong>文。</strong>次"),
        ("**重点：**内容", "<strong>重点：</strong>内容"),  # noqa: RUF001 - a Chinese colon
        ("请看**“这里”**的", "请看<strong>“这里”</strong>的"),
        ("**test.**です", "<strong>test.</strong>です"),
        ("**한국어(Korean)**는", "<strong>한국어(Korean)</strong>는"),
        ("是*(a)*吗", "是<em>(a)</em>吗"),
        ("a**(b)**c", "a**(b)**c"),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_bold_ends_beside_cjk_letters_and_punctuation(text: str, html: str) -> None:
    """Chinese, Japanese and Korean have no blanks around marked words; elsewhere CommonMark's rule holds."""
    assert inner(text) == f"<p>{html}</p>"


def test_task_list() -> None:
    """``[ ]`` and ``[x]`` are boxes with a name, in items without bullets."""
    item = '<li style="list-style:none"><span role="img" aria-label='
    assert inner("- [x] a\n- [ ] *b*\n- c") == (
        f'<ul>\n{item}"done">☑</span> a</li>\n{item}"not done">☐</span> <em>b</em></li>\n<li>c</li>\n</ul>'
    )
    assert inner("[x] a") == "<p>[x] a</p>"


def test_cells_of_a_table_have_the_direction_of_their_text() -> None:
    """In a text with Hebrew or Arabic; a column that is aligned stays so."""
    html = inner("| שלום | b |\n|---|--:|\n| 1 | 2 |")
    assert '<th style="text-align:start" dir="auto">שלום</th>' in html
    assert '<td style="text-align:right" dir="auto">2</td>' in html


def test_each_block_has_the_direction_of_its_text() -> None:
    """In a text with Hebrew or Arabic each outermost block follows its first letters; other texts are unchanged."""
    begin = '<p style="text-align:start" dir="auto">'
    assert inner("שלום\n\nHi") == f"{begin}שלום</p>\n{begin}Hi</p>"
    assert inner("- مرحبا") == '<ul style="padding:0 22px" dir="auto">\n<li>مرحبا</li>\n</ul>'
    assert inner("> - مرحبا").startswith('<blockquote dir="auto">\n<ul style="padding:0 22px">\n<li>')


def test_table_scrolls_in_its_own_box_and_aligns_every_cell() -> None:
    """A wide table does not widen the notebook; cells are aligned to the left by default."""
    html = inner("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert html.startswith(
        '<div style="overflow-x:auto;overflow-y:hidden" tabindex="0" role="group" aria-label="table"><table>'
    )
    assert '<td style="text-align:left">1</td>\n<td style="text-align:right">2</td>' in html


def test_web_link_opens_in_a_new_tab_without_referrer() -> None:
    """Links carry ``rel`` and ``target``; the model's title is dropped."""
    assert inner('[x](https://example.org/?a=1&b=2 "title")') == (
        '<p><a href="https://example.org/?a=1&amp;b=2" rel="noopener noreferrer nofollow" target="_blank">x</a></p>'
    )
    assert 'href="mailto:a@example.org"' in inner("<a@example.org>")


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "file:///etc/passwd", "/lab", "#x", "//x.org"],
)
def test_other_addresses_stay_text(address: str) -> None:
    """A link that does not lead to the web is shown as the model wrote it."""
    assert inspected(f"[x]({address})") == f"[x]({address})"
    assert "<a" not in to_html(f"[x]({address})")


def test_remote_image_becomes_its_text_and_address() -> None:
    """Nothing is fetched, and the reader sees the address."""
    assert inner("![a *cat*](https://example.org/cat.png)") == "<p>a cat (https://example.org/cat.png)</p>"
    assert inner("![](https://example.org/cat.png)") == "<p>https://example.org/cat.png</p>"


def test_data_image_is_shown() -> None:
    """A ``data:`` image in a raster format needs no request."""
    assert inner(f"![dot]({PIXEL})") == f'<p><img src="{PIXEL}" alt="dot" style="max-width:100%"></p>'


def test_svg_data_image_is_not_shown() -> None:
    """SVG can contain scripts."""
    assert "<img" not in to_html("![x](data:image/svg+xml;base64,PHN2Zy8+)")


def test_raw_html_is_shown_as_text() -> None:
    """The reader sees the tags that the model wrote."""
    attack = '<img src=x onerror="alert(1)"><script>alert(1)</script>'
    assert inspected(attack) == attack


def test_dollars_outside_formulas_are_kept() -> None:
    """Text that only looks like a formula keeps its characters."""
    assert inspected(r"It costs \$5, $6 and $7.") == "It costs $5, $6 and $7."


@pytest.mark.parametrize(
    "text",
    [
        "```python\ndef f(",
        "| a | b |\n|---|",
        "[text](https://exam",
        "**bo",
        "$$\n\\frac{1}",
        "- a\n  - ",
        "<div",
        "![",
        "`a",
    ],
)
def test_unfinished_markdown_keeps_every_word(text: str) -> None:
    """While an answer streams, the text so far is readable."""
    shown = inspected(text)
    for word in re.findall(r"[a-z]+", text.removeprefix("```python")):
        assert word in shown


def test_code_is_colored_by_the_theme() -> None:
    """Colors are JupyterLab's variables, each with a fallback for other pages."""
    assert '<span style="color: var(--jp-mirror-editor-keyword-color,#0a8a0a)">def</span>' in inner(
        "```python\ndef f(): ...\n```"
    )


def test_lone_surrogate_is_replaced() -> None:
    """It becomes U+FFFD, because no encoder accepts it."""
    assert inspected("a \ud83d b") == "a \ufffd b"


def test_text_over_200_000_characters_is_not_formatted() -> None:
    """Above the limit nothing is parsed: the text is shown in a ``<pre>``."""
    text = "**a**" * 40_001
    assert inspected(text) == text
    assert "<strong>" not in to_html(text)


PIECES = {
    "brackets": "[", "stars": "*", "images": "![", "links": "[](", "underscores": "_a__b", "quotes": "> ",
    "tables": "|a|\n|-|\n", "formulas": "$x$ ", "backticks": "`a ", "tags": "<sub>", "entities": "&#",
    "lists": "- a\n", "folds": "<details>\n", "braces": "{", "paragraphs": "a\n\n", "tildes": "~~",
}  # fmt: skip


@pytest.mark.parametrize("characters", [20_000, 80_000, 199_000, 240_000])
@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_pathological_text_makes_little_work(piece: str, characters: int) -> None:
    """However long it is, the parser makes few tokens of it, and tries its rules at few places."""
    text = (piece * characters)[:characters]
    rules = _parser().inline.ruler.getRules("")
    plain, tried = rules[0], 0

    def counted(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
        nonlocal tried
        tried += 1
        return plain(state, silent)

    rules[0] = counted
    try:
        html = to_html(text)
    finally:
        rules[0] = plain
    assert tried <= 40_000
    assert html.count("</") <= 40_000


@pytest.mark.parametrize("columns", [3, 12])
def test_a_very_long_table_shows_its_first_rows(columns: int) -> None:
    """With a line that says how many there are; the text around it is formatted, and code is left alone."""
    row = "|".join(["", *(f" cell {number}" for number in range(columns)), "\n"])
    table = row + "|".join(["", *["---"] * columns, "\n"]) + row * 2_999
    html = inner(f"**Before**\n\n{table}\n**After**\n\n```\n| a |\n|---|\n```")
    shown = 1_000 // (columns + 1)
    assert html.count("<tr>") == 1 + shown
    assert f"<em>The first {shown} of 2,999 rows.</em>" in html
    assert re.findall("<strong>(.*?)</strong>", html) == ["Before", "After"]
    assert "| a |" in html


def test_a_table_of_eight_hundred_rows_is_whole() -> None:
    """Only a text that would take too long is shortened."""
    assert inner("|a|\n|-|\n" + "|1|\n" * 800).count("<tr>") == 801


def test_an_empty_heading_is_a_cell() -> None:
    """The corner of a DataFrame heads nothing."""
    assert inner("| |a|\n|-|-|\n|0|1|").count("<th ") == 1


def test_very_many_lines_in_code_are_formatted() -> None:
    """Only lines and cells outside of code count: code takes little time."""
    code = "x = 1\n" * 6_000
    assert inner(f"**a**\n\n```\n{code}```").startswith("<p><strong>a</strong></p>")
    assert "<strong>" not in to_html(f"**a**\n\n{code}")


def test_an_answer_of_a_paragraph_adds_little_to_its_notebook() -> None:
    """Style, box and receipt, as a notebook file stores them, are below 3.5 kB beside the text."""
    text = "Green tea is the cheapest: it costs 18 € per kg, six less than black tea."
    response = ConversationManager(DemoProvider()).new_conversation(conversation_id="nb:analysis:1c9353f9").send("Hi")
    answer = replace(response, content=text)
    bundle = {"text/html": answer._repr_html_().splitlines(keepends=True), "text/plain": [text]}
    output = {"data": bundle, "metadata": {}, "output_type": "display_data"}
    assert len(json.dumps(output, indent=1).encode()) - len(text.encode()) < 3_500


def test_importing_the_module_loads_no_parser() -> None:
    """Markdown, Pygments, LaTeX and nh3 are imported when an answer is first shown."""
    program = (
        "import sys, promptkit_nb.rendering.markdown\n"
        "print([name for name in ('markdown_it', 'pygments', 'latex2mathml', 'nh3') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


HOSTILE = """
<script> </script> <img/src=x/onerror=alert(1)> <svg/onload=alert(1)> <!-- --> <![CDATA[ ]]> <style> <math> <template>
<annotation-xml> <noscript> <a/href=javascript:alert(1)> javascript:alert(1) &#106;avascript: &colon; &lt; &amp;lt; [ ]
( ) ![ ]( [a]: * ** _ ` ``` ```python ~~ | |-| $ $$ \\( \\) \\[ \\] \\ \\frac \\text{ { } \\href{javascript:alert(1)}
& ^ \\unicode{x3c} \\style{ \\class{ \\color{ \\def \\begin{matrix} \\end{matrix} > # - 1. " ' = onclick=alert(1)
http://a.b data:image/png;base64,AAAA data:text/html,
<br> <sub> </sub> <u> </u> <mark> <details> </details> <summary> </summary> <kbd/>
"""
BLANKS = [" ", "\n", "\n\n", "\t", "\x00", "\x0b", "\u2028", "\ud800", "a"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(HOSTILE.split() + BLANKS), max_size=40).map("".join))
def test_hostile_pieces_give_only_allowed_html(text: str) -> None:
    """In any combination the HTML has only allowed elements, attributes and addresses."""
    inspected(text)


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_gives_only_allowed_html(text: str) -> None:
    """No text raises an error."""
    inspected(text)
