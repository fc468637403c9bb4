"""Makes text from models, servers, and files safe to encode, and safe to show in terminals and DataFrames."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BIDIRECTIONAL = "LRE RLE PDF LRO RLO LRI RLI FSI PDI".split()  # noqa: SIM905 - U+202A to U+202E, U+2066 to U+2069
_REMOVED = dict.fromkeys(code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t")
_MARKED = dict(zip((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), map("⟨{}⟩".format, _BIDIRECTIONAL), strict=True))
_PRINTABLE: dict[int, str | None] = {**_REMOVED, **_MARKED}
_VISIBLE = {**_PRINTABLE, 0x1B: "␛"}
_UNSAFE = re.compile(f"[{''.join(map(re.escape, map(chr, _PRINTABLE)))}]")


def without_lone_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced by U+FFFD, so that it can be encoded."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printable(text: str) -> str:
    r"""Return the text in a form that is safe to print: it cannot control a terminal, or change the order of its text.

    Control characters are removed, except line breaks and tabs. Bidirectional overrides, embeddings, and isolates
    are made visible.

    >>> printable("\x1b[31mred\r\n"), printable("moc.\u202eexample")
    ('[31mred\n', 'moc.⟨RLO⟩example')
    """
    return _translated(text, _PRINTABLE)


def visible(text: str) -> str:
    r"""Return the text for a DataFrame: as ``printable`` does, but with escapes shown as ``␛``.

    >>> visible("\x1b[31mred\r\n")
    '␛[31mred\n'
    """
    return _translated(text, _VISIBLE)


def _translated(text: str, table: Mapping[int, str | None]) -> str:
    if text.isascii() and text.isprintable():
        return text
    text = without_lone_surrogates(text)
    return text.translate(table) if _UNSAFE.search(text) else text


_PLAIN = {"…": "...", "·": "-", "≤": "<=", "—": "--", "\u2013": "-", "✎": "*", "␛": "^[", "⟨": "<", "⟩": ">"} | dict(
    zip("└├─│", "`|-|", strict=True)
)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks: our own symbols by ASCII ones, others by their escape codes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    codes = (_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in missing)
    return "".join(codes), error.end


codecs.register_error("promptkit.plain", _plain)


def terminal_text(text: str, encoding: str | None = None) -> str:
    r"""Return ``printable`` text, with replacements for characters that standard output (or ``encoding``) lacks.

    >>> terminal_text("└─ 你好… · 2", encoding="latin-1")
    '`- \\u4f60\\u597d... · 2'
    """
    text = printable(text)
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    if text.isascii() or encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.encode(encoding, "promptkit.plain").decode(encoding)


def composed(text: str) -> str:
    r"""Return the text in Unicode's NFC form, with composed accents, so that equivalent texts are equal.

    >>> composed("e\u0301") == "\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


def equal_forms(text: str) -> tuple[str, ...]:
    r"""Return the distinct forms of the text: as given, composed, and decomposed.

    >>> equal_forms("eda"), [len(form) for form in equal_forms("e\u0301")]
    (('eda',), [2, 1])
    """
    if text.isascii():
        return (text,)
    return tuple(dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text))))


def folded(text: str) -> str:
    r"""Return a form of the text for comparisons that ignore case, in every script, and the encoding of accents.

    >>> folded("E\u0301COLE") == folded("\u00e9cole"), folded("Straße")
    (True, 'strasse')
    """
    if text.isascii():
        return text.lower()
    return composed(unicodedata.normalize("NFD", text).casefold())
