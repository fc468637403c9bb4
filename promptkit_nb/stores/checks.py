"""Checks of the arguments of stores, and the errors that stores share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import get_args

from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.codec import SALVAGE, check_spent, check_totals, check_values_of, checked, turn_and_line
from promptkit_nb.errors import (
    ConversationChangedError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
    StoreCorruptedError,
)
from promptkit_nb.frontend import typed
from promptkit_nb.ids import check_conversation_id, check_user_id
from promptkit_nb.json_values import json_copy
from promptkit_nb.plain import plain
from promptkit_nb.state import ConversationState, Settings, Summary
from promptkit_nb.stores.base import Duration, SortKey

MOST_BYTES_OF_LINES = 2**22
LONGEST_DURATION_S = 100 * 365 * 86400  # what is added to a time must stay in the calendar


def not_found(conversation_id: str) -> ConversationNotFoundError:
    """Return the error for a conversation that does not exist."""
    return ConversationNotFoundError(
        f"There is no conversation {conversation_id!r}. Its id may be misspelled, or it was deleted or has expired; "
        f"{typed('list_conversations()')} shows the stored ones."
    )


def exists_already(conversation_id: str) -> ConversationExistsError:
    """Return the error for an id that is taken."""
    return ConversationExistsError(
        f"The conversation {conversation_id!r} exists already; nothing was changed. "
        f"Open it with {typed('get_conversation()')} or choose another id."
    )


def incomplete(conversation_id: str, where: str) -> StoreCorruptedError:
    """Return the error for a conversation with missing rows."""
    return StoreCorruptedError(
        f"The conversation {conversation_id!r} in {where} is incomplete: some of its rows are missing. {SALVAGE}"
    )


def check_revision(conversation_id: str, stored: int, expected: int | None) -> None:
    """Raise ``ConversationChangedError`` unless the stored revision is the expected one (``None``: any)."""
    if expected is None or stored == expected:
        return
    raise ConversationChangedError(
        f"The conversation {conversation_id!r} is at revision {stored}, not {expected}: another process changed it. "
        f"Nothing was changed; {typed('get() it again and repeat the change')}."
    )


def checked_state(state: ConversationState) -> tuple[ConversationState, dict[str, bytes]]:
    """Return the state as it will be read back, and the lines of its current turns by their ids.

    Lines after the first ``MOST_BYTES_OF_LINES`` are left out: they would need as much memory as the turns. The state
    shares no mutable value with the argument. Raises ``InvalidConversationIdError`` for its id,
    ``InvalidArgumentError`` for anything else that cannot be stored.
    """
    if not isinstance(state, ConversationState):
        raise InvalidArgumentError(f'A {type(state).__name__} is not a state; give ConversationState("id", ...).')
    check_conversation_id(state.conversation_id)
    check_user_id(state.user_id)
    turns = state.turns if isinstance(state.turns, (tuple, list)) else ()
    rest = state.turns if not turns else ()  # anything else is refused as part of the state
    settings, metadata = _copied_settings(state.settings), json_copy(state.metadata, "metadata")
    found = checked(replace(state, turns=rest, settings=settings, metadata=metadata))
    checked_turns, lines, size = [], {}, 0
    for turn, line in map(turn_and_line, turns):
        checked_turns.append(turn)
        size += len(line)
        if size <= MOST_BYTES_OF_LINES:
            lines[turn.id] = line
    for turn in found.stored_turns:
        check_values_of(turn)
    found = replace(found, turns=tuple(checked_turns))
    _check_values_but_turns(found)
    return found, lines


def check_values_of_state(state: ConversationState) -> None:
    """Raise ``InvalidConversationIdError`` for an invalid id, ``InvalidArgumentError`` for invalid contents.

    Invalid are turns, summaries, counters, or times out of range, and a turn or branch that occurs twice.
    """
    check_conversation_id(state.conversation_id)
    check_user_id(state.user_id)
    for turn in state.stored_turns:
        check_values_of(turn)
    _check_values_but_turns(state)


def _check_values_but_turns(state: ConversationState) -> None:
    for summary in state.summaries:
        _check_values_of_summary(summary)
    check_totals(state.dropped)
    check_count("settings.max_tokens", state.settings.max_tokens or 0)
    if state.created_at.tzinfo is None or state.updated_at.tzinfo is None:
        raise InvalidArgumentError(
            "A conversation's time has no time zone; give aware times, such as datetime.now(UTC)."
        )
    _check_nothing_is_twice(state)
    known = {turn.id for turn in state.turns}.union(turn.id for branch in state.branches for turn in branch.turns)
    if unknown := state.versions.keys() - known:
        raise InvalidArgumentError(
            f"versions has the turn {min(unknown)!r}, which is neither a current turn nor on a branch; "
            "leave its versions out too, or keep the turn on a branch."
        )


def _check_nothing_is_twice(state: ConversationState) -> None:
    branches = Counter(branch.id for branch in state.branches)
    if repeated := [branch_id for branch_id, count in branches.items() if count > 1]:
        raise InvalidArgumentError(f"The branch {repeated[0]!a:.80} occurs twice; give each branch its own id.")
    places: dict[str, str] = {}
    for turn_id, place in _places_of_turns(state):
        if turn_id in places:
            raise InvalidArgumentError(
                f"The turn {turn_id!a:.80} occurs twice, as {places[turn_id]} and as {place}; keep only one of them."
            )
        places[turn_id] = place


def _places_of_turns(state: ConversationState) -> Iterator[tuple[str, str]]:
    """Yield each turn's id, and a description of its place."""
    yield from ((turn.id, "a current turn") for turn in state.turns)
    for branch in state.branches:
        yield from ((turn.id, f"a turn of the branch {branch.id!a:.80}") for turn in branch.turns)
    for turn_id, previous in state.versions.items():
        yield from ((turn.id, f"a previous version of {turn_id!a:.80}") for turn in previous)


