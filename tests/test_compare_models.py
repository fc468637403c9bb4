"""Several models asked the same question: from Python, with requests and money counted."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    Budget,
    BudgetExceededError,
    ConversationManager,
    InvalidArgumentError,
    MemoryStore,
    OpenAIProvider,
    ProviderError,
    ReplayMissError,
    usage_df,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from promptkit_nb import Conversation, StateStore
    from promptkit_nb.rendering.comparisons import Comparison

PRICES = {"a": (1, 2), "b": (10, 20), "c": (100, 200)}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
COSTS = [Decimal("0.002"), Decimal("0.02"), Decimal("0.2")]
"""What an answer with this usage costs, by model."""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat server."""
    with ChatServer() as started:
        yield started


@pytest.fixture
def manager(server: ChatServer) -> ConversationManager:
    """A manager whose provider knows the prices of three models."""
    provider = OpenAIProvider("a", api_key="sk-none", base_url=server.url, prices=PRICES, max_retries=0)
    return ConversationManager(provider, MemoryStore(), replay="auto")


@pytest.fixture
def conv(manager: ConversationManager) -> Conversation:
    """A conversation without turns."""
    return manager.new_conversation(conversation_id="trip")


def replies(server: ChatServer, *texts: str) -> None:
    """Let the server answer the next requests with these texts."""
    for text in texts:
        server.reply(Reply(text=text, usage=USAGE))


def asked(server: ChatServer) -> list[str]:
    """Return the models of the requests."""
    return [request.body["model"] for request in server.requests]


def texts(answers: Comparison) -> list[str]:
    """Return the texts of the answers."""
    return [answer.content for answer in answers]


def stored(conv: Conversation) -> tuple[list[str], list[str]]:
    """Return the text of the first turn and those of its versions."""
    return [turn.text for turn in conv.turns], [turn.text for turn in conv.versions(0)]


def test_the_first_is_the_turn_and_the_others_are_its_versions(conv: Conversation, server: ChatServer) -> None:
    """All see the same context; each is asked once; their order is that of the names."""
    replies(server, "from a", "from b", "from c")
    answers = conv.compare("Which?", models=["a", "b", "c"])
    assert asked(server) == ["a", "b", "c"]
    assert len({str(request.body["messages"]) for request in server.requests}) == 1
    assert texts(answers) == ["from a", "from b", "from c"]
    assert [turn.text for turn in conv.turns] == ["from a"]
    assert [turn.text for turn in conv.versions(0)] == ["from b", "from c"]
    assert answers.answer is answers[0]
    assert answers[0].turn == conv.turns[0]


def test_all_are_paid_for_and_counted(conv: Conversation, manager: ConversationManager, server: ChatServer) -> None:
    """In the conversation, in the usage by model, and in the responses."""
    replies(server, "from a", "from b", "from c")
    answers = conv.compare("Which?", models=["a", "b", "c"])
    assert [answer.cost for answer in answers] == COSTS
    assert conv.total_cost == sum(COSTS)
    assert usage_df(manager.store, by="model")["cost_usd"].tolist() == [0.002, 0.02, 0.2]


def test_the_next_question_follows_the_first_answer(conv: Conversation, server: ChatServer) -> None:
    """Its context is that of the turn."""
    replies(server, "from a", "from b", "more")
    conv.compare("Which?", models=["a", "b"])
    conv.send("Why?")
    assert [message["content"] for message in server.requests[-1].body["messages"]] == ["Which?", "from a", "Why?"]
    assert conv.stale_turns == ()


def test_restore_picks_another(conv: Conversation, server: ChatServer) -> None:
    """The versions are those of the turn, whichever is current; later turns become stale."""
    replies(server, "from a", "from b", "more")
    answers = conv.compare("Which?", models=["a", "b"])
    conv.send("Why?")
    conv.restore(answers[1].turn)
    assert [turn.text for turn in conv.turns] == ["from b", "more"]
    assert [turn.text for turn in conv.versions(0)] == ["from a"]
    assert len(conv.stale_turns) == 1


