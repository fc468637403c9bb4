"""A turn as a provider answers it, for benchmarks of stores and views."""

from __future__ import annotations

from decimal import Decimal

from promptkit_nb.turns import Message, Turn, Usage


def typical_turn(number: int = 0) -> Turn:
    """Return a turn of two messages with all fields that a provider sets: 1.2 kB of JSON."""
    return Turn(
        messages=(Message("user", f"Question {number:05}? " * 25), Message("assistant", f"Answer {number:05}. " * 34)),
        usage=Usage(150, 130),
        cost=Decimal("0.0001005"),
        model="gpt-4o-mini",
        provider="openai",
        latency_ms=512.25,
        finish_reason="stop",
    )
