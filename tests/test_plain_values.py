"""Values of NumPy and pandas, and subclasses of ``str``, are accepted everywhere and become built-in types."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from promptkit_nb import (
    Budget,
    ConversationManager,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    Price,
    Turn,
    Usage,
    scoped_id,
    search,
    turns_df,
    usage_df,
)
from promptkit_nb.plain import plain

if TYPE_CHECKING:
    from chat_server import ChatServer
    from promptkit_nb.stores.base import StateStore


class Tag(str):
    """A text like that of an HTML parser, with its own formatting, repr, and comparison."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return something else."""
        return "<str>"

    def __format__(self, spec: str) -> str:
        """Return something else."""
        return "<format>"

    def __repr__(self) -> str:
        """Return something else."""
        return "<repr>"


class Level(IntEnum):
    """A count with a name."""

    TWO = 2


TEXTS = [np.str_, Tag]
COUNT: Any = np.int64
NUMBER: Any = np.float64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Tag("a"), "a"),
        (np.str_("a"), "a"),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (Level.TWO, 2),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),  # noqa: FBT003 - its constructor
        (True, True),
        (None, None),
    ],
)
def test_value_becomes_pythons_own(value: object, expected: object) -> None:
    """Of exactly the plain type."""
    found = plain(value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("value", [Decimal(1), Fraction(1, 2), b"x", [1], np.array([1, 2])])
def test_other_values_stay(value: object) -> None:
    """They are not almost a text or a number."""
    assert plain(value) is value


@pytest.mark.parametrize("text", TEXTS)
def test_texts_and_counts_of_a_conversation(chat_server: ChatServer, store: StateStore, text: Any) -> None:
    """Ids, users, prompts, messages, models, metadata, parameters, and every count, on every store."""
    provider = OpenAIProvider(
        text("small"),
        api_key=text("unused"),
        base_url=text(chat_server.url),
        timeout=COUNT(5),
        max_retries=COUNT(1),
        prices={text("small"): (NUMBER(1), COUNT(2))},
    )
    manager = ConversationManager(provider, store, budget=Budget(NUMBER(5)), replay=text("off"))
    manager.new_conversation(
        user_id=text("alice"),
        conversation_id=text("talk"),
        system_prompt=text("Be brief."),
        max_tokens=COUNT(4000),
        context_policy=text("truncate"),
        metadata={text("topic"): text("numbers"), "n": COUNT(3), "yes": np.bool_(True)},  # noqa: FBT003
        parameters={"temperature": NUMBER(0.5), "seed": COUNT(7)},
    )
    conversation = manager.get_conversation(text("talk"))
    answer = conversation.send(
        text("Hello"),
        model=text("small"),
        max_output_tokens=COUNT(50),
        parameters={"top_p": np.float32(0.5)},
    )
    assert chat_server.requests[0].body == {
        "model": "small",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 7,
        "top_p": 0.5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    }
    assert answer.cost == Decimal("0.00002")
    state = store.get("talk")
    held: list[Any] = [state.conversation_id, state.user_id, state.system_prompt, state.metadata["topic"]]
    held += [conversation.id, conversation.user_id, *(message.content for message in conversation.messages)]
    assert {type(each) for each in held} == {str}
    assert state.metadata == {"topic": "numbers", "n": 3, "yes": True}
    assert conversation.rerun(COUNT(0), text("Hello again")).content == "You said: Hello again"
    assert conversation.truncate(keep_last=COUNT(2)) == 0
    conversation.fork(text("copy"))
    assert [head.conversation_id for head in manager.list_conversations(text("c"), text("alice"))] == ["copy"]
    assert len(manager.for_user(text("alice")).list_conversations(limit=COUNT(1))) == 1
    assert len(turns_df(store, user_id=text("alice"), conversation_id=text("talk"), model=text("small"))) == 1
    assert len(search(store, text("again"), prefix=text("talk"))) == 2
    assert usage_df(store, by=[text("model")])["total_tokens"].to_list() == [30]
    manager.delete_conversation(text("copy"))


@pytest.mark.parametrize("text", TEXTS)
def test_turn_of_almost_plain_values_is_stored(store: StateStore, text: Any) -> None:
    """And read back as plain ones."""
    usage = Usage(COUNT(8), COUNT(2), cached_tokens=COUNT(4))
    messages = (Message(text("user"), text("Hi")), Message("assistant", text("Hello")))
    store.append(text("talk"), Turn(messages=messages, usage=usage, model=text("m"), latency_ms=NUMBER(2)))
    (turn,) = store.get("talk").turns
    assert (turn.usage, turn.model, turn.latency_ms) == (Usage(8, 2, cached_tokens=4), "m", 2.0)
    kinds = {type(turn.usage.input_tokens), type(turn.model), type(turn.text), type(turn.messages[0].role)}
    assert kinds == {int, str}


def test_ids_of_almost_plain_texts() -> None:
    """``scoped_id`` and prices by model take them, too."""
    assert scoped_id(Tag("user"), np.str_("alice")) == "user:alice"
    assert OpenAIProvider("m", prices={Tag("m"): Price(NUMBER(1), 2)}).prices == {"m": Price(1, 2)}


def test_what_is_not_a_count_is_refused() -> None:
    """A fraction is not rounded, and ``True`` is not 1."""
    manager = ConversationManager(OpenAIProvider("m"), MemoryStore())
    wrong_ones: list[Any] = [NUMBER(2.5), np.bool_(True), True, "7"]  # noqa: FBT003 - its constructor
    for wrong in wrong_ones:
        with pytest.raises(InvalidArgumentError, match="max_tokens"):
            manager.new_conversation(max_tokens=wrong)
