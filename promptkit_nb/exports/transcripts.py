"""A conversation as a file to read and share: Markdown, or a self-contained web page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.characters import printable
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.archives import write_conversation
from promptkit_nb.regular_files import replacing
from promptkit_nb.rendering.conversations import title_of
from promptkit_nb.rendering.markdown import DATA_IMAGE, answer_css, to_html
from promptkit_nb.rendering.responses import Response
from promptkit_nb.rendering.typed_values import stored_table
from promptkit_nb.stores.checks import path_of
from promptkit_nb.text.plain_text import counted, one_line, preview
from promptkit_nb.text.receipts import Receipt, total_text, usd_text

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.turns import Message, Turn

SUFFIXES = (".json", ".md", ".html")
MAX_METADATA_CHARACTERS = 2_000
DEFAULT_USER = "default"

# A second line of defense: if anything got past the escaping, the browser would neither run nor fetch it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root { color-scheme: light dark; --pk-ink: #1b1f24; --pk-soft: #57606a; --pk-paper: #fff; --pk-card: #f5f7f9;
  --pk-line: #d4dae0; --pk-link: #0550ae; --jp-ui-font-color2: var(--pk-soft);
  --jp-mirror-editor-comment-color: #5c6166; --jp-mirror-editor-keyword-color: #0a6b0a;
  --jp-mirror-editor-string-color: #a31515; --jp-mirror-editor-number-color: #0b6647;
  --jp-mirror-editor-builtin-color: #0b6623; --jp-mirror-editor-def-color: #1f5fae;
  --jp-mirror-editor-attribute-color: #1f5fae; --jp-mirror-editor-meta-color: #7a2fa8;
  --jp-mirror-editor-tag-color: #0b6623; --jp-mirror-editor-error-color: #b3261e;
  --jp-mirror-editor-string-2-color: #0b6623; }
@media (prefers-color-scheme: dark) { :root { --pk-ink: #e3e7eb; --pk-soft: #9aa4ae; --pk-paper: #14171a;
  --pk-card: #1e2328; --pk-line: #363d44; --pk-link: #79b8ff;
  --jp-mirror-editor-comment-color: #9aa4ae; --jp-mirror-editor-keyword-color: #6fd06f;
  --jp-mirror-editor-string-color: #ff9c9c; --jp-mirror-editor-number-color: #5fd3a4;
  --jp-mirror-editor-builtin-color: #6fd08a; --jp-mirror-editor-def-color: #8ab8ff;
  --jp-mirror-editor-attribute-color: #8ab8ff; --jp-mirror-editor-meta-color: #d79bff;
  --jp-mirror-editor-tag-color: #6fd08a; --jp-mirror-editor-error-color: #ff8a80;
  --jp-mirror-editor-string-2-color: #6fd08a; } }
body { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: var(--pk-paper); color: var(--pk-ink);
  font: 14px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 0.9rem; font-weight: 600; color: var(--pk-soft); margin: 0 0 0.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0 0 2rem; }
dt { color: var(--pk-soft); }
dd { margin: 0; }
section { border-top: 1px solid var(--pk-line); padding: 1rem 0 1.2rem; }
.entry { margin: 0 0 0.8rem; }
.user { background: var(--pk-card); border-radius: 0.5rem; padding: 0.6rem 0.9rem 0.1rem; }
.label { font-size: 0.8rem; font-weight: 600; color: var(--pk-soft); }
.entry > pre { white-space: pre-wrap; font: 13px/1.4 ui-monospace, monospace; margin: 4px 0 12px; }
a { color: var(--pk-link); }
img { max-width: 100%; }
"""

# What a Markdown viewer, or a tool that publishes Markdown, might execute or fetch.
_ACTIVE = re.compile(
    r"""
      <[A-Za-z!?/] | !\[                           # HTML and images,
    | \]\((?!https?://) | \]: | (?:java|vb)script:  # links that do not lead to the web, and link definitions,
    | \\[A-Za-z]                                    # LaTeX commands,
    | \{[{%] | `r[ ] | :::                          # what templates and Markdown notebooks run,
    | (?<![`~])(?:`{3,}+|~{3,}+)[\w\t +#.-]*+[^\w\s+#.`~-]    # and code whose info string is more than a language
    """,
    re.VERBOSE | re.IGNORECASE,
)
_WORDS = re.compile("[A-Za-z, ]+")
_BACKTICKS = re.compile("`+")


def write_transcript(state: ConversationState, path: str | os.PathLike[str], *, stale: Collection[str] = ()) -> Path:
    """Write a conversation in the format of the suffix, replacing the file atomically; return its absolute path.

    ``.md`` is Markdown and ``.html`` a web page: title, user, times, models, tokens and cost, then the system prompt,
    the current turns with their receipts, and the summaries. ``.json`` is everything (``write_conversation``), to
    import again. ``stale`` are the ids of the turns to mark as stale.

    Raises:
        InvalidArgumentError: Another suffix.
        StoreUnavailableError: The file cannot be written; an existing one is unchanged.
    """
    path = export_path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return write_conversation(state, path)
    text = (transcript_markdown if suffix == ".md" else transcript_html)(state, stale=stale)
    with replacing(path) as file:
        file.write(text.encode())
    return path.absolute()


