"""A prompt over the rows of a DataFrame: what is sent, what comes back, and that nothing is lost or paid twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pydantic
import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    AuthenticationError,
    Budget,
    BudgetExceededError,
    ConversationExistsError,
    ConversationManager,
    DemoProvider,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    OpenAIProvider,
    ProviderUnavailableError,
    RateLimitError,
    ReplayMissError,
    ask_rows,
    turns_df,
    usage_df,
)
from promptkit_nb.chat.options import CallOptions
from promptkit_nb.rows.asking import RowsRun
from promptkit_nb.rows.estimate import RowsEstimate
from promptkit_nb.rows.following import Following
from promptkit_nb.rows.progress import Progress
from promptkit_nb.rows.workers import Answered, Ended, Workers
from promptkit_nb.stores.ledger import scopes_of
from promptkit_nb.turns import utc_now
from row_server import AllowsFour, Failing, answered_texts, asked_text

if TYPE_CHECKING:
    from pathlib import Path

    from chat_server import Request
    from promptkit_nb.stores.base import StateStore

LABELS = ["bug", "idea"]


def manager_of(server: ChatServer, store: StateStore | None = None, **options: Any) -> ConversationManager:
    """Return a manager whose model costs a dollar per million tokens."""
    return ConversationManager(OpenAIProvider("m", base_url=server.url, prices={"m": (1, 1)}), store, **options)


def frame_of(rows: int, distinct: int) -> pd.DataFrame:
    """Return a frame with so many rows, whose index is not from 0."""
    return pd.DataFrame({"text": [f"text {at % distinct}" for at in range(rows)]}, index=range(1000, 1000 + rows))


def labeling(request: Request) -> Reply:
    """Answer with a label that depends on the text."""
    number = int(asked_text(request).split()[-1])
    return Reply(text=f'{{"value": "{LABELS[number % 2]}"}}')


def test_one_request_for_each_distinct_text(chat_server: ChatServer) -> None:
    """The answers are in the rows' order, with their index; each text was asked once."""
    chat_server.usual = labeling
    df = frame_of(500, 100)
    out = ask_rows(
        df, "Classify: {{ text }}", into="label", schema=LABELS, max_workers=8, manager=manager_of(chat_server)
    )
    assert answered_texts(chat_server) == Counter({f"Classify: text {at}": 1 for at in range(100)})
    assert out.index.equals(df.index)
    assert out["label"].tolist() == [LABELS[at % 100 % 2] for at in range(500)]
    assert list(df.columns) == ["text"]


def test_the_columns(chat_server: ChatServer) -> None:
    """What a row cost is on the first of the rows with its text, so that the sum is what was paid."""
    chat_server.usual = labeling
    out = ask_rows(frame_of(4, 2), "{{ text }}", into="label", schema=LABELS, manager=manager_of(chat_server))
    assert [(name, str(dtype)) for name, dtype in out.dtypes.items()] == [
        ("text", "str"),
        ("label", "category"),
        ("label_error", "str"),
        ("label_cost_usd", "Float64"),
        ("label_replayed", "bool"),
    ]
    assert list(out["label"].cat.categories) == LABELS
    assert out["label_cost_usd"].tolist() == [0.000015, 0.000015, 0.0, 0.0]
    assert not out["label_replayed"].any()
    assert out["label_error"].isna().all()


def test_a_second_run_sends_nothing(chat_server: ChatServer, tmp_path: Path) -> None:
    """Another process, too: what is stored is replayed, and costs nothing."""
    for _ in range(2):
        with DiskStore(tmp_path) as store:
            out = ask_rows(frame_of(30, 10), "{{ text }}", into="answer", manager=manager_of(chat_server, store))
    assert len(chat_server.requests) == 10
    assert out["answer"].tolist() == [f"You said: text {at % 10}" for at in range(30)]
    assert out["answer_replayed"].all()
    assert out["answer_cost_usd"].sum() == 0


