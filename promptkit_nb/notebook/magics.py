"""``%chat`` and ``%%chat``, which send messages, and ``%chat_setup``, which chooses the provider and more."""

from __future__ import annotations

from argparse import SUPPRESS
from keyword import iskeyword
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from promptkit_nb.characters import terminal_text
from promptkit_nb.errors import InvalidArgumentError, PromptKitError
from promptkit_nb.frontend import can_update
from promptkit_nb.notebook.magic_lines import (
    RETURNED,
    chat_line_magic,
    fails_in_one_line,
    filled_text,
    parse_options,
    split_options,
)

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from promptkit_nb.chat.options import CallOptions
    from promptkit_nb.notebook.session import ChatSession
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.tools.tool import Tool
    from promptkit_nb.turns import ContentPart

SETUP_OPTIONS = (
    *("provider", "model", "base_url", "timeout", "retries", "price", "header", "store", "user", "pack", "prompt"),
    *("context_tokens", "budget", "replay", "recording", "thinking"),
)


@magics_class
class ChatMagics(Magics):
    """Chat with a language model from notebook cells.

    The conversation is stored and continues after a kernel restart: ``%%chat`` sends a message, ``%chat_history`` shows
    the conversation, ``%chat_setup`` chooses the provider.
    """

    def __init__(self, session: ChatSession) -> None:
        """Bind the magics to one notebook."""
        super().__init__(session.shell)
        self.session = session
        self._put: dict[tuple[str | None, int], str] = {}  # the code put into cells, by the call that asked for it

    @no_var_expand
    @magic_arguments()
    @argument("-c", "--conversation", metavar="ID", help="Use this conversation, in this cell only.")
    @argument("-m", "--model", help="The model of this call; several, separated by commas, answer side by side.")
    @argument("-p", "--prompt", help="Use this prompt of the pack from now on.")
    @argument("--pack", metavar="FILE", help="Use this PromptPack from now on.")
    @argument("-u", "--user", help="The user that the conversation belongs to.")
    @argument("-t", "--temperature", type=float, help="How much the answers vary, from 0.")
    @argument("--context-tokens", type=int, metavar="N", help="The context window of this call: all that is sent.")
    @argument("--max-output-tokens", type=int, metavar="N", help="The longest answer.")
    @argument("--to", metavar="VARIABLE", help="Assign the response to this variable.")
    @argument("--code", action="store_true", help="Put the Python of the answer into the next cell.")
    @argument("--schema", metavar="NAME", help="What the answer must be: a model, a dict of types, labels, or a type.")
    @argument("--tools", metavar="NAMES", help="Functions that the model may call, separated by commas.")
    @argument("--dry-run", action="store_true", help="Show what would be sent and what it may cost; send nothing.")
    @argument("--fresh", action="store_true", help="Ask even if the answer is stored.")
    @argument("--raw", action="store_true", help="Send {{ expressions }} as typed.")
    @argument("-q", "--quiet", action="store_true", help="Show nothing.")
    @argument(RETURNED, action="store_true", help=SUPPRESS)
    @line_cell_magic
    @fails_in_one_line
    def chat(self, line: str, cell: str | None = None) -> object:
        """Send the text of the cell, and show the answer as it arrives.

        One line:              %chat What is the capital of France?
        A whole cell:          %%chat
                               What is the capital of France?
        A value, a DataFrame:  Which of these is the cheapest? {{ df }}
        What only reads:       What stands out? {{ df.describe() }} {{ len(df) }}
        A picture, a PDF:      What is this? {{ Path("bar.png") }} {{ figure }} {{ Path("report.pdf") }}
        Another conversation:  %%chat -c my-chat
        Another model:         %%chat -m gpt-4o
        Several, compared:     %%chat -m gpt-4o,gpt-4o-mini
        Keep the answer:       %%chat --to answer
        What would it cost?    %%chat --dry-run
        Functions to call:     %%chat --tools orders,total
        A typed answer:        %%chat --schema Review --to answer

        Running the cell again answers again in the same place; if nothing changed, the stored answer is replayed, free
        of charge (--fresh asks again). The conversation continues after a kernel restart: %chat_history shows it,
        %chat_new starts another one, %chat_setup chooses the provider. Options of %chat come first: %chat -m gpt-4o
        Why? sends "Why?", and %chat -- --words sends "--words". {{ name }} becomes the value of a variable;
        {{ df.shape }} and {{ rows[0] }} work, too. Single braces, dollar signs and backslashes are sent as typed, and
        with --raw everything is.
        """
        if cell is None:
            args, text = split_options(self.chat, line)
        else:
            args, text = parse_options(self.chat, line), cell.strip("\n")
        if not text.strip():
            raise InvalidArgumentError("Say something: %chat and a message, or %%chat and the message below it.")
        if args.to is not None and (not args.to.isidentifier() or iskeyword(args.to)):
            raise InvalidArgumentError(f"--to {args.to} is not a variable name, such as: --to answer")
        models = _names(args.model)
        args.model = None if len(models) > 1 else args.model
        text, options = self._call(text, args)
        if args.dry_run:
            return self.session.dry_run(text, options, models)
        if len(models) > 1:
            return self._compared(text, models, options, args)
        response = self.session.ask(text, options)
        if args.to is not None:
            self.session.shell.user_ns[args.to] = response
        if args.code and response is not None:
            self._put_code(response)
        return response if args.returned else None

    def _compared(self, text: str, models: Sequence[str], options: CallOptions, args: Namespace) -> object:
        """Ask several models; --to gets all responses, and --code the code of the turn."""
        answers = self.session.compare(text, models, options)
        if args.to is not None:
            self.session.shell.user_ns[args.to] = answers
        if args.code:
            self._put_code(answers.answer)
        return answers if args.returned else None

    def _call(self, text: str, args: Namespace) -> tuple[str, CallOptions]:
        """Return the message with its expressions filled in, and the options of the call."""
        from promptkit_nb.chat.options import CallOptions  # noqa: PLC0415 - imported at the first chat

        parts: tuple[ContentPart, ...] = ()
        if "{{" in text and not args.raw:
            from promptkit_nb.text.cell_text import fill  # noqa: PLC0415 - imported when used

            filled = fill(text, self._names(text))
            text, parts = filled.text, filled.parts
            for note in () if args.quiet else filled.notes:
                print(terminal_text(note))  # noqa: T201 - a notebook's status line
        options = CallOptions(
            conversation_id=args.conversation,
            user_id=args.user,
            pack=args.pack,
            prompt=args.prompt,
            quiet=args.quiet,
            model=args.model,
            parameters=None if args.temperature is None else {"temperature": args.temperature},
            max_tokens=args.context_tokens,
            max_output_tokens=args.max_output_tokens,
            fresh=args.fresh,
            parts=parts,
            tools=self._tools(args.tools),
            schema=self._schema(args.schema),
        )
        return text, options

    def _schema(self, name: str | None) -> object:
        """Return the type that the answer must have, by its name in the notebook."""
        if name is None:
            return None
        from promptkit_nb.tools.answer_types import schema_named  # noqa: PLC0415 - pydantic, imported when used

        return schema_named(name, self.session.shell.user_ns)

    def _tools(self, names: str | None) -> tuple[Callable[..., object] | Tool, ...]:
        """Return the functions of the notebook that the model may call: only those that are named."""
        if names is None:
            return ()
        from promptkit_nb.tools.toolbox import named  # noqa: PLC0415 - pydantic, imported when used

        return named(names, self.session.shell.user_ns)

    def _names(self, text: str) -> Mapping[str, object]:
        """Return the names of the notebook, and ``error`` for the last failure unless it is a variable."""
        names = self.session.shell.user_ns
        failure = self._failure() if "error" in text and "error" not in names else None
        return names if failure is None else {**names, "error": failure}

    def _failure(self) -> str | None:
        """Return the last cell that failed as text, ``None`` if none has failed in this kernel."""
        from promptkit_nb.notebook.failures import failure_text  # noqa: PLC0415 - imported when used

        failed = self.session.cell.failed
        return None if failed is None else failure_text(*failed, self.session.shell.user_ns)

    @chat_line_magic
    def chat_fix(self, line: str) -> object:
        """Ask about the last cell that failed: %chat_fix [OPTIONS] [TEXT].

        With code only:        %chat_fix --code
        With a hint:           %chat_fix the price is in cents
        What would be sent?    %chat_fix --dry-run

        The message has the cell's source, the class and the message of the exception, the lines of your own code in the
        traceback, and shapes and dtypes of the variables that the cell names; no values, and no keys. The options are
        those of %chat, and --code puts the corrected cell below. In a message of your own, {{ error }} is the failure.
        An unchanged error is answered from the store, free of charge.
        """
        from promptkit_nb.notebook.failures import FIX_REQUEST  # noqa: PLC0415 - imported when used

        args, text = split_options(self.chat, line)
        options = line[: len(line) - len(text)].strip().removesuffix("--")
        failure = self._failure()
        if failure is None:
            print("No cell has failed in this kernel, so nothing was asked.")  # noqa: T201 - a notebook's status line
            return None
        hint = text if args.raw else filled_text(text, self.session.shell.user_ns)
        return self.chat(f"{options} --raw", "\n\n".join(filter(None, [FIX_REQUEST, hint, failure])))

    def _put_code(self, response: Response) -> None:
        """Put the Python of the answer into the next cell; that of a replayed answer was put there the first time."""
        from promptkit_nb.endings import ending_words, is_whole  # noqa: PLC0415 - imported when used
        from promptkit_nb.rendering.python_blocks import python_blocks  # noqa: PLC0415 - imported when used

        code = "\n\n".join(python_blocks(response.content))
        call = response.turn.cell_id or response.turn.cell_source, response.turn.cell_call
        previous = self._put.get(call)
        if not is_whole(response.finish_reason):
            print(f"The answer is not whole ({ending_words(response.finish_reason)}): no code was taken from it.")  # noqa: T201
        elif not code:
            print("There is no Python code in the answer.")  # noqa: T201 - a notebook's status line
        elif not response.replayed and code != previous:
            self.session.shell.set_next_input(code)
            self._put[call] = code
            if previous is not None and can_update():  # no front end lets a kernel change another cell
                print("The next cell has the new code; the one below it has that of the previous answer: delete it.")  # noqa: T201

    @no_var_expand
    @magic_arguments()
    @argument(
        "--provider",
        metavar="NAME",
        help="The provider: openai (or any OpenAI-compatible server, with --base-url), ollama, lmstudio, vllm, "
        "llamacpp, openrouter, groq, gemini, azure, anthropic, or demo.",
    )
    @argument("--model", help="The model of calls that name none.")
    @argument("--base-url", help="The URL of an OpenAI-compatible server.")
    @argument("--timeout", metavar="SECONDS", help="How long to wait for data from the server; 60 by default.")
    @argument("--retries", metavar="N", help="How often to retry a request after a temporary failure; 2 by default.")
    @argument(
        "--price", metavar="IN/OUT", help="The model's price in US dollars per million tokens, such as 0.15/0.60."
    )
    @argument("--header", metavar="NAME=VALUE", action="append", help="An additional request header; may be repeated.")
    @argument("--store", help="Where conversations are stored: disk, memory, a directory, or redis://host.")
    @argument("--user", help="The user that conversations belong to.")
    @argument("--pack", metavar="FILE", help="The PromptPack whose prompt new conversations use.")
    @argument("--prompt", help="Which prompt of that pack.")
    @argument("--context-tokens", metavar="N", help="The context window of calls that name none: all that is sent.")
    @argument(
        "--budget", metavar="USD[/PER]", help="What may be spent, such as 0.50, 2/user, 5/day or 20/total; or none."
    )
    @argument("--replay", help="Stored answers: auto replays them, strict never asks, off always asks.")
    @argument("--recording", metavar="FILE", help="An exported conversation whose answers may be replayed.")
    @argument("--thinking", help="How to show the model's thinking: fold (one line), show, or hide.")
    @line_magic
    @fails_in_one_line
    def chat_setup(self, line: str) -> None:
        """Choose the provider, the store, and more; without options, show the settings.

        Without a key:         %chat_setup --provider demo
        OpenAI:                %chat_setup --model gpt-4o-mini
        A known server:        %chat_setup --provider ollama --model llama3.2
        Your own server:       %chat_setup --base-url http://localhost:9000/v1 --model my-model --price 0.15/0.60
        With limits:           %chat_setup --context-tokens 4000 --budget 5/day
        Without any request:   %chat_setup --recording chat.json --replay strict

        "" resets an option, and another --provider resets model, base URL, and headers. Keys are not options, because
        the notebook would save them: set OPENAI_API_KEY, or the variable of another provider, such as GROQ_API_KEY,
        before the kernel starts.
        """
        args = parse_options(self.chat_setup, line)
        given = {name: value for name in SETUP_OPTIONS if (value := getattr(args, name)) is not None}
        if args.header is not None:
            given["header"] = "\n".join(args.header)
        if args.provider is not None and not self._is_same_server(args.provider):
            given = {"base_url": "", "model": "", "header": ""} | given  # drop those of the previous provider
        if args.price:
            given["price"] = self._with_price(args.price, args.model)
        before = {name: getattr(self.session.options, name) for name in given}
        try:
            self._apply(given)
        except PromptKitError:
            self._set(before)
            raise
        self.session.update_panels()
        print(terminal_text(self._summary()))  # noqa: T201 - a notebook's status line

    def _apply(self, given: dict[str, str]) -> None:
        """Set the options, and use each once, so that a wrong one fails here and not at the first message."""
        self._set(given)
        if {"pack", "prompt"} & given.keys():
            self.session.settings.check_pack()
        if given:
            _ = self.session.settings.manager, self.session.settings.context_tokens, self.session.settings.thinking

    def _is_same_server(self, provider: str) -> bool:
        return (provider or "openai") == (self.session.options.provider or "openai")

    def _with_price(self, price: str, model: str | None) -> str:
        """Return the prices with one more, for the model that is set already or by this line."""
        options, name = self.session.options, price.rpartition("=")[0]
        name = name or model or options.model or self.session.settings.provider_model
        others = [line for line in (options.price or "").splitlines() if line.rpartition("=")[0] != name]
        return "\n".join([*others, f"{name}={price.rpartition('=')[2]}"])

    def _set(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            setattr(self.session.options, name, value)

    def _summary(self) -> str:
        """Return the settings on one line; a URL without its query, which may hold a key."""
        options, settings = self.session.options, self.session.settings
        values = {name: getattr(options, name) for name in SETUP_OPTIONS} | {
            "provider": settings.manager.provider.name,
            "model": options.model or settings.provider_model,
            "base_url": getattr(settings.manager.provider, "base_url", "") if options.base_url else "",
            "store": settings.store_name,
            "budget": "" if not settings.manager.budgets else options.budget,
            "replay": "" if options.replay == "auto" else options.replay,
            "price": ", ".join((options.price or "").splitlines()),
            "header": ", ".join((options.header or "").splitlines()),
            "thinking": "" if options.thinking == "fold" else options.thinking,
        }
        repair = getattr(settings.manager.provider, "repair", "")
        return " · ".join([*(f"{name} {value}" for name, value in values.items() if value), *filter(None, [repair])])


def _names(model: str | None) -> list[str]:
    """Return the names of several models, which are separated by commas; a missing one is an error."""
    names = [each.strip() for each in (model or "").split(",")]
    if len(names) > 1 and "" in names:
        raise InvalidArgumentError(f"-m {model} has a comma without a model: give two, as in -m gpt-4o,gpt-4o-mini")
    return names
