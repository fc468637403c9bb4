"""Which messages go into a request: all of them, or the newest whole turns that fit into the window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.summaries import (
    SUMMARY_TOKENS,
    AppliedSummary,
    SummaryPlan,
    find_applied_summaries,
    plan_summary,
    uncovered,
)
from promptkit_nb.chat.token_estimates import TokenEstimate, TokenEstimator
from promptkit_nb.errors import ContextWindowExceededError, InvalidArgumentError
from promptkit_nb.frontend import typed, typed_value
from promptkit_nb.plain import plain
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptkit_nb.chat.request import RequestSettings
    from promptkit_nb.state import ContextPolicy, ConversationState


def turns_until(turns: tuple[Turn, ...], turn_id: str | None) -> tuple[Turn, ...]:
    """Return the turns up to and including this one, none if it is missing; all of them without an id."""
    if turn_id is None:
        return turns
    return turns[: next((at for at in range(len(turns), 0, -1) if turns[at - 1].id == turn_id), 0)]


def older_turns(turns: tuple[Turn, ...], keep_last: int) -> int:
    """Return how many turns to remove so that as few of the newest as possible keep ``keep_last`` messages."""
    messages, older = 0, len(turns)
    while older and messages < keep_last:
        older -= 1
        messages += len(turns[older].messages)
    return older


def newest_turn(turns: tuple[Turn, ...], as_of: str | None) -> tuple[int, int]:
    """Return the range of the newest turn; an empty range if there is none, or if the turn ``as_of`` was removed."""
    return (max(len(turns) - 1, 0), len(turns)) if turns_until(turns, as_of) else (0, 0)


def check_keep_last(keep_last: object) -> None:
    """Raise ``InvalidArgumentError`` unless it is a whole number from 0."""
    count = plain(keep_last)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InvalidArgumentError(f"keep_last={keep_last!r} is out of range: give a number of messages, from 0.")


_SUMMARY_SHARE = 4
_MIN_SUMMARY_TOKENS = 20  # a shorter one says nothing
_SHORTEST_QUESTION = Message("user", "?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The messages of one request, and where they come from.

    ``messages`` are in the order in which they are sent: one system message with the prompt and a note for each of
    ``applied_summaries``, the messages of ``turns``, the question. ``left_out`` holds turns that are neither sent nor
    summarized. Turns that servers refuse, such as those without text, are in neither list. ``token_count`` is the most
    that the server will count, ``counted_tokens`` our own count; both are ``None`` without a limit.
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
    """Return what a request with these turns contains; ``applied_summaries`` replace some of them.

    Without ``max_tokens`` everything is sent, and nothing is counted. Otherwise, the newest turns that fit are sent;
    older ones are not counted. A summary is left out only if the newest turn would not fit otherwise. Without a
    question, room for the shortest one is kept. Raises ``ContextWindowExceededError`` if system prompt and question
    alone do not fit, and with the policy "error" if anything would be left out.

    >>> from promptkit_nb.chat.token_estimates import TokenEstimator
    >>> hi = Message("user", "Hi")
    >>> fit("You help.", [], [], hi, estimator=TokenEstimator.of("gpt-4o"), max_tokens=100).token_count
    15
    """
    asked = () if question is None else (question,)
    if max_tokens is None:
        sent = uncovered(turns, applied_summaries) if applied_summaries else turns
        return _window(system_prompt, applied_summaries, sent, asked)
    frame = estimator.of_frame(tools) + estimator.of_messages(asked)
    system = _system_message(system_prompt, ())
    fixed = frame + estimator.of_messages(system)
    if fixed.likely > max_tokens:
        raise _prompt_too_long(system, asked, fixed, max_tokens, estimator)
    usable = max_tokens if asked else max_tokens - estimator.of_message(_SHORTEST_QUESTION).expected
    summaries, size = _fitting(applied_summaries, turns, system_prompt, usable=usable, frame=frame, estimator=estimator)
    if not summaries:  # the request probably fits, so do not refuse it because of the upper bound
        size = TokenEstimate(fixed.counted, fixed.likely, min(fixed.expected, max_tokens))
    candidates = uncovered(turns, summaries)
    kept, size = _newest(candidates, size, usable, estimator)
    if policy == "error" and (kept < len(candidates) or len(summaries) < len(applied_summaries)):
        raise _history_too_long(turns, applied_summaries, fixed, max_tokens, estimator)
    split = len(candidates) - kept
    return _window(
        system_prompt,
        summaries,
        candidates[split:],
        asked,
        left_out=candidates[:split],
        max_tokens=max_tokens,
        size=size,
    )


def window_of(
    state: ConversationState,
    turns: Sequence[Turn],
    question: Message | None,
    settings: RequestSettings,
    *,
    estimator: TokenEstimator,
    context_hashes: Sequence[str],
) -> Window:
    """Return what a request carries after these first turns of a conversation, with its summaries.

    ``context_hashes`` are those of ``context_hashes_of`` for the turns.
    """
    return fit(
        settings.system_prompt,
        turns,
        find_applied_summaries(state, len(turns), context_hashes) if state.summaries else (),
        question,
        estimator=estimator,
        max_tokens=settings.max_tokens,
        policy=settings.context_policy,
        tools=settings.tools,
    )


def plan_to_fit(
    window: Window,
    turns: Sequence[Turn],
    applied_summaries: Sequence[AppliedSummary],
    *,
    estimator: TokenEstimator,
    context_hashes: Sequence[str] = (),
) -> SummaryPlan | None:
    """Return the plan to summarize the turns that the window left out; the first arguments are those of the window.

    ``context_hashes`` are as in ``plan_summary``.

    Only the newest turns that fit into half of the room are kept, and the summary gets a quarter, so that the next turn
    does not need another summary. Returns ``None`` if nothing was left out, or if a summary has no room.
    """
    if not window.left_out or window.max_tokens is None or window.token_count is None:
        return None
    # Two summaries without room may fit as one; a single one would not get shorter.
    if len(applied_summaries) == 1 and not window.applied_summaries:
        return None
    taken = sum((estimator.of_messages(sent_messages(turn)) for turn in window.turns), TokenEstimate())
    notes = estimator.of_messages(applied.note for applied in window.applied_summaries)
    room = window.max_tokens - (window.token_count - taken.expected - notes.expected)
    most = min(SUMMARY_TOKENS, room // _SUMMARY_SHARE)
    if most < _MIN_SUMMARY_TOKENS:
        return None
    kept, _ = _newest(window.turns, TokenEstimate(), room // 2, estimator)
    plan = plan_summary(turns, applied_summaries, len(turns) - kept, context_hashes)
    return None if plan is None else replace(plan, max_tokens=most)


def _newest(
    turns: Sequence[Turn], size: TokenEstimate, max_tokens: int, estimator: TokenEstimator
) -> tuple[int, TokenEstimate]:
    """Return how many of the newest turns fit, and the estimate including them."""
    for kept, turn in enumerate(reversed(turns)):
        larger = size + estimator.of_messages(sent_messages(turn))
        if larger.expected > max_tokens:
            return kept, size
        size = larger
    return len(turns), size


def _fitting(
    applied_summaries: Sequence[AppliedSummary],
    turns: Sequence[Turn],
    system_prompt: str | None,
    *,
    usable: int,
    frame: TokenEstimate,
    estimator: TokenEstimator,
) -> tuple[tuple[AppliedSummary, ...], TokenEstimate]:
    """Return the summaries that fit together with the newest turn, dropping the oldest if necessary, and the size."""
    without = frame + estimator.of_messages(_system_message(system_prompt, ()))
    for dropped in range(len(applied_summaries)):
        rest = tuple(applied_summaries[dropped:])
        size = frame + estimator.of_messages(_system_message(system_prompt, rest))
        left = uncovered(turns, rest)
        newest = estimator.of_messages(sent_messages(left[-1])).expected if left else 0
        if size.expected + (newest if without.expected + newest <= usable else 0) <= usable:
            return rest, size
    return (), without


def sent_messages(turn: Turn) -> tuple[Message, ...]:
    """Return the messages of a turn that a request carries: a question, any answered tool calls, and an answer.

    Messages that some servers refuse are left out, because they would block the conversation for good: empty messages,
    tool calls without a result or an answer to it, results without a call. Consecutive messages of the same side are
    joined. A turn without a question or an answer is left out entirely.

    >>> sent_messages(Turn(messages=(Message("user", "Hi"), Message("assistant", " "))))
    ()
    """
    if len(turn.messages) == 2:  # noqa: PLR2004 - the usual turn
        asked, answer = turn.messages
        if asked.role == "user" and answer.role == "assistant" and not answer.tool_calls and answer.text.strip():
            return turn.messages if asked.content.strip() or asked.parts else ()
    messages = _joined(_answered_calls([message for message in turn.messages if message.role != "system"]))
    is_whole = messages and messages[0].role == "user" and messages[-1].role == "assistant"
    return tuple(messages) if is_whole and not messages[-1].tool_calls else ()


def _answered_calls(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with only those tool calls whose results the model went on from, and only their results.

    After a result, servers expect the model to speak, not the user.
    """
    found: list[Message] = []  # last message first
    results: dict[str | None, Message] = {}
    for message in reversed(messages):
        if message.role == "tool":
            results.setdefault(message.tool_call_id, message)
            continue
        is_followed = bool(found) and found[-1].role == "assistant"
        is_answered = is_followed and all(call.id in results for call in message.tool_calls)
        calls = message.tool_calls if is_answered else ()
        if message.text.strip() or message.parts or calls:
            found.extend(results[call.id] for call in reversed(calls))
            found.append(replace(message, tool_calls=calls))
        results = {}
    return found[::-1]


