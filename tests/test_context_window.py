"""What a request contains: invariants of the context window, and which summaries replace which turns."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from promptkit_nb.chat.summaries import AppliedSummary, find_applied_summaries, plan_summary
from promptkit_nb.chat.token_estimates import TokenEstimator
from promptkit_nb.chat.window import Window, fit, plan_to_fit
from promptkit_nb.context_hash import context_hashes_of
from promptkit_nb.errors import ContextWindowExceededError
from promptkit_nb.state import Branch, ConversationState, Summary
from promptkit_nb.tokens import count_message_tokens
from promptkit_nb.turns import Message, ToolCall, Turn

START = datetime(2026, 11, 1, tzinfo=UTC)
LATER = START + timedelta(days=1)
EXACT = TokenEstimator.of("gpt-4o")
HI = Message("user", "Hi")


def turn(number: int, words: int = 10) -> Turn:
    """Return a turn of this many words, half in the question and half in the answer; it has 8 tokens more."""
    said = (" word" * (words // 2), " word" * (words - words // 2))
    return Turn(
        id=f"t{number:03}",
        messages=(Message("user", said[0]), Message("assistant", said[1])),
        created_at=START + timedelta(minutes=number),
    )


def turns(count: int) -> tuple[Turn, ...]:
    """Return turns of ten words, 18 tokens each."""
    return tuple(turn(number) for number in range(count))


def summary(first: int, last: int, text: str = "Alice.", *, at: datetime = LATER) -> Summary:
    """Return a summary of the turns with these numbers."""
    return Summary(f"t{first:03}", f"t{last:03}", text, created_at=at)


def applied_summaries(state: ConversationState, before: int | None = None) -> list[tuple[int, int]]:
    """Return the positions covered by a summary in use."""
    return [(applied.start, applied.stop) for applied in find_applied_summaries(state, before)]


def state(count: int, *summaries: Summary) -> ConversationState:
    """Return a conversation with this many turns."""
    return ConversationState("c", turns=turns(count), summaries=summaries)


class TestFit:
    """Choosing turns by size."""

    def test_without_a_limit_everything_is_sent_and_nothing_counted(self) -> None:
        """System prompt, all turns, question; no token counts."""
        window = fit("You help.", turns(3), [], HI, estimator=EXACT)
        said = [message for each in turns(3) for message in each.messages]
        assert window.messages == (Message("system", "You help."), *said, HI)
        assert (window.token_count, window.counted_tokens, window.left_out) == (None, None, ())

    def test_newest_whole_turns_are_sent(self) -> None:
        """A system prompt of 7, a question of 5 and a reply of 3 tokens leave room for two turns of 18 in 51 tokens."""
        window = fit("You help.", turns(5), [], HI, estimator=EXACT, max_tokens=51)
        assert [each.id for each in window.turns] == ["t003", "t004"]
        assert [each.id for each in window.left_out] == ["t000", "t001", "t002"]
        assert window.token_count == window.counted_tokens == count_message_tokens(window.messages, "gpt-4o") == 51

    def test_one_token_less_is_one_turn_less(self) -> None:
        """The limit holds for everything, to the token."""
        window = fit("You help.", turns(5), [], HI, estimator=EXACT, max_tokens=50)
        assert ([each.id for each in window.turns], window.token_count) == (["t004"], 33)

    def test_turns_are_a_suffix(self) -> None:
        """After a turn that is too long, older turns are left out, too, however short."""
        window = fit(None, [turn(0), turn(1, words=500), turn(2)], [], HI, estimator=EXACT, max_tokens=100)
        assert [each.id for each in window.turns] == ["t002"]

    def test_counting_stops_at_the_limit(self) -> None:
        """Turns that do not fit are not examined: an old turn that cannot be counted does no harm."""
        unreadable = replace(turn(0), messages=None)  # type: ignore[arg-type]  # on purpose
        window = fit(None, [unreadable, turn(1, words=500), turn(2)], [], HI, estimator=EXACT, max_tokens=100)
        assert [each.id for each in window.turns] == ["t002"]

    def test_tools_count(self) -> None:
        """Their definitions are part of the request."""
        tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
        plain = fit(None, turns(5), [], HI, estimator=EXACT, max_tokens=80)
        with_tools = fit(None, turns(5), [], HI, estimator=EXACT, max_tokens=80, tools=tools)
        assert (len(plain.turns), len(with_tools.turns)) == (4, 2)

    def test_system_prompt_and_question_alone_may_be_too_long(self) -> None:
        """The error has the token counts."""
        with pytest.raises(ContextWindowExceededError) as caught:
            fit("You help.", turns(5), [], HI, estimator=EXACT, max_tokens=14)
        assert str(caught.value) == (
            "System prompt (7 tokens), new message (5) and overhead (3) take 15 tokens, more than "
            "max_tokens=14; nothing was sent. Shorten one of them, or raise max_tokens."
        )
        assert (caught.value.limit_tokens, caught.value.request_tokens) == (14, 15)

    def test_policy_error_raises_if_turns_would_be_left_out(self) -> None:
        """With the total size; requests that fit are sent as usual."""
        assert len(fit(None, turns(2), [], HI, estimator=EXACT, max_tokens=44, policy="error").turns) == 2
        with pytest.raises(
            ContextWindowExceededError, match=r"would take 62 tokens, 54 of them history, .*=44"
        ) as caught:
            fit(None, turns(3), [], HI, estimator=EXACT, max_tokens=44, policy="error")
        assert (caught.value.limit_tokens, caught.value.request_tokens) == (44, 62)

    def test_unknown_tokenizer_does_not_refuse_a_question(self) -> None:
        """History is left out according to its maximum count, but a question that probably fits is sent."""
        question = Message("user", "1234567890 " * 10)
        window = fit(None, turns(5), [], question, estimator=TokenEstimator.of("llama3.2"), max_tokens=90)
        assert (window.turns, window.token_count, window.counted_tokens) == ((), 90, 57)


class TestSummaries:
    """Which summaries are used, and which turns they cover."""

    def test_note_comes_before_the_turns_that_remain(self) -> None:
        """The turns stay; the summary says how many they are. One system message has the prompt and the summary."""
        talk = state(4, summary(0, 2))
        window = fit("You help.", talk.turns, find_applied_summaries(talk), HI, estimator=EXACT)
        system = Message("system", "You help.\n\nSummary of 3 earlier turns of this conversation:\n\nAlice.")
        assert window.messages == (system, *talk.turns[3].messages, HI)
        assert window.left_out == ()

    def test_newer_summary_replaces_the_older(self) -> None:
        """Of two that cover the same turns, the newer is used; disjoint summaries are used together, oldest first."""
        assert applied_summaries(state(9, summary(0, 2), summary(0, 5))) == [(0, 6)]
        assert applied_summaries(state(9, summary(3, 5), summary(0, 2))) == [(0, 3), (3, 6)]

    def test_answering_again_makes_it_outdated(self) -> None:
        """A turn that is newer than the summary is not covered; an older summary is used instead."""
        assert applied_summaries(state(9, summary(0, 5, at=START + timedelta(minutes=4)))) == []
        assert applied_summaries(state(9, summary(0, 1, at=START + timedelta(minutes=2)), summary(0, 5, at=START))) == [
            (0, 2)
        ]

    def test_it_applies_to_later_turns_only(self) -> None:
        """Answering a summarized turn again uses only the turns before it."""
        assert applied_summaries(state(9, summary(0, 5)), before=6) == [(0, 6)]
        assert applied_summaries(state(9, summary(0, 5)), before=5) == []

    def test_hash_takes_precedence_over_timestamps(self) -> None:
        """Turns with later timestamps from another clock are covered if their text is the same."""
        talk = state(9)
        link = [*context_hashes_of(talk.turns)][6]
        made = replace(summary(0, 5, at=START), context_hash=link)
        assert applied_summaries(replace(talk, summaries=(made,))) == [(0, 6)]
        other = replace(turn(3, words=9), created_at=START)
        assert (
            applied_summaries(replace(talk, turns=(*talk.turns[:3], other, *talk.turns[4:]), summaries=(made,))) == []
        )

    def test_turns_in_a_branch_do_not_count_as_removed(self) -> None:
        """Edited turns are in no request, not even in summarized form; once restored, their summary is used again."""
        talk = state(9, summary(0, 5))
        branch = Branch(id="b", turns=talk.turns[3:], start=3, created_at=LATER)
        assert applied_summaries(replace(talk, turns=talk.turns[:3], branches=(branch,))) == []
        replaced = replace(talk, turns=(*talk.turns[:5], turn(99), *talk.turns[6:]), versions={"t099": talk.turns[5:6]})
        assert applied_summaries(replaced) == []

    def test_turns_removed_by_hand_stay_summarized(self) -> None:
        """Their summary comes before the remaining turns, whether it names them by id or by position."""
        dropped = replace(state(9), turns=turns(9)[6:])
        by_id = replace(dropped, summaries=(summary(0, 5),))
        by_position = replace(dropped, summaries=(Summary(0, 5, "Alice."),))
        assert (applied_summaries(by_id), applied_summaries(by_position)) == ([(0, 0)], [(0, 0)])
        first, *rest = fit(None, by_position.turns, find_applied_summaries(by_position), HI, estimator=EXACT).messages
        assert (first.content, len(rest)) == ("Summary of 6 earlier turns of this conversation:\n\nAlice.", 7)
        for made in (summary(0, 5), replace(summary(0, 5), context_hash=[*context_hashes_of(turns(9))][6])):
            assert applied_summaries(replace(dropped, turns=turns(9)[3:], summaries=(made,))) == [(0, 3)]

    def test_positions_count_from_zero(self) -> None:
        """Positions refer to the time of the summary; after turns were removed, they are ambiguous."""
        talk = state(9, Summary(0, 5, "Alice.", created_at=LATER))
        assert applied_summaries(talk) == [(0, 6)]
        branch = Branch(id="b", turns=turns(1), start=0, kind="head", created_at=LATER + timedelta(minutes=1))
        assert applied_summaries(replace(talk, branches=(branch,))) == []
        assert applied_summaries(replace(talk, branches=(replace(branch, created_at=START),))) == [(0, 6)]

    @pytest.mark.parametrize("wrong", [Summary(5, 0, "x"), Summary(-2, 1, "x"), Summary("t005", "t000", "x")])
    def test_invalid_ranges_do_not_apply(self, wrong: Summary) -> None:
        """Reversed ranges, and turns before the first."""
        assert applied_summaries(state(9, wrong)) == []

    def test_summary_takes_precedence_over_older_turns(self) -> None:
        """After the newest turn, the summary takes precedence."""
        talk = state(9, summary(0, 2))
        window = fit(None, talk.turns, find_applied_summaries(talk), HI, estimator=EXACT, max_tokens=50)
        assert (len(window.applied_summaries), [each.id for each in window.turns]) == (1, ["t008"])
        assert [each.id for each in window.left_out] == ["t003", "t004", "t005", "t006", "t007"]

    def test_summary_is_left_out_for_the_newest_turn(self) -> None:
        """Its turns are then left out and counted as such."""
        talk = state(3, summary(0, 1, "long " * 30))
        window = fit(None, talk.turns, find_applied_summaries(talk), HI, estimator=EXACT, max_tokens=40)
        assert (window.applied_summaries, [each.id for each in window.turns]) == ((), ["t002"])
        assert [each.id for each in window.left_out] == ["t000", "t001"]


class TestPlan:
    """What is summarized next."""

    def test_nothing_left_out_needs_no_summary(self) -> None:
        """And without a limit nothing is left out."""
        for max_tokens in (None, 1000):
            window = fit(None, turns(5), [], HI, estimator=EXACT, max_tokens=max_tokens)
            assert plan_to_fit(window, turns(5), [], estimator=EXACT) is None

    def test_newest_half_of_the_room_stays(self) -> None:
        """Of 108 tokens for history three turns of 18 stay, though six would fit."""
        window = fit(None, turns(20), [], HI, estimator=EXACT, max_tokens=116)
        plan = plan_to_fit(window, turns(20), [], estimator=EXACT)
        assert len(window.turns) == 6
        assert plan is not None
        assert (len(plan.turns), plan.first_turn, plan.last_turn, plan.previous) == (17, "t000", "t016", ())

    def test_former_summary_is_folded_in(self) -> None:
        """The new summary covers their turns, too, and only the other turns are read."""
        talk = state(20, summary(0, 9))
        plan = plan_summary(talk.turns, find_applied_summaries(talk), 15)
        assert plan is not None
        assert (plan.first_turn, plan.last_turn, plan.previous) == ("t000", "t014", talk.summaries)
        assert plan.context_hash is UNSET
        assert [each.id for each in plan.turns] == ["t010", "t011", "t012", "t013", "t014"]

    def test_plan_has_the_hash_of_its_turns(self) -> None:
        """In parts, if several requests are needed."""
        talk = state(20, summary(0, 9))
        context_hashes = tuple(context_hashes_of(talk.turns))
        plan = plan_summary(talk.turns, find_applied_summaries(talk), 15, context_hashes)
        assert plan is not None
        first = replace(plan, turns=plan.turns[:2], last_turn="t011")
        assert (first.context_hash, plan.context_hash) == (context_hashes[12], context_hashes[15])
        assert plan.after(2, summary(0, 11)).context_hash == context_hashes[15]

    def test_summarized_turns_need_no_other(self) -> None:
        """Nothing to summarize, nothing to pay."""
        talk = state(20, summary(0, 9))
        assert plan_summary(talk.turns, find_applied_summaries(talk), 10) is None
        assert plan_summary(talk.turns, find_applied_summaries(talk), 5) is None
        assert plan_summary((), (), 0) is None

    def test_new_summary_replaces_the_former(self) -> None:
        """The summary covers the planned turns."""
        talk = state(20, summary(0, 9))
        plan = plan_summary(talk.turns, find_applied_summaries(talk), 15)
        assert plan is not None
        made = Summary(plan.first_turn, plan.last_turn, "Both.", created_at=LATER)
        assert applied_summaries(replace(talk, summaries=(*talk.summaries, made))) == [(0, 15)]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ConversationState, int]:
    """Draw a conversation with tools, summaries and a limit."""
    said = [turn(number, draw(st.integers(2, 60))) for number in range(draw(st.integers(0, 12)))]
    for at, each in enumerate(said):
        if draw(st.booleans()):
            call = Message("assistant", tool_calls=(ToolCall("c", "look", "{}"),))
            result = Message("tool", "a cat", tool_call_id="c")
            said[at] = replace(each, messages=(each.messages[0], call, result, each.messages[1]))
    ranges = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
    made = [summary(first, last, " sum" * (last + 1)) for first, last in draw(st.lists(ranges, max_size=4))]
    state = ConversationState(
        "c", turns=tuple(said), summaries=tuple(made), system_prompt=draw(st.none() | st.just("S"))
    )
    return state, draw(st.integers(1, 400))


@given(conversations(), st.sampled_from(["gpt-4o", "llama3.2"]))
@settings(max_examples=300)
def test_invariants(drawn: tuple[ConversationState, int], model: str) -> None:
    """Always system prompt and question, whole turns in order, within the limit, and every turn is accounted for."""
    state, max_tokens = drawn
    served, estimator = find_applied_summaries(state), TokenEstimator.of(model)
    try:
        window = fit(state.system_prompt, state.turns, served, HI, estimator=estimator, max_tokens=max_tokens)
    except ContextWindowExceededError:
        assert max_tokens < 16
        return
    check_invariants(window, state, max_tokens)
    assert window.counted_tokens == count_message_tokens(window.messages, model)


def check_invariants(window: Window, state: ConversationState, max_tokens: int) -> None:
    """Assert the invariants of every window."""
    assert window.token_count is not None
    assert window.counted_tokens is not None
    assert window.counted_tokens <= window.token_count <= max_tokens
    assert window.messages[-1] == HI
    system = [] if state.system_prompt is None else [state.system_prompt]
    notes = [applied.note.content for applied in window.applied_summaries]
    one = ["\n\n".join([*system, *notes])] if system or notes else []
    assert [each.content for each in window.messages if each.role == "system"] == one
    said = tuple(message for each in window.turns for message in each.messages)
    assert window.messages[len(one) : -1] == said
    covered = {each.id for applied in window.applied_summaries for each in state.turns[applied.start : applied.stop]}
    ordered = [each.id for each in state.turns if each.id not in covered]
    assert [each.id for each in (*window.left_out, *window.turns)] == ordered
    assert len(covered) == sum(applied.stop - applied.start for applied in window.applied_summaries)


def test_note_without_turns_has_no_number() -> None:
    """If its turns are gone and named by id, their number is unknown."""
    assert AppliedSummary(summary(0, 5)).note.content.startswith("Summary of earlier turns of this conversation:")
