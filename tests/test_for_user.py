"""A manager and a store narrowed to one user: other users' conversations seem not to exist."""

from __future__ import annotations

import threading
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb.chat.stored_conversation import StoredConversation
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.manager import ConversationManager
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.state import ConversationState, Summary
from promptkit_nb.stores.memory import MemoryStore
from storing import said, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore
    from storing import Clock


@pytest.fixture
def manager(store: StateStore, clock: Clock) -> ConversationManager:
    """The whole manager, with a store of each kind in which bob has conversations."""
    whole = ConversationManager(DemoProvider(), store, clock=clock)
    for name in ("bobs", "shared:bob"):
        whole.new_conversation(conversation_id=name, user_id="bob", metadata={"secret": 1}).send("I am Bob")
    return whole


@pytest.fixture
def alice(manager: ConversationManager) -> ConversationManager:
    """The same manager, narrowed to alice, who has a conversation of her own."""
    narrowed = manager.for_user("alice")
    narrowed.new_conversation(conversation_id="shared:alice").send("I am Alice")
    return narrowed


def ids_of(store: StateStore) -> list[str]:
    """Return the ids in a store, sorted."""
    return sorted(head.conversation_id for head in store.list())


def just_before_the_next_call_of(store: Any, action: Callable[[], object]) -> None:
    """Run an action just before the next transaction of a store, or of one narrowed from it."""
    backend = store.backend

    def run(work: Callable[[], object], *, write: bool) -> object:
        del backend.run
        action()
        return backend.run(work, write=write)

    backend.run = run


class TestReading:
    """Another user's conversation seems not to exist."""

    def test_every_call_of_the_store_says_not_found(
        self, manager: ConversationManager, alice: ConversationManager
    ) -> None:
        """With the same message as for an unknown id, and nothing is changed."""
        before, store = manager.store.get("bobs"), alice.store
        (turn,) = before.turns
        calls: list[Callable[[str], object]] = [
            store.get,
            lambda name: store.append(name, said("x"), create=False),
            lambda name: store.replace(name, turn.id, said("x")),
            lambda name: store.archive(name, 0, 1, as_branch="b"),
            lambda name: store.restore(name, turn),
            lambda name: store.add_summary(name, Summary(0, 0, "x")),
            lambda name: store.recent(name, 1),
            store.head,
            lambda name: store.update_metadata(name, x=1),
            lambda name: store.fork(name, "stolen"),
            store.delete,
        ]
        for call in calls:
            with pytest.raises(ConversationNotFoundError) as theirs:
                call("bobs")
            with pytest.raises(ConversationNotFoundError) as unknown:
                call("none")
            assert str(theirs.value) == str(unknown.value).replace("'none'", "'bobs'")
        assert manager.store.get("bobs") == before
        assert ids_of(manager.store) == ["bobs", "shared:alice", "shared:bob"]

    @pytest.mark.parametrize(
        "call",
        [
            "append",
            "set",
            "replace",
            "archive",
            "restore",
            "add_summary",
            "recent",
            "update_metadata",
            "fork",
            "delete",
        ],
    )
    def test_id_that_changes_hands_meanwhile_is_another_users(self, store: StateStore, call: str) -> None:
        """Bob takes over an id just before alice's transaction: nothing of his is read or changed."""
        turn = said("first")
        store.create(ConversationState("a", "alice", (turn,)))
        alice = store.for_user("alice")
        alice.append("a", said("second"))
        alice.recent("a", 1)
        mine = store.get("a")

        def lose() -> None:
            store.delete("a")
            store.create(ConversationState("a", "bob", (turn,), metadata={"secret": 1}))

        calls: dict[str, Callable[[], object]] = {
            "append": lambda: alice.append("a", said("x")),
            "set": lambda: alice.set(mine),
            "replace": lambda: alice.replace("a", turn.id, said("x")),
            "archive": lambda: alice.archive("a", 0, 1, as_branch="b"),
            "restore": lambda: alice.restore("a", turn),
            "add_summary": lambda: alice.add_summary("a", Summary(0, 0, "x")),
            "recent": lambda: alice.recent("a", 1),
            "update_metadata": lambda: alice.update_metadata("a", x=1),
            "fork": lambda: alice.fork("a", "stolen"),
            "delete": lambda: alice.delete("a"),
        }
        just_before_the_next_call_of(store, lose)
        with pytest.raises((ConversationNotFoundError, ConversationExistsError)):
            calls[call]()
        his = store.get("a")
        assert (his.user_id, his.turns, his.metadata, his.revision) == ("bob", (turn,), {"secret": 1}, 1)
        assert ids_of(store) == ["a"]

    def test_every_call_of_the_manager_does_too(self, alice: ConversationManager) -> None:
        """A misspelled id is not corrected to another user's."""
        for call in (alice.get_conversation, alice.delete_conversation):
            with pytest.raises(ConversationNotFoundError):
                call("bobs")
        with pytest.raises(ConversationNotFoundError) as caught:
            alice.get_conversation("shared:alic")
        assert "'shared:alice'?" in str(caught.value)
        assert "bob" not in str(caught.value)

    def test_lists_and_turns_are_the_users_own(self, alice: ConversationManager) -> None:
        """With or without a prefix or the user's own id."""
        assert [head.conversation_id for head in alice.list_conversations()] == ["shared:alice"]
        assert [head.conversation_id for head in alice.list_conversations("shared:", "alice")] == ["shared:alice"]
        assert alice.list_conversations("bob") == []
        assert [each.turn.user_text for each in alice.store.iter_turns()] == ["I am Alice"]
        assert list(alice.store.iter_turns(prefix="bob")) == []

    def test_other_users_may_not_be_named(self, alice: ConversationManager) -> None:
        """``user_id=`` of another user raises, in every call that takes one."""
        calls: list[Callable[[], object]] = [
            lambda: alice.new_conversation(user_id="bob"),
            lambda: alice.open_conversation(conversation_id="bobs", user_id="bob"),
            lambda: alice.list_conversations(user_id="bob"),
            lambda: alice.for_user("bob"),
            lambda: alice.store.list(user_id="bob"),
            lambda: list(alice.store.iter_turns(user_id="bob")),
            lambda: alice.store.append("new", said("x"), user_id="bob"),
            lambda: alice.store.create(ConversationState("new", "bob")),
            lambda: alice.store.set(ConversationState("shared:alice", "bob")),
        ]
        for call in calls:
            with pytest.raises(InvalidArgumentError, match="'bob' is another user: this store is narrowed to 'alice'"):
                call()
        assert ids_of(alice.store) == ["shared:alice"]


