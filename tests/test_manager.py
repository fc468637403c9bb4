"""The manager: opening, finding, listing and deleting conversations."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb import (
    ConversationExistsError,
    ConversationManager,
    ConversationNotFoundError,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    InvalidConversationIdError,
    MemoryStore,
    PromptNotFoundError,
    load_pack,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACK = {
    "id": "two",
    "name": "Two",
    "version": "1.0.0",
    "template_engine": {"version": "v1", "syntax": "{{variable}}"},
    "prompts": {
        name: {"id": name, "name": name, "version": "1.0.0", "system_template": f"You are the {name}."}
        for name in ("writer", "critic")
    },
}


@pytest.fixture
def manager() -> ConversationManager:
    """A manager with the demo provider and a store in memory."""
    return ConversationManager(provider=DemoProvider())


class TestNewConversation:
    def test_it_is_stored_and_listed_at_once(self, manager: ConversationManager) -> None:
        """A conversation without turns exists."""
        manager.new_conversation(conversation_id="a", user_id="alice", metadata={"title": "First", "n": 3})
        (head,) = manager.list_conversations()
        assert (head.conversation_id, head.user_id, head.turn_count) == ("a", "alice", 0)
        assert head.metadata == {"title": "First", "n": 3}

    def test_taken_id_is_refused_and_nothing_is_overwritten(self, manager: ConversationManager) -> None:
        """Creating an existing conversation raises, and does not change it."""
        manager.new_conversation(conversation_id="a", system_prompt="first").send("Hi")
        with pytest.raises(ConversationExistsError, match="'a'"):
            manager.new_conversation(conversation_id="a", system_prompt="second")
        assert [message.content for message in manager.get_conversation("a").messages[:2]] == ["first", "Hi"]

    def test_fresh_ids_sort_by_time_and_are_unique(self) -> None:
        """Without an id a conversation gets one that begins with its time in UTC."""
        now = datetime(2026, 11, 22, 19, 45, 1, 5, tzinfo=UTC)
        manager = ConversationManager(DemoProvider(), clock=lambda: now)
        first, second = manager.new_conversation().id, manager.new_conversation().id
        assert first != second
        assert all(re.fullmatch(r"20261122T194501\.000005-[0-9a-f]{6}", each) for each in (first, second))

    def test_prompt_name_is_optional_only_with_one_prompt(self, manager: ConversationManager) -> None:
        """A pack with two prompts needs a prompt name, and the error lists the prompts in order."""
        with pytest.raises(PromptNotFoundError, match=r"critic.*writer"):
            manager.new_conversation(load_pack(PACK))
        conv = manager.new_conversation(load_pack(PACK), prompt_name="critic")
        assert conv.messages[0].content == "You are the critic."

    def test_system_prompt_alone_is_used_verbatim(self, manager: ConversationManager) -> None:
        """Without a pack the system prompt is used as it is."""
        assert manager.new_conversation(system_prompt="Use {{x}}.").messages[0].content == "Use {{x}}."

    def test_without_both_there_is_no_system_message(self, manager: ConversationManager) -> None:
        """A conversation needs no system prompt."""
        assert manager.new_conversation().messages == ()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"prompt_name": "critic"}, "needs a pack"),
            ({"pack": load_pack(PACK), "prompt_name": "critic", "system_prompt": "Hi"}, "not both"),
            ({"pack": "assistant.pack.json"}, "load it first"),
            ({"metadata": {"when": datetime(2026, 1, 1, tzinfo=UTC)}}, r"metadata\['when'\]"),
            ({"variables": {"x": {1, 2}}}, r"variables\['x'\]"),
            ({"user_id": " "}, "user id"),
            ({"model": ""}, "model='' is not a model name"),
        ],
    )
    def test_contradictions_are_refused(
        self, manager: ConversationManager, arguments: Mapping[str, object], words: str
    ) -> None:
        """Each error names the value and the remedy, and nothing is stored."""
        with pytest.raises(InvalidArgumentError, match=words):
            manager.new_conversation(**arguments)  # type: ignore[arg-type]  # that is the point
        assert manager.list_conversations() == []

    def test_prompt_name_without_a_pack_is_refused(self, manager: ConversationManager) -> None:
        """It would silently continue with the stored prompt."""
        manager.new_conversation(conversation_id="there")
        with pytest.raises(InvalidArgumentError, match=r"prompt_name='critic' needs a pack: get_conversation\("):
            manager.get_conversation("there", prompt_name="critic")

    @pytest.mark.parametrize("conversation_id", ["", "  ", 5, "x" * 1001, "\ud83d"])
    def test_invalid_id_is_refused(self, manager: ConversationManager, conversation_id: str) -> None:
        """Blank, overlong and unencodable text, and other types, are not valid ids."""
        with pytest.raises(InvalidConversationIdError):
            manager.new_conversation(conversation_id=conversation_id)

    @pytest.mark.parametrize("name", ["variables", "parameters", "metadata"])
    def test_mappings_of_another_type_are_refused(self, manager: ConversationManager, name: str) -> None:
        """The error for a list in place of a mapping names the argument, and nothing is created."""
        wrong: dict[str, Any] = {name: ["x"]}
        with pytest.raises(InvalidArgumentError, match=rf"^{name}=\['x'\] is not a dict"):
            manager.new_conversation(**wrong)
        assert manager.list_conversations() == []

    def test_one_of_two_processes_gets_the_id(self, tmp_path: Path) -> None:
        """Eight processes create the same conversation at once: one succeeds, seven get ConversationExistsError."""
        with ProcessPoolExecutor(4) as pool:
            outcomes = list(pool.map(_create, [str(tmp_path / "store")] * 8, range(8)))
        assert sorted(outcomes) == ["created"] + ["exists"] * 7
        with DiskStore(tmp_path / "store") as store:
            assert [head.conversation_id for head in store.list()] == ["the-one"]


class TestGetConversation:
    def test_unknown_id_names_near_matches(self, manager: ConversationManager) -> None:
        """The error for a misspelled id suggests the right one."""
        manager.new_conversation(conversation_id="persistent-chat")
        with pytest.raises(ConversationNotFoundError, match="Did you mean 'persistent-chat'"):
            manager.get_conversation("persistant-chat")

    def test_unknown_id_without_near_matches(self, manager: ConversationManager) -> None:
        """Without a near match, the error says how to list the ids."""
        with pytest.raises(ConversationNotFoundError, match=r"list_conversations\(\)"):
            manager.get_conversation("nothing")

    def test_metadata_cannot_be_changed_by_accident(self, manager: ConversationManager) -> None:
        """Assigning to a read-only view raises instead of being lost."""
        conv = manager.new_conversation(conversation_id="a", metadata={"title": "First"})
        with pytest.raises(TypeError):
            conv.metadata["title"] = "Second"  # type: ignore[index]  # that is the point
        manager.store.update_metadata("a", title="Second")
        assert conv.metadata == {"title": "Second"}


class TestOpenConversation:
    def test_it_creates_then_resumes(self, manager: ConversationManager) -> None:
        """The first call starts the conversation, the second one continues it."""
        manager.open_conversation(conversation_id="a", system_prompt="You help.").send("Hi")
        assert len(manager.open_conversation(conversation_id="a").turns) == 1

    def test_another_users_conversation_is_not_opened(self, manager: ConversationManager) -> None:
        """With a user, another user's conversation raises as if the id were simply taken."""
        manager.new_conversation(conversation_id="a", user_id="alice")
        with pytest.raises(ConversationExistsError) as caught:
            manager.open_conversation(conversation_id="a", user_id="bob")
        assert "alice" not in str(caught.value)


