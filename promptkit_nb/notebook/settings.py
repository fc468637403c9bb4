"""What the notebook's options choose: provider, store, budgets and recording, combined in a manager."""

from __future__ import annotations

import os
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.chat.budgets import Budget, parse_budget
from promptkit_nb.chat.options import check_replay, check_tokens
from promptkit_nb.chat.replay import replayable
from promptkit_nb.errors import AuthenticationError, InvalidArgumentError
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.manager import ConversationManager
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.pricing import UNKNOWN_COST, CallCost, Price, parse_price
from promptkit_nb.providers.endpoints import AZURE_VARIABLE, KEY_VARIABLES, VENDORS, environment_key, parse_headers
from promptkit_nb.rendering.responses import check_thinking
from promptkit_nb.stores.checks import path_of
from promptkit_nb.text.near_names import similar_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb.notebook.session import PromptKit
    from promptkit_nb.packs.prompt import Prompt
    from promptkit_nb.providers.base import ChatRequest, Provider, StreamEvent
    from promptkit_nb.rendering.responses import ThinkingMode
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Usage

TWO_WAYS_ON = (
    "No model is chosen, and there is no key. Two ways to continue: set OPENAI_API_KEY (and OPENAI_BASE_URL for your "
    "own server) before the kernel starts, or chat with the built-in demo: %chat_setup --provider demo"
)

PROVIDERS = (*VENDORS, "demo")
"""The names for ``--provider``."""

_ENVIRONMENT = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_BASE_URL", AZURE_VARIABLE, *KEY_VARIABLES)
_PROVIDER_OPTIONS = ("provider", "model", "base_url", "timeout", "retries", "price", "header")
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class UnchosenProvider:
    """The provider until one is chosen: conversations can be opened, read and replayed; a request is refused."""

    name = "unchosen"
    model = ""

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:  # noqa: ARG002 - never sent
        """Raise ``AuthenticationError``, which says how to choose a provider."""
        raise AuthenticationError(TWO_WAYS_ON)

    def price(self, model: str, usage: Usage, at: datetime) -> CallCost:  # noqa: ARG002 - unknown for every model
        """Return an unknown cost."""
        return UNKNOWN_COST

    def __repr__(self) -> str:
        """Return the call that makes one."""
        return "UnchosenProvider()"


class NotebookSettings:
    """What the options choose; they may change at any time, and everything follows them."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self.options = options
        self._manager: tuple[tuple[object, ...], ConversationManager] | None = None
        self._stores: dict[str, StateStore] = {}

    @property
    def user_id(self) -> str:
        """The user of the options."""
        return self.options.user or "default"

    @property
    def store(self) -> StateStore:
        """The store of the options: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
        name = self.options.store or "disk"
        if name not in self._stores:  # previous stores stay open, because one may be in memory
            self._stores[name] = _store_named(name)
        return self._stores[name]

    @property
    def store_name(self) -> str:
        """The store of the options for display: a URL without user, password and query."""
        name = self.options.store or "disk"
        scheme, is_url, rest = name.partition("://")
        return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}" if is_url else name

    @property
    def manager(self) -> ConversationManager:
        """The manager for the options; opening, reading and replaying need no provider."""
        options = self.options
        provider = tuple(getattr(options, name) or "" for name in _PROVIDER_OPTIONS)
        replay, recording, budget = options.replay or "auto", options.recording or "", options.budget or ""
        key = (
            *(options.store or "disk", *provider, budget, replay, *_file_version(recording)),
            hash((*map(os.environ.get, _ENVIRONMENT),)),  # hashed, because tracebacks may show the values
        )
        if self._manager is None or self._manager[0] != key:
            manager = ConversationManager(
                self._provider(),
                self.store,
                budget=_budgets(budget),
                replay=check_replay(replay),
                recording=tuple(replayable(read_conversation(recording))) if recording else (),
            )
            self._manager = (key, manager)
        return self._manager[1]

    def _provider(self) -> Provider:
        """Return the provider of the options; without a name, OpenAI's if there is a key or URL, else a placeholder."""
        options = self.options
        name = options.provider or os.environ.get("PROMPTKIT_PROVIDER", "")
        if not name and (options.base_url or os.environ.get("OPENAI_BASE_URL") or environment_key("openai")):
            name = "openai"
        if name == "demo":
            from promptkit_nb.providers.demo import DemoProvider  # noqa: PLC0415 - imported when chosen

            return DemoProvider()
        if not name:
            return UnchosenProvider()
        if name not in VENDORS:
            near = similar_names(name, PROVIDERS)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InvalidArgumentError(f"There is no provider {name!r}: use one of {', '.join(PROVIDERS)}.{hint}")
        from promptkit_nb.providers.openai import OpenAIProvider  # noqa: PLC0415 - heavy, imported when chosen

        return OpenAIProvider.of_vendor(
            name,
            options.model or None,
            base_url=options.base_url or None,
            timeout=_number("timeout", options.timeout, 60.0),
            max_retries=int(_number("retries", options.retries, 2)),
            prices=self._prices(),
            headers=parse_headers(options.header or ""),
        )

    def _prices(self) -> dict[str, Price]:
        """Return the prices of the option, by model; a price without a name is for the model of the options."""
        prices: dict[str, Price] = {}
        for line in filter(None, map(str.strip, (self.options.price or "").splitlines())):
            model, _, price = line.rpartition("=")
            model = model or self.options.model or os.environ.get("PROMPTKIT_MODEL", "")
            if not model:
                raise InvalidArgumentError(
                    f"The price {price} needs a model: use %chat_setup --model NAME --price {price}, or --price "
                    f"NAME={price}"
                )
            prices[model] = parse_price(price)
        return prices

    @property
    def provider_model(self) -> str:
        """The model of calls that name none, ``""`` if no provider is chosen."""
        provider = self.manager.provider
        return "" if isinstance(provider, UnchosenProvider) else provider.model

    @property
    def context_tokens(self) -> int | None:
        """The context window of calls that name none, in tokens; ``InvalidArgumentError`` if it is not a number."""
        if self.options.max_tokens:
            raise InvalidArgumentError(
                "PromptKit.max_tokens is ambiguous. Reset it with %config PromptKit.max_tokens = '', and set "
                "PromptKit.context_tokens, which limits what is sent; --max-output-tokens of %%chat limits the answer."
            )
        text = (self.options.context_tokens or "").strip()
        return check_tokens("max_tokens", int(text) if text.isdecimal() else text or None)

    @property
    def thinking(self) -> ThinkingMode:
        """How to show a model's thinking: ``fold``, ``show``, or ``hide``; else raises ``InvalidArgumentError``."""
        return check_thinking(self.options.thinking or "fold")

    def check_pack(self) -> None:
        """Raise a ``PackError`` unless the options' pack can be read and has the options' prompt."""
        if self.options.pack or self.options.prompt:
            self.prompt(None, self.options.prompt or None)

    def prompt(self, pack: str | None, prompt: str | None) -> Prompt:
        """Return a prompt of a pack; by default of the options' pack."""
        path = pack or self.options.pack
        if not path:
            raise pack_needed(prompt)
        return load_pack(path).prompt(prompt)

    def close(self) -> None:
        """Close the stores, which are opened again when they are needed; the one in memory stays."""
        self._manager = None
        for name in [name for name in self._stores if name != "memory"]:
            self._stores.pop(name).close()


