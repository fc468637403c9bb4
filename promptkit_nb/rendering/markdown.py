"""A model's Markdown as HTML that cannot execute or fetch anything.

Every notebook front end trusts the output of a cell that the user ran: ``text/markdown`` and ``text/html`` reach the
page unchanged, including scripts, event handlers and remote images. So a model's text is never passed on as Markdown.
It is parsed here with raw HTML turned off, and nh3 has the last word: the HTML consists of the tags and attributes in
``_ATTRIBUTES``, whatever the parsers before it did.
"""

from __future__ import annotations

import html
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from xml.etree.ElementTree import tostring

from promptkit_nb.characters import without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict
    from pygments.formatters import HtmlFormatter
    from pygments.token import _TokenType

MAX_FORMULA_CHARS = 2_000

_CLOSERS = {"$$": "$$", r"\[": r"\]"}
# Macros that call each other can expand forever.
_MACRO = re.compile(r"\\(?:(?:re)?newcommand|providecommand|[gex]?def|(?:re)?newenvironment|DeclareMathOperator)")
_ARG = re.compile(r"\\arg(?![A-Za-z])")  # a common function that latex2mathml does not know


def add_math(parser: MarkdownIt) -> None:
    r"""Make the parser recognize ``$…$``, ``$$…$$``, ``\(…\)`` and ``\[…\]``.

    The tokens are ``math_inline``, ``math_inline_double`` (display style within a paragraph) and ``math_block``.
    Amounts of money are not formulas: "$5 or $6" stays text.
    """
    from mdit_py_plugins.dollarmath import dollarmath_plugin  # noqa: PLC0415 - imported when first used

    parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    # The plugin's block rule does not know `\[` and does not interrupt a paragraph, which models expect.
    parser.block.ruler.at("math_block", _display, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math_parentheses", _parentheses)


def _display(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    begin = state.bMarks[start_line] + state.tShift[start_line]
    closer = _CLOSERS.get(state.src[begin : begin + 2])
    if closer is None or state.is_code_block(start_line):
        return False
    close = state.src.find(closer, begin + 2, begin + 2 + MAX_FORMULA_CHARS)
    last = start_line
    while close > state.eMarks[last] and last + 1 < end_line:
        last += 1
        if state.sCount[last] < state.blkIndent and not state.isEmpty(last):
            return False  # the list item ends before the formula does
    if close < 0 or state.src[close + 2 : state.eMarks[last]].strip():
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content = state.getLines(start_line, last + 1, state.blkIndent, keepLastLF=False).strip()[2:-2]
        token.block, token.map, token.markup = True, [start_line, last + 1], closer
    state.line = last + 1
    return True


def _parentheses(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    if not state.src.startswith(r"\(", state.pos):
        return False
    close = state.src.find(r"\)", state.pos + 2, state.pos + 2 + MAX_FORMULA_CHARS)
    if close < 0:
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content, token.markup = state.src[state.pos + 2 : close], r"\("
    state.pos = close + 2
    return True


@lru_cache(maxsize=256)
def to_mathml(latex: str, *, display: bool = False) -> str:
    r"""Return the formula as a ``<math>`` element, or its escaped source in ``<code>``.

    The source is returned for broken LaTeX, LaTeX that defines macros, and more than 2,000 characters. Cached, because
    a streaming answer is rendered again and again.

    >>> to_mathml("x^2")
    '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    from latex2mathml.converter import convert_to_element  # noqa: PLC0415 - imported when first used

    source = f"<code>{html.escape(latex)}</code>"
    if len(latex) > MAX_FORMULA_CHARS or _MACRO.search(latex):
        return source
    try:
        root = convert_to_element(_ARG.sub(r"\\operatorname{arg}", latex), display="block" if display else "inline")
    except Exception:  # noqa: BLE001 - on broken LaTeX the library raises all kinds of errors
        return source
    del root.attrib["xmlns"]
    for element in root.iter():
        element.text = html.unescape(element.text or "")  # the library writes symbols as character references
    return tostring(root, encoding="unicode", short_empty_elements=False)


MAX_MARKDOWN_CHARS = 200_000
MAX_HIGHLIGHTED_CHARS = 20_000
MAX_HIGHLIGHTING_S = 0.5

# For such a line or gap some lexers take quadratic time, in one step that cannot be interrupted.
_UNLIKE_CODE = re.compile(r"[^\n]{1000}|\s{200}")

# The colors of JupyterLab's editor, each with a fallback that is legible on white and on near black.
_COLORS = {
    "Comment": "var(--jp-mirror-editor-comment-color,#7c7c7c)",
    "Keyword": "var(--jp-mirror-editor-keyword-color,#0a8a0a)",
    "Operator.Word": "var(--jp-mirror-editor-keyword-color,#0a8a0a)",
    "String": "var(--jp-mirror-editor-string-color,#cf4848)",
    "Number": "var(--jp-mirror-editor-number-color,#1f8a5f)",
    "Name.Builtin": "var(--jp-mirror-editor-builtin-color,#1f8a3f)",
    "Name.Function": "var(--jp-mirror-editor-def-color,#3b7fdd)",
    "Name.Class": "var(--jp-mirror-editor-def-color,#3b7fdd)",
    "Name.Decorator": "var(--jp-mirror-editor-meta-color,#a94fd8)",
    "Name.Tag": "var(--jp-mirror-editor-tag-color,#1f8a3f)",
    "Name.Attribute": "var(--jp-mirror-editor-attribute-color,#3b7fdd)",
    "Generic.Deleted": "var(--jp-mirror-editor-error-color,#e04040)",
    "Generic.Inserted": "var(--jp-mirror-editor-string-2-color,#1f8a3f)",
}


@lru_cache(maxsize=256)
def highlighted(code: str, language: str) -> str:
    """Return the code as escaped HTML, colored by ``<span style="…">`` if Pygments knows the language (lower case).

    Not colored: more than 20,000 characters, a line of 1,000 characters, 200 blanks in a row, and code that takes
    Pygments more than half a second. Cached, because a streaming answer is rendered again and again.

    >>> highlighted("x < 1", "no such language")
    'x &lt; 1'
    """
    if language not in _languages() or len(code) > MAX_HIGHLIGHTED_CHARS or _UNLIKE_CODE.search(code):
        return html.escape(code)
    from pygments import format as write  # noqa: PLC0415 - imported when first used
    from pygments.lexers import get_lexer_by_name  # noqa: PLC0415 - imported when first used

    lexer = get_lexer_by_name(language, stripnl=False)
    try:
        return str(write(_with_deadline(lexer.get_tokens(code)), _formatter()))
    except TimeoutError:
        return html.escape(code)


def highlight_styles() -> set[str]:
    """Return every value of a ``style`` attribute in the output of ``highlighted``."""
    return {f"color: {color}" for color in _COLORS.values()}


def _with_deadline(tokens: Iterable[tuple[_TokenType, str]]) -> Iterator[tuple[_TokenType, str]]:
    """Yield the tokens until the deadline, in CPU time of this thread: the load of the machine does not count."""
    deadline = time.thread_time() + MAX_HIGHLIGHTING_S
    for token in tokens:
        if time.thread_time() > deadline:
            raise TimeoutError
        yield token


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    """Return the names of Pygments' own languages: a model must not be able to import plugins."""
    from pygments.lexers import get_all_lexers  # noqa: PLC0415 - imported when first used

    return frozenset(alias for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases)


@lru_cache(maxsize=1)
def _formatter() -> HtmlFormatter[str]:
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415 - imported when first used
    from pygments.style import Style  # noqa: PLC0415 - imported when first used
    from pygments.token import string_to_tokentype  # noqa: PLC0415 - imported when first used

    class NotebookStyle(Style):
        styles = {string_to_tokentype(kind): color for kind, color in _COLORS.items()}  # noqa: RUF012 - Pygments' way

    return HtmlFormatter(style=NotebookStyle, noclasses=True, nowrap=True)


# JupyterLab and nbconvert pass `$…$` in HTML outputs to MathJax, one more interpreter of the model's text. The two
# "ignore" classes (MathJax 3 and 2) turn it off: formulas are MathML already, and other dollars stay dollars. The box
# clips whatever overflows it, so nothing can be laid over the page.
_OPEN_BOX = (
    '<div class="promptkit-markdown mathjax_ignore tex2jax_ignore" '
    'style="overflow-wrap:break-word;overflow-x:auto;overflow-y:hidden">'
)
_CLOSE_BOX = "</div>"

_PRE_STYLE = (
    "white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;margin:0 0 1em;padding:8px;border-radius:4px;"
    "background-color:rgba(128,128,128,0.1)"
)
_CODE_STYLE = "background:none;padding:0"  # in a <pre>, JupyterLab gives every line its own background
_SCROLL_STYLE = "overflow-x:auto;overflow-y:hidden"
_FORMULA_STYLE = f"{_SCROLL_STYLE};margin:0 0 1em"
_IMAGE_STYLE = "max-width:100%"
_LIST_STYLE = "padding:0 2em"  # room for bullets on both sides; JupyterLab leaves room on the left only
_PARAGRAPH_STYLE = "text-align:start"  # JupyterLab aligns to the left
_BLOCK_STYLES = {"bullet_list_open": _LIST_STYLE, "ordered_list_open": _LIST_STYLE, "paragraph_open": _PARAGRAPH_STYLE}

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")  # Hebrew, Arabic and related scripts

_LINK = re.compile(r"(?:https?://|mailto:)[^\s\"'<>\\^`{|}]+", re.IGNORECASE)
DATA_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")
"""The addresses of images that are shown: their pixels are in the address itself."""

_WORD = re.compile(r"[a-z-]{1,30}(?: [a-z-]{1,30}){0,30}")
_FLAG = re.compile(r"true|false")
_LENGTH = re.compile(r"[+-]?(?:\d{1,2}(?:\.\d{1,4})?|\.\d{1,4})(?:em|ex|mu|pt|px)?(?: \d{1,2}em){0,30}")
_COLOR = re.compile(r"[a-z]{1,20}|#[0-9a-f]{3,6}", re.IGNORECASE)
_ANYTHING = re.compile(r".*", re.DOTALL)


def _exactly(*values: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, values)))


_AUTO = {"dir": _exactly("auto")}
_CELL = {"style": _exactly("text-align:left", "text-align:center", "text-align:right")}

# Every allowed tag, its attributes, and the pattern that the whole value of each must match.
_ATTRIBUTES: dict[str, dict[str, re.Pattern[str]]] = {
    **{tag: {} for tag in ("br", "hr", "em", "strong", "s", "li", "table", "thead", "tbody", "tr")},
    "p": {"style": _exactly(_PARAGRAPH_STYLE), **_AUTO},
    **dict.fromkeys(("blockquote", "h1", "h2", "h3", "h4", "h5", "h6"), _AUTO),
    "ul": {"style": _exactly(_LIST_STYLE), **_AUTO},
    "ol": {"style": _exactly(_LIST_STYLE), "start": re.compile(r"\d{1,9}"), **_AUTO},
    "th": _CELL,
    "td": _CELL,
    "div": {"style": _exactly(_SCROLL_STYLE, _FORMULA_STYLE)},
    "pre": {"style": _exactly(_PRE_STYLE)},
    "code": {"style": _exactly(_CODE_STYLE)},
    "img": {"src": DATA_IMAGE, "alt": _ANYTHING, "style": _exactly(_IMAGE_STYLE)},
    "a": {"href": _LINK},
    "math": {"display": _exactly("block", "inline")},
    "mo": {
        **dict.fromkeys(("stretchy", "fence", "separator", "largeop", "movablelimits", "accent"), _FLAG),
        **dict.fromkeys(("lspace", "rspace", "minsize", "maxsize"), _LENGTH),
        **dict.fromkeys(("form", "mathvariant"), _WORD),
    },
    **{tag: {"mathvariant": _WORD} for tag in ("mi", "mn", "mtext")},
    **{tag: {} for tag in ("mrow", "msub", "msup", "msubsup", "msqrt", "mroot", "mphantom", "mtr")},
    **{tag: {"accent": _FLAG, "accentunder": _FLAG} for tag in ("mover", "munder", "munderover")},
    "mfrac": {"linethickness": _LENGTH, "bevelled": _FLAG},
    "mspace": {**dict.fromkeys(("width", "height", "depth"), _LENGTH), "mathbackground": _COLOR},
    "mpadded": dict.fromkeys(("width", "height", "depth", "lspace", "voffset"), _LENGTH),
    "mstyle": {
        "displaystyle": _FLAG,
        "scriptlevel": re.compile(r"[+-]?\d"),
        **dict.fromkeys(("mathcolor", "mathbackground"), _COLOR),
    },
    "mtable": {
        **dict.fromkeys(("columnalign", "columnlines", "rowlines"), _WORD),
        **dict.fromkeys(("columnspacing", "rowspacing"), _LENGTH),
        "displaystyle": _FLAG,
    },
    "mtd": {"columnalign": _WORD},
    "menclose": {"notation": _WORD},
}


def to_html(text: str) -> str:
    r"""Return the model's Markdown as sanitized HTML, in one ``<div class="promptkit-markdown">``.

    CommonMark with tables, strikethrough and LaTeX (``$…$``, ``$$…$$``, ``\(…\)``, ``\[…\]``). Raw HTML is shown as
    text; Hebrew and Arabic run from right to left. Links lead to http, https and mailto only and open in a new tab; any
    other address is shown as text. Only ``data:`` images are shown (png, jpeg, gif, webp); a remote image becomes its
    alternative text and address. Broken LaTeX, and LaTeX that defines macros, is shown as code.

    Any text is accepted, including unfinished Markdown, and the same text always gives the same HTML. What would take
    too long is not formatted: more than 200,000 characters become one ``<pre>``; code is not colored if it has more
    than 20,000 characters, a line of 1,000 characters or 200 blanks in a row, or takes Pygments more than half a
    second; a formula of more than 2,000 characters is shown as its source.

    >>> "<strong>bold</strong>" in to_html("**bold**")
    True
    """
    text = without_lone_surrogates(text)
    if len(text) > MAX_MARKDOWN_CHARS:
        return f'{_OPEN_BOX}<pre style="{_PRE_STYLE}">{html.escape(text)}</pre>{_CLOSE_BOX}'
    return _OPEN_BOX + _sanitizer()(_parser().render(text)) + _CLOSE_BOX


def code_blocks(text: str) -> list[str]:
    r"""Return the fenced code blocks of a Markdown text, without their last line break.

    >>> code_blocks("Try:\n```python\nprint(1)\n```")
    ['print(1)']
    """
    return [token.content.rstrip("\n") for token in _parser().parse(text) if token.type == "fence"]


@lru_cache(maxsize=1)
def _sanitizer() -> Callable[[str], str]:
    """Return nh3 with the allowlist: it alone decides what HTML may leave this module."""
    import nh3  # noqa: PLC0415 - imported when first used

    allowed = {**_ATTRIBUTES, "span": {"style": _exactly(*highlight_styles())}}
    fixed = {("a", "rel"): "noopener noreferrer nofollow", ("a", "target"): "_blank"}

    def checked(tag: str, attribute: str, value: str) -> str | None:
        # nh3 keeps the attribute if this raises, so it must not.
        pattern = allowed.get(tag, {}).get(attribute)
        return value if fixed.get((tag, attribute)) == value or (pattern and pattern.fullmatch(value)) else None

    cleaner = nh3.Cleaner(
        tags=set(allowed),
        attributes={tag: set(attributes) for tag, attributes in allowed.items() if attributes},
        attribute_filter=checked,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=fixed["a", "rel"],
        set_tag_attribute_values={"a": {"target": fixed["a", "target"]}},
    )
    return cleaner.clean


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - imported when first used

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    add_math(parser)
    parser.core.ruler.push("directions", _choose_directions)
    parser.validateLink = _is_allowed  # type: ignore[method-assign]  # markdown-it's documented way to narrow it
    for rule, render in _RENDER_RULES.items():
        parser.add_render_rule(rule, render)
    return parser


def _choose_directions(state: StateCore) -> None:
    """In a text with Hebrew or Arabic, give each outermost block the direction of its first letters."""
    if not _RIGHT_TO_LEFT.search(state.src):
        return
    for token in state.tokens:
        if token.type in _BLOCK_STYLES:
            token.attrSet("style", _BLOCK_STYLES[token.type])
        if token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")


def _is_allowed(url: str) -> bool:
    return bool(_LINK.fullmatch(url) or DATA_IMAGE.fullmatch(url))


def _render_code(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    token = tokens[index]
    language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
    code = highlighted(token.content, language.lower())
    return f'<pre style="{_PRE_STYLE}"><code style="{_CODE_STYLE}">{code}</code></pre>\n'


def _render_image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    source = str(token.attrs["src"])
    alternative = html.escape(renderer.renderInlineAsText(token.children, options, env))
    if DATA_IMAGE.fullmatch(source):
        return f'<img src="{source}" alt="{alternative}" style="{_IMAGE_STYLE}">'
    return f"{alternative} ({html.escape(source)})" if alternative else html.escape(source)


def _render_formula(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    token = tokens[index]
    formula = to_mathml(token.content.strip(), display=token.type != "math_inline")
    return f'<div style="{_FORMULA_STYLE}">{formula}</div>\n' if token.type == "math_block" else formula


def _render_cell(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    token = tokens[index]  # JupyterLab aligns cells to the right by default
    return f'<{token.tag} style="{token.attrs.get("style", "text-align:left")}">'


_RENDER_RULES: Mapping[str, Callable[..., str]] = {
    "fence": _render_code,
    "code_block": _render_code,
    "image": _render_image,
    "math_inline": _render_formula,
    "math_inline_double": _render_formula,
    "math_block": _render_formula,
    "table_open": lambda *_: f'<div style="{_SCROLL_STYLE}"><table>\n',
    "table_close": lambda *_: "</table></div>\n",
    "th_open": _render_cell,
    "td_open": _render_cell,
}
