"""Usage and cost as servers report them, byte for byte, and the correct cost by each vendor's documentation.

Each body was seen in a vendor's documentation or in a public bug report. The prices are those of the vendor at that
time, in dollars per million tokens, and every expected cost was computed by hand from both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from chat_server import ChatServer, Reply
from promptkit_nb import Budget, ConversationManager, OpenAIProvider, Price, Response, Usage
from promptkit_nb.pricing import cost_range
from promptkit_nb.providers.openai_usage import ReportedUsage
from promptkit_nb.turns import utc_now

MODEL = "a-model-that-no-list-has"


def chunk(**fields: Any) -> dict[str, Any]:
    """Return one event of a stream."""
    return {"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [], **fields}


def says(text: str = "", finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return an event with a piece of text; further fields belong to its choice."""
    delta = {"content": text} if text else {}
    return chunk(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason, **fields}])


@dataclass(frozen=True)
class Body:
    """The reply of one server, and its meaning. ``chunks`` replace the usual two, and the usage in the last one."""

    vendor: str
    usage: dict[str, Any]
    means: Usage
    price: Price
    usd: str
    chunks: Sequence[dict[str, Any]] = ()
    source: str = "yours"
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name of the case."""
        return self.vendor

    def reply(self) -> Reply:
        """Return the answer of the server."""
        chunks = self.chunks or [says("Fine."), says(finish_reason="stop"), chunk(usage=self.usage)]
        return Reply(chunks=chunks, headers=self.headers)


def tokens(input_tokens: int, output_tokens: int, total: Any = None, **more: Any) -> dict[str, Any]:
    """Return a usage with OpenAI's names."""
    total_tokens = input_tokens + output_tokens if total is None else total
    counts = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": total_tokens}
    return {**counts, **more}


def reasoned(count: int) -> dict[str, Any]:
    """Return the detail that reports reasoning."""
    return {"completion_tokens_details": {"reasoning_tokens": count}}


GPT_4O = Price(2.5, 10, cached_input=1.25)
GPT_5_6 = Price(1, 6, cached_input=0.1, cache_write=1.25)
GROK = Price(1.25, 2.5, cached_input=0.2)
GEMINI = Price(0.3, 2.5, cached_input=0.03)
KIMI = Price(0.6, 2.5, cached_input=0.15)
MISTRAL = Price(2, 6, cached_input=0.2)
CLAUDE = Price(3, 15, cached_input=0.3, cache_write=3.75)
OPUS = Price(5, 25, cached_input=0.5, cache_write=6.25)
FREE = Price(0, 0)

MOONSHOT_USAGE = tokens(1336, 31, cached_tokens=1280, prompt_tokens_details={"cached_tokens": 1280})
GROQ_USAGE = {"queue_time": 0.075, "prompt_time": 0.006, **tokens(23, 19)}
LLAMA_CPP = {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.958, "predicted_n": 35, "predicted_ms": 661.064}
BYOK = {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0360795}}
LITELLM = {
    "prompt_tokens_details": {"cached_tokens": 66360, "cache_creation_tokens": 32435},
    "cache_read_input_tokens": 66360,
    "cache_creation_input_tokens": 32435,
}


def reported(vendor: str, usage: dict[str, Any], means: Usage, usd: str, price: Price = FREE) -> Body:
    """Return a body whose cost is reported by the server."""
    return Body(vendor, usage, means, price, usd, source="reported")


