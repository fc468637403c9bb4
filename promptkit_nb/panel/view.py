"""What a panel shows: the turns, the answer under way, errors, and the lines around them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from promptkit_nb.errors import PromptKitError
from promptkit_nb.panel import conversation_list
from promptkit_nb.panel.transcript import shown_turn, title_of
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.text.plain_text import counted, one_line, printable
from promptkit_nb.text.receipts import total_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.chat.snapshot import Snapshot
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.threads import AnswerThread


def footer_of(conversation: Conversation, *, model: str | None = None) -> list[str]:
    """Return the lines, the totals first."""
    head = conversation.store.head(conversation.id)
    totals = " · ".join(
        [
            counted(head.turn_count, "turn"),
            f"{head.token_count:,} tokens",
            total_text(head.total_cost, head.unpriced_turns),
        ]
    )
    return [totals, _context_line(conversation, model), *map(one_line, conversation.budget_lines())]


def _context_line(conversation: Conversation, model: str | None) -> str:
    try:
        context = conversation.context(model=model)
    except PromptKitError as error:  # such as: a variable of the prompt has no value yet
        return one_line(f"The next request cannot be made yet: {error}")
    about = "~" if context.estimated else ""
    if context.max_tokens is None:
        return f"context {about}{context.token_count:,} tokens"
    percent = round(100 * context.token_count / context.max_tokens)
    left_out = f", {counted(len(context.left_out), 'turn')} left out" if context.left_out else ""
    return f"context {about}{context.token_count:,} of {context.max_tokens:,} tokens ({percent} %{left_out})"


PAGE_TURNS = 20


class Pages:
    """What of a conversation is on the page.

    ``epoch`` counts how often something else than its end changed: then older turns that were fetched before are no
    longer to be shown.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Begin with the newest turns."""
        self.epoch = 0
        self.snapshot = snapshot

    def turn_to(self, snapshot: Snapshot) -> None:
        """Go on with what the conversation holds now."""
        before = self.snapshot
        fixed = min(self._first(before), self._first(snapshot))
        is_other = before.state.conversation_id != snapshot.state.conversation_id
        if is_other or before.stale != snapshot.stale or before.state.turns[:fixed] != snapshot.state.turns[:fixed]:
            self.epoch += 1
        self.snapshot = snapshot

    def newest(self) -> dict[str, object]:
        """Return the last page, with the position of its first turn."""
        first = self._first(self.snapshot)
        return {"turns": self._shown(first, len(self.snapshot.state.turns)), "first": first, "epoch": self.epoch}

    def before(self, place: int) -> dict[str, object]:
        """Return the page that ends before a position."""
        stop = max(0, min(place, len(self.snapshot.state.turns)))
        return {"older": self._shown(max(0, stop - PAGE_TURNS), stop), "epoch": self.epoch}

    def _shown(self, start: int, stop: int) -> list[dict[str, object]]:
        turns, stale = self.snapshot.state.turns, self.snapshot.stale
        return [shown_turn(turns[place], place, is_stale=turns[place].id in stale) for place in range(start, stop)]

    @staticmethod
    def _first(snapshot: Snapshot) -> int:
        return max(0, len(snapshot.state.turns) - PAGE_TURNS)


UPDATE_EVERY_S = 0.1
IDLE_PER_UPDATE = 4
"""How many times as long as rendering an answer took it is left alone: a long one is rendered less often."""

ANSWERING = "Answering…"


class Screen(Protocol):
    """Where a board is shown: the widget."""

    def show(self, **changes: object) -> None:
        """Change what is shown: the names are those of ``ChatPanel``'s traits."""
        ...

    def tell(self, message: Mapping[str, object]) -> None:
        """Send something to the pages that are open now."""
        ...

    def keep(self, snapshot: Snapshot) -> None:
        """Keep the conversation for those who read the notebook without a kernel."""
        ...


class PanelView:
    """What is on a screen at the moment; an update carries what has changed, and never the whole history."""

    def __init__(self, screen: Screen, snapshot: Snapshot) -> None:
        """Show the newest turns of a conversation."""
        self.screen = screen
        self.pages = Pages(snapshot)
        self._growth = ""
        self._next_update_at = 0.0
        self._problems = 0
        self.show_turns(None)

    def turn_to(self, snapshot: Snapshot, answer: AnswerThread | None) -> None:
        """Show what a conversation holds now, and the answer that is under way in it."""
        self.pages.turn_to(snapshot)
        self.show_turns(answer)

    def show_turns(self, answer: AnswerThread | None) -> None:
        """Show the newest turns."""
        state = self.pages.snapshot.state
        self.screen.show(
            conversation_id=state.conversation_id,
            title=title_of(state.conversation_id, state.metadata),
            growing=None if answer is None else _growing(answer, answer.text),
            busy=answer is not None,
            status="" if answer is None else answer.waiting or ANSWERING,
            **self.pages.newest(),
        )

    def show_surroundings(self, conversation: Conversation, *, search: str, model: str | None) -> None:
        """Show what takes longer to find out than what was said: the list, the size of the context, the budgets."""
        self.screen.keep(self.pages.snapshot)
        self.screen.show(
            conversations=conversation_list.listed(conversation, search), footer=footer_of(conversation, model=model)
        )

    def begin(self, answer: AnswerThread) -> None:
        """Show a question that is being asked."""
        self._growth = ""
        self.screen.show(growing=_growing(answer, ""), busy=True, status=ANSWERING, problem={})

    def grow(self, answer: AnswerThread) -> None:
        """Show how far an answer has come, unless that was shown just now."""
        begun = time.monotonic()
        if begun < self._next_update_at:
            return
        text = answer.text
        changes: dict[str, object] = {"status": answer.waiting or ANSWERING, "busy": True}
        if text != self._growth:
            self._growth = text
            changes["growing"] = _growing(answer, text)
        self.screen.show(**changes)
        ended = time.monotonic()
        self._next_update_at = ended + max(UPDATE_EVERY_S, IDLE_PER_UPDATE * (ended - begun))

    def fail(self, error: Exception, *, unsent: str = "", view: str = "") -> None:
        """Show an error; ``unsent`` goes back to the page where it was typed."""
        self._problems += 1
        told = str(error) if isinstance(error, PromptKitError) else f"{type(error).__name__}: {error}"
        response = getattr(error, "response", None)
        partial = getattr(error, "partial", "") or ("" if response is None else response.content)
        problem = {"text": one_line(told), "unsent": unsent, "view": view, "n": self._problems}
        problem["partial"] = to_html(partial) if partial else ""
        self.screen.show(problem=problem)


def _growing(answer: AnswerThread, text: str) -> dict[str, object]:
    """Return an answer under way as the page takes it; the page shows the question as the text that it is."""
    return {"question": printable(answer.question), "html": to_html(text) if text else "", **answer.place}
