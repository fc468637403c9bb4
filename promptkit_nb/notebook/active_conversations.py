"""The active conversations of a notebook: opened, started, and kept from cell to cell."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.chat.options import CallOptions
from promptkit_nb.errors import AuthenticationError, ConversationExistsError, ConversationNotFoundError
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.ids import new_conversation_id, scoped_id
from promptkit_nb.manager import ConversationManager
from promptkit_nb.notebook.settings import TWO_WAYS_ON, NotebookSettings, UnchosenProvider, pack_needed
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import total_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.packs.prompt import Prompt


class ActiveConversations:
    """One active conversation for each store and user: the notebook's own until another one is chosen."""

    def __init__(self, settings: NotebookSettings) -> None:
        """Start without a conversation."""
        self._settings = settings
        self._active: dict[tuple[str, str], tuple[ConversationManager, Conversation]] = {}  # by store and user
        self._unnamed: set[str] = set()

    def use(self, conversation_id: str, *, user_id: str) -> str:
        """Switch to this conversation, which is created if needed; return a line that says which it was."""
        opened, line = self._open(conversation_id, CallOptions(user_id=user_id))
        self.switch_to(opened, user_id)
        return self.repeatable(line, opened)

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Switch to a new conversation; return a line that says so. An id that exists is refused."""
        new_id = conversation_id or new_conversation_id(utc_now())
        try:
            created = self._create(new_id, CallOptions(user_id=user_id))
        except ConversationExistsError as error:
            if not self._exists(new_id, user_id):
                raise _taken(new_id) from error
            raise ConversationExistsError(
                f"There is a conversation {new_id!r} already: choose another id, or go on in it with %chat_use {new_id}"
            ) from error
        self.switch_to(created, user_id)
        return "started a new conversation" if is_batch() and not conversation_id else f"started {created.id!r}"

    def current(self, user_id: str) -> Conversation | None:
        """Return the active conversation, ``None`` if there is none yet."""
        active = self._opened_before(user_id)
        if active is not None:
            return active
        own_id = self._own_id(user_id)
        return self._settings.manager.get_conversation(own_id) if own_id and self._exists(own_id, user_id) else None

    def reading(self, conversation_id: str | None, *, user_id: str) -> Conversation | None:
        """Return the user's conversation with this id; without an id the active one, ``None`` if there is none."""
        if conversation_id is None:
            return self.current(user_id)
        return self._settings.manager.for_user(user_id).get_conversation(conversation_id)

    def to_chat_in(self, options: CallOptions) -> tuple[Conversation, str]:
        """Return the conversation of a call and, if it was just opened or started, a line that says so.

        Without an id it is the active conversation, at first the notebook's own.
        """
        if options.conversation_id is not None:
            return self._open(options.conversation_id, options)
        user_id = options.user_id or self._settings.user_id
        active = self._opened_before(user_id)
        if active is None:
            deleted = self._active.get(self._key(user_id))  # perhaps by another kernel
            conversation_id = deleted[1].id if deleted else self._own_id(user_id) or self._unnamed_id()
            opened, line = self._open(conversation_id, options)
            self.switch_to(opened, user_id)
            return opened, line
        if options.pack or options.prompt:
            _use_prompt(active, self._settings.prompt(options.pack, options.prompt))
        return active, ""

    def check_provider(self, options: CallOptions) -> None:
        """Raise ``AuthenticationError`` if neither a provider, a recording nor a stored turn could answer."""
        if not isinstance(self._settings.manager.provider, UnchosenProvider) or self._settings.options.recording:
            return
        user_id = options.user_id or self._settings.user_id
        active = self._opened_before(user_id)
        conversation_id = options.conversation_id or (active.id if active else self._own_id(user_id))
        if not conversation_id or not self._exists(conversation_id, user_id):
            raise AuthenticationError(TWO_WAYS_ON)

    def switch_to(self, conversation: Conversation, user_id: str) -> None:
        """Make this the active conversation."""
        self._active[self._key(user_id)] = (self._settings.manager, conversation)

    def repeatable(self, line: str, conversation: Conversation) -> str:
        """Return the line; in a batch run that replays a recording, one that is the same in every store."""
        if not line or conversation.id in self._unnamed or not is_batch() or self._settings.options.replay != "strict":
            return line
        return f"conversation {conversation.id!r}"

    def scratch(self, conversation: Conversation | None, options: CallOptions) -> Conversation:
        """Return the conversation as this call would use it; a new or changed one is in memory only."""
        manager = ConversationManager(self._settings.manager.provider)
        if conversation is None:
            return self._create("unbegun", options, manager)
        if not (options.pack or options.prompt):
            return conversation
        manager.store.create(conversation.snapshot().state)
        changed = manager.get_conversation(conversation.id)
        _use_prompt(changed, self._settings.prompt(options.pack, options.prompt))
        return changed

    def _opened_before(self, user_id: str) -> Conversation | None:
        """Return the active conversation, opened with the current options, unless it was deleted."""
        active = self._active.get(self._key(user_id))
        if active is None or not self._exists(active[1].id, user_id):
            return None
        manager, conversation = active
        if manager is not self._settings.manager:  # the options changed
            conversation = self._settings.manager.get_conversation(conversation.id)
            self.switch_to(conversation, user_id)
        return conversation

    def _open(self, conversation_id: str, options: CallOptions) -> tuple[Conversation, str]:
        user_id = options.user_id or self._settings.user_id
        try:
            head = self._settings.store.head(conversation_id)
        except ConversationNotFoundError:
            with suppress(ConversationExistsError):  # another kernel may start it at the same time
                return self._create(conversation_id, options), self._started(conversation_id)
            head = self._settings.store.head(conversation_id)
        opened = self._settings.manager.get_conversation(conversation_id)
        if opened.user_id != user_id:
            raise _taken(conversation_id)
        if options.pack or options.prompt:
            _use_prompt(opened, self._settings.prompt(options.pack, options.prompt))
        turns = counted(head.turn_count, "turn")
        return opened, f"resumed {conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"

    def _create(
        self, conversation_id: str, options: CallOptions, manager: ConversationManager | None = None
    ) -> Conversation:
        path = options.pack or self._settings.options.pack
        if options.prompt and not path:
            raise pack_needed(options.prompt)
        pack = load_pack(path) if path else None
        name = options.prompt or (self._settings.options.prompt or None if path and not options.pack else None)
        if pack is not None:  # magics give no variables, and a conversation that cannot be used is not stored
            pack.prompt(name).render({})
        return (manager or self._settings.manager).new_conversation(
            pack, prompt_name=name, conversation_id=conversation_id, user_id=options.user_id or self._settings.user_id
        )

    def _exists(self, conversation_id: str, user_id: str) -> bool:
        try:
            return self._settings.store.head(conversation_id).user_id == user_id
        except ConversationNotFoundError:
            return False

    def _started(self, conversation_id: str) -> str:
        if conversation_id not in self._unnamed:
            return f"started {conversation_id!r}"
        if is_batch():
            return "started a new conversation (the notebook's name is unknown in a batch run)"
        return f"started {conversation_id!r} (the notebook's name is unknown here; %chat_use resumes one by its id)"

    def _own_id(self, user_id: str) -> str | None:
        path = notebook_path()
        if path is None:
            return None
        digest = hashlib.sha256(f"{user_id}\n{path}".encode()).hexdigest()
        return scoped_id("nb", path.stem, digest[:8])

    def _unnamed_id(self) -> str:
        fresh_id = new_conversation_id(utc_now())
        self._unnamed.add(fresh_id)
        return fresh_id

    def _key(self, user_id: str) -> tuple[str, str]:
        return self._settings.options.store or "disk", user_id


def notebook_path() -> Path | None:
    """Return the absolute path of the running notebook, or ``None`` if the front end does not provide it.

    Jupyter's server sets ``JPY_SESSION_NAME``, VS Code a variable in the notebook. A batch run started from within a
    notebook inherits that, but is not that notebook.
    """
    if is_batch():
        return None
    shell = running_shell()
    name = None if shell is None else shell.user_ns.get("__vsc_ipynb_file__")
    name = name or os.environ.get("JPY_SESSION_NAME", "")
    return Path(name).absolute() if isinstance(name, str) and name.endswith(".ipynb") else None


def _taken(conversation_id: str) -> ConversationExistsError:
    return ConversationExistsError(f"The id {conversation_id!r} is taken by another user: choose another id.")


def _use_prompt(conversation: Conversation, prompt: Prompt) -> None:
    """Switch to this prompt; raise if a variable has no value, and leave the conversation as it was."""
    prompt.render(conversation.variables)
    conversation.use_prompt(prompt)