BODIES = [
    Body("OpenAI", tokens(1000, 500), Usage(1000, 500), GPT_4O, "0.0075"),
    Body(
        "OpenAI, cached input",
        tokens(2006, 300, prompt_tokens_details={"cached_tokens": 1920}),
        Usage(2006, 300, cached_tokens=1920),
        GPT_4O,
        "0.005615",
    ),
    Body(
        "OpenAI, reasoning is part of the output",
        tokens(700, 500, **reasoned(300)),
        Usage(700, 500, reasoning_tokens=300),
        Price(1.1, 4.4),
        "0.00297",
    ),
    Body(
        "OpenAI from GPT-5.6 on, a first request writes the cache",
        tokens(18014, 5, prompt_tokens_details={"cache_write_tokens": 18011, "cached_tokens": 0}),
        Usage(18014, 5, cache_write_tokens=18011),
        GPT_5_6,
        "0.02254675",
    ),
    Body(
        "OpenAI from GPT-5.6 on, a longer prefix",
        tokens(2600, 300, prompt_tokens_details={"cached_tokens": 2000, "cache_write_tokens": 400}),
        Usage(2600, 300, cached_tokens=2000, cache_write_tokens=400),
        GPT_5_6,
        "0.0027",
    ),
    Body(
        "xAI, reasoning beside the output",
        tokens(10120, 1499, 14428, prompt_tokens_details={"cached_tokens": 128}, **reasoned(2809)),
        Usage(10120, 4308, cached_tokens=128, reasoning_tokens=2809),
        GROK,
        "0.0232856",
    ),
    reported(
        "xAI, its own cost in ticks",
        tokens(10120, 1499, 14428, cost_in_usd_ticks=232856000, **reasoned(2809)),
        Usage(10120, 4308, reasoning_tokens=2809),
        "0.0232856",
        GROK,
    ),
    Body(
        "xAI, almost nothing but reasoning",
        tokens(12, 2, 331, **reasoned(317)),
        Usage(12, 319, reasoning_tokens=317),
        Price(0.3, 0.5),
        "0.0001631",
    ),
    Body(
        "xAI, an older answer that counts like OpenAI",
        tokens(500, 500, **reasoned(200)),
        Usage(500, 500, reasoning_tokens=200),
        Price(3, 15),
        "0.009",
    ),
    Body(
        "Gemini's layer, no output but thoughts",
        tokens(21, 0, 81, **reasoned(60)),
        Usage(21, 60, reasoning_tokens=60),
        GEMINI,
        "0.0001563",
    ),
    Body(
        "Gemini's layer, thoughts only in the total",
        tokens(20, 198, 623),
        Usage(20, 603),
        GEMINI,
        "0.0015135",
    ),
    Body(
        "a server without a total, reasoning beside the output",
        {"prompt_tokens": 10, "completion_tokens": 2, **reasoned(40)},
        Usage(10, 42, reasoning_tokens=40),
        Price(1, 2),
        "0.000094",
    ),
    Body(
        "DeepSeek, hits and misses",
        tokens(1000, 200, prompt_cache_hit_tokens=640, prompt_cache_miss_tokens=360, **reasoned(120)),
        Usage(1000, 200, cached_tokens=640, reasoning_tokens=120),
        Price(0.27, 1.1, cached_input=0.07),
        "0.000362",
    ),
    Body(
        "Moonshot, inside the choice",
        MOONSHOT_USAGE,
        Usage(1336, 31, cached_tokens=1280),
        KIMI,
        "0.0003031",
        chunks=[says("Fine."), says(finish_reason="stop", usage=MOONSHOT_USAGE)],
    ),
    Body(
        "Moonshot, cached beside the counts",
        tokens(19, 21, cached_tokens=10),
        Usage(19, 21, cached_tokens=10),
        KIMI,
        "0.0000594",
    ),
    Body(
        "Groq, under its own key",
        GROQ_USAGE,
        Usage(23, 19),
        Price(0.05, 0.08),
        "0.00000267",
        chunks=[says("Fine."), says(finish_reason="stop") | {"x_groq": {"id": "req_01", "usage": GROQ_USAGE}}],
    ),
    Body(
        "Groq, under its own key and again in a chunk of its own",
        GROQ_USAGE,
        Usage(23, 19),
        Price(0.05, 0.08),
        "0.00000267",
        chunks=[
            says("Fine."),
            says(finish_reason="stop") | {"x_groq": {"id": "req_01", "usage": GROQ_USAGE}},
            chunk(usage=GROQ_USAGE),
        ],
    ),
    Body(
        "Mistral, cached input",
        tokens(1013, 30, prompt_tokens_details={"cached_tokens": 1008}),
        Usage(1013, 30, cached_tokens=1008),
        MISTRAL,
        "0.0003916",
    ),
    Body(
        "Mistral, under its other names",
        tokens(801, 2, num_cached_tokens=768, prompt_token_details={"cached_tokens": 768}),
        Usage(801, 2, cached_tokens=768),
        MISTRAL,
        "0.0002316",
    ),
    Body(
        "LiteLLM to Claude, everything is in the input",
        tokens(98805, 5120, **LITELLM, **reasoned(1710)),
        Usage(98805, 5120, cached_tokens=66360, cache_write_tokens=32435, reasoning_tokens=1710),
        OPUS,
        "0.36394875",
    ),
    Body(
        "LiteLLM to Bedrock, written input only in the total",
        tokens(400, 20, 1420, cache_read_input_tokens=300, cache_creation_input_tokens=1000),
        Usage(1400, 20, cached_tokens=300, cache_write_tokens=1000),
        CLAUDE,
        "0.00444",
    ),
    Body(
        "Portkey to Bedrock, cached input only in the total",
        tokens(368, 19, 10923, cache_read_input_tokens=10536, cache_creation_input_tokens=0),
        Usage(10904, 19, cached_tokens=10536),
        CLAUDE,
        "0.0045498",
    ),
    Body(
        "Bedrock's own names",
        {
            "inputTokens": 368,
            "outputTokens": 19,
            "totalTokens": 10923,
            "cacheReadInputTokens": 10536,
            "cacheWriteInputTokens": 0,
        },
        Usage(10904, 19, cached_tokens=10536),
        CLAUDE,
        "0.0045498",
    ),
    Body(
        "Anthropic's own names, without a total",
        {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200},
        Usage(1210, 5, cached_tokens=1000, cache_write_tokens=200),
        CLAUDE,
        "0.001155",
    ),
    Body(
        "names of OpenAI's responses",
        {"input_tokens": 18014, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 18011}},
        Usage(18014, 5, cached_tokens=18011),
        GPT_5_6,
        "0.0018341",
    ),
    Body(
        "Qwen, written input",
        tokens(6000, 100, prompt_tokens_details={"cached_tokens": 0, "cache_creation_input_tokens": 5980}),
        Usage(6000, 100, cache_write_tokens=5980),
        Price(0.4, 1.2, cached_input=0.04, cache_write=0.5),
        "0.003118",
    ),
    reported(
        "OpenRouter reports its cost",
        tokens(25612, 12, cost=0.03207, prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 25600}),
        Usage(25612, 12, cache_write_tokens=25600),
        "0.03207",
    ),
    reported(
        "OpenRouter with a key of the user's at the provider",
        tokens(9171, 113, **BYOK, **reasoned(55)),
        Usage(9171, 113, reasoning_tokens=55),
        "0.0360795",
    ),
    reported(
        "OpenRouter with such a key, and its own fee",
        tokens(9171, 113, **(BYOK | {"cost": 0.001803975})),
        Usage(9171, 113),
        "0.037883475",
    ),
    reported(
        "OpenRouter without such a key: what it paid itself is not added",
        tokens(100, 10, cost=0.00014, is_byok=False, cost_details={"upstream_inference_cost": 0.00014}),
        Usage(100, 10),
        "0.00014",
    ),
    reported(
        "Perplexity's cost with the fee of each search",
        tokens(8, 142, cost={"input_tokens_cost": 0.000008, "request_cost": 0.005, "total_cost": 0.00515}),
        Usage(8, 142),
        "0.00515",
        Price(1, 1),
    ),
    reported(
        "Perplexity's research, reasoning far beyond the output",
        tokens(108, 3256, reasoning_tokens=73248, num_search_queries=74, cost={"total_cost": 0.634808}),
        Usage(108, 76504, reasoning_tokens=73248),
        "0.634808",
        Price(2, 8),
    ),
    reported("DeepInfra's estimate of its cost", tokens(15, 16, estimated_cost=0.0000268), Usage(15, 16), "0.0000268"),
    reported(
        "LiteLLM's cost with the noise of binary fractions",
        tokens(1000, 500, cost=0.00045000000000000004),
        Usage(1000, 500),
        "0.00045",
    ),
    Body(
        "LiteLLM's cost in a header",
        tokens(1000, 500),
        Usage(1000, 500),
        FREE,
        "0.00045",
        source="reported",
        headers={"x-litellm-response-cost": "4.5000000000000004e-04"},
    ),
    Body(
        "LiteLLM's header of a stream that had not begun",
        tokens(1000, 500),
        Usage(1000, 500),
        Price(0.15, 0.6),
        "0.00045",
        headers={"x-litellm-response-cost": "0.0"},
    ),
    Body(
        "Vercel's gateway, beside the text",
        tokens(1000, 500),
        Usage(1000, 500),
        FREE,
        "0.00045",
        source="reported",
        chunks=[
            says("Fine."),
            chunk(
                choices=[{"delta": {"provider_metadata": {"gateway": {"cost": "0.00045"}}}, "finish_reason": "stop"}]
            ),
            chunk(usage=tokens(1000, 500)),
        ],
    ),
    Body(
        "vLLM, running totals in every chunk",
        {},
        Usage(16, 3),
        Price(1, 2),
        "0.000022",
        chunks=[
            says("") | {"usage": tokens(16, 0)},
            says("Fi") | {"usage": tokens(16, 1)},
            says("ne.") | {"usage": tokens(16, 2)},
            says(finish_reason="stop") | {"usage": tokens(16, 3)},
            chunk(usage=tokens(16, 3)),
        ],
    ),
    Body(
        "llama.cpp, among its timings",
        {},
        Usage(237, 35, cached_tokens=236),
        Price(1, 2, cached_input=0.5),
        "0.000189",
        chunks=[says("Fine."), says(finish_reason="stop") | {"timings": LLAMA_CPP}],
    ),
    Body(
        "llama.cpp, usage beside its timings",
        {},
        Usage(237, 35, cached_tokens=236),
        Price(1, 2, cached_input=0.5),
        "0.000189",
        chunks=[says("Fine."), says(finish_reason="stop"), chunk(usage=tokens(237, 35), timings=LLAMA_CPP)],
    ),
    Body(
        "the whole usage in the first chunk",
        {},
        Usage(16, 3),
        Price(1, 2),
        "0.000022",
        chunks=[says("Fine.") | {"usage": tokens(16, 3)}, says(finish_reason="stop") | {"usage": None}],
    ),
    Body(
        "input in the first chunk, output in the last",
        {},
        Usage(16, 54),
        Price(1, 2),
        "0.000124",
        chunks=[
            says("Fine.") | {"usage": {"prompt_tokens": 16, "completion_tokens": 0}},
            says(finish_reason="stop"),
            chunk(usage={"completion_tokens": 54}),
        ],
    ),
]


