"""Tools in chat completions and at ``/v1/responses``: the same functions run, the same turn is stored.

The server checks pairs and order of calls and results as OpenAI documents them, and refuses the rest.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply
from promptkit_nb import (
    Budget,
    BudgetExceededError,
    ConversationManager,
    MemoryStore,
    OpenAIProvider,
    ToolError,
    load_pack,
    usage_df,
)
from responses_format import responses_violation
from strict_servers import openai_violation, strict
from tool_replies import calling, tool_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat_server import Request
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.providers.openai import Dialect

ran: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def look_up(word: str) -> str:
    """Look up a word."""
    ran.append(word)
    return word.upper()


def fails() -> None:
    """Raise an error."""
    raise KeyError("ACME")


def call(word: str, call_id: str = "call_abc", name: str = "look_up") -> dict[str, Any]:
    """Return a call that looks up a word."""
    return tool_call(name, {"word": word}, call_id)


class Side:
    """A server, and conversations that ask it in one dialect."""

    def __init__(self, server: ChatServer, dialect: Dialect) -> None:
        """Use a server."""
        self.server, self.dialect, self.store = server, dialect, MemoryStore()

    def manager(self, *replies: Reply, **options: Any) -> ConversationManager:
        """Return a manager whose requests get these replies, if OpenAI would take them."""
        rule = openai_violation if self.dialect == "chat" else responses_violation
        strict(self.server, rule, replies=replies)
        provider = OpenAIProvider(
            "m", base_url=self.server.url, max_retries=0, prices={"m": (1, 1)}, dialect=self.dialect
        )
        return ConversationManager(provider, self.store, **options)

    def opened(self, *replies: Reply, policy: dict[str, object] | None = None, **options: Any) -> Conversation:
        """Return a conversation that offers ``look_up`` and, if a pack's policy is given, has that policy."""
        manager = self.manager(*replies, **options)
        manager.register_tool(look_up)
        if policy is None:
            return manager.new_conversation()
        prompt = {"system_template": "You help.", "tools": ["look_up"], "tool_policy": policy}
        tool = {"name": "look_up", "description": "Look up a word.", "parameters": {}}
        tool["parameters"] = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
        return manager.new_conversation(load_pack({"id": "p", "prompts": {"main": prompt}, "tools": {"look_up": tool}}))

    @property
    def results(self) -> list[str]:
        """The tool results in the last request."""
        body = self.server.requests[-1].body
        if self.dialect == "chat":
            return [each["content"] for each in body["messages"] if each["role"] == "tool"]
        return [each["output"] for each in body["input"] if each.get("type") == "function_call_output"]

    @property
    def paid_tokens(self) -> list[int]:
        """The tokens that were paid for."""
        return [int(total) for total in usage_df(self.store, by="model")["total_tokens"]]


@pytest.fixture(params=["chat", "responses"])
def side(request: pytest.FixtureRequest, chat_server: ChatServer) -> Side:
    """A server that is asked in each dialect."""
    return Side(chat_server, request.param)


class TestCalls:
    def test_a_result_is_used(self, side: Side) -> None:
        """The function runs, its result is sent, and the final text is the answer."""
        conversation = side.opened(calling(call("a")), Reply(text="It is A."))
        assert conversation.send("Go").content == "It is A."
        assert (ran, side.results) == (["a"], ["A"])
        assert [message.role for message in conversation.turns[0].messages] == [
            "user",
            "assistant",
            "tool",
            "assistant",
        ]
        conversation.send("Thanks")
        assert side.results == ["A"]

    def test_two_calls_of_one_answer(self, side: Side) -> None:
        """Both run, in order; both results are sent."""
        side.opened(calling(call("a"), call("b", "call_def")), Reply(text="Done.")).send("Go")
        assert (ran, side.results) == (["a", "b"], ["A", "B"])

    def test_a_failing_tool(self, side: Side) -> None:
        """The model sees the error, and the message is answered."""
        manager = side.manager(calling(tool_call("fails", {})), Reply(text="Sorry."))
        assert manager.new_conversation().send("Go", tools=[fails]).content == "Sorry."
        assert side.results == ["Error: KeyError: 'ACME'"]

    @pytest.mark.parametrize(
        ("calls", "ids"),
        [
            pytest.param([call("a", ""), call("b", "")], 2, id="empty ids"),
            pytest.param([call("a", "x"), call("b", "x")], 2, id="one id twice"),
        ],
    )
    def test_ids_become_unique(self, side: Side, calls: list[dict[str, Any]], ids: int) -> None:
        """Otherwise a result could not be told from another, and servers refuse the request."""
        conversation = side.opened(calling(*calls), Reply(text="Done."))
        conversation.send("Go")
        assert (ran, side.results) == (["a", "b"], ["A", "B"])
        assert len({each.id for each in conversation.turns[0].messages[1].tool_calls}) == ids

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param(json.dumps('{"word": "a"}'), id="JSON in JSON"),
            pytest.param('```json\n{"word": "a"}\n```', id="a fence"),
            pytest.param('{"word": "a"}</tool_call>', id="a closing tag"),
            pytest.param(' {"word":\n"a"}\n', id="white space"),
        ],
    )
    def test_arguments_as_models_write_them(self, side: Side, arguments: str) -> None:
        """They are read, and the history holds a JSON object."""
        conversation = side.opened(calling(tool_call("look_up", arguments)), Reply(text="Done."))
        conversation.send("Go")
        assert ran == ["a"]
        assert json.loads(conversation.turns[0].messages[1].tool_calls[0].arguments) == {"word": "a"}

    def test_only_what_ran_has_a_duration(self, side: Side) -> None:
        """Calls that were refused are recorded as errors, not as executed."""
        calls = calling(call("a"), call("b", "call_def", "look_down"))
        response = side.opened(calls, Reply(text="Done.")).send("Go")
        frame = response.tool_calls
        assert frame["seconds"].notna().tolist() == [True, False]
        assert frame["error"].isna().tolist() == [True, False]
        assert response.tool_results == ("A", None)