class TestListAndDelete:
    def test_prefix_and_user_narrow_the_list(self, manager: ConversationManager) -> None:
        """``user:alice:`` lists neither ``user:alicia:`` nor another user's conversations."""
        for conversation_id, user in [("user:alice:1", "alice"), ("user:alicia:1", "alicia"), ("b", "alice")]:
            manager.new_conversation(conversation_id=conversation_id, user_id=user)
        assert [head.conversation_id for head in manager.list_conversations(prefix="user:alice:")] == ["user:alice:1"]
        assert {head.conversation_id for head in manager.list_conversations(user_id="alice")} == {"user:alice:1", "b"}

    def test_deleted_is_gone(self, manager: ConversationManager) -> None:
        """After deletion the id is unknown and can be used again."""
        manager.new_conversation(conversation_id="a").send("Hi")
        manager.delete_conversation("a")
        with pytest.raises(ConversationNotFoundError):
            manager.get_conversation("a")
        assert manager.new_conversation(conversation_id="a").turns == ()

    def test_deleting_an_unknown_id_raises(self, manager: ConversationManager) -> None:
        """Deleting a misspelled id raises."""
        with pytest.raises(ConversationNotFoundError):
            manager.delete_conversation("a")


def test_default_store_is_memory() -> None:
    """A manager without a store keeps conversations in this process's memory."""
    assert isinstance(ConversationManager(provider=DemoProvider()).store, MemoryStore)


def _create(directory: str, number: int) -> str:
    with DiskStore(directory) as store:
        try:
            ConversationManager(DemoProvider(), store).new_conversation(
                conversation_id="the-one", metadata={"by": number}
            )
        except ConversationExistsError:
            return "exists"
        return "created"
