"""What the magics talk to: the notebook's options, its provider and store, and the conversation it is in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.errors import AuthenticationError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.ids import new_conversation_id, scoped_id
from promptkit_nb.manager import ConversationManager
from promptkit_nb.packs import load_pack
from promptkit_nb.receipts import total_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.options import PromptKit
    from promptkit_nb.prompts import Prompt
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.stores.base import StateStore

NO_MODEL = (
    "No model is chosen, and there is no key. Two ways to go on: set OPENAI_API_KEY (and OPENAI_BASE_URL for a server "
    "of your own) before the kernel starts, or chat with the built-in demo: %chat_setup --provider demo"
)


_ENVIRONMENT = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")


class NotebookSession:
    """One notebook's talk, after its options, which may change at any time."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self._options = options
        self._provider: tuple[tuple[str, ...], Provider] | None = None
        self._store: tuple[str, StateStore] | None = None
        self._current: dict[str, Conversation] = {}
        self._unnamed: set[str] = set()

    @property
    def store(self) -> StateStore:
        """The store of the options: ``disk`` (the default directory), ``memory``, or a directory."""
        chosen = self._options.store
        if self._store is None or self._store[0] != chosen:
            opened = _store_of(chosen)
            self.close()
            self._store = (chosen, opened)
        return self._store[1]

    @property
    def manager(self) -> ConversationManager:
        """The manager after the options; ``AuthenticationError`` where no provider is chosen."""
        chosen = (self._options.provider, self._options.model, self._options.base_url)
        settings = (*chosen, *(os.environ.get(name, "") for name in _ENVIRONMENT))
        if self._provider is None or self._provider[0] != settings:
            self._provider = (settings, _provider_of(*chosen))
        return ConversationManager(provider=self._provider[1], store=self.store)

    def conversation(
        self, conversation_id: str | None, *, user_id: str, pack: str | None = None, prompt: str | None = None
    ) -> tuple[Conversation, str]:
        """Return the conversation to talk in and, where it was opened or created just now, a line that says so.

        Without an id it is the one that this notebook is in, at first the notebook's own.
        """
        if conversation_id is not None:
            return self._open(conversation_id, user_id, pack, prompt)
        current = self._current.get(user_id)
        if current is None:
            opened, line = self._open(self._own_id(user_id), user_id, pack, prompt)
            self._current[user_id] = opened
            return opened, line
        manager = self.manager
        if not current.is_served_by(manager.provider, manager.store):  # the options changed
            current = self._current[user_id] = manager.get_conversation(current.id)
        if pack or prompt:
            current.use_prompt(self._prompt(pack, prompt))
        return current, ""

    def use(self, conversation_id: str, *, user_id: str) -> str:
        """Go on in this conversation, created if needed; return a line that says which it was."""
        opened, line = self._open(conversation_id, user_id, None, None)
        self._current[user_id] = opened
        return line

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Go on in a new conversation; return a line that says so. An id that exists is refused."""
        created = self._create(conversation_id or self._unnamed_id(), user_id, None, None)
        self._current[user_id] = created
        return self._started(created.id)

    def current_id(self, user_id: str) -> str | None:
        """Return the id of the conversation that this notebook is in, if it is in one yet."""
        current = self._current.get(user_id)
        return None if current is None else current.id

    def check_pack(self) -> None:
        """Raise a ``PackError`` unless the options' pack can be read and has the options' prompt."""
        load_pack(self._options.pack).prompt(self._options.prompt or None)

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store[1].close()
            self._store = None

    def _open(
        self, conversation_id: str, user_id: str, pack: str | None, prompt: str | None
    ) -> tuple[Conversation, str]:
        try:
            head = self.store.head(conversation_id)
        except ConversationNotFoundError:
            return self._create(conversation_id, user_id, pack, prompt), self._started(conversation_id)
        opened = self.manager.open_conversation(conversation_id=conversation_id, user_id=user_id)
        if pack or prompt:
            opened.use_prompt(self._prompt(pack, prompt))
        turns = f"{head.turn_count} {'turn' if head.turn_count == 1 else 'turns'}"
        return opened, f"resumed {conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"

    def _create(self, conversation_id: str, user_id: str, pack: str | None, prompt: str | None) -> Conversation:
        path = pack or self._options.pack
        return self.manager.new_conversation(
            load_pack(path) if path else None,
            prompt_name=prompt or (self._options.prompt or None if path and not pack else None),
            conversation_id=conversation_id,
            user_id=user_id,
        )

    def _prompt(self, pack: str | None, prompt: str | None) -> Prompt:
        """Return the prompt that was asked for; one without a pack is of the options' pack."""
        path = pack or self._options.pack
        if not path:
            raise InvalidArgumentError(
                f"The prompt {prompt!r} is one of which pack? Add --pack FILE, or say once: %chat_setup --pack FILE"
            )
        return load_pack(path).prompt(prompt)

    def _started(self, conversation_id: str) -> str:
        if conversation_id not in self._unnamed:
            return f"started {conversation_id!r}"
        if is_batch():
            return "started a new conversation (in a batch run the notebook's name is not known)"
        return f"started {conversation_id!r} (this front end does not tell the notebook's name)"

    def _own_id(self, user_id: str) -> str:
        path = notebook_path()
        if path is None:
            return self._unnamed_id()
        digest = hashlib.sha256(f"{user_id}\n{path}".encode()).hexdigest()
        return scoped_id("nb", path.stem, digest[:8])

    def _unnamed_id(self) -> str:
        fresh = new_conversation_id(utc_now())
        self._unnamed.add(fresh)
        return fresh


def notebook_path() -> Path | None:
    """Return the absolute path of the notebook that is running, or ``None`` where the front end does not tell it.

    Jupyter's server names it in ``JPY_SESSION_NAME``, VS Code in a variable of the notebook. A batch run started from
    within a notebook inherits the former, and is not that notebook.
    """
    if is_batch():
        return None
    shell = running_shell()
    named = None if shell is None else shell.user_ns.get("__vsc_ipynb_file__")
    named = named or os.environ.get("JPY_SESSION_NAME", "")
    return Path(named).absolute() if isinstance(named, str) and named.endswith(".ipynb") else None


def _provider_of(name: str, model: str, base_url: str) -> Provider:
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
    raise AuthenticationError(NO_MODEL)


def _store_of(chosen: str) -> StateStore:
    if chosen == "memory":
        from promptkit_nb.stores.memory import MemoryStore  # noqa: PLC0415 - imported when chosen

        return MemoryStore()
    from promptkit_nb.stores.disk import DiskStore  # noqa: PLC0415 - heavy, imported when chosen

    if "://" in chosen:
        raise InvalidArgumentError(f"There is no store {chosen!r}: use disk, memory, or a directory.")
    return DiskStore(None if chosen == "disk" else chosen)
