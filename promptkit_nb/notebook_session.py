"""What the magics talk to: the notebook's options, its provider and store, and the conversation it is in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.answer_display import AnswerDisplay
from promptkit_nb.errors import (
    AuthenticationError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
)
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.head_table import HeadTable
from promptkit_nb.ids import new_conversation_id, scoped_id
from promptkit_nb.manager import ConversationManager
from promptkit_nb.packs import load_pack
from promptkit_nb.plain_text import counted
from promptkit_nb.providers.unchosen import TWO_WAYS_ON, UnchosenProvider
from promptkit_nb.receipts import total_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.conversation import Conversation
    from promptkit_nb.history import History
    from promptkit_nb.options import PromptKit
    from promptkit_nb.prompts import Prompt
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.responses import Response
    from promptkit_nb.running_cell import CellCall
    from promptkit_nb.stores.base import StateStore

_ENVIRONMENT = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
_REDIS = ("redis://", "rediss://", "unix://")


class NotebookSession:
    """One notebook's talk, after its options, which may change at any time."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self._options = options
        self._provider: tuple[tuple[str, ...], Provider] | None = None
        self._stores: dict[str, StateStore] = {}
        self._current: dict[tuple[str, str], Conversation] = {}  # by store and user
        self._unnamed: set[str] = set()

    @property
    def user_id(self) -> str:
        """The user of the options."""
        return self._options.user or "default"

    @property
    def store(self) -> StateStore:
        """The store of the options: ``disk`` (the default directory), ``memory``, a directory, or a Redis server."""
        chosen = self._options.store or "disk"
        if chosen not in self._stores:  # those chosen before stay open: one may be in memory
            self._stores[chosen] = _store_of(chosen)
        return self._stores[chosen]

    @property
    def store_name(self) -> str:
        """The store of the options, for people to read: of a server's address neither user, password nor query."""
        chosen = self._options.store or "disk"
        scheme, is_address, address = chosen.partition("://")
        return f"{scheme}://{address.partition('?')[0].rpartition('@')[2]}" if is_address else chosen

    @property
    def manager(self) -> ConversationManager:
        """The manager after the options; opening and reading needs no provider."""
        chosen = (self._options.provider or "", self._options.model or "", self._options.base_url or "")
        settings = (*chosen, *(os.environ.get(name, "") for name in _ENVIRONMENT))
        if self._provider is None or self._provider[0] != settings:
            self._provider = (settings, _provider_of(*chosen))
        return ConversationManager(provider=self._provider[1], store=self.store)

    def answer(
        self,
        text: str,
        next_call: Callable[[], CellCall],
        *,
        conversation_id: str | None = None,
        model: str | None = None,
        prompt: str | None = None,
        pack: str | None = None,
        user_id: str | None = None,
        quiet: bool = False,
    ) -> Response | None:
        """Say something, show the answer as it comes, and return it."""
        if isinstance(self.manager.provider, UnchosenProvider):
            raise AuthenticationError(TWO_WAYS_ON)
        conversation, opened = self._conversation(conversation_id, user_id or self.user_id, pack, prompt)
        display = AnswerDisplay(quiet=quiet)
        display.note(opened)
        stream = conversation.stream(
            text, model=model or self._options.model or None, cell=next_call(), on_waiting=display.waiting
        )
        display.follow(stream, conversation.id)
        return stream.response

    def use(self, conversation_id: str, *, user_id: str) -> str:
        """Go on in this conversation, created if needed; return a line that says which it was."""
        opened, line = self._open(conversation_id, user_id, None, None)
        self._current[self._place(user_id)] = opened
        return line

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Go on in a new conversation; return a line that says so. An id that exists is refused."""
        fresh_id = new_conversation_id(utc_now())
        try:
            created = self._create(conversation_id or fresh_id, user_id, None, None)
        except ConversationExistsError as error:
            raise ConversationExistsError(
                f"There is a conversation {conversation_id!r} already: choose another id, "
                f"or go on in it with %chat_use {conversation_id}"
            ) from error
        self._current[self._place(user_id)] = created
        return "started a new conversation" if is_batch() and not conversation_id else f"started {created.id!r}"

    def history(self, conversation_id: str | None, *, user_id: str) -> History | None:
        """Return what was said in a conversation; without an id in the notebook's, ``None`` if that is nothing yet."""
        if conversation_id is not None:
            return self.manager.for_user(user_id).get_conversation(conversation_id).history()
        current = self._current.get(self._place(user_id))
        if current is not None:
            return current.history()
        try:
            return self.manager.get_conversation(self._own_id(user_id)).history()
        except ConversationNotFoundError:
            return None

    def listed(self, prefix: str | None) -> HeadTable:
        """Return the user's conversations whose id begins so, newest first."""
        return HeadTable(self.store.list(prefix=prefix, user_id=self.user_id))

    def check_pack(self) -> None:
        """Raise a ``PackError`` unless the options' pack can be read and has the options' prompt."""
        if self._options.pack or self._options.prompt:
            self._prompt(None, self._options.prompt or None)

    def close(self) -> None:
        """Let go of the stores."""
        while self._stores:
            self._stores.popitem()[1].close()

    def _conversation(
        self, conversation_id: str | None, user_id: str, pack: str | None, prompt: str | None
    ) -> tuple[Conversation, str]:
        """Return the conversation to talk in and, where it was opened or created just now, a line that says so.

        Without an id it is the one that this notebook is in, at first the notebook's own.
        """
        if conversation_id is not None:
            return self._open(conversation_id, user_id, pack, prompt)
        place = self._place(user_id)
        current = self._current.get(place)
        if current is None or not self._is_there(current.id):  # deleted meanwhile, perhaps by another kernel
            opened, line = self._open(current.id if current else self._own_id(user_id), user_id, pack, prompt)
            self._current[place] = opened
            return opened, line
        manager = self.manager
        if not current.is_served_by(manager.provider, manager.store):  # the options changed
            current = self._current[place] = manager.get_conversation(current.id)
        if pack or prompt:
            _switch(current, self._prompt(pack, prompt))
        return current, ""

    def _open(
        self, conversation_id: str, user_id: str, pack: str | None, prompt: str | None
    ) -> tuple[Conversation, str]:
        try:
            head = self.store.head(conversation_id)
        except ConversationNotFoundError:
            with suppress(ConversationExistsError):  # of two kernels that start it at once, one comes second
                return self._create(conversation_id, user_id, pack, prompt), self._started(conversation_id)
            head = self.store.head(conversation_id)
        if head.user_id != user_id:
            raise ConversationExistsError(f"The id {conversation_id!r} is taken by another user: choose another id.")
        opened = self.manager.get_conversation(conversation_id)
        if pack or prompt:
            _switch(opened, self._prompt(pack, prompt))
        turns = counted(head.turn_count, "turn")
        return opened, f"resumed {conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"

    def _is_there(self, conversation_id: str) -> bool:
        try:
            self.store.head(conversation_id)
        except ConversationNotFoundError:
            return False
        return True

    def _create(self, conversation_id: str, user_id: str, pack: str | None, prompt: str | None) -> Conversation:
        path = pack or self._options.pack
        if prompt and not path:
            raise _no_pack(prompt)
        loaded = load_pack(path) if path else None
        name = prompt or (self._options.prompt or None if path and not pack else None)
        if loaded is not None:  # magics give no variables, and what cannot talk is not to be left behind
            loaded.prompt(name).render({})
        return self.manager.new_conversation(
            loaded,
            prompt_name=name,
            conversation_id=conversation_id,
            user_id=user_id,
        )

    def _prompt(self, pack: str | None, prompt: str | None) -> Prompt:
        """Return the prompt that was asked for; one without a pack is of the options' pack."""
        path = pack or self._options.pack
        if not path:
            raise _no_pack(prompt)
        return load_pack(path).prompt(prompt)

    def _started(self, conversation_id: str) -> str:
        if conversation_id not in self._unnamed:
            return f"started {conversation_id!r}"
        if is_batch():
            return "started a new conversation (in a batch run the notebook's name is not known)"
        return (
            f"started {conversation_id!r} (the notebook's name is not known here; %chat_use goes on in one by its id)"
        )

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

    def _place(self, user_id: str) -> tuple[str, str]:
        return self._options.store or "disk", user_id


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
    return UnchosenProvider()


def _no_pack(prompt: str | None) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"The prompt {prompt!r} is one of which pack? Add --pack FILE, or say once: %chat_setup --pack FILE"
    )


def _switch(conversation: Conversation, prompt: Prompt) -> None:
    """Go on with this prompt; where a variable has no value, raise, and leave the conversation as it was."""
    prompt.render(conversation.variables)
    conversation.use_prompt(prompt)


def _store_of(chosen: str) -> StateStore:
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