def _joined(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if last is None or last.role != message.role or message.role == "tool" or last.tool_calls:
            found.append(message)
        else:
            text = "\n\n".join(filter(None, (last.text, message.text)))
            parts = (*last.parts, *message.parts)
            found[-1] = replace(message, content=text, parts=parts)
    return found


def _system_message(system_prompt: str | None, applied_summaries: Sequence[AppliedSummary]) -> tuple[Message, ...]:
    """Return a single system message, because servers refuse a second one."""
    texts = [*filter(None, [system_prompt]), *(applied.note.content for applied in applied_summaries)]
    return (Message("system", "\n\n".join(texts)),) if texts else ()


def _window(
    system_prompt: str | None,
    applied_summaries: Sequence[AppliedSummary],
    turns: Sequence[Turn],
    asked: tuple[Message, ...],
    *,
    left_out: tuple[Turn, ...] = (),
    max_tokens: int | None = None,
    size: TokenEstimate | None = None,
) -> Window:
    sent: list[Turn] = []
    history: list[Message] = []
    for turn in turns:
        if messages := sent_messages(turn):
            sent.append(turn)
            history += messages
    return Window(
        messages=(*_system_message(system_prompt, applied_summaries), *history, *asked),
        turns=tuple(sent),
        left_out=left_out,
        applied_summaries=tuple(applied_summaries),
        max_tokens=max_tokens,
        token_count=None if size is None else size.expected,
        counted_tokens=None if size is None else size.counted,
    )


def _prompt_too_long(
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
        f"System prompt ({prompt:,} tokens), new message ({message:,}) and overhead ({rest:,}) take {total:,} tokens, "
        f"more than {typed_value('max_tokens', max_tokens)}; nothing was sent. Shorten one of them, or raise "
        f"{typed('max_tokens')}.",
        limit_tokens=max_tokens,
        request_tokens=total,
    )


def _history_too_long(
    turns: Sequence[Turn],
    applied_summaries: Sequence[AppliedSummary],
    fixed: TokenEstimate,
    max_tokens: int,
    estimator: TokenEstimator,
) -> ContextWindowExceededError:
    left = uncovered(turns, applied_summaries)
    history = sum((estimator.of_messages(sent_messages(turn)).expected for turn in left), 0)
    history += estimator.of_messages(applied.note for applied in applied_summaries).expected
    total = fixed.expected + history
    return ContextWindowExceededError(
        f"The request would take {total:,} tokens, {history:,} of them history, more than "
        f"{typed_value('max_tokens', max_tokens)}; nothing was sent. Raise {typed('max_tokens')}, or shorten the "
        f"conversation with {typed('truncate()')} or {typed('summarize()')}.",
        limit_tokens=max_tokens,
        request_tokens=total,
    )