def checked_settings(settings: Settings) -> Settings:
    """Return the settings as they will be read back; ``InvalidArgumentError`` if they cannot be stored."""
    if not isinstance(settings, Settings):
        raise InvalidArgumentError(f"A {type(settings).__name__} is not Settings; give replace(state.settings, …).")
    return checked(_copied_settings(settings))


def _copied_settings(settings: Settings) -> Settings:
    return replace(
        settings,
        parameters=json_copy(settings.parameters, "settings.parameters"),
        prompt=json_copy(settings.prompt, "settings.prompt"),
        variables=json_copy(settings.variables, "settings.variables"),
    )


def checked_summary(summary: Summary) -> Summary:
    """Return the summary as it will be read back; ``InvalidArgumentError`` if it cannot be stored."""
    if not isinstance(summary, Summary):
        raise InvalidArgumentError(f"A {type(summary).__name__} is not a Summary; give Summary(first, last, text).")
    found = checked(summary)
    _check_values_of_summary(found)
    return found


def _check_values_of_summary(summary: Summary) -> None:
    check_spent("summary", summary.usage, summary.cost)
    if summary.created_at.tzinfo is None:
        raise InvalidArgumentError("A summary's time has no time zone; give aware ones, such as datetime.now(UTC).")


def checked_filters(prefix: str | None, user_id: str | None) -> tuple[str | None, str | None]:
    """Return both filters; raise ``InvalidArgumentError`` unless each is text or ``None``."""
    for name, value in (("prefix", prefix), ("user_id", user_id)):
        if value is not None and (not isinstance(value, str) or without_lone_surrogates(value) != value):
            raise InvalidArgumentError(f"{name}={value!a} is not text; leave it out to list all conversations.")
    return plain(prefix), plain(user_id)


def check_count(name: str, value: int) -> None:
    """Raise ``InvalidArgumentError`` unless the value is a whole number from 0."""
    count = plain(value)
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return
    raise InvalidArgumentError(f"{name}={value!r} is out of range; give a whole number from 0.")


def seconds_of(name: str, duration: Duration) -> float:
    """Return a duration (a ``timedelta`` or seconds) in seconds; ``InvalidArgumentError`` unless it is positive.

    >>> seconds_of("ttl", timedelta(hours=24))
    86400.0
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else plain(duration)
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_DURATION_S:
        return float(seconds)
    raise InvalidArgumentError(
        f"{name}={duration!r} is not a duration; give a positive number of seconds or a timedelta, up to 100 years."
    )


def ttl_s_of(ttl: Duration | None) -> float | None:
    """Return a TTL in seconds, or ``None`` for no TTL; 0 and negative values mean none.

    >>> ttl_s_of(timedelta(hours=24)), ttl_s_of(0)
    (86400.0, None)
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else plain(ttl)
    is_off = seconds is None or (isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds <= 0)
    return None if is_off or ttl is None else seconds_of("ttl", ttl)


