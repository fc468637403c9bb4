"""The chat of one notebook, shared by its magics: from the options of a call to the answer on the screen."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from traitlets import CUnicode
from traitlets.config import Configurable

from promptkit_nb.errors import (
    AuthenticationError,
    ConversationExistsError,
    ConversationNotFoundError,
    InvalidArgumentError,
)
from promptkit_nb.frontend import is_batch
from promptkit_nb.notebook.cells import CellMatching, RunningCell
from promptkit_nb.notebook.completion import chat_matcher
from promptkit_nb.text.plain_text import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.chat.budgets import SpentBudget
    from promptkit_nb.chat.options import CallOptions, CellCall, Target
    from promptkit_nb.chat.preview import DryRun
    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.notebook.active_conversations import ActiveConversations
    from promptkit_nb.notebook.display import AnswerDisplay
    from promptkit_nb.notebook.settings import NotebookSettings
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.rendering.comparisons import Comparison
    from promptkit_nb.rendering.conversations import HeadTable
    from promptkit_nb.rendering.found_messages import FoundMessages
    from promptkit_nb.rendering.models import ModelTable
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.state import CellAct, Summary
    from promptkit_nb.turns import Turn
    from promptkit_nb.views.usage_table import UsageTable


MAX_MARKED = 500
"""The newest outputs of a conversation that are marked if they become stale."""

D = TypeVar("D", bound="AnswerDisplay")


def _option(default: str, meaning: str) -> Any:
    """Return an option. Any value becomes text: one that traitlets rejects would break every later ``%load_ext``."""
    return CUnicode(default, allow_none=True, help=meaning).tag(config=True)


class PromptKit(Configurable):
    """Options of the chat magics; empty means the default."""

    provider = _option("", "The provider: 'openai', 'ollama', 'groq', …, or 'demo'; %chat_setup? lists them.")
    model = _option("", "The model of calls that name none; else PROMPTKIT_MODEL.")
    base_url = _option("", "The address of an OpenAI-compatible server; else OPENAI_BASE_URL.")
    timeout = _option("", "How long to wait for data from the server, in seconds; 60 by default.")
    retries = _option("", "How often to retry a request after a temporary failure; 2 by default.")
    price = _option("", "The model's price in US dollars per million tokens, as in '0.15/0.60'; or 'MODEL=0.15/0.60'.")
    header = _option("", "Additional request headers, one NAME=VALUE per line, without secrets.")
    store = _option("disk", "Where conversations are stored: 'disk', 'memory', a directory, or 'redis://host'.")
    user = _option("default", "The user that conversations belong to.")
    context_tokens = _option("", "The context window of calls that name none, in tokens: all that is sent.")
    max_tokens = _option("", "Not used: set context_tokens, which limits what is sent.")
    budget = _option("", "What may be spent, in US dollars, as in '0.50', '2/user', '5/day', '20/total'; or 'none'.")
    replay = _option("auto", "Stored answers: 'auto' replays them, 'strict' never asks, 'off' always asks.")
    recording = _option("", "An exported conversation whose answers may be replayed.")
    thinking = _option("fold", "How to show the model's thinking: 'fold' (one line), 'show', or 'hide'.")
    pack = _option("", "The PromptPack file whose prompt new conversations use.")
    prompt = _option("", "Which prompt of that pack; optional if it has only one.")


class ChatSession:
    """One notebook's chat.

    ``%chat_setup`` and ``%config`` set ``options``; ``settings`` holds what they choose. Loading the extension makes a
    session, so slow modules are imported at the first chat.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        """Read the options of IPython's configuration."""
        self.shell = shell
        self.options = PromptKit(parent=shell)
        self.cell = RunningCell(shell)
        self._matching = CellMatching()
        self._complete = chat_matcher(self)
        self._panels: WeakSet[ChatPanel] = WeakSet()
        self._shown: dict[str, dict[str, AnswerDisplay]] = {}  # the outputs of turns, by conversation

    @cached_property
    def settings(self) -> NotebookSettings:
        """Provider, store, budgets and recording, as the options name them."""
        from promptkit_nb.notebook.settings import NotebookSettings  # noqa: PLC0415 - heavy, at the first chat

        return NotebookSettings(self.options)

    @cached_property
    def conversations(self) -> ActiveConversations:
        """The active conversations of the notebook."""
        from promptkit_nb.notebook.active_conversations import ActiveConversations  # noqa: PLC0415 - as above

        return ActiveConversations(self.settings)

    def ask(self, text: str, options: CallOptions) -> Response | None:
        """Send a message, show the answer as it arrives, and return it."""
        conversation, snapshot, options, display = self._begun(text, options, self._display_kind(options))
        stream = conversation.ask(text, options, snapshot=snapshot)
        try:
            display.follow(stream, conversation.id)
        finally:
            if stream.response is not None:
                self._answered(conversation, stream.response.turn, options, display)
        return stream.response

    def compare(self, text: str, models: Sequence[str], options: CallOptions) -> Comparison:
        """Send a message to several models, show their answers side by side, and return them."""
        from promptkit_nb.errors import PromptKitError  # noqa: PLC0415 - as above
        from promptkit_nb.notebook.comparison_display import ComparisonDisplay  # noqa: PLC0415 - when models are compared

        conversation, _, options, display = self._begun(text, options, ComparisonDisplay)
        comparison = conversation.ask_models(text, models, options)

        def follow(model: str, stream: ResponseStream) -> None:
            try:
                display.compare(model, stream, conversation.id)
            except PromptKitError as error:
                display.failed(error)
                raise

        try:
            answers = comparison.answers(follow)
        finally:
            if comparison.turn is not None:
                self._answered(conversation, comparison.turn, options, display)
        display.end(answers)
        return answers

    def _begun(
        self, text: str, options: CallOptions, display_kind: type[D]
    ) -> tuple[Conversation, Snapshot, CallOptions, D]:
        """Return the conversation of a call as it is now, the options with its cell and target, and its display."""
        self.conversations.check_provider(options)
        conversation, opened = self.conversations.to_chat_in(options)
        snapshot, cell, saved = conversation.snapshot(), self.cell.next_call(), self.conversations.saved
        target = self._matching.target_of(cell, text, snapshot, in_batch=is_batch(), saved=saved)
        display = display_kind(
            quiet=options.quiet,
            is_marked=cell.cell_id is not None and self.conversations.is_own(conversation),
            turns_below=self._turns_below(cell, snapshot, target),
            thinking=self.settings.thinking,
        )
        display.note(self.conversations.repeatable(opened, conversation))
        asked_before = self.conversations.may_answer_from_another(conversation, cell)
        options = replace(
            self._with_defaults(options),
            cell=cell,
            target=target,
            asked_before=asked_before,
            on_waiting=display.waiting,
            on_tool=getattr(display, "tool", None),
        )
        return conversation, snapshot, options, display

    def _display_kind(self, options: CallOptions) -> type[AnswerDisplay]:
        """Return how an answer is shown: with a line for each tool call, if the call has tools."""
        from promptkit_nb.notebook.display import AnswerDisplay  # noqa: PLC0415 - as above

        if not options.tools:
            return AnswerDisplay
        from promptkit_nb.notebook.tool_display import ToolAnswerDisplay  # noqa: PLC0415 - when tools are used

        return ToolAnswerDisplay

    def dry_run(self, text: str, options: CallOptions, models: Sequence[str] = ()) -> DryRun:
        """Return what would be sent and what it may cost; nothing is sent, and no conversation is started.

        Of several ``models``, the request is that of the first, and the cost that of each.
        """
        user_id = options.user_id or self.settings.user_id
        stored = None
        with suppress(ConversationNotFoundError):
            stored = self.conversations.reading(options.conversation_id, user_id=user_id)
        conversation = self.conversations.scratch(stored, options)
        cell, saved = self.cell.next_call(), self.conversations.saved
        target = self._matching.target_of(cell, text, conversation.snapshot(), in_batch=is_batch(), saved=saved)
        options = replace(self._with_defaults(options), target=target)
        named = models if len(models) > 1 else [options.model]
        shown, *others = [conversation.preview(text, replace(options, model=model)) for model in named]
        if others:
            costs = [shown.cost, *(each.cost for each in others)]
            shown = replace(shown, by_model=tuple(zip(models, costs, strict=True)))
        return shown if conversation is stored else replace(shown, budgets=self.budget_lines())

    def panel(self, *, docked: bool = True, tools: str = "") -> ChatPanel:
        """Return a panel of the notebook's conversation, which is started if needed; JupyterLab docks it.

        ``tools`` are names of functions, separated by commas, that the model may call.
        """
        from promptkit_nb.chat.options import CallOptions  # noqa: PLC0415 - as above
        from promptkit_nb.notebook.display import AnswerDisplay  # noqa: PLC0415 - as above
        from promptkit_nb.notebook.panel_values import NotebookValues  # noqa: PLC0415 - as above
        from promptkit_nb.notebook.saved_notebook import Mark  # noqa: PLC0415 - as above
        from promptkit_nb.panel.widget import ChatPanel  # noqa: PLC0415 - anywidget, imported when used

        options, values = CallOptions(), NotebookValues(self.shell.user_ns, tools)
        self.conversations.check_provider(options)
        conversation, opened = self.conversations.to_chat_in(options)
        AnswerDisplay().note(opened)
        panel = ChatPanel(
            conversation, model=self.options.model or None, thinking=self.settings.thinking, docked=docked
        )
        panel.use_values(values)
        if self.conversations.is_own(conversation):
            panel.output_metadata = Mark(conversation.id).metadata
        self._panels.add(panel)
        return panel

    def update_panels(self) -> None:
        """Apply the options to open panels, except those with a conversation in another store."""
        manager = self.settings.manager if self._panels else None
        for panel in [*self._panels]:
            with suppress(ConversationNotFoundError):
                if manager is not None and panel.conversation.store is manager.store:
                    panel.follow(
                        manager.get_conversation(panel.conversation.id),
                        model=self.options.model or None,
                        thinking=self.settings.thinking,
                    )

    def budget_lines(self) -> tuple[str, ...]:
        """Return one line for each budget of the options, for the notebook's conversation."""
        return tuple(each.line for each in self._spent_budgets())

    def _spent_budgets(self) -> tuple[SpentBudget, ...]:
        from promptkit_nb.chat.budgets import Spending  # noqa: PLC0415 - as above

        spending = Spending(self.settings.store, self.settings.manager.budgets)
        conversation = self.conversations.current(self.settings.user_id)
        if conversation is None:
            return spending.spent("", self.settings.user_id)
        unpriced_turns = conversation.unpriced_turns
        return spending.spent(conversation.id, conversation.user_id, unpriced_turns=unpriced_turns)

    def usage(self, by: str) -> UsageTable:
        """Return the user's tokens and cost, grouped by these columns, with the budgets."""
        from promptkit_nb.views.usage_table import UsageTable  # noqa: PLC0415 - pandas, half a second

        usage = self.settings.manager.usage_df(by, user_id=self.settings.user_id)
        return UsageTable(usage, self._spent_budgets())

    def fork(self, new_id: str, *, user_id: str) -> str:
        """Fork the conversation and switch to the fork; if it was forked to this id before, switch to that fork.

        A conversation without a name is another one each time a notebook runs, so a fork of the same turns will do.
        """
        current, _ = self.conversations.to_act_on(user_id)
        if current is None:
            return "nothing to fork yet"
        if current.id == new_id:
            return f"this is {new_id!r} already"
        try:
            forked, line = current.fork(new_id), f"forked {current.id!r} to {new_id!r}"
        except ConversationExistsError:
            forked = current.neighbor(new_id)
            is_fork = forked.forked_from == current.id
            if not (is_fork or _begins_with(forked, current)):
                raise
            line = (
                f"resumed {new_id!r}, a fork {f'of {current.id!r}' if is_fork else 'that begins with the same turns'}"
            )
        self._matching.forked(forked.id, forked.turns)
        self.conversations.switch_to(forked, user_id)
        return self.conversations.repeatable(line, forked)

    def last_turn(self, conversation: Conversation) -> str | None:
        """Return the id of the turn that a cell of this kernel made or replayed last, or of what replaced it."""
        last = self._matching.last_turn(conversation.id)
        versions = conversation.snapshot().state.versions.items()
        return next((current for current, each in versions if last in {turn.id for turn in each}), last)

    def undo(self, conversation: Conversation) -> str:
        """Undo the newest turn, unless this kernel's last turn is not current any more; return a line that names it."""
        return self._once("undo", conversation, partial(self._undo, conversation)) or "nothing to undo"

    def truncate(self, conversation: Conversation, keep_last: int) -> int:
        """Move older turns to a branch, of those up to this kernel's last turn; return how many."""
        moved = conversation.truncate(keep_last, as_of=self.last_turn(conversation))
        self.update_stale_marks(conversation)
        return moved

    def summarize(self, conversation: Conversation, keep_last: int) -> Summary | None:
        """Summarize older turns, of those up to this kernel's last turn; ``None`` if all of them are summarized."""
        call = self.cell.next_act()
        return conversation.summarize(
            keep_last,
            model=self.options.model or None,
            as_of=self.last_turn(conversation),
            asked_before=self.options.replay == "auto"
            and self.conversations.may_answer_from_another(conversation, call),
        )

    def edit(self, conversation: Conversation, number: str, text: str) -> str:
        """Replace the answer of a turn, given by its number, and return a line that says so.

        When a notebook runs again, the number means the turn that the cell edited before, wherever that turn is now.
        """
        from promptkit_nb.notebook.cell_acts import act_of, edited_before  # noqa: PLC0415 - imported when used

        snapshot = conversation.snapshot()
        act = act_of(f"edit {number}", self.cell.next_act(), self.last_turn(conversation))
        before = edited_before(act, snapshot.state, self.conversations.saved) if self._repeats(act) else None
        turn = _position(number, len(snapshot.state.turns)) if before is None else before
        if not text.strip():
            raise InvalidArgumentError(f"Write the answer below the line: %%chat_edit {number}")
        edited = conversation.edit_reply(turn, text)
        if edited.id != before and self._repeats(act):
            conversation.record_act(replace(act, turn=edited.id))
        self.update_stale_marks(conversation)
        return f"turn {number} has this answer{_where(edited.id, conversation.snapshot(), int(number))}"

    def _once(self, what: str, conversation: Conversation, change: Callable[[CellAct], CellAct | None]) -> str | None:
        """Make a change and return a line about it; a change of an earlier run that is still in effect is only named.

        ``change`` returns what it did, or ``None`` if there was nothing to do.
        """
        from promptkit_nb.notebook.cell_acts import act_of, is_reversed, made_before  # noqa: PLC0415 - when used

        act = act_of(what, self.cell.next_act(), self.last_turn(conversation))
        passed, state = self._matching.passed(conversation.id), conversation.snapshot().state
        made = made_before(act, state, self.conversations.saved, passed) if self._repeats(act) else None
        if made is not None and not is_reversed(made, state):
            self._matching.repeated(conversation.id, made)
            return f"already done: {made.line}"
        done = change(act)
        self.update_stale_marks(conversation)
        if done is None:
            return None
        done = replace(done, next_reached=self._matching.last_turn(conversation.id) or "")
        if self._repeats(act) and done != made:
            conversation.record_act(done)
        passed.add(done)
        return done.line

    def _repeats(self, act: CellAct) -> bool:
        """Return whether the cell may run again in another kernel; what is typed in a terminal does not."""
        return bool(act.cell_id) or is_batch()

    def _undo(self, conversation: Conversation, act: CellAct) -> CellAct | None:
        if not conversation.undo(as_of=self.last_turn(conversation)):
            return None
        state = conversation.snapshot().state
        self._matching.undone(conversation.id, state.turns)
        branch = state.branches[-1]
        turn = branch.turns[-1]
        undone = f"turn {len(state.turns) + 1}, {preview(turn.user_text)!r}"
        return replace(act, line=f"undid {undone} (%chat_restore {branch.id} brings it back)", turn=turn.id)

    def restore(self, conversation: Conversation, name: str) -> str:
        """Restore a branch, a version, or the answer of a model; return a line that says what was done."""
        from promptkit_nb.notebook.picked_answers import answer_by  # noqa: PLC0415 - imported when used

        restored = self._once(f"restore {name}", conversation, partial(self._restore_branch, conversation, name))
        if restored is not None:
            return restored
        as_of, state = self.last_turn(conversation), conversation.snapshot().state
        answer = answer_by(name, state, as_of=as_of)
        if answer in state.turns:
            return f"nothing to restore: turn {state.turns.index(answer) + 1} has the answer of {name!r} already"
        if any(answer in branch.turns for branch in state.branches):
            return f"nothing to restore: the turn has the answer of {name!r} already"
        conversation.restore(answer or name)
        self.update_stale_marks(conversation)
        return f"restored {name!r}"

    def _restore_branch(self, conversation: Conversation, name: str, act: CellAct) -> CellAct | None:
        branches = conversation.snapshot().state.branches
        branch = next((each for each in branches if each.id == name and each.turns), None)
        if branch is None:
            return None
        conversation.restore(name)
        return replace(act, line=f"restored {name!r}", turn=branch.turns[0].id)

    def delete(self, name: str, *, user_id: str) -> str | None:
        """Delete the user's conversation with this id or title permanently; return its id, ``None`` without one."""
        head = self.conversations.named(name, user_id=user_id, or_title=not is_batch())
        if head is None:
            return None
        with suppress(ConversationNotFoundError):  # another kernel deleted it just now
            self.settings.manager.for_user(user_id).delete_conversation(head.conversation_id)
        return head.conversation_id

    def models(self, containing: str | None = None) -> ModelTable:
        """Return the models that the provider offers or, if the server does not list any, the chosen one."""
        from promptkit_nb.notebook.settings import TWO_WAYS_ON  # noqa: PLC0415 - as above
        from promptkit_nb.pricing import usd_per_million  # noqa: PLC0415 - as above
        from promptkit_nb.providers.base import offered_models  # noqa: PLC0415 - as above
        from promptkit_nb.rendering.models import ModelRow, ModelTable  # noqa: PLC0415 - as above
        from promptkit_nb.turns import utc_now  # noqa: PLC0415 - as above

        provider = self.settings.manager.provider
        names = offered_models(provider)
        if not names and not hasattr(provider, "models"):
            raise AuthenticationError(TWO_WAYS_ON)
        shown = [name for name in names if containing is None or containing.casefold() in name.casefold()]
        return ModelTable(ModelRow(name, *usd_per_million(provider, name, utc_now())) for name in shown)

    def listed(self, prefix: str | None, *, imported: bool = False) -> HeadTable:
        """Return the user's newest conversations with ids that begin with the prefix, optionally with imported ones."""
        from promptkit_nb.notebook.titles import shown_titles  # noqa: PLC0415 - as above

        listed = self.settings.manager.newest_conversations(prefix, user_id=self.settings.user_id, imported=imported)
        return listed.titled(shown_titles(self.settings.store, listed))

    def found(self, text: str) -> FoundMessages:
        """Return the messages of the user's conversations that contain all words of the text, newest first."""
        from promptkit_nb.rendering.found_messages import MAX_SHOWN, FoundMessage, FoundMessages  # noqa: PLC0415 - as above
        from promptkit_nb.views.messages import search, words_in  # noqa: PLC0415 - pandas, half a second

        rows = search(self.settings.store, text, user_id=self.settings.user_id).sort_values(
            "created_at", ascending=False, kind="stable"
        )
        shown = dict.fromkeys(rows["conversation_id"].head(MAX_SHOWN))
        titles = {each: self.settings.manager.get_conversation(each).title for each in shown}
        columns = ("conversation_id", "position", "role", "snippet", "created_at")
        messages = (
            FoundMessage(each, titles.get(each, each), int(position) + 1, str(role), snippet, created_at)
            for each, position, role, snippet, created_at in zip(*(rows[name] for name in columns), strict=True)
        )
        return FoundMessages(messages, words=words_in(text))

    def has_kept_usage(self) -> bool:
        """Return whether the user paid for turns that are not stored any more."""
        read = getattr(self.settings.store, "kept_usage", None)
        return read is not None and bool(read(user_id=self.settings.user_id))

    def watch(self) -> None:
        """Start watching the cells and completing the lines of chat magics."""
        self.cell.watch()
        if self.shell.Completer is not None:
            self.shell.Completer.custom_matchers.append(self._complete)

    def stop(self) -> None:
        """Stop watching, and close the stores, which are opened again when they are needed."""
        self.cell.stop()
        if self.shell.Completer is not None and self._complete in self.shell.Completer.custom_matchers:
            self.shell.Completer.custom_matchers.remove(self._complete)
        if "settings" in vars(self):
            self.settings.close()

    def update_stale_marks(self, conversation: Conversation) -> None:
        """Mark the answers of this kernel that are stale, and unmark those that are not any more."""
        shown = self._shown.get(conversation.id)
        if shown:
            stale = conversation.snapshot().stale
            for turn_id, display in shown.items():
                display.mark_stale(is_stale=turn_id in stale)

    def _answered(self, conversation: Conversation, turn: Turn, options: CallOptions, display: AnswerDisplay) -> None:
        """Remember the turn of a call, its output, and the version of the notebook's file at that time."""
        cell, target = options.cell, options.target
        if cell is not None:
            saved = None if cell.cell_id is None else self.conversations.saved()
            self._matching.answered(conversation.id, turn, cell, None if saved is None else saved.version)
        shown = self._shown.setdefault(conversation.id, {})
        if target.in_place_of is not None:
            shown.pop(target.in_place_of.id, None)  # its output was in this cell
        shown[turn.id] = display
        if len(shown) > MAX_MARKED:
            del shown[next(iter(shown))]
        if target.in_place_of is not None or target.branch_from is not None:
            self.update_stale_marks(conversation)

    def _turns_below(self, cell: CellCall, snapshot: Snapshot, target: Target) -> int:
        """Return how many turns come before this one although their cells are below its cell."""
        from promptkit_nb.notebook.cell_turns import turns_below  # noqa: PLC0415 - as above

        if cell.cell_id is None:
            return 0
        before = snapshot.state.turns[: snapshot.target_position(target)]
        return turns_below(cell, before, self.conversations.saved())

    def _with_defaults(self, options: CallOptions) -> CallOptions:
        """Return the options with the notebook's model and context window, if the call names none."""
        return replace(
            options,
            model=options.model or self.options.model or None,
            max_tokens=self.settings.context_tokens if options.max_tokens is None else options.max_tokens,
        )


