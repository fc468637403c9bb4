"""Context windows end to end: the limit holds by the server's own count, and no turn is lost."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from chat_server import ChatServer, Reply, Request, error_reply
from counting import SCRIPTS, SERVERS, counting, prompt_tokens, text_in
from promptkit_nb import (
    ContextWindowExceededError,
    Conversation,
    ConversationManager,
    ConversationState,
    MemoryStore,
    Message,
    OpenAIProvider,
    ProviderError,
    Turn,
    Usage,
)
from promptkit_nb.state import Settings
from promptkit_nb.turns import ToolCall

if TYPE_CHECKING:
    from promptkit_nb import StateStore
    from promptkit_nb.state import ContextPolicy

LIMIT = 4000


def provider_for(server: ChatServer, model: str = "gpt-4o-mini") -> OpenAIProvider:
    """Return the real client for this server."""
    return OpenAIProvider(model, api_key="sk-test-1", base_url=server.url, max_retries=0)


def on_the_wire(server: ChatServer, number: int = -1) -> list[dict[str, Any]]:
    """Return the messages of a request as the server received them."""
    messages: list[dict[str, Any]] = server.requests[number].body["messages"]
    return messages


def roles_and_texts(server: ChatServer, number: int = -1) -> list[tuple[str, str]]:
    """Return roles and texts of a request."""
    return [(message["role"], message["content"]) for message in on_the_wire(server, number)]


def old_turns(script: str, count: int, chance: random.Random) -> tuple[Turn, ...]:
    """Return turns of different lengths, as another program may have stored them."""
    lengths = [chance.choice((3, 10, 30, 80)) for _ in range(2 * count)]
    texts = [text_in(script, length, chance) for length in lengths]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return tuple(Turn(messages=(Message("user", asked), Message("assistant", answer))) for asked, answer in pairs)


def numbered(count: int, words: int = 1) -> tuple[Turn, ...]:
    """Return turns "Question 0 …", "Answer 0 …" and so on."""
    return tuple(
        Turn(
            id=f"t{number:03}",
            messages=(
                Message("user", f"Question {number}{' word' * words}"),
                Message("assistant", f"Answer {number}{' word' * words}"),
            ),
            usage=Usage(10, 5),
            cost=Decimal("0.001"),
        )
        for number in range(count)
    )


def opened(
    server: ChatServer,
    turns: tuple[Turn, ...],
    *,
    store: StateStore | None = None,
    model: str = "gpt-4o-mini",
    max_tokens: int | None = LIMIT,
    policy: ContextPolicy = "truncate",
    system_prompt: str = "You help.",
) -> Conversation:
    """Return a stored conversation with these turns."""
    manager = ConversationManager(provider_for(server, model), store or MemoryStore())
    settings = Settings(max_tokens=max_tokens, context_policy=policy)
    manager.store.set(ConversationState("long", turns=turns, system_prompt=system_prompt, settings=settings))
    return manager.get_conversation("long")


class TestLimit:
    """After 500 stored turns, each of 50 further requests has at most ``max_tokens`` by the server's count."""

    def check(self, conv: Conversation, server: ChatServer, count: str, script: str, chance: random.Random) -> None:
        """Send 50 messages, and check what the server counted."""
        server.usual = counting(SERVERS[count], answer=lambda: text_in(script, 30, chance))
        for number in range(50):
            response = conv.send(text_in(script, 3 + number, chance))
            assert response.usage.input_tokens <= LIMIT
            assert response.truncated > 400
        assert len(server.requests) == 50
        assert max(prompt_tokens(request.body, SERVERS[count]) for request in server.requests) <= LIMIT
        assert len(conv.turns) == 550

    @pytest.mark.parametrize("script", SCRIPTS)
    @pytest.mark.parametrize("count", SERVERS)
    def test_limit_holds_on_any_server(self, chat_server: ChatServer, count: str, script: str) -> None:
        """Also if the server counts twice as much as we do, and from the first request on."""
        chance = random.Random(script)  # noqa: S311 - no secrets
        conv = opened(chat_server, old_turns(script, 500, chance), model="llama3.2")
        self.check(conv, chat_server, count, script, chance)

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_limit_holds_for_openais_models(self, chat_server: ChatServer, script: str) -> None:
        """Their counts are ours, so the window is filled except for less than one turn."""
        chance = random.Random(script)  # noqa: S311 - as above
        conv = opened(chat_server, old_turns(script, 500, chance))
        self.check(conv, chat_server, "o200k", script, chance)
        assert min(turn.usage.input_tokens for turn in conv.turns[500:]) > 0.85 * LIMIT

    def test_every_store_keeps_all_turns(self, chat_server: ChatServer, store: StateStore) -> None:
        """Turns that are not sent stay stored, byte for byte."""
        chance = random.Random(1)  # noqa: S311 - as above
        before = old_turns("english", 500, chance)
        conv = opened(chat_server, before, store=store)
        self.check(conv, chat_server, "o200k", "english", chance)
        assert store.get("long").turns[:500] == before


