"""Reads the usage and cost of a call, under the field names and in the places that servers use.

OpenAI counts cached and written input as part of the input, and reasoning as part of the output. Other servers report
them separately; the total then shows where they belong. Implausible figures are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from promptkit_nb.turns import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_TOKENS = 10**12
MOST_USD = Decimal(10**9)
_SMALLEST_USD = Decimal("1E-12")
_TICK_USD = Decimal("1E-10")  # xAI's unit of cost

Path = tuple[str, ...]

_PROMPT = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details")
_OUTPUT = ("completion_tokens_details", "completion_token_details", "output_tokens_details")
_NAMES: dict[str, tuple[Path, ...]] = {
    "input": (("prompt_tokens",), ("input_tokens",), ("inputTokens",), ("prompt_n",)),
    "output": (("completion_tokens",), ("output_tokens",), ("outputTokens",), ("predicted_n",)),
    "total": (("total_tokens",), ("totalTokens",)),
    "cached": (
        *((details, "cached_tokens") for details in _PROMPT),
        ("cached_tokens",),  # Moonshot, Together
        ("prompt_cache_hit_tokens",),  # DeepSeek
        ("num_cached_tokens",),  # Mistral
        ("cache_read_input_tokens",),  # Anthropic, and gateways to it
        ("cacheReadInputTokens",),  # Bedrock
        ("cache_n",),  # llama.cpp, among its timings
    ),
    "written": (
        *((details, "cache_write_tokens") for details in _PROMPT),  # OpenAI, OpenRouter
        *((details, "cache_creation_tokens") for details in _PROMPT),  # LiteLLM
        *((details, "cache_creation_input_tokens") for details in _PROMPT),  # Qwen
        ("cache_write_tokens",),
        ("cache_creation_input_tokens",),
        ("cacheWriteInputTokens",),
    ),
    "reasoning": (
        *((details, "reasoning_tokens") for details in _OUTPUT),
        ("reasoning_tokens",),  # Perplexity
    ),
}
_OUTSIDE_INPUT = (
    *("cache_read_input_tokens", "cache_creation_input_tokens"),  # Anthropic
    *("cacheReadInputTokens", "cacheWriteInputTokens"),  # Bedrock
    "cache_n",  # llama.cpp
)
"""Field names of servers that count cached and written input separately from the input."""


@dataclass(slots=True)
class ReportedUsage:
    """Usage and cost reported by the chunks of an answer. Counts only grow, so the largest of each kind is used.

    ``has_absurd_tokens`` and ``has_absurd_cost`` are set if an implausible figure was reported.
    """

    has_absurd_tokens: bool = False
    has_absurd_cost: bool = False
    header_cost: str | None = None
    _costs: list[Decimal] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _has_names_outside: bool = False
    _has_openai_names: bool = False

    def read(self, chunk: Mapping[str, object]) -> None:
        """Read a chunk of a stream, or a whole answer."""
        for usage in _usages_in(chunk):
            self._read_counts(usage)
            self._read_cost(usage)
        for holder in (chunk, *_choices_in(chunk)):
            self._take_cost(_at(holder, ("provider_metadata", "gateway", "cost")))  # Vercel

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in dollars: from the answer, else from the header, which may be 0 because it is sent too early."""
        if not self._costs and _number(self.header_cost):
            self._take_cost(self.header_cost)
        return max(self._costs, default=None)

    @property
    def usage(self) -> Usage | None:
        """The usage, if input and output are known; an input of 0 counts as unknown."""
        counts = self._counts
        if self.has_absurd_tokens or not counts.get("input") or "output" not in counts:
            return None
        output, reasoning = counts["output"], counts.get("reasoning", 0)
        rest = counts.get("total", 0) - counts["input"] - output
        outside = self._outside_input(rest)
        input_tokens = counts["input"] + outside
        if rest > outside:
            output += rest - outside
        elif reasoning > output:  # not a part of the output
            output += reasoning
        cached = min(counts.get("cached", 0), input_tokens)
        return Usage(
            input_tokens,
            output,
            cached_tokens=cached,
            reasoning_tokens=min(reasoning, output),
            cache_write_tokens=min(counts.get("written", 0), input_tokens - cached),
        )

    def _outside_input(self, rest: int) -> int:
        """Return how many cached and written tokens are not included in the reported input.

        ``rest`` is the reported total minus input and output: that is reasoning, unless it equals these tokens.
        """
        cached, written, reasoning = (self._counts.get(kind, 0) for kind in ("cached", "written", "reasoning"))
        for outside in (cached + written, written, cached):
            if outside and rest in {outside, outside + reasoning} and rest != reasoning:
                return outside
        is_impossible_within = not self._has_openai_names or cached + written > self._counts["input"]
        return cached + written if rest <= 0 and self._has_names_outside and is_impossible_within else 0

    def _read_counts(self, usage: Mapping[str, object]) -> None:
        for kind, paths in _NAMES.items():
            for value in (_at(usage, path) for path in paths):
                number = _number(value)
                if number is None:
                    continue
                if number.is_finite() and 0 <= number <= MOST_TOKENS and number == int(number):
                    self._counts[kind] = max(int(number), self._counts.get(kind, 0))
                elif kind in {"input", "output"}:
                    self.has_absurd_tokens = True
        self._has_names_outside |= any(name in usage for name in _OUTSIDE_INPUT)
        self._has_openai_names |= "prompt_tokens" in usage

    def _read_cost(self, usage: Mapping[str, object]) -> None:
        cost = usage.get("cost")
        if usage.get("is_byok") is True:  # OpenRouter bills only its fee; the vendor bills the user's own key
            fee, upstream = _number(cost), _number(_at(usage, ("cost_details", "upstream_inference_cost")))
            cost = upstream if fee is None else fee + (upstream or 0)
        self._take_cost(cost)
        self._take_cost(_at(usage, ("cost", "total_cost")))  # Perplexity
        self._take_cost(usage.get("estimated_cost"))  # DeepInfra
        ticks = _number(usage.get("cost_in_usd_ticks"))
        self._take_cost(None if ticks is None else ticks * _TICK_USD)

    def _take_cost(self, value: object) -> None:
        cost = _number(value)
        if cost is None:
            return
        if not (cost.is_finite() and 0 <= cost <= MOST_USD):
            self.has_absurd_cost = True
            return
        self._costs.append(Decimal(f"{cost.quantize(_SMALLEST_USD):f}".rstrip("0").rstrip(".")))


def _usages_in(chunk: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield every usage: in the chunk, under a vendor's key such as ``x_groq``, and in its choices (Moonshot)."""
    holders = (chunk, *(value for value in chunk.values() if isinstance(value, dict)), *_choices_in(chunk))
    for holder in holders:
        usage = holder.get("usage")
        if isinstance(usage, dict):
            yield usage
    timings = chunk.get("timings")
    if isinstance(timings, dict) and "cache_n" in timings:  # older versions of llama.cpp do not tell cached input
        yield timings


def _choices_in(chunk: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield choice
            yield from (choice[name] for name in ("delta", "message") if isinstance(choice.get(name), dict))


def _at(holder: object, path: Path) -> object:
    for name in path:
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder


def _number(value: object) -> Decimal | None:
    """Return a number, also if it is written as text; it may be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        return Decimal(str(value))
    except (InvalidOperation, ValueError):  # text, or an integer with thousands of digits
        return None
