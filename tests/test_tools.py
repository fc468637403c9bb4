"""Tools: functions that the model calls, with the real client and a server that checks what it is sent."""

from __future__ import annotations

import json
import pickle
import signal
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from chat_server import ChatServer, Reply, error_reply
from promptkit_nb import (
    BadRequestError,
    Budget,
    BudgetExceededError,
    ContextWindowExceededError,
    ConversationManager,
    DiskStore,
    InvalidArgumentError,
    MemoryStore,
    OpenAIProvider,
    ProviderError,
    ToolError,
    load_pack,
    usage_df,
)
from promptkit_nb.text.receipts import receipt_of
from promptkit_nb.tools.tool import Tool
from strict_servers import openai_violation, strict
from tool_replies import calling, chunk, pieces, tool_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from promptkit_nb.conversation import Conversation
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.tools.calls import ToolRun

PRICES = {"m": (1.0, 1.0)}
"""A dollar per million tokens; each request of the server takes 15, so it costs 0.000015 dollars."""

ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def orders(customer: str, limit: int = 2) -> list[str]:
    """Return the orders of a customer."""
    ran.append((customer, limit))
    return [f"{customer} {number}" for number in range(limit)]


def fails() -> None:
    """Raise an error."""
    raise KeyError("ACME")


ORDERS = tool_call("orders", {"customer": "ACME"})


def managed(server: ChatServer, **options: Any) -> ConversationManager:
    """Return a manager with the loopback server, which is asked once per request."""
    return ConversationManager(OpenAIProvider("m", base_url=server.url, max_retries=0, prices=PRICES), **options)


def opened(server: ChatServer, replies: list[Reply], **options: Any) -> Conversation:
    """Return a conversation whose requests get these replies, if OpenAI would take them."""
    strict(server, openai_violation, replies=replies)
    return managed(server, **options).new_conversation(system_prompt="You help.", conversation_id="chat")


def results(server: ChatServer, at: int = -1) -> list[str]:
    """Return the tool results in a request."""
    return [each["content"] for each in server.requests[at].body["messages"] if each["role"] == "tool"]


def told(server: ChatServer, reply: Reply, *tools: Callable[..., object] | Tool) -> str:
    """Return what the model is told after this reply."""
    conversation = opened(server, [reply, Reply(text="Done.")])
    assert conversation.send("Go", tools=list(tools)).content == "Done."
    return "\n".join(results(server))