def test_only_new_texts_are_sent(chat_server: ChatServer) -> None:
    """More rows under the same name: the others are stored."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(10, 10), "{{ text }}", into="answer", limit=3, manager=manager)
    out = ask_rows(frame_of(10, 10), "{{ text }}", into="answer", manager=manager)
    assert out["answer_replayed"].tolist() == [True] * 3 + [False] * 7
    assert len(chat_server.requests) == 10


def test_limit_returns_the_first_rows(chat_server: ChatServer) -> None:
    """To look at a few first."""
    out = ask_rows(frame_of(10, 10), "{{ text }}", into="answer", limit=2, manager=manager_of(chat_server))
    assert out.index.tolist() == [1000, 1001]
    assert len(chat_server.requests) == 2


def test_fresh_asks_again(chat_server: ChatServer) -> None:
    """What is stored, too."""
    manager = manager_of(chat_server)
    for _ in range(2):
        out = ask_rows(frame_of(3, 3), "{{ text }}", into="answer", fresh=True, manager=manager)
    assert len(chat_server.requests) == 6
    assert not out["answer_replayed"].any()


def test_fresh_answers_count_from_then_on(chat_server: ChatServer) -> None:
    """Of all stored answers the newest one, so that nothing is paid for in vain; the others stay in use."""
    manager = manager_of(chat_server)
    chat_server.usual = lambda _: Reply(text="old")
    ask_rows(frame_of(3, 3), "{{ text }}", into="a", manager=manager)
    chat_server.usual = lambda _: Reply(text="new")
    ask_rows(frame_of(3, 3), "{{ text }}", into="a", limit=2, fresh=True, manager=manager)
    out = ask_rows(frame_of(3, 3), "{{ text }}", into="a", manager=manager)
    assert out["a"].tolist() == ["new", "new", "old"]
    assert out["a_cost_usd"].tolist() == [0.0, 0.0, 0.0]
    assert len(chat_server.requests) == 5


def test_a_recording_comes_before_the_store(chat_server: ChatServer) -> None:
    """Its newest answer to a question counts, but never one that was interrupted."""
    manager = manager_of(chat_server)
    for text in ("first", "second", "third"):
        chat_server.usual = lambda _, text=text: Reply(text=text)  # type: ignore[misc]  # bound now
        ask_rows(frame_of(1, 1), "{{ text }}", into="a", fresh=True, manager=manager)
    first, second, third = manager.store.get("rows:a").turns
    recording = [second, first, replace(third, finish_reason="interrupted")]
    recorded = manager_of(chat_server, manager.store, recording=recording)
    out = ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=recorded)
    assert (out["a"].tolist(), len(chat_server.requests)) == (["second"], 3)


def test_an_interrupted_recording_is_not_replayed(chat_server: ChatServer) -> None:
    """The row is asked instead."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=manager)
    recording = [replace(turn, finish_reason="interrupted") for turn in manager.store.get("rows:a").turns]
    out = ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=manager_of(chat_server, recording=recording))
    assert (out["a_replayed"].tolist(), len(chat_server.requests)) == ([False], 2)


def test_requests_carry_no_history(chat_server: ChatServer) -> None:
    """The system prompt and the row, whatever was asked before."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(3, 3), "{{ text }}", into="answer", system_prompt="Be brief.", max_workers=1, manager=manager)
    assert [request.body["messages"] for request in chat_server.requests] == [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"text {at}"}] for at in range(3)
    ]


def test_each_answer_is_a_turn(chat_server: ChatServer) -> None:
    """Of the conversation ``rows:NAME``, in all views, never stale, with the index of its row."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(4, 2), "{{ text }}", into="label", name="labels", max_workers=1, manager=manager)
    turns = manager.store.get("rows:labels").turns
    assert [(turn.user_text, turn.row_index, turn.cost) for turn in turns] == [
        ("text 0", "1000", Decimal("0.000015")),
        ("text 1", "1001", Decimal("0.000015")),
    ]
    assert manager.get_conversation("rows:labels").stale_turns == ()
    assert not turns_df(manager.store, prefix="rows:")["stale"].any()
    assert usage_df(manager.store, by="model")["turns"].tolist() == [2]
    assert manager.list_conversations(prefix="rows:")[0].kind == "rows"


