"""Text output contains no escape sequences or bidirectional overrides from names and texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit_nb import (
    ConversationManager,
    ConversationState,
    DemoProvider,
    DiskStore,
    MemoryStore,
    Message,
    PromptKitError,
    Turn,
    conversations_df,
    import_store,
    load_pack,
    messages_df,
    search,
    turns_df,
    usage_df,
    validate_pack,
)
from promptkit_nb.characters import printable, visible
from promptkit_nb.state import Branch
from promptkit_nb.turns import ToolCall, Usage
from promptkit_nb.views.schemas import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore

EVIL = "a\x1b]0;pwned\x07\x9b31m\x7f\u202egpj.exe\u2066\r\nb"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
EVIL_TURN = Turn(
    id=EVIL,
    messages=(
        Message("user", EVIL),
        Message("assistant", EVIL, reasoning=EVIL, tool_calls=(ToolCall(EVIL, EVIL, EVIL),)),
        Message("tool", EVIL, tool_call_id=EVIL, name=EVIL),
    ),
    usage=Usage(1, 1),
    model=EVIL,
    provider=EVIL,
    finish_reason=EVIL,
    cell_id=EVIL,
    price_source=EVIL,
    warnings=(EVIL,),
)
EVIL_STATE = ConversationState(
    EVIL,
    EVIL,
    turns=(EVIL_TURN,),
    system_prompt=EVIL,
    versions={EVIL: (Turn(id="previous", messages=(Message("user", EVIL),)),)},
    branches=(Branch(id=EVIL, turns=(Turn(id="left", messages=(Message("user", EVIL),)),), start=0),),
    metadata={EVIL: EVIL, "title": EVIL},
)


@pytest.fixture
def evil_store(store: StateStore) -> StateStore:
    """A store of each kind in which every text is an attack."""
    store.create(EVIL_STATE)
    return store


@pytest.mark.parametrize("view", [conversations_df, turns_df, messages_df])
def test_frames_are_safe(evil_store: StateStore, view: Callable[..., object]) -> None:
    """As they are shown, and in each value; escapes and overrides stay visible."""
    more = {} if view is conversations_df else {"status": "all"}
    frame = view(evil_store, **more)
    shown = f"{frame.to_string()}\n{frame.to_csv()}"  # type: ignore[attr-defined]  # a DataFrame
    assert UNSAFE.findall(shown) == []
    assert "␛]0;pwned" in shown
    assert "⟨RLO⟩gpj.exe" in shown


def test_search_and_usage_are_safe(evil_store: StateStore) -> None:
    """Their names, snippets and groups are."""
    for frame in (search(evil_store, "pwned"), *(usage_df(evil_store, by=key.name) for key in KEYS)):
        assert len(frame) >= 1
        assert UNSAFE.findall(f"{frame.to_string()}\n{frame.to_csv()}") == []


def test_stored_text_is_unchanged(evil_store: StateStore) -> None:
    """Only what is shown is changed: a turn keeps the raw text, and filters compare with it."""
    assert evil_store.get(EVIL).turns == (EVIL_TURN,)
    assert len(turns_df(evil_store, conversation_id=EVIL, user_id=EVIL, model=EVIL)) == 1


def test_turn_with_an_evil_id_is_marked_as_stale() -> None:
    """It is found by its id although the table shows another text."""
    store = MemoryStore()
    store.append("a", Turn(id=EVIL, messages=(Message("user", "x"),), context_hash="0" * 64))
    assert list(turns_df(store)["stale"]) == [True]


def test_two_names_that_are_shown_alike_are_one_category() -> None:
    """A DataFrame never has a category twice."""
    store = MemoryStore()
    for name in ("a\x07", "a\x08"):
        store.create(ConversationState(name))
    assert list(conversations_df(store)["conversation_id"]) == ["a", "a"]


def test_texts_of_a_conversation_are_safe(evil_store: StateStore) -> None:
    """Its history, tree, context and totals, and the list of conversations."""
    manager = ConversationManager(DemoProvider(), evil_store)
    conv = manager.get_conversation(EVIL)
    shown = [
        *map(repr, (manager, conv, conv.tree(), conv.context(), manager.list_conversations(), conv.branches())),
        repr(conv.history(versions=True)),
        str(conv.history(versions=True)),
    ]
    assert [UNSAFE.findall(text) for text in shown] == [[]] * len(shown)


def test_errors_are_safe(store: StateStore, tmp_path: Path) -> None:
    """Ids, paths and the words of other libraries in them cannot control a terminal."""
    name = EVIL.replace("/", "")
    calls: list[Callable[[], object]] = [
        lambda: store.get(EVIL),
        lambda: load_pack(tmp_path / name),
        lambda: import_store(tmp_path / name, store),
        lambda: ConversationManager(DemoProvider(), store).import_conversation(tmp_path / name),
        lambda: load_pack({"prompts": {EVIL: {"system_template": f"{{{{{EVIL}}}}}"}}}, strict=True),
    ]
    for call in calls:
        with pytest.raises(PromptKitError) as caught:
            call()
        assert UNSAFE.findall(f"{caught.value}{caught.value!r}") == []


def test_packs_are_safe() -> None:
    """Their names, templates and keys in reprs, warnings and findings."""
    data = {"id": "mine", "name": EVIL, "version": EVIL, EVIL: 1, "prompts": {EVIL: {"system_template": EVIL}}}
    pack, findings = load_pack(data), validate_pack(data)
    prompt = pack.prompts[EVIL]
    shown = [repr(pack), repr(prompt), *pack.warnings, repr(findings), *map(str, findings), *findings.lines()]
    assert [UNSAFE.findall(text) for text in shown] == [[]] * len(shown)
    assert UNSAFE.findall(findings.to_df().to_csv()) == []


def test_store_in_an_evil_directory_is_safe(tmp_path: Path) -> None:
    """The repr of a store shows its directory."""
    with DiskStore(tmp_path / EVIL) as store:
        assert UNSAFE.findall(repr(store)) == []


@given(st.text())
def test_no_text_gets_through(text: str) -> None:
    """Line breaks and tabs are kept, as is all text that is safe."""
    for shown in (printable(text), visible(text)):
        assert UNSAFE.findall(shown) == []
        assert UNSAFE.sub("", text) == re.sub("⟨[A-Z]{3}⟩|␛", "", shown) or not text.isascii()
