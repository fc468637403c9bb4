"""Prices of calls: checked by hand against the published prices, and unknown instead of guessed."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import genai_prices
import pytest

from chat_server import ChatServer, Reply
from promptkit_nb import Conversation, ConversationManager, DemoProvider, OpenAIProvider, Price
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.pricing import CallCost, check_prices, parse_price, price_of
from promptkit_nb.turns import Usage

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRICE_LIST = f"genai-prices {genai_prices.__version__}"


def test_listed_model_costs_what_its_price_list_says() -> None:
    """1000 input and 500 output tokens of gpt-4o-mini at 0.15 and 0.60 dollars per million: 0.00045."""
    assert price_of("gpt-4o-mini", Usage(1000, 500), at=AT) == CallCost(Decimal("0.00045"), "list", PRICE_LIST)


def test_cached_input_is_cheaper() -> None:
    """Cached tokens are part of the input and cost half: 600 at full and 400 at half price."""
    assert price_of("gpt-4o-mini", Usage(1000, 500, cached_tokens=400), at=AT).usd == Decimal("0.00042")


def test_reasoning_is_part_of_the_output_not_added_to_it() -> None:
    """300 reasoning tokens within 500 output tokens cost the same as 500 output tokens."""
    with_reasoning = price_of("o4-mini", Usage(700, 500, reasoning_tokens=300), at=AT)
    assert with_reasoning.usd == Decimal("0.00297")
    assert with_reasoning == price_of("o4-mini", Usage(700, 500), at=AT)


def test_estimated_usage_is_priced_like_reported_usage() -> None:
    """The price does not depend on who counted the tokens."""
    assert price_of("gpt-4o-mini", Usage(1000, 500, estimated=True), at=AT).usd == Decimal("0.00045")


@pytest.mark.parametrize("model", ["gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini", "GPT-4o-mini"])
def test_other_names_of_a_listed_model_find_its_price(model: str) -> None:
    """Dated names, names with a vendor prefix and other capitalization are the same model."""
    assert price_of(model, Usage(1000, 500), at=AT) == CallCost(Decimal("0.00045"), "list", PRICE_LIST)


@pytest.mark.parametrize(
    "model", ["llama3.2", "qwen2.5:0.5b", "", "/", "vendor/", "my-gpt-4o-mini", "ft:gpt-4o-mini:me"]
)
def test_unknown_model_has_no_price(model: str) -> None:
    """Unknown is ``None`` and has no source; it is never zero."""
    assert price_of(model, Usage(1000, 500), at=AT) == CallCost(None, None)


def test_model_priced_by_the_hour_has_no_price_per_token() -> None:
    """A transcription model is listed, but without a price per token: unknown, not free."""
    assert price_of("whisper-1", Usage(1000, 500), at=AT) == CallCost(None, None)


def test_zero_tokens_cost_zero_only_where_the_model_is_known() -> None:
    """Zero tokens cost zero if there is a price, and are unknown otherwise."""
    assert price_of("gpt-4o-mini", Usage(0, 0), at=AT).usd == Decimal(0)
    assert price_of("llama3.2", Usage(0, 0), at=AT).usd is None


def test_usage_that_contradicts_itself_has_no_price() -> None:
    """More cached than input tokens are impossible: the cost is unknown."""
    assert price_of("gpt-4o-mini", Usage(10, 5, cached_tokens=400), at=AT) == CallCost(None, None)


def test_price_is_that_of_the_day_of_the_call() -> None:
    """o3 cost 10 and 40 dollars per million until it was cut to 2 and 8 in June 2025."""
    before = price_of("o3", Usage(1_000_000, 1_000_000), at=datetime(2025, 5, 1, tzinfo=UTC))
    assert before.usd == Decimal(50)
    assert price_of("o3", Usage(1_000_000, 1_000_000), at=AT).usd == Decimal(10)


def test_user_prices_win_over_the_list() -> None:
    """A price given by the user takes precedence over the list."""
    prices = {"gpt-4o-mini": (1.0, 2.0)}
    assert price_of("gpt-4o-mini", Usage(1000, 500), at=AT, prices=prices) == CallCost(Decimal("0.002"), "yours")


def test_user_prices_are_per_million_tokens_in_and_out() -> None:
    """One and three cents per thousand: 1000 input and 500 output tokens are 0.01 and 0.015."""
    assert price_of("mine", Usage(1000, 500), at=AT, prices={"mine": (10, 30)}).usd == Decimal("0.025")


def test_user_prices_hold_for_cached_and_reasoning_tokens_too() -> None:
    """They are part of the input and of the output: nothing is cheaper, and nothing is added."""
    usage = Usage(1000, 500, cached_tokens=400, reasoning_tokens=300)
    assert price_of("mine", usage, at=AT, prices={"mine": (10, 30)}).usd == Decimal("0.025")


def test_user_prices_are_exact_decimals() -> None:
    """0.1 dollars per million is exactly a tenth, whatever its binary fraction."""
    assert str(price_of("mine", Usage(1, 3), at=AT, prices={"mine": (0.1, 0.2)}).usd) == "7E-7"


def test_user_prices_match_the_exact_name_only() -> None:
    """A price applies to exactly one model name."""
    assert price_of("mine-2", Usage(1, 1), at=AT, prices={"mine": (1, 1)}) == CallCost(None, None)


def test_free_is_what_the_user_says_is_free() -> None:
    """A local model costs zero if the user says so."""
    assert price_of("llama3.2", Usage(1000, 500), at=AT, prices={"llama3.2": (0, 0)}) == CallCost(Decimal(0), "yours")


def test_side_that_the_user_says_is_free_is_free() -> None:
    """One price of zero does not fall back to the list."""
    prices = {"gpt-4o-mini": (0, 2)}
    assert price_of("gpt-4o-mini", Usage(1000, 500), at=AT, prices=prices) == CallCost(Decimal("0.001"), "yours")


@pytest.mark.parametrize(
    ("model", "prices", "expected"),
    [
        ("llama3.2", None, CallCost(None, None)),
        ("llama3.2", {"llama3.2": (0, 0)}, CallCost(Decimal(0), "yours")),
        ("gpt-4o-mini", None, CallCost(Decimal("0.00045"), "list", PRICE_LIST)),
    ],
)
def test_server_on_this_machine_is_free_only_if_the_user_says_so(
    model: str, prices: dict[str, tuple[float, float]] | None, expected: CallCost
) -> None:
    """It may be a proxy: the address says nothing about the price."""
    provider = OpenAIProvider(model, base_url="http://127.0.0.1:11434/v1", prices=prices)
    assert provider.price(model, Usage(1000, 500), AT) == expected


def test_demo_costs_nothing() -> None:
    """It calls no model."""
    assert DemoProvider().price("demo", Usage(1000, 500), AT).usd == Decimal(0)


def test_cost_that_the_server_reports_is_preferred_to_the_list(chat_server: ChatServer) -> None:
    """Resellers such as OpenRouter report the actual cost in ``usage.cost``; the list only has usual prices."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "cost": 0.0004}
    chat_server.reply(Reply(text="Yes.", usage=usage))
    turn = _conversation(chat_server).send("Really?").turn
    assert (turn.cost, turn.price_source) == (Decimal("0.0004"), "reported")


