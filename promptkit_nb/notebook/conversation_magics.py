"""The magics that open, show and change conversations; each does nothing where there is nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import is_batch
from promptkit_nb.notebook.magic_lines import fails_in_one_line, id_in, options_in
from promptkit_nb.text.plain_text import counted, one_line

if TYPE_CHECKING:
    from promptkit_nb.chat.preview import Context
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.notebook.extension import Notebook
    from promptkit_nb.notebook.session import ChatSession
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.rendering.conversations import BranchTree, HeadTable, History

_NOTHING_SAID = "Nothing was said yet: begin with %%chat."


@magics_class
class ConversationMagics(Magics):
    """Open, show and change the notebook's conversations."""

    def __init__(self, notebook: Notebook) -> None:
        """Work for one notebook."""
        super().__init__(notebook.shell)
        self._notebook = notebook

    @property
    def _session(self) -> ChatSession:
        return self._notebook.session

    def _current(self) -> Conversation | None:
        """Return the conversation that the notebook is in, ``None`` where nothing was said in it yet."""
        return self._session.conversations.current(self._session.chosen.user_id)

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_new(self, line: str) -> None:
        """Start a new conversation and go on in it: %chat_new [ID]. An id that exists is refused."""
        _tell(self._session.conversations.new(id_in(line), user_id=self._session.chosen.user_id))

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_use(self, line: str) -> None:
        """Go on in this conversation, which is created if it is not there: %chat_use ID."""
        conversation_id = _needed_id(line, "%chat_use my-chat (%chat_list shows what is there)")
        _tell(self._session.conversations.use(conversation_id, user_id=self._session.chosen.user_id))

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_list(self, line: str) -> HeadTable:
        """List the conversations whose id begins with a text, newest first: %chat_list [PREFIX]."""
        return self._session.listed(id_in(line))

    @no_var_expand
    @magic_arguments()
    @argument("conversation", nargs="?", metavar="ID", help="Whose history; without one this conversation's.")
    @argument("--versions", action="store_true", help="Show former versions of the answers, too.")
    @line_magic
    @fails_in_one_line
    def chat_history(self, line: str) -> History | None:
        """Show what was said in a conversation, without an id in this one: %chat_history [ID].

        With --versions also the former answers of turns that were answered again; %chat_restore brings one back.
        """
        options = options_in(self.chat_history, line)
        conversation = self._session.conversations.reading(options.conversation, user_id=self._session.chosen.user_id)
        if conversation is None:
            _tell(_NOTHING_SAID)
            return None
        return conversation.history(versions=options.versions)

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_context(self, line: str) -> Context | None:
        """Show exactly what the next request carries, with its tokens, and what is left out: %chat_context."""
        _take_nothing("chat_context", line)
        conversation = self._current()
        if conversation is None:
            _tell(_NOTHING_SAID)
            return None
        chosen = self._session.chosen
        return conversation.context(model=chosen.options.model or None, max_tokens=chosen.max_tokens)

    @no_var_expand
    @magic_arguments()
    @argument("--by", metavar="COLUMNS", help="What to sum by, such as user_id; without it day,model.")
    @line_magic
    @fails_in_one_line
    def chat_usage(self, line: str) -> object:
        """Show tokens and cost of all your conversations as a DataFrame: %chat_usage [--by day,model].

        Above it stands what was spent of each budget. Where a program runs the notebook, days are only there with --by.
        """
        options = options_in(self.chat_usage, line)
        for budget in self._session.budget_lines():
            _tell(budget)
        chosen = self._session.chosen
        usual = "model" if is_batch() else "day,model"
        return chosen.manager.usage_df(options.by or usual, user_id=chosen.user_id)

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_panel(self, line: str) -> ChatPanel:
        """Open the chat panel, to talk in beside the notebook: %chat_panel. It begins in this conversation."""
        _take_nothing("chat_panel", line)
        return self._session.panel()

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_fork(self, line: str) -> None:
        """Copy the conversation and go on in the copy: %chat_fork NEW_ID. Where it was copied before, go on there."""
        new_id = _needed_id(line, "%chat_fork another-try")
        _tell(self._session.fork(new_id, user_id=self._session.chosen.user_id))

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_tree(self, line: str) -> BranchTree | None:
        """Show the conversation with its branches and former versions as a small tree: %chat_tree."""
        _take_nothing("chat_tree", line)
        conversation = self._current()
        if conversation is None:
            _tell(_NOTHING_SAID)
            return None
        return conversation.tree()

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_undo(self, line: str) -> None:
        """Take the last turn back: %chat_undo. It becomes a branch, which %chat_restore undone-1 brings back."""
        _take_nothing("chat_undo", line)
        conversation = self._current()
        left = 0 if conversation is None else self._session.undo(conversation)
        _tell("took the last turn back" if left else "nothing to take back")

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_restore(self, line: str) -> None:
        """Bring back a branch, or a former version of a turn: %chat_restore ID (%chat_tree shows the ids)."""
        wanted = _needed_id(line, "%chat_restore undone-1 (%chat_tree shows them)", "branch or version")
        conversation = self._current()
        if conversation is None:
            raise InvalidArgumentError(f"There is nothing to restore {wanted!r} in: nothing was said yet.")
        conversation.restore(wanted)
        _tell(f"restored {wanted!r}")

    @no_var_expand
    @magic_arguments()
    @argument("--keep-last", type=int, default=10, metavar="N", help="How many messages stay as they are.")
    @line_magic
    @fails_in_one_line
    def chat_summarize(self, line: str) -> None:
        """Let the model sum up the older turns, for the requests from now on: %chat_summarize [--keep-last 10].

        The turns stay in the history.
        """
        options = options_in(self.chat_summarize, line)
        conversation = self._current()
        summary = None
        if conversation is not None:
            as_of = self._session.last_turn(conversation)
            summary = conversation.summarize(
                keep_last=options.keep_last, model=self._notebook.options.model or None, as_of=as_of
            )
        _tell("nothing to sum up" if summary is None else f"summed up: {one_line(summary.text)}")

    @no_var_expand
    @magic_arguments()
    @argument("--keep-last", type=int, default=20, metavar="N", help="How many messages stay.")
    @line_magic
    @fails_in_one_line
    def chat_truncate(self, line: str) -> None:
        """Let the older turns leave the conversation: %chat_truncate [--keep-last 20]. They become a branch."""
        options = options_in(self.chat_truncate, line)
        conversation = self._current()
        left = 0
        if conversation is not None:
            left = conversation.truncate(keep_last=options.keep_last, as_of=self._session.last_turn(conversation))
        _tell(f"{counted(left, 'turn')} left the conversation" if left else "nothing to leave out")

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_export(self, line: str) -> None:
        """Write the conversation to a file: %chat_export chat.json, or .md or .html to read.

        The JSON file is a recording, too: %chat_setup --recording chat.json --replay strict.
        """
        path = _needed_id(line, "%chat_export chat.json (or .md, or .html)", "file")
        conversation = self._current()
        if conversation is None:
            _tell("nothing to write yet")
            return
        conversation.export(path)
        _tell(f"wrote {path}")

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_delete(self, line: str) -> None:
        """Delete a conversation for good: %chat_delete ID."""
        conversation_id = _needed_id(line, "%chat_delete old-chat (%chat_list shows what is there)")
        deleted = self._session.delete(conversation_id, user_id=self._session.chosen.user_id)
        _tell(f"deleted {conversation_id!r}" if deleted else f"there is no {conversation_id!r}")


def _tell(line: str) -> None:
    print(line)  # noqa: T201 - a notebook's status line


def _needed_id(line: str, example: str, what: str = "conversation") -> str:
    found = id_in(line)
    if found is None:
        raise InvalidArgumentError(f"Which {what}? As in: {example}.")
    return found


def _take_nothing(name: str, line: str) -> None:
    if line.strip():
        raise InvalidArgumentError(f"%{name} takes nothing, and {line.strip()!r} stands behind it.")
