"""A provider without key, network or model, for a first try and for tutorials. Its answers say that it is a demo.

It answers from what the user said in the conversation, which shows memory, storage and forks at work. A tool is called
if the message says how: "What is add(a=2, b=3)?" A typed answer fits its schema. The same request always gets the same
answer.
"""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from itertools import takewhile
from typing import TYPE_CHECKING, cast

from promptkit_nb.pricing import CallCost
from promptkit_nb.providers.base import ChatRequest, Completion, StreamEvent, TextDelta
from promptkit_nb.tokens import count_message_tokens, count_tokens, count_tool_tokens
from promptkit_nb.turns import Message, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime


_LABEL = "[demo]"
_SHOWN_CHARACTERS = 200
_BANNER = "(This is the built-in demo: canned answers, no language model, no cost.)"
_HELP = (
    'I am not a language model, I only remember what you tell me. Say "My name is …" and then ask "What\'s my name?", '
    'or try "Show me some code". For a real model set OPENAI_API_KEY and run `%chat_setup --provider openai`.'
)
_CODE = '''Here is a function:

```python
def fibonacci(n: int) -> list[int]:
    """Return the first n Fibonacci numbers."""
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-2] + numbers[-1])
    return numbers[:n]
```

and what it returns:

| n | fibonacci(n) |
| --- | --- |
| 3 | 0, 1, 1 |
| 6 | 0, 1, 1, 2, 3, 5 |'''

_NAME = r"(?P<name>\w[\w'-]*(?: [A-Z][\w'-]*)*)"
_FACT = re.compile(
    rf"\b(?:(?i:my name is|i am called|i'm called|call me) {_NAME}"
    rf"|(?:I am|I'm) (?P<called>[A-Z][\w'-]*(?: [A-Z][\w'-]*)*)"
    r"|(?i:my) (?P<what>\w[\w'-]*(?: \w[\w'-]*){0,2}?) (?:is|are) (?P<value>\w[^.!?;,\n]*?)(?=[.!?;,\n]|$| and my ))"
)
_QUESTION = re.compile(
    r"\b(?:(?:what|who)(?:'s|s| is| are| was)|do you (?:know|remember)|tell me|remind me of)(?: what)? my "
    r"(?P<what>\w[\w' -]*?)(?: is| are)?[\s?.!]*$",
    re.IGNORECASE,
)
_WHO_AM_I = re.compile(r"\bwho am i\b", re.IGNORECASE)
_INSTRUCTIONS = re.compile(r"\bsystem prompt\b|\binstructions\b|\bwere you told\b", re.IGNORECASE)
_SUMMARY = re.compile(r"\bsummar(?:y|ise|ize)", re.IGNORECASE)
_SAMPLE_REQUEST = re.compile(r"\bcode\b|\btable\b|\bmarkdown\b", re.IGNORECASE)


class DemoProvider:
    """Gives deterministic answers, without key, network or cost; each begins with ``[demo]``, except typed answers.

    >>> from promptkit_nb import DemoProvider, Message
    >>> from promptkit_nb.providers.base import ChatRequest, TextDelta
    >>> said = [Message("user", "My name is Alice"), Message("assistant", "Hi"), Message("user", "What's my name?")]
    >>> events = DemoProvider().stream(ChatRequest(model="demo", messages=said))
    >>> "".join(event.text for event in events if isinstance(event, TextDelta))
    '[demo] Your name is Alice.'
    """

    name = "demo"
    model = "demo"

    def __repr__(self) -> str:
        """Return the call that makes one."""
        return "DemoProvider()"

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """Yield the answer word by word, then a ``Completion`` with the tokens counted offline."""
        calls = _calls(request)
        if calls:
            yield Completion(model=self.model, finish_reason="tool_calls", usage=_usage(request, ""), tool_calls=calls)
            return
        text = _text_of(request)
        for piece in re.findall(r"\s*\S+", text):
            yield TextDelta(piece)
        yield Completion(model=self.model, finish_reason="stop", usage=_usage(request, text))

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:  # noqa: ARG002 - the demo is free
        """Return a cost of 0 for any usage."""
        return CallCost(Decimal(0), "list")


