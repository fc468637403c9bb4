"""Random sequences of operations: no answer is lost, no cost is forgotten, and staleness is exact."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptkit_nb import ConversationManager, ProviderUnavailableError, Usage
from promptkit_nb.chat.options import Target
from promptkit_nb.pricing import CallCost
from promptkit_nb.providers.base import Completion, TextDelta

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb import Conversation, Response, StateStore, Turn
    from promptkit_nb.providers.base import ChatRequest, StreamEvent

COST = Decimal("0.001")
VERBS = (
    ["send"] * 4
    + ["replay", "rerun", "rerun", "rerun as", "edit", "truncate", "clear", "restore branch", "restore version"]
    + ["restore version", "fork", "leave", "fail", "reopen"]
)

Said = tuple[str, str]  # the user's message and the model's answer


class NeverTheSame:
    """Answers with different words each time, at a fixed price, unless told to fail."""

    name = "never-the-same"
    model = "any"
    calls = 0
    fails = False

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Answer in two pieces, or break off after the first."""
        self.calls += 1
        yield TextDelta(f"answer {self.calls}")
        if self.fails:
            raise ProviderUnavailableError("The connection broke off.", partial="answer")
        yield TextDelta(".")
        yield Completion(model=request.model, finish_reason="stop", usage=Usage(10, 5))

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:  # noqa: ARG002 - it is fixed
        """Return the fixed price."""
        return CallCost(COST, "yours")


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 9)), min_size=4, max_size=20))
def test_any_order(store: StateStore, steps: list[tuple[str, int]]) -> None:
    """After each step on each store; see the checks of ``_Run``."""
    run = _Run(store)
    for verb, number in steps:
        run.step(verb, number)
        run.check_nothing_is_lost()
        run.check_totals()
        run.check_staleness()
    run.check_replays()


class _Run:
    """One conversation and its invariants."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.provider = NeverTheSame()
        self.manager = ConversationManager(self.provider, store)
        self.conv: Conversation = self.manager.new_conversation(system_prompt="You help.", conversation_id=f"{uuid4()}")
        self.current: list[Said] = []
        self.answers: set[str] = set()
        self.contexts: dict[str, list[Said]] = {}
        self.paid = 0
        self.has_truncated = False

    def step(self, verb: str, number: int) -> None:
        """Run one operation; skip it if it is impossible at the moment."""
        conv, text = self.conv, "abc"[number % 3]
        at = number % len(self.current) if self.current else 0
        if verb == "send":
            self.answered(conv.send(text), len(self.current), len(self.current))
        elif verb == "replay":
            self.answered(conv.send(text, replay="auto"), len(self.current), len(self.current))
        elif verb == "rerun" and self.current:
            self.answered(conv.rerun(at), at, at + 1)
        elif verb == "rerun as" and self.current:
            self.answered(conv.rerun(at, text, replay="auto"), at, at + 1)
        elif verb == "edit" and self.current:
            self.answered(conv.edit(at, text), at, len(self.current))
        elif verb == "leave":
            self.leave(text, at)
        elif verb == "truncate":
            kept = min(-(-number // 2), len(self.current))
            left = len(self.current) - kept
            assert conv.truncate(number) == left
            del self.current[:left]
            self.has_truncated |= left > 0
        elif verb == "clear":
            assert conv.clear() == len(self.current)
            self.current = []
        else:
            self.step_on_branches(verb, number, text)
        assert [_said(turn) for turn in self.conv.turns] == self.current

    def step_on_branches(self, verb: str, number: int, text: str) -> None:
        """Run an operation on branches and versions, or one that changes nothing here."""
        conv = self.conv
        branches = conv.branches()
        previous = [turn for place in range(len(self.current)) for turn in conv.versions(place)]
        if verb == "restore branch" and branches:
            branch = branches[number % len(branches)]
            conv.restore(branch)
            assert {turn.id for turn in branch.turns} <= {turn.id for turn in conv.turns}
            assert branch.id not in {each.id for each in conv.branches()}
            self.current = [_said(turn) for turn in conv.turns]
        elif verb == "restore version" and previous:
            chosen = previous[number % len(previous)]
            place = conv._stored.refresh().position_of(chosen)
            conv.restore(chosen)
            self.current[place] = _said(chosen)
        elif verb == "fork":
            self.conv = conv.fork(f"{uuid4()}")
            self.paid = 0
        elif verb == "fail":
            before = self.store.get(conv.id)
            self.provider.fails = True
            with pytest.raises(ProviderUnavailableError):
                conv.edit(number % len(self.current), text) if self.current else conv.send(text)
            self.provider.fails = False
            assert self.store.get(conv.id) == before
        elif verb == "reopen":
            self.conv = self.manager.get_conversation(conv.id)

    def leave(self, text: str, at: int) -> None:
        """Leave a stream after its first piece: at the end, or in place of a turn."""
        own = self.conv.turns[at] if at else None
        stream = self.conv.stream(text, target=Target(in_place_of=own))
        for _ in stream:
            break
        assert stream.response is not None
        assert stream.response.finish_reason == "interrupted"
        start = at if own else len(self.current)
        self.answered(stream.response, start, start + 1)

    def answered(self, response: Response, start: int, stop: int) -> None:
        """Record an answer that replaces the turns of a range."""
        turn = response.turn
        self.contexts[turn.id] = self.current[:start]
        self.current[start:stop] = [_said(turn)]
        self.answers.add(turn.text)
        self.paid += not response.replayed

    def check_nothing_is_lost(self) -> None:
        """Every answer is in turns, versions or branches, also for another handle."""
        state = self.store.get(self.conv.id)
        assert self.answers == {turn.text for turn in state.stored_turns}
        assert len({turn.id for turn in state.stored_turns}) == len(list(state.stored_turns))
        other = self.manager.get_conversation(self.conv.id)
        assert (other.turns, other.branches()) == (self.conv.turns, self.conv.branches())
        assert other.stale_turns == self.conv.stale_turns

    def check_totals(self) -> None:
        """The total counts each paid answer once, whether read from the head or added up."""
        head, state = self.store.head(self.conv.id), self.store.get(self.conv.id)
        assert (head.total_cost, head.unpriced_turns) == (self.paid * COST, 0)
        assert (head.token_count, head.total_cost) == (state.token_count, state.total_cost)
        assert head.turn_count == len(self.current)

    def check_staleness(self) -> None:
        """A turn is stale if its context changed since it was answered.

        Removed turns at the beginning still count as context, so this is checked only without them.
        """
        if not self.has_truncated:
            expected = [turn for at, turn in enumerate(self.conv.turns) if self.contexts[turn.id] != self.current[:at]]
            assert list(self.conv.stale_turns) == expected

    def check_replays(self) -> None:
        """Each whole turn that is not stale is replayed in its place, and nothing is sent or written."""
        stale = set(self.conv.stale_turns)
        calls, revision = self.provider.calls, self.store.head(self.conv.id).revision
        for place, turn in enumerate(self.conv.turns):
            if turn not in stale and turn.finish_reason != "interrupted":
                assert self.conv.rerun(place, replay="strict").turn == turn
        assert (self.provider.calls, self.store.head(self.conv.id).revision) == (calls, revision)


def _said(turn: Turn) -> Said:
    return turn.user_text, turn.text