def answered(chat_server: ChatServer, body: Body, reply: Reply) -> tuple[ConversationManager, Response]:
    """Return what a conversation under a budget makes of an answer."""
    chat_server.reply(reply)
    provider = OpenAIProvider(MODEL, api_key="unused", base_url=chat_server.url, prices={MODEL: body.price})
    manager = ConversationManager(provider, budget=Budget(100, per="total"))
    return manager, manager.new_conversation().send("How are you?")


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_call_costs_what_the_vendor_bills(chat_server: ChatServer, body: Body) -> None:
    """Tokens by kind and dollars to the last digit, in the turn and in the ledger that budgets read."""
    manager, response = answered(chat_server, body, body.reply())
    assert response.usage == body.means
    assert (response.cost, response.turn.price_source) == (Decimal(body.usd), body.source)
    assert manager.store.spending("total").spent == Decimal(body.usd)
    assert response.warnings == ()


@pytest.mark.parametrize("body", [body for body in BODIES if not body.chunks and not body.headers], ids=str)
def test_whole_body_means_the_same(chat_server: ChatServer, body: Body) -> None:
    """So does one JSON object, which servers send instead of a stream."""
    whole = chunk(
        choices=[{"index": 0, "message": {"content": "Fine."}, "finish_reason": "stop"}],
        usage=body.usage,
    )
    reply = Reply(body=json.dumps(whole).encode(), content_type="application/json")
    response = answered(chat_server, body, reply)[1]
    assert (response.usage, response.cost) == (body.means, Decimal(body.usd))


