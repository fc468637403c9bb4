"""What a panel shows of a turn, and the transcript that stays readable where no widget runs.

Only ``html`` fields hold HTML, all of it made by ``to_html``; the page shows everything else as text.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.exports.transcripts import said_in
from promptkit_nb.frontend import is_batch
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.responses import Response
from promptkit_nb.text.note_html import MATH_OFF, note_html
from promptkit_nb.text.plain_text import counted, one_line, preview, printable
from promptkit_nb.text.receipts import receipt_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from promptkit_nb.exports.transcripts import Said
    from promptkit_nb.state import ConversationState
    from promptkit_nb.turns import Turn

LONGEST_DATA_CHARACTERS = 20_000
STATIC_TURNS = 50
"""How many turns the saved notebook keeps: it is written anew with each turn."""

_TEXT_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere"


def shown_turn(turn: Turn, place: int, *, is_stale: bool) -> dict[str, object]:
    """Return a turn for the page: ``{"id", "at", "question", "said": [{"who", "text", "html"}], "notes": […]}``.

    ``at`` is its position in the conversation; ``html`` is empty where the text is to be shown as it is.
    """
    return {
        "id": turn.id,
        "at": place,
        "question": turn.user_text,
        "said": [dict(_shown(said)) for message in turn.messages for said in said_in(message)],
        "notes": list(_notes(turn, is_stale=is_stale)),
    }


def title_of(conversation_id: str, metadata: Mapping[str, object]) -> str:
    """Return what a conversation is called: the title in its metadata, else its id."""
    title = metadata.get("title")
    return preview(title if isinstance(title, str) and title.strip() else conversation_id, 200)


def static_html(state: ConversationState, *, stale: Collection[str] = ()) -> str:
    """Return the newest turns as sanitised HTML that needs neither script nor kernel."""
    turns = "".join(
        f'<div style="margin:0.8em 0">{"".join(map(_said_html, _said(turn)))}{_notes_html(turn, stale)}</div>'
        for turn in state.turns[-STATIC_TURNS:]
    )
    notes = "".join(note_html(line, "font-weight:600") for line in _heading(state))
    return f'<div class="promptkit-transcript">{notes}{turns}</div>'


def static_text(state: ConversationState) -> str:
    """Return the newest turns as plain text."""
    lines = [f"{said.role}: {printable(said.text)}" for turn in state.turns[-STATIC_TURNS:] for said in _said(turn)]
    return "\n".join([*_heading(state), *lines])


def _heading(state: ConversationState) -> Iterator[str]:
    named = "" if is_batch() else f" {title_of(state.conversation_id, state.metadata)!r}"
    yield f"Chat panel{named}, {counted(len(state.turns), 'turn')}. Run this cell again to go on."
    left_out = len(state.turns) - STATIC_TURNS
    if left_out > 0:
        yield f"The newest {STATIC_TURNS} turns; %chat_export writes the other {left_out:,}, too."


def _said(turn: Turn) -> Iterator[Said]:
    for message in turn.messages:
        yield from said_in(message)


def _shown(said: Said) -> Iterator[tuple[str, str]]:
    is_text = said.is_data or said.role == "user"
    text = printable(said.text)
    if said.is_data and len(text) > LONGEST_DATA_CHARACTERS:
        text = f"{text[:LONGEST_DATA_CHARACTERS]}…"
    yield "who", one_line(said.role)
    yield "text", text
    yield "html", ("" if is_text else to_html(said.text)) + _images_html(said)


def _said_html(said: Said) -> str:
    shown = dict(_shown(said))
    text = f'<div {MATH_OFF} style="{_TEXT_STYLE}">{escape(shown["text"])}</div>'
    is_text = said.is_data or said.role == "user"
    return f"{note_html(shown['who'], 'font-weight:600')}{text if is_text else ''}{shown['html']}"


def _images_html(said: Said) -> str:
    return "".join(to_html(f"![image]({url})") for url in said.images)


def _notes(turn: Turn, *, is_stale: bool) -> Iterator[str]:
    yield from (f"⚠ {one_line(warning)}" for warning in turn.warnings)
    response = (Response.replay_of if turn.replayed else Response.of)(turn, "")
    if turn.model:
        yield receipt_of(response, "")
    if is_stale:
        yield "stale: what stands before it has changed since it was answered"
    if turn.inherited:
        yield "inherited from the conversation that this one is a copy of"


def _notes_html(turn: Turn, stale: Collection[str]) -> str:
    return "".join(note_html(note) for note in _notes(turn, is_stale=turn.id in stale))