def test_a_version_is_one_write(server: ChatServer, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed never leaves another model's answer as the turn."""
    current: list[str] = []
    for name in ("replace", "restore"):
        monkeypatch.setattr(type(store), name, None)
    provider = OpenAIProvider("a", api_key="sk-none", base_url=server.url, prices=PRICES)
    conv = ConversationManager(provider, store).new_conversation(conversation_id="trip")
    run = store.backend.run  # type: ignore[attr-defined]  # of every store here

    def noting(transaction: Any, *, write: bool) -> Any:
        """Note the turn after each write."""
        found = run(transaction, write=write)
        if write:
            current.extend(turn.text for turn in store.for_user("default").recent("trip", 1))
        return found

    replies(server, "from a", "from b", "from c")
    monkeypatch.setattr(store.backend, "run", noting)  # type: ignore[attr-defined]  # as above
    conv.compare("Which?", models=["a", "b", "c"])
    assert stored(conv) == (["from a"], ["from b", "from c"])
    assert set(current) == {"from a"}


def test_a_store_of_your_own_writes_twice(server: ChatServer) -> None:
    """A store that is not derived from ``StateStore`` may have ``replace`` and ``restore`` alone."""

    class Own:
        def __init__(self) -> None:
            self.store = MemoryStore()

        def __getattr__(self, name: str) -> Any:
            if name == "add_version":
                raise AttributeError(name)
            return getattr(self.store, name)

    own: Any = Own()
    replies(server, "from a", "from b")
    provider = OpenAIProvider("a", api_key="sk-none", base_url=server.url, prices=PRICES)
    conv = ConversationManager(provider, own).new_conversation()
    conv.compare("Which?", models=["a", "b"])
    assert stored(conv) == (["from a"], ["from b"])


class TestReplay:
    """Nothing is asked or paid twice."""

    def ask_again(self, conv: Conversation, models: Sequence[str], **options: Any) -> Comparison:
        """Ask the first turn again, as the cell does."""
        from promptkit_nb.chat.options import CallOptions, Target  # noqa: PLC0415 - what a cell uses

        target = Target(in_place_of=conv.turns[0])
        comparison = conv.ask_models("Which?", models, CallOptions(target=target, **options))
        return comparison.answers(lambda _, stream: [*stream])

    def test_an_unchanged_comparison_writes_nothing(self, conv: Conversation, server: ChatServer) -> None:
        """Each answer is replayed where it is stored."""
        replies(server, "from a", "from b")
        conv.compare("Which?", models=["a", "b"])
        before = conv.snapshot().state
        again = self.ask_again(conv, ["a", "b"])
        assert (texts(again), [each.replayed for each in again]) == (["from a", "from b"], [True, True])
        assert [each.saved for each in again] == COSTS[:2]
        assert conv.snapshot().state == before
        assert len(server.requests) == 2

    def test_the_picked_answer_stays_the_turn(self, conv: Conversation, server: ChatServer) -> None:
        """Running the cell again does not undo a choice."""
        replies(server, "from a", "from b")
        conv.restore(conv.compare("Which?", models=["a", "b"])[1].turn)
        again = self.ask_again(conv, ["a", "b"])
        assert [turn.text for turn in conv.turns] == ["from b"]
        assert (again.answer.content, texts(again)) == ("from b", ["from a", "from b"])
        assert len(server.requests) == 2

    def test_a_model_that_failed_does_not_undo_a_choice(self, conv: Conversation, server: ChatServer) -> None:
        """It is asked again; the other answers stay where they are."""
        server.reply(error_reply(400, "a is broken"))
        replies(server, "from b", "from c")
        conv.restore(conv.compare("Which?", models=["a", "b", "c"])[1].turn)
        before = conv.snapshot().state
        server.reply(error_reply(400, "a is broken"))
        again = self.ask_again(conv, ["a", "b", "c"])
        assert asked(server) == ["a", "b", "c", "a"]
        assert (again.answer.content, texts(again)) == ("from c", ["from b", "from c"])
        assert conv.snapshot().state == before

    def test_a_further_model_does_not_undo_a_choice(self, conv: Conversation, server: ChatServer) -> None:
        """Its answer becomes one more version, and later turns are not stale."""
        replies(server, "from a", "from b", "more", "from c")
        conv.restore(conv.compare("Which?", models=["a", "b"])[1].turn)
        conv.send("Why?")
        again = self.ask_again(conv, ["a", "b", "c"])
        assert asked(server) == ["a", "b", "a", "c"]
        assert (again.answer.content, texts(again)) == ("from b", ["from a", "from b", "from c"])
        assert [turn.text for turn in conv.turns] == ["from b", "more"]
        assert [turn.text for turn in conv.versions(0)] == ["from a", "from c"]
        assert conv.stale_turns == ()

    def test_only_a_further_model_is_asked(self, conv: Conversation, server: ChatServer) -> None:
        """Its answer becomes one more version."""
        replies(server, "from a", "from b", "from c")
        conv.compare("Which?", models=["a", "b"])
        again = self.ask_again(conv, ["a", "b", "c"])
        assert asked(server) == ["a", "b", "c"]
        assert texts(again) == ["from a", "from b", "from c"]
        assert stored(conv) == (["from a"], ["from b", "from c"])

    def test_a_single_answer_is_used(self, conv: Conversation, server: ChatServer) -> None:
        """The turn that one model answered becomes a version if another now comes first."""
        replies(server, "from b", "from a")
        conv.send("Which?", model="b")
        again = self.ask_again(conv, ["a", "b"])
        assert asked(server) == ["b", "a"]
        assert (texts(again), again.answer.content) == (["from a", "from b"], "from a")
        assert stored(conv) == (["from a"], ["from b"])

    def test_fresh_asks_all(self, conv: Conversation, server: ChatServer) -> None:
        """The earlier answers stay as versions."""
        replies(server, "from a", "from b", "new a", "new b")
        conv.compare("Which?", models=["a", "b"])
        again = self.ask_again(conv, ["a", "b"], fresh=True)
        assert texts(again) == ["new a", "new b"]
        assert [each.text for each in conv.turns] == ["new a"]
        assert [each.text for each in conv.versions(0)] == ["from b", "from a", "new b"]

    def test_strict_replay_sends_nothing(self, conv: Conversation, server: ChatServer) -> None:
        """If one answer is missing, the error comes before anything else."""
        replies(server, "from a")
        conv.send("Which?", model="a")
        with pytest.raises(ReplayMissError, match="'b'"):
            self.ask_again(conv, ["a", "b"], replay="strict")
        assert asked(server) == ["a"]


class TestFailures:
    """A model that fails does not cost the others their answers."""

    def test_a_failed_model_has_its_error(self, conv: Conversation, server: ChatServer) -> None:
        """The first that answers is the turn; the error is in the model's column."""
        server.reply(error_reply(400, "a is broken"))
        replies(server, "from b", "from c")
        answers = conv.compare("Which?", models=["a", "b", "c"])
        assert (texts(answers), answers.answered, answers.models) == (["from b", "from c"], ("b", "c"), ("a", "b", "c"))
        assert isinstance(answers.errors["a"], ProviderError)
        assert stored(conv) == (["from b"], ["from c"])
        assert str(answers).startswith("── a ──\nBadRequestError: ")
        assert "── b ──\nfrom b\n" in str(answers)

    def test_if_all_fail_the_first_error_is_raised(self, conv: Conversation, server: ChatServer) -> None:
        """Nothing is stored."""
        server.reply(error_reply(400, "a is broken"))
        server.reply(error_reply(400, "b is broken"))
        with pytest.raises(ProviderError, match="a is broken"):
            conv.compare("Which?", models=["a", "b"])
        assert (conv.turns, conv.total_cost) == ((), Decimal(0))

    def test_budgets_reserve_for_all_before_the_first(self, server: ChatServer) -> None:
        """If all together exceed the budget, nothing is sent, and nothing stays reserved."""
        provider = OpenAIProvider("a", api_key="sk-none", base_url=server.url, prices=PRICES)
        manager = ConversationManager(provider, MemoryStore(), budget=Budget("0.01"))
        conv = manager.new_conversation()
        with pytest.raises(BudgetExceededError):
            conv.compare("Which?", models=["a", "b"], max_output_tokens=480)
        assert (server.requests, conv.budget_lines()) == ([], ("budget $0.00 of $0.01 in this conversation",))
        replies(server, "from a")
        conv.compare("Which?", models=["a"], max_output_tokens=480)
        assert conv.budget_lines() == ("budget $0.002 of $0.01 in this conversation",)

    def test_a_stopped_answer_keeps_what_arrived(self, conv: Conversation, server: ChatServer) -> None:
        """Models that were not asked yet are not asked, and cost nothing."""
        from promptkit_nb.chat.options import CallOptions  # noqa: PLC0415 - what a cell uses

        replies(server, "from a", "from b and more")

        def stop_b(model: str, stream: Any) -> None:
            for _ in stream:
                if model == "b":
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            conv.ask_models("Which?", ["a", "b", "c"], CallOptions()).answers(stop_b)
        assert asked(server) == ["a", "b"]
        assert [each.text for each in conv.turns] == ["from a"]
        (version,) = conv.versions(0)
        assert (version.finish_reason, version.text) == ("interrupted", "from")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("a,b", "models='a,b' is not a list of models"),
        ([], "models=[] is not a list of models"),
        (["a", "b", "a"], "model names 'a' twice"),
        (["a", " "], "is not a model name"),
        (["a", 5], "is not a model name"),
    ],
)
def test_wrong_models_are_refused(conv: Conversation, server: ChatServer, models: Any, message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidArgumentError) as caught:
        conv.compare("Which?", models=models)
    assert message in str(caught.value)
    assert server.requests == []


