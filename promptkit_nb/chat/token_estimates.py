"""How the server counts, learned from what it reported: so that a limit in tokens holds on the wire.

Our counts are OpenAI's. Another model's tokenizer may need several times as many tokens for the same text, and how many
times depends on the script: near 1 in English, 2 or more in Cyrillic or Chinese. So a gauge learns one ratio for each
script from the newest turns, whose requests were counted here before sending and by the server afterwards. A text in a
script that was not measured yet counts as what tokenizers of few words make of it.

For OpenAI's own models the ratio is 1, unless a server that goes by such a name has reported something else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from promptkit_nb.tokens import (
    FRAMING_TOKENS,
    REPLY_TOKENS,
    count_one_message_tokens,
    count_tool_tokens,
    is_exact,
    said_hash,
)
from promptkit_nb.turns import Message, without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from promptkit_nb.turns import Turn

Script = Literal["words", "dense", "letters", "wide"]
"""English and code; base64 and digits; other alphabets; Chinese, Japanese, Korean, emoji."""

_FRAMING_TOKENS = 8  # of a chat template, around a message
_FEW_FOREIGN = 8  # one accent in as many letters makes no other alphabet
_WORD_CHARACTERS = 25  # with a blank in as many characters, a text is made of words
_DIGITS = re.compile(r"[0-9]+")
_REMEMBERED_MESSAGES = 50_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a message is written in, and the tokens that hardly any tokenizer makes more of."""

    script: Script
    bound: int


_shapes: dict[int, Shape] = {}


def shape_of(message: Message) -> Shape:
    """Return the shape of a message; it is looked at once.

    >>> from promptkit_nb.turns import Message
    >>> shape_of(Message("user", "Hello, world"))
    Shape(script='words', bound=14)
    """
    key = said_hash(message)
    shape = _shapes.get(key)
    if shape is None:
        calls = (f"{call.name}{call.arguments}" for call in message.tool_calls)
        parts = () if message.content else (part.text for part in message.parts)
        text = without_lone_surrogates("".join([message.content, message.name or "", *parts, *calls]))
        bound = _bound(text) + _FRAMING_TOKENS * (1 + len(message.tool_calls))
        shape = Shape(_script_of(text), bound)
        if len(_shapes) >= _REMEMBERED_MESSAGES:
            _shapes.clear()
        _shapes[key] = shape
    return shape


def _script_of(text: str) -> Script:
    ascii_count = len(text.encode("ascii", "ignore"))
    foreign = len(text) - ascii_count
    if foreign * _FEW_FOREIGN < ascii_count:
        return "words" if text.count(" ") * _WORD_CHARACTERS >= len(text) else "dense"
    foreign_bytes = len(text.encode()) - ascii_count
    return "wide" if foreign_bytes * 2 > foreign * 5 else "letters"


def _bound(text: str) -> int:
    """Every digit, every letter of two bytes, every other two characters a token; three bytes count as one and a half.

    Tokenizers of few words come near it in what they were not made for.
    """
    ascii_count = len(text.encode("ascii", "ignore"))
    digits = ascii_count and sum(map(len, _DIGITS.findall(text)))
    foreign_bytes = len(text.encode()) - ascii_count
    return math.ceil((ascii_count + digits + foreign_bytes) / 2)


# Which requests teach. So what it costs has a bound.
_SEARCHED_TURNS = 50
_MEASURED_TURNS = 5
_LONGEST_WINDOW_TURNS = 500
_SHORTEST_REQUEST_TOKENS = 100  # a chat template may begin with words of its own: they weigh too much in less
_CUT_BELOW = 0.6  # where the server read as little of what was sent, it cut the prompt
_TELLING_SHARE = 0.3  # a script with less of a request tells too little of what the server makes of it
_AS_CLEAR = 0.8  # of the clearest request for a script

