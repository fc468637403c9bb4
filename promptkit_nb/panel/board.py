"""What a panel shows: the turns, the answer under way, errors, and the lines around them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from promptkit_nb.errors import PromptKitError
from promptkit_nb.panel import shelf
from promptkit_nb.panel.footer import footer_of
from promptkit_nb.panel.pages import Pages
from promptkit_nb.panel.transcript import title_of
from promptkit_nb.rendering.markdown import to_html
from promptkit_nb.rendering.plain_text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.asking.snapshot import Snapshot
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.answering import Answering

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


class Board:
    """What is on a screen at the moment; an update carries what has changed, and never the whole history."""

    def __init__(self, screen: Screen, snapshot: Snapshot) -> None:
        """Show the newest turns of a conversation."""
        self.screen = screen
        self.pages = Pages(snapshot)
        self._growth = ""
        self._next_update_at = 0.0
        self._problems = 0
        self.show_turns(None)

    def turn_to(self, snapshot: Snapshot, answer: Answering | None) -> None:
        """Show what a conversation holds now, and the answer that is under way in it."""
        self.pages.turn_to(snapshot)
        self.show_turns(answer)

    def show_turns(self, answer: Answering | None) -> None:
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
        self.screen.show(conversations=shelf.listed(conversation, search), footer=footer_of(conversation, model=model))

    def begin(self, answer: Answering) -> None:
        """Show a question that is being asked."""
        self._growth = ""
        self.screen.show(growing=_growing(answer, ""), busy=True, status=ANSWERING, problem={})

    def grow(self, answer: Answering) -> None:
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


def _growing(answer: Answering, text: str) -> dict[str, object]:
    """Return an answer under way as the page takes it; the page shows the question as the text that it is."""
    return {"question": printable(answer.question), "html": to_html(text) if text else "", **answer.place}
