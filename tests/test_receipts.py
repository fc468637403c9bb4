"""Receipts: what an answer used and cost, in one line."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from promptkit_nb import Message, Response, Turn, Usage
from promptkit_nb.rendering.responses import answer_html
from promptkit_nb.text.receipts import Receipt, amount_text, receipt_of, total_text, usd_text

TURN = Turn(
    messages=(Message("user", "Hi"), Message("assistant", "**Hello**")),
    usage=Usage(1234, 56),
    cost=Decimal("0.0019"),
    model="gpt-4o-mini",
    latency_ms=812.0,
    finish_reason="stop",
)


def receipt(**changes: object) -> str:
    """Return the receipt of ``TURN`` with these changes."""
    return receipt_of(Response.of(replace(TURN, **changes), "talk"), "talk")  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        ("0", "$0.00"),
        ("0.0019", "$0.0019"),
        ("0.00190001", "$0.0019"),
        ("0.0000451", "$0.000045"),
        ("0.12", "$0.1200"),
        ("1", "$1.00"),
        ("1234.567", "$1234.57"),
    ],
)
def test_dollars_are_readable_at_any_size(cost: str, text: str) -> None:
    """Four decimals, two from a dollar up, and never zero for a paid answer."""
    assert usd_text(Decimal(cost)) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "$0.00"),
        ("1", "$1.00"),
        ("0.5", "$0.50"),
        ("0.0310", "$0.031"),
        ("4.99634", "$4.9963"),
        ("1200", "$1200.00"),
        ("0.0000451", "$0.000045"),
        ("0.00999999", "$0.01"),
    ],
)
def test_budget_amounts_have_no_trailing_zeros(usd: str, text: str) -> None:
    """Four decimals above a dollar, too, because limits are compared; zeros after the cents are left out."""
    assert amount_text(Decimal(usd)) == text


def test_unknown_price_is_not_zero() -> None:
    """An unknown cost is named, alone and in a sum."""
    assert usd_text(None) == "price unknown"
    assert total_text(None, 2) == "price unknown"
    assert total_text(Decimal("0.5"), 1) == "$0.5000 + 1 turn without a price"
    assert total_text(Decimal("0.5"), 0) == "$0.5000"


def test_receipt_names_model_tokens_cost_seconds_and_conversation() -> None:
    """In this order."""
    assert receipt() == "gpt-4o-mini · 1,234/56 tokens · $0.0019 · 0.8 s · talk"


def test_estimated_tokens_are_marked() -> None:
    """Tokens that the provider did not report have a tilde."""
    assert receipt(usage=Usage(10, 5, estimated=True)).startswith("gpt-4o-mini · ~10/5 tokens · ")


@pytest.mark.parametrize(
    ("finish_reason", "ending"),
    [
        ("stop", "talk"),
        ("tool_calls", "talk"),
        ("length", "talk · cut at the output limit"),
        ("content_filter", "talk · cut by the provider's filter"),
        ("interrupted", "talk · interrupted"),
        ("unknown", "talk · the server gave no finish reason"),
    ],
)
def test_unusual_finish_reason_is_shown(finish_reason: str, ending: str) -> None:
    """A receipt says why the answer was cut."""
    assert receipt(finish_reason=finish_reason).endswith(f" · {ending}")


def test_receipt_is_one_printable_line() -> None:
    """A model name from the server adds no line break and no escape sequence."""
    assert receipt(model="evil\n\x1b[31mname").startswith("evil [31mname · ")


def test_response_is_its_text_in_a_console_and_html_in_a_notebook() -> None:
    """``str`` and ``repr`` are the text; the notebook shows formatted text, warnings and the receipt."""
    response = Response.of(replace(TURN, warnings=("careful <b>",)), "talk")
    assert str(response) == repr(response) == "**Hello**"
    html = response._repr_html_()
    assert "<strong>Hello</strong>" in html
    receipt = 'title="gpt-4o-mini · 1,234/56 tokens · $0.0019 · 0.8 s · talk">gpt-4o-mini · $0.0019 · 0.8 s</div>'
    assert html.index("⚠ careful &lt;b&gt;") < html.index(receipt)


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({}, "gpt-4o-mini · $0.0019 · 0.8 s"),
        ({"cost": Decimal("0.0000451")}, "gpt-4o-mini · <$0.0001 · 0.8 s"),
        ({"cost": None}, "gpt-4o-mini · price unknown · 0.8 s"),
        ({"cost": Decimal(0)}, "gpt-4o-mini · $0.00 · 0.8 s"),
        ({"finish_reason": "interrupted"}, "gpt-4o-mini · $0.0019 · 0.8 s · interrupted"),
        ({"truncated": 3}, "gpt-4o-mini · $0.0019 · 0.8 s · 3 turns left out"),
    ],
)
def test_short_receipt_has_what_a_reader_wants_at_a_glance(changes: dict[str, Any], short: str) -> None:
    """Model, cost, and seconds; anything unusual is in it, too."""
    assert Receipt.of(Response.of(replace(TURN, **changes), "talk"), "talk").short == short


def test_short_receipt_of_a_stored_answer_tells_what_it_saved() -> None:
    """Its seconds are those of another day, so they are only in the tooltip."""
    receipt = Receipt.of(Response.replay_of(TURN, "talk"), "talk")
    assert receipt.short == "gpt-4o-mini · stored answer · saved $0.0019"
    assert receipt.text == "gpt-4o-mini · 1,234/56 tokens · replayed · $0.00 (saved $0.0019) · 0.8 s · talk"


def test_answer_without_text_is_its_receipt() -> None:
    """There is no empty box above it."""
    assert answer_html("", Receipt.line("waiting 2 s: <busy>")) == (
        '<div class="mathjax_ignore tex2jax_ignore" style="color:var(--jp-ui-font-color2,#767676);font-size:12px;'
        'margin-top:2px">waiting 2 s: &lt;busy&gt;</div>'
    )