class TestTruncate:
    """Turns are left out of the request, oldest first and whole."""

    def test_request_has_system_prompt_newest_turns_and_message(self, chat_server: ChatServer) -> None:
        """In order; the response and the stored turn say how many turns were left out."""
        conv = opened(chat_server, numbered(10), max_tokens=50)
        response = conv.send("And now?")
        assert roles_and_texts(chat_server) == [
            ("system", "You help."),
            ("user", "Question 8 word"),
            ("assistant", "Answer 8 word"),
            ("user", "Question 9 word"),
            ("assistant", "Answer 9 word"),
            ("user", "And now?"),
        ]
        assert (response.truncated, response.turn.truncated, conv.turns[-1].truncated) == (8, 8, 8)
        assert prompt_tokens(chat_server.requests[-1].body, SERVERS["o200k"]) == response.turn.counted_input_tokens

    @pytest.mark.parametrize("max_tokens", range(100, 120))
    def test_context_keeps_room_for_a_short_message(self, chat_server: ChatServer, max_tokens: int) -> None:
        """No turn is shown that even the shortest message would push out."""
        conv = opened(chat_server, numbered(10), max_tokens=max_tokens)
        shown = [(line.role, line.content) for line in conv.context()]
        conv.send("?")
        assert roles_and_texts(chat_server)[:-1] == shown

    def test_nothing_is_left_out_that_fits(self, chat_server: ChatServer) -> None:
        """To the token."""
        conv = opened(chat_server, numbered(10), max_tokens=None)
        needed = conv.dry_run("And now?").context.token_count
        assert list(conv.stream("And now?", max_tokens=needed))
        assert len(on_the_wire(chat_server)) == 22
        assert conv.turns[-1].truncated == 0

    def test_tool_call_and_result_are_left_out_together(self, chat_server: ChatServer) -> None:
        """With their turn; never half of it is sent."""
        messages = (
            Message("user", "Weather?"),
            Message("assistant", tool_calls=(ToolCall("c1", "weather", '{"city": "Paris"}'),)),
            Message("tool", "sunny", tool_call_id="c1"),
            Message("assistant", "Sunny."),
        )
        talk = (*numbered(2), Turn(messages=messages), *numbered(3)[2:])
        seen = set()
        for max_tokens in range(20, 140, 3):
            list(opened(chat_server, talk, max_tokens=max_tokens).stream("And now?"))
            sent = on_the_wire(chat_server)
            calls = [call["id"] for message in sent for call in message.get("tool_calls", ())]
            results = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
            assert calls == results
            assert len(sent) in {2, 4, 8, 10, 12}
            seen.add(len(sent))
        assert seen == {2, 4, 8, 10, 12}

    def test_limit_may_be_given_for_one_call(self, chat_server: ChatServer) -> None:
        """It is not stored."""
        conv = opened(chat_server, numbered(10), max_tokens=None)
        list(conv.stream("And now?", max_tokens=50))
        assert len(on_the_wire(chat_server)) == 6
        assert conv.send("And then?").truncated == 0

    @pytest.mark.parametrize("policy", ["truncate", "summarize", "error"])
    def test_a_request_that_cannot_fit_is_an_error(self, chat_server: ChatServer, policy: ContextPolicy) -> None:
        """System prompt and message alone exceed the limit: the error has the token counts."""
        conv = opened(chat_server, numbered(3), max_tokens=100, policy=policy)
        with pytest.raises(ContextWindowExceededError) as caught:
            conv.send("word " * 100)
        assert str(caught.value) == (
            "System prompt (7 tokens), new message (105) and overhead (3) take 115 tokens, more than "
            "max_tokens=100; nothing was sent. Shorten one of them, or raise max_tokens."
        )
        assert (caught.value.limit_tokens, caught.value.request_tokens) == (100, 115)
        assert (chat_server.requests, len(conv.turns)) == ([], 3)


