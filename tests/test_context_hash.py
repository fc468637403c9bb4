"""Hashes of contexts and requests: pinned because they are stored for years, and sensitive to the right fields."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb.context_hash import chain_of, context_hash_of, replay_key_of
from promptkit_nb.turns import ContentPart, Message, ToolCall, Turn, Usage

TURN = Turn(messages=(Message("user", "My name is Alice"), Message("assistant", "Hello Alice! 🙂")))
REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "parameters": {"temperature": 0.5, "stop": ["x"]},
    "max_output_tokens": 100,
    "tools": ({"type": "function", "function": {"name": "f"}},),
    "max_tokens": 4000,
    "context_policy": "truncate",
}
TURNS = st.lists(
    st.builds(
        lambda said, answer: Turn(messages=(Message("user", said), Message("assistant", answer))),
        *[st.text(max_size=5)] * 2,
    ),
    max_size=4,
)


def test_hashes_never_change() -> None:
    """Another hash would make every stored turn stale, and every replay would be paid again."""
    chain = chain_of([TURN, TURN])
    context = context_hash_of("You help.", chain)
    assert chain == "e0ad5247ea5053743d78fbceb055b6f241622c148e304cba512996f025fc1998"
    assert context == "e0ca7ec57eaabc7aa2b85515c8b0bc942d1618230dafe1cda2911846ba46d1bb"
    assert (
        replay_key_of(context, Message("user", "What's my name?"), **REQUEST)
        == "3a95f43f9212303fdf92b69f55715be4c9b5ce60b29535064a056a7e413c0473"
    )


@given(TURNS, TURNS)
def test_chain_continues_from_a_hash(one: list[Turn], other: list[Turn]) -> None:
    """The hash of all turns equals the hash of the later turns that starts with the hash of the earlier ones."""
    assert chain_of([*one, *other]) == chain_of(other, chain_of(one))


@given(TURNS, TURNS)
def test_chain_differs_exactly_if_the_messages_differ(one: list[Turn], other: list[Turn]) -> None:
    """Two histories have the same hash only if their messages are the same, turn by turn."""
    same = [turn.messages for turn in one] == [turn.messages for turn in other]
    assert (chain_of(one) == chain_of(other)) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": Usage(1, 1)},
        {"cost": Decimal(1)},
        {"model": "other"},
        {"id": "other"},
        {"latency_ms": 1.0},
        {"created_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"cell_id": "c"},
        {"replayed": True},
        {"messages": tuple(replace(message, timestamp=datetime(2020, 1, 1, tzinfo=UTC)) for message in TURN.messages)},
        {"messages": tuple(replace(message, reasoning="Hm.") for message in TURN.messages)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_metadata_does_not_count(changes: dict[str, Any]) -> None:
    """Time, author, cost and reasoning do not matter."""
    assert chain_of([replace(TURN, **changes)]) == chain_of([TURN])


@pytest.mark.parametrize(
    "message",
    [
        Message("assistant", "My name is Alice"),
        Message("user", "My name is Alice "),
        Message("user", "My name is Alice", name="x"),
        Message("user", "My name is Alice", tool_call_id="x"),
        Message("user", "My name is Alice", parts=(ContentPart("text", "x"),)),
        Message("user", "My name is Alice", tool_calls=(ToolCall("1", "f"),)),
    ],
)
def test_every_field_of_a_message_counts(message: Message) -> None:
    """Role, text, parts, tool calls and names."""
    assert chain_of([replace(TURN, messages=(message, TURN.messages[1]))]) != chain_of([TURN])


def test_system_prompt_counts_and_none_is_not_empty() -> None:
    """Three contexts before the first turn."""
    assert len({context_hash_of(prompt, chain_of([])) for prompt in (None, "", "You help.")}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-4o"},
        {"parameters": {}},
        {"parameters": {"temperature": 0.6, "stop": ["x"]}},
        {"max_output_tokens": None},
        {"tools": ()},
        {"max_tokens": None},
        {"context_policy": "error"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_part_of_a_request_counts(changes: dict[str, Any]) -> None:
    """Another model, parameter, tool or window makes another request."""
    message = Message("user", "hi")
    assert replay_key_of("c", message, **REQUEST) != replay_key_of("c", message, **{**REQUEST, **changes})


def test_order_of_parameters_does_not_count() -> None:
    """They are a mapping."""
    message = Message("user", "hi")
    turned = {**REQUEST, "parameters": {"stop": ["x"], "temperature": 0.5}}
    assert replay_key_of("c", message, **REQUEST) == replay_key_of("c", message, **turned)
    assert replay_key_of("d", message, **REQUEST) != replay_key_of("c", message, **REQUEST)
    assert replay_key_of("c", Message("user", "ho"), **REQUEST) != replay_key_of("c", message, **REQUEST)
