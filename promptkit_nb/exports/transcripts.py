"""A conversation as a file to read and to hand on: Markdown, or a web page that stands alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.exports.archives import replacing, write_conversation
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.responses import Response
from promptkit_nb.text.note_html import note_html
from promptkit_nb.text.plain_text import counted, one_line, preview, printable
from promptkit_nb.text.receipts import receipt_of, total_text, usd_text

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.turns import Message, Turn

# The second wall: should anything get past the escaping, the browser neither runs nor fetches it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --card: #f5f7f9; --line: #d4dae0;
  --link: #0550ae; --jp-ui-font-color2: var(--soft); }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --soft: #9aa4ae; --paper: #14171a; --card: #1e2328;
  --line: #363d44; --link: #79b8ff; } }
body { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 0.9rem; font-weight: 600; color: var(--soft); margin: 0 0 0.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0 0 2rem; }
dt { color: var(--soft); }
dd { margin: 0; }
section { border-top: 1px solid var(--line); padding: 1rem 0 1.2rem; }
.said { margin: 0 0 0.8rem; }
.user { background: var(--card); border-radius: 0.5rem; padding: 0.6rem 0.9rem 0.1rem; }
.role { font-size: 0.8rem; font-weight: 600; color: var(--soft); }
.said :is(h1, h2, h3, h4, h5, h6) { font-size: 1.1rem; color: inherit; margin: 0.6rem 0 0.3rem; }
.said p { margin: 0.3rem 0 0.8rem; }
pre { white-space: pre-wrap; background: var(--card); border-radius: 0.3rem; padding: 0.5rem; margin: 0.3rem 0 0.8rem; }
pre, code { font: 0.875rem/1.5 ui-monospace, monospace; }
a { color: var(--link); }
table { border-collapse: collapse; margin: 0.3rem 0 0.8rem; }
th, td { border: 1px solid var(--line); padding: 0.2rem 0.6rem; }
blockquote { border-left: 3px solid var(--line); margin: 0.3rem 0 0.8rem; padding: 0 1rem; }
math { font-size: 1.2em; }
img { max-width: 100%; }
"""


def transcript_page(outline: Outline) -> str:
    """Return the page. Markdown is shown by ``to_html``, everything else as the text that it is.

    Of images those in the text itself (``data:``; png, jpeg, gif, webp) are shown, others by their address.
    """
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(fact)}</dd>\n" for label, fact in outline.facts)
    title = escape(outline.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 dir="auto">{title}</h1>\n<dl>\n{facts}</dl>\n'
        f"{''.join(map(_section_html, outline.sections))}</main>\n</body>\n</html>\n"
    )


def _section_html(section: Section) -> str:
    said = "".join(map(_said_html, section.said))
    notes = "".join(f"{note_html(note)}\n" for note in section.notes)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{said}{notes}</section>\n"


def _said_html(said: Said) -> str:
    text = f"<pre>{escape(printable(said.text))}</pre>" if said.is_data else to_html(said.text)
    kind = "said user" if said.role == "user" else "said"
    images = "".join(map(_image_html, said.images))
    return f'<div class="{kind}"><div class="role">{escape(said.role)}</div>{text}{images}</div>\n'


def _image_html(url: str) -> str:
    if _PICTURE.fullmatch(url):
        return f'<p><img src="{url}" alt="image"></p>'
    return f"<p>{escape(printable(url))}</p>"


_LONGEST_METADATA_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Said:
    """A text, whose it is, and the addresses of the images with it; ``is_data`` where it is no Markdown."""

    role: str
    text: str
    is_data: bool = False
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A turn, a summary or the system prompt: its heading, what was said, and the small lines below it."""

    heading: str
    said: tuple[Said, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole transcript; all of it but the labels of ``facts`` is foreign text."""

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    @classmethod
    def of(cls, state: ConversationState, stale: Collection[str] = ()) -> Outline:
        """Return the outline of the current turns; ``stale`` are the ids of those that are stale."""
        title = state.metadata.get("title")
        return cls(
            title=preview(title if isinstance(title, str) and title.strip() else state.conversation_id, 200),
            facts=tuple(_facts(state)),
            sections=tuple(_sections(state, stale)),
        )


