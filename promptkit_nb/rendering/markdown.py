"""A model's Markdown as HTML that cannot execute or fetch anything.

Every notebook front end trusts the output of a cell that the user ran: ``text/markdown`` and ``text/html`` reach the
page unchanged, including scripts, event handlers and remote images. So a model's text is never passed on as Markdown.
It is parsed here with raw HTML turned off, and nh3 has the last word: the HTML consists of the tags and attributes in
``_ATTRIBUTES``, whatever the parsers before it did.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.rendering.formulas import MAX_FORMULA_CHARS, to_mathml
from promptkit_nb.rendering.highlighting import highlight_styles, highlighted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

_CLOSERS = {"$$": "$$", r"\[": r"\]"}
_INLINE_FORMULAS = {r"\(": (r"\)", "math_inline"), r"\[": (r"\]", "math_inline_double")}


def add_math(parser: MarkdownIt) -> None:
    r"""Make the parser recognize ``$…$``, ``$$…$$``, ``\(…\)`` and ``\[…\]``.

    The tokens are ``math_inline``, ``math_inline_double`` (display style within a paragraph) and ``math_block``.
    Amounts of money are not formulas: "$5 or $6" stays text.
    """
    from mdit_py_plugins.dollarmath import dollarmath_plugin  # noqa: PLC0415 - imported when first used

    parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    # The plugin's block rule does not know `\[` and does not interrupt a paragraph, which models expect.
    parser.block.ruler.at("math_block", _display, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math_backslashed", _backslashed)


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


def _backslashed(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    opener = state.src[state.pos : state.pos + 2]
    if opener not in _INLINE_FORMULAS:
        return False
    closer, kind = _INLINE_FORMULAS[opener]
    close = state.src.find(closer, state.pos + 2, state.pos + 2 + MAX_FORMULA_CHARS)
    if close < 0:
        return False
    if not silent:
        token = state.push(kind, "math", 0)
        token.content, token.markup = state.src[state.pos + 2 : close], opener
    state.pos = close + 2
    return True


# HTML that models write into Markdown. Without attributes it cannot do anything; other tags stay text.
_TAG = re.compile(r"<(/?)(br|sub|sup|kbd|mark|u|details|summary) ?(/?)>")
_FOLDING = ("details", "summary")
_MAX_TAGS = 200  # nh3 takes quadratic time for nested ones


def _plain_tag(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    found = _TAG.match(state.src, state.pos) if state.src.startswith("<", state.pos) else None
    if found is None or not _has_partner(state, found):
        return False
    if not silent:
        state.env["tags"] = state.env.get("tags", 0) + 1
        state.push("html_inline", "", 0).content = f"<{found[1]}{found[2]}>"
    state.pos = found.end()
    return True


def _has_partner(state: StateInline, found: re.Match[str]) -> bool:
    """Return whether a tag has a closing or opening one: prose may mention ``<u>``, and must not fold what follows."""
    slash, name, end_slash = found.groups()
    if state.env.get("tags", 0) >= _MAX_TAGS or (end_slash and name != "br"):
        return False
    if name == "br":
        return not slash
    if name not in _FOLDING:
        before, after = (0, found.start()), (found.end(), state.posMax)
        return state.src.find(f"<{name}>", *before) >= 0 if slash else state.src.find(f"</{name}>", *after) >= 0
    if slash:
        return f"<{name}>" in state.env["text"]
    line = state.src[state.src.rfind("\n", 0, found.start()) + 1 : found.start()]
    return not _TAG.sub("", line).strip() and f"</{name}>" in state.env["text"]


_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U00016fe0-\U00018fff\U0001aff0-\U0001b2ff\U00020000-\U0003ffff]"
)


def _emphasis(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's signature
    """Read ``**`` next to Chinese, Japanese and Korean text as its writers mean it, without spaces around it.

    CommonMark decides by spaces and punctuation whether it opens or closes, and leaves ``**「重要」**な`` as is. Here
    CJK characters count as letters, even if they are punctuation, and as spaces next to other punctuation.
    """
    from markdown_it.rules_inline.emphasis import tokenize  # noqa: PLC0415 - imported when first used

    start = state.pos
    if not tokenize(state, silent):
        return False
    before, after = state.src[start - 1 : start], state.src[state.pos : state.pos + 1]
    if state.src[start] == "*" and (_CJK.match(before) or _CJK.match(after)):
        for each in state.delimiters[start - state.pos :]:
            each.open = not _is_blank(after) and (bool(_CJK.match(after)) or _is_free(before) or not _is_free(after))
            each.close = not _is_blank(before) and (bool(_CJK.match(before)) or _is_free(after) or not _is_free(before))
    return True


def _is_blank(character: str) -> bool:
    return not character or character.isspace()


def _is_free(character: str) -> bool:
    """Return whether a character is anything but a letter or digit of a script that separates words with blanks."""
    return not character.isalnum() or bool(_CJK.match(character))


MAX_MARKDOWN_CHARS = 200_000
MAX_LINES_AND_CELLS = 4_000
MAX_INLINE_WORK = 15_000
MAX_MARKS = 50_000
MAX_CODE_CHARS = 60_000
_CHARS_OF_A_BLOCK = 200  # starting to color takes as long as this many characters
MAX_ALL_FORMULAS_CHARS = 20_000

_PAIRED_MARK = re.compile(r"[\[\]*_~!]")  # takes the parser three times as long as another mark
_MARK = re.compile(r"[\[\]*_~!`<&\\$^%+:=>@{}-]")

# JupyterLab and nbconvert pass `$…$` in HTML outputs to MathJax, one more interpreter of the model's text. The two
# "ignore" classes (MathJax 3 and 2) turn it off: formulas are MathML already, and other dollars stay dollars. The box
# clips whatever overflows it, so nothing can be laid over the page.
_OPEN_BOX = (
    '<div class="promptkit-markdown mathjax_ignore tex2jax_ignore" '
    'style="overflow-wrap:break-word;overflow-x:auto;overflow-y:hidden">'
)
_CLOSE_BOX = "</div>"

# `answer.css` is the style. The inline styles are for pages without it, such as a notebook that is not trusted.
_PRE_STYLE = "white-space:pre;overflow-x:auto;padding:8px 10px;border-radius:4px;background-color:rgba(128,128,128,.06)"
_TEXT_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere"
_CODE_STYLE = "background:none;padding:0;white-space:pre"  # in a <pre>, JupyterLab wraps it, and colors every line
_SCROLL_STYLE = "overflow-x:auto;overflow-y:hidden"
_FOCUSABLE = 'tabindex="0" role="group" aria-label="table"'  # so that keys can scroll it
_IMAGE_STYLE = "max-width:100%"
_HIDDEN = "display:none"
_TASK_STYLE = "list-style:none"
_HEADING_SIZES = {"h1": 18, "h2": 16, "h3": 14}
_HEADING_STYLES = {tag: f"font-size:{size}px;font-weight:600" for tag, size in _HEADING_SIZES.items()}
_LIST_STYLE = "padding:0 22px"  # room for bullets on both sides; JupyterLab leaves room on the left only
_PARAGRAPH_STYLE = "text-align:start"  # JupyterLab aligns to the left
_BLOCK_STYLES = {
    "bullet_list_open": _LIST_STYLE,
    "ordered_list_open": _LIST_STYLE,
    "paragraph_open": _PARAGRAPH_STYLE,
    "th_open": _PARAGRAPH_STYLE,
    "td_open": _PARAGRAPH_STYLE,
}

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")  # Hebrew, Arabic and related scripts
_TASKS = {"[ ] ": ("☐", "not done"), "[x] ": ("☑", "done"), "[X] ": ("☑", "done")}
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")

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
_CELL = {"style": _exactly("text-align:left", "text-align:center", "text-align:right", _PARAGRAPH_STYLE), **_AUTO}

# Every allowed tag, its attributes, and the pattern that the whole value of each must match.
_ATTRIBUTES: dict[str, dict[str, re.Pattern[str]]] = {
    **{tag: {} for tag in ("br", "hr", "em", "strong", "s", "table", "thead", "tbody", "tr")},
    **{tag: {} for tag in ("sub", "sup", "kbd", "mark", "u", "details", "summary")},
    "p": {"style": _exactly(_PARAGRAPH_STYLE), **_AUTO},
    "blockquote": _AUTO,
    "li": {"style": _exactly(_TASK_STYLE)},
    "ul": {"style": _exactly(_LIST_STYLE), **_AUTO},
    "ol": {"style": _exactly(_LIST_STYLE), "start": re.compile(r"\d{1,9}"), **_AUTO},
    "th": _CELL,
    "td": _CELL,
    "div": {
        "class": _exactly("pk-h1", "pk-h2", "pk-h3", "pk-code", "pk-language", "pk-formula"),
        "style": _exactly(_SCROLL_STYLE, *_HEADING_STYLES.values()),
        "role": _exactly("heading", "group"),
        "tabindex": _exactly("0"),
        "aria-label": _exactly("table"),
        "aria-level": re.compile("[3-6]"),
        **_AUTO,
    },
    "pre": {
        "style": _exactly(_PRE_STYLE),
        "tabindex": _exactly("0"),
        "role": _exactly("group"),
        "aria-label": re.compile(rf"code(?: {_LANGUAGE.pattern})?"),
    },
    "code": {"style": _exactly(_CODE_STYLE)},
    "span": {
        "class": _exactly("pk-math", "pk-latex"),
        "style": _exactly(_HIDDEN, *highlight_styles()),
        "role": _exactly("img"),
        "aria-label": _exactly("done", "not done"),
    },
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

    CommonMark with tables, strikethrough, task lists and LaTeX (``$…$``, ``$$…$$``, ``\(…\)``, ``\[…\]``); bold text
    ends before Chinese, Japanese and Korean punctuation, too. HTML is shown as text, except the tags br, sub, sup, kbd,
    mark, u, details and summary without attributes. Hebrew and Arabic run from right to left. Links lead to http,
    https and mailto only and open in a new tab; any other address is shown as text. Only ``data:`` images are shown
    (png, jpeg, gif, webp); a remote image becomes its alternative text and address. Headings are ``<div>`` elements,
    so that they do not enter the notebook's table of contents. Broken LaTeX, and LaTeX that defines macros, is shown
    as code. ``answer_style`` is the style that the HTML needs once on its page; without it, it is plain but readable.

    Any text is accepted, including unfinished Markdown, and the same text always gives the same HTML. What would take
    too long is not formatted: in a text of more than 200,000 characters, or 4,000 line breaks and pipes outside code,
    tables have their first 1,000 cells and the number of their rows, and if it is still as long it becomes one
    ``<pre>``; paragraphs after 5,000 marks such as ``*`` and ``[``, or 15,000 others, are plain text; code is not
    colored after 60,000 characters of it, and neither is a block of more than 20,000 characters, with a line of 1,000
    characters or 200 blanks in a row, or that takes Pygments more than 0.2 s; formulas after 20,000 characters, or of
    more than 2,000, are shown as their source.

    >>> "<strong>bold</strong>" in to_html("**bold**")
    True
    """
    text = without_lone_surrogates(text)
    if len(text) > MAX_MARKDOWN_CHARS or _takes_too_long(text):
        from promptkit_nb.rendering.long_tables import with_short_tables  # noqa: PLC0415 - of very long answers

        text = with_short_tables(text)
    if len(text) > MAX_MARKDOWN_CHARS or _takes_too_long(text):
        return f'{_OPEN_BOX}<pre style="{_TEXT_STYLE}">{html.escape(text)}</pre>{_CLOSE_BOX}'
    return _OPEN_BOX + _sanitizer()(_parser().render(text, {"text": text})) + _CLOSE_BOX