def test_turn_keeps_the_version_of_the_list_that_priced_it(chat_server: ChatServer) -> None:
    """Paid costs are never computed again with newer prices."""
    turn = _conversation(chat_server).send("Hi").turn
    assert (turn.price_source, turn.price_list) == ("list", PRICE_LIST)


def test_streamed_turns_cost_what_sent_ones_do(chat_server: ChatServer) -> None:
    """Three calls of 10 input and 5 output tokens, each way: $0.0000045 each."""
    sent, streamed = _conversation(chat_server), _conversation(chat_server)
    for text in ("one", "two", "three"):
        sent.send(text)
        assert "".join(streamed.stream(text))
    assert sent.total_cost == streamed.total_cost == Decimal("0.0000135")


def test_prices_never_touch_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price data is in the installed package: opening a socket would fail here."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("pricing opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert price_of("gpt-4.1", Usage(1000, 500), at=AT).usd == Decimal("0.006")


def test_importing_prices_does_not_load_the_price_list() -> None:
    """The list is loaded when the first price is needed."""
    code = "import sys, promptkit_nb.pricing; print('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_well_formed_prices_pass_the_check() -> None:
    """Whole numbers, fractions, decimals and zero are prices; so is a list of two."""
    check_prices({"a": (0, 0.5), "b": (Decimal("0.15"), 1), "c": [1, 2]})  # type: ignore[dict-item]  # as from JSON