class TestLoop:
    def test_a_called_function_runs_and_the_model_answers_with_its_result(self, chat_server: ChatServer) -> None:
        """One turn holds the question, the call, the result, and the answer; both requests are counted."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")])
        response = conversation.send("How many?", tools=[orders])
        assert (response.content, ran) == ("Two.", [("ACME", 2)])
        assert results(chat_server) == ['["ACME 0", "ACME 1"]']
        (turn,) = conversation.turns
        assert [message.role for message in turn.messages] == ["user", "assistant", "tool", "assistant"]
        assert (turn.usage.input_tokens, turn.usage.output_tokens, turn.cost) == (20, 10, Decimal("0.00003"))

    def test_the_model_knows_name_description_and_schema(self, chat_server: ChatServer) -> None:
        """They come from the function; each request carries them."""
        opened(chat_server, [calling(ORDERS)]).send("How many?", tools=[orders])
        for request in chat_server.requests:
            (tool,) = request.body["tools"]
            assert tool["function"] == {
                "name": "orders",
                "description": "Return the orders of a customer.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "customer": {"type": "string"},
                        "limit": {"type": "integer", "default": 2},
                    },
                    "required": ["customer"],
                    "additionalProperties": False,
                },
            }

    def test_two_calls_in_one_answer_run_in_order(self, chat_server: ChatServer) -> None:
        """Both results follow, each with the id of its call."""
        second = tool_call("orders", {"customer": "Bolt", "limit": 1}, "call_def")
        opened(chat_server, [calling(ORDERS, second)]).send("How many?", tools=[orders])
        assert ran == [("ACME", 2), ("Bolt", 1)]
        ids = [each.get("tool_call_id") for each in chat_server.requests[1].body["messages"]]
        assert ids[-2:] == ["call_abc", "call_def"]

    def test_text_of_each_round_is_streamed(self, chat_server: ChatServer) -> None:
        """What the model says before it calls a tool arrives, too; the answer is the last text."""
        conversation = opened(chat_server, [calling(ORDERS, text="Let me look."), Reply(text="Two.")])
        stream = conversation.stream("How many?", tools=[orders])
        assert "".join(stream) == "Let me look.Two."
        assert stream.response is not None
        assert stream.response.content == "Two."
        assert [message.content for message in conversation.turns[0].messages][1] == "Let me look."

    def test_a_later_request_carries_calls_and_results(self, chat_server: ChatServer) -> None:
        """Without tools, too; OpenAI's rules for pairs and order hold."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")])
        conversation.send("How many?", tools=[orders])
        assert conversation.send("Thanks").content == "Fine."
        roles = [message["role"] for message in chat_server.requests[-1].body["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
        assert "tools" not in chat_server.requests[-1].body

    def test_response_has_the_calls_as_a_frame_and_the_objects(self, chat_server: ChatServer) -> None:
        """The objects are those of this kernel; a stored turn has the calls, but no seconds."""
        conversation = opened(chat_server, [calling(ORDERS, tool_call("fails", {}, "call_def"))])
        response = conversation.send("How many?", tools=[orders, fails])
        assert response.tool_results == (["ACME 0", "ACME 1"], None)
        frame = response.tool_calls
        assert list(frame.columns) == ["round", "tool", "arguments", "result", "seconds", "error"]
        assert frame.drop(columns="seconds").fillna("").to_numpy().tolist() == [
            [1, "orders", '{"customer": "ACME"}', '["ACME 0", "ACME 1"]', ""],
            [1, "fails", "{}", "", "KeyError: 'ACME'"],
        ]
        assert frame["seconds"].notna().all()

    def test_nothing_changes_without_a_call(self, chat_server: ChatServer) -> None:
        """An answer at once is a turn like any other."""
        response = opened(chat_server, []).send("Hi", tools=[orders])
        assert (response.content, response.tool_results, len(response.tool_calls)) == ("Fine.", (), 0)

    def test_progress_is_told(self, chat_server: ChatServer) -> None:
        """At the beginning and at the end of each call."""
        runs: list[ToolRun] = []
        conversation = opened(chat_server, [calling(ORDERS)])
        list(conversation.stream("How many?", tools=[orders], on_tool=runs.append))
        assert [run.is_over for run in runs] == [False, True]
        assert runs[0].line == 'orders(customer="ACME") …'
        assert runs[1].line.startswith('orders(customer="ACME") → list of 2 · 0.')

    def test_receipt_counts_requests_and_calls(self, chat_server: ChatServer) -> None:
        """So that a turn of several requests is not taken for an expensive one."""
        response = opened(chat_server, [calling(ORDERS)]).send("How many?", tools=[orders])
        assert "20/10 tokens · 2 requests · 1 tool call · $0.000030" in receipt_of(response, "")
        assert "m · 2 requests · 1 tool call · &lt;$0.0001" in response._repr_html_()

    def test_rounds_of_thinking_are_kept(self, chat_server: ChatServer) -> None:
        """Each message has its own reasoning, which is not sent again."""
        replies = [calling(ORDERS, reasoning="Look first."), Reply(text="Two.", reasoning="Count.")]
        response = opened(chat_server, replies).send("How many?", tools=[orders])
        assert response.reasoning == "Look first.\n\nCount."
        assert "Look first." not in json.dumps(chat_server.requests[1].body)


class TestErrorsAreToldToTheModel:
    def test_a_failing_tool(self, chat_server: ChatServer) -> None:
        """Type and message, without a traceback."""
        assert told(chat_server, calling(tool_call("fails", {})), fails) == "Error: KeyError: 'ACME'"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"limit": 1}, "Error: The arguments do not fit: customer: Field required"),
            ({"customer": "A", "limit": "x"}, "Error: The arguments do not fit: limit: Input should be a valid"),
            ({"customer": "A", "color": 1}, "Error: The arguments do not fit: color: Extra inputs are not permitted"),
            ("[1]", "Error: The arguments are not a JSON object: [1]"),
            ('{"customer": ', "Error: The arguments are not valid JSON ("),
            ('{"customer": "A"} and more', "Error: The arguments are followed by other text: and more"),
            ('{"customer": NaN}', "Error: The arguments are not valid JSON (NaN is not a JSON number)"),
            ('{"customer": "' + "x" * 1_000_000 + '"}', "Error: The arguments take 1,000,016 characters, more than"),
        ],
    )
    def test_arguments_that_do_not_fit(self, chat_server: ChatServer, arguments: object, words: str) -> None:
        """The function is not called, and the request that follows has valid JSON as arguments."""
        assert told(chat_server, calling(tool_call("orders", arguments)), orders).startswith(words)
        assert ran == []
        sent = chat_server.requests[-1].body["messages"][-2]["tool_calls"][0]["function"]["arguments"]
        assert isinstance(json.loads(sent), dict)

    def test_a_tool_that_was_not_offered(self, chat_server: ChatServer) -> None:
        """The model gets the names of those that were."""
        words = told(chat_server, calling(tool_call("order", {})), orders)
        assert words == "Error: There is no tool 'order', only orders; did you mean 'orders'?"

    def test_an_exception_whose_text_raises(self, chat_server: ChatServer) -> None:
        """Its type is told."""

        class Nasty(Exception):  # noqa: N818 - on purpose
            def __str__(self) -> str:
                raise RuntimeError

        def nasty() -> None:
            raise Nasty

        assert told(chat_server, calling(tool_call("nasty", {})), nasty) == "Error: Nasty"