def export_path(path: object) -> Path:
    """Return the path of a conversation's file; raise ``InvalidArgumentError`` for an unsupported suffix.

    >>> export_path("eda.md").suffix
    '.md'
    """
    file = path_of("path", path)
    if file.suffix.lower() in SUFFIXES:
        return file
    raise InvalidArgumentError(
        f"{file.name!r} has none of the supported suffixes: use .md (to read), .html (a web page) or .json (to import "
        "again)."
    )


# The outline that both formats share.


@dataclass(frozen=True, slots=True)
class Entry:
    """A text with its label, such as ``user``, and the addresses of its images.

    ``is_data`` is set if the text is not Markdown, ``is_thinking`` if it is the model's thinking, which is folded, and
    ``is_user`` if a transcript shows it as the user's. ``html`` is safe HTML that pages show in place of the text, such
    as the table of a typed answer.
    """

    label: str
    text: str
    is_data: bool = False
    images: tuple[str, ...] = ()
    is_thinking: bool = False
    html: str = ""
    is_user: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A turn, a summary or the system prompt: its heading, its entries, and the small lines below them."""

    heading: str
    entries: tuple[Entry, ...]
    notes: tuple[Receipt, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole transcript. Everything except the labels of ``facts`` comes from outside and must be escaped."""

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    @classmethod
    def of(cls, state: ConversationState, stale: Collection[str] = ()) -> Outline:
        """Return the outline of the current turns; ``stale`` are the ids of the stale ones."""
        title = title_of(state.conversation_id, state.metadata)
        return cls(title, tuple(_facts(state, title)), tuple(_sections(state, stale)))


def entries_of(message: Message, value_json: str | None = None) -> Iterator[Entry]:
    """Yield the parts of a message: its reasoning, its content with the images, and each tool call.

    The content of a typed answer, whose value is ``value_json``, is a table.
    """
    name = f" · {one_line(message.name)}" if message.name else ""
    if message.thinking:
        yield Entry(f"{message.role}, thinking", message.thinking, is_thinking=True)
    images = tuple(part.url for part in message.parts if part.type == "image_url")
    files = [f"[file {one_line(part.text)}]" for part in message.parts if part.type == "file"]
    text = "\n\n".join(filter(None, [message.text, *(each for each in files if each not in message.text)]))
    table = stored_table(value_json) if message.role == "assistant" else None
    if table is not None:
        yield Entry(f"{message.role}{name}", value_json or "", images=images, html=table[1])
    elif text or images or not message.tool_calls:
        yield Entry(f"{message.role}{name}", text, message.role == "tool", images)
    for call in message.tool_calls:
        yield Entry(f"{message.role}, calling a tool", f"{call.name}({call.arguments})", is_data=True)


def value_of(turn: Turn, message: Message) -> str | None:
    """Return the value of a typed answer, as JSON, if this message of the turn is one."""
    return turn.value_json if message is turn.messages[-1] else None


def _facts(state: ConversationState, title: str) -> Iterator[tuple[str, str]]:
    own = one_line(state.conversation_id)
    if own != title:
        yield "Conversation", own
    if state.user_id != DEFAULT_USER:
        yield "User", one_line(state.user_id)
    yield "From", f"{_time(state.created_at)} to {_time(state.updated_at)}"
    models = dict.fromkeys(one_line(turn.model) for turn in state.turns if turn.model)
    if models:
        yield "Model" if len(models) == 1 else "Models", ", ".join(models)
    yield "Turns", f"{len(state.turns):,}"
    yield "Spent", f"{state.token_count:,} tokens · {total_text(state.total_cost, state.unpriced_turns)}"
    others = {name: value for name, value in state.metadata.items() if (name, value) != ("title", title)}
    if others:
        metadata = json.dumps(others, ensure_ascii=False, default=str)
        yield "Metadata", preview(metadata, MAX_METADATA_CHARACTERS)


def _sections(state: ConversationState, stale: Collection[str]) -> Iterator[Section]:
    if state.system_prompt is not None:
        yield Section("System prompt", (Entry("System", state.system_prompt),))
    positions = {turn.id: position for position, turn in enumerate(state.turns)}
    summaries: dict[int, list[Section]] = {}
    for summary in state.summaries:
        last = _position(summary.last_turn, positions)
        summaries.setdefault(last, []).append(_summary_section(summary, positions))
    yield from summaries.get(-1, ())
    for position, turn in enumerate(state.turns):
        yield _turn_section(turn, position, is_stale=turn.id in stale)
        yield from summaries.get(position, ())


def _position(turn: str | int, positions: dict[str, int]) -> int:
    """Return the position of a turn, or -1 if it is not a current one."""
    position = turn if isinstance(turn, int) else positions.get(turn, -1)
    return position if 0 <= position < len(positions) else -1