@pytest.mark.parametrize(
    "absurd",
    [
        '{"prompt_tokens": 18446744073709551616, "completion_tokens": 5}',
        '{"prompt_tokens": 12, "completion_tokens": 18446744073709551616}',
        '{"prompt_tokens": -12, "completion_tokens": 5}',
        '{"prompt_tokens": 12, "completion_tokens": -5}',
        '{"prompt_tokens": NaN, "completion_tokens": 5}',
        '{"prompt_tokens": 12, "completion_tokens": Infinity}',
        '{"prompt_tokens": 12, "completion_tokens": 1e400}',
        '{"prompt_tokens": 12.5, "completion_tokens": 5}',
        '{"prompt_tokens": "-3", "completion_tokens": 5}',
    ],
)
def test_absurd_tokens_are_estimated_instead(chat_server: ChatServer, absurd: str) -> None:
    """They reach neither the turn nor the ledger, and the answer says that its tokens are estimated."""
    last = f'{{"id": "c", "model": "m", "choices": [], "usage": {absurd}}}'
    chunks: list[object] = [says("Fine."), says(finish_reason="stop"), last]
    manager, response = answered(chat_server, BODIES[0], Reply(chunks=chunks))
    assert response.usage == Usage(11, 2, estimated=True)
    assert response.warnings == (
        f"127.0.0.1:{chat_server.port} reported implausible token counts; the tokens are estimated.",
    )
    assert manager.store.spending("total").spent == response.cost == Decimal("0.0000475")


