"""Token estimates calibrated by the counts that a server reports, so that ``max_tokens`` holds by the server's count.

Our own counts use OpenAI's tokenizers. Another model's tokenizer may need several times as many tokens for the same
text, depending on the script: about 1 time in English, 2 or more in Cyrillic or Chinese. So an estimator learns one
ratio per script from the newest turns, whose requests were counted here before sending and by the server afterwards.
Text in a script that has not been measured is assumed to need as many tokens as in a tokenizer with a small vocabulary.

For OpenAI's own models the ratio is 1, unless a server that uses such a name reported something else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Literal

from promptkit_nb import tokens
from promptkit_nb.characters import without_lone_surrogates
from promptkit_nb.turns import Message, Turn

Script = Literal["words", "dense", "letters", "wide"]
"""English and code; base64 and digits; other alphabets; Chinese, Japanese, Korean, emoji."""

_FRAMING_TOKENS = 8  # of a chat template, around a message
_ASCII_PER_FOREIGN = 8  # one accented letter in this many does not make another alphabet
_WORD_CHARACTERS = 25  # text with at least one space in this many characters consists of words
_DIGITS = re.compile(r"[0-9]+")
_MAX_PROFILES = 50_000


@dataclass(frozen=True, slots=True)
class MessageProfile:
    """The script of a message, and a number of tokens that hardly any tokenizer exceeds for it."""

    script: Script
    bound: int


_profiles: dict[int, MessageProfile] = {}


def profile_of(message: Message) -> MessageProfile:
    """Return the profile of a message, computed once.

    >>> from promptkit_nb.turns import Message
    >>> profile_of(Message("user", "Hello, world"))
    MessageProfile(script='words', bound=14)
    """
    key = tokens.message_hash(message)
    profile = _profiles.get(key)
    if profile is None:
        calls = (f"{call.name}{call.arguments}" for call in message.tool_calls)
        parts = () if message.text else (part.text for part in message.parts)
        text = without_lone_surrogates("".join([message.text, message.name or "", *parts, *calls]))
        bound = _bound(text) + _FRAMING_TOKENS * (1 + len(message.tool_calls))
        profile = MessageProfile(_script_of(text), bound)
        if len(_profiles) >= _MAX_PROFILES:
            _profiles.clear()
        _profiles[key] = profile
    return profile


def _script_of(text: str) -> Script:
    ascii_count = len(text.encode("ascii", "ignore"))
    foreign = len(text) - ascii_count
    if foreign * _ASCII_PER_FOREIGN < ascii_count:
        return "words" if text.count(" ") * _WORD_CHARACTERS >= len(text) else "dense"
    foreign_bytes = len(text.encode()) - ascii_count
    return "wide" if foreign_bytes * 2 > foreign * 5 else "letters"


def _bound(text: str) -> int:
    """Count a token for each digit, two-byte letter, and two other characters; one and a half for three bytes.

    Tokenizers with a small vocabulary come close to this for text that they were not made for.
    """
    ascii_count = len(text.encode("ascii", "ignore"))
    digits = ascii_count and sum(map(len, _DIGITS.findall(text)))
    foreign_bytes = len(text.encode()) - ascii_count
    return math.ceil((ascii_count + digits + foreign_bytes) / 2)


# Which requests are measured. The limits bound the cost.
_SEARCHED_TURNS = 50
_MEASURED_TURNS = 5
_LONGEST_WINDOW_TURNS = 500
_SHORTEST_REQUEST_TOKENS = 100  # chat templates add text, which would dominate shorter requests
_CUT_BELOW = 0.6  # if the server counted a smaller share of what was sent, it cut the prompt
_MIN_SHARE = 0.3  # a script with a smaller share of a request says too little about its ratio
_CLEAR_SHARE = 0.8  # relative to the request with the largest share of a script

# Margins on the measured ratios.
_MARGIN = 1.1  # texts in the same script differ
_EARLY_MARGIN = 1.2  # and a few requests say little about how much
_FEW_REQUESTS = 3
_EXACT_UP_TO = 1.05  # a server that counts more than this does not use the tokenizer of the model's name
_EXACT_EXTRA_TOKENS = 10

_BOUND_MARGIN = 1.25  # by how much our count may be exceeded if nothing was measured

_SMALLEST_WINDOW_TOKENS = 1000  # no server has a smaller one


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Token counts: ``counted`` here, ``likely`` for the server according to its reports, and at most ``expected``."""

    counted: int = 0
    likely: int = 0
    expected: int = 0

    def __add__(self, other: TokenEstimate) -> TokenEstimate:
        """Add two estimates."""
        return TokenEstimate(self.counted + other.counted, self.likely + other.likely, self.expected + other.expected)


