"""Turns as the panel shows them, and the static transcript for front ends without widgets.

Only the ``html`` fields hold HTML, all of it made by ``to_html``; the page shows every other field as plain text.
"""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.characters import printable
from promptkit_nb.exports.transcripts import Entry, entries_of, value_of
from promptkit_nb.frontend import is_batch
from promptkit_nb.panel.conversation_list import title_of_state
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.rendering.responses import Response, thinking_html
from promptkit_nb.rendering.tool_calls import answered_calls
from promptkit_nb.rendering.tool_lines import lines_of, tool_lines_html, tool_lines_text
from promptkit_nb.text.plain_text import counted, one_line
from promptkit_nb.text.receipts import MATH_OFF, Receipt, note_html, thinking_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from promptkit_nb.rendering.responses import ThinkingMode
    from promptkit_nb.rendering.tool_lines import ToolLine
    from promptkit_nb.state import ConversationState
    from promptkit_nb.turns import Message, Turn

MAX_DATA_CHARACTERS = 20_000
STATIC_TURNS = 50
"""How many turns the saved notebook keeps: the transcript is written again after each turn."""

_TEXT_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere"


def turn_fields(
    turn: Turn,
    index: int,
    *,
    is_stale: bool,
    thinking: ThinkingMode = "fold",
    typed: str | None = None,
    calls: Mapping[str, str] | None = None,
    versions: Sequence[Turn] = (),
    branches: int = 0,
) -> dict[str, object]:
    """Return a turn for the page: ``{"id", "index", "question", "entries", "notes"}``.

    ``typed`` is shown as the question, if values were filled into it before it was sent. ``calls`` is the HTML of
    tool calls by id, if this kernel ran them: it also shows the objects that they returned. ``versions`` are
    the previous versions of the turn, and ``branches`` is the number of branches that begin at its position.

    With versions, it has ``"version"``: ``{"number", "count", "previous", "next"}``, counted by time; the last two are
    ids, or empty.

    An entry is ``{"label", "text", "html", "fold"}``. ``html`` is empty if the page shows the plain text. ``fold`` is
    ``"closed"`` or ``"open"`` if the entry can be folded to its label.
    """
    return {
        "id": turn.id,
        "index": index,
        "question": typed or turn.user_text,
        "entries": [
            _entry_fields(entry, _fold(entry, thinking))
            for entry in _entries(turn, typed, calls or {})
            if not (entry.is_thinking and thinking == "hide")
        ],
        "notes": [
            {"text": note.short, "title": note.text}
            for note in (*_notes(turn, is_stale=is_stale), *_branches_note(branches))
        ],
        **({"version": _version_fields(turn, versions)} if versions else {}),
    }


