"""The request for a summary, and how the answer is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from promptkit_nb.chat.summaries import SummaryPlan
from promptkit_nb.chat.summarizer import summary_of, summary_request, transcript
from promptkit_nb.chat.token_estimates import TokenEstimator
from promptkit_nb.errors import ContextWindowExceededError, ProviderError
from promptkit_nb.state import Summary
from promptkit_nb.tokens import count_message_tokens
from promptkit_nb.turns import ContentPart, Message, ToolCall, Turn, Usage

EXACT = TokenEstimator.of("gpt-4o")


def turn(number: int, words: int = 2) -> Turn:
    """Return a turn with a user message of this many words."""
    messages = (Message("user", f"{number}:{' word' * words}"), Message("assistant", "Noted."))
    return Turn(id=f"t{number}", messages=messages)


def plan(*turns: Turn, previous: tuple[Summary, ...] = ()) -> SummaryPlan:
    """Return the plan to summarize these turns."""
    return SummaryPlan(turns, previous, turns[0].id, turns[-1].id)


def test_request_has_lines_with_their_roles() -> None:
    """An instruction, then the transcript; at most 500 tokens, temperature 0.3."""
    request, part = summary_request(plan(turn(1), turn(2)), estimator=EXACT)
    system, user = request.messages
    assert (system.role, user.role) == ("system", "user")
    assert user.content == (
        "[user]: 1: word word\n[assistant]: Noted.\n[user]: 2: word word\n[assistant]: Noted.\n\n"
        "Write a summary of all of this, including the earlier turns."
    )
    assert (request.model, request.max_output_tokens, request.parameters) == ("gpt-4o", 500, {"temperature": 0.3})
    assert part == plan(*part.turns)


def test_former_summaries_come_first() -> None:
    """They are folded in, so that nothing in them is lost."""
    request, _ = summary_request(plan(turn(1), previous=(Summary("a", "b", "She is Alice."),)), estimator=EXACT)
    assert request.messages[1].content.startswith(
        "[summary of earlier turns]: She is Alice.\n[user]: 1: word word\n[assistant]: Noted.\n"
    )


def test_text_of_parts_calls_and_results_is_included() -> None:
    """Everything that the model saw as text; images by their number."""
    picture = ContentPart("image_url", url="data:image/png;base64,AA==")
    said = [
        Message("user", parts=(ContentPart("text", "What is this?"), picture)),
        Message("assistant", tool_calls=(ToolCall("1", "look", '{"at": 1}'),), reasoning="Let me look."),
        Message("tool", "a cat", tool_call_id="1"),
        Message("assistant", "A cat."),
    ]
    assert transcript(said).splitlines() == [
        "[user]: What is this?",
        "(1 image)",
        '[assistant]: (calls look with {"at": 1})',
        "[tool]: a cat",
        "[assistant]: A cat.",
    ]


def test_long_transcripts_are_split() -> None:
    """As many of the oldest turns as fit; the plan ends with the last of them."""
    turns = [turn(number, words=50) for number in range(10)]
    request, part = summary_request(plan(*turns), estimator=EXACT, max_tokens=400)
    assert count_message_tokens(request.messages, "gpt-4o") <= 400
    assert (len(part.turns), part.first_turn, part.last_turn) == (4, "t0", "t3")
    assert "3: word" in request.messages[1].content
    assert "4: word" not in request.messages[1].content


def test_a_turn_that_is_too_long_loses_its_middle() -> None:
    """Its beginning and its end are sent; the summary covers the whole turn."""
    long = Turn(id="t1", messages=(Message("user", f"begin{' word' * 5000}"), Message("assistant", "The end.")))
    request, part = summary_request(plan(long), estimator=EXACT, max_tokens=1000)
    text = request.messages[1].content
    assert text.startswith("[user]: begin word")
    assert "\n[…]\n" in text
    assert "[assistant]: The end.\n" in text
    assert 500 < count_message_tokens(request.messages, "gpt-4o") <= 1000
    assert part == plan(long)


def test_window_without_room_is_an_error() -> None:
    """The instruction alone is too large."""
    with pytest.raises(ContextWindowExceededError, match="max_tokens=50"):
        summary_request(plan(turn(1)), estimator=EXACT, max_tokens=50)


def test_summary_names_the_turns_it_covers() -> None:
    """With its usage, cost, model and time."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    made = summary_of(
        plan(turn(1), turn(2)), " She is Alice.\n", usage=Usage(90, 4), cost=Decimal("0.01"), model="m", created_at=now
    )
    assert made == Summary("t1", "t2", "She is Alice.", Usage(90, 4), Decimal("0.01"), "m", now)


def test_empty_summary_is_an_error() -> None:
    """No turns are replaced by an empty text."""
    with pytest.raises(ProviderError, match="m returned an empty summary"):
        summary_of(plan(turn(1)), " ", usage=Usage(9, 0), cost=None, model="m", created_at=datetime.now(UTC))
