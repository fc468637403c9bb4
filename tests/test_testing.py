"""The shipped checks of stores: ours pass them, and each broken one fails the checks of what is broken."""

# ruff: noqa: D102, D107 - the docstring of a broken store says what is wrong with its one method

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.stores.base import StateStore
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.stores.redis import RedisStore
from promptkit_nb.testing import CHECKS, check_state_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal
    from pathlib import Path

    from promptkit_nb.state import Branch, ConversationState, Head, Settings
    from promptkit_nb.stores.base import Charge, Reservation, StoredTurn
    from promptkit_nb.turns import Turn


class TestOurs:
    """Our stores pass."""

    def test_memory_passes(self) -> None:
        """With the three lines of the documentation."""
        check_state_store(MemoryStore)

    def test_disk_passes(self, tmp_path: Path) -> None:
        """Each check has a directory of its own."""
        check_state_store(lambda: DiskStore(tmp_path / str(uuid4())))

    def test_redis_passes(self, redis_url: str) -> None:
        """Each check has a prefix of its own."""
        check_state_store(lambda: RedisStore(redis_url, prefix=f"{uuid4()}:"))

    def test_what_a_store_inherits_passes(self) -> None:
        """``StateStore`` itself finds notebooks and answers, by looking at all of them."""
        check_state_store(InheritsAll)

    def test_narrowed_store_refuses_others_and_passes_the_rest(self) -> None:
        """A narrowed store fails only the checks that name other users or close it."""
        named = failures_of(lambda: MemoryStore().for_user("default"))
        others = {name for name, found in named.items() if "is another user" in found}
        assert named.keys() - others == {"closed_store_refuses_every_call"}
        assert "many_threads_lose_nothing" not in others
        assert len(others) < len(CHECKS) / 2


class LosesTheThirdTurn(MemoryStore):
    """Acknowledges it nevertheless."""

    def append(self, conversation_id: str, turn: Turn, **options: Any) -> Head:
        head = super().append(conversation_id, turn, **options)
        if head.turn_count == 3:
            super().set(replace(self.get(conversation_id), turns=self.get(conversation_id).turns[:2]))
        return head


