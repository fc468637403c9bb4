"""What the magics talk to: the notebook's options, its provider and store, and the conversation it is in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptkit_nb.answer_display import AnswerDisplay
from promptkit_nb.budgets import parse_budget
from promptkit_nb.cell_matching import CellMatching
from promptkit_nb.choices import file_stamp, provider_of, recorded_in, store_of
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
from promptkit_nb.replays import check_replay
from promptkit_nb.spending import Spending
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas import DataFrame

    from promptkit_nb.asking import Place
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.dry_run import DryRun
    from promptkit_nb.options import PromptKit
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.prompts import Prompt
    from promptkit_nb.responses import Response
    from promptkit_nb.running_cell import CellCall
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import ContentPart

_ENVIRONMENT = ("PROMPTKIT_PROVIDER", "PROMPTKIT_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Where and how one chat call talks; ``None`` means as the notebook does."""

    conversation_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    pack: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    fresh: bool = False
    quiet: bool = False

    @property
    def parameters(self) -> dict[str, object]:
        """What goes over the conversation's own parameters."""
        return {} if self.temperature is None else {"temperature": self.temperature}


class NotebookSession:
    """One notebook's talk, after its options, which may change at any time."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self._options = options
        self._managers: tuple[tuple[object, ...], ConversationManager] | None = None
        self._stores: dict[str, StateStore] = {}
        self._current: dict[tuple[str, str], tuple[ConversationManager, Conversation]] = {}  # by store and user
        self._matching = CellMatching()
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
            self._stores[chosen] = store_of(chosen)
        return self._stores[chosen]

    @property
    def store_name(self) -> str:
        """The store of the options, for people to read: of a server's address neither user, password nor query."""
        chosen = self._options.store or "disk"
        scheme, is_address, address = chosen.partition("://")
        return f"{scheme}://{address.partition('?')[0].rpartition('@')[2]}" if is_address else chosen

    @property
    def manager(self) -> ConversationManager:
        """The manager after the options; opening, reading and replaying need no provider."""
        options = self._options
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

    def answer(
        self, text: str, next_call: Callable[[], CellCall], talk: Talk, parts: Sequence[ContentPart] = ()
    ) -> Response | None:
        """Say something, show the answer as it comes, and return it."""
        self._check_provider(talk)
        conversation, opened = self._conversation(talk)
        display = AnswerDisplay(quiet=talk.quiet)
        display.note(self._repeatable(opened, conversation))
        call = next_call()
        stream = conversation.stream(
            text,
            model=talk.model or self._options.model or None,
            parameters=talk.parameters,
            max_tokens=talk.max_tokens,
            max_output_tokens=talk.max_output_tokens,
            fresh=talk.fresh,
            parts=parts,
            place=self._place_of(call, conversation),
            cell=call,
            on_waiting=display.waiting,
        )
        try:
            display.follow(stream, conversation.id)
        finally:
            if stream.response is not None:
                self._matching.answered(conversation.id, stream.response.turn)
        return stream.response

    def dry_run(
        self, text: str, next_call: Callable[[], CellCall], talk: Talk, parts: Sequence[ContentPart] = ()
    ) -> DryRun:
        """Return what would be sent and what it may cost; nothing is sent, and no conversation begun."""
        user_id = talk.user_id or self.user_id
        conversation = self.current(user_id)
        if talk.conversation_id is not None:
            conversation = None
            with suppress(ConversationNotFoundError):
                conversation = self.reading(talk.conversation_id, user_id=user_id)
        stored, conversation = conversation, self._scratch(conversation, talk)
        shown = conversation.dry_run(
            text,
            model=talk.model or self._options.model or None,
            parameters=talk.parameters,
            max_tokens=talk.max_tokens,
            max_output_tokens=talk.max_output_tokens,
            parts=parts,
            place=self._place_of(next_call(), conversation),
        )
        return shown if conversation is stored else replace(shown, budgets=self.budget_lines())

    def panel(self) -> ChatPanel:
        """Return a panel of the conversation that the notebook is in, begun if it is not there yet."""
        from promptkit_nb.panel.widget import ChatPanel  # noqa: PLC0415 - anywidget, imported when used

        talk = Talk()
        self._check_provider(talk)
        conversation, opened = self._conversation(talk)
        AnswerDisplay().note(opened)
        return ChatPanel(conversation, model=self._options.model or None)

    def budget_lines(self) -> tuple[str, ...]:
        """Return one line for each budget of the options, going by the conversation that the notebook is in."""
        conversation = self.current(self.user_id)
        if conversation is not None:
            return conversation.budget_lines()
        return Spending(self.store, self.manager.budgets).lines("", self.user_id)

    def usage(self, by: Sequence[str]) -> DataFrame:
        """Return tokens and cost of the user's conversations, summed by these columns."""
        from promptkit_nb.views.usage import usage_df  # noqa: PLC0415 - pandas, imported when used

        return usage_df(self.store, by=list(by), user_id=self.user_id)

    def use(self, conversation_id: str, *, user_id: str) -> str:
        """Go on in this conversation, created if needed; return a line that says which it was."""
        opened, line = self._open(conversation_id, Talk(user_id=user_id))
        self._go_on_in(opened, user_id)
        return self._repeatable(line, opened)

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Go on in a new conversation; return a line that says so. An id that exists is refused."""
        fresh_id = new_conversation_id(utc_now())
        try:
            created = self._create(conversation_id or fresh_id, Talk(user_id=user_id))
        except ConversationExistsError as error:
            raise ConversationExistsError(
                f"There is a conversation {conversation_id!r} already: choose another id, "
                f"or go on in it with %chat_use {conversation_id}"
            ) from error
        self._go_on_in(created, user_id)
        return "started a new conversation" if is_batch() and not conversation_id else f"started {created.id!r}"

    def fork(self, new_id: str, *, user_id: str) -> str:
        """Go on in a copy of the conversation; where it was copied to this id before, in that copy."""
        current = self.current(user_id)
        if current is None:
            return "nothing to fork yet"
        if current.id == new_id:
            return f"this is {new_id!r} already"
        try:
            copy, line = current.fork(new_id), f"forked {current.id!r} to {new_id!r}"
        except ConversationExistsError:
            copy = self.manager.for_user(user_id).get_conversation(new_id)
            if copy.forked_from != current.id:
                raise
            line = f"resumed {new_id!r}, a fork of {current.id!r}"
        forked = self.manager.get_conversation(copy.id)
        self._matching.forked(forked.id, forked.turns)
        self._go_on_in(forked, user_id)
        return self._repeatable(line, forked)

    def current(self, user_id: str) -> Conversation | None:
        """Return the conversation that the notebook is in, ``None`` where nothing was said in it yet."""
        held = self._held(user_id)
        if held is not None:
            return held
        try:
            return self.manager.get_conversation(self._own_id(user_id))
        except ConversationNotFoundError:
            return None

    def reading(self, conversation_id: str | None, *, user_id: str) -> Conversation | None:
        """Return the user's conversation of this id; without one the notebook's, ``None`` if that is nothing yet."""
        if conversation_id is None:
            return self.current(user_id)
        return self.manager.for_user(user_id).get_conversation(conversation_id)

    def last_turn(self, conversation: Conversation) -> str | None:
        """Return the id of the turn that a cell of this kernel had last in a conversation."""
        return self._matching.last_turn(conversation.id)

    def undo(self, conversation: Conversation) -> int:
        """Take the newest turn back, unless the one that this kernel had last left already; return how many left."""
        left = conversation.undo(as_of=self.last_turn(conversation))
        if left:
            self._matching.took_back(conversation.id, conversation.turns)
        return left

    @property
    def provider_model(self) -> str:
        """The model of calls that name none, ``""`` while no provider is chosen."""
        provider = self.manager.provider
        return "" if isinstance(provider, UnchosenProvider) else provider.model

    def delete(self, conversation_id: str, *, user_id: str) -> bool:
        """Delete the user's conversation of this id for good; return whether it was there."""
        try:
            self.manager.for_user(user_id).delete_conversation(conversation_id)
        except ConversationNotFoundError:
            return False
        return True

    def listed(self, prefix: str | None) -> HeadTable:
        """Return the user's conversations whose id begins so, newest first."""
        return HeadTable(self.store.list(prefix=prefix, user_id=self.user_id))

    def check_pack(self) -> None:
        """Raise a ``PackError`` unless the options' pack can be read and has the options' prompt."""
        if self._options.pack or self._options.prompt:
            self._prompt(None, self._options.prompt or None)

    def close(self) -> None:
        """Let go of stores; they are opened again when they are needed, and what is in memory stays."""
        self._managers = None
        for chosen in [name for name in self._stores if name != "memory"]:
            self._stores.pop(chosen).close()

    def _conversation(self, talk: Talk) -> tuple[Conversation, str]:
        """Return the conversation to talk in and, where it was opened or created just now, a line that says so.

        Without an id it is the one that this notebook is in, at first the notebook's own.
        """
        if talk.conversation_id is not None:
            return self._open(talk.conversation_id, talk)
        user_id = talk.user_id or self.user_id
        current = self._held(user_id)
        if current is None:
            held = self._current.get(self._place(user_id))  # deleted meanwhile, perhaps by another kernel
            opened, line = self._open(held[1].id if held else self._own_id(user_id), talk)
            self._go_on_in(opened, user_id)
            return opened, line
        if talk.pack or talk.prompt:
            _switch(current, self._prompt(talk.pack, talk.prompt))
        return current, ""

    def _check_provider(self, talk: Talk) -> None:
        """Raise where nobody is chosen to answer and nothing stored could: a conversation is not begun for that."""
        if not isinstance(self.manager.provider, UnchosenProvider) or self._options.recording:
            return
        user_id = talk.user_id or self.user_id
        held = self._held(user_id)
        conversation_id = talk.conversation_id or (held.id if held else self._own_id(user_id))
        if not self._is_there(conversation_id):
            raise AuthenticationError(TWO_WAYS_ON)

    def _place_of(self, call: CellCall, conversation: Conversation) -> Place:
        snapshot = conversation.snapshot()
        return self._matching.place_of(call, snapshot, in_batch=is_batch())

    def _held(self, user_id: str) -> Conversation | None:
        """Return the conversation that was opened before, after today's options, unless it was deleted."""
        held = self._current.get(self._place(user_id))
        if held is None or not self._is_there(held[1].id):
            return None
        manager, conversation = held
        if manager is not self.manager:  # the options changed
            conversation = self.manager.get_conversation(conversation.id)
            self._go_on_in(conversation, user_id)
        return conversation

    def _go_on_in(self, conversation: Conversation, user_id: str) -> None:
        self._current[self._place(user_id)] = (self.manager, conversation)

    def _open(self, conversation_id: str, talk: Talk) -> tuple[Conversation, str]:
        user_id = talk.user_id or self.user_id
        try:
            head = self.store.head(conversation_id)
        except ConversationNotFoundError:
            with suppress(ConversationExistsError):  # of two kernels that start it at once, one comes second
                return self._create(conversation_id, talk), self._started(conversation_id)
            head = self.store.head(conversation_id)
        if head.user_id != user_id:
            raise ConversationExistsError(f"The id {conversation_id!r} is taken by another user: choose another id.")
        opened = self.manager.get_conversation(conversation_id)
        if talk.pack or talk.prompt:
            _switch(opened, self._prompt(talk.pack, talk.prompt))
        turns = counted(head.turn_count, "turn")
        return opened, f"resumed {conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"

    def _repeatable(self, line: str, conversation: Conversation) -> str:
        """Return the line; where a program replays a recording, one that is the same in every store."""
        if not line or conversation.id in self._unnamed or not is_batch() or self._options.replay != "strict":
            return line
        return f"conversation {conversation.id!r}"

    def _is_there(self, conversation_id: str) -> bool:
        try:
            self.store.head(conversation_id)
        except ConversationNotFoundError:
            return False
        return True

    def _scratch(self, conversation: Conversation | None, talk: Talk) -> Conversation:
        """Return the conversation as this call would talk in it; where that changes or begins it, in memory only."""
        manager = ConversationManager(self.manager.provider)
        if conversation is None:
            return self._create("unbegun", talk, manager)
        if not (talk.pack or talk.prompt):
            return conversation
        manager.store.create(conversation.snapshot().state)
        changed = manager.get_conversation(conversation.id)
        _switch(changed, self._prompt(talk.pack, talk.prompt))
        return changed

    def _create(self, conversation_id: str, talk: Talk, manager: ConversationManager | None = None) -> Conversation:
        path = talk.pack or self._options.pack
        if talk.prompt and not path:
            raise _no_pack(talk.prompt)
        loaded = load_pack(path) if path else None
        name = talk.prompt or (self._options.prompt or None if path and not talk.pack else None)
        if loaded is not None:  # magics give no variables, and what cannot talk is not to be left behind
            loaded.prompt(name).render({})
        return (manager or self.manager).new_conversation(
            loaded,
            prompt_name=name,
            conversation_id=conversation_id,
            user_id=talk.user_id or self.user_id,
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


def _no_pack(prompt: str | None) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"The prompt {prompt!r} is one of which pack? Add --pack FILE, or say once: %chat_setup --pack FILE"
    )


def _switch(conversation: Conversation, prompt: Prompt) -> None:
    """Go on with this prompt; where a variable has no value, raise, and leave the conversation as it was."""
    prompt.render(conversation.variables)
    conversation.use_prompt(prompt)
