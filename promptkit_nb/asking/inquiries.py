"""One question, where it stands, and the request that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from promptkit_nb.asking.requests import Terms
from promptkit_nb.asking.running_cell import CellCall
from promptkit_nb.errors import ContextWindowExceededError
from promptkit_nb.providers.base import ChatRequest
from promptkit_nb.state import ConversationState
from promptkit_nb.turns import Message, Turn, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question at a place of a conversation: ``turns`` are those before it, ``own`` is the turn that stands there.

    ``links`` are the hashes of what stands before each of the turns, and before the question. ``recorded`` is the
    stored turn that answers it, if there is one and replay is wanted.
    """

    state: ConversationState
    question: Message
    terms: Terms
    turns: tuple[Turn, ...]
    links: tuple[str, ...]
    context_hash: str
    replay_key: str
    own: Turn | None = None
    recorded: Turn | None = None
    cell: CellCall | None = None

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self.state.conversation_id

    @property
    def cell_fields(self) -> dict[str, object]:
        """What a turn keeps of the cell that asks; of a turn answered again from elsewhere, its former cell."""
        source = self.cell or self.own
        if source is None:
            return {"cell_id": None, "cell_call": 0, "cell_source": None}
        return {"cell_id": source.cell_id, "cell_call": source.cell_call, "cell_source": source.cell_source}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that fits its window and its budget.

    ``truncated`` is how many turns were left out, ``counted_tokens`` what was counted offline, if it was. ``shorter``
    makes a shorter one, or returns ``None`` where that is not allowed; ``settle`` takes what the call cost in US
    dollars and returns warnings, ``enter`` does without where nobody would read them; ``warnings`` is told what the
    server counted.
    """

    request: ChatRequest
    truncated: int = 0
    counted_tokens: int | None = None
    shorter: Callable[[ContextWindowExceededError], Prepared | None] = field(default=lambda _: None)
    settle: Callable[[Decimal | None], tuple[str, ...]] = field(default=lambda _: ())
    enter: Callable[[Decimal | None], object] = field(default=lambda _: None)
    warnings: Callable[[Usage], tuple[str, ...]] = field(default=lambda _: ())
