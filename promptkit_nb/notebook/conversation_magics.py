"""The magics that open, show and change conversations. With nothing to do, they say so and change nothing."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from promptkit_nb.characters import terminal_text
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.frontend import is_batch
from promptkit_nb.notebook.magic_lines import (
    HelpAsked,
    chat_line_magic,
    fails_in_one_line,
    filled_text,
    options_and_name,
    parse_id,
    parse_options,
    unquoted,
)
from promptkit_nb.text.plain_text import counted, one_line

if TYPE_CHECKING:
    from promptkit_nb.chat.preview import Context
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.imports.report import ImportReport
    from promptkit_nb.notebook.session import ChatSession
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.rendering.conversations import BranchTree, HeadTable
    from promptkit_nb.rendering.found_messages import FoundMessages
    from promptkit_nb.rendering.history import History
    from promptkit_nb.rendering.models import ModelTable
    from promptkit_nb.views.usage_table import UsageTable


@magics_class
class ConversationMagics(Magics):
    """Open, show and change the notebook's conversations."""

    def __init__(self, session: ChatSession) -> None:
        """Bind the magics to one notebook."""
        super().__init__(session.shell)
        self._session = session

    @property
    def _user_id(self) -> str:
        return self._session.settings.user_id

    def _active(self) -> Conversation | None:
        """Return the notebook's active conversation to change, or ``None`` before its first message."""
        conversation, opened = self._session.conversations.to_act_on(self._user_id)
        if opened:
            _print_status(opened)
        return conversation

    def _active_or_note(self, name: str | None = None) -> Conversation | None:
        """Return the conversation with this id or title, or the active one; print a note if there is none yet."""
        conversation = self._session.conversations.reading(name, user_id=self._user_id)
        if conversation is None:
            _print_status("No messages yet. Start with %%chat.")
        return conversation

    def _id(self, line: str) -> str | None:
        return parse_id(line, self._session.shell.user_ns)

    def _required_id(self, line: str, what: str, example: str) -> str:
        return _required(self._id(line), what, example)

    def _name(self, line: str) -> str | None:
        """Return the id or title on a line. A title is a question that may have braces or dollar signs."""
        try:
            return self._id(line)
        except InvalidArgumentError:
            typed = unquoted(line)
            if self._session.conversations.named(typed, user_id=self._user_id) is None:
                raise
            return typed

    def _required_name(self, line: str, example: str) -> str:
        return _required(self._name(line), "conversation id or title", f"{example} (%chat_list shows them)")

    @chat_line_magic
    def chat_new(self, line: str) -> None:
        """Start a new conversation: %chat_new [ID]. The ID must not exist yet."""
        _print_status(self._session.conversations.new(self._id(line), user_id=self._user_id))

    @chat_line_magic
    def chat_use(self, line: str) -> None:
        """Switch to a conversation, by its id or its title, or create it: %chat_use ID."""
        name = self._required_name(line, "%chat_use my-chat")
        _print_status(self._session.conversations.use(name, user_id=self._user_id))

    @magic_arguments()
    @argument("prefix", nargs="?", metavar="PREFIX", help="List only ids that begin with this.")
    @argument("--all", action="store_true", help="Include conversations imported from other tools.")
    @chat_line_magic
    def chat_list(self, line: str) -> HeadTable:
        """List your conversations, newest first: %chat_list [PREFIX] [--all].

        With a PREFIX, only ids that begin with it. --all includes conversations imported with %chat_import.
        """
        options = parse_options(self.chat_list, line)
        return self._session.listed(options.prefix, imported=options.all)

    @chat_line_magic
    def chat_rows(self, line: str) -> HeadTable:
        """List your runs over the rows of DataFrames, newest first, with their answers and cost: %chat_rows.

        The answers of df.promptkit.ask(…, name="labels") are in rows:labels; %chat_delete rows:labels deletes them.
        """
        _check_no_arguments("chat_rows", line)
        return self._session.listed("rows:")

    @magic_arguments()
    @argument("source", metavar="SOURCE", help="A directory, a file, or the redis:// URL of a PromptKit service.")
    @argument("--kind", metavar="KIND", help="Read only conversations of promptkit, claude-code, codex, or llm.")
    @argument("--prefix", metavar="PREFIX", help="The prefix of PromptKit's keys in Redis; default: promptkit.")
    @argument("--id-prefix", metavar="TEXT", help="Text to add in front of the conversation ids.")
    @argument("--since", metavar="DATE", help="Only conversations last active on or after this date.")
    @argument("--tool-output", metavar="HOW", default="cut", help="How to treat tool output: cut, keep, or drop it.")
    @argument("--dry-run", action="store_true", help="Only report what would be done.")
    @chat_line_magic
    def chat_import(self, line: str) -> ImportReport:
        """Import another tool's conversations, such as %chat_import ~/.claude/projects, and report the outcome.

        The source is only read. Running it again adds new turns and conversations; %chat_list --all lists them.
        """
        from promptkit_nb.imports.chats import import_chats  # noqa: PLC0415 - only for imports

        options = parse_options(self.chat_import, line)
        settings = self._session.settings
        report = import_chats(
            options.source,
            settings.store,
            kind=options.kind,
            user_id=self._user_id,
            prefix=options.prefix,
            id_prefix=options.id_prefix,
            since=options.since,
            tool_output=options.tool_output,
            dry_run=options.dry_run,
        )
        if report.created and not report.dry_run:
            who = self._user_id
            _print_status(f"%chat_list --all lists those of {who}, conversations_df(store) those of all users")
        return report

    @magic_arguments()
    @argument("--versions", action="store_true", help="Show previous versions of the answers, too.")
    @chat_line_magic
    def chat_history(self, line: str) -> History | None:
        """Show the messages of a conversation, by its id or its title: %chat_history [ID].

        --versions adds previous answers of turns that were run again; %chat_restore brings one back.
        """
        options, name = options_and_name(self.chat_history, line)
        conversation = self._active_or_note(self._name(name))
        return None if conversation is None else conversation.history(versions=options.versions)

    @chat_line_magic
    def chat_context(self, line: str) -> Context | None:
        """Show what the next request sends, with token counts, and what it leaves out: %chat_context."""
        _check_no_arguments("chat_context", line)
        conversation = self._active_or_note()
        if conversation is None:
            return None
        settings = self._session.settings
        return conversation.context(model=settings.options.model or None, max_tokens=settings.context_tokens)

    @magic_arguments()
    @argument("--by", metavar="COLUMNS", help="Columns to group by, such as user_id; default: day,model.")
    @chat_line_magic
    def chat_usage(self, line: str) -> UsageTable:
        """Show the tokens and cost of all your conversations as a DataFrame: %chat_usage [--by day,model].

        The budgets are listed above it. In batch runs the default is --by model, which gives the same output every day.
        """
        options = parse_options(self.chat_usage, line)
        by = options.by or ("model" if is_batch() else "day,model")
        if not options.by and self._session.has_kept_usage():
            by += ",status"  # separate rows for turns that are not stored any more
        return self._session.usage(by)

    @chat_line_magic
    def chat_models(self, line: str) -> ModelTable:
        """List the models that the server offers, with prices if known: %chat_models [TEXT].

        With a TEXT, only names that contain it. %chat_setup --model NAME chooses one.
        """
        return self._session.models(self._id(line))

    @magic_arguments()
    @argument("--here", action="store_true", help="Show the panel in the cell's output.")
    @argument("--tools", metavar="NAMES", default="", help="Functions that the model may call, separated by commas.")
    @chat_line_magic
    def chat_panel(self, line: str) -> ChatPanel:
        """Open a chat panel with the active conversation: %chat_panel [--here] [--tools NAMES].

        In JupyterLab it opens as a tab beside the notebook, and "Bring it back" returns it to its cell. Other front
        ends, and --here, show it in the output. Functions named by --tools run in the notebook's main thread, as they
        are defined when they are called.
        """
        options = parse_options(self.chat_panel, line)
        return self._session.panel(docked=not options.here, tools=options.tools)

    @magic_arguments()
    @argument("--unknown", metavar="NAME", help=SUPPRESS)
    @chat_line_magic
    def chat_help(self, line: str) -> None:
        """Show what to type, on one screen: %chat_help."""
        from promptkit_nb.notebook.cheat_sheet import sheet_of, unknown_magic  # noqa: PLC0415 - imported when used

        unknown = parse_options(self.chat_help, line).unknown
        magics = self._session.shell.magics_manager.magics
        known = {name for kind in magics.values() for name in kind if name.startswith("chat")}
        if unknown is not None:
            raise InvalidArgumentError(unknown_magic(unknown, known))
        print(sheet_of(known))  # noqa: T201 - output of a magic

    @chat_line_magic
    def chat_fork(self, line: str) -> None:
        """Copy the conversation and switch to the copy: %chat_fork NEW_ID. If the copy exists, only switch to it."""
        new_id = self._required_id(line, "conversation id", "%chat_fork another-try")
        _print_status(self._session.fork(new_id, user_id=self._user_id))

    @chat_line_magic
    def chat_tree(self, line: str) -> BranchTree | None:
        """Show the conversation's branches and previous versions as a tree: %chat_tree."""
        _check_no_arguments("chat_tree", line)
        conversation = self._active_or_note()
        return None if conversation is None else conversation.tree()

    @chat_line_magic
    def chat_undo(self, line: str) -> None:
        """Undo the last turn: %chat_undo. The turn becomes a branch; %chat_restore undone-1 brings it back."""
        _check_no_arguments("chat_undo", line)
        conversation = self._active()
        _print_status("nothing to undo" if conversation is None else self._session.undo(conversation))

    @chat_line_magic
    def chat_restore(self, line: str) -> None:
        """Restore a branch or a version of a turn: %chat_restore ID (%chat_tree and %chat_history --versions show ids).

        %chat_restore MODEL restores the answer of this model in the newest turn that has one, as after %%chat -m
        gpt-4o,gpt-4o-mini. If that is the current answer, nothing is changed.
        """
        restored = self._required_id(line, "branch or version", "%chat_restore undone-1 (%chat_tree shows the ids)")
        conversation = self._active()
        if conversation is None:
            raise InvalidArgumentError(f"Cannot restore {restored!r}: the conversation has no messages yet.")
        _print_status(self._session.restore(conversation, restored))

    @chat_line_magic
    def chat_search(self, line: str) -> FoundMessages:
        """Show where something was said in your conversations, newest first: %chat_search TEXT.

        A message has to contain all words; "words in quotes" have to occur exactly as given.
        """
        text = self._text(line)
        if not text:
            raise InvalidArgumentError("Give the words to look for, for example: %chat_search invoice")
        return self._session.found(text)

    @chat_line_magic
    def chat_title(self, line: str) -> None:
        """Give the conversation a title: %chat_title TEXT. Without TEXT, show its title.

        Until then, it is the notebook's name or the first question.
        """
        title = self._text(line)
        conversation = self._active() if title else self._active_or_note()
        if conversation is None:
            if title:
                raise InvalidArgumentError(f"Cannot set the title {title!r}: the conversation has no messages yet.")
            return
        if title and conversation.metadata.get("title") != title:
            own_store = conversation.store.for_user(conversation.user_id)  # another user may have the id now
            own_store.update_metadata(conversation.id, title=title)
        _print_status(f"title {conversation.title!r}")

    def _text(self, line: str) -> str:
        """Return the text of a line, with its expressions filled in."""
        if line.strip() == "--help":
            raise HelpAsked
        return filled_text(line.strip(), self._session.shell.user_ns) if "{{" in line else line.strip()

    @no_var_expand
    @line_cell_magic
    @fails_in_one_line
    def chat_edit(self, line: str, cell: str | None = None) -> None:
        """Replace the answer of turn N by the text below: %%chat_edit N (%chat_tree shows the numbers).

        Nothing is sent. The model's answer stays as a version, which %chat_restore brings back; later turns become
        stale until their cells are run again.
        """
        number = self._id(line) or ""
        conversation = self._active()
        if conversation is None:
            raise InvalidArgumentError(f"{number!r} is not the number of a turn: there is none yet.")
        _print_status(self._session.edit(conversation, number, (cell or "").strip("\n")))

    @magic_arguments()
    @argument(
        "--keep-last", type=int, default=10, metavar="N", help="How many of the newest messages to leave as they are."
    )
    @chat_line_magic
    def chat_summarize(self, line: str) -> None:
        """Let the model summarize older turns: %chat_summarize [--keep-last 10].

        Later requests send the summary instead of these turns. The turns stay in the history.
        """
        options = parse_options(self.chat_summarize, line)
        conversation = self._active()
        summary = None if conversation is None else self._session.summarize(conversation, options.keep_last)
        if summary is None:
            _print_status("nothing to summarize")
            return
        _print_status(f"summarized{'' if summary.counts else ' before, at no cost'}: {one_line(summary.text)}")

    @magic_arguments()
    @argument("--keep-last", type=int, default=20, metavar="N", help="How many of the newest messages to keep.")
    @chat_line_magic
    def chat_truncate(self, line: str) -> None:
        """Move older turns to a branch: %chat_truncate [--keep-last 20]."""
        options = parse_options(self.chat_truncate, line)
        conversation = self._active()
        moved = 0 if conversation is None else self._session.truncate(conversation, options.keep_last)
        _print_status(f"moved {counted(moved, 'turn')} to a branch" if moved else "nothing to move")

    @chat_line_magic
    def chat_export(self, line: str) -> None:
        """Export the conversation: %chat_export chat.json. The suffix may be .json, .md or .html.

        A JSON file can be replayed: %chat_setup --recording chat.json --replay strict.
        """
        path = self._required_id(line, "file name", "%chat_export chat.json (or .md, .html)")
        conversation = self._active()
        if conversation is None:
            _print_status("nothing to export yet")
            return
        conversation.export(path)
        _print_status(f"wrote {path}")

    @chat_line_magic
    def chat_delete(self, line: str) -> None:
        """Delete a conversation permanently, by its id or its title: %chat_delete ID."""
        name = self._required_name(line, "%chat_delete old-chat")
        deleted = self._session.delete(name, user_id=self._user_id)
        _print_status(f"there is no conversation {name!r}" if deleted is None else f"deleted {deleted!r}")


def _required(found: str | None, what: str, example: str) -> str:
    if found is None:
        raise InvalidArgumentError(f"Give a {what}, for example: {example}.")
    return found


def _print_status(line: str) -> None:
    print(terminal_text(line))  # noqa: T201 - a notebook's status line


def _check_no_arguments(name: str, line: str) -> None:
    if line.strip() == "--help":
        raise HelpAsked
    if line.strip():
        raise InvalidArgumentError(f"%{name} takes no arguments (got {line.strip()!r}).")
