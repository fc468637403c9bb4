"""What of a conversation goes into a request: everything, or the newest whole turns that fit the window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.summaries import SUMMARY_TOKENS, AppliedSummary, plan_summary, uncovered
from promptkit_nb.chat.token_estimates import TokenEstimate
from promptkit_nb.errors import ContextWindowExceededError, InvalidArgumentError
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptkit_nb.chat.summaries import SummaryPlan
    from promptkit_nb.chat.token_estimates import TokenEstimator
    from promptkit_nb.state import ContextPolicy


def turns_until(turns: tuple[Turn, ...], turn_id: str | None) -> tuple[Turn, ...]:
    """Return the turns up to this one, none where it is not among them; all where no id is given."""
    if turn_id is None:
        return turns
    return turns[: next((at for at, turn in enumerate(turns) if turn.id == turn_id), -1) + 1]


def older_turns(turns: tuple[Turn, ...], keep_last: int) -> int:
    """Return how many turns stand before the newest ones, of which as few are kept as have ``keep_last`` messages."""
    messages, older = 0, len(turns)
    while older and messages < keep_last:
        older -= 1
        messages += len(turns[older].messages)
    return older


def newest_turn(turns: tuple[Turn, ...], as_of: str | None) -> tuple[int, int]:
    """Return the range of the newest turn, an empty one where there is none, or where the turn ``as_of`` left."""
    return (max(len(turns) - 1, 0), len(turns)) if turns_until(turns, as_of) else (0, 0)


def check_keep_last(keep_last: object) -> None:
    """Raise ``InvalidArgumentError`` unless it is a whole number from 0."""
    if not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 0:
        raise InvalidArgumentError(f"keep_last={keep_last!r} is out of range: give a whole number from 0, of messages.")


_SHARE_OF_A_SUMMARY = 4
_SHORTEST_SUMMARY_TOKENS = 20  # fewer say nothing
_SHORTEST_QUESTION = Message("user", "?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one request carries.

    ``messages`` is what goes out, in order: system prompt, a note for each of ``applied_summaries``, the messages of
    ``turns``, the question. ``left_out`` are the turns that are neither sent nor covered. ``token_count`` is the most
    that the server will count, and ``counted_tokens`` what was counted here; both are ``None`` without a limit.
    """

    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    left_out: tuple[Turn, ...] = ()
    applied_summaries: tuple[AppliedSummary, ...] = ()
    max_tokens: int | None = None
    token_count: int | None = None
    counted_tokens: int | None = None


def fit(
    system_prompt: str | None,
    turns: Sequence[Turn],
    applied_summaries: Sequence[AppliedSummary],
    question: Message | None,
    *,
    estimator: TokenEstimator,
    max_tokens: int | None = None,
    policy: ContextPolicy = "truncate",
    tools: Sequence[Mapping[str, object]] = (),
) -> Window:
    """Return what the request carries of these turns, some of which ``applied_summaries`` replace.

    Without ``max_tokens`` everything goes, and nothing is counted. With it the newest turns go that fit; counting stops
    there. A summary gives way only where it would keep out the newest turn. Without a question there is room left for
    the shortest one. Raises ``ContextWindowExceededError`` where system prompt and question alone are too much, and
    with the policy "error" where anything would be left out.

    >>> from promptkit_nb.chat.token_estimates import TokenEstimator
    >>> hi = Message("user", "Hi")
    >>> fit("You help.", [], [], hi, estimator=TokenEstimator.of("gpt-4o"), max_tokens=100).token_count
    15
    """
    system = () if system_prompt is None else (Message("system", system_prompt),)
    asked = () if question is None else (question,)
    if max_tokens is None:
        return _window(system, applied_summaries, uncovered(turns, applied_summaries), asked)
    fixed = estimator.of_frame(tools) + estimator.of_messages((*system, *asked))
    if fixed.likely > max_tokens:
        raise _too_much(system, asked, fixed, max_tokens, estimator)
    # Of what was never measured only a bound is known, which is no reason to refuse it.
    size = TokenEstimate(fixed.counted, fixed.likely, min(fixed.expected, max_tokens))
    usable = max_tokens if asked else max_tokens - estimator.of_message(_SHORTEST_QUESTION).expected
    served = _fitting(applied_summaries, turns, usable - size.expected, estimator)
    size += estimator.of_messages(applied.note for applied in served)
    candidates = uncovered(turns, served)
    kept, size = _newest(candidates, size, usable, estimator)
    if policy == "error" and (kept < len(candidates) or len(served) < len(applied_summaries)):
        raise _over_limit(turns, applied_summaries, fixed, max_tokens, estimator)
    split = len(candidates) - kept
    return _window(
        system,
        served,
        candidates[split:],
        asked,
        left_out=candidates[:split],
        max_tokens=max_tokens,
        size=size,
    )