@pytest.mark.parametrize(
    ("prices", "named"),
    [
        ({"m": (-1, 2)}, "(-1, 2)"),
        ({"m": (float("nan"), 2)}, "(nan, 2)"),
        ({"m": (1, float("inf"))}, "(1, inf)"),
        ({"m": (True, 2)}, "(True, 2)"),
        ({"m": ("1", "2")}, "('1', '2')"),
        ({"m": 3}, "3"),
        ({"m": "12"}, "'12'"),
        ({"m": (1, 2, 3)}, "(1, 2, 3)"),
        ({"": (1, 2)}, "''"),
        ({7: (1, 2)}, "7"),
    ],
)
def test_malformed_prices_are_refused_by_value_and_shape(prices: dict[str, tuple[float, float]], named: str) -> None:
    """The error shows the value and an example of a price."""
    with pytest.raises(InvalidArgumentError) as caught:
        check_prices(prices)
    assert named in str(caught.value)
    assert 'prices={"my-model": (0.15, 0.60)}' in str(caught.value)


GROQ = "https://api.groq.com/openai/v1"
LATE = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("model", "base_url", "usd"),
    [
        ("openai/gpt-oss-120b", GROQ, "0.075"),
        ("openai/gpt-oss-120b", None, "0.0219"),
        ("llama-3.3-70b-versatile", GROQ, "0.138"),
        ("models/gemini-2.5-flash", "https://generativelanguage.googleapis.com/v1beta/openai", "0.28"),
        ("gpt-4o-mini", "https://mine.openai.azure.com/openai/v1", "0.075"),
        ("gpt-4o-mini", "http://127.0.0.1:4000/v1", "0.075"),
        ("a-model-of-nobody", GROQ, None),
    ],
)
def test_price_is_that_of_the_server(model: str, base_url: str | None, usd: str | None) -> None:
    """The same model costs several times more at one server than at another; else the name alone decides."""
    found = price_of(model, Usage(100_000, 100_000), at=LATE, base_url=base_url)
    assert found.usd == (None if usd is None else Decimal(usd))


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "deepseek-r1-distill-qwen-32b",
        "claude-3-haiku.gguf",
        "claude-3-haiku-q4_k_m",
        "my-claude-3-5-haiku-clone",
        "gemini-1.5-flash-8b",
        "gemini-3.6-flash-lite",
        "kimi-k2.5-abliterated",
        "deepseek-r1:8b",
        "deepseek-r1:latest",
        "deepseek/deepseek-r1:free",
        "deepseek-v4-flash:q4_0",
        "deepseek-r1:1.5b-qwen-distill-q4_K_M",
        "mixtral-8x7b:8x7b",
        "gpt-4o:latest",
        "gpt-4o:fp16",
    ],
)
def test_relative_of_a_listed_model_is_another_model(model: str) -> None:
    """Distilled, quantized, local, and free ones do not cost what the model costs that they are named after."""
    assert price_of(model, Usage(1000, 500), at=LATE) == CallCost(None, None)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("claude-3-haiku-20240307", None),
        ("claude-sonnet-4-5@20250929", None),
        ("anthropic/claude-sonnet-4.5", None),
        ("deepseek-ai/DeepSeek-R1", None),
        ("deepseek-r1-0528", None),
        ("gemini-2.5-pro-exp-03-25", None),
        ("gpt-5.2-20251211", None),
        ("ft:gpt-4o-mini-2024-07-18:me::abc", "https://api.openai.com/v1"),
        ("us.anthropic.claude-3-haiku-20240307-v1:0", "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"),
        ("anthropic/claude-3.7-sonnet:thinking", "https://openrouter.ai/api/v1"),
    ],
)
def test_versions_and_names_of_vendors_keep_the_price(model: str, base_url: str | None) -> None:
    """Dates, previews, vendors before a slash, and fine-tuned and cloud names with colons."""
    assert price_of(model, Usage(1000, 500), at=LATE, base_url=base_url).source == "list"