def static_html(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the newest turns as sanitized HTML that needs neither scripts nor a kernel."""
    heading = "".join(note_html(line, "font-weight:600") for line in _heading(state))
    turns = "".join(_turn_html(turn, is_stale=turn.id in stale) for turn in state.turns[-STATIC_TURNS:])
    return f'{answer_style()}<div class="promptkit-transcript">{heading}{turns}</div>'


def static_text(state: ConversationState) -> str:
    """Return the newest turns as plain text."""
    entries = [entry for turn in state.turns[-STATIC_TURNS:] for entry in _entries(turn)]
    return "\n".join([*_heading(state), *(f"{entry.label}: {printable(entry.text)}" for entry in entries)])


def _heading(state: ConversationState) -> Iterator[str]:
    title = "" if is_batch() else f" {title_of_state(state)!r}"
    yield f"Chat panel{title}, {counted(len(state.turns), 'turn')}. Run this cell again to continue."
    left_out = len(state.turns) - STATIC_TURNS
    if left_out > 0:
        yield f"Only the newest {STATIC_TURNS} turns; %chat_export also writes the other {left_out:,}."


def _entries(turn: Turn, typed: str | None = None, calls: Mapping[str, str] | None = None) -> Iterator[Entry]:
    words = thinking_words(Response.of(turn, ""))
    lines = dict(zip((call.id for call, _, _ in answered_calls(turn)), lines_of(turn), strict=True))
    for message in turn.messages:
        if message.role == "tool" and (line := lines.get(message.tool_call_id or "")) and line.told == message.content:
            continue
        for entry in _parts(turn, message, lines, calls or {}):
            if typed and entry.label == "user":
                yield replace(entry, text=typed)
            else:
                yield replace(entry, label=words) if entry.is_thinking else entry


def _parts(turn: Turn, message: Message, lines: Mapping[str, ToolLine], calls: Mapping[str, str]) -> Iterator[Entry]:
    return _with_calls(message, lines, calls) if message.tool_calls else entries_of(message, value_of(turn, message))


def _with_calls(message: Message, lines: Mapping[str, ToolLine], calls: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the parts of a message that calls tools: its thinking, its answered calls with its text, other calls."""
    answered = [call.id for call in message.tool_calls if call.id in lines]
    if not answered:
        yield from entries_of(message)
        return
    yield from (entry for entry in entries_of(message) if entry.is_thinking)
    html = "".join(calls.get(each) or tool_lines_html([lines[each]]) for each in answered)
    yield Entry("assistant, calling tools", tool_lines_text([lines[each] for each in answered]), html=html)
    others = tuple(call for call in message.tool_calls if call.id not in lines)
    yield from (entry for entry in entries_of(replace(message, tool_calls=others)) if entry.is_data)


def _fold(entry: Entry, thinking: ThinkingMode) -> str:
    if entry.is_thinking:
        return "open" if thinking == "show" else "closed"
    return "closed" if entry.is_data else ""


def _entry_fields(entry: Entry, fold: str = "") -> dict[str, str]:
    text = printable(entry.text)
    if entry.is_data and len(text) > MAX_DATA_CHARACTERS:
        text = f"{text[:MAX_DATA_CHARACTERS]}…"
    html = entry.html or ("" if _is_plain(entry) else to_html(entry.text))
    images = "".join(to_html(f"![image]({url})") for url in entry.images)
    return {"label": one_line(entry.label), "text": text, "html": html + images, "fold": fold}


def _is_plain(entry: Entry) -> bool:
    return entry.is_data or entry.label == "user"


def _turn_html(turn: Turn, *, is_stale: bool) -> str:
    entries = "".join(map(_entry_html, _entries(turn)))
    notes = "".join(note.html() for note in _notes(turn, is_stale=is_stale))
    return f'<div style="margin:0.8em 0">{entries}{notes}</div>'


def _entry_html(entry: Entry) -> str:
    if entry.is_thinking:
        return thinking_html(entry.text, entry.label)
    fields = _entry_fields(entry)
    text = f'<div {MATH_OFF} style="{_TEXT_STYLE}">{escape(fields["text"])}</div>' if _is_plain(entry) else ""
    return f"{note_html(fields['label'], 'font-weight:600')}{text}{fields['html']}"


def _notes(turn: Turn, *, is_stale: bool) -> Iterator[Receipt]:
    yield from (Receipt.line(f"⚠ {one_line(warning)}") for warning in turn.warnings)
    response = (Response.replay_of if turn.replayed else Response.of)(turn, "")
    if turn.model:
        yield Receipt.of(response, "")
    if is_stale:
        yield Receipt.line("stale: earlier turns changed after this answer")
    if turn.inherited:
        yield Receipt.line("inherited from the conversation this one was forked from")


def _branches_note(count: int) -> Iterator[Receipt]:
    if count:
        words = "1 branch" if count == 1 else f"{count} branches"
        yield Receipt(words, f"{words} with what followed here before: %chat_tree lists, %chat_restore brings back")


def _version_fields(turn: Turn, versions: Sequence[Turn]) -> dict[str, object]:
    ids = [each.id for each in sorted((*versions, turn), key=lambda each: each.created_at)]
    at = ids.index(turn.id)
    return {
        "number": at + 1,
        "count": len(ids),
        "previous": ids[at - 1] if at else "",
        "next": "".join(ids[at + 1 : at + 2]),
    }
