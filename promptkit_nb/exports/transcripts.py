"""A conversation as a file to read and to hand on: Markdown, or a web page that stands alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.archives import replacing, write_conversation
from promptkit_nb.exports.transcript_page import transcript_page
from promptkit_nb.exports.transcript_sections import Outline
from promptkit_nb.rendering.plain_text import counted, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from promptkit_nb.exports.transcript_sections import Said, Section
    from promptkit_nb.state import ConversationState

# What a viewer of Markdown, or a tool that publishes it, might execute or fetch something for.
_ACTIVE = re.compile(
    r"""
      <[A-Za-z!?/] | !\[                           # HTML and images,
    | \]\((?!https?://) | \]: | (?:java|vb)script:  # links to other places than the web, and their definitions,
    | \\[A-Za-z]                                    # commands of LaTeX,
    | \{[{%] | `r[ ] | :::                          # and what templates and notebooks in Markdown run:
    | (?<![`~])(?:`{3,}+|~{3,}+)[\w\t +#.-]*+[^\w\s+#.`~-]    # code whose first line says more than a language
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PLAIN = re.compile("[a-z, ]+")
_BACKTICKS = re.compile("`+")


def write_transcript(state: ConversationState, path: str | os.PathLike[str], *, stale: Collection[str] = ()) -> Path:
    """Write a conversation as the suffix says, replacing the file at once; return its absolute path.

    ``.md`` is Markdown and ``.html`` a web page: title, user, times, models, tokens and cost, then the system prompt,
    the current turns with their receipts, and the summaries. ``.json`` is everything (``write_conversation``), to be
    imported again. ``stale`` are the ids of the turns to be marked as stale.

    Raises ``InvalidArgumentError`` for another suffix, and ``StoreUnavailableError`` where the file cannot be written;
    what stood there before stays.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return write_conversation(state, path)
    writers = {".md": transcript_markdown, ".html": transcript_html}
    if suffix not in writers:
        raise InvalidArgumentError(
            f"{Path(path).name!r} does not say what to write: give it the suffix "
            ".md (to read), .html (a web page) or .json (to import again)."
        )
    text = writers[suffix](state, stale=stale)
    with replacing(path) as file:
        file.write(text.encode())
    return Path(path).absolute()


def transcript_html(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the conversation as a web page that fetches and runs nothing."""
    return transcript_page(Outline.of(state, stale))


def transcript_markdown(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the conversation as Markdown (CommonMark).

    What was said is quoted, so that headings, lists and unclosed code stay within it. A text that a viewer might
    execute or fetch something for, such as one with HTML or an image, stands in a block of code as it is, and so do
    calls of tools and what they return. Images are counted.
    """
    outline = Outline.of(state, stale)
    facts = [f"- **{label}:** {_code(fact)}" for label, fact in outline.facts]
    sections = [_section_text(section) for section in outline.sections]
    return "\n\n".join([f"# {_code(outline.title)}", "\n".join(facts), *sections]) + "\n"


def _section_text(section: Section) -> str:
    notes = [_code(note) for note in section.notes]
    return "\n\n".join([f"## {section.heading}", *map(_said_text, section.said), *notes])


def _said_text(said: Said) -> str:
    lines = [f"**{said.role if _PLAIN.fullmatch(said.role) else _code(said.role)}**"]
    text = printable(said.text)
    if text.strip():
        lines.append(_fenced(text) if said.is_data or _ACTIVE.search(text) else _quoted(text))
    if said.images:
        lines.append(f"*{counted(len(said.images), 'image')}*")
    return "\n\n".join(lines)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _code(line: str) -> str:
    """Return one line as code, in which nothing means anything."""
    if not line:
        return "-"
    ticks = "`" * (_longest_run(line) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"{ticks}{line}{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