@dataclass(frozen=True, slots=True)
class TokenEstimator:
    """Estimates how many tokens a model will count; ``token_estimator_for`` makes one calibrated by earlier turns.

    If ``is_trusted``, our counts are the server's, times ``overall``; else ``ratios`` has the measured ratio per
    script.

    >>> TokenEstimator.of("gpt-4o-mini").of_message(Message("user", "hello world"))
    TokenEstimate(counted=6, likely=6, expected=6)
    """

    model: str | None
    is_trusted: bool
    overall: float = 1.0
    ratios: Mapping[Script, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str | None) -> TokenEstimator:
        """Return an estimator for a model without measurements."""
        return cls(model, tokens.is_exact(model))

    def of_message(self, message: Message) -> TokenEstimate:
        """Return the estimate of one message."""
        return self.of_messages((message,))

    def of_messages(self, messages: Iterable[Message]) -> TokenEstimate:
        """Return the estimate of several messages together."""
        if self.is_trusted:
            return self._trusted(sum(tokens.count_one_message_tokens(message, self.model) for message in messages))
        total = TokenEstimate()
        for message in messages:
            counted = tokens.count_one_message_tokens(message, self.model)
            profile = profile_of(message)
            bound = max(profile.bound, math.ceil(counted * _BOUND_MARGIN))
            ratio = self.ratios.get(profile.script)
            if ratio is None:
                total += TokenEstimate(counted, counted, bound)
            else:
                calibrated = min(bound, tokens.FRAMING_TOKENS + math.ceil((counted - tokens.FRAMING_TOKENS) * ratio))
                total += TokenEstimate(counted, calibrated, calibrated)
        return total

    def of_frame(self, tools: Sequence[Mapping[str, object]] = ()) -> TokenEstimate:
        """Return the estimate of a request without its messages: tool definitions and the opening of the reply."""
        counted = tokens.count_tool_tokens(tools, self.model)
        if self.is_trusted:
            return self._trusted(counted + tokens.REPLY_TOKENS)
        ratio = self.ratios.get("words", _BOUND_MARGIN)
        return TokenEstimate(
            counted + tokens.REPLY_TOKENS,
            counted + tokens.REPLY_TOKENS,
            math.ceil(counted * ratio) + tokens.REPLY_TOKENS,
        )

    def _trusted(self, counted: int) -> TokenEstimate:
        likely = math.ceil(counted * self.overall)
        return TokenEstimate(counted, likely, likely)


def token_estimator_for(model: str, turns: Sequence[Turn], system_prompt: str | None = None) -> TokenEstimator:
    """Return an estimator calibrated by the newest turns that the model answered in this conversation.

    Its cost does not grow with the conversation.

    >>> token_estimator_for("llama3.2", []).is_trusted
    False
    """
    reported = {  # newest first
        at: turns[at].usage.input_tokens / (turns[at].counted_input_tokens or 1)
        for at in range(len(turns) - 1, max(-1, len(turns) - 1 - _SEARCHED_TURNS), -1)
        if _is_measured(turns[at], model)
    }
    if tokens.is_exact(model) and all(_matches_model_name(turns[at]) for at in reported):
        overall = max([1.0, *(ratio for at, ratio in reported.items() if _is_long(turns[at]))])
        return TokenEstimator(model, is_trusted=True, overall=overall)
    usable = [at for at, ratio in reported.items() if ratio >= _CUT_BELOW and _is_long(turns[at])]
    requests = [_request_of(model, turns, at, system_prompt) for at in usable[:_MEASURED_TURNS]]
    return TokenEstimator(model, is_trusted=False, ratios=_ratios(requests))