class TestPolicies:
    def test_a_blocked_tool(self, side: Side) -> None:
        """It is not offered."""
        conversation = side.opened(Reply(text="Hello."), policy={"blocklist": ["look_up"]})
        conversation.send("Go")
        assert "tools" not in side.server.requests[0].body

    def test_choice_none(self, side: Side) -> None:
        """No tools are sent."""
        side.opened(Reply(text="Hello."), policy={"tool_choice": "none"}).send("Go")
        assert "tools" not in side.server.requests[0].body

    def test_choice_required(self, side: Side) -> None:
        """It holds for the first round: otherwise the model could never answer."""
        side.opened(calling(call("a")), Reply(text="Done."), policy={"tool_choice": "required"}).send("Go")
        assert [request.body.get("tool_choice") for request in side.server.requests] == ["required", None]

    def test_calls_beyond_the_limit(self, side: Side) -> None:
        """Three of five run; the model is told of the other two."""
        calls = [call(word, f"call_{word}") for word in "abcde"]
        side.opened(calling(*calls), Reply(text="Done."), policy={"max_tool_calls_per_turn": 3}).send("Go")
        assert ran == ["a", "b", "c"]
        assert [each.startswith("Error: Not run") for each in side.results] == [False] * 3 + [True] * 2

    def test_budget(self, side: Side) -> None:
        """The next round is not sent once the budget is spent; what was paid is counted."""
        usage = {"prompt_tokens": 10, "completion_tokens": 990, "total_tokens": 1000}
        conversation = side.opened(calling(call("a"), usage=usage), budget=Budget("0.001", per="total"))
        with pytest.raises(BudgetExceededError):
            conversation.send("Go", max_output_tokens=5)
        assert (len(side.server.requests), conversation.turns, side.paid_tokens) == (1, (), [1000])