def pack_needed(prompt: str | None) -> InvalidArgumentError:
    """Return the error for a prompt without a pack."""
    return InvalidArgumentError(
        f"Which pack does prompt {prompt!r} belong to? Add --pack FILE, or set it once: %chat_setup --pack FILE"
    )


def _budgets(text: str) -> list[Budget]:
    """Return the budgets of the option, which are separated by commas; ``none`` and ``off`` are none."""
    named = [each.strip() for each in text.split(",") if each.strip()]
    return [] if [each.casefold() for each in named] in (["none"], ["off"]) else [parse_budget(each) for each in named]


def _number(name: str, text: str | None, default: float) -> float:
    """Return the number of an option; ``InvalidArgumentError`` if it is not a number. The provider checks its range."""
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number) or (isinstance(default, int) and not number.is_integer()):
        what = "a whole number" if isinstance(default, int) else "a number of seconds"
        raise InvalidArgumentError(f"--{name} {text!r:.40} is not {what}, such as {default:g}.")
    return number


def _store_named(name: str) -> StateStore:
    """Return the store: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
    if name == "memory":
        from promptkit_nb.stores.memory import MemoryStore  # noqa: PLC0415 - imported when chosen

        return MemoryStore()
    if name.startswith(_REDIS_SCHEMES):
        from promptkit_nb.stores.redis import RedisStore  # noqa: PLC0415 - imported when chosen

        return RedisStore(name)
    from promptkit_nb.stores.disk import DiskStore  # noqa: PLC0415 - heavy, imported when chosen

    if name == "disk":
        return DiskStore()
    if "://" in name:  # it may hold a password, so it is not quoted
        raise InvalidArgumentError(
            f"The store is not the URL of a Redis server, which begins with {' or '.join(_REDIS_SCHEMES)}"
        )
    if not ("/" in name or os.sep in name or name == "~" or Path(name).is_dir()):
        raise InvalidArgumentError(
            f"Unknown store {name!r}: use disk, memory, a directory such as ./chats, or redis://host:port/db"
        )
    return DiskStore(name)


def _file_version(path: str) -> tuple[str, int]:
    """Return a file's absolute path and modification time in nanoseconds, -1 if it does not exist."""
    if not path:
        return "", -1
    file = path_of("recording", path).absolute()
    return str(file), file.stat().st_mtime_ns if file.exists() else -1