@pytest.mark.parametrize("name", ["ollama", "lmstudio", "vllm", "llamacpp"])
def test_local_server_sells_nothing(name: str) -> None:
    """None of its models has a list price, under any name; the user's own price is used."""
    provider = OpenAIProvider.of_vendor(name, "gpt-4o-mini", prices={"mine": (0, 0)})
    assert provider.price("gpt-4o-mini", Usage(1000, 500), AT) == CallCost(None, None)
    assert provider.price("mine", Usage(1000, 500), AT) == CallCost(Decimal(0), "yours")


def test_written_input_has_a_price_of_its_own() -> None:
    """GPT-5.6 bills it at 1.25 times the price of input; models without such a price bill it as input."""
    usage = Usage(18_014, 0, cache_write_tokens=18_011)
    assert price_of("gpt-5.6-luna", usage, at=AT).usd == Decimal("0.02251675")
    assert price_of("claude-sonnet-4-5", usage, at=AT).usd == Decimal("0.06755025")
    assert price_of("gpt-4o-mini", usage, at=AT) == price_of("gpt-4o-mini", Usage(18_014, 0), at=AT)


def test_own_prices_of_cached_and_written_input() -> None:
    """Each kind of input has its own price; without one, it costs as much as other input."""
    usage = Usage(2600, 300, cached_tokens=2000, cache_write_tokens=400)
    prices: dict[str, Any] = {
        "all": Price(1, 6, cached_input=0.1, cache_write=1.25),
        "some": Price(input=1, output=6),
        "pair": (1, 6),
    }
    found = [price_of(model, usage, at=AT, prices=prices).usd for model in ("all", "some", "pair")]
    assert found == [Decimal("0.0027"), Decimal("0.0044"), Decimal("0.0044")]


def test_unknown_usage_has_no_price() -> None:
    """Its counts are 0, and its cost is not."""
    assert price_of("gpt-4o-mini", Usage(0, 0, unknown=True), at=AT) == CallCost(None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"input": -1, "output": 1},
        {"input": 1, "output": "2"},
        {"input": 1, "output": None},
        {"input": 1, "output": 1, "cached_input": float("nan")},
        {"input": 1, "output": 1, "cache_write": float("inf")},
        {"input": True, "output": 1},
    ],
)
def test_wrong_price_is_refused_by_name(arguments: dict[str, Any]) -> None:
    """The error names the argument and shows its value."""
    with pytest.raises(InvalidArgumentError, match=r"is not a price; give US dollars per million tokens"):
        Price(**arguments)


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("0.15/0.60", Price(Decimal("0.15"), Decimal("0.60"))),
        ("$1 / $2", Price(1, 2)),
        ("0/0", Price(0, 0)),
        (".5/1/0.1", Price(Decimal("0.5"), 1, cached_input=Decimal("0.1"))),
        ("1/6/0.1/1.25", Price(1, 6, cached_input=Decimal("0.1"), cache_write=Decimal("1.25"))),
    ],
)
def test_price_is_read_from_an_option(text: str, price: Price) -> None:
    """In, out, cached, and written, exactly as typed."""
    assert parse_price(text) == price


def test_answering_model_is_asked_if_the_requested_one_is_unknown(chat_server: ChatServer) -> None:
    """As with deployments on Azure; but a name with the tag of a local model decides alone."""
    provider = OpenAIProvider("my-deployment", api_key="unused", base_url=chat_server.url)
    conversation = ConversationManager(provider).new_conversation()
    chat_server.usual = lambda _: Reply(text="Yes.", model="gpt-4o-mini-2024-07-18")
    assert conversation.send("Really?").cost == Decimal("0.0000045")
    assert conversation.send("Really?", model="gpt-4o-mini:latest").cost is None


def _conversation(chat_server: ChatServer) -> Conversation:
    provider = OpenAIProvider("gpt-4o-mini", api_key="none", base_url=chat_server.url)
    return ConversationManager(provider).new_conversation()