# What is added to what they taught.
_MARGIN = 1.1  # texts in one script differ, too
_EARLY_MARGIN = 1.2  # and a few requests tell little of how much
_FEW_REQUESTS = 3
_EXACT_UP_TO = 1.05  # a server that counts more, and some more around it, is not what the model's name promises
_EXACT_AND_TOKENS = 10

_BOUND_MARGIN = 1.25  # what our count may be exceeded by where nothing was taught

_SMALLEST_WINDOW_TOKENS = 1000  # no server's is smaller


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens as ``counted`` here, as ``likely`` for the server going by what it reported, and at most ``expected``."""

    counted: int = 0
    likely: int = 0
    expected: int = 0

    def __add__(self, other: TokenEstimate) -> TokenEstimate:
        """Return the two together."""
        return TokenEstimate(self.counted + other.counted, self.likely + other.likely, self.expected + other.expected)


@dataclass(frozen=True, slots=True)
class TokenEstimator:
    """Measures what a model will be sent; ``token_estimator_for`` makes one that knows what the server reported before.

    ``is_trusted`` says that our counts are the server's, up to ``overall``; else ``ratios`` are the measured ones.

    >>> TokenEstimator.of("gpt-4o-mini").of_message(Message("user", "hello world"))
    Size(counted=6, likely=6, expected=6)
    """

    model: str | None
    is_trusted: bool
    overall: float = 1.0
    ratios: Mapping[Script, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str | None) -> TokenEstimator:
        """Return the gauge of a model that nothing was measured of."""
        return cls(model, is_exact(model))

    def of_message(self, message: Message) -> TokenEstimate:
        """Return the size of one message; it is measured once."""
        return self.of_messages((message,))

    def of_turn(self, turn: Turn) -> TokenEstimate:
        """Return the size of a turn."""
        return self.of_messages(turn.messages)

    def of_messages(self, messages: Iterable[Message]) -> TokenEstimate:
        """Return the size of several messages together."""
        if self.is_trusted:
            return self._trusted(sum(count_one_message_tokens(message, self.model) for message in messages))
        total = TokenEstimate()
        for message in messages:
            counted = count_one_message_tokens(message, self.model)
            shape = shape_of(message)
            bound = max(shape.bound, math.ceil(counted * _BOUND_MARGIN))
            ratio = self.ratios.get(shape.script)
            if ratio is None:
                total += TokenEstimate(counted, counted, bound)
            else:
                calibrated = min(bound, FRAMING_TOKENS + math.ceil((counted - FRAMING_TOKENS) * ratio))
                total += TokenEstimate(counted, calibrated, calibrated)
        return total

    def of_frame(self, tools: Sequence[Mapping[str, object]] = ()) -> TokenEstimate:
        """Return the size of what is in a request beside its messages: definitions of tools, opening of the reply."""
        counted = count_tool_tokens(tools, self.model)
        if self.is_trusted:
            return self._trusted(counted + REPLY_TOKENS)
        ratio = self.ratios.get("words", _BOUND_MARGIN)
        return TokenEstimate(counted + REPLY_TOKENS, counted + REPLY_TOKENS, math.ceil(counted * ratio) + REPLY_TOKENS)

    def _trusted(self, counted: int) -> TokenEstimate:
        likely = math.ceil(counted * self.overall)
        return TokenEstimate(counted, likely, likely)


def token_estimator_for(model: str, turns: Sequence[Turn], system_prompt: str | None = None) -> TokenEstimator:
    """Return the gauge of a model, taught by the newest turns that it answered in this conversation.

    What it costs does not grow with the conversation.

    >>> token_estimator_for("llama3.2", []).is_trusted
    False
    """
    reported = {  # newest first
        at: turns[at].usage.input_tokens / (turns[at].counted_input_tokens or 1)
        for at in range(len(turns) - 1, max(-1, len(turns) - 1 - _SEARCHED_TURNS), -1)
        if _is_measured(turns[at], model)
    }
    if is_exact(model) and all(_is_as_promised(turns[at]) for at in reported):
        overall = max([1.0, *(ratio for at, ratio in reported.items() if _is_long(turns[at]))])
        return TokenEstimator(model, is_trusted=True, overall=overall)
    telling = [at for at, ratio in reported.items() if ratio >= _CUT_BELOW and _is_long(turns[at])]
    requests = [_request_of(model, turns, at, system_prompt) for at in telling[:_MEASURED_TURNS]]
    return TokenEstimator(model, is_trusted=False, ratios=_ratios(requests))


def cut_warning(counted_tokens: int, reported_tokens: int) -> str | None:
    """Return a warning where the server read far less than was sent: some cut a long prompt without a word.

    >>> cut_warning(8000, 4096)
    'The server read 4,096 tokens where about 8,000 were sent: it seems to have cut the conversation. Raise its context\
 window (num_ctx in Ollama), or set max_tokens.'
    >>> cut_warning(8000, 7000)
    """
    if counted_tokens < _SMALLEST_WINDOW_TOKENS or reported_tokens >= _CUT_BELOW * counted_tokens:
        return None
    return (
        f"The server read {reported_tokens:,} tokens where about {counted_tokens:,} were sent: it seems to have cut "
        "the conversation. Raise its context window (num_ctx in Ollama), or set max_tokens."
    )


def _is_measured(turn: Turn, model: str) -> bool:
    """Whether one request was counted on both sides; tools take several, and of pictures the size is not known."""
    return (
        (turn.requested_model or turn.model) == model
        and bool(turn.counted_input_tokens and turn.usage.input_tokens)
        and not turn.replayed
        and not turn.usage.estimated
        and not any(message.parts or message.role == "tool" for message in turn.messages)
    )


def _is_as_promised(turn: Turn) -> bool:
    counted = turn.counted_input_tokens or 0
    return turn.usage.input_tokens <= counted * _EXACT_UP_TO + _EXACT_AND_TOKENS


def _is_long(turn: Turn) -> bool:
    return (turn.counted_input_tokens or 0) >= _SHORTEST_REQUEST_TOKENS


@dataclass(frozen=True, slots=True)
class _Request:
    """An earlier request: tokens of text as the server counted them, and as counted here for each script."""

    reported: int
    counted: Mapping[Script, int]


def _ratios(requests: Iterable[_Request]) -> Mapping[Script, float]:
    """Return for each script what it can have taken at most in the requests that were made mostly of it."""
    found: dict[Script, list[tuple[float, float]]] = {}
    for request in requests:
        for script, count in request.counted.items():
            share = count / sum(request.counted.values())
            if share >= _TELLING_SHARE:  # were all else free, this script would have taken the whole count
                ratio = max(1.0, request.reported / count)
                found.setdefault(script, []).append((share, ratio))
    ratios: dict[Script, float] = {}
    for script, told in found.items():
        clearest = max(told)[0]
        clear = [ratio for share, ratio in told if share >= clearest * _AS_CLEAR]
        ratios[script] = max(clear) * (_MARGIN if len(clear) >= _FEW_REQUESTS else _EARLY_MARGIN)
    return MappingProxyType(ratios)


def _request_of(model: str, turns: Sequence[Turn], at: int, system_prompt: str | None) -> _Request:
    """Return what the request of a turn was made of, as far as that can be told from what stands before it now."""
    asked = turns[at]
    sent = chain(
        [Message("system", system_prompt)] if system_prompt else [],
        asked.messages[:1],
        (message for before in reversed(turns[max(0, at - _LONGEST_WINDOW_TURNS) : at]) for message in before.messages),
    )
    framing, texts = REPLY_TOKENS, Counter[Script]()
    for message in sent:
        texts[shape_of(message).script] += max(1, count_one_message_tokens(message, model) - FRAMING_TOKENS)
        framing += FRAMING_TOKENS
        if framing + texts.total() >= (asked.counted_input_tokens or 0):
            break
    return _Request(max(0, asked.usage.input_tokens - framing), texts)