class TestServersThatDiffer:
    """What servers send instead of what OpenAI documents; the function runs, and the history is what OpenAI takes."""

    PART = {"function": {"name": "orders", "arguments": '{"customer": "ACME"}'}}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        "deltas",
        [
            pytest.param([{"id": "a", **PART}], id="no index"),
            pytest.param([{"index": 0, "id": "", **PART}], id="empty id"),
            pytest.param([{"index": 0, **PART}], id="no id"),
            pytest.param([{"index": 0, "id": "a", "function": {"name": "orders", "arguments": {"customer": "ACME"}}}],
                         id="arguments as an object"),
            pytest.param([{"index": 0, "id": "a", "function": {"name": "orders",
                          "arguments": json.dumps('{"customer": "ACME"}')}}], id="JSON in JSON"),
            pytest.param([{"index": 0, "id": "a", "function": {"name": "orders",
                          "arguments": '```json\n{"customer": "ACME"}\n```'}}], id="a fence"),
            pytest.param([{"index": 0, "id": "a", "function": {"name": "orders",
                          "arguments": '{"customer": "ACME"}</tool_call>'}}], id="a closing tag"),
            pytest.param([{"index": 0, "id": "a", "function": {"name": "orders", "arguments": ""}},
                          {"index": 0, "id": "", "function": {"name": "orders", "arguments": '{"customer": "ACME"}'}}],
                         id="the name in every piece"),
            pytest.param([{"index": 0, "id": "a", "function": {"arguments": '{"customer": "ACME"}'}},
                          {"index": 0, "function": {"name": "orders"}}], id="the name after the arguments"),
        ],
    )  # fmt: skip
    def test_one_call(self, chat_server: ChatServer, deltas: list[object]) -> None:
        """It is read as one call of the function."""
        assert told(chat_server, pieces(*deltas), orders) == '["ACME 0", "ACME 1"]'

    @pytest.mark.parametrize(
        ("indexes", "ids"), [((0, 0), ("a", "b")), ((0, 1), ("a", "a")), ((0, 1), ("", "")), ((None, None), ("a", "b"))]
    )
    def test_two_calls(self, chat_server: ChatServer, indexes: tuple[object, ...], ids: tuple[str, ...]) -> None:
        """Calls that share an index or an id stay two, with ids of their own."""
        deltas = [
            {
                **({} if index is None else {"index": index}),
                "id": call_id,
                "function": {"name": "orders", "arguments": json.dumps({"customer": name})},
            }
            for index, call_id, name in zip(indexes, ids, ("ACME", "Bolt"), strict=True)
        ]
        told(chat_server, pieces(*deltas), orders)
        assert ran == [("ACME", 2), ("Bolt", 2)]
        calls = chat_server.requests[-1].body["messages"][-3]["tool_calls"]
        assert len({call["id"] for call in calls}) == 2

    def test_ids_that_repeat_from_round_to_round(self, chat_server: ChatServer) -> None:
        """They are unique in the turn; those made here are nine letters and digits, which Mistral asks for."""
        no_id = pieces({"index": 0, "function": {"name": "orders", "arguments": '{"customer": "A"}'}})
        conversation = opened(chat_server, [no_id, no_id, Reply(text="Done.")])
        conversation.send("Go", tools=[orders])
        ids = [call.id for message in conversation.turns[0].messages for call in message.tool_calls]
        assert len(set(ids)) == 2
        assert all(len(each) == 9 and each.isalnum() for each in ids)

    def test_fields_of_the_vendor_are_sent_back_within_the_turn(self, chat_server: ChatServer) -> None:
        """Gemini refuses a call without its signature; it is not stored."""
        extra = {"google": {"thought_signature": "s1"}}
        call = {"index": 0, "id": "a", "extra_content": extra, **self.PART}
        chat_server.reply(pieces(call), Reply(text="Two."))
        conversation = managed(chat_server).new_conversation()
        conversation.send("How many?", tools=[orders])
        assert chat_server.requests[1].body["messages"][1]["tool_calls"][0]["extra_content"] == extra
        conversation.send("Thanks")
        assert "extra_content" not in json.dumps(chat_server.requests[2].body)

    @pytest.mark.parametrize(
        ("refusal", "remedy"),
        [
            (
                error_reply(400, "registry.ollama.ai/library/gemma:2b does not support tools"),
                "Choose a model that can call tools",
            ),
            (error_reply(400, "Tools are not supported with this model."), "Choose a model that can call tools"),
            (
                error_reply(400, "Failed to call a function. See 'failed_generation'.", code="tool_use_failed"),
                "The model wrote a tool call that its server could not read: ask again",
            ),
        ],
    )
    def test_refusals_name_the_remedy(self, chat_server: ChatServer, refusal: Reply, remedy: str) -> None:
        """The error has the server's words and what to do; nothing is stored, and without tools the model answers."""
        conv = opened(chat_server, [refusal, Reply(text="Fine.")])
        with pytest.raises(BadRequestError, match=remedy):
            conv.send("Hi", tools=[orders], parameters={"temperature": 0})
        assert conv.send("Hi").content == "Fine."
        assert len(conv.turns) == 1

    def test_a_call_that_the_output_limit_cut_is_not_run(self, chat_server: ChatServer) -> None:
        """An error says what to raise; what was paid is counted."""
        reply = Reply(chunks=[chunk({"tool_calls": [{"index": 0, **ORDERS}]}), chunk({}, finish_reason="length")])
        conversation = opened(chat_server, [reply])
        with pytest.raises(ToolError, match="Raise max_output_tokens"):
            conversation.send("How many?", tools=[orders])
        assert (ran, conversation.turns) == ([], ())