class TestWriting:
    """What a user writes belongs to that user."""

    def test_new_conversations_are_the_users(self, manager: ConversationManager, alice: ConversationManager) -> None:
        """Whichever call creates them."""
        alice.new_conversation(conversation_id="new")
        alice.open_conversation(conversation_id="opened")
        alice.store.append("appended", said("x"))
        alice.store.set(ConversationState("set", "alice"))
        alice.store.fork("new", "forked")
        owners = {head.conversation_id: head.user_id for head in manager.store.list(user_id="alice")}
        assert owners == dict.fromkeys(["shared:alice", "new", "opened", "appended", "set", "forked"], "alice")

    def test_taken_id_is_refused_without_details(
        self, manager: ConversationManager, alice: ConversationManager
    ) -> None:
        """The error tells neither the owner nor the content, and the conversation is unchanged."""
        before = manager.store.get("bobs")
        calls: list[Callable[[], object]] = [
            lambda: alice.new_conversation(conversation_id="bobs"),
            lambda: alice.open_conversation(conversation_id="bobs"),
            lambda: alice.store.append("bobs", said("x")),
            lambda: alice.store.set(ConversationState("bobs", "alice")),
            lambda: alice.store.set(ConversationState("bobs", "alice"), expected_revision=0),
            lambda: alice.store.fork("shared:alice", "bobs"),
        ]
        for call in calls:
            with pytest.raises(ConversationExistsError) as caught:
                call()
            assert "bob" not in str(caught.value).replace("'bobs'", "")
        assert manager.store.get("bobs") == before

    def test_deleting_many_deletes_only_ones_own(
        self, manager: ConversationManager, alice: ConversationManager, clock: Clock
    ) -> None:
        """By prefix and by age; a dry run names only the user's own."""
        clock.pass_s(3600)
        alice.new_conversation(conversation_id="young")
        assert alice.store.cleanup(60, dry_run=True) == ("shared:alice",)
        assert alice.store.cleanup(60) == ("shared:alice",)
        assert alice.store.delete_prefix("y") == ("young",)
        assert alice.store.delete_prefix("shared:") == ()
        assert ids_of(manager.store) == ["bobs", "shared:bob"]

    def test_background_cleanup_deletes_only_ones_own(
        self, manager: ConversationManager, alice: ConversationManager, clock: Clock
    ) -> None:
        """It ends with its ``stop``."""
        clock.pass_s(3600)
        cleaning = alice.store.start_cleanup(every=3600, older_than=60)
        cleaning.stop()
        assert set(ids_of(manager.store)) >= {"bobs", "shared:bob"}

    def test_threads_that_create_by_appending_lose_nothing(self, alice: ConversationManager) -> None:
        """Of twenty at once, one creates the conversation, and all turns are in it."""
        barrier = threading.Barrier(20)

        def append(number: int) -> None:
            barrier.wait()
            alice.store.append("new", said(str(number)))

        threads = [threading.Thread(target=append, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(int, texts(alice.store.get("new").turns))) == list(range(20))

    def test_id_that_is_created_meanwhile_is_shared(self, store: StateStore) -> None:
        """If another kernel of alice's is faster, the write goes to its conversation."""
        alice = store.for_user("alice")

        def create(name: str, owner: str) -> None:
            store.create(ConversationState(name, owner, turns=(said("theirs"),)))

        just_before_the_next_call_of(store, partial(create, "a", "alice"))
        assert alice.append("a", said("mine")).turn_count == 2
        just_before_the_next_call_of(store, partial(create, "b", "alice"))
        assert alice.set(ConversationState("b", "alice")).turn_count == 0
        for call in (alice.append, lambda name, _: alice.set(ConversationState(name, "alice"))):
            just_before_the_next_call_of(store, partial(create, call.__name__, "bob"))
            with pytest.raises(ConversationExistsError):
                call(call.__name__, said("mine"))

    @pytest.mark.parametrize("call", ["cleanup", "delete_prefix"])
    def test_what_was_written_meanwhile_is_not_deleted(self, store: StateStore, clock: Clock, call: str) -> None:
        """Deciding and deleting is one transaction: what another kernel has just written or taken over stays."""
        alice = store.for_user("alice")
        for name in ("t:old", "t:fresh", "t:taken"):
            alice.append(name, said(name))
        clock.pass_s(3600)

        def write() -> None:
            store.append("t:fresh", said("again"))
            store.delete("t:taken")
            store.append("t:taken", said("mine"), user_id="bob")

        just_before_the_next_call_of(store, write)
        deleted = alice.cleanup(60) if call == "cleanup" else alice.delete_prefix("t:")
        assert deleted == (("t:old",) if call == "cleanup" else ("t:fresh", "t:old"))
        assert ids_of(store) == (["t:fresh", "t:taken"] if call == "cleanup" else ["t:taken"])
        assert texts(store.get("t:taken").turns) == ["mine"]

    def test_imported_conversation_of_another_is_refused(
        self, manager: ConversationManager, alice: ConversationManager, tmp_path: Path
    ) -> None:
        """The error names the user of the store; nothing is created."""
        manager.get_conversation("bobs").export(tmp_path / "bobs.json")
        manager.delete_conversation("bobs")
        with pytest.raises(InvalidArgumentError, match="another user"):
            alice.import_conversation(tmp_path / "bobs.json")
        assert ids_of(manager.store) == ["shared:alice", "shared:bob"]


class TestNarrowing:
    """The narrowed manager is the same manager."""

    def test_conversations_are_shared(self, manager: ConversationManager, alice: ConversationManager) -> None:
        """A turn that is sent through one is stored for the other."""
        alice.get_conversation("shared:alice").send("Still me")
        assert len(manager.get_conversation("shared:alice").turns) == 2
        assert alice.provider is manager.provider

    @pytest.mark.parametrize("call", ["refresh", "change_settings"])
    def test_id_that_changes_hands_while_it_is_read_shows_nothing(self, call: str) -> None:
        """The id is deleted and taken by bob between the check of its user and the read of its turns."""

        class Passing(MemoryStore):
            def get(self, conversation_id: str) -> ConversationState:
                self.delete(conversation_id)
                self.create(ConversationState(conversation_id, user_id="bob", turns=(said("secret"),)))
                return super().get(conversation_id)

        store = Passing()
        stored = StoredConversation(ConversationState("a", user_id="alice"), store)
        store.create(stored.last_read)
        store.append("a", said("hello"))
        calls: dict[str, Callable[[], object]] = {
            "refresh": stored.refresh,
            "change_settings": partial(stored.change_settings, lambda kept: kept),
        }
        with pytest.raises(ConversationNotFoundError):
            calls[call]()
        assert stored.last_read.turns == ()
        assert texts(MemoryStore.get(store, "a").turns) == ["secret"]

    def test_conversation_whose_id_changed_hands_is_gone(
        self, manager: ConversationManager, alice: ConversationManager, tmp_path: Path
    ) -> None:
        """An object that still refers to it neither shows nor changes the new owner's conversation."""
        conv = manager.get_conversation("shared:alice")
        alice.delete_conversation("shared:alice")
        bobs = manager.new_conversation(conversation_id="shared:alice", user_id="bob")
        bobs.send("Mine")
        before = manager.store.get("shared:alice")
        calls: list[Callable[[], object]] = [
            lambda: conv.turns,
            lambda: conv.messages,
            lambda: conv.metadata,
            lambda: conv.token_count,
            conv.history,
            conv.to_df,
            lambda: conv.send("Hi"),
            lambda: conv.rerun(0),
            conv.clear,
            lambda: conv.variables.update(name="x"),
            lambda: conv.fork("copy"),
            lambda: conv.restore(bobs.turns[0]),
            lambda: conv.export(tmp_path / "bobs.json"),
        ]
        for call in calls:
            with pytest.raises(ConversationNotFoundError):
                call()
        assert manager.store.get("shared:alice") == before

    def test_narrowing_twice_is_once(self, alice: ConversationManager) -> None:
        """Narrowing to the same user returns the same manager."""
        assert alice.for_user("alice") is alice

    def test_closing_the_view_leaves_the_store_open(
        self, manager: ConversationManager, alice: ConversationManager
    ) -> None:
        """The store is shared."""
        with alice.store:
            pass
        alice.store.close()
        assert len(manager.store.list()) == 3

    def test_ledger_is_shared(self, manager: ConversationManager, alice: ConversationManager) -> None:
        """A limit holds for all users together; amounts reveal no text."""
        alice.store.settle(alice.store.reserve(["total"], Decimal(1), limit=None, lease=60), Decimal(2))
        assert manager.store.spending("total").spent == alice.store.spending("total").spent == 2

    def test_amounts_of_others_are_hidden(self, alice: ConversationManager) -> None:
        """Her own and the common amounts can be read; those of another user can be neither read nor probed."""
        for scope in ("user:alice", "conversation:alice:first", "day:2026-03-01", "total"):
            alice.store.settle(alice.store.reserve([scope], Decimal(1), limit=None, lease=60), Decimal(1))
            assert alice.store.spending(scope).spent == 1
        for scope in ("user:bob", "conversation:bob:first", "user:alic", "user:alice%3A"):
            with pytest.raises(InvalidArgumentError, match="is another user's: this store is narrowed to 'alice'"):
                alice.store.spending(scope)
            with pytest.raises(InvalidArgumentError, match="is another user's"):
                alice.store.reserve(["total", scope], Decimal(0), limit=Decimal(1), lease=60)

    def test_store_without_users_cannot_be_narrowed(self) -> None:
        """A store of one's own that was not derived from ``StateStore`` is refused, rather than shown as a whole."""

        class Bare:
            def __init__(self) -> None:
                store = MemoryStore()
                self.create, self.get, self.head, self.append = store.create, store.get, store.head, store.append

        manager = ConversationManager(DemoProvider(), Bare())  # type: ignore[arg-type]  # it has no for_user
        assert manager.new_conversation().user_id == "default"
        with pytest.raises(InvalidArgumentError, match=r"has no for_user\(\), so it cannot be narrowed to 'alice'"):
            manager.for_user("alice")

    @pytest.mark.parametrize("wrong", ["", " ", "\ud83d"])
    def test_invalid_user_is_refused(self, manager: ConversationManager, wrong: str) -> None:
        """A blank user id is refused and does not mean all users."""
        with pytest.raises(InvalidArgumentError, match="cannot be a user id"):
            manager.for_user(wrong)
