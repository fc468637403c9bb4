"""Budgets in use: checked before each request, and shared by everyone who spends."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    Budget,
    BudgetExceededError,
    ConversationManager,
    ConversationState,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    Message,
    OpenAIProvider,
    ProviderError,
    StoreCorruptedError,
    Turn,
)
from promptkit_nb.chat.pending_turn import PendingTurn
from promptkit_nb.state import Settings
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from promptkit_nb import Conversation, StateStore
    from promptkit_nb.state import Head, Summary
    from promptkit_nb.stores.base import Charge
    from storing import Clock

CALL_USD = Decimal("0.03")
OUTPUT_TOKENS = 1000
PRICES = {"priced": (0.0, 30.0)}  # so a call costs what its answer does: 3 cents for 1,000 tokens


def priced_reply(output_tokens: int = OUTPUT_TOKENS) -> Reply:
    """Return an answer of this many tokens."""
    return Reply(text="Yes.", usage={"prompt_tokens": 10, "completion_tokens": output_tokens})


@pytest.fixture
def priced_server(chat_server: ChatServer) -> ChatServer:
    """A server whose answers cost 3 cents."""
    chat_server.usual = lambda _: priced_reply()
    return chat_server


def manager_for(
    server: ChatServer,
    budget: Budget | Sequence[Budget] | None,
    store: StateStore | None = None,
    *,
    model: str = "priced",
    clock: Clock | None = None,
) -> ConversationManager:
    """Return a manager with this budget."""
    provider = OpenAIProvider(model, api_key="sk-test-1", base_url=server.url, max_retries=0, prices=PRICES)
    return ConversationManager(provider, store, budget=budget, clock=clock or utc_now)


def new_conversation(
    manager: ConversationManager, conversation_id: str = "talk", user_id: str = "alice"
) -> Conversation:
    """Open a conversation of this user."""
    return manager.open_conversation(conversation_id=conversation_id, user_id=user_id)


def ask(conv: Conversation) -> Decimal | None:
    """Send a message whose answer costs 3 cents."""
    return conv.send("Well?", max_output_tokens=OUTPUT_TOKENS).cost


def spent(store: StateStore, scope: str = "total") -> tuple[Decimal | int | None, Decimal | int]:
    """Return the spent and reserved amounts of a scope."""
    account = store.spending(scope)
    return account.spent, account.reserved


class TestLimit:
    """Calls that could exceed a budget are not sent."""

    def test_call_over_the_budget_is_not_sent(self, priced_server: ChatServer, store: StateStore) -> None:
        """No request reaches the server; the conversation does not change."""
        conv = new_conversation(manager_for(priced_server, Budget("0.05"), store))
        assert ask(conv) == CALL_USD
        with pytest.raises(BudgetExceededError) as caught:
            ask(conv)
        assert str(caught.value) == (
            "The budget of $0.05 in this conversation would be exceeded: $0.03 spent, and this call may cost $0.03. "
            "It was not sent; raise the budget, lift it with budget=None, or ask for less with max_output_tokens or a "
            "cheaper model."
        )
        assert (len(priced_server.requests), len(conv.turns)) == (1, 1)
        assert spent(store) == (CALL_USD, 0)

    def test_budget_may_be_used_to_its_end(self, priced_server: ChatServer) -> None:
        """Two calls of 3 cents under a budget of 6."""
        conv = new_conversation(manager_for(priced_server, Budget("0.06")))
        ask(conv)
        ask(conv)
        with pytest.raises(BudgetExceededError):
            ask(conv)
        assert conv.total_cost == Decimal("0.06")

    @pytest.mark.parametrize(
        ("per", "refused"),
        [
            ("conversation", {("talk", "alice")}),
            ("user", {("talk", "alice"), ("other", "alice")}),
            ("day", {("talk", "alice"), ("other", "alice"), ("third", "bob")}),
            ("total", {("talk", "alice"), ("other", "alice"), ("third", "bob")}),
        ],
    )
    def test_budget_counts_its_own_scope(
        self, priced_server: ChatServer, per: str, refused: set[tuple[str, str]]
    ) -> None:
        """One conversation, all of one user, all of a day, or everything."""
        manager = manager_for(priced_server, Budget("0.05", per=per))  # type: ignore[arg-type]  # one of the four
        ask(new_conversation(manager))
        found: set[tuple[str, str]] = set()
        for conversation_id, user_id in (("talk", "alice"), ("other", "alice"), ("third", "bob")):
            try:
                ask(new_conversation(manager, conversation_id, user_id))
            except BudgetExceededError:
                found.add((conversation_id, user_id))
        assert found == refused

    def test_day_ends_at_midnight_utc(self, priced_server: ChatServer, clock: Clock) -> None:
        """Then the full budget is available again."""
        conv = new_conversation(manager_for(priced_server, Budget("0.05", per="day"), clock=clock))
        ask(conv)
        with pytest.raises(BudgetExceededError):
            ask(conv)
        clock.pass_s(12 * 3600)
        assert ask(conv) == CALL_USD

    def test_manager_of_one_user_spends_under_the_same_budgets(self, priced_server: ChatServer) -> None:
        """Narrowing the manager does not create another budget."""
        manager = manager_for(priced_server, Budget("0.05", per="total"))
        ask(manager.for_user("alice").new_conversation())
        with pytest.raises(BudgetExceededError):
            ask(manager.for_user("bob").new_conversation())

    def test_fork_has_its_own_budget(self, priced_server: ChatServer) -> None:
        """It has paid nothing yet; the total continues."""
        conv = new_conversation(manager_for(priced_server, [Budget("0.05"), Budget("0.08", per="total")]))
        ask(conv)
        fork = conv.fork("other")
        ask(fork)
        with pytest.raises(BudgetExceededError, match="in total"):
            ask(conv.fork("third"))

    def test_deleted_conversations_still_count(self, priced_server: ChatServer, store: StateStore) -> None:
        """Neither deleting a conversation nor creating another one with the same id refunds anything."""
        manager = manager_for(priced_server, Budget("0.05"), store)
        ask(new_conversation(manager))
        manager.delete_conversation("talk")
        with pytest.raises(BudgetExceededError):
            ask(new_conversation(manager))

    def test_calls_before_the_budget_count(self, priced_server: ChatServer, store: StateStore) -> None:
        """It can be set at any time."""
        ask(new_conversation(manager_for(priced_server, None, store)))
        with pytest.raises(BudgetExceededError):
            ask(new_conversation(manager_for(priced_server, Budget("0.05"), store)))

    def test_answer_without_a_limit_is_expected_to_be_average(self, priced_server: ChatServer) -> None:
        """1,000 tokens, or as many as the longest recent answer."""
        conv = new_conversation(manager_for(priced_server, Budget("0.10")))
        priced_server.reply(priced_reply(2000))
        assert conv.send("Well?").cost == Decimal("0.06")
        with pytest.raises(BudgetExceededError, match=r"this call may cost \$0\.06"):
            conv.send("Well?")
        assert ask(conv) == CALL_USD  # of which 1,000 tokens are the default

    def test_model_without_a_price_is_refused(self, priced_server: ChatServer) -> None:
        """Under a budget it gets no request; the error shows how to set its price."""
        conv = new_conversation(manager_for(priced_server, Budget(1)))
        with pytest.raises(InvalidArgumentError) as caught:
            conv.send("Well?", model="llama3.2")
        assert "OpenAIProvider(prices={'llama3.2': (0.15, 0.60)})" in str(caught.value)
        assert (priced_server.requests, conv.turns) == ([], ())
        assert ask(conv) == CALL_USD

    def test_free_model_works_under_any_budget(self, priced_server: ChatServer) -> None:
        """With a price of zero it can be used under a budget of zero."""
        provider = OpenAIProvider("mine", base_url=priced_server.url, prices={"mine": (0, 0)})
        conv = ConversationManager(provider, budget=Budget(0)).new_conversation()
        assert conv.send("Well?").cost == 0

    @pytest.mark.parametrize("wrong", [5, "5/day", [Budget(5), 5]])
    def test_invalid_budget_is_refused(self, priced_server: ChatServer, wrong: object) -> None:
        """The error shows an example."""
        with pytest.raises(InvalidArgumentError, match=r"give Budget\(5, per=\"day\"\)"):
            manager_for(priced_server, wrong)  # type: ignore[arg-type]  # as a user may mistake it


class TestCharges:
    """Every request counts, and nothing else does."""

    def test_rerun_counts(self, priced_server: ChatServer) -> None:
        """Each answer was paid for, including previous versions."""
        conv = new_conversation(manager_for(priced_server, Budget("0.08")))
        ask(conv)
        conv.rerun(0, max_output_tokens=OUTPUT_TOKENS)
        with pytest.raises(BudgetExceededError):
            conv.rerun(0, max_output_tokens=OUTPUT_TOKENS)
        with pytest.raises(BudgetExceededError):
            conv.edit(0, "And?", max_output_tokens=OUTPUT_TOKENS)
        assert (len(priced_server.requests), len(conv.turns), conv.branches()) == (2, 1, ())

    def test_replay_needs_no_budget(self, priced_server: ChatServer) -> None:
        """It is allowed when the budget is used up, and does not change the ledger."""
        manager = manager_for(priced_server, Budget("0.03"))
        conv = new_conversation(manager)
        ask(conv)
        before = spent(manager.store)
        response = conv.rerun(0, max_output_tokens=OUTPUT_TOKENS, replay="auto")
        assert (response.replayed, response.cost, response.saved) == (True, Decimal(0), CALL_USD)
        assert spent(manager.store) == before == (CALL_USD, 0)
        assert len(priced_server.requests) == 1

    def test_summary_counts(self, priced_server: ChatServer) -> None:
        """An explicit summary is checked against the budget and charged."""
        manager = manager_for(priced_server, Budget("0.08"))
        conv = new_conversation(manager)
        ask(conv)
        priced_server.reply(priced_reply(500))
        made = conv.summarize(keep_last=0)
        assert made is not None
        assert made.cost == Decimal("0.015")
        assert spent(manager.store) == (Decimal("0.045"), 0)
        ask(conv)
        with pytest.raises(BudgetExceededError):
            conv.summarize(keep_last=0)
        assert (len(priced_server.requests), len(conv.summaries)) == (3, 1)

    def test_automatic_summary_counts(self, priced_server: ChatServer) -> None:
        """All requests are charged, and the charges add up to the conversation's total."""
        manager = manager_for(priced_server, Budget("0.05"))
        conv = long_talk(manager)
        priced_server.usual = lambda _: priced_reply(50)
        assert conv.send("Well?", max_output_tokens=50).warnings == ()
        requests = len(priced_server.requests)
        assert len(conv.summaries) == requests - 1 > 0
        assert spent(manager.store) == (requests * Decimal("0.0015"), 0) == (conv.total_cost, 0)

    def test_summary_over_the_budget_is_skipped(self, priced_server: ChatServer) -> None:
        """The message is answered, and the answer says what was left out."""
        conv = long_talk(manager_for(priced_server, Budget("0.002")))
        priced_server.reply(priced_reply(50))
        response = conv.send("Well?", max_output_tokens=50)
        (warning,) = response.warnings
        assert warning.startswith(
            "No summary could be made, so 13 older turns stayed out of the request: The budget of"
        )
        assert (response.cost, len(priced_server.requests)) == (Decimal("0.0015"), 1)

    def test_paid_summary_is_not_reported_as_nothing_sent(self, priced_server: ChatServer) -> None:
        """If the budget allows the summary and not the message after it, only the message was not sent."""
        manager = manager_for(priced_server, Budget("0.031"))
        conv = long_talk(manager)
        priced_server.usual = lambda _: priced_reply(50)
        with pytest.raises(BudgetExceededError) as caught:
            conv.send("Well?", max_output_tokens=OUTPUT_TOKENS)
        assert len(conv.summaries) == len(priced_server.requests) > 0
        assert "othing was sent" not in str(caught.value)
        assert "this call may cost $0.03. It was not sent; raise the budget" in str(caught.value)
        assert spent(manager.store)[0] == conv.total_cost == len(conv.summaries) * Decimal("0.0015")

    def test_unpriced_turns_are_listed_with_the_budget(self, priced_server: ChatServer, store: StateStore) -> None:
        """They are not counted, and the line says how many."""
        ask(new_conversation(manager_for(priced_server, None, store)))
        for _ in range(3):
            new_conversation(manager_for(priced_server, None, store)).send("Well?", model="llama3.2")
        conv = new_conversation(manager_for(priced_server, [Budget(1), Budget(2, per="user")], store))
        assert conv.budget_lines() == (
            "budget $0.03 of $1.00 in this conversation · + 3 turns without a price",
            "budget $0.03 of $2.00 for user 'alice' · + 3 turns without a price",
        )


