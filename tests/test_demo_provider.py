"""DemoProvider: it answers from facts in the conversation, and never pretends to be a model."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

import pydantic
import pytest

from promptkit_nb import ConversationManager
from promptkit_nb.pricing import CallCost
from promptkit_nb.providers.base import ChatRequest, Completion, TextDelta
from promptkit_nb.providers.demo import DemoProvider
from promptkit_nb.tokens import count_message_tokens, count_tokens
from promptkit_nb.turns import Message, Usage, utc_now

BANNER = "\n\n(This is the built-in demo: canned answers, no language model, no cost.)"


def answer(*said: str, system: str | None = None) -> str:
    """Return the answer to the last of these user messages, after answering the others."""
    messages = [Message("system", system)] if system is not None else []
    for text in said:
        messages += [Message("user", text), Message("assistant", "[demo] Well.")]
    events = DemoProvider().stream(ChatRequest(model="demo", messages=messages[:-1]))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_first_answer_explains_that_it_is_a_demo() -> None:
    """The label comes first and the banner last."""
    assert answer("My name is Alice") == f"[demo] Nice to meet you, Alice!{BANNER}"


def test_later_answers_keep_the_label() -> None:
    """Every answer can be told apart from a model's."""
    assert answer("My name is Alice", "What's my name?") == "[demo] Your name is Alice."


@pytest.mark.parametrize(
    ("said", "question", "expected"),
    [
        ("My name is Alice", "What is my name?", "Your name is Alice."),
        ("my name is Alice Smith.", "what's my name", "Your name is Alice Smith."),
        ("My name is Alice and I like tea", "What\u2019s my name?", "Your name is Alice."),
        ("Hi, I'm Alice!", "Who am I?", "Your name is Alice."),
        ("I am called Bob", "Do you remember my name?", "Your name is Bob."),
        ("I\u2019m called Anne-Marie", "Tell me what my name is.", "Your name is Anne-Marie."),
        ("My name is Łucja", "What's my name?", "Your name is Łucja."),
        ("My favourite colour is teal.", "What is my favourite colour?", "Your favourite colour is teal."),
        ("My dog is a very old poodle, he snores", "What's my dog?", "Your dog is a very old poodle."),
        ("My name is Alice and my cat is Tom", "What's my cat?", "Your cat is Tom."),
        ("I am happy", "What's my name?", "I don't know your name yet."),
        ("Hello", "What's my shoe size?", "I don't know your shoe size yet."),
    ],
)
def test_facts_are_recalled(said: str, question: str, expected: str) -> None:
    """Names and "my X is Y", as people write them; other facts are unknown."""
    assert answer(said, question) == f"[demo] {expected}"


def test_latest_statement_wins() -> None:
    """A later name replaces the previous one."""
    assert answer("My name is Alice", "My name is Bob", "What's my name?") == "[demo] Your name is Bob."


def test_statement_and_question_in_one_message() -> None:
    """The question is answered."""
    assert answer("Hello", "My name is Alice. What's my name?") == "[demo] Your name is Alice."


def test_other_facts_are_noted() -> None:
    """Each fact of a message is confirmed."""
    assert answer("Hi", "My cat is Tom. My dog is Rex.") == "[demo] Noted: your cat is Tom. Noted: your dog is Rex."


def test_summary_keeps_the_facts() -> None:
    """The demo can read the facts in its own summaries."""
    summary = answer("My name is Alice", "My favourite colour is teal", "Summarize the conversation so far.")
    assert summary == "[demo] My name is Alice. My favourite colour is teal."
    assert answer("Hi", "What's my name?", system=summary) == "[demo] Your name is Alice."


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("You are a helpful assistant.", 'I was told: "You are a helpful assistant."'),
        (None, "I was told nothing: this conversation has no system prompt."),
        ("x" * 300, f'I was told: "{"x" * 199}…"'),
    ],
)
def test_system_prompt_is_seen(system: str | None, expected: str) -> None:
    """Asked for its instructions, it quotes them, shortened."""
    assert answer("Hi", "What were you told?", system=system) == f"[demo] {expected}"