def _summary_section(summary: Summary, positions: dict[str, int]) -> Section:
    first, last = (_position(turn, positions) + 1 for turn in (summary.first_turn, summary.last_turn))
    if not first or not last:
        heading = "Summary of earlier turns"
    else:
        heading = f"Summary of turn {first}" if first == last else f"Summary of turns {first} to {last}"
    note = f"{summary.model} · {summary.usage.total_tokens:,} tokens · {usd_text(summary.cost)}"
    notes = (Receipt.line(one_line(note)),) if summary.model else ()
    return Section(f"{heading} · {_time(summary.created_at)}", (Entry("Summary", summary.text),), notes)


def _turn_section(turn: Turn, position: int, *, is_stale: bool) -> Section:
    response = (Response.replay_of if turn.replayed else Response.of)(turn, "")
    flags = ["stale"] * is_stale + ["inherited"] * turn.inherited
    receipt = Receipt.of(response, "") if turn.model else Receipt.line("not answered by a model")
    for flag in flags:
        receipt = receipt.plus(flag)
    return Section(
        f"Turn {position + 1} · {_time(turn.created_at)}",
        tuple(
            _named(entry, turn) for message in turn.messages for entry in entries_of(message, value_of(turn, message))
        ),
        (*(Receipt.line(f"⚠ {one_line(warning)}") for warning in turn.warnings), receipt),
    )


def _named(entry: Entry, turn: Turn) -> Entry:
    """Return an entry that is labeled as a reader would: You, the name of the model, or what a tool did."""
    role, comma, rest = entry.label.partition(", ")
    names = {"user": "You", "assistant": one_line(turn.model) or "Answer", "tool": "Tool"}
    name, dot, tool = role.partition(" · ")
    return replace(entry, label=f"{names.get(name, name)}{dot}{tool}{comma}{rest}", is_user=name == "user")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


# The web page.


def transcript_html(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the conversation as a web page that runs and fetches nothing.

    Markdown is rendered by ``to_html``, everything else is escaped. Images in the text itself (``data:``; png, jpeg,
    gif, webp) are shown, remote ones by their address.
    """
    outline = Outline.of(state, stale)
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(fact)}</dd>\n" for label, fact in outline.facts)
    title = escape(outline.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}{answer_css()}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 dir="auto">{title}</h1>\n<dl>\n{facts}</dl>\n'
        f"{''.join(map(_section_html, outline.sections))}</main>\n</body>\n</html>\n"
    )


def _section_html(section: Section) -> str:
    entries = "".join(map(_entry_html, section.entries))
    notes = "".join(f"{note.html()}\n" for note in section.notes)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{entries}{notes}</section>\n"


def _entry_html(entry: Entry) -> str:
    text = entry.html or (f"<pre>{escape(printable(entry.text))}</pre>" if entry.is_data else to_html(entry.text))
    kind = "entry user" if entry.is_user else "entry"
    images = "".join(map(_image_html, entry.images))
    if entry.is_thinking:
        label = f'<summary class="label">{escape(entry.label)}</summary>'
        return f'<details class="entry">{label}{text}</details>\n'
    return f'<div class="{kind}"><div class="label">{escape(entry.label)}</div>{text}{images}</div>\n'


def _image_html(url: str) -> str:
    if DATA_IMAGE.fullmatch(url):
        return f'<p><img src="{url}" alt="image"></p>'
    return f"<p>{escape(printable(url))}</p>"


# Markdown.


def transcript_markdown(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the conversation as Markdown (CommonMark).

    Messages are quoted, so that their headings, lists and unclosed code stay inside the quote. A text that a viewer
    might execute or fetch something for, such as one with HTML or an image, is put into a code block, and so are tool
    calls and their results. Images are counted.
    """
    outline = Outline.of(state, stale)
    facts = [f"- **{label}:** {_code(fact)}" for label, fact in outline.facts]
    sections = map(_section_markdown, outline.sections)
    return "\n\n".join([f"# {_code(outline.title)}", "\n".join(facts), *sections]) + "\n"


def _section_markdown(section: Section) -> str:
    entries, notes = map(_entry_markdown, section.entries), (_code(note.text) for note in section.notes)
    return "\n\n".join([f"## {section.heading}", *entries, *notes])


def _entry_markdown(entry: Entry) -> str:
    blocks = [f"**{entry.label if _WORDS.fullmatch(entry.label) else _code(entry.label)}**"]
    text = printable(entry.text)
    if text.strip():
        blocks.append(_code_block(text) if entry.is_data or entry.html or _ACTIVE.search(text) else _quote(text))
    if entry.images:
        blocks.append(f"*{counted(len(entry.images), 'image')}*")
    return "\n\n".join(blocks)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _code_block(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _code(line: str) -> str:
    """Return one line as inline code, in which no Markdown is active."""
    if not line:
        return "-"
    ticks = "`" * (_longest_run(line) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"{ticks}{line}{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