class TestLimits:
    def test_rounds(self, chat_server: ChatServer) -> None:
        """After ten answers that call tools, the eleventh is an error; nothing is stored, and all is paid."""
        replies = [calling(tool_call("orders", {"customer": str(number)})) for number in range(11)]
        conversation = opened(chat_server, replies)
        with pytest.raises(ToolError, match="called tools in 10 answers"):
            conversation.send("Go", tools=[orders])
        assert (len(ran), conversation.turns, len(chat_server.requests)) == (10, (), 11)

    def test_calls(self, chat_server: ChatServer) -> None:
        """The twenty-first call of a turn is not run, and the model is told."""
        calls = [tool_call("orders", {"customer": str(number)}, f"call_{number:03}") for number in range(22)]
        opened(chat_server, [calling(*calls)]).send("Go", tools=[orders])
        assert len(ran) == 20
        assert results(chat_server)[-1] == "Error: Not run: a turn may make 20 calls. Answer with what you have."

    def test_identical_calls(self, chat_server: ChatServer) -> None:
        """The third is not run but answered, the fourth ends the turn with an error that names the tool."""
        same = [calling(tool_call("orders", '{"customer": "A", "limit": 1}'))]
        other = [calling(tool_call("orders", '{"limit": 1, "customer": "A"}'))]
        conversation = opened(chat_server, same + other + same + same)
        with pytest.raises(ToolError, match="keeps calling 'orders' with the same arguments"):
            conversation.send("Go", tools=[orders])
        assert len(ran) == 2
        assert results(chat_server, 3)[-1].startswith("Error: This call was made before")

    def test_time(self, chat_server: ChatServer) -> None:
        """A call that takes longer than its limit is stopped, even in sleep, and the model is told."""

        def sleeps() -> None:
            """Sleep, and catch what can be caught."""
            try:
                time.sleep(30)
            except Exception:  # noqa: BLE001 - as tools do
                ran.append("caught")

        words = told(chat_server, calling(tool_call("sleeps", {})), Tool.of(sleeps, timeout=0.05))
        assert words == "Error: It took longer than 0.05 s and was stopped."
        assert ran == []
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_time_in_another_thread_is_not_kept_and_said(self, chat_server: ChatServer) -> None:
        """Only the main thread can stop a function."""
        conversation = opened(chat_server, [calling(ORDERS)])
        answers: list[Response] = []
        ask = threading.Thread(
            target=lambda: answers.append(conversation.send("Go", tools=[Tool.of(orders, timeout=5)]))
        )
        ask.start()
        ask.join()
        assert answers[0].warnings == (
            "The time limit of tool 'orders' was not kept: only the main thread can stop a function.",
        )

    def test_tools_run_in_the_thread_that_asks(self, chat_server: ChatServer) -> None:
        """Connections and figures of the notebook belong to it."""

        def where() -> str:
            """Return the thread."""
            return threading.current_thread().name

        assert told(chat_server, calling(tool_call("where", {})), where) == threading.current_thread().name

    def test_a_coroutine_runs_to_its_end(self, chat_server: ChatServer) -> None:
        """In an event loop of its own."""

        async def later(x: int) -> int:
            """Return a number."""
            return x + 1

        assert told(chat_server, calling(tool_call("later", {"x": 1})), later) == "2"


