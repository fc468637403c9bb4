"""The active conversations of a notebook: opened, started, and kept from cell to cell."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.options import CallOptions
from promptkit_nb.errors import AuthenticationError, ConversationExistsError, ConversationNotFoundError
from promptkit_nb.frontend import cell_code, cell_id, is_batch
from promptkit_nb.ids import is_same_id, new_conversation_id
from promptkit_nb.manager import ConversationManager
from promptkit_nb.notebook.batch_runs import RUNNING, BatchRuns
from promptkit_nb.notebook.cells import without_keys
from promptkit_nb.notebook.notebook_file import NotebookFile, notebook_name, read_saved
from promptkit_nb.notebook.own_conversation import Found, RunningNotebook, find_conversation, own_ids, previous_name
from promptkit_nb.notebook.settings import TWO_WAYS_ON, NotebookSettings, UnchosenProvider, pack_needed
from promptkit_nb.notebook.stored_notebooks import StoredNotebooks
from promptkit_nb.packs.pack import load_pack
from promptkit_nb.state import NotebookNote
from promptkit_nb.text.near_names import is_mistyped
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import total_text
from promptkit_nb.turns import utc_now

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CellCall
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.notebook.saved_notebook import SavedNotebook
    from promptkit_nb.state import Head


class ActiveConversations:
    """One active conversation for each store and user: the notebook's own until another one is chosen."""

    def __init__(self, settings: NotebookSettings) -> None:
        """Start without a conversation."""
        self._settings = settings
        self._file = NotebookFile()
        self._active: dict[tuple[str, str], tuple[ConversationManager, Conversation]] = {}  # by store and user
        self._own: dict[tuple[str, str], str] = {}  # the ids of those that no magic chose
        self._unnamed: set[str] = set()
        self._begun_without_id: set[str] = set()  # by %chat_new
        self._batch_runs = BatchRuns()

    def use(self, name: str, *, user_id: str) -> str:
        """Switch to the conversation with this id or title, or create it; return a line that says which it was."""
        head = self.named(name, user_id=user_id, or_title=not is_batch())
        near = None if head is not None or is_batch() else self._near(name, user_id)
        opened, line = self._open(head, name, CallOptions(user_id=user_id))
        self.switch_to(opened, user_id)
        if near:
            line += f" (there is {near!r}, too; %chat_use {near} resumes it)"
        return self.repeatable(line, opened)

    def named(self, name: str, *, user_id: str, or_title: bool = True) -> Head | None:
        """Return the user's conversation with this id, or else with this title; ``None`` if there is none.

        Raises ``InvalidArgumentError`` if several have the title. In a batch run, what is created or deleted does not
        depend on other titles in the store: such magics give ``or_title=False`` then.
        """
        store = self._settings.store
        with suppress(ConversationNotFoundError):
            head = store.head(name)
            if is_same_id(user_id, head.user_id):
                return head
        if not or_title:
            return None
        from promptkit_nb.notebook.titles import id_of  # noqa: PLC0415 - only if the id does not exist

        titled = id_of(store, user_id, name)
        return None if titled is None else store.head(titled)

    def _near(self, name: str, user_id: str) -> str | None:
        """Return an id or a title that the user may have meant instead of this one, which does not exist.

        Raises ``ConversationNotFoundError`` if this one is probably a typing error.
        """
        from promptkit_nb.notebook.titles import near_names  # noqa: PLC0415 - as above

        near = near_names(self._settings.store, user_id, name)
        mistyped = next((each for each in near if is_mistyped(name, each)), None)
        if mistyped is not None:
            raise ConversationNotFoundError(
                f"There is no conversation {name!r}, but there is {mistyped!r}: %chat_use {mistyped} "
                f"resumes that one, %chat_new {name} starts another one."
            )
        return near[0] if near else None

    def new(self, conversation_id: str | None, *, user_id: str) -> str:
        """Switch to a new conversation; return a line that says so. An id that exists is refused."""
        new_id = conversation_id or new_conversation_id(utc_now())
        try:
            created = self._create(new_id, CallOptions(user_id=user_id))
        except ConversationExistsError as error:
            if not self._exists(new_id, user_id):
                raise _taken(new_id) from error
            raise ConversationExistsError(
                f"The conversation {new_id!r} exists already: choose another id, or continue it with %chat_use {new_id}"
            ) from error
        if not conversation_id:
            self._note_without_id(created.id, user_id)
        self.switch_to(created, user_id)
        return "started a new conversation" if is_batch() and not conversation_id else f"started {created.id!r}"

    def _note_without_id(self, conversation_id: str, user_id: str) -> None:
        """Let answers of a conversation without a name be replayed in the next one: Run All begins it each time.

        Its note has no path and no kernel, so that no notebook finds it as its own.
        """
        self._begun_without_id.add(conversation_id)
        store = self._settings.store
        if is_batch():
            self._batch_runs.begin(conversation_id, store, user_id)
        note = replace(self._file.note, kernel=RUNNING) if is_batch() else NotebookNote()
        store.set_notebook(conversation_id, note)

    def current(self, user_id: str) -> Conversation | None:
        """Return the active conversation to read, ``None`` if there is none yet; in a copy, that of the original."""
        active = self._opened_before(user_id)
        if active is not None:
            return active
        found = self._find(user_id)
        return None if found is None else self._settings.manager.get_conversation(found.state.conversation_id)

    def to_act_on(self, user_id: str) -> tuple[Conversation | None, str]:
        """Return the active conversation to change, ``None`` if there is none yet, and a line as in ``to_chat_in``."""
        active = self._opened_before(user_id)
        found = self._find(user_id) if active is None else None
        return (active, "") if found is None else self._go_on(found, CallOptions(user_id=user_id))

    def reading(self, name: str | None, *, user_id: str) -> Conversation | None:
        """Return the conversation with this id or title; without a name the active one, ``None`` if there is none."""
        if name is None:
            return self.current(user_id)
        head = self.named(name, user_id=user_id)
        return self._settings.manager.for_user(user_id).get_conversation(name if head is None else head.conversation_id)

    def to_chat_in(self, options: CallOptions) -> tuple[Conversation, str]:
        """Return the conversation of a call and, if it was just opened or started, a line that says so.

        Without an id it is the active conversation, at first the notebook's own.
        """
        user_id = options.user_id or self._settings.user_id
        name = options.conversation_id
        if name is not None:
            return self._open(self.named(name, user_id=user_id, or_title=not is_batch()), name, options)
        active = self._opened_before(user_id)
        if active is None:
            return self._first(options, user_id)
        self._use_prompt(active, options)
        return active, ""

    def check_provider(self, options: CallOptions) -> None:
        """Raise ``AuthenticationError`` if neither a provider, a recording nor a stored turn could answer."""
        if not isinstance(self._settings.manager.provider, UnchosenProvider) or self._settings.options.recording:
            return
        user_id = options.user_id or self._settings.user_id
        if options.conversation_id is None:
            exists = self._opened_before(user_id) is not None or self._find(user_id) is not None
        else:
            exists = self.named(options.conversation_id, user_id=user_id) is not None
        if not exists:
            raise AuthenticationError(TWO_WAYS_ON)

    def switch_to(self, conversation: Conversation, user_id: str) -> None:
        """Make this the active conversation."""
        self._active[self._key(user_id)] = (self._settings.manager, conversation)

    def is_own(self, conversation: Conversation) -> bool:
        """Return whether this is the conversation of the notebook or batch run itself, not one chosen by a magic."""
        return self._own.get(self._key(conversation.user_id)) == conversation.id

    def saved(self) -> SavedNotebook | None:
        """Return what the notebook's file shows, ``None`` if it cannot be read."""
        return self._file.saved()

    def may_answer_from_another(self, conversation: Conversation, call: CellCall) -> bool:
        """Return whether a stored answer of another notebook to the same request may be used.

        A conversation that was chosen by its name never uses one. In a front end, the saved file must contain the cell:
        new cells are always sent.
        """
        if not (self.is_own(conversation) or conversation.id in self._begun_without_id):
            return False
        if call.cell_id is None:
            return is_batch()
        file = self.saved()
        return file is not None and file.has_running(call.cell_id, call.cell_source)

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
        self._use_prompt(changed, options)
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

    def _first(self, options: CallOptions, user_id: str) -> tuple[Conversation, str]:
        """Return the conversation of this kernel's first call, and a line that names it."""
        deleted = self._active.get(self._key(user_id))  # possibly by another kernel
        if deleted is not None:
            head = self.named(deleted[1].id, user_id=user_id, or_title=False)
            opened, line = self._open(head, deleted[1].id, options)
            if self.is_own(opened):
                opened.store.set_notebook(opened.id, self._file.note)
            self.switch_to(opened, user_id)
            return opened, line
        found = self._find(user_id)
        if found is not None:
            opened, line = self._go_on(found, options)
            self._use_prompt(opened, options)
            return opened, line
        name = notebook_name()
        return self._start_unnamed(options, user_id) if name is None else self._start(name, options, user_id)

    def _find(self, user_id: str) -> Found | None:
        """Return the conversation that belongs to this notebook, ``None`` if it has none yet."""
        if is_batch():
            return None
        note = self._file.note
        running = RunningNotebook(note=note, cell_id=cell_id(), cell_source=without_keys(cell_code() or ""))
        known = StoredNotebooks(self._settings.store, user_id, note, notebook_name())
        return find_conversation(running, known, self._file.saved, read_saved)

    def _go_on(self, found: Found, options: CallOptions) -> tuple[Conversation, str]:
        """Continue the found conversation or, in a copy, a fork of it, and record the notebook."""
        user_id, note = options.user_id or self._settings.user_id, self._file.note
        opened = self._settings.manager.get_conversation(found.state.conversation_id)
        if found.is_copy:
            fork = self._fork_for(opened, user_id)
            line = f"started {fork.id!r} as a copy of {opened.id!r}, because this notebook is a copy"
            return self._made_own(fork, user_id), line
        head = opened.store.head(opened.id)
        if head.notebook != note:
            opened.store.set_notebook(opened.id, note)
        return self._made_own(opened, user_id), _resumed(head) + previous_name(head.notebook, note)

    def _fork_for(self, original: Conversation, user_id: str) -> Conversation:
        """Fork the conversation of the notebook from which this one was copied."""
        for own_id in own_ids(user_id, notebook_name() or original.id):
            with suppress(ConversationExistsError):
                fork = original.fork(own_id)
                fork.store.set_notebook(fork.id, self._file.note)
                return fork
        raise AssertionError  # own_ids never ends

    def _start(self, name: str, options: CallOptions, user_id: str) -> tuple[Conversation, str]:
        """Start the conversation of this notebook, with the first id that is not in use."""
        others: list[str] = []
        for own_id in own_ids(user_id, name):
            try:
                created = self._create(own_id, options)
            except ConversationExistsError:
                found = self._find(user_id)  # another kernel may have started it just now
                if found is not None:
                    return self._go_on(found, options)
                others.append(own_id)
                continue
            created.store.set_notebook(own_id, self._file.note)
            line = self._started(own_id)
            if others:
                line += f" ({others[-1]!r} belongs to another notebook that had this name; %chat_use continues it)"
            return self._made_own(created, user_id), line
        raise AssertionError  # own_ids never ends

    def _start_unnamed(self, options: CallOptions, user_id: str) -> tuple[Conversation, str]:
        """Start the conversation of a notebook without a name, or of a batch run."""
        store, note = self._settings.store, self._file.note
        fresh_id = new_conversation_id(utc_now())
        self._unnamed.add(fresh_id)
        if is_batch():
            self._batch_runs.begin(fresh_id, store, user_id)
        created = self._create(fresh_id, options)
        if is_batch():
            store.set_notebook(fresh_id, replace(note, kernel=RUNNING))
        elif note.kernel:
            store.set_notebook(fresh_id, note)
        return self._made_own(created, user_id), self._started(fresh_id)

    def _made_own(self, conversation: Conversation, user_id: str) -> Conversation:
        """Make this the active conversation, as the notebook's own."""
        self._own[self._key(user_id)] = conversation.id
        self.switch_to(conversation, user_id)
        return conversation

    def _open(self, head: Head | None, name: str, options: CallOptions) -> tuple[Conversation, str]:
        """Return the conversation that was found by a name, or create one with this id, and a line that says which."""
        if head is None:
            with suppress(ConversationExistsError):  # another kernel may start it at the same time
                return self._create(name, options), self._started(name)
            head = self._settings.store.head(name)
        if not is_same_id(options.user_id or self._settings.user_id, head.user_id):
            raise _taken(name)
        opened = self._settings.manager.get_conversation(head.conversation_id)
        self._use_prompt(opened, options)
        return opened, _resumed(head)

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
            return is_same_id(user_id, self._settings.store.head(conversation_id).user_id)
        except ConversationNotFoundError:
            return False

    def _started(self, conversation_id: str) -> str:
        if conversation_id not in self._unnamed:
            return f"started {conversation_id!r}"
        if is_batch():
            return "started a new conversation (the notebook's name is unknown in a batch run)"
        return f"started {conversation_id!r} (the notebook's name is unknown here; %chat_use resumes one by its id)"

    def _use_prompt(self, conversation: Conversation, options: CallOptions) -> None:
        """Switch to the prompt of a call, if it has one; if a variable has no value, raise and change nothing."""
        if options.pack or options.prompt:
            prompt = self._settings.prompt(options.pack, options.prompt)
            prompt.render(conversation.variables)
            conversation.use_prompt(prompt)

    def _key(self, user_id: str) -> tuple[str, str]:
        return self._settings.options.store or "disk", user_id


def _taken(conversation_id: str) -> ConversationExistsError:
    return ConversationExistsError(f"The id {conversation_id!r} is taken by another user: choose another id.")


def _resumed(head: Head) -> str:
    turns = counted(head.turn_count, "turn")
    return f"resumed {head.conversation_id!r}, {turns}, {total_text(head.total_cost, head.unpriced_turns)}"