@pytest.mark.parametrize("absurd", ["-1", "NaN", "Infinity", "1e12", '"-0.5"', "1e400"])
def test_absurd_cost_is_not_used(chat_server: ChatServer, absurd: str) -> None:
    """The price decides, and the answer says so."""
    usage = f'{{"prompt_tokens": 1000, "completion_tokens": 500, "cost": {absurd}}}'
    last = f'{{"id": "c", "model": "m", "choices": [], "usage": {usage}}}'
    chunks: list[object] = [says("Fine."), says(finish_reason="stop"), last]
    response = answered(chat_server, BODIES[0], Reply(chunks=chunks))[1]
    assert (response.cost, response.turn.price_source) == (Decimal("0.0075"), "yours")
    assert response.warnings == (f"127.0.0.1:{chat_server.port} reported an implausible cost, which is ignored.",)


def test_absurd_detail_does_no_harm(chat_server: ChatServer) -> None:
    """Implausible cached tokens count as 0; more than the input count as all of it."""
    for cached, means in ((-7, 0), (2**64, 0), (5000, 1000)):
        usage = tokens(1000, 500, prompt_tokens_details={"cached_tokens": cached})
        body = Body("", usage, Usage(1000, 500, cached_tokens=means), GPT_4O, "")
        assert answered(chat_server, body, body.reply())[1].usage == body.means


@pytest.mark.parametrize(
    ("price", "cost", "source"),
    [(FREE, Decimal(0), "yours"), (GPT_4O, None, None)],
)
def test_reported_zero_is_free_only_if_the_user_says_so(
    chat_server: ChatServer, price: Price, cost: Decimal | None, source: str | None
) -> None:
    """Gateways report 0 if they do not know a price: beside tokens it is unknown, unless the price is 0, too."""
    body = Body("", tokens(1000, 500, cost=0), Usage(1000, 500), price, "")
    response = answered(chat_server, body, body.reply())[1]
    assert (response.cost, response.turn.price_source) == (cost, source)


def test_server_that_reports_costs_needs_no_price_under_a_budget(chat_server: ChatServer) -> None:
    """It is refused until it has reported a cost; then what it asked for is the estimate of the next call."""
    reply = Reply(text="Fine.", usage=tokens(1000, 500, cost=0.007))
    chat_server.usual = lambda _: reply
    model = "another-model-that-no-list-has"
    provider = OpenAIProvider(model, api_key="unused", base_url=chat_server.url)
    careful = ConversationManager(provider, budget=Budget("0.0075"))
    with pytest.raises(ValueError, match=f"The price of '{model}' is unknown"):
        careful.new_conversation().send("How are you?")
    assert ConversationManager(provider).new_conversation().send("How are you?").cost == Decimal("0.007")
    again = ConversationManager(OpenAIProvider(model, api_key="unused", base_url=chat_server.url), budget=Budget(1))
    answer = again.new_conversation().send("How are you?", max_output_tokens=500)
    assert (answer.cost, again.store.spending("total").spent) == (Decimal("0.007"), Decimal("0.007"))


def test_budget_reserves_what_writing_the_cache_may_cost() -> None:
    """GPT-5.6 bills input that it writes to its cache at 1.25 times the price, and may write all of it."""
    provider = OpenAIProvider("m", api_key="unused", prices={"m": GPT_5_6})
    found = cost_range(provider, "m", input_tokens=1000, max_output_tokens=100, turns=(), at=utc_now())
    assert (found.low_usd, found.high_usd) == (Decimal("0.001006"), Decimal("0.00185"))


def test_reading_is_independent_of_the_order_of_chunks() -> None:
    """Counts only grow, so a chunk that repeats an earlier state changes nothing."""
    states = [chunk(usage=tokens(16, count)) for count in (0, 3, 1)]
    found = set()
    for order in (states, states[::-1]):
        reported = ReportedUsage()
        for each in order:
            reported.read(each)
        found.add(reported.usage)
    assert found == {Usage(16, 3)}