class TestMoney:
    def test_every_request_is_reserved(self, chat_server: ChatServer) -> None:
        """A budget that is full after the first request stops the second; what was paid is in ledger and views."""

        def spends() -> str:
            """Spend in another conversation what is left."""
            other.send("Hello", max_output_tokens=5)
            return "spent"

        store = MemoryStore()
        manager = managed(chat_server, store=store, budget=Budget("0.0002", per="total"))
        conversation, other = manager.new_conversation(), manager.new_conversation()
        usage = {"prompt_tokens": 10, "completion_tokens": 150}
        chat_server.reply(calling(tool_call("spends", {})), Reply(text="Hi", usage=usage))
        with pytest.raises(BudgetExceededError):
            conversation.send("Go", tools=[spends], max_output_tokens=5)
        assert conversation.turns == ()
        assert store.spending("total").spent == Decimal("0.000175")
        frame = usage_df(store, by="model")
        assert frame["cost_usd"].tolist() == [0.000175]
        assert frame["total_tokens"].tolist() == [175]

    def test_a_turn_is_charged_once(self, chat_server: ChatServer) -> None:
        """The ledger has the sum of all requests, and nothing stays reserved."""
        store = MemoryStore()
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")], store=store, budget=Budget(1))
        conversation.send("How many?", tools=[orders])
        account = store.spending("conversation:default:chat")
        assert (account.spent, account.reserved) == (Decimal("0.00003"), Decimal(0))
        assert conversation.total_cost == Decimal("0.00003")

    def test_what_a_failed_turn_cost_is_counted(self, chat_server: ChatServer) -> None:
        """The second request fails: nothing is stored, the first is paid, without a budget too."""
        store = MemoryStore()
        conversation = opened(chat_server, [calling(ORDERS), error_reply(400, "Boom")], store=store)
        with pytest.raises(ProviderError, match="Boom"):
            conversation.send("How many?", tools=[orders])
        assert conversation.turns == ()
        assert store.spending("total").spent == Decimal("0.000015")
        assert usage_df(store, by="model")["total_tokens"].tolist() == [15]
        assert conversation.send("Again").content == "Fine."

    def test_one_unknown_price_makes_the_sum_unknown(self, chat_server: ChatServer) -> None:
        """Unknown is not zero."""
        chat_server.reply(calling(ORDERS), Reply(text="Two."))
        provider = OpenAIProvider("unheard-of", base_url=chat_server.url)
        response = ConversationManager(provider).new_conversation().send("Go", tools=[orders])
        assert response.cost is None