class TestError:
    """The policy "error" sends everything, or nothing."""

    def test_a_request_that_fits_is_sent(self, chat_server: ChatServer) -> None:
        """Everything is sent."""
        opened(chat_server, numbered(10), policy="error").send("And now?")
        assert len(on_the_wire(chat_server)) == 22

    def test_too_long_a_conversation_is_refused(self, chat_server: ChatServer) -> None:
        """With the token counts and what to do; nothing is sent or stored."""
        conv = opened(chat_server, numbered(10), max_tokens=100, policy="error")
        with pytest.raises(ContextWindowExceededError) as caught:
            conv.send("And now?")
        assert str(caught.value) == (
            "The request would take 177 tokens, 160 of them history, more than max_tokens=100; nothing was sent. Raise "
            "max_tokens, or shorten the conversation with truncate() or summarize()."
        )
        assert (caught.value.limit_tokens, caught.value.request_tokens) == (100, 177)
        assert (chat_server.requests, len(conv.turns)) == ([], 10)

    def test_it_works_again_after_truncate(self, chat_server: ChatServer) -> None:
        """As the error says."""
        conv = opened(chat_server, numbered(10), max_tokens=100, policy="error")
        conv.truncate(keep_last=10)
        assert conv.send("And now?").truncated == 0


class TestTooLongForTheServer:
    """Requests that the server rejects as too long, whatever we counted."""

    def test_one_shorter_request_follows(self, chat_server: ChatServer) -> None:
        """At most three quarters of it, by the server's count; the response says how many turns were left out."""
        chat_server.usual = counting(SERVERS["o200k"], limit=100)
        conv = opened(chat_server, numbered(10), max_tokens=None)
        response = conv.send("And now?")
        assert [len(request.body["messages"]) for request in chat_server.requests] == [22, 10]
        assert prompt_tokens(chat_server.requests[-1].body, SERVERS["o200k"]) <= 90
        assert (response.truncated, conv.turns[-1].truncated) == (6, 6)
        assert response.warnings == ("The model found the request too long, so 6 turns stayed out of it.",)
        assert len(conv.turns) == 11

    def test_second_rejection_raises(self, chat_server: ChatServer) -> None:
        """There is no third attempt, and nothing is stored."""
        chat_server.usual = lambda _: error_reply(400, "Too many tokens.", code="context_length_exceeded")
        conv = opened(chat_server, numbered(10), max_tokens=None)
        with pytest.raises(ContextWindowExceededError):
            conv.send("And now?")
        assert (len(chat_server.requests), len(conv.turns)) == (2, 10)

    def test_policy_error_does_not_retry(self, chat_server: ChatServer) -> None:
        """The error has the server's token counts and the unsent message."""
        chat_server.usual = counting(SERVERS["o200k"], limit=100)
        conv = opened(chat_server, numbered(10), max_tokens=None, policy="error")
        with pytest.raises(ContextWindowExceededError) as caught:
            conv.send("And now?")
        assert (caught.value.limit_tokens, caught.value.request_tokens) == (100, 177)
        assert (len(chat_server.requests), len(conv.turns)) == (1, 10)

    def test_without_older_turns_there_is_nothing_to_leave_out(self, chat_server: ChatServer) -> None:
        """One request, then the error."""
        chat_server.usual = counting(SERVERS["o200k"], limit=10)
        conv = opened(chat_server, (), max_tokens=None)
        with pytest.raises(ContextWindowExceededError):
            conv.send("And now?")
        assert len(chat_server.requests) == 1

    def test_summary_stays_in_the_shorter_request(self, chat_server: ChatServer) -> None:
        """It replaces turns that are not sent."""
        conv = opened(chat_server, numbered(10, words=5), max_tokens=None)
        chat_server.reply(Reply(text="They talked."))
        conv.summarize(keep_last=10)
        chat_server.usual = counting(SERVERS["o200k"], limit=100)
        response = conv.send("And now?")
        assert roles_and_texts(chat_server)[0] == (
            "system",
            "You help.\n\nSummary of 5 earlier turns of this conversation:\n\nThey talked.",
        )
        assert (response.truncated, len(on_the_wire(chat_server))) == (3, 6)


