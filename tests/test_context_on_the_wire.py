"""``context()``, dry runs and costs, compared with what the server receives and reports."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, Reply
from promptkit_nb import Budget, ConversationManager, ConversationState, MemoryStore, Message, OpenAIProvider, Turn
from promptkit_nb.rendering.history import History
from promptkit_nb.state import Settings
from promptkit_nb.turns import ContentPart

if TYPE_CHECKING:
    from promptkit_nb import Conversation

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"  # only its head, which has the size


@pytest.fixture
def manager(chat_server: ChatServer) -> ConversationManager:
    """A manager connected to a local server."""
    provider = OpenAIProvider("gpt-4o-mini", api_key="sk-1", base_url=chat_server.url, prices={"mine": (1, 2)})
    return ConversationManager(provider, MemoryStore())


def talked(manager: ConversationManager, turns: int, **settings: int) -> Conversation:
    """Return a conversation with turns and a window."""
    said = tuple(
        Turn(messages=(Message("user", f"Question {number}"), Message("assistant", f"Answer {number}")))
        for number in range(turns)
    )
    given = Settings(**settings)  # type: ignore[arg-type]  # max_tokens
    manager.store.create(ConversationState("chat", turns=said, system_prompt="You help.", settings=given))
    return manager.get_conversation("chat")


def sent(server: ChatServer) -> list[tuple[str, str]]:
    """Return roles and texts of the last request."""
    return [(message["role"], message["content"]) for message in server.requests[-1].body["messages"]]


@pytest.mark.parametrize("turns", [0, 1, 30])
@pytest.mark.parametrize("keep_last", [None, 10])
def test_context_equals_the_next_request(
    manager: ConversationManager, chat_server: ChatServer, turns: int, keep_last: int | None
) -> None:
    """Message by message, with a summary and without."""
    conv = talked(manager, turns)
    if keep_last is not None:
        chat_server.reply(Reply(text="They counted."))
        conv.summarize(keep_last=keep_last)
    context = conv.context()
    conv.send("And now?")
    assert sent(chat_server) == [*((line.role, line.content) for line in context), ("user", "And now?")]


def test_dry_run_equals_the_request(manager: ConversationManager, chat_server: ChatServer) -> None:
    """Also if the window leaves turns out; nothing is sent or stored for it."""
    conv = talked(manager, 30, max_tokens=100)
    before = manager.store.get("chat")
    dry = conv.dry_run("And now?", max_output_tokens=100)
    assert (chat_server.requests, manager.store.get("chat"), before.revision) == (
        [],
        before,
        manager.store.head("chat").revision,
    )
    response = conv.send("And now?", max_output_tokens=100)
    assert sent(chat_server) == [(line.role, line.content) for line in dry.context]
    assert response.truncated == len(dry.context.left_out) > 0
    assert dry.context.token_count == response.turn.counted_input_tokens
    assert str(dry).splitlines()[-1].startswith("dry run, nothing was sent · between $0.0000")


def test_dry_run_counts_images(manager: ConversationManager) -> None:
    """A small one is one tile: 85 tokens plus 170."""
    conv = talked(manager, 0)
    dry = conv.dry_run(
        "What is this?", parts=(ContentPart("text", "What is this?"), ContentPart("image_url", url=PIXEL))
    )
    assert dry.context.token_count == conv.dry_run("What is this?").context.token_count + 255


def test_dry_run_has_a_line_for_each_budget(manager: ConversationManager) -> None:
    """The spent amount, next to the possible cost of the call."""
    limited = ConversationManager(manager.provider, manager.store, budget=[Budget(1), Budget(5, per="day")])
    dry = limited.new_conversation().dry_run("Hi")
    assert dry.budgets == ("budget $0.00 of $1.00 in this conversation", "budget $0.00 of $5.00 today (UTC)")


class TestMoney:
    """The cost of a call, computed from the usage that the server reports."""

    @pytest.mark.parametrize(
        ("usage", "model", "cost", "source"),
        [
            ({"prompt_tokens": 1000, "completion_tokens": 500}, "gpt-4o-mini", "0.00045", "list"),
            (
                {
                    "prompt_tokens": 1000,
                    "completion_tokens": 500,
                    "prompt_tokens_details": {"cached_tokens": 400},
                },
                "gpt-4o-mini",
                "0.00042",
                "list",
            ),
            (
                {
                    "prompt_tokens": 700,
                    "completion_tokens": 500,
                    "completion_tokens_details": {"reasoning_tokens": 300},
                },
                "o4-mini",
                "0.00297",
                "list",
            ),
            ({"prompt_tokens": 1000, "completion_tokens": 500}, "mine", "0.002", "yours"),
            ({"prompt_tokens": 1000, "completion_tokens": 500, "cost": 0.0123}, "gpt-4o-mini", "0.0123", "reported"),
            ({"prompt_tokens": 1000, "completion_tokens": 500, "cost": 0.0123}, "unlisted", "0.0123", "reported"),
        ],
        ids=["listed", "cached", "reasoning", "user's", "reported", "reported, and in no list"],
    )
    def test_cost_of_a_call(  # noqa: PLR0917 - two fixtures and the table
        self,
        manager: ConversationManager,
        chat_server: ChatServer,
        usage: dict[str, object],
        model: str,
        cost: str,
        source: str,
    ) -> None:
        """Cached tokens are part of the input, reasoning tokens of the output; the turn names the price list."""
        chat_server.reply(Reply(usage=usage))
        conv = manager.new_conversation()
        response = conv.send("Hi", model=model)
        assert response.cost == conv.total_cost == Decimal(cost)
        assert conv.turns[0].price_source == source

    def test_unknown_costs_stay_unknown_in_totals(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """It is not zero: the total has the known part and the number of turns without a price, or is ``None``."""
        conv = manager.new_conversation()
        for _ in range(3):
            assert conv.send("Hi", model="unlisted").cost is None
        assert (conv.total_cost, conv.unpriced_turns) == (None, 3)
        chat_server.reply(Reply(usage={"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.12}))
        conv.send("Hi")
        assert (conv.total_cost, conv.unpriced_turns) == (Decimal("0.12"), 3)
        assert isinstance(conv.history(), History)
        assert "$0.1200 + 3 turns without a price" in str(conv.history())
        (head,) = manager.list_conversations()
        assert (head.total_cost, head.unpriced_turns) == (Decimal("0.12"), 3)

    def test_prices_are_never_computed_again(self, manager: ConversationManager, chat_server: ChatServer) -> None:
        """Stored costs stay, whatever prices become known later."""
        conv = manager.new_conversation(conversation_id="old")
        conv.send("Hi", model="mine")
        dearer = OpenAIProvider("mine", base_url=chat_server.url, prices={"mine": (1000, 1000)})
        assert ConversationManager(dearer, manager.store).get_conversation("old").total_cost == Decimal("0.00002")

    def test_warns_once_if_the_server_cut_the_prompt(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """One warning, with the token counts."""
        chat_server.reply(Reply(usage={"prompt_tokens": 512, "completion_tokens": 5}))
        (warning,) = manager.new_conversation().send("word " * 4000).warnings
        assert warning.startswith("The server read 512 tokens, but about 4,008 were sent")

    def test_never_warns_about_a_short_conversation(
        self, manager: ConversationManager, chat_server: ChatServer
    ) -> None:
        """If all messages fit into any window, a server with much lower counts gives no warning."""
        chat_server.reply(Reply(usage={"prompt_tokens": 10, "completion_tokens": 5}))
        assert manager.new_conversation().send("word " * 700).warnings == ()