class TestStopping:
    def test_in_a_tool(self, chat_server: ChatServer) -> None:
        """Ctrl-C stops the tool; nothing is stored, the request before it is paid."""

        def interrupted() -> None:
            """Be interrupted."""
            signal.raise_signal(signal.SIGINT)
            ran.append("went on")

        store = MemoryStore()
        conversation = opened(chat_server, [calling(tool_call("interrupted", {}))], store=store)
        with pytest.raises(KeyboardInterrupt):
            conversation.send("Go", tools=[interrupted])
        assert (ran, conversation.turns, len(chat_server.requests)) == ([], (), 1)
        assert store.spending("total").spent == Decimal("0.000015")
        assert usage_df(store, by="model")["total_tokens"].tolist() == [15]

    def test_before_the_last_text(self, chat_server: ChatServer) -> None:
        """A loop that is left in the first round's text keeps an interrupted turn, as without tools."""
        conversation = opened(chat_server, [calling(ORDERS, text="Let me look.")])
        for _ in conversation.stream("Go", tools=[orders]):
            break
        assert [turn.finish_reason for turn in conversation.turns] == ["interrupted"]
        assert ran == []

    def test_after_the_first_text_of_the_last_round(self, chat_server: ChatServer) -> None:
        """The turn is interrupted: calls, results, and the partial text are stored, and can be sent again."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two of them.")])
        for piece in conversation.stream("Go", tools=[orders]):
            if piece.strip() == "Two":
                break
        (turn,) = conversation.turns
        assert (turn.finish_reason, turn.text.strip()) == ("interrupted", "Two")
        assert [message.role for message in turn.messages] == ["user", "assistant", "tool", "assistant"]
        assert conversation.send("Go on").content == "Fine."

    def test_exit_in_a_tool(self, chat_server: ChatServer) -> None:
        """SystemExit ends the turn; the model cannot keep a process alive."""

        def leaves() -> None:
            """Exit."""
            raise SystemExit(3)

        conversation = opened(chat_server, [calling(tool_call("leaves", {}))])
        with pytest.raises(SystemExit):
            conversation.send("Go", tools=[leaves])
        assert conversation.turns == ()


class TestReplay:
    def test_tools_do_not_run_again(self, chat_server: ChatServer) -> None:
        """The stored answer is replayed, free of charge; the receipt says that no tool ran."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")], replay="auto")
        conversation.send("How many?", tools=[orders])
        response = conversation.rerun(0, tools=[orders])
        assert (response.content, response.replayed, len(ran), len(chat_server.requests)) == ("Two.", True, 1, 2)
        assert "replayed · tools not run · $0.00" in receipt_of(response, "")
        assert "m · stored answer · tools not run" in response._repr_html_()
        assert (response.tool_results, list(response.tool_calls["tool"])) == ((), ["orders"])

    def test_fresh_runs_them_again(self, chat_server: ChatServer) -> None:
        """As for any other turn."""
        replies = [calling(ORDERS), Reply(text="Two."), calling(ORDERS), Reply(text="Still two.")]
        conversation = opened(chat_server, replies, replay="auto")
        conversation.send("How many?", tools=[orders])
        assert conversation.rerun(0, tools=[orders], fresh=True).content == "Still two."
        assert (len(ran), len(conversation.versions(0))) == (2, 1)

    def test_a_changed_description_asks_again(self, chat_server: ChatServer) -> None:
        """Definitions are part of the key; the body of a function is not."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")], replay="auto")
        conversation.send("How many?", tools=[orders])
        other = Tool("orders", "Something else.", Tool.of(orders).schema, orders)
        assert not conversation.rerun(0, tools=[other]).replayed
        same = Tool("orders", "Return the orders of a customer.", Tool.of(orders).schema, fails)
        assert conversation.rerun(0, tools=[same]).replayed

    def test_without_tools_it_is_another_request(self, chat_server: ChatServer) -> None:
        """And the key of a request without tools is what it always was."""
        conversation = opened(chat_server, [calling(ORDERS), Reply(text="Two.")], replay="auto")
        conversation.send("How many?", tools=[orders])
        assert not conversation.rerun(0).replayed


class TestContextWindow:
    def test_older_turns_make_room_for_results(self, chat_server: ChatServer) -> None:
        """They leave the next request; calls and results stay together."""

        def long() -> str:
            """Return a long text."""
            return "word " * 150

        conversation = opened(chat_server, [])
        for number in range(5):
            conversation.send(f"Number {number}: " + "blah " * 30)
        strict(chat_server, openai_violation, replies=[calling(tool_call("long", {})), Reply(text="Done.")])
        response = "".join(conversation.stream("Go", tools=[long], max_tokens=500))
        assert response == "Done."
        before, after = (len(request.body["messages"]) for request in chat_server.requests[-2:])
        assert after < before + 2

    def test_results_that_do_not_fit(self, chat_server: ChatServer) -> None:
        """An error names the size and the remedy; nothing is stored."""

        def long() -> str:
            """Return a long text."""
            return "word " * 700

        conversation = opened(chat_server, [calling(tool_call("long", {}))])
        with pytest.raises(ContextWindowExceededError, match="Let the tools return less, or raise max_tokens"):
            list(conversation.stream("Go", tools=[long], max_tokens=300))
        assert conversation.turns == ()


class TestRegistered:
    def test_a_registered_tool_is_offered(self, chat_server: ChatServer) -> None:
        """In all conversations of the manager, also in those opened before, unless a call says otherwise."""
        chat_server.reply(calling(ORDERS), Reply(text="Two."))
        manager = managed(chat_server)
        conversation = manager.new_conversation()
        assert manager.register_tool(orders) is orders
        assert conversation.send("How many?").content == "Two."
        conversation.send("Hi", tools=[])
        assert "tools" not in chat_server.requests[-1].body

    def test_a_narrowed_manager_has_the_same_tools(self, chat_server: ChatServer) -> None:
        """Registered before or after it was narrowed."""
        manager = managed(chat_server)
        alice = manager.for_user("alice")
        manager.register_tool(orders)
        alice.new_conversation().send("Hi")
        assert len(chat_server.requests[-1].body["tools"]) == 1

    def test_another_process_has_no_tools(self, chat_server: ChatServer, tmp_path: Path) -> None:
        """Functions of a notebook cannot be pickled; the rest of manager and conversation can."""
        manager = managed(chat_server, store=DiskStore(tmp_path))
        manager.register_tool(lambda: 1, name="one")
        conversation = manager.new_conversation()
        pickle.loads(pickle.dumps(manager)).get_conversation(conversation.id).send("Hi")  # noqa: S301 - our own
        pickle.loads(pickle.dumps(conversation)).send("Hi")  # noqa: S301 - as above
        assert [request for request in chat_server.requests if "tools" in request.body] == []

    def test_dry_run_lists_the_tools(self, chat_server: ChatServer) -> None:
        """Their definitions count in the size of the request."""
        conversation = opened(chat_server, [])
        with_tools, without = conversation.dry_run("Hi", tools=[orders]), conversation.dry_run("Hi")
        assert "tools: orders (each round of calls is one more request)" in str(with_tools)
        assert with_tools.context.token_count > without.context.token_count


LOOK_UP = {
    "name": "look_up",
    "description": "Look up a word.",
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 5}},
        "required": ["word"],
    },
}


def look_up(word: str) -> str:
    """Return it in capitals."""
    ran.append(word)
    return word.upper()


def packed(server: ChatServer, policy: Mapping[str, object] | None = None, **prompt: object) -> Conversation:
    """Return a conversation with a pack that has a tool; both functions are registered."""
    definition = {"system_template": "You help.", "tools": ["look_up"], "tool_policy": dict(policy or {}), **prompt}
    pack = load_pack({"id": "p", "prompts": {"main": definition}, "tools": {"look_up": LOOK_UP}})
    manager = managed(server)
    manager.register_tool(look_up)
    manager.register_tool(orders)
    return manager.get_conversation(manager.new_conversation(pack).id)


class TestPacks:
    def test_the_packs_description_and_schema_are_sent(self, chat_server: ChatServer) -> None:
        """Only tools that the prompt lists are offered; the conversation needs no pack file for it."""
        packed(chat_server).send("Hi")
        (tool,) = chat_server.requests[0].body["tools"]
        assert tool["function"] == LOOK_UP

    def test_arguments_are_checked_against_the_packs_schema(self, chat_server: ChatServer) -> None:
        """The model is told what the schema refuses."""
        chat_server.reply(
            calling(tool_call("look_up", {"word": "too long"})), calling(tool_call("look_up", {"word": "a"}))
        )
        packed(chat_server).send("Go")
        assert results(chat_server)[0].startswith("Error: The arguments do not fit: word: ")
        assert ran == ["a"]

    def test_policy_limits_rounds_and_calls(self, chat_server: ChatServer) -> None:
        """The pack's figures hold instead of ours."""
        words = ["a", "b", "c", "d", "e"]
        calls = [tool_call("look_up", {"word": word}, f"call_{word}") for word in words]
        chat_server.reply(calling(*calls), calling(calls[0]))
        with pytest.raises(ToolError, match="called tools in 1 answers"):
            packed(chat_server, {"max_rounds": 1, "max_tool_calls_per_turn": 3}).send("Go")
        assert ran == ["a", "b", "c"]
        assert [text.startswith("Error: Not run") for text in results(chat_server)] == [False] * 3 + [True] * 2

    def test_choice_none_offers_nothing(self, chat_server: ChatServer) -> None:
        """No tools are sent."""
        packed(chat_server, {"tool_choice": "none"}).send("Go")
        assert "tools" not in chat_server.requests[0].body

    def test_choice_required_holds_for_the_first_round(self, chat_server: ChatServer) -> None:
        """Otherwise the model could never answer."""
        chat_server.reply(calling(tool_call("look_up", {"word": "a"})))
        packed(chat_server, {"tool_choice": "required"}).send("Go")
        assert [request.body.get("tool_choice") for request in chat_server.requests] == ["required", None]

    def test_a_server_that_refuses_the_choice_is_asked_without(self, chat_server: ChatServer) -> None:
        """Once, and it is remembered."""
        chat_server.reply(error_reply(400, "Unsupported parameter: tool_choice"))
        packed(chat_server, {"tool_choice": "required"}).send("Go")
        assert [request.body.get("tool_choice") for request in chat_server.requests] == ["required", None]

    def test_a_blocked_tool_is_neither_offered_nor_run(self, chat_server: ChatServer) -> None:
        """If the model calls it anyway, it is told."""
        chat_server.reply(calling(tool_call("orders", {"customer": "A"})))
        packed(chat_server, {"blocklist": ["orders"]}, tools=["look_up", "orders"]).send("Go")
        assert [tool["function"]["name"] for tool in chat_server.requests[0].body["tools"]] == ["look_up"]
        assert results(chat_server) == ["Error: The tool 'orders' is blocked."]
        assert ran == []

    def test_a_blocked_tool_cannot_be_given(self, chat_server: ChatServer) -> None:
        """The error names the prompt."""
        with pytest.raises(InvalidArgumentError, match="The tool_policy of prompt 'main' blocks the tool 'orders'"):
            packed(chat_server, {"blocklist": ["orders"]}).send("Go", tools=[orders])

    def test_a_function_that_does_not_fit_the_pack(self, chat_server: ChatServer) -> None:
        """The error says which parameter."""

        def look_up(term: str) -> str:
            """Have another parameter."""
            return term

        with pytest.raises(InvalidArgumentError, match="function of tool 'look_up' does not take 'word'"):
            packed(chat_server).send("Go", tools=[look_up])

    def test_a_tool_without_function_is_said(self, chat_server: ChatServer) -> None:
        """The prompt lists it, so its author expects it."""
        response = packed(chat_server, tools=["look_up", "other"]).send("Go")
        assert response.warnings == (
            "The prompt's tool 'other' was not offered: it has no function, see manager.register_tool().",
        )


