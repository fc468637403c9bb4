"""Ids that look equal are equal: new ones are composed (NFC), and stored ones are found in each form."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from unicodedata import normalize

import pytest

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    conversations_df,
    messages_df,
    search,
    turns_df,
    usage_df,
)
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from storing import START, said, texts

if TYPE_CHECKING:
    from promptkit_nb.stores.row_store import RowStore

NFC, NFD = "Résumé:1", normalize("NFD", "Résumé:1")
ZOE, ZOE_NFD = "Zoë", normalize("NFD", "Zoë")


def store_as_before(store: RowStore, conversation_id: str, user_id: str = "default") -> None:
    """Store a conversation of one turn under exactly these ids, as earlier versions did."""
    turn = said(f"in {len(conversation_id)}", id=conversation_id)
    state = ConversationState(conversation_id, user_id, turns=(turn,), created_at=START, updated_at=START)
    store.backend.run(partial(store._write, state, 1), write=True)


@pytest.mark.parametrize("given", [NFC, NFD])
def test_new_id_is_composed(store: RowStore, given: str) -> None:
    """This holds for each call that creates a conversation; each form finds it."""
    store.create(ConversationState(given))
    store.append(normalize("NFD", "Zürich"), said("x"), user_id=ZOE_NFD)
    store.fork(NFD, normalize("NFD", "Kopie é"))
    store.set(ConversationState(normalize("NFD", "ö")))
    assert [head.conversation_id for head in store.list(sort_by="conversation_id", descending=False)] == sorted(
        [NFC, "Zürich", "Kopie é", "ö"]
    )
    assert store.head("Zürich").user_id == ZOE
    assert store.get(NFD).conversation_id == store.get(NFC).conversation_id == NFC


def test_every_call_finds_the_other_form(store: RowStore) -> None:
    """Reading, writing, and deleting."""
    first, second = said("one"), said("two")
    store.append(NFC, first)
    assert store.append(NFD, second).turn_count == 2
    assert texts(store.recent(NFD, 5)) == ["one", "two"]
    assert store.head(NFD).turn_count == 2
    store.update_metadata(NFD, topic="x")
    store.replace(NFD, first.id, said("uno"))
    store.restore(NFD, first.id)
    store.archive(NFD, 1, 2, as_branch="b")
    assert store.set(replace(store.get(NFC), conversation_id=NFD)).conversation_id == NFC
    with pytest.raises(ConversationExistsError):
        store.create(ConversationState(NFD))
    with pytest.raises(ConversationExistsError):
        store.fork(NFC, NFD)
    store.delete(NFD)
    with pytest.raises(ConversationNotFoundError):
        store.get(NFC)


@pytest.mark.parametrize("asked", [NFC, NFD])
def test_decomposed_id_of_before_is_kept(store: RowStore, asked: str) -> None:
    """It keeps its form, and both forms find it; an equal one cannot be created."""
    store_as_before(store, NFD)
    assert store.get(asked).conversation_id == NFD
    store.append(asked, said("more"))
    assert [head.conversation_id for head in store.list()] == [NFD]
    with pytest.raises(ConversationExistsError):
        store.create(ConversationState(asked))


def test_where_both_forms_exist_each_is_found_by_its_exact_id(store: RowStore) -> None:
    """Earlier versions treated them as different, so both stay."""
    for name in (NFC, NFD):
        store_as_before(store, name)
    for name in (NFC, NFD):
        assert store.get(name).conversation_id == name
        assert texts(store.get(name).turns) == [f"in {len(name)}"]
    store.delete(NFC)
    assert store.get(NFC).conversation_id == NFD


def test_prefixes_compare_likewise(store: RowStore) -> None:
    """In lists, views, and deletion."""
    prefix, other = "Résumé:", normalize("NFD", "Résumé:")
    store.append(NFC, said("x"))
    for each in (prefix, other):
        assert [head.conversation_id for head in store.list(prefix=each)] == [NFC]
        assert [stored.conversation_id for stored in store.iter_turns(prefix=each)] == [NFC]
        assert len(turns_df(store, prefix=each)) == len(conversations_df(store, prefix=each)) == 1
    assert store.delete_prefix(other) == (NFC,)


def test_views_find_either_form(store: RowStore) -> None:
    """By conversation and by user."""
    store.append(NFC, said("words"), user_id=ZOE)
    for conversation_id, user_id in ((NFC, ZOE), (NFD, ZOE_NFD)):
        for view in (turns_df, messages_df, conversations_df, usage_df):
            assert len(view(store, conversation_id=conversation_id, user_id=user_id)) >= 1
        assert len(search(store, "words", conversation_id=conversation_id, user_id=user_id)) >= 1


def test_users_compare_likewise(store: RowStore) -> None:
    """Both forms of a name are the same user."""
    narrowed = store.for_user(ZOE_NFD)
    narrowed.append("a", said("x"))
    assert narrowed.user_id == store.head("a").user_id == ZOE
    assert store.for_user(ZOE).get("a").user_id == ZOE
    assert [head.conversation_id for head in store.list(user_id=ZOE_NFD)] == ["a"]
    assert narrowed.create(ConversationState("b", ZOE_NFD)).user_id == ZOE
    with pytest.raises(InvalidArgumentError, match="is another user"):
        narrowed.list(user_id="Zoe")


def test_users_of_before_keep_their_form(store: RowStore) -> None:
    """One that is stored decomposed is found by both; two that differ only by their form stay two."""
    store_as_before(store, "old", ZOE_NFD)
    assert [head.conversation_id for head in store.for_user(ZOE).list()] == ["old"]
    store_as_before(store, "new", ZOE)
    assert [head.conversation_id for head in store.for_user(ZOE).list()] == ["new"]
    assert [head.conversation_id for head in store.for_user(ZOE_NFD).list()] == ["old"]


def test_manager_opens_either_form(store: RowStore) -> None:
    """This includes continuing it, and user names in the other form."""
    manager = ConversationManager(DemoProvider(), store)
    assert manager.new_conversation(conversation_id=NFD, user_id=ZOE_NFD).id == NFC
    assert manager.open_conversation(conversation_id=NFD, user_id=ZOE).id == NFC
    assert manager.open_conversation(conversation_id=NFC, user_id=ZOE_NFD).id == NFC
    conv = manager.for_user(ZOE_NFD).get_conversation(NFD)
    assert len(conv.send("Hello").turn.messages) == 2
    assert [head.turn_count for head in manager.list_conversations()] == [1]