def _text_of(request: ChatRequest) -> str:
    """Return the answer; a typed one is JSON that fits the schema."""
    told = _told(request.messages)
    if request.answer_schema is None:
        return _labeled(told or _answer(request.messages), request.messages)
    from promptkit_nb.providers.demo_values import demo_value  # noqa: PLC0415 - imported when used

    said = next((_plain(message.content) for message in reversed(request.messages) if message.role == "user"), "")
    value = demo_value(request.answer_schema["schema"], told or said, _facts(request.messages))
    return json.dumps(value, ensure_ascii=False)


def _usage(request: ChatRequest, text: str) -> Usage:
    return Usage(count_message_tokens(request.messages) + count_tool_tokens(request.tools), count_tokens(text))


def _calls(request: ChatRequest) -> tuple[ToolCall, ...]:
    """Return the calls of offered tools that the message spells out, as Python writes them; none after their results.

    Arguments that are not literals are left out, so the tool refuses the call.
    """
    if not request.tools or request.messages[-1].role != "user":
        return ()
    said = _plain(request.messages[-1].content)
    found = []
    for tool in request.tools:
        name = str(cast("Mapping[str, object]", tool["function"])["name"])
        for match in re.finditer(rf"\b{re.escape(name)}\([^()]*\)", said):
            arguments = json.dumps(_arguments(match[0]))
            found.append((match.start(), ToolCall(f"demo{match.start():05d}", name, arguments)))
    return tuple(call for _, call in sorted(found, key=lambda each: each[0]))


def _arguments(call: str) -> dict[str, object]:
    try:
        expression = ast.parse(call, mode="eval").body
        keywords = expression.keywords if isinstance(expression, ast.Call) else []
        given = {each.arg: ast.literal_eval(each.value) for each in keywords if each.arg is not None}
        json.dumps(given)
    except (SyntaxError, ValueError, TypeError):
        return {}
    return given


def _labeled(answer: str, messages: Sequence[Message]) -> str:
    """Return the answer marked as the demo's, the first one with an explanation."""
    is_first = not any(message.role == "assistant" for message in messages)
    return f"{_LABEL} {answer}\n\n{_BANNER}" if is_first else f"{_LABEL} {answer}"


def _answer(messages: Sequence[Message]) -> str:
    said = next((_plain(message.content) for message in reversed(messages) if message.role == "user"), "")
    facts = _facts(messages)
    if question := _QUESTION.search(said):
        return _recalled(facts, question["what"])
    if _WHO_AM_I.search(said):
        return _recalled(facts, "name")
    if _SUMMARY.search(said):
        return " ".join(f"My {what} is {value}." for what, value in facts.items()) or "There is nothing to sum up yet."
    if _INSTRUCTIONS.search(said):
        return _instructions(messages)
    if news := _facts_in(said):
        return " ".join(_noted(what, value) for what, value in news.items())
    return _CODE if _SAMPLE_REQUEST.search(said) else _HELP


def _told(messages: Sequence[Message]) -> str:
    """Return what the newest tool results say, the beginning of each; empty if the user spoke last."""
    results = list(takewhile(lambda message: message.role == "tool", reversed(messages)))
    return "\n\n".join(f"`{result.name}` says: {_beginning(result.content)}" for result in reversed(results))


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _facts(messages: Sequence[Message]) -> dict[str, str]:
    """Return everything of the form "my X is Y" in user messages and summaries; the latest statement wins."""
    facts: dict[str, str] = {}
    for message in messages:
        if message.role in {"user", "system"}:
            facts |= _facts_in(_plain(message.content))
    return facts


def _facts_in(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for match in _FACT.finditer(text):
        name = match["name"] or match["called"]
        if name:
            facts["name"] = name
        else:
            facts[match["what"].lower()] = match["value"].strip()
    return facts


def _recalled(facts: dict[str, str], what: str) -> str:
    value = facts.get(what.lower())
    return f"I don't know your {what} yet." if value is None else f"Your {what} is {value}."


def _noted(what: str, value: str) -> str:
    return f"Nice to meet you, {value}!" if what == "name" else f"Noted: your {what} is {value}."


def _instructions(messages: Sequence[Message]) -> str:
    system = next((_plain(message.content) for message in messages if message.role == "system"), "")
    if not system:
        return "I was told nothing: this conversation has no system prompt."
    return f'I was told: "{_beginning(system)}"'


def _plain(text: str) -> str:
    """Return the text with straight apostrophes in place of curly ones."""
    return text.replace("\u2019", "'")
