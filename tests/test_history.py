"""Histories and tables of conversations, as a reader sees them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from promptkit_nb import ConversationManager, ConversationState, DemoProvider, Message, Usage
from promptkit_nb.rendering.conversations import HeadTable
from promptkit_nb.rendering.history import History
from promptkit_nb.text.plain_text import preview
from promptkit_nb.turns import ToolCall, Turn

SCRIPT = "<script>alert(1)</script>"
SMALL = 'class="mathjax_ignore tex2jax_ignore" style="color:var(--jp-ui-font-color2,#767676);font-size:12px'


def history(*messages: Message) -> History:
    """Return a history that cost 12 cents and has one unpriced turn."""
    return History(messages, token_count=1234, total_cost=Decimal("0.12"), unpriced_turns=1)


def test_text_has_a_line_per_message_and_the_totals() -> None:
    """Role and content, then the numbers of messages, tokens and dollars."""
    said = history(Message("system", "You help."), Message("user", "Hi\n there"), Message("assistant", "x" * 61))
    assert str(said).splitlines() == [
        "system     You help.",
        "user       Hi there",
        f"assistant  {'x' * 59}…",
        "3 messages · 1,234 tokens · $0.1200 + 1 turn without a price",
    ]


def test_content_is_cut_at_sixty_characters() -> None:
    """Sixty fit; in a longer text the sixtieth is the ellipsis."""
    assert preview("x" * 60) == "x" * 60
    assert preview("x" * 61) == "x" * 59 + "…"


def test_history_is_a_sequence_of_messages() -> None:
    """It has a length and can be indexed, sliced and iterated."""
    hello = Message("user", "Hello")
    said = history(Message("system", "You help."), hello)
    assert (len(said), said[1], said[1:], list(said)[1]) == (2, hello, (hello,), hello)


def test_empty_history_is_its_totals() -> None:
    """A conversation without turns costs nothing."""
    conversation = ConversationManager(DemoProvider()).new_conversation()
    assert str(conversation.history()) == "0 messages · 0 tokens · $0.00"


def test_tool_calls_are_shown() -> None:
    """A message that only calls a tool names the tool."""
    call = Message("assistant", tool_calls=(ToolCall(id="1", name="weather", arguments='{"city": "Paris"}'),))
    assert str(history(call)).startswith('assistant  weather({"city": "Paris"})\n')


def test_html_formats_messages_and_runs_nothing() -> None:
    """Markdown becomes sanitized HTML; raw HTML is shown as text."""
    html = history(Message("user", SCRIPT), Message("assistant", "**bold**"))._repr_html_()
    assert "<strong>bold</strong>" in html
    assert "<script" not in html
    assert f'</style><div {SMALL}">2 messages · 1,234 tokens · $0.1200 + 1 turn without a price</div>' in html


def test_page_names_no_roles() -> None:
    """Questions are in bubbles, answers below them; screen readers hear who said what. Other messages are folded."""
    said = history(Message("system", "You help."), Message("user", "Hi"), Message("assistant", "Hello"))
    html = said._repr_html_()
    assert re.sub("<style>.*?</style>|<[^>]*>", "|", html).count("user") == 0
    assert re.findall('role="group" aria-label="([a-z]+)"', html) == ["user", "assistant"]
    assert ">System prompt: You help.</summary>" in html


def test_receipt_is_below_its_answer() -> None:
    """It is short, with tokens in the tooltip, and says if the answer is stale."""
    turn = Turn(
        messages=(Message("user", "Hi"), Message("assistant", "Hello")),
        usage=Usage(8, 2),
        cost=Decimal("0.0019"),
        model="small",
        latency_ms=700.0,
        id="a",
    )
    html = History.of(ConversationState("c", turns=(turn,)), stale={"a"})._repr_html_()
    assert 'title="small · 8/2 tokens · $0.0019 · 0.7 s · stale">small · $0.0019 · 0.7 s · stale</div>' in html


def test_page_shows_calls_of_tools_as_lines() -> None:
    """A call unfolds to its result, which is not shown twice."""
    call = ToolCall(id="1", name="weather", arguments='{"city": "Paris"}')
    messages = (
        Message("user", "Rain?"),
        Message("assistant", tool_calls=(call,)),
        Message("tool", "dry", tool_call_id="1"),
        Message("assistant", "No."),
    )
    html = History.of(ConversationState("c", turns=(Turn(messages=messages),)))._repr_html_()
    assert ">weather(city=&quot;Paris&quot;) → dry</summary>" in html
    assert "Tool result" not in html


def test_heads_are_a_table_in_text_and_html() -> None:
    """A row per conversation, with times in UTC; ids are escaped."""
    manager = ConversationManager(DemoProvider())
    manager.new_conversation(conversation_id=f"a{SCRIPT}\x1b[0m", user_id="alice").send("Hi")
    moment = datetime(2026, 11, 22, 19, 45, tzinfo=UTC)
    table = HeadTable(replace(head, updated_at=moment) for head in manager.list_conversations())
    assert repr(table).splitlines() == [
        "conversation                   user   turns  tokens  cost   updated (UTC)",
        "a<script>alert(1)</script>[0m  alice  1      85      $0.00  2026-11-22 19:45",
    ]
    html = table._repr_html_()
    name = "a&lt;script&gt;alert(1)&lt;/script&gt;[0m"
    assert f'<td style="text-align:left" title="{name}">{name}</td><td style="text-align:right">1</td>' in html
    assert 'title="2026-11-22 19:45 UTC">' in html
    assert "<script" not in html


def test_empty_table_says_so() -> None:
    """A table without rows is one line."""
    assert repr(HeadTable()) == "no conversations"
    assert HeadTable()._repr_html_() == f'<div {SMALL}">no conversations</div>'
