"""What a transcript tells of a conversation, in its order, however it is then written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptkit_nb.rendering.history import preview
from promptkit_nb.rendering.plain_text import one_line
from promptkit_nb.rendering.receipts import receipt_of, total_text, usd_text
from promptkit_nb.rendering.responses import Response

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from promptkit_nb.state import ConversationState, Summary
    from promptkit_nb.turns import Message, Turn

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