def _position(number: str, turn_count: int) -> int:
    """Return the position of the turn with this number; raise ``InvalidArgumentError`` if there is none."""
    if number.isdecimal() and 1 <= int(number) <= turn_count:
        return int(number) - 1
    numbers = f"give 1 to {turn_count}, as %chat_tree shows them" if turn_count else "there is none yet"
    raise InvalidArgumentError(f"{number!r} is not the number of a turn: {numbers}.")


def _where(turn_id: str, snapshot: Snapshot, number: int) -> str:
    """Return what to say about an edited turn: its number or branch, if that is another one, and its versions."""
    position = snapshot.current_position(turn_id)
    branch = next((each.id for each in snapshot.state.branches if turn_id in {turn.id for turn in each.turns}), None)
    where = f" (now on the branch {branch!r})" if branch else ""
    if position is not None and position + 1 != number:
        where = f" (now turn {position + 1})"
    has_versions = bool(snapshot.state.versions.get(turn_id))
    return f"{where}; the previous one is a version (%chat_tree)" if has_versions else where


def _begins_with(forked: Conversation, original: Conversation) -> bool:
    """Return whether a conversation is a fork that inherited exactly the turns that the original has."""
    fork, state = forked.snapshot().state, original.snapshot().state
    inherited = [(turn.user_text, turn.text) for turn in fork.turns if turn.inherited]
    own = [(turn.user_text, turn.text) for turn in state.turns]
    return forked.forked_from is not None and (fork.system_prompt, inherited) == (state.system_prompt, own)
