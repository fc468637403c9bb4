"""What the notebook's options amount to: provider, store, budgets and recording, brought together in a manager."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from promptkit_nb.asking.replays import check_replay
from promptkit_nb.asking.requests import check_tokens
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.manager import ConversationManager
from promptkit_nb.money.budgets import parse_budget
from promptkit_nb.notebook.choices import file_stamp, provider_of, recorded_in, store_of
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.providers.unchosen import UnchosenProvider

if TYPE_CHECKING:
    from promptkit_nb.notebook.options import PromptKit
    from promptkit_nb.packs.prompt import Prompt
    from promptkit_nb.stores.base import StateStore

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