def long_talk(manager: ConversationManager, conversation_id: str = "long", words: int = 25) -> Conversation:
    """Return a conversation whose older turns no longer fit and are summarized."""
    turns = tuple(
        Turn(messages=(Message("user", f"Question {number}"), Message("assistant", "word " * words)))
        for number in range(20)
    )
    settings = Settings(max_tokens=700, context_policy="summarize")
    manager.store.create(ConversationState(conversation_id, user_id="alice", turns=turns, settings=settings))
    return manager.get_conversation(conversation_id)


class TestWarning:
    """At 80 % one warning is given, once."""

    def test_answer_that_reaches_the_fraction_warns(self, priced_server: ChatServer, store: StateStore) -> None:
        """In its ``warnings``; the next one has none, and neither has one of another process."""
        conv = new_conversation(manager_for(priced_server, Budget("0.11"), store))
        warnings = [conv.send("Well?", max_output_tokens=OUTPUT_TOKENS).warnings for _ in range(2)]
        assert warnings == [(), ()]
        response = conv.send("Well?", max_output_tokens=OUTPUT_TOKENS)
        assert response.warnings == ("The budget is nearly spent: $0.09 of $0.11 in this conversation.",)
        assert response.turn.warnings == ()
        again = new_conversation(manager_for(priced_server, Budget("0.11"), store))
        priced_server.reply(priced_reply(600))
        assert again.send("Well?", max_output_tokens=600).warnings == ()

    def test_warning_due_with_a_summary_comes_with_the_next_answer(self, priced_server: ChatServer) -> None:
        """A summary cannot show a warning."""
        conv = new_conversation(manager_for(priced_server, Budget("0.09")))
        ask(conv)
        ask(conv)
        priced_server.reply(priced_reply(500), priced_reply(100))
        conv.summarize(keep_last=0)
        warnings = conv.send("Well?", max_output_tokens=100).warnings
        assert warnings == ("The budget is nearly spent: $0.078 of $0.09 in this conversation.",)

    def test_warning_due_with_a_failed_call_comes_with_the_next_answer(self, priced_server: ChatServer) -> None:
        """Warnings on an error would not be read."""
        conv = new_conversation(manager_for(priced_server, Budget("0.10")))
        ask(conv)
        ask(conv)
        priced_server.reply(replace(priced_reply(), text="word " * 700, cut_after=690))
        with pytest.raises(ProviderError):
            ask(conv)
        priced_server.reply(priced_reply(100))
        (warning,) = conv.send("Well?", max_output_tokens=100).warnings
        assert warning.startswith("The budget is nearly spent: ")


