"""The magics that talk: ``%%chat``, and ``%chat_setup``, which chooses who answers."""

from __future__ import annotations

from keyword import iskeyword
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from promptkit_nb.errors import InvalidArgumentError, PromptKitError
from promptkit_nb.notebook.magic_lines import fails_in_one_line, options_in

if TYPE_CHECKING:
    from argparse import Namespace

    from promptkit_nb.notebook.extension import Notebook
    from promptkit_nb.rendering.responses import Response

SETUP_OPTIONS = (
    *("provider", "model", "base_url", "store", "user", "pack", "prompt"),
    *("max_tokens", "budget", "replay", "recording"),
)


@magics_class
class ChatMagics(Magics):
    """Talk to a language model from notebook cells.

    The conversation is kept in a store and goes on after the kernel was restarted: ``%%chat`` says something,
    ``%chat_history`` shows what was said, ``%chat_setup`` chooses who answers.
    """

    def __init__(self, notebook: Notebook) -> None:
        """Talk for one notebook."""
        super().__init__(notebook.shell)
        self.notebook = notebook

    @no_var_expand
    @magic_arguments()
    @argument("-c", "--conversation", metavar="ID", help="Talk in this conversation, in this cell only.")
    @argument("-m", "--model", help="The model of this call.")
    @argument("-p", "--prompt", help="Use this prompt of the pack from now on.")
    @argument("--pack", metavar="FILE", help="Use this PromptPack from now on.")
    @argument("-u", "--user", help="Whose conversation it is.")
    @argument("-t", "--temperature", type=float, help="How freely the model answers, from 0.")
    @argument("--max-tokens", type=int, metavar="N", help="The context window of this call: all that is sent.")
    @argument("--max-output-tokens", type=int, metavar="N", help="The most the answer may have.")
    @argument("--to", metavar="VARIABLE", help="Put the response into this variable.")
    @argument("--code", action="store_true", help="Put the code of the answer into the next cell.")
    @argument("--dry-run", action="store_true", help="Show what would be sent and what it may cost; send nothing.")
    @argument("--fresh", action="store_true", help="Ask, even where the answer is stored.")
    @argument("--raw", action="store_true", help="Leave {{ expressions }} as they are typed.")
    @argument("-q", "--quiet", action="store_true", help="Show nothing.")
    @line_cell_magic
    @fails_in_one_line
    def chat(self, line: str, cell: str | None = None) -> object:
        """Say what stands below in the cell, and show the answer as it comes.

        One line:              %chat What is the capital of France?
        A whole cell:          %%chat
                               What is the capital of France?
        A value, a DataFrame:  Which of these is the cheapest? {{ df }}
        Another conversation:  %%chat -c my-chat
        Another model:         %%chat -m gpt-4o
        Keep the answer:       %%chat --to answer
        What would it cost?    %%chat --dry-run

        Running the cell again answers again in the same place; where nothing changed, the stored answer is given, free
        of charge (--fresh asks anew). The conversation goes on after the kernel was restarted: %chat_history shows it,
        %chat_new starts another one, %chat_setup chooses who answers. The options are for %%chat only: all of a %chat
        line is said. {{ name }} becomes the value of a variable, {{ df.shape }} and {{ rows[0] }} work, too; single
        braces, dollar signs and backslashes reach the model as you typed them, and with --raw everything does.
        """
        options = options_in(self.chat, "" if cell is None else line)
        text = line if cell is None else cell.strip("\n")
        if not text.strip():
            raise InvalidArgumentError("Say something: %chat and a message, or %%chat and the message below it.")
        if options.to is not None and (not options.to.isidentifier() or iskeyword(options.to)):
            raise InvalidArgumentError(f"--to {options.to} is no name of a variable, such as: --to answer")
        return self._said(text, options)

    def _said(self, text: str, options: Namespace) -> object:
        from promptkit_nb.notebook.cell_text import CellText, fill  # noqa: PLC0415 - at the first chat, as the session
        from promptkit_nb.notebook.talk import Talk  # noqa: PLC0415 - as above

        said = CellText(text) if options.raw else fill(text, self.notebook.shell.user_ns)
        talk = Talk(
            conversation_id=options.conversation,
            user_id=options.user,
            model=options.model,
            pack=options.pack,
            prompt=options.prompt,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
            max_output_tokens=options.max_output_tokens,
            fresh=options.fresh,
            quiet=options.quiet,
        )
        if options.dry_run:
            return self.notebook.session.dry_run(said.text, self.notebook.cell.next_call, talk, said.parts)
        response = self.notebook.session.answer(said.text, self.notebook.cell.next_call, talk, said.parts)
        if options.to is not None:
            self.notebook.shell.user_ns[options.to] = response
        if options.code and response is not None:
            self._put_code(response)
        return None

    def _put_code(self, response: Response) -> None:
        """Put the answer's code into the next cell; a replayed answer's was put there when it came first."""
        from promptkit_nb.rendering.markdown import code_blocks  # noqa: PLC0415 - as above

        code = "\n\n".join(code_blocks(response.content))
        if not code:
            print("There is no code block in the answer.")  # noqa: T201 - a notebook's status line
        elif not response.replayed:
            self.notebook.shell.set_next_input(code)

    @no_var_expand
    @magic_arguments()
    @argument("--provider", help="Who answers: openai (any OpenAI-compatible server) or demo.")
    @argument("--model", help="The model of calls that name none.")
    @argument("--base-url", help="The address of an OpenAI-compatible server.")
    @argument("--store", help="Where conversations are kept: disk, memory, a directory, or redis://host.")
    @argument("--user", help="Whose conversations these are.")
    @argument("--pack", metavar="FILE", help="The PromptPack whose prompt new conversations use.")
    @argument("--prompt", help="Which prompt of that pack.")
    @argument("--max-tokens", metavar="N", help="The context window of calls that name none: all that is sent.")
    @argument("--budget", metavar="USD[/PER]", help="What may be spent, as in 0.50, 2/user, 5/day or 20/total.")
    @argument("--replay", help="Stored answers: auto gives them again, strict asks nothing, off always asks.")
    @argument("--recording", metavar="FILE", help="An exported conversation whose answers may be given again.")
    @line_magic
    @fails_in_one_line
    def chat_setup(self, line: str) -> None:
        """Choose who answers, where conversations are kept, and more; without options, show what is chosen.

        Without a key:         %chat_setup --provider demo
        OpenAI:                %chat_setup --model gpt-4o-mini
        A server of your own:  %chat_setup --base-url http://localhost:11434/v1 --model llama3.2
        Not more than that:    %chat_setup --max-tokens 4000 --budget 5/day
        Without any request:   %chat_setup --recording chat.json --replay strict

        "" takes a choice back. A key is never given here, where it would be saved with the notebook: set
        OPENAI_API_KEY before the kernel starts.
        """
        given = options_in(self.chat_setup, line)
        chosen = {name: getattr(given, name) for name in SETUP_OPTIONS if getattr(given, name) is not None}
        before = {name: getattr(self.notebook.options, name) for name in chosen}
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
            self.notebook.session.chosen.check_pack()
        if chosen:
            _ = self.notebook.session.chosen.manager, self.notebook.session.chosen.max_tokens

    def _set(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            setattr(self.notebook.options, name, value)

    def _chosen(self) -> str:
        """Return what is in use, on one line; an address without its query, where some servers want a key."""
        options, used = self.notebook.options, self.notebook.session.chosen
        chosen = {name: getattr(options, name) for name in SETUP_OPTIONS} | {
            "provider": used.manager.provider.name,
            "model": options.model or used.provider_model,
            "base_url": (options.base_url or "").partition("?")[0],
            "store": used.store_name,
            "replay": "" if options.replay == "auto" else options.replay,
        }
        return " · ".join(f"{name} {value}" for name, value in chosen.items() if value)
