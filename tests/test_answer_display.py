"""Displaying a streaming answer must not slow it down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb import ConversationManager, DemoProvider, StoreUnavailableError
from promptkit_nb.notebook.display import NOT_STORED, AnswerDisplay
from promptkit_nb.providers.base import TextDelta

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.chat.stream import ResponseStream


@pytest.mark.parametrize(("showing_s", "times"), [(0.0, 10), (0.025, 8), (0.1, 2), (1.0, 1)])
def test_display_takes_at_most_a_fifth_of_the_time(
    monkeypatch: pytest.MonkeyPatch, showing_s: float, times: int
) -> None:
    """An answer is displayed ten times a second, and less often if displaying it is slow."""
    now = [100.0]
    shown: list[float] = []

    def show(*_: str, **__: object) -> None:
        shown.append(now[0])
        now[0] += showing_s

    display = AnswerDisplay()
    monkeypatch.setattr("promptkit_nb.notebook.display.time", SimpleNamespace(monotonic=lambda: now[0]))
    display._can_update = True
    monkeypatch.setattr(display, "_show", show)
    stream: ResponseStream = ConversationManager(provider=DemoProvider()).new_conversation().stream("Hi")

    while now[0] < 101:
        display._piece("word ", stream)
        now[0] += 1 / 128

    assert len(shown) == times


def test_answer_that_a_bug_in_the_provider_ends_is_shown_as_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error ends the display, not just those of the package."""

    class Broken(DemoProvider):
        def stream(self, request: object) -> Iterator[Any]:
            yield TextDelta("half")
            raise RuntimeError(f"no {type(request).__name__} today")

    shown: list[tuple[str, ...]] = []
    display = AnswerDisplay()
    monkeypatch.setattr(display, "_show", lambda *values, **_: shown.append(values))
    with pytest.raises(RuntimeError, match="no ChatRequest today"):
        display.follow(ConversationManager(provider=Broken()).new_conversation().stream("Hi"), "talk")
    assert shown == [("half", NOT_STORED)]


def test_waiting_line_does_not_outlast_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stores conversations may take seconds to fail."""
    shown: list[tuple[str, ...]] = []
    display = AnswerDisplay()
    display._can_update = True
    conv = ConversationManager(provider=DemoProvider()).new_conversation()

    def show(*values: str, **_: object) -> None:
        shown.append(values)
        display._handle = "a display"

    def fail(*_: object, **__: object) -> None:
        display.waiting(8, "the server is busy")
        raise StoreUnavailableError("The server is gone.")

    monkeypatch.setattr(display, "_show", show)
    monkeypatch.setattr("promptkit_nb.chat.budgets.Spending.open", fail)
    with pytest.raises(StoreUnavailableError):
        display.follow(conv.stream("Hi"), "talk")
    assert shown[-1] == ("", NOT_STORED)