class SharesItsMetadata(MemoryStore):
    """Returns the same mutable metadata each time."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_out: dict[tuple[str, int], Head] = {}

    def head(self, conversation_id: str) -> Head:
        head = super().head(conversation_id)
        return self.handed_out.setdefault((conversation_id, head.revision), head)


class TakesZeroAsAll(MemoryStore):
    """As Redis does."""

    def recent(self, conversation_id: str, n: int) -> tuple[Turn, ...]:
        return super().recent(conversation_id, n or 1000)


class ListsUsersByPrefix(MemoryStore):
    """Finds alicia if asked for alice."""

    def list(self, prefix: str | None = None, user_id: str | None = None, *args: Any, **options: Any) -> list[Head]:
        if user_id != "alice":
            return super().list(prefix, user_id, *args, **options)
        return [head for head in super().list(prefix, None, *args, **options) if head.user_id.startswith("ali")]


class Overwrites(MemoryStore):
    """Creates although the id is taken."""

    def create(self, state: ConversationState) -> Head:
        return self.set(state)


class ForgetsVersions(MemoryStore):
    """Sets everything else."""

    def set(self, state: ConversationState, *, expected_revision: int | None = None) -> Head:
        return super().set(replace(state, versions={}), expected_revision=expected_revision)


class CountsReplayedTurns(MemoryStore):
    """As if they had been paid for."""

    def append(self, conversation_id: str, turn: Turn, **options: Any) -> Head:
        return super().append(conversation_id, replace(turn, replayed=False), **options)


class DropsWhatRestoringDisplaces(MemoryStore):
    """Brings a tail back and forgets the other one."""

    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        super().restore(conversation_id, version_or_branch)
        return super().set(replace(self.get(conversation_id), branches=()))


class ForksTheCost(MemoryStore):
    """Charges the copy for what the original paid."""

    def fork(self, conversation_id: str, new_id: str) -> Head:
        return self.create(replace(self.get(conversation_id), conversation_id=new_id))


class CleansUpInADryRun(MemoryStore):
    """Deletes in a dry run."""

    def cleanup(self, older_than: Any, *, dry_run: bool = False) -> tuple[str, ...]:  # noqa: ARG002
        return super().cleanup(older_than)


class PagesWithoutOrder(MemoryStore):
    """Orders by time alone."""

    def list(self, *args: Any, **options: Any) -> list[Head]:
        heads = super().list(*args, **options)
        return heads if options.get("sort_by") != "created_at" else sorted(heads, key=lambda head: head.created_at)


class ReservesScopeByScope(MemoryStore):
    """Keeps reservations in the scopes before the one that is full."""

    def reserve(self, scopes: Any, usd: Decimal, **options: Any) -> Reservation:
        if isinstance(scopes, str) or len(scopes) < 2:
            return super().reserve(scopes, usd, **options)
        return [super(ReservesScopeByScope, self).reserve([scope], usd, **options) for scope in scopes][-1]


class SettlesAgainAndAgain(MemoryStore):
    """Adds up every settlement."""

    def settle(self, reservation: Reservation, usd: Decimal, **options: Any) -> None:
        super().settle(reservation, usd, **options)
        super().settle(super().reserve(reservation.scopes, usd, limit=None, lease=60), usd)


class ForgetsTheCharge(MemoryStore):
    """Stores the turn alone."""

    def append(self, conversation_id: str, turn: Turn, **options: Any) -> Head:
        return super().append(conversation_id, turn, **options | {"charge": None})


class ChargesAfterwards(MemoryStore):
    """Charges in another transaction, whether the turn was added or not."""

    def append(self, conversation_id: str, turn: Turn, *, charge: Charge | None = None, **options: Any) -> Head:
        head = super().append(conversation_id, turn, **options)
        if charge is not None:
            reservation = charge.reservation or self.reserve(charge.scopes, charge.usd, limit=None, lease=60)
            self.settle(reservation, charge.usd)
        return head


class NarrowsNothing(MemoryStore):
    """Shows every user everything."""

    def for_user(self, user_id: str) -> Self:  # noqa: ARG002
        return self


class StreamsCurrentTurnsOnly(MemoryStore):
    """Skips versions and branches."""

    def iter_turns(self, **filters: Any) -> Iterator[StoredTurn]:
        return (each for each in super().iter_turns(**filters) if each.status == "current")


class WorksWhenClosed(MemoryStore):
    """Still lists."""

    def list(self, *args: Any, **options: Any) -> list[Head]:
        return [] if self.backend.closed else super().list(*args, **options)


class AnswersEveryone(MemoryStore):
    """Finds the answers of all users."""

    def find_answers(self, replay_key: str, **options: Any) -> tuple[Turn, ...]:
        users = {head.user_id for head in self.list()}
        return tuple(
            turn for user in users for turn in super().find_answers(replay_key, **{**options, "user_id": user})
        )


class DeletesWhatChanged(MemoryStore):
    """Does not look at the revision."""

    def delete(self, conversation_id: str, *, keep_spending: bool = True, **options: Any) -> None:  # noqa: ARG002
        super().delete(conversation_id, keep_spending=keep_spending)


class ForgetsSpending(MemoryStore):
    """Deletes what conversations cost, too."""

    def delete(self, conversation_id: str, **options: Any) -> None:
        super().delete(conversation_id, **{**options, "keep_spending": False})


class KeepsItsPrompt(MemoryStore):
    """Changes the settings, but not the system prompt."""

    def update_settings(self, conversation_id: str, settings: Settings, **options: Any) -> Head:
        prompt = self.get(conversation_id).system_prompt
        return super().update_settings(conversation_id, settings, **{**options, "system_prompt": prompt})


class InheritsAll(MemoryStore):
    """Has nothing for notebooks and settings but what ``StateStore`` gives it."""

    set_notebook = StateStore.set_notebook
    find_notebooks = StateStore.find_notebooks
    find_answers = StateStore.find_answers
    update_settings = StateStore.update_settings


BROKEN: dict[type[MemoryStore], set[str]] = {
    LosesTheThirdTurn: {
        "recent_is_the_newest",
        "replayed_and_inherited_turns_count_nothing",
        "many_threads_lose_nothing",
        "tail_becomes_a_branch",
        "archived_head_stays_in_the_context",
    },
    SharesItsMetadata: {"values_are_the_callers_own"},
    TakesZeroAsAll: {"recent_none_is_empty"},
    ListsUsersByPrefix: {"users_are_apart"},
    Overwrites: {"id_is_given_once", "one_of_many_creates"},
    ForgetsVersions: {"every_field_comes_back", "same_turn_twice_is_once", "every_stored_turn_is_streamed"},
    CountsReplayedTurns: {"replayed_and_inherited_turns_count_nothing"},
    DropsWhatRestoringDisplaces: {
        "revision_counts_changes",
        "tail_becomes_a_branch",
        "archived_head_stays_in_the_context",
    },
    ForksTheCost: {
        "forked_turns_are_inherited",
        "fork_belongs_to_no_notebook",
        "fork_of_an_imported_conversation_can_be_continued",
    },
    CleansUpInADryRun: {"old_ones_are_cleaned_up", "narrowed_store_deletes_its_own"},
    PagesWithoutOrder: {"order_is_total"},
    ReservesScopeByScope: {
        "each_scope_may_have_its_own_limit",
        "scopes_are_reserved_together",
        "charge_is_entered_with_what_it_paid_for",
    },
    SettlesAgainAndAgain: {
        "reservation_is_settled_once",
        "limit_is_never_exceeded",
        "forgotten_reservation_is_unconfirmed",
        "ledger_survives_deletion",
        "narrowed_store_is_the_same_store",
    },
    ForgetsTheCharge: {
        "charge_is_entered_with_what_it_paid_for",
        "charge_without_a_reservation_counts",
        "many_threads_are_charged_exactly",
        "invalid_amounts_are_refused",
    },
    ChargesAfterwards: {
        "charge_is_entered_with_what_it_paid_for",
        "what_changes_nothing_is_not_charged",
        "invalid_amounts_are_refused",
    },
    NarrowsNothing: {
        "narrowed_store_hides_other_users",
        "narrowed_store_lists_its_own",
        "narrowed_store_creates_for_its_user",
        "narrowed_store_deletes_its_own",
        "narrowed_store_refuses_other_users",
        "narrowed_store_is_the_same_store",
    },
    StreamsCurrentTurnsOnly: {"every_stored_turn_is_streamed"},
    WorksWhenClosed: {"closed_store_refuses_every_call"},
    AnswersEveryone: {"answers_of_notebooks_are_found"},
    DeletesWhatChanged: {"deletion_compares_the_revision"},
    ForgetsSpending: {"deleted_spending_is_kept", "turn_that_is_stored_again_counts_once"},
    KeepsItsPrompt: {"settings_are_replaced"},
}


class TestBroken:
    """A broken store fails, and the error says where."""

    @pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
    def test_broken_store_fails_only_where_it_is_broken(self, broken: type[MemoryStore]) -> None:
        """In these checks, and in no others."""
        assert failures_of(broken).keys() == BROKEN[broken]

    def test_failure_says_what_was_expected_and_found(self) -> None:
        """And what the check is about; the other checks were run."""
        with pytest.raises(AssertionError) as caught:
            check_state_store(TakesZeroAsAll)
        assert str(caught.value).startswith(
            f"The store fails 1 of {len(CHECKS)} checks of the contract:\n\nrecent_none_is_empty: ``recent(id, 0)`` is "
            "empty, and so is any number of an empty conversation.\n    recent: expected ((), ()), found ((Turn("
        )

    def test_store_that_does_not_open_fails_every_check(self) -> None:
        """With its own error."""

        def refuse() -> StateStore:
            raise InvalidArgumentError("No disk.")

        found = failures_of(refuse)
        assert len(found) == len(CHECKS)
        assert {reason.splitlines()[-1].strip() for reason in found.values()} == {"InvalidArgumentError: No disk."}

    def test_every_check_says_what_it_is_about(self) -> None:
        """Each has a docstring of one line and a name of its own."""
        assert len({check.__name__ for check in CHECKS}) == len(CHECKS)
        assert [check.__name__ for check in CHECKS if "\n" in (check.__doc__ or "\n")] == []


def test_no_test_framework_is_needed() -> None:
    """The checks import nothing but the package itself."""
    script = (
        "import sys, promptkit_nb.testing; print([name for name in ('pytest', 'hypothesis') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def failures_of(open_store: Callable[[], StateStore]) -> dict[str, str]:
    """Return the checks that fail, by name, and what they say."""
    try:
        check_state_store(open_store)
    except AssertionError as error:
        return dict(re.findall(r"^(\w+): (.*\n    .*)", str(error), re.MULTILINE))
    return {}