def plan_to_fit(
    window: Window,
    turns: Sequence[Turn],
    applied_summaries: Sequence[AppliedSummary],
    *,
    estimator: TokenEstimator,
    context_hashes: Sequence[str] = (),
) -> SummaryPlan | None:
    """Return how to summarise what the window left out; ``turns`` and ``applied_summaries`` are those given to it.

    ``context_hashes`` are as in ``plan_summary``.

    So that this is not due again with the next turn, only the newest turns that fit into half of the room stay as they
    are, and the summary gets a quarter. ``None`` where nothing was left out, or where a summary has no room.
    """
    if not window.left_out or window.max_tokens is None or window.token_count is None:
        return None
    # Two that have no room may have some as one; of one that has none, another would not be shorter.
    if len(applied_summaries) == 1 and not window.applied_summaries:
        return None
    taken = sum((estimator.of_turn(turn) for turn in window.turns), TokenEstimate())
    notes = estimator.of_messages(applied.note for applied in window.applied_summaries)
    room = window.max_tokens - (window.token_count - taken.expected - notes.expected)
    most = min(SUMMARY_TOKENS, room // _SHARE_OF_A_SUMMARY)
    if most < _SHORTEST_SUMMARY_TOKENS:
        return None
    kept, _ = _newest(window.turns, TokenEstimate(), room // 2, estimator)
    plan = plan_summary(turns, applied_summaries, len(turns) - kept, context_hashes)
    return None if plan is None else replace(plan, max_tokens=most)


def _newest(
    turns: Sequence[Turn], size: TokenEstimate, max_tokens: int, estimator: TokenEstimator
) -> tuple[int, TokenEstimate]:
    """Return how many of the newest turns fit, and the size with them."""
    for kept, turn in enumerate(reversed(turns)):
        larger = size + estimator.of_turn(turn)
        if larger.expected > max_tokens:
            return kept, size
        size = larger
    return len(turns), size


def _fitting(
    applied_summaries: Sequence[AppliedSummary], turns: Sequence[Turn], room: int, estimator: TokenEstimator
) -> tuple[AppliedSummary, ...]:
    """Return the summaries without the oldest ones, if need be, so that they and the newest turn have room."""
    for dropped in range(len(applied_summaries)):
        rest = tuple(applied_summaries[dropped:])
        left = uncovered(turns, rest)
        newest = estimator.of_turn(left[-1]).expected if left else 0
        notes = estimator.of_messages(applied.note for applied in rest).expected
        if notes + (newest if newest <= room else 0) <= room:
            return rest
    return ()


def _window(
    system: tuple[Message, ...],
    applied_summaries: Sequence[AppliedSummary],
    turns: tuple[Turn, ...],
    asked: tuple[Message, ...],
    *,
    left_out: tuple[Turn, ...] = (),
    max_tokens: int | None = None,
    size: TokenEstimate | None = None,
) -> Window:
    notes = tuple(applied.note for applied in applied_summaries)
    said = (message for turn in turns for message in turn.messages)
    return Window(
        messages=(*system, *notes, *said, *asked),
        turns=turns,
        left_out=left_out,
        applied_summaries=tuple(applied_summaries),
        max_tokens=max_tokens,
        token_count=None if size is None else size.expected,
        counted_tokens=None if size is None else size.counted,
    )


def _too_much(
    system: tuple[Message, ...],
    asked: tuple[Message, ...],
    fixed: TokenEstimate,
    max_tokens: int,
    estimator: TokenEstimator,
) -> ContextWindowExceededError:
    prompt, message = (estimator.of_messages(part).likely for part in (system, asked))
    total = fixed.likely
    rest = total - prompt - message
    return ContextWindowExceededError(
        f"System prompt ({prompt:,} tokens), new message ({message:,}) and what frames them ({rest:,}) are {total:,} "
        f"tokens, more than max_tokens={max_tokens}; nothing was sent. Shorten one of them, or raise max_tokens.",
        limit_tokens=max_tokens,
        request_tokens=total,
    )


def _over_limit(
    turns: Sequence[Turn],
    applied_summaries: Sequence[AppliedSummary],
    fixed: TokenEstimate,
    max_tokens: int,
    estimator: TokenEstimator,
) -> ContextWindowExceededError:
    left = uncovered(turns, applied_summaries)
    history = sum((estimator.of_turn(turn).expected for turn in left), 0)
    history += estimator.of_messages(applied.note for applied in applied_summaries).expected
    total = fixed.expected + history
    return ContextWindowExceededError(
        f"The request would be {total:,} tokens, {history:,} of them history, more than max_tokens={max_tokens}; "
        "nothing was sent. Raise max_tokens, or shorten the conversation with truncate() or summarize().",
        limit_tokens=max_tokens,
        request_tokens=total,
    )