@lru_cache(maxsize=1)
def answer_style() -> str:
    """Return the ``<style>`` element of answers."""
    return f"<style>{answer_css()}</style>"


@lru_cache(maxsize=1)
def answer_css() -> str:
    """Return the style sheet of answers, on one line: every answer in a notebook has a copy."""
    css = re.sub(r"/\*.*?\*/", "", (Path(__file__).parent / "answer.css").read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", css)).replace(": ", ":").replace(";}", "}").strip()


# A whole block of code, or one that has only begun.
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)


def _takes_too_long(text: str) -> bool:
    if not _has_too_many(text):
        return False
    return _has_too_many(_FENCED.sub("", text))


def _has_too_many(text: str) -> bool:
    return text.count("\n") + text.count("|") > MAX_LINES_AND_CELLS or len(_MARK.findall(text)) > MAX_MARKS


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    r"""Return the fenced code blocks of a Markdown text: the language, ``""`` if it is not given, and the code.

    >>> fenced_blocks("Try:\n```python\nprint(1)\n```")
    [('python', 'print(1)')]
    """
    fences = (token for token in _parser().parse(text) if token.type == "fence")
    return [((token.info.split() or [""])[0], token.content.rstrip("\n")) for token in fences]


@lru_cache(maxsize=1)
def _sanitizer() -> Callable[[str], str]:
    """Return nh3 with the allowlist: it alone decides what HTML may leave this module."""
    import nh3  # noqa: PLC0415 - imported when first used

    fixed = {("a", "rel"): "noopener noreferrer nofollow", ("a", "target"): "_blank"}

    def checked(tag: str, attribute: str, value: str) -> str | None:
        # nh3 keeps the attribute if this raises, so it must not.
        pattern = _ATTRIBUTES.get(tag, {}).get(attribute)
        return value if fixed.get((tag, attribute)) == value or (pattern and pattern.fullmatch(value)) else None

    cleaner = nh3.Cleaner(
        tags=set(_ATTRIBUTES),
        attributes={tag: set(attributes) for tag, attributes in _ATTRIBUTES.items() if attributes},
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
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.inline.ruler.before("autolink", "plain_tag", _plain_tag)
    parser.core.ruler.at("inline", _parse_inline)
    parser.core.ruler.push("tasks", _find_tasks)
    parser.core.ruler.push("directions", _choose_directions)
    parser.validateLink = _is_allowed  # type: ignore[method-assign]  # markdown-it's documented way to narrow it
    for rule, render in _RENDER_RULES.items():
        parser.add_render_rule(rule, render)
    return parser


def _parse_inline(state: StateCore) -> None:
    """Parse the text of each block; after very many marks, leave it as it is."""
    from markdown_it.token import Token  # noqa: PLC0415 - imported when first used

    work = 0
    for token in state.tokens:
        if token.type != "inline":
            continue
        work += len(_MARK.findall(token.content)) + 2 * len(_PAIRED_MARK.findall(token.content))
        token.children = []
        if work <= MAX_INLINE_WORK:
            state.md.inline.parse(token.content, state.md, state.env, token.children)
        else:
            token.children.append(Token("text", "", 0, content=token.content))


def _find_tasks(state: StateCore) -> None:
    """Show ``[ ]`` and ``[x]`` at the beginning of list items as boxes."""
    for item, _, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type != "list_item_open" or not inline.children or inline.children[0].type != "text":
            continue
        mark = _TASKS.get(inline.children[0].content[:4])
        if mark is not None:
            item.attrSet("style", _TASK_STYLE)
            inline.children[0].content = inline.children[0].content[4:]
            inline.children.insert(0, type(inline)("task", "", 0, content=mark[0], info=mark[1]))


def _choose_directions(state: StateCore) -> None:
    """In a text with Hebrew or Arabic, give each outermost block the direction of its first letters."""
    if not _RIGHT_TO_LEFT.search(state.src):
        return
    for token in state.tokens:
        if token.type in _BLOCK_STYLES:
            token.attrs.setdefault("style", _BLOCK_STYLES[token.type])
        if (token.level == 0 and token.nesting == 1) or token.tag in ("th", "td"):
            token.attrSet("dir", "auto")


def _is_allowed(url: str) -> bool:
    return bool(_LINK.fullmatch(url) or DATA_IMAGE.fullmatch(url))


def _render_code(_: object, tokens: Sequence[Token], index: int, __: object, env: EnvType) -> str:
    token = tokens[index]
    found = _LANGUAGE.match(token.info.strip())
    language = found[0] if found else ""
    env["code"] = env.get("code", 0) + len(token.content) + _CHARS_OF_A_BLOCK
    code = highlighted(token.content, language.lower() if env["code"] <= MAX_CODE_CHARS else "")
    label = f'<div class="pk-language">{html.escape(language)}</div>' if language else ""
    opened = f'<pre style="{_PRE_STYLE}" tabindex="0" role="group" aria-label="{f"code {language}".strip()}">'
    return f'<div class="pk-code">{label}{opened}<code style="{_CODE_STYLE}">{code}</code></pre></div>\n'


def _render_image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    source = str(token.attrs["src"])
    alternative = html.escape(renderer.renderInlineAsText(token.children, options, env))
    if DATA_IMAGE.fullmatch(source):
        return f'<img src="{source}" alt="{alternative}" style="{_IMAGE_STYLE}">'
    return f"{alternative} ({html.escape(source)})" if alternative else html.escape(source)


def _render_formula(_: object, tokens: Sequence[Token], index: int, __: object, env: EnvType) -> str:
    """Show a formula, with its source for pages that remove ``<math>``; both are shown or hidden by the style."""
    token = tokens[index]
    latex = token.content.strip()
    env["formulas"] = env.get("formulas", 0) + len(latex)
    source = f"<code>{html.escape(latex)}</code>"
    is_short = env["formulas"] <= MAX_ALL_FORMULAS_CHARS
    formula = to_mathml(latex, display=token.type != "math_inline") if is_short else source
    if formula != source:
        formula = f'<span class="pk-math" style="{_HIDDEN}">{formula}</span><span class="pk-latex">{source}</span>'
    is_block = token.type == "math_block"
    return f'<div class="pk-formula" style="{_SCROLL_STYLE}">{formula}</div>\n' if is_block else formula


def _render_task(token: Token) -> str:
    return f'<span role="img" aria-label="{token.info}">{token.content}</span> '


def _render_heading(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    token = tokens[index]
    kind = min(token.tag, "h3")
    level = min(int(token.tag[1]) + 2, 6)
    direction = ' dir="auto"' if "dir" in token.attrs else ""
    return f'<div class="pk-{kind}" role="heading" aria-level="{level}" style="{_HEADING_STYLES[kind]}"{direction}>'


def _render_cell(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    token = tokens[index]  # JupyterLab aligns cells to the right by default
    direction = ' dir="auto"' if "dir" in token.attrs else ""
    tag = token.tag if tokens[index + 1].content else "td"  # an empty cell is not a heading
    return f'<{tag} style="{token.attrs.get("style", "text-align:left")}"{direction}>'


_RENDER_RULES: Mapping[str, Callable[..., str]] = {
    "fence": _render_code,
    "code_block": _render_code,
    "image": _render_image,
    "math_inline": _render_formula,
    "math_inline_double": _render_formula,
    "math_block": _render_formula,
    "heading_open": _render_heading,
    "heading_close": lambda *_: "</div>\n",
    "html_inline": lambda _, tokens, index, *__: tokens[index].content,
    "task": lambda _, tokens, index, *__: _render_task(tokens[index]),
    "table_open": lambda *_: f'<div style="{_SCROLL_STYLE}" {_FOCUSABLE}><table>\n',
    "table_close": lambda *_: "</table></div>\n",
    "th_open": _render_cell,
    "th_close": lambda _, tokens, index, *__: f"</{'th' if tokens[index - 1].content else 'td'}>\n",
    "td_open": _render_cell,
}