class TestApproval:
    def test_a_function_decides(self, chat_server: ChatServer) -> None:
        """It gets name and arguments; a text is the reason, which the model reads."""
        asked: list[object] = []

        def decide(name: str, arguments: Mapping[str, object]) -> bool | str:
            asked.append((name, dict(arguments)))
            return True if arguments["customer"] == "ACME" else "only ACME, please"

        calls = [ORDERS, tool_call("orders", {"customer": "Bolt"}, "call_def")]
        words = told(chat_server, calling(*calls), Tool.of(orders, approve=decide))
        assert words.splitlines()[1] == "Error: Not run, the user did not allow this call: only ACME, please"
        assert ran == [("ACME", 2)]
        assert asked == [("orders", {"customer": "ACME"}), ("orders", {"customer": "Bolt"})]

    def test_nobody_can_answer(self, chat_server: ChatServer) -> None:
        """In a test run there is no user: the call is refused, with the reason."""
        words = told(chat_server, calling(ORDERS), Tool.of(orders, approve="ask"))
        assert words.startswith("Error: Not run, the user did not allow this call: it needs approval, but the user can")
        assert ran == []

    def test_a_function_that_fails_refuses(self, chat_server: ChatServer) -> None:
        """Nothing runs by mistake."""

        def decide(name: str, arguments: Mapping[str, object]) -> bool:
            raise ZeroDivisionError("division by zero")

        words = told(chat_server, calling(ORDERS), Tool.of(orders, approve=decide))
        assert (words, ran) == ("Error: ZeroDivisionError: division by zero", [])


def test_frames_are_told_short(chat_server: ChatServer) -> None:
    """At most some 4,000 characters, with shape and dtypes first; the object itself is whole."""
    frame = pd.DataFrame({"n": range(5000), "text": "x" * 50})

    def table() -> pd.DataFrame:
        """Return a table."""
        return frame

    words = told(chat_server, calling(tool_call("table", {})), table)
    assert words.startswith("DataFrame, 5000 rows, 2 columns\ndtypes: n int64, text ")
    assert "(first 10 of 5000 rows)" in words
    assert len(words) < 4_100