def test_sample_has_code_and_a_table() -> None:
    """The tutorials render it."""
    text = answer("Hi", "Show me some code")
    assert "```python\ndef fibonacci(n: int) -> list[int]:\n" in text
    assert "| n | fibonacci(n) |\n| --- | --- |\n" in text


def test_shown_code_runs() -> None:
    """The table shows what the function returns."""
    code = answer("Hi", "Show me some code").split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {}
    exec(code, namespace)  # noqa: S102 - our own constant
    assert eval("fibonacci(6), fibonacci(3)", namespace) == ([0, 1, 1, 2, 3, 5], [0, 1, 1])  # noqa: S307 - same


@pytest.mark.parametrize("said", ["Explain recursion", "", "🙂"])
def test_other_messages_get_help(said: str) -> None:
    """It explains itself instead."""
    assert "set OPENAI_API_KEY and run `%chat_setup --provider openai`" in answer("Hi", said)


def test_request_without_messages_is_answered() -> None:
    """Even then there is an answer."""
    events = list(DemoProvider().stream(ChatRequest(model="demo", messages=[])))
    assert isinstance(events[-1], Completion)


def test_answer_streams_by_words_and_counts_its_tokens() -> None:
    """One piece for each word, then the finish reason and the tokens of request and answer."""
    messages = [Message("user", "My name is Alice"), Message("assistant", "Hi"), Message("user", "What's my name?")]
    events = list(DemoProvider().stream(ChatRequest(model="demo", messages=messages)))
    assert events == [
        *(TextDelta(piece) for piece in ("[demo]", " Your", " name", " is", " Alice.")),
        Completion(
            model="demo",
            finish_reason="stop",
            usage=Usage(count_message_tokens(messages), count_tokens("[demo] Your name is Alice.")),
        ),
    ]


def test_demo_costs_nothing() -> None:
    """Its price is a known 0, not unknown."""
    assert DemoProvider().price("demo", Usage(1, 1), utc_now()) == CallCost(Decimal(0), "list")


class Node(pydantic.BaseModel):
    """A schema that names itself."""

    name: str
    size: int = pydantic.Field(ge=1, le=9)
    child: Node | None


class TestTypedAnswers:
    @pytest.mark.parametrize(
        ("schema", "message", "value"),
        [
            (["bug", "idea"], "I have an idea: dark mode.", "idea"),
            (["bug", "idea", "feature request"], "My feature request: dark mode", "feature request"),
            (int, "It took 3 days.", 3),
            (float, "It costs 3.5 dollars.", 3.5),
            (str, "Hello", "Hello"),
            (list[int], "It took 3 days.", [3]),
            ({"name": str, "age": int | None}, "My name is Alice, and I am 7.", {"name": "Alice", "age": 7}),
            (date, "On 2026-11-28.", date(2026, 11, 28)),
            (Annotated[int, pydantic.Field(ge=1, le=5)], "It took 30 days.", 5),
        ],
    )
    def test_what_the_message_says(self, schema: object, message: str, value: object) -> None:
        """Labels, numbers, dates, and what the user said before."""
        conv = ConversationManager(DemoProvider()).new_conversation()
        assert conv.send(message, schema=schema).value == value

    def test_without_any_hint_the_answer_is_still_the_same(self) -> None:
        """And it fits."""
        found = {
            ConversationManager(DemoProvider()).new_conversation().send("Hm.", schema=["a1", "b2", "c3"]).value
            for _ in range(3)
        }
        assert len(found) == 1
        assert found <= {"a1", "b2", "c3"}

    def test_nested_and_recursive_schemas(self) -> None:
        """A value of any schema that a model may have."""
        value = ConversationManager(DemoProvider()).new_conversation().send("My name is Bob", schema=Node).value
        assert (value.name, value.child.name) == ("Bob", "Bob")
