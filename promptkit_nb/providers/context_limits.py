"""A server's "too long": how it is told in the words of each, and the figures that they hold.

There is no common code for it. The wordings are those of OpenAI, Azure and DeepSeek, vLLM, llama.cpp, LM Studio,
Ollama, OpenRouter, Groq, Anthropic, Gemini, Mistral, xAI and Text Generation Inference.
"""

from __future__ import annotations

import re

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size|limit)|maximum (?:context|prompt|model) length|context the overflows|n_keep"
    r"|too many tokens|prompt(?: is)? too long|input token count|input tokens exceed"
    r"|maximum number of tokens allowed|max_new_tokens`? must be <="
    r"|reduce the length of the (?:messages|prompt|input)|request too large for model",
    re.IGNORECASE,
)
_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})

# From what is certain to what is merely likely; of each list the first that is found counts.
_LIMITS = (
    r"\+ [0-9,]+ > ([0-9][0-9,]*)",
    r"(?:maximum|context|configured) (?:\w+ )?(?:length|limit|window|size)\D{0,16}?([0-9][0-9,]*)",
    r"(?:allowed|<=|n_ctx)\D{0,16}?([0-9][0-9,]*)",
    r"\bLimit ([0-9][0-9,]*)",
    r"([0-9][0-9,]*) maximum context length",
    r"> ?([0-9][0-9,]*)",
)
_REQUESTS = (
    r"(?:contains|has)(?: at least)? ([0-9][0-9,]*)(?: input)? tokens",
    r"requested(?: about| tokens)? \(?([0-9][0-9,]*)\b(?! output)",
    r"(?:resulted in|too long:|keep the first) ([0-9][0-9,]*)",
    r"(?:request|token count|n_keep|prompt) \((?:length )?([0-9][0-9,]*)",
    r"n_prompt_tokens ([0-9][0-9,]*)",
    r"limit: ([0-9][0-9,]*) \+",
    r"Given: ([0-9][0-9,]*)",
)


def is_too_long(code: str, words: str) -> bool:
    """Return whether a refusal says that the request does not fit the model's context window.

    >>> is_too_long("", "the request exceeds the available context size")
    True
    """
    return code in _CODES or bool(_TOO_LONG.search(words))


def figures_in(words: str) -> tuple[int | None, int | None]:
    """Return the window and the size of the request in tokens, each ``None`` where the words do not tell.

    >>> figures_in("request (5000 tokens) exceeds the available context size (4096 tokens)")
    (4096, 5000)
    """
    return _first(_LIMITS, words), _first(_REQUESTS, words)


def _first(patterns: tuple[str, ...], words: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, words, re.IGNORECASE):
            return int(found[1].replace(",", ""))
    return None
