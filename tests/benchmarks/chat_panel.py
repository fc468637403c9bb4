"""The cost of opening a panel and of an update while an answer streams, with 2,000 turns relative to 20."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb import Conversation, ConversationManager, ConversationState, DemoProvider, MemoryStore, Message, Turn
from promptkit_nb.panel.threads import AnswerThread
from promptkit_nb.panel.view import PanelView
from ratio import Ratio, medians_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.chat.stream import ResponseStream

ROUNDS = 15
ANSWER = "An **answer** with `code`:\n\n```python\nprint({number})\n```\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"


class BlankScreen:
    """A screen that shows nothing."""

    def show(self, **changes: object) -> None:
        """Ignore the change."""

    def notify(self, message: Mapping[str, object]) -> None:
        """Ignore the message."""

    def save_transcript(self, snapshot: Snapshot) -> None:
        """Save nothing."""


class UnfinishedAnswer(AnswerThread):
    """An answer that does not grow."""

    text = "The **answer** so far."
    waiting = ""

    def __init__(self) -> None:
        """Send nothing."""
        super().__init__(
            _send_nothing,
            lambda _: None,
            conversation_id="20",
            question="And now?",
            unsent="",
            replaces={},
            page="",
        )


def _send_nothing(_: object) -> ResponseStream:
    raise AssertionError("this answer is never started")


def measure() -> list[Ratio]:
    """Return the ratios of opening and of an update."""
    manager = ConversationManager(DemoProvider(), MemoryStore())
    short, long = (conversation_of(manager, turns) for turns in (20, 2000))
    short_ms, long_ms = medians_ms(ROUNDS, lambda: _opened(short), lambda: _opened(long))
    short_update_ms, long_update_ms = medians_ms(ROUNDS * 10, _update(_opened(short)), _update(_opened(long)))
    return [
        Ratio("open a panel of 2,000 turns / of 20", long_ms, short_ms, 3),
        Ratio("show an update with 2,000 turns / with 20", long_update_ms, short_update_ms, 1.5),
    ]


def conversation_of(manager: ConversationManager, turns: int) -> Conversation:
    """Store this many turns and return their conversation."""
    stored = (
        Turn(messages=(Message("user", f"question {number}"), Message("assistant", ANSWER.format(number=number))))
        for number in range(turns)
    )
    manager.store.create(ConversationState(f"{turns}", turns=tuple(stored)))
    return manager.get_conversation(f"{turns}")


def _opened(conversation: Conversation) -> PanelView:
    return PanelView(BlankScreen(), conversation.snapshot())


def _update(view: PanelView) -> Callable[[], object]:
    answer = UnfinishedAnswer()

    def update() -> None:
        view.show_question(answer)
        view._next_update_at = 0.0
        view.show_progress(answer)

    return update
