"""The chat magics: each parses its line, calls the session, and shows what came of it."""

from __future__ import annotations

from functools import cached_property, wraps
from keyword import iskeyword
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from promptkit_nb.errors import InvalidArgumentError, PromptKitError
from promptkit_nb.magic_line import id_in, options_in
from promptkit_nb.options import PromptKit
from promptkit_nb.plain_text import one_line
from promptkit_nb.running_cell import RunningCell
from promptkit_nb.stopping import StoppedByUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.head_table import HeadTable
    from promptkit_nb.history import History
    from promptkit_nb.notebook_session import NotebookSession

P = ParamSpec("P")
R = TypeVar("R")

SETUP_OPTIONS = ("provider", "model", "base_url", "store", "user", "pack", "prompt")


def fails_in_one_line(magic: Callable[P, R]) -> Callable[P, R]:
    """Make our errors fail the cell with one line that says what to do, instead of a page of traceback."""

    @wraps(magic)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return magic(*args, **kwargs)
        except PromptKitError as error:
            line = one_line(f"{type(error).__name__}: {error}")
            error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt as stop:
            raise stop if isinstance(stop, StoppedByUser) else StoppedByUser("Stopped.") from None

    return run


@magics_class
class ChatMagics(Magics):
    """Talk to a language model from notebook cells.

    The conversation is kept in a store and goes on after the kernel was restarted: ``%%chat`` says something,
    ``%chat_history`` shows what was said, ``%chat_setup`` chooses who answers.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        """Begin with the options of IPython's configuration."""
        super().__init__(shell)
        self._shell = shell
        self.options = PromptKit(parent=shell)
        self.cell = RunningCell(shell)

    @cached_property
    def session(self) -> NotebookSession:
        """The session, imported and made at the first chat, so that loading the extension takes no time."""
        from promptkit_nb.notebook_session import NotebookSession  # noqa: PLC0415 - a tenth of a second

        return NotebookSession(self.options)

    def stop(self) -> None:
        """Let go of the store and of the shell."""
        self.cell.stop()
        if "session" in vars(self):
            self.session.close()

    @no_var_expand
    @magic_arguments()
    @argument("-c", "--conversation", metavar="ID", help="Talk in this conversation, in this cell only.")
    @argument("-m", "--model", help="The model of this call.")
    @argument("-p", "--prompt", help="Use this prompt of the pack from now on.")
    @argument("--pack", metavar="FILE", help="Use this PromptPack from now on.")
    @argument("-u", "--user", help="Whose conversation it is.")
    @argument("--to", metavar="VARIABLE", help="Put the response into this variable.")
    @argument("-q", "--quiet", action="store_true", help="Show nothing.")
    @line_cell_magic
    @fails_in_one_line
    def chat(self, line: str, cell: str | None = None) -> None:
        """Say what stands below in the cell, and show the answer as it comes.

        One line:              %chat What is the capital of France?
        A whole cell:          %%chat
                               What is the capital of France?
        Another conversation:  %%chat -c my-chat
        Another model:         %%chat -m gpt-4o
        Keep the answer:       %%chat --to answer

        The notebook's conversation goes on after the kernel was restarted: %chat_history shows it, %chat_new starts
        another one, %chat_setup chooses who answers. The options are for %%chat only: all of a %chat line is said.
        Braces, dollar signs and backslashes reach the model as you typed them.
        """
        options = options_in(self.chat, "" if cell is None else line)
        text = line if cell is None else cell.strip("\n")
        if not text.strip():
            raise InvalidArgumentError("Say something: %chat and a message, or %%chat and the message below it.")
        if options.to is not None and (not options.to.isidentifier() or iskeyword(options.to)):
            raise InvalidArgumentError(f"--to {options.to} is no name of a variable, such as: --to answer")
        response = self.session.answer(
            text,
            self.cell.next_call,
            conversation_id=options.conversation,
            model=options.model,
            prompt=options.prompt,
            pack=options.pack,
            user_id=options.user,
            quiet=options.quiet,
        )
        if options.to is not None:
            self._shell.user_ns[options.to] = response

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_new(self, line: str) -> None:
        """Start a new conversation and go on in it: %chat_new [ID]. An id that exists is refused."""
        print(self.session.new(id_in(line), user_id=self.session.user_id))  # noqa: T201 - a notebook's status line

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_use(self, line: str) -> None:
        """Go on in this conversation, which is created if it is not there: %chat_use ID."""
        conversation_id = id_in(line)
        if conversation_id is None:
            raise InvalidArgumentError("Which conversation? As in: %chat_use my-chat (%chat_list shows what is there).")
        print(self.session.use(conversation_id, user_id=self.session.user_id))  # noqa: T201 - a notebook's status line

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_list(self, line: str) -> HeadTable:
        """List the conversations whose id begins with a text, newest first: %chat_list [PREFIX]."""
        return self.session.listed(id_in(line))

    @no_var_expand
    @line_magic
    @fails_in_one_line
    def chat_history(self, line: str) -> History | None:
        """Show what was said in a conversation, without an id in this one: %chat_history [ID]."""
        history = self.session.history(id_in(line), user_id=self.session.user_id)
        if history is None:
            print("Nothing was said yet: begin with %%chat.")  # noqa: T201 - a notebook's status line
        return history

    @no_var_expand
    @magic_arguments()
    @argument("--provider", help="Who answers: openai (any OpenAI-compatible server) or demo.")
    @argument("--model", help="The model of calls that name none.")
    @argument("--base-url", help="The address of an OpenAI-compatible server.")
    @argument("--store", help="Where conversations are kept: disk, memory, a directory, or redis://host.")
    @argument("--user", help="Whose conversations these are.")
    @argument("--pack", metavar="FILE", help="The PromptPack whose prompt new conversations use.")
    @argument("--prompt", help="Which prompt of that pack.")
    @line_magic
    @fails_in_one_line
    def chat_setup(self, line: str) -> None:
        """Choose who answers, where conversations are kept, and more; without options, show what is chosen.

        Without a key:         %chat_setup --provider demo
        OpenAI:                %chat_setup --model gpt-4o-mini
        A server of your own:  %chat_setup --base-url http://localhost:11434/v1 --model llama3.2

        A key is never given here, where it would be saved with the notebook: set OPENAI_API_KEY before the kernel
        starts.
        """
        given = options_in(self.chat_setup, line)
        chosen = {name: getattr(given, name) for name in SETUP_OPTIONS if getattr(given, name) is not None}
        before = {name: getattr(self.options, name) for name in chosen}
        try:
            self._choose(chosen)
        except PromptKitError:
            self._set(before)
            raise
        print(self._chosen())  # noqa: T201 - a notebook's status line

    def _choose(self, chosen: dict[str, str]) -> None:
        """Set the options, and use each once, so that a wrong one fails here and not at the first message."""
        self._set(chosen)
        if {"pack", "prompt"} & chosen.keys():
            self.session.check_pack()
        if chosen:
            _ = self.session.manager

    def _set(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            setattr(self.options, name, value)

    def _chosen(self) -> str:
        """Return what is in use, on one line; an address without its query, where some servers want a key."""
        provider = self.session.manager.provider
        chosen = {name: getattr(self.options, name) for name in SETUP_OPTIONS} | {
            "provider": provider.name,
            "model": self.options.model or provider.model,
            "base_url": (self.options.base_url or "").partition("?")[0],
            "store": self.session.store_name,
        }
        return " · ".join(f"{name} {value}" for name, value in chosen.items() if value)