class TestModelsThatMisbehave:
    """Nothing hangs, nothing is stored by halves, and the conversation goes on."""

    def test_the_same_call_again_and_again(self, side: Side) -> None:
        """It runs twice, then the model is told once, then the turn ends with an error that names the tool."""
        conversation = side.opened(*[calling(call("a"))] * 5)
        with pytest.raises(ToolError, match="keeps calling 'look_up' with the same arguments"):
            conversation.send("Go")
        assert (ran, len(side.server.requests), conversation.turns) == (["a", "a"], 4, ())

    def test_unknown_tools_in_a_loop(self, side: Side) -> None:
        """Each call is answered with the names that exist, until the limit of rounds."""
        conversation = side.opened(*(calling(call(str(number), name=f"tool_{number}")) for number in range(11)))
        with pytest.raises(ToolError, match="called tools in 10 answers"):
            conversation.send("Go")
        assert (ran, len(side.server.requests), conversation.turns) == ([], 11, ())
        assert conversation.send("Again").content == "Fine."

    def test_a_megabyte_of_arguments(self, side: Side) -> None:
        """It is neither run nor kept nor sent back."""
        conversation = side.opened(calling(call("x" * 1_000_000)), Reply(text="Sorry."))
        assert conversation.send("Go").content == "Sorry."
        assert (ran, side.results[0][:36]) == ([], "Error: The arguments take 1,000,012 ")
        assert len(json.dumps(side.server.requests[-1].body)) < 5_000

    @pytest.mark.parametrize("arguments", ['{"word": ', "[1]", "7", '{"word": 7} {}', '{"a": ' * 3_000])
    def test_invalid_arguments(self, side: Side, arguments: str) -> None:
        """The model is told, and the history that follows is valid."""
        conversation = side.opened(calling(tool_call("look_up", arguments)), Reply(text="Sorry."))
        assert conversation.send("Go").content == "Sorry."
        assert ran == []
        assert side.results[0].startswith("Error: The arguments ")

    @pytest.mark.parametrize(
        "text",
        [
            '<tool_call>\n{"name": "look_up", "arguments": {"word": "a"}}\n</tool_call>',
            '<function=look_up>{"word": "a"}</function>',
            '[TOOL_CALLS][{"name": "look_up", "arguments": {"word": "a"}}]',
            '{"name": "look_up", "parameters": {"word": "a"}}',
            '```json\n{"name": "look_up", "arguments": {"word": "a"}}\n```',
        ],
    )
    def test_a_call_written_as_text(self, side: Side, text: str) -> None:
        """It is not run; a warning says that the server does not parse it."""
        response = side.opened(Reply(text=text)).send("Go")
        assert (response.content, ran) == (text, [])
        assert response.warnings[0].startswith("The answer contains a tool call as text, so no tool was run: ")

    @pytest.mark.parametrize(
        "text", ["Use look_up().", "<tool_call> is a tag.", '{"name": "look_up"}', "{", "[" * 5000]
    )
    def test_text_about_calls(self, side: Side, text: str) -> None:
        """It is an answer like any other."""
        assert side.opened(Reply(text=text)).send("Go").warnings == ()


class TestInterrupt:
    """Ctrl-C in ``send``: what is stored, and what was paid for."""

    @staticmethod
    def interrupting(side: Side, request_number: int, reply: Reply) -> Callable[[Request], Reply]:
        """Return what answers as before, and sends Ctrl-C to the main thread when this request arrives."""
        usual = side.server.usual

        def answer(request: Request) -> Reply:
            if len(side.server.requests) < request_number:
                return usual(request)
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            return reply

        return answer

    def test_before_a_call(self, side: Side) -> None:
        """While the first answer is awaited: nothing runs, and nothing is stored."""
        conversation = side.opened()
        side.server.usual = self.interrupting(side, 1, Reply(text="late", delay_s=0.5))
        with pytest.raises(KeyboardInterrupt):
            conversation.send("Go")
        assert (ran, conversation.turns) == ([], ())

    def test_during_the_second_of_two_calls(self, side: Side) -> None:
        """The first has run; nothing is stored, the request is paid, and the conversation goes on."""

        def interrupted(word: str) -> None:
            """Be interrupted."""
            ran.append(word)
            signal.raise_signal(signal.SIGINT)
            time.sleep(60)

        calls = call("a"), call("b", "call_def", "interrupted")
        conversation = side.opened(calling(*calls))
        with pytest.raises(KeyboardInterrupt):
            conversation.send("Go", tools=[look_up, interrupted])
        assert (ran, conversation.turns, len(side.server.requests)) == (["a", "b"], (), 1)
        assert side.paid_tokens == [15]
        assert conversation.send("Again").content == "Fine."

    def test_after_a_call(self, side: Side) -> None:
        """While the last answer is awaited: nothing is stored; what was paid is counted."""
        conversation = side.opened(calling(call("a")))
        side.server.usual = self.interrupting(side, 2, Reply(text="late", delay_s=0.5))
        with pytest.raises(KeyboardInterrupt):
            conversation.send("Go")
        assert (ran, conversation.turns) == (["a"], ())
        assert side.paid_tokens[0] >= 15

    def test_after_the_first_text_of_the_last_round(self, side: Side) -> None:
        """The turn is interrupted, with calls and results, and can be sent again."""
        conversation = side.opened(calling(call("a")), Reply(text="It is A, as far as I know."))
        stream = conversation.stream("Go")

        def read() -> None:
            for piece in stream:
                if piece.strip() == "It":
                    signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            read()
        stream.close()
        (turn,) = conversation.turns
        assert (turn.finish_reason, turn.text.strip()) == ("interrupted", "It")
        assert [message.role for message in turn.messages] == ["user", "assistant", "tool", "assistant"]
        assert conversation.send("Go on").content == "Fine."
        assert side.results == ["A"]
