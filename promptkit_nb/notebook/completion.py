"""Tab completion for the magics: options, conversation ids and model names."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from promptkit_nb.errors import PromptKitError
from promptkit_nb.notebook.magic_lines import RETURNED
from promptkit_nb.stores.listing import chats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.notebook.session import ChatSession

_MAX_IDS = 200
_MAGIC = re.compile(r"\s*%%?(?P<name>chat\w*)\s+(?P<rest>.*)", re.DOTALL)
_MAGICS_WITH_ID = ("chat_use", "chat_history", "chat_delete")
_CHOICES = {
    "--provider": (
        *("openai", "ollama", "lmstudio", "vllm", "llamacpp", "openrouter", "groq", "gemini", "azure", "anthropic"),
        "demo",
    ),
    "--replay": ("auto", "strict", "off"),
    "--thinking": ("fold", "show", "hide"),
    "--store": ("disk", "memory", "redis://localhost:6379/0"),
}


def chat_matcher(session: ChatSession) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Return an IPython matcher that completes the lines of this notebook's magics."""

    @context_matcher()
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        words = _candidates(context, session)
        token = context.token
        completions = [SimpleCompletion(text=word, type="param") for word in words if word.startswith(token)]
        return SimpleMatcherResult(completions=completions, suppress=bool(completions))

    matcher: Callable[[CompletionContext], SimpleMatcherResult] = complete
    return matcher


def _candidates(context: CompletionContext, session: ChatSession) -> Iterable[str]:
    """Return the words that are possible at the cursor; none if it is not on a line of these magics."""
    line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
    found = _MAGIC.fullmatch(line)
    if found is None or (found["name"] == "chat" and not line.lstrip().startswith("%%")):
        return ()
    before = found["rest"].removesuffix(context.token).split()
    option = before[-1] if before else ""
    if option in _CHOICES:
        return _CHOICES[option]
    if option in {"-m", "--model"}:
        return _models(session)
    if option in {"-c", "--conversation"} or (found["name"] in _MAGICS_WITH_ID and not before):
        return [*_ids(session), *_options(session.shell, found["name"])]
    return _options(session.shell, found["name"])


def _options(shell: InteractiveShell, name: str) -> list[str]:
    magic: Any = shell.find_line_magic("chat" if name == "chat_fix" else name)  # which has the same options
    parser = getattr(magic, "parser", None)
    actions = [] if parser is None else parser._actions  # noqa: SLF001 - argparse has no public way to list them
    return [option for action in actions for option in action.option_strings if option != RETURNED]


def _ids(session: ChatSession) -> list[str]:
    settings = session.settings
    try:
        heads = chats(settings.store, settings.user_id)
        return [head.conversation_id for head in islice(heads, _MAX_IDS)]
    except PromptKitError:  # the magic reports a store that cannot be read; typing must not fail
        return []


def _models(session: ChatSession) -> list[str]:
    """Return the model in use, then OpenAI's models from the price list."""
    from genai_prices.data import providers  # noqa: PLC0415 - 0.2 s, at the first completion of a model

    listed = (model.id for provider in providers if provider.id == "openai" for model in provider.models)
    return list(dict.fromkeys([session.settings.provider_model, *listed]))