def test_send_is_refused(chat_server: ChatServer) -> None:
    """The answers do not follow each other."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(1, 1), "{{ text }}", into="answer", manager=manager)
    with pytest.raises(InvalidArgumentError, match=r"'rows:answer' has the answers for rows of a DataFrame"):
        manager.get_conversation("rows:answer").send("And now?")


class TestEstimate:
    def test_nothing_is_sent_or_stored(self, chat_server: ChatServer) -> None:
        """Rows, distinct texts, tokens, and a range of the cost."""
        manager = manager_of(chat_server)
        found = ask_rows(frame_of(50, 10), "{{ text }}", into="a", schema=LABELS, estimate=True, manager=manager)
        assert isinstance(found, RowsEstimate)
        assert (found.rows, found.distinct_texts, found.to_send) == (50, 10, 10)
        assert found.input_tokens > 100
        assert found.low_usd is not None
        assert found.high_usd is not None
        assert 0 < found.low_usd < found.high_usd < Decimal("0.001")
        assert chat_server.requests == []
        assert manager.list_conversations() == []

    def test_what_is_stored_costs_nothing(self, chat_server: ChatServer) -> None:
        """Only what is missing is estimated."""
        manager = manager_of(chat_server)
        ask_rows(frame_of(5, 5), "{{ text }}", into="a", manager=manager)
        found = ask_rows(frame_of(5, 5), "{{ text }}", into="a", estimate=True, manager=manager)
        assert str(found) == "a: 5 rows · 5 distinct texts · 5 answered already · 0 to send"

    def test_an_unknown_price_stays_unknown(self, chat_server: ChatServer) -> None:
        """It is never 0."""
        manager = ConversationManager(OpenAIProvider("own-model", base_url=chat_server.url))
        found = ask_rows(frame_of(1, 1), "{{ text }}", into="a", estimate=True, manager=manager)
        assert (found.low_usd, found.high_usd) == (None, None)
        assert str(found).endswith("· price unknown")


class TestLines:
    def test_before_and_after(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """One line each."""
        manager = manager_of(chat_server)
        ask_rows(frame_of(4, 2), "{{ text }}", into="a", max_output_tokens=10, manager=manager)
        ask_rows(frame_of(4, 2), "{{ text }}", into="a", max_output_tokens=10, manager=manager)
        assert capsys.readouterr().out.splitlines() == [
            "a: 4 rows · 2 distinct texts · 2 to send · about 20 tokens in · $0.000022 to $0.00004",
            "4 ok · $0.00003",
            "a: 4 rows · 2 distinct texts · 2 answered already · 0 to send",
            "4 ok · $0.00 · 4 replayed",
        ]

    def test_failed_rows(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """How many, what they cost, and the next step."""
        chat_server.usual = lambda request: Reply(text="x" if asked_text(request) == "text 1" else '{"value": 3}')
        out = ask_rows(
            frame_of(3, 3), "{{ text }}", into="n", schema=int, max_workers=1, manager=manager_of(chat_server)
        )
        assert out["n"].tolist() == [3, pd.NA, 3]
        assert out["n_error"].tolist()[1].startswith("SchemaError: The model's answers do not fit the schema")
        assert capsys.readouterr().out.splitlines()[1:] == [
            "2 ok · 1 failed · $0.00006",
            "n_error says why; the same call asks only the failed rows again.",
        ]

    def test_answers_that_were_cut(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """Are kept, and counted by rows, in this run and the next."""
        chat_server.usual = lambda request: Reply(
            text="fine", finish_reason="stop" if asked_text(request) == "text 1" else "length"
        )
        manager = manager_of(chat_server)
        for _ in range(2):
            out = ask_rows(frame_of(4, 3), "{{ text }}", into="a", max_output_tokens=1, manager=manager)
            assert out["a"].tolist() == ["fine"] * 4
        assert capsys.readouterr().out.splitlines()[1::2] == [
            "4 ok · 3 cut at max_output_tokens · $0.000045",
            "4 ok · 3 cut at max_output_tokens · $0.00 · 4 replayed",
        ]

    def test_a_value_that_does_not_fit(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """The row says why, without a class that users do not know; the same call asks it again."""
        chat_server.usual = lambda _: Reply(text='{"value": 9223372036854775808}')
        manager = manager_of(chat_server)
        out = ask_rows(frame_of(1, 1), "{{ text }}", into="n", schema=int, manager=manager)
        assert out["n_error"].tolist() == ["n: 9223372036854775808 does not fit into Int64"]
        assert capsys.readouterr().out.splitlines()[1:] == [
            "0 ok · 1 failed · $0.000015",
            "n_error says why; the same call asks only the failed rows again.",
        ]
        chat_server.usual = lambda _: Reply(text='{"value": 7}')
        out = ask_rows(frame_of(1, 1), "{{ text }}", into="n", schema=int, manager=manager)
        assert (out["n"].tolist(), out["n_error"].isna().tolist(), len(chat_server.requests)) == ([7], [True], 2)

    def test_failed_rows_of_a_fresh_run(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """The same call would ask all rows again."""
        chat_server.usual = lambda _: error_reply(400, "Bad parameter")
        ask_rows(frame_of(1, 1), "{{ text }}", into="a", fresh=True, manager=manager_of(chat_server))
        assert capsys.readouterr().out.splitlines()[-1] == (
            "a_error says why; the same call without fresh=True asks only the failed rows again."
        )

    def test_an_unknown_price_of_failed_rows(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """It is not 0: they may have cost something."""
        manager = ConversationManager(OpenAIProvider("own-model", base_url=chat_server.url))
        ask_rows(frame_of(1, 1), "{{ text }}", into="n", schema=int, manager=manager)
        assert "0 ok · 1 failed · price unknown" in capsys.readouterr().out

    def test_changes(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """A changed template, schema, or model is named, with the new cost, before anything is sent."""
        manager = manager_of(chat_server)
        ask_rows(frame_of(1, 1), "A {{ text }}", into="a", manager=manager)
        chat_server.usual = lambda _: Reply(text='{"value": 3}')
        capsys.readouterr()
        ask_rows(frame_of(1, 1), "B {{ text }}", into="a", model="n", schema=int, manager=manager)
        assert capsys.readouterr().out.splitlines()[:4] == [
            "a: 1 row · 1 distinct text · 1 to send · about 42 tokens in · price unknown",
            'changed since the last run of \'a\': template "A {{ text }}" → "B {{ text }}"',
            "changed since the last run of 'a': another schema",
            'changed since the last run of \'a\': model "m" → "n"',
        ]

    def test_the_bar(self, chat_server: ChatServer, capfd: pytest.CaptureFixture[str]) -> None:
        """It counts what is done and failed, shows dollars and the rate, and says why all wait."""
        slow_down = iter([error_reply(429, "Slow down", headers={"retry-after-ms": "20"})])

        def answer(request: Request) -> Reply:
            text = asked_text(request)
            if text == "text 3":
                return error_reply(400, "Bad text")
            return next(slow_down, Reply()) if text == "text 5" else Reply()

        chat_server.usual = answer
        ask_rows(frame_of(8, 8), "{{ text }}", into="a", max_workers=4, manager=manager_of(chat_server))
        shown = capfd.readouterr().err
        assert "a: 100%" in shown
        assert "8/8" in shown
        assert "429: waiting 0.02 s, 4 → 2 at once" in shown
        assert re.search(r"(text/s|s/text), 1 failed, \$0\.0001\d* of \$0\.00\d+ to \$0\.00\d+\]", shown)

    def test_a_batch_run_has_no_bar(self, chat_server: ChatServer, capfd: pytest.CaptureFixture[str]) -> None:
        """Elsewhere there is one, with failures and dollars."""
        ask_rows(frame_of(2, 2), "{{ text }}", into="a", manager=manager_of(chat_server))
        assert "2/2" in capfd.readouterr().err


class TestFailures:
    def test_a_server_that_fails_one_time_in_ten(self, chat_server: ChatServer) -> None:
        """With HTTP 429, HTTP 500, and by breaking off: every row is answered, once."""
        chat_server.usual = failing = Failing()
        out = ask_rows(frame_of(200, 100), "{{ text }}", into="a", max_workers=8, manager=manager_of(chat_server))
        assert out["a"].tolist() == ["fine"] * 200
        assert failing.good == 100

    def test_a_server_that_allows_four(self, chat_server: ChatServer) -> None:
        """Eight workers make fewer than 1.3 requests for each row: they wait together."""
        chat_server.usual = AllowsFour()
        ask_rows(frame_of(100, 100), "{{ text }}", into="a", max_workers=8, manager=manager_of(chat_server))
        assert len(chat_server.requests) < 130

    def test_one_request_learns_what_the_server_takes(self, chat_server: ChatServer) -> None:
        """It alone tries the three forms of a schema that are refused; then all workers ask in the prompt."""

        def without_schemas(request: Request) -> Reply:
            if "response_format" in request.body:
                return error_reply(400, "response_format is not supported")
            return Reply(text='{"value": "bug"}', delay_s=0.01)

        chat_server.usual = without_schemas
        manager = manager_of(chat_server)
        out = ask_rows(frame_of(40, 40), "{{ text }}", into="a", schema=LABELS, max_workers=8, manager=manager)
        assert out["a"].tolist() == ["bug"] * 40
        assert len(chat_server.requests) == 40 + 3
        assert [request.body.get("response_format", {}).get("type") for request in chat_server.requests[:4]] == [
            "json_schema",
            "json_schema",
            "json_object",
            None,
        ]

    def test_an_exhausted_quota_stops_at_once(self, chat_server: ChatServer) -> None:
        """Waiting does not help."""
        chat_server.usual = lambda _: error_reply(429, "You exceeded your quota.", code="insufficient_quota")
        with pytest.raises(RateLimitError, match="The quota is used up") as caught:
            ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_workers=8, manager=manager_of(chat_server))
        assert len(chat_server.requests) == 1
        assert caught.value.frame is not None
        assert caught.value.frame["a"].isna().all()

    def test_a_wrong_key_stops_at_once(self, chat_server: ChatServer) -> None:
        """One request, not one for each worker."""
        chat_server.usual = lambda _: error_reply(401, "Incorrect API key provided")
        with pytest.raises(AuthenticationError):
            ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_workers=8, manager=manager_of(chat_server))
        assert len(chat_server.requests) == 1

    def test_ten_failures_in_a_row_stop(self, chat_server: ChatServer) -> None:
        """A model that never fits the schema costs ten rows, not all of them."""
        chat_server.usual = lambda _: error_reply(400, "Bad parameter")
        with pytest.raises(Exception, match="the same call sends only the rest"):
            ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_workers=1, manager=manager_of(chat_server))
        assert len(chat_server.requests) == 10

    def test_a_dead_server(self, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The run stops; once the server is back, the same call sends what is missing."""
        monkeypatch.setattr("promptkit_nb.rows.workers._FIRST_WAIT_S", 0.001)
        manager = manager_of(chat_server)
        chat_server.reply(*[Reply() for _ in range(5)])
        chat_server.usual = lambda _: error_reply(503, "Down")
        with pytest.raises(ProviderUnavailableError) as caught:
            ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_workers=1, manager=manager)
        assert caught.value.frame is not None
        assert caught.value.frame["a"].notna().sum() == 5
        chat_server.usual = lambda _: Reply()
        out = ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_workers=1, manager=manager)
        assert out["a_replayed"].sum() == 5
        assert out["a"].notna().all()

    def test_a_full_budget(self, chat_server: ChatServer) -> None:
        """The run stops before the limit; with more money, the same call sends what is missing."""
        store = MemoryStore()
        budget = Budget("0.0002", per="total")
        manager = manager_of(chat_server, store, budget=budget)
        with pytest.raises(BudgetExceededError, match="the same call sends only the rest") as caught:
            ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_output_tokens=10, max_workers=4, manager=manager)
        assert store.spending("total").spent <= budget.usd
        assert caught.value.frame is not None
        answered = caught.value.frame["a"].notna().sum()
        assert answered >= 10
        ask_rows(frame_of(50, 50), "{{ text }}", into="a", max_output_tokens=10, manager=manager_of(chat_server, store))
        assert len(chat_server.requests) == 50

    def test_strict_replay_sends_nothing(self, chat_server: ChatServer) -> None:
        """The error says how much is missing."""
        store = MemoryStore()
        ask_rows(frame_of(2, 2), "{{ text }}", into="a", manager=manager_of(chat_server, store))
        with pytest.raises(ReplayMissError, match="1 distinct text of 'a' have no recorded answer"):
            ask_rows(frame_of(3, 3), "{{ text }}", into="a", manager=manager_of(chat_server, store, replay="strict"))
        assert len(chat_server.requests) == 2

    def test_ctrl_c_lets_the_answers_arrive(self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
        """They are paid for; the same call sends what is missing."""

        def interrupting(request: Request) -> Reply:
            if asked_text(request) == "text 6":
                os.kill(os.getpid(), signal.SIGINT)
            return Reply(delay_s=0.1)

        chat_server.usual = interrupting
        manager = manager_of(chat_server)
        with pytest.raises(KeyboardInterrupt):
            ask_rows(frame_of(40, 40), "{{ text }}", into="a", max_workers=4, manager=manager)
        sent = len(chat_server.requests)
        assert len(manager.store.get("rows:a").turns) == sent < 40
        out = capsys.readouterr().out
        assert "stopped; the same call sends only the rest" in out
        assert re.search(
            r"^stopping when the .*answers? under way ha(s|ve) arrived; interrupt again to stop now$", out, re.MULTILINE
        )
        chat_server.usual = lambda _: Reply()
        ask_rows(frame_of(40, 40), "{{ text }}", into="a", max_workers=4, manager=manager)
        assert len(chat_server.requests) == 40

    def test_an_interrupt_with_nothing_under_way(
        self, chat_server: ChatServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing is said about answers that will arrive."""
        workers = Workers(lambda _: pytest.fail("nothing is asked"), (), 1)
        run = RowsRun.of(
            frame_of(1, 1),
            "{{ text }}",
            into="a",
            name=None,
            options=CallOptions(),
            manager=manager_of(chat_server),
            system_prompt=None,
        )
        following = Following(workers, run.answers, Progress(run.estimate()))
        following._take[Ended] = lambda _: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            following.to_the_end()
        assert capsys.readouterr().out == ""

    def test_an_interrupt_loses_the_last_event(self, chat_server: ChatServer) -> None:
        """The run ends nevertheless, because no worker is alive."""
        conversation = manager_of(chat_server).new_conversation()
        workers = Workers(lambda number: conversation.stream(f"text {number}"), range(1), 1)
        answered, ended = workers.events.get(timeout=60), workers.events.get(timeout=60)
        assert (type(answered), type(ended)) == (Answered, Ended)
        df = frame_of(1, 1)
        run = RowsRun.of(
            df,
            "{{ text }}",
            into="a",
            name=None,
            options=CallOptions(),
            manager=manager_of(chat_server),
            system_prompt=None,
        )
        following = Following(workers, run.answers, Progress(run.estimate()))
        following.to_the_end()
        assert following.stopped_by is None


RUN = """
import sys
import pandas as pd
from promptkit_nb import ConversationManager, DiskStore, OpenAIProvider, ask_rows
import promptkit_nb.rows.lease
promptkit_nb.rows.lease.LASTS_S = float(sys.argv[3])
url, directory = sys.argv[1:3]
df = pd.DataFrame({"text": [f"text {at % 60}" for at in range(120)]})
manager = ConversationManager(OpenAIProvider("m", base_url=url, prices={"m": (1, 1)}), DiskStore(directory))
out = ask_rows(df, "{{ text }}", into="a", max_workers=4, manager=manager)
assert out["a"].notna().all()
"""


def running(
    server: ChatServer, directory: Path, lease_s: float = 15.0, stdout: int | None = None
) -> subprocess.Popen[str]:
    """Start a process that asks 120 rows with 60 distinct texts."""
    arguments = [server.url, str(directory), str(lease_s)]
    return subprocess.Popen([sys.executable, "-u", "-c", RUN, *arguments], text=True, stdout=stdout)


class TestProcesses:
    def test_kill_9_in_the_middle(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """A new run makes only the missing requests: what was stored is not asked again."""
        reached = threading.Event()

        def slow(request: Request) -> Reply:
            if len(chat_server.requests) > 20:
                reached.set()
            return Reply(delay_s=0.03)

        chat_server.usual = slow
        with running(chat_server, tmp_path, lease_s=2.0) as process:
            assert reached.wait(180)
            process.kill()
        with DiskStore(tmp_path) as store:
            stored = {turn.user_text for turn in store.get("rows:a").turns}
        with running(chat_server, tmp_path) as process:
            assert process.wait(180) == 0
        asked = answered_texts(chat_server)
        assert len(stored) >= 10
        assert {asked[text] for text in stored} == {1}
        assert len(asked) == 60
        assert asked.total() <= 64  # the four that were under way are asked again

    def test_two_kernels_pay_for_nothing_twice(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """The second waits for the answers of the first."""
        chat_server.usual = lambda _: Reply(delay_s=0.02)
        with running(chat_server, tmp_path) as first, running(chat_server, tmp_path) as second:
            assert (first.wait(180), second.wait(180)) == (0, 0)
        assert answered_texts(chat_server) == Counter({f"text {at}": 1 for at in range(60)})

    def test_a_stopped_kernel_is_waited_for(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """SIGSTOP for longer than its lease: the requests under way are not sent by another kernel, too."""
        under_way, go = threading.Event(), threading.Event()

        def held_back(request: Request) -> Reply:
            if len(chat_server.requests) > 1:  # the first goes alone
                under_way.set()
                go.wait(180)
            return Reply()

        chat_server.usual = held_back
        lease = scopes_of("rows:a", "default", utc_now())["conversation"] + ":run"
        with running(chat_server, tmp_path, lease_s=2) as first, DiskStore(tmp_path) as store:
            assert under_way.wait(180)
            os.kill(first.pid, signal.SIGSTOP)
            with running(chat_server, tmp_path, lease_s=2, stdout=subprocess.PIPE) as second:
                assert second.stdout is not None
                line = second.stdout.readline()
                sent = len(chat_server.requests)
                while len(chat_server.requests) == sent and not store.spending(lease).unconfirmed(utc_now()):
                    time.sleep(0.05)
                time.sleep(1.5)  # in which the second tries three times to take it over
                sent_since = len(chat_server.requests) - sent
                go.set()
                os.kill(first.pid, signal.SIGCONT)
                second.stdout.read()
            assert (first.wait(180), second.wait(180)) == (0, 0)
        assert line.startswith("another kernel is asking the rows of 'a'")
        assert sent_since == 0
        assert answered_texts(chat_server) == Counter({f"text {at}": 1 for at in range(60)})


class TestTemplates:
    def filled(self, template: str, df: pd.DataFrame) -> list[Any]:
        """Return what the demo provider is asked; nothing for rows that are not asked."""
        manager = ConversationManager(DemoProvider())
        out = ask_rows(df, template, into="a", max_workers=1, manager=manager)
        texts = {turn.row_index: turn.user_text for turn in manager.store.get("rows:a").turns}
        return [texts.get(str(label)) for label in out.index]

    def test_expressions(self) -> None:
        """What a chat cell allows."""
        df = pd.DataFrame({"text": ["a", "b"], "unit price": [1.5, 2.25], "n": [1, 2]})
        assert self.filled('{{ text.upper() }} {{ row["unit price"] }} {{ n }} {"a": {{ n }}}', df) == [
            'A 1.5 1 {"a": 1}',
            'B 2.25 2 {"a": 2}',
        ]

    def test_missing_values(self) -> None:
        """They are left out; a row without any value is not asked."""
        df = pd.DataFrame({"text": ["a", None, None], "n": [1.0, 2.0, None]})
        assert self.filled("{{ text }}/{{ n }}", df) == ["a/1.0", "/2.0", None]

    def test_why_a_row_is_not_asked(self, tmp_path: Path) -> None:
        """In its error column."""
        df = pd.DataFrame({"photo": ["a.png", None]})
        manager = ConversationManager(DemoProvider())
        df["photo"] = [str(tmp_path / "a.png"), None]
        out = ask_rows(df, "What is this? {{ Path(photo) }}", into="a", manager=manager)
        assert out["a_error"][0].startswith("not asked: {{ Path(photo) }} cannot be written as text")
        assert out["a_error"][1] == "not asked: photo is missing"

    def test_pictures(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """A column of paths is sent as pictures."""
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        df = pd.DataFrame({"photo": [str(tmp_path / "a.png")]})
        ask_rows(df, "What is this? {{ Path(photo) }}", into="a", manager=manager_of(chat_server))
        (message,) = chat_server.requests[0].body["messages"]
        assert [part["type"] for part in message["content"]] == ["text", "image_url"]

    @pytest.mark.parametrize(
        ("template", "why"),
        [
            ("{{ txt }}", "the column 'txt', which the DataFrame does not have. Did you mean 'text'?"),
            ('{{ row["txt"] }}', "the column 'txt', which the DataFrame does not have. Did you mean 'text'?"),
            ("Hello", "names no column"),
            ("{{ text + 'x' }}", "is a computation, and computations are not allowed here. Make a column of it"),
            ("{{ text.encode() }} {{ text._x }}", "reads the private attribute _x"),
            ("", "The message is empty"),
        ],
    )
    def test_errors_before_anything_is_sent(self, chat_server: ChatServer, template: str, why: str) -> None:
        """They name the value and the remedy."""
        with pytest.raises(InvalidArgumentError, match=re.escape(why)):
            ask_rows(frame_of(1, 1), template, into="a", manager=manager_of(chat_server))
        assert chat_server.requests == []


class Person(pydantic.BaseModel):
    """A person."""

    name: str


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"into": "text"}, r"The column 'text' exists already, so nothing was sent: drop it with"),
        ({"into": "x_error", "name": "x"}, r"The column 'x_error' exists already"),
        ({}, r"Name the column of the answers"),
        ({"into": " "}, r"into=' ' is not a name"),
        ({"into": "a", "max_workers": 0}, r"max_workers=0 is out of range"),
        ({"into": "a", "max_workers": True}, r"max_workers=True is out of range"),
        ({"into": "a", "limit": 0}, r"limit=0 is out of range"),
        ({"into": "a", "manager": "me"}, r"manager='me' is not a ConversationManager"),
        ({"into": "a", "schema": []}, r"schema=\[\] is not a list of labels"),
        ({"into": "a", "manager": None}, r"There is no manager to ask"),
    ],
)
def test_arguments_that_are_wrong(chat_server: ChatServer, arguments: dict[str, Any], why: str) -> None:
    """An error before anything is sent."""
    with pytest.raises(InvalidArgumentError, match=why):
        ask_rows(frame_of(1, 1), "{{ text }}", **{"manager": manager_of(chat_server), **arguments})
    assert chat_server.requests == []


def test_an_empty_frame(chat_server: ChatServer) -> None:
    """The columns are there, with their dtypes."""
    df = frame_of(1, 1).iloc[:0]
    out = ask_rows(df, "{{ text }}", into="a", schema=LABELS, manager=manager_of(chat_server))
    assert [str(dtype) for dtype in out.dtypes] == ["str", "category", "str", "Float64", "bool"]
    assert chat_server.requests == []


def test_another_use_of_the_id(chat_server: ChatServer) -> None:
    """A chat with the run's id is not written to."""
    manager = manager_of(chat_server)
    manager.new_conversation(conversation_id="rows:a")
    with pytest.raises(InvalidArgumentError, match="'rows:a' is not a run of yours over rows"):
        ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=manager)


def test_another_users_name(chat_server: ChatServer) -> None:
    """It is taken, and nothing is sent or said about it."""
    manager = manager_of(chat_server)
    ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=manager.for_user("alice"))
    with pytest.raises(ConversationExistsError):
        ask_rows(frame_of(1, 1), "{{ text }}", into="a", manager=manager.for_user("bob"))
    assert len(chat_server.requests) == 1


def test_every_store(chat_server: ChatServer, store: StateStore) -> None:
    """Several threads append to one conversation, and a second run reads it in pieces."""
    df = frame_of(40, 20)
    for _ in range(2):
        out = ask_rows(df, "{{ text }}", into="a", max_workers=8, manager=manager_of(chat_server, store))
        assert out["a"].tolist() == [f"You said: text {at % 20}" for at in range(40)]
    assert out["a_replayed"].all()
    assert len(chat_server.requests) == len(store.get("rows:a").turns) == 20


def test_an_index_that_cannot_be_encoded(chat_server: ChatServer, store: StateStore) -> None:
    """Every store has the answer, and a replacement character in the label."""
    df = pd.DataFrame({"text": ["Hi"]}, index=pd.Index(["a\ud800"], dtype=object))
    out = ask_rows(df, "{{ text }}", into="a", manager=manager_of(chat_server, store))
    assert out["a"].tolist() == ["You said: Hi"]
    assert [turn.row_index for turn in store.get("rows:a").turns] == ["a\ufffd"]