def check_page(sort_by: SortKey, limit: int | None, offset: int) -> None:
    """Raise ``InvalidArgumentError`` unless these arguments select a page of a list."""
    if sort_by not in get_args(SortKey):
        raise InvalidArgumentError(f"sort_by={sort_by!r} is unknown; use one of {', '.join(get_args(SortKey))}.")
    if limit is not None:
        check_count("limit", limit)
    check_count("offset", offset)


def turn_unknown(conversation_id: str, turn_id: object) -> InvalidArgumentError:
    """Return the error for a turn that the conversation does not have."""
    return InvalidArgumentError(
        f"The conversation {conversation_id!r} has no turn and no branch {turn_id!a}; nothing was changed. "
        f"See {typed('get()')} for its turns, versions, and branches."
    )


def check_branch_id(branch_id: str, taken: Sequence[str]) -> None:
    """Raise ``InvalidArgumentError`` unless the text can be the id of a new branch."""
    if not isinstance(branch_id, str) or not branch_id.strip() or without_lone_surrogates(branch_id) != branch_id:
        raise InvalidArgumentError(f"as_branch={branch_id!a} cannot be a branch id; give any text, such as 'before'.")
    if branch_id in taken:
        raise InvalidArgumentError(f"The branch {branch_id!r} exists already; nothing was changed. Choose another id.")


def check_range(start: int, stop: int, turn_count: int) -> None:
    """Raise ``InvalidArgumentError`` unless this is a range of positions of turns."""
    check_count("start", start)
    check_count("stop", stop)
    if not start <= stop <= turn_count:
        raise InvalidArgumentError(
            f"start={start}, stop={stop} is not a range of {turn_count} turns; give 0 ≤ start ≤ stop ≤ {turn_count}."
        )


def check_store(store: object) -> None:
    """Raise ``InvalidArgumentError`` unless this is a store; a manager or the name of a directory is not."""
    if not callable(getattr(store, "append", None)) or not callable(getattr(store, "head", None)):
        raise InvalidArgumentError(
            f"store={store!r:.80} is not a store; give DiskStore(…), MemoryStore(), RedisStore(…), your own store, or "
            "manager.store."
        )


def path_of(name: str, path: object) -> Path:
    """Return a path given as ``Path`` or text, with ``~`` expanded; raise ``InvalidArgumentError`` for other types."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else plain(path)
    if isinstance(text, str) and text.strip() and "\0" not in text:
        return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib raises for unknown users
    raise InvalidArgumentError(f"{name}={path!a:.80} is not a path; give text or a pathlib.Path.")


def check_usd(name: str, usd: Decimal) -> None:
    """Raise ``InvalidArgumentError`` unless the value is a finite ``Decimal`` from 0."""
    if isinstance(usd, Decimal) and usd.is_finite() and usd >= 0:
        return
    raise InvalidArgumentError(f'{name}={usd!r} is not an amount; give US dollars from 0, as in Decimal("0.03").')


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of the ledger; ``InvalidArgumentError`` unless each is text."""
    if isinstance(scopes, Iterable) and not isinstance(scopes, str):
        found = tuple(scopes)
        if all(isinstance(scope, str) and scope and without_lone_surrogates(scope) == scope for scope in found):
            return tuple(map(plain, found))
    raise InvalidArgumentError(f'scopes={scopes!a} is not valid; give a tuple of texts, as in ("total", "user:alice").')


def cutoff_of(name: str, older_than: Duration | datetime, now: datetime) -> datetime:
    """Return the time before which something is older than ``older_than``; a ``datetime`` must be aware."""
    if not isinstance(older_than, datetime):
        return now - timedelta(seconds=seconds_of(name, older_than))
    if older_than.tzinfo is None:
        raise InvalidArgumentError(
            f"{name}={older_than!r} has no time zone; give an aware one, such as datetime.now(UTC)."
        )
    return older_than