class TestSummarize:
    """The policy "summarize": turns are summarized before they leave the request."""

    def test_summary_is_not_a_turn(self, chat_server: ChatServer, store: StateStore) -> None:
        """It is stored with its range, text, tokens, cost and model; it is not a turn, and no turn is lost."""
        conv = opened(chat_server, numbered(40), store=store, max_tokens=600, policy="summarize")
        chat_server.reply(
            Reply(text="They counted.", usage={"prompt_tokens": 1000, "completion_tokens": 500}, model="gpt-4o-mini")
        )
        before = conv.token_count, conv.total_cost
        response = conv.send("And now?")
        asked_for_summary, asked = (request.body for request in chat_server.requests)
        assert asked_for_summary["messages"][1]["content"].startswith("[user]: Question 0 word\n[assistant]: Answer 0")
        (made,) = store.get("long").summaries
        count = int(str(made.last_turn)[1:]) + 1
        assert asked["messages"][0] == {
            "role": "system",
            "content": f"You help.\n\nSummary of {count} earlier turns of this conversation:\n\nThey counted.",
        }
        assert asked["messages"][1]["content"] == f"Question {count} word"
        assert len(asked["messages"]) == 1 + 2 * (40 - count) + 1
        assert (made.first_turn, made.text, made.usage) == ("t000", "They counted.", Usage(1000, 500))
        assert (made.cost, made.model) == (Decimal("0.00045"), "gpt-4o-mini")
        assert [turn.user_text for turn in conv.turns] == [
            *(f"Question {number} word" for number in range(40)),
            "And now?",
        ]
        assert (response.truncated, response.warnings) == (0, ())
        assert conv.token_count == before[0] + 1500 + response.usage.total_tokens
        assert conv.total_cost == (before[1] or 0) + Decimal("0.00045") + (response.cost or 0)

    def test_both_requests_respect_the_limit(self, chat_server: ChatServer) -> None:
        """The limit holds for summaries, too; each part is folded into the next, and all turns are summarized."""
        chance = random.Random(2)  # noqa: S311 - no secrets
        long = old_turns("english", 120, chance)
        conv = opened(chat_server, long, max_tokens=1000, policy="summarize")
        chat_server.usual = counting(SERVERS["o200k"], answer=lambda: text_in("english", 60, chance))
        for number in range(20):
            assert conv.send(f"And {number}?").truncated == 0
        assert max(prompt_tokens(request.body, SERVERS["o200k"]) for request in chat_server.requests) <= 1000
        assert conv.summaries[-1].first_turn == long[0].id
        assert len(conv.turns) == 140

    def test_summary_is_not_needed_for_every_message(self, chat_server: ChatServer) -> None:
        """It makes room for several turns."""
        conv = opened(chat_server, numbered(20), max_tokens=300, policy="summarize")
        for number in range(10):
            conv.send(f"And {number}?")
        assert len(conv.summaries) <= 3

    def test_later_timestamps_of_turns_cause_no_more_summaries(self, chat_server: ChatServer) -> None:
        """Turns that another machine answered an hour from now are summarized once, and the summary is used."""
        ahead = [replace(turn, created_at=turn.created_at + timedelta(hours=1)) for turn in numbered(20)]
        conv = opened(chat_server, tuple(ahead), max_tokens=300, policy="summarize")
        chat_server.usual = lambda _: Reply(text="They counted.")
        truncated = [conv.send(f"And {number}?").truncated for number in range(10)]
        assert truncated == [0] * 10
        assert len(conv.summaries) <= 3

    def test_restored_version_is_not_covered_by_the_summary(self, chat_server: ChatServer) -> None:
        """It is sent in full, though it is older than the summary, which is used again once the turns are restored."""
        conv = opened(chat_server, numbered(5), max_tokens=None)
        conv.rerun(1, "Changed")
        changed = conv.turns[1]
        conv.summarize(keep_last=2)
        conv.restore("t001")
        conv.send("What was said?")
        assert [text for _, text in roles_and_texts(chat_server)][3:5] == ["Question 1 word", "Answer 1 word"]
        conv.restore(changed)
        assert [line.kind for line in conv.context()][:2] == ["summary", "turn"]

    def test_summary_is_folded_in_after_restored_turns(self, chat_server: ChatServer) -> None:
        """The restored turns come before the summarized ones: one summary covers both and is paid for once."""
        conv = opened(chat_server, numbered(10), max_tokens=None)
        conv.truncate(keep_last=10)
        conv.summarize(keep_last=4)
        conv.restore(conv.branches()[0])
        conv.summarize(keep_last=6)
        assert [line.kind for line in conv.context()] == ["summary", *["turn"] * 4]
        assert conv.summarize(keep_last=6) is None
        assert len(chat_server.requests) == 2

    @pytest.mark.parametrize("max_tokens", [60, 100, 400, 1000])
    def test_long_summaries_are_not_repeated(self, chat_server: ChatServer, max_tokens: int) -> None:
        """In any window: if a summary has no room, the next messages do not pay for another."""
        conv = opened(chat_server, numbered(20), max_tokens=max_tokens, policy="summarize")

        def reply(request: Request) -> Reply:
            limit = request.body.get("max_tokens", 20)
            return Reply(text=" ".join(["word"] * min(limit, 500)))

        chat_server.usual = reply
        for number in range(10):
            conv.send(f"And {number}?")
        assert len(chat_server.requests) <= 10 + 5

    def test_window_without_room_for_a_summary_warns(self, chat_server: ChatServer) -> None:
        """One request, and what it left out."""
        response = opened(chat_server, numbered(20), max_tokens=60, policy="summarize").send("And now?")
        assert response.warnings == (
            "A summary does not fit into max_tokens=60, so 18 older turns stayed out of the request.",
        )
        assert (response.truncated, len(chat_server.requests)) == (18, 1)

    def test_failed_summary_changes_nothing(self, chat_server: ChatServer) -> None:
        """The message is answered without a summary, and the response says so."""
        conv = opened(chat_server, numbered(20), max_tokens=200, policy="summarize")
        chat_server.reply(error_reply(500, "Out of order."))
        response = conv.send("And now?")
        assert response.truncated == 9
        assert conv.summaries == ()
        (warning,) = response.warnings
        assert warning.startswith("No summary could be made, so 9 older turns stayed out of the request: ")
        assert "Out of order." in warning
        assert len(conv.turns) == 21

    def test_model_that_rejects_temperature_is_asked_without(self, chat_server: ChatServer) -> None:
        """Reasoning models reject it."""
        conv = opened(chat_server, numbered(20), max_tokens=None)
        said = "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) is."
        chat_server.reply(error_reply(400, said, code="unsupported_value"), Reply(text="They talked."))
        made = conv.summarize()
        assert made is not None
        assert made.text == "They talked."
        assert [request.body.get("temperature") for request in chat_server.requests] == [0.3, None]

    def test_empty_summary_is_an_error_and_is_charged(self, chat_server: ChatServer) -> None:
        """Nothing is stored of it except its cost."""
        conv = opened(chat_server, numbered(20), max_tokens=None)
        chat_server.reply(Reply(text="", usage={"prompt_tokens": 1000, "completion_tokens": 500}))
        with pytest.raises(ProviderError, match="returned an empty summary"):
            conv.summarize()
        assert conv.summaries == ()
        assert conv.store.spending("total").spent == Decimal("0.00045")

    def test_nothing_to_leave_out_needs_no_summary(self, chat_server: ChatServer) -> None:
        """One request."""
        opened(chat_server, numbered(5), policy="summarize").send("And now?")
        assert len(chat_server.requests) == 1