class TestFailures:
    """A failed call releases its reservation, unless the provider may have billed it."""

    @pytest.mark.parametrize("status", [400, 401, 429, 500])
    def test_refused_call_costs_nothing(self, priced_server: ChatServer, store: StateStore, status: int) -> None:
        """And the next call can use it."""
        conv = new_conversation(manager_for(priced_server, Budget("0.03"), store))
        priced_server.reply(error_reply(status, "No."))
        with pytest.raises(ProviderError):
            ask(conv)
        assert spent(store) == (0, 0)
        assert ask(conv) == CALL_USD

    def test_broken_answer_counts_its_output_so_far(self, priced_server: ChatServer) -> None:
        """A provider bills the output so far."""
        manager = manager_for(priced_server, Budget(1))
        priced_server.reply(Reply(text="one two three four", cut_after=3))
        with pytest.raises(ProviderError):
            ask(new_conversation(manager))
        assert spent(manager.store) == (Decimal("0.00006"), 0)

    def test_stopped_answer_counts_its_output_so_far(self, priced_server: ChatServer) -> None:
        """It is stored with its cost."""
        manager = manager_for(priced_server, Budget(1))
        priced_server.reply(Reply(text="one two three four"))
        conv = new_conversation(manager)
        stream = conv.stream("Well?")
        assert next(iter(stream)).strip() == "one"
        stream.close()
        assert conv.turns[0].finish_reason == "interrupted"
        assert spent(manager.store) == (conv.turns[0].cost, 0) == (Decimal("0.00003"), 0)

    def test_answer_that_cannot_be_stored_counts(self, priced_server: ChatServer) -> None:
        """The conversation is gone, and so is the money."""
        manager = manager_for(priced_server, Budget(1))
        conv = new_conversation(manager)
        stream = iter(conv.stream("Well?"))
        next(stream)
        manager.delete_conversation("talk")
        with pytest.raises(Exception, match="was deleted before"):
            list(stream)
        assert spent(manager.store) == (CALL_USD, 0)

    def test_call_stopped_before_any_text_counts_its_request(self, chat_server: ChatServer) -> None:
        """The provider may have read the request, so its input is charged; nothing is stored or stays reserved."""
        chat_server.reply(Reply(text="Yes.", delay_s=5))
        provider = OpenAIProvider("priced", base_url=chat_server.url, prices={"priced": (1000, 1000)})
        manager = ConversationManager(provider, budget=Budget(5))
        conv = new_conversation(manager)
        threading.Thread(target=interrupt_at_first_request, args=(chat_server,)).start()
        with pytest.raises(KeyboardInterrupt):
            conv.send("Well?")
        assert conv.turns == ()
        assert spent(manager.store) == (Decimal("0.009"), 0)

    def test_interrupt_before_the_request_releases_the_estimate(
        self, priced_server: ChatServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C between the reservation and the request leaves nothing reserved."""
        manager = manager_for(priced_server, Budget(1))
        conv = new_conversation(manager)
        monkeypatch.setattr(PendingTurn, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            conv.send("Well?")
        assert (spent(manager.store), priced_server.requests) == ((0, 0), [])

    @pytest.mark.parametrize("budget", [None, Budget(1)])
    @pytest.mark.parametrize("is_stored", [True, False])
    def test_interrupted_summary_is_charged_once(
        self, priced_server: ChatServer, budget: Budget | None, *, is_stored: bool
    ) -> None:
        """Ctrl-C before or after the summary is written: it is paid, and counted once."""
        store = InterruptedStore(is_stored=is_stored)
        conv = new_conversation(manager_for(priced_server, None, store))
        ask(conv)
        priced_server.reply(priced_reply(500))
        with pytest.raises(KeyboardInterrupt):
            manager_for(priced_server, budget, store).get_conversation("talk").summarize(keep_last=0)
        assert len(conv.summaries) == is_stored
        assert spent(store) == (CALL_USD + Decimal("0.015"), 0)

    @pytest.mark.parametrize("budget", [None, Budget(1)])
    def test_summary_of_a_damaged_conversation_is_charged(
        self, priced_server: ChatServer, monkeypatch: pytest.MonkeyPatch, budget: Budget | None
    ) -> None:
        """It cannot be stored, but it was paid for."""
        conv = new_conversation(manager_for(priced_server, budget))
        ask(conv)
        monkeypatch.setattr(conv.store, "add_summary", damaged)
        priced_server.reply(priced_reply(500))
        with pytest.raises(StoreCorruptedError):
            conv.summarize(keep_last=0)
        assert spent(conv.store) == (CALL_USD + Decimal("0.015"), 0)

    def test_damaged_ledger_does_not_lose_a_summary(self, priced_server: ChatServer) -> None:
        """The summary is stored, the message is answered, and the answer warns."""
        store = DamagedLedgerStore()
        conv = long_talk(manager_for(priced_server, None, store))
        priced_server.usual = lambda _: priced_reply(50)
        response = conv.send("Well?", max_output_tokens=50)
        assert (len(conv.summaries), len(conv.turns)) == (1, 21)
        assert any("could not be entered in the ledger of budgets" in warning for warning in response.warnings)

    def test_estimate_of_a_killed_process_counts(self, priced_server: ChatServer, tmp_path: Path, clock: Clock) -> None:
        """It still counts, and after its lease it is shown as unconfirmed."""
        priced_server.reply(replace(priced_reply(), delay_s=30))
        (process,) = spending(priced_server, tmp_path, Budget(1), processes=1, max_output_tokens=OUTPUT_TOKENS)
        while not priced_server.requests:
            time.sleep(0.01)
        process.kill()
        process.join()
        with DiskStore(tmp_path) as store:
            assert spent(store) == (0, CALL_USD)
            clock.now = utc_now() + timedelta(hours=1)
            conv = new_conversation(manager_for(priced_server, Budget("0.05", per="total"), store, clock=clock))
            assert conv.budget_lines() == ("budget $0.00 of $0.05 in total · $0.03 unconfirmed",)
            with pytest.raises(
                BudgetExceededError, match=r"\$0\.00 spent, \$0\.03 unconfirmed, and this call may cost"
            ):
                ask(conv)


def interrupted(*_: object) -> bool:
    """Press Ctrl-C here."""
    raise KeyboardInterrupt


def damaged(*_: object, **__: object) -> Head:
    """Find a damaged conversation here."""
    raise StoreCorruptedError("The conversation 'talk' is damaged.")


class InterruptedStore(MemoryStore):
    """A store in which Ctrl-C is pressed while a summary is stored: before it is written, or after."""

    def __init__(self, *, is_stored: bool) -> None:
        """Choose when."""
        super().__init__()
        self._is_stored = is_stored

    def add_summary(self, conversation_id: str, summary: Summary, *, charge: Charge | None = None) -> Head:
        """Press Ctrl-C."""
        if self._is_stored:
            super().add_summary(conversation_id, summary, charge=charge)
        raise KeyboardInterrupt


class DamagedLedgerStore(MemoryStore):
    """A store whose ledger cannot be read."""

    def append(
        self,
        conversation_id: str,
        turn: Turn,
        *,
        user_id: str = "default",
        create: bool = True,
        charge: Charge | None = None,
    ) -> Head:
        """Refuse to charge."""
        refuse(charge)
        return super().append(conversation_id, turn, user_id=user_id, create=create)

    def add_summary(self, conversation_id: str, summary: Summary, *, charge: Charge | None = None) -> Head:
        """Refuse to charge."""
        refuse(charge)
        return super().add_summary(conversation_id, summary)


def refuse(charge: Charge | None) -> None:
    """Raise ``StoreCorruptedError`` if there is something to charge."""
    if charge is not None:
        raise StoreCorruptedError("The account 'total' is damaged.")


def interrupt_at_first_request(server: ChatServer) -> None:
    """Press Ctrl-C once the server has a request."""
    while not server.requests:
        time.sleep(0.01)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def spend(url: str, directory: Path, conversation_id: str, budget: Budget, max_output_tokens: int | None) -> None:
    """Spend in a separate process until the budget refuses."""
    provider = OpenAIProvider("priced", api_key="sk-test-1", base_url=url, prices=PRICES)
    with DiskStore(directory) as store:
        conv = ConversationManager(provider, store, budget=budget).new_conversation(conversation_id=conversation_id)
        with suppress(BudgetExceededError):
            while True:
                conv.send("Well?", max_output_tokens=max_output_tokens)


def spending(
    server: ChatServer, directory: Path, budget: Budget, *, processes: int, max_output_tokens: int | None
) -> list[BaseProcess]:
    """Start processes that spend; their imports are shared."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["promptkit_nb", "openai", "tiktoken", "test_budgets_in_use"])
    started: list[BaseProcess] = [
        context.Process(target=spend, args=(server.url, directory, f"p{number}", budget, max_output_tokens))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    return started


@pytest.mark.parametrize("max_output_tokens", [1000, None])
def test_ten_processes_stay_under_one_budget(
    chat_server: ChatServer, tmp_path: Path, max_output_tokens: int | None
) -> None:
    """Together never more than the budget, and within one call of it."""
    usd = Decimal(1000) * 30 / 1_000_000
    budget = Budget(33 * usd + Decimal("0.01"), per="total")
    chat_server.usual = lambda _: replace(priced_reply(1000), delay_s=0.02)
    with DiskStore(tmp_path) as store:
        new_conversation(manager_for(chat_server, budget, store)).send("Well?", max_output_tokens=max_output_tokens)
    processes = spending(chat_server, tmp_path, budget, processes=10, max_output_tokens=max_output_tokens)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 10
    with DiskStore(tmp_path) as store:
        turns = sum(head.turn_count for head in store.list())
        assert (turns, len(chat_server.requests)) == (33, 33)
        assert spent(store) == (33 * usd, 0)
