"""What the notebook's options stand for: provider, store, budgets and recording, brought together in a manager."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.chat.budgets import parse_budget
from promptkit_nb.chat.options import check_replay, check_tokens
from promptkit_nb.chat.replay import replayable
from promptkit_nb.errors import AuthenticationError, InvalidArgumentError
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.manager import ConversationManager
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.pricing import Price

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb.notebook.options import PromptKit
    from promptkit_nb.packs.prompt import Prompt
    from promptkit_nb.providers.base import ChatRequest, Provider, StreamEvent
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn, Usage

TWO_WAYS_ON = (
    "No model is chosen, and there is no key. Two ways to go on: set OPENAI_API_KEY (and OPENAI_BASE_URL for a server "
    "of your own) before the kernel starts, or chat with the built-in demo: %chat_setup --provider demo"
)


class UnchosenProvider:
    """Answers nothing: asking it raises an ``AuthenticationError`` that names the two ways to go on."""

    name = "unchosen"
    model = ""

    def __repr__(self) -> str:
        """Show the call that makes one."""
        return "UnchosenProvider()"

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:  # noqa: ARG002 - nothing is asked
        """Raise ``AuthenticationError``."""
        raise AuthenticationError(TWO_WAYS_ON)

    def price(self, model: str, usage: Usage, at: datetime) -> Price:  # noqa: ARG002 - nothing is answered
        """Return no price."""
        return Price(None, None)


_REDIS = ("redis://", "rediss://", "unix://")


def provider_of(name: str, model: str, base_url: str) -> Provider:
    """Return the provider of this name; without one, OpenAI's where a key or an address is given, else none yet."""
    chosen = name or os.environ.get("PROMPTKIT_PROVIDER", "")
    if not chosen and (base_url or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        chosen = "openai"
    if chosen == "openai":
        from promptkit_nb.providers.openai import OpenAIProvider  # noqa: PLC0415 - heavy, imported when chosen

        return OpenAIProvider(model or None, base_url=base_url or None)
    if chosen == "demo":
        from promptkit_nb.providers.demo import DemoProvider  # noqa: PLC0415 - imported when chosen

        return DemoProvider()
    if chosen:
        raise InvalidArgumentError(
            f"There is no provider {chosen!r}: use openai or demo, as in %chat_setup --provider openai"
        )
    return UnchosenProvider()


def store_of(chosen: str) -> StateStore:
    """Return the store: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
    if chosen == "memory":
        from promptkit_nb.stores.memory import MemoryStore  # noqa: PLC0415 - imported when chosen

        return MemoryStore()
    if chosen.startswith(_REDIS):
        from promptkit_nb.stores.redis import RedisStore  # noqa: PLC0415 - imported when chosen

        return RedisStore(chosen)
    from promptkit_nb.stores.disk import DiskStore  # noqa: PLC0415 - heavy, imported when chosen

    if chosen == "disk":
        return DiskStore()
    if "://" in chosen:  # and perhaps a password, so that it is not quoted
        raise InvalidArgumentError(f"The store is no address of a Redis server: begin it with {' or '.join(_REDIS)}")
    if not ("/" in chosen or os.sep in chosen or chosen == "~" or Path(chosen).is_dir()):
        raise InvalidArgumentError(
            f"There is no store {chosen!r}: use disk, memory, a directory such as ./chats, or redis://host:port/db"
        )
    return DiskStore(chosen)


def recorded_in(path: str) -> tuple[Turn, ...]:
    """Return all turns of an exported conversation, to be replayed; none without a path."""
    return tuple(replayable(read_conversation(path))) if path else ()


def file_stamp(path: str) -> tuple[str, int]:
    """Return what changes with a file: its absolute path, and when it was written last in nanoseconds, or -1."""
    if not path:
        return "", -1
    file = Path(path).absolute()
    return str(file), file.stat().st_mtime_ns if file.exists() else -1


_ENVIRONMENT = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")


class Chosen:
    """What was chosen; everything follows the options, which may change at any time."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self.options = options
        self._managers: tuple[tuple[object, ...], ConversationManager] | None = None
        self._stores: dict[str, StateStore] = {}

    @property
    def user_id(self) -> str:
        """The user of the options."""
        return self.options.user or "default"

    @property
    def store(self) -> StateStore:
        """The store of the options: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
        chosen = self.options.store or "disk"
        if chosen not in self._stores:  # those chosen before stay open: one may be in memory
            self._stores[chosen] = store_of(chosen)
        return self._stores[chosen]

    @property
    def store_name(self) -> str:
        """The store of the options, for people to read: of a server's address neither user, password nor query."""
        chosen = self.options.store or "disk"
        scheme, is_address, address = chosen.partition("://")
        return f"{scheme}://{address.partition('?')[0].rpartition('@')[2]}" if is_address else chosen

    @property
    def manager(self) -> ConversationManager:
        """The manager after the options; opening, reading and replaying need no provider."""
        options = self.options
        chosen = (options.provider or "", options.model or "", options.base_url or "")
        replay, recording, budget = options.replay or "auto", options.recording or "", options.budget or ""
        settings = (
            *(options.store or "disk", *chosen, budget, replay, *file_stamp(recording)),
            *(os.environ.get(name, "") for name in _ENVIRONMENT),
        )
        if self._managers is None or self._managers[0] != settings:
            manager = ConversationManager(
                provider_of(*chosen),
                self.store,
                budget=[parse_budget(each) for each in budget.split(",") if each.strip()],
                replay=check_replay(replay),
                recording=recorded_in(recording),
            )
            self._managers = (settings, manager)
        return self._managers[1]

    @property
    def provider_model(self) -> str:
        """The model of calls that name none, ``""`` while no provider is chosen."""
        provider = self.manager.provider
        return "" if isinstance(provider, UnchosenProvider) else provider.model

    @property
    def max_tokens(self) -> int | None:
        """The context window of calls that name none, in tokens; ``InvalidArgumentError`` where it is no number."""
        chosen = (self.options.max_tokens or "").strip()
        return check_tokens("max_tokens", int(chosen) if chosen.isdecimal() else chosen or None)

    def check_pack(self) -> None:
        """Raise a ``PackError`` unless the options' pack can be read and has the options' prompt."""
        if self.options.pack or self.options.prompt:
            self.prompt(None, self.options.prompt or None)

    def prompt(self, pack: str | None, prompt: str | None) -> Prompt:
        """Return the prompt that was asked for; one without a pack is of the options' pack."""
        path = pack or self.options.pack
        if not path:
            raise no_pack(prompt)
        return load_pack(path).prompt(prompt)

    def close(self) -> None:
        """Let go of stores; they are opened again when they are needed, and what is in memory stays."""
        self._managers = None
        for chosen in [name for name in self._stores if name != "memory"]:
            self._stores.pop(chosen).close()


def no_pack(prompt: str | None) -> InvalidArgumentError:
    """Return the error for a prompt of no pack."""
    return InvalidArgumentError(
        f"The prompt {prompt!r} is one of which pack? Add --pack FILE, or say once: %chat_setup --pack FILE"
    )
