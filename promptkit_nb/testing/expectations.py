"""Shared by the checks: expectations that report what was found, and turns and states to store."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from promptkit_nb.state import Branch, ConversationState, Head, Settings, Summary
from promptkit_nb.turns import Message, Turn, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


LONG_AGO = datetime(2020, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
PRICE_USD = Decimal("0.001")


def expect(what: str, found: object, expected: object) -> None:
    """Raise ``AssertionError`` unless both are equal."""
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def expect_refusal(kind: type[Exception], what: str, call: Callable[[], object]) -> None:
    """Raise ``AssertionError`` unless the call raises an error of this kind."""
    try:
        found: object = call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected {kind.__name__}, found {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what}: expected {kind.__name__}, found {found!r}")


def said(text: str, *, cost: Decimal | None = PRICE_USD, replayed: bool = False, inherited: bool = False) -> Turn:
    """Return a turn of 10 tokens in which the user said this."""
    messages = (Message("user", text), Message("assistant", f"You said {text}."))
    return Turn(messages=messages, usage=Usage(8, 2), cost=cost, replayed=replayed, inherited=inherited)


def texts(turns: Iterable[Turn]) -> str:
    """Return what the user said in these turns, one after the other."""
    return " ".join(turn.user_text for turn in turns)


def ids(heads: Iterable[Head]) -> list[str]:
    """Return the ids of the heads, in order."""
    return [head.conversation_id for head in heads]


def full_state(conversation_id: str) -> ConversationState:
    """Return a state in which every field is set; 6 turns and a summary were paid for, one without a price."""
    first, second, third = said("one"), said("two", cost=None), said("three", replayed=True, cost=Decimal(0))
    return ConversationState(
        conversation_id,
        "alice",
        turns=(first, second, third),
        system_prompt="You help.",
        summaries=(Summary(first.id, second.id, "They talked.", Usage(5, 1), Decimal("0.002"), "m", LONG_AGO),),
        versions={first.id: (said("zero"), said("half"))},
        branches=(
            Branch(id="before", turns=(said("left"), said("far", inherited=True)), start=1, created_at=LONG_AGO),
        ),
        settings=Settings(
            model="gpt-4o-mini",
            parameters={"temperature": 0.5},
            max_tokens=4000,
            context_policy="error",
            prompt={"name": "assistant"},
            variables={"city": "Bern"},
        ),
        metadata={"topic": "travel", "stars": 5, "tags": ["a", {"b": None}]},
        created_at=LONG_AGO,
        updated_at=LONG_AGO,
        context_hash="c0ffee",
    )


def together(calls: Iterable[Callable[[], object]]) -> list[BaseException]:
    """Run the calls at the same moment, each in its own thread; return the exceptions raised."""
    jobs = list(calls)
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - the check decides what it means
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