def test_html_is_inert_and_side_by_side(conv: Conversation, server: ChatServer) -> None:
    """Names and texts of models run no code."""
    replies(server, "<script>alert(1)</script>", "**bold**")
    html = conv.compare("Which?", models=["a", "b"])._repr_html_()
    assert "<script" not in html
    assert html.index("&lt;script&gt;") < html.index("<strong>bold</strong>")
    assert html.count("flex:1 1 18em") == 2
    assert html.count("<style") == 1


def test_registered_tools_are_offered_to_each_model(manager: ConversationManager, server: ChatServer) -> None:
    """Each runs them for itself, and every request is counted."""

    def order_total(customer: str) -> float:
        """Return a total."""
        return len(customer)

    manager.register_tool(order_total)
    call = {"id": "1", "type": "function", "function": {"name": "order_total", "arguments": '{"customer": "ACME"}'}}
    for text in ("4 it is", "it is 4"):
        server.reply(Reply(text="", tool_calls=[call], finish_reason="tool_calls", usage=USAGE))
        server.reply(Reply(text=text, usage=USAGE))
    conv = manager.new_conversation()
    answers = conv.compare("Total?", models=["a", "b"])
    assert texts(answers) == ["4 it is", "it is 4"]
    assert [answer.cost for answer in answers] == [2 * cost for cost in COSTS[:2]]
    assert conv.total_cost == 2 * sum(COSTS[:2])