def cut_warning(counted_tokens: int, reported_tokens: int) -> str | None:
    """Return a warning if the server read far fewer tokens than were sent: some servers cut long prompts silently.

    >>> cut_warning(8000, 4096)
    'The server read 4,096 tokens, but about 8,000 were sent: it probably cut the conversation. Raise its context\
 window (num_ctx in Ollama), or set max_tokens.'
    >>> cut_warning(8000, 7000)
    """
    if counted_tokens < _SMALLEST_WINDOW_TOKENS or reported_tokens >= _CUT_BELOW * counted_tokens:
        return None
    return (
        f"The server read {reported_tokens:,} tokens, but about {counted_tokens:,} were sent: it probably cut the "
        "conversation. Raise its context window (num_ctx in Ollama), or set max_tokens."
    )


def _is_measured(turn: Turn, model: str) -> bool:
    """Whether both sides counted the same request: tool turns take several, and the size of images is unknown."""
    return (
        (turn.requested_model or turn.model) == model
        and bool(turn.counted_input_tokens and turn.usage.input_tokens)
        and not turn.replayed
        and not turn.usage.estimated
        and not any(message.parts or message.role == "tool" for message in turn.messages)
    )


def _matches_model_name(turn: Turn) -> bool:
    counted = turn.counted_input_tokens or 0
    return turn.usage.input_tokens <= counted * _EXACT_UP_TO + _EXACT_EXTRA_TOKENS


def _is_long(turn: Turn) -> bool:
    return (turn.counted_input_tokens or 0) >= _SHORTEST_REQUEST_TOKENS


@dataclass(frozen=True, slots=True)
class _Request:
    """An earlier request: tokens of its text by the server's count, and by our count per script."""

    reported: int
    counted: Mapping[Script, int]


def _ratios(requests: Iterable[_Request]) -> Mapping[Script, float]:
    """Return for each script the highest ratio in the requests that consist mostly of it, plus a margin."""
    found: dict[Script, list[tuple[float, float]]] = {}
    for request in requests:
        for script, count in request.counted.items():
            share = count / sum(request.counted.values())
            if share >= _MIN_SHARE:  # if all other text took no tokens, this script had this ratio
                ratio = max(1.0, request.reported / count)
                found.setdefault(script, []).append((share, ratio))
    ratios: dict[Script, float] = {}
    for script, measured in found.items():
        clearest = max(measured)[0]
        clear = [ratio for share, ratio in measured if share >= clearest * _CLEAR_SHARE]
        ratios[script] = max(clear) * (_MARGIN if len(clear) >= _FEW_REQUESTS else _EARLY_MARGIN)
    return MappingProxyType(ratios)


def _request_of(model: str, turns: Sequence[Turn], at: int, system_prompt: str | None) -> _Request:
    """Reconstruct the request of a turn from the previous turns."""
    asked = turns[at]
    sent = chain(
        [Message("system", system_prompt)] if system_prompt else [],
        asked.messages[:1],
        (message for before in reversed(turns[max(0, at - _LONGEST_WINDOW_TURNS) : at]) for message in before.messages),
    )
    framing, texts = tokens.REPLY_TOKENS, Counter[Script]()
    for message in sent:
        texts[profile_of(message).script] += max(
            1, tokens.count_one_message_tokens(message, model) - tokens.FRAMING_TOKENS
        )
        framing += tokens.FRAMING_TOKENS
        if framing + texts.total() >= (asked.counted_input_tokens or 0):
            break
    return _Request(max(0, asked.usage.input_tokens - framing), texts)