def _facts(state: ConversationState) -> Iterator[tuple[str, str]]:
    yield "Conversation", one_line(state.conversation_id)
    yield "User", one_line(state.user_id)
    yield "From", f"{_time(state.created_at)} to {_time(state.updated_at)}"
    models = dict.fromkeys(one_line(turn.model) for turn in state.turns if turn.model)
    if models:
        yield "Model" if len(models) == 1 else "Models", ", ".join(models)
    yield "Turns", f"{len(state.turns):,}"
    yield "Spent", f"{state.token_count:,} tokens · {total_text(state.total_cost, state.unpriced_turns)}"
    if state.metadata:
        metadata = json.dumps(dict(state.metadata), ensure_ascii=False, default=str)
        yield "Metadata", preview(metadata, _LONGEST_METADATA_CHARACTERS)


def _sections(state: ConversationState, stale: Collection[str]) -> Iterator[Section]:
    if state.system_prompt is not None:
        yield Section("System prompt", (Said("system", state.system_prompt),))
    places = {turn.id: place for place, turn in enumerate(state.turns)}
    summaries: dict[int, list[Section]] = {}
    for summary in state.summaries:
        place = _place(summary.last_turn, places)
        summaries.setdefault(place, []).append(_summary_section(summary, places))
    yield from summaries.get(-1, ())
    for place, turn in enumerate(state.turns):
        yield _turn_section(turn, place, state.conversation_id, is_stale=turn.id in stale)
        yield from summaries.get(place, ())


def _place(turn: str | int, places: dict[str, int]) -> int:
    """Return the position of a turn, -1 where it is no current one."""
    place = turn if isinstance(turn, int) else places.get(turn, -1)
    return place if 0 <= place < len(places) else -1


def _summary_section(summary: Summary, places: dict[str, int]) -> Section:
    first, last = (_place(turn, places) + 1 for turn in (summary.first_turn, summary.last_turn))
    if not first or not last:
        heading = "Summary of earlier turns"
    else:
        heading = f"Summary of turn {first}" if first == last else f"Summary of turns {first} to {last}"
    note = f"{summary.model} · {summary.usage.total_tokens:,} tokens · {usd_text(summary.cost)}"
    notes = (one_line(note),) if summary.model else ()
    return Section(f"{heading} · {_time(summary.created_at)}", (Said("summary", summary.text),), notes)


def _turn_section(turn: Turn, place: int, conversation_id: str, *, is_stale: bool) -> Section:
    response = (Response.replay_of if turn.replayed else Response.of)(turn, conversation_id)
    flags = ["stale"] * is_stale + ["inherited"] * turn.inherited
    receipt = " · ".join([receipt_of(response, conversation_id) if turn.model else "not answered by a model", *flags])
    return Section(
        f"Turn {place + 1} · {_time(turn.created_at)}",
        tuple(each for message in turn.messages for each in said_in(message)),
        (*(f"⚠ {one_line(warning)}" for warning in turn.warnings), receipt),
    )


def said_in(message: Message) -> Iterator[Said]:
    """Yield what a message holds: what was thought, what was said with its images, and each call of a tool."""
    name = f" · {one_line(message.name)}" if message.name else ""
    if message.reasoning:
        yield Said(f"{message.role}, thinking", message.reasoning)
    images = tuple(part.url for part in message.parts if part.type == "image_url")
    if message.content or images or not message.tool_calls:
        yield Said(f"{message.role}{name}", message.content, message.role == "tool", images)
    for call in message.tool_calls:
        yield Said(f"{message.role}, calling a tool", f"{call.name}({call.arguments})", is_data=True)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


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
