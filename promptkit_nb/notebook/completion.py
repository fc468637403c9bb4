"""Tab completion for the magics: options, conversations by id and title, and models."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from promptkit_nb.errors import PromptKitError
from promptkit_nb.notebook.magic_lines import RETURNED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.notebook.session import ChatSession
    from promptkit_nb.providers.base import Provider

_NAMES_IN_PRICE_LIST = {"gemini": "google"}
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
    models = OfferedModels()

    @context_matcher()
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
        found = _MAGIC.fullmatch(line)
        if found is not None and found["name"] in _MAGICS_WITH_ID and not found["rest"].startswith("-"):
            typed = found["rest"]  # a title may have blanks
            words: Iterable[str] = _matching(_conversations(session), typed)
        else:
            typed = context.token
            words = [word for word in _candidates(line, found, typed, session, models) if word.startswith(typed)]
        completions = [SimpleCompletion(text=word, type="param") for word in words]
        return {"completions": completions, "suppress": bool(completions), "matched_fragment": typed}

    matcher: Callable[[CompletionContext], SimpleMatcherResult] = complete
    return matcher


def _candidates(
    line: str, found: re.Match[str] | None, token: str, session: ChatSession, models: OfferedModels
) -> Iterable[str]:
    """Return the words that are possible at the cursor; none if it is not on a line of these magics."""
    if found is None:
        return ()
    before = found["rest"].removesuffix(token).split()
    option = before[-1] if before else ""
    if found["name"] == "chat" and not line.lstrip().startswith("%%") and "-" not in {token[:1], option[:1]}:
        return ()  # the text of a message
    if option in _CHOICES:
        return _CHOICES[option]
    if option in {"-m", "--model"}:
        return models.of(session.settings.manager.provider)
    if option in {"-c", "--conversation"}:
        return [each for each, _ in _conversations(session)]
    return _options(session.shell, found["name"])


def _options(shell: InteractiveShell, name: str) -> list[str]:
    magic: Any = shell.find_line_magic("chat" if name == "chat_fix" else name)  # which has the same options
    parser = getattr(magic, "parser", None)
    actions = [] if parser is None else parser._actions  # noqa: SLF001 - argparse has no public way to list them
    return [option for action in actions for option in action.option_strings if option != RETURNED]


def _matching(conversations: Sequence[tuple[str, str]], typed: str) -> list[str]:
    """Return titles that contain what was typed, and ids that begin with it; case is ignored."""
    wanted = typed.casefold()
    by_title = [title for _, title in conversations if wanted in title.casefold()]
    by_id = [each for each, _ in conversations if each.casefold().startswith(wanted)]
    return list(dict.fromkeys([*by_title, *by_id]))


def _conversations(session: ChatSession) -> list[tuple[str, str]]:
    """Return ids and titles of the user's newest conversations."""
    from promptkit_nb.notebook.titles import titles_of  # noqa: PLC0415 - %load_ext takes no time for it

    try:
        return list(titles_of(session.settings.store, session.settings.user_id))
    except PromptKitError:  # the magic reports a store that cannot be read; typing must not fail
        return []


class OfferedModels:
    """The names of a provider's models, to complete them: never waits for a server.

    The first completion asks the server in the background and offers the models of the price list meanwhile; later
    ones offer what the server listed, too.
    """

    def __init__(self) -> None:
        """Know no models yet."""
        self._listed: WeakKeyDictionary[Provider, list[str]] = WeakKeyDictionary()

    def of(self, provider: Provider) -> list[str]:
        """Return the model in use, then what the server listed, then the models of its price list."""
        if provider not in self._listed:
            self._listed[provider] = []
            threading.Thread(target=self._ask, args=(provider,), name="promptkit-models", daemon=True).start()
        priced = priced_models(provider.name)
        return list(dict.fromkeys(filter(None, [provider.model, *self._listed[provider], *priced])))

    def _ask(self, provider: Provider) -> None:
        from promptkit_nb.providers.base import offered_models  # noqa: PLC0415 - %load_ext takes no time for it

        with suppress(Exception):  # a completion is silent
            self._listed[provider] = offered_models(provider)


def priced_models(provider_name: str) -> list[str]:
    """Return the names of a provider's models in the price list.

    >>> "gemini-2.5-pro" in priced_models("gemini"), priced_models("ollama")
    (True, [])
    """
    from genai_prices.data import providers  # noqa: PLC0415 - 0.2 s, at the first completion of a model

    wanted = _NAMES_IN_PRICE_LIST.get(provider_name, provider_name)
    return [model.id for provider in providers if provider.id == wanted for model in provider.models]
