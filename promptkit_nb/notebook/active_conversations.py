"""The conversations that a notebook talks in: opened, started, and kept from cell to cell."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.errors import AuthenticationError, ConversationExistsError, ConversationNotFoundError
from promptkit_nb.frontend import is_batch, running_shell
from promptkit_nb.ids import new_conversation_id, scoped_id
from promptkit_nb.manager import ConversationManager
from promptkit_nb.notebook.settings import TWO_WAYS_ON, UnchosenProvider, no_pack
from promptkit_nb.notebook.talk import Talk
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import total_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.notebook.settings import Chosen
    from promptkit_nb.packs.prompt import Prompt


class ActiveConversations:
    """One conversation for each store and user: the notebook's own until another one is chosen."""

    def __init__(self, chosen: Chosen) -> None:
        """Be in none yet."""
        self._chosen = chosen
        self._current: dict[tuple[str, str], tuple[ConversationManager, Conversation]] = {}  # by store and user
        self._unnamed: set[str] = set()

    def use(self, conversation_id: str, *, user_id: str) -> str:
        """Go on in this conversation, created if needed; return a line that says which it was."""
        opened, line = self._open(conversation_id, Talk(user_id=user_id))
        self.go_on_in(opened, user_id)
        return self.repeatable(line, opened)

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Go on in a new conversation; return a line that says so. An id that exists is refused."""
        fresh_id = new_conversation_id(utc_now())
        try:
            created = self._create(conversation_id or fresh_id, Talk(user_id=user_id))
        except ConversationExistsError as error:
            if not self._is_there(conversation_id or fresh_id, user_id):
                raise _taken(conversation_id or fresh_id) from error
            raise ConversationExistsError(
                f"There is a conversation {conversation_id!r} already: choose another id, "
                f"or go on in it with %chat_use {conversation_id}"
            ) from error
        self.go_on_in(created, user_id)
        return "started a new conversation" if is_batch() and not conversation_id else f"started {created.id!r}"

    def current(self, user_id: str) -> Conversation | None:
        """Return the conversation that the notebook is in, ``None`` where nothing was said in it yet."""
        held = self._held(user_id)
        if held is not None:
            return held
        own_id = self._own_id(user_id)
        return self._chosen.manager.get_conversation(own_id) if self._is_there(own_id, user_id) else None

    def reading(self, conversation_id: str | None, *, user_id: str) -> Conversation | None:
        """Return the user's conversation of this id; without one the notebook's, ``None`` if that is nothing yet."""
        if conversation_id is None:
            return self.current(user_id)
        return self._chosen.manager.for_user(user_id).get_conversation(conversation_id)

    def to_talk_in(self, talk: Talk) -> tuple[Conversation, str]:
        """Return the conversation to talk in and, where it was opened or created just now, a line that says so.

        Without an id it is the one that this notebook is in, at first the notebook's own.
        """
        if talk.conversation_id is not None:
            return self._open(talk.conversation_id, talk)
        user_id = talk.user_id or self._chosen.user_id
        current = self._held(user_id)
        if current is None:
            held = self._current.get(self._place(user_id))  # deleted meanwhile, perhaps by another kernel
            opened, line = self._open(held[1].id if held else self._own_id(user_id), talk)
            self.go_on_in(opened, user_id)
            return opened, line
        if talk.pack or talk.prompt:
            _switch(current, self._chosen.prompt(talk.pack, talk.prompt))
        return current, ""

    def check_provider(self, talk: Talk) -> None:
        """Raise where nobody is chosen to answer and nothing stored could: a conversation is not begun for that."""
        if not isinstance(self._chosen.manager.provider, UnchosenProvider) or self._chosen.options.recording:
            return
        user_id = talk.user_id or self._chosen.user_id
        held = self._held(user_id)
        conversation_id = talk.conversation_id or (held.id if held else self._own_id(user_id))
        if not self._is_there(conversation_id, user_id):
            raise AuthenticationError(TWO_WAYS_ON)

    def _held(self, user_id: str) -> Conversation | None:
        """Return the conversation that was opened before, after today's options, unless it was deleted."""
        held = self._current.get(self._place(user_id))
        if held is None or not self._is_there(held[1].id, user_id):
            return None
        manager, conversation = held
        if manager is not self._chosen.manager:  # the options changed
            conversation = self._chosen.manager.get_conversation(conversation.id)
            self.go_on_in(conversation, user_id)
        return conversation

    def go_on_in(self, conversation: Conversation, user_id: str) -> None:
        """Be in this conversation from now on."""
        self._current[self._place(user_id)] = (self._chosen.manager, conversation)

    def _open(self, conversation_id: str, talk: Talk) -> tuple[Conversation, str]:
        user_id = talk.user_id or self._chosen.user_id
        try:
            head = self._chosen.store.head(conversation_id)
        except ConversationNotFoundError:
            with suppress(ConversationExistsError):  # of two kernels that start it at once, one comes second
                return self._create(conversation_id, talk), self._started(conversation_id)
            head = self._chosen.store.head(conversation_id)
        if head.user_id != user_id:
            raise _taken(conversation_id)
        opened = self._chosen.manager.get_conversation(conversation_id)
        if talk.pack or talk.prompt:
            _switch(opened, self._chosen.prompt(talk.pack, talk.prompt))
        turns = counted(head.turn_count, "turn")
        return opened, f"resumed {conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"

    def repeatable(self, line: str, conversation: Conversation) -> str:
        """Return the line; where a program replays a recording, one that is the same in every store."""
        if not line or conversation.id in self._unnamed or not is_batch() or self._chosen.options.replay != "strict":
            return line
        return f"conversation {conversation.id!r}"

    def _is_there(self, conversation_id: str, user_id: str) -> bool:
        try:
            return self._chosen.store.head(conversation_id).user_id == user_id
        except ConversationNotFoundError:
            return False

    def scratch(self, conversation: Conversation | None, talk: Talk) -> Conversation:
        """Return the conversation as this call would talk in it; where that changes or begins it, in memory only."""
        manager = ConversationManager(self._chosen.manager.provider)
        if conversation is None:
            return self._create("unbegun", talk, manager)
        if not (talk.pack or talk.prompt):
            return conversation
        manager.store.create(conversation.snapshot().state)
        changed = manager.get_conversation(conversation.id)
        _switch(changed, self._chosen.prompt(talk.pack, talk.prompt))
        return changed

    def _create(self, conversation_id: str, talk: Talk, manager: ConversationManager | None = None) -> Conversation:
        path = talk.pack or self._chosen.options.pack
        if talk.prompt and not path:
            raise no_pack(talk.prompt)
        loaded = load_pack(path) if path else None
        name = talk.prompt or (self._chosen.options.prompt or None if path and not talk.pack else None)
        if loaded is not None:  # magics give no variables, and what cannot talk is not to be left behind
            loaded.prompt(name).render({})
        return (manager or self._chosen.manager).new_conversation(
            loaded,
            prompt_name=name,
            conversation_id=conversation_id,
            user_id=talk.user_id or self._chosen.user_id,
        )

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
        return self._chosen.options.store or "disk", user_id


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


def _taken(conversation_id: str) -> ConversationExistsError:
    return ConversationExistsError(f"The id {conversation_id!r} is taken by another user: choose another id.")


def _switch(conversation: Conversation, prompt: Prompt) -> None:
    """Go on with this prompt; where a variable has no value, raise, and leave the conversation as it was."""
    prompt.render(conversation.variables)
    conversation.use_prompt(prompt)
