"""The lines of magics: input transformation, option parsing, and one-line errors."""

from __future__ import annotations

import re
import tokenize
from functools import wraps
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd, MagicAssign
from IPython.core.magic import line_magic, no_var_expand

from promptkit_nb.errors import InvalidArgumentError, PromptKitError
from promptkit_nb.frontend import TYPED_IN, running_shell
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import one_line

if TYPE_CHECKING:
    from argparse import Action, Namespace
    from collections.abc import Callable, Mapping
    from typing import Self

RETURNED = "--returned"
"""The option of ``%chat`` that returns the response; it is put where a line is assigned to a variable."""

_VALUE_PATTERN = r"\"[^\"]*\"(?!\S)|'[^']*'(?!\S)|(?:\{\{.*?\}\}|\S)+"
_WORD = re.compile(
    rf"\s*(?:(?P<name>--[A-Za-z][^\s=]*|-[A-Za-z](?![^\s=]))(?:=(?P<assigned>{_VALUE_PATTERN}|))?(?!\S)"
    rf"|(?P<value>{_VALUE_PATTERN}))"
)
_VALUE = re.compile(rf"\s+({_VALUE_PATTERN})")
_OTHER_EXPANSION = re.compile(r"\{(?P<braced>[A-Za-z_][^{}]*)\}|\$\{?(?P<dollar>[A-Za-z_]\w*)")
_ANY_CHAT_CELL = re.compile(r"%%(chat\w*)")
_CHAT_CELL = re.compile(r"%%(?P<name>chat|chat_edit)(?: (?P<options>.*))?\s*")


def chat_cell(lines: list[str]) -> list[str]:
    r"""Turn a ``%%chat`` or ``%%chat_edit`` cell into a magic call with its body as typed; leave other cells alone.

    Otherwise, IPython would remove prompts such as ``>>>`` and the whitespace of blank lines from the body.

    >>> chat_cell(["%%chat -q\n", ">>> 1 + 1\n"])
    ["get_ipython().run_cell_magic('chat', '-q', '>>> 1 + 1\\n')\n"]
    """
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    match = _CHAT_CELL.fullmatch(lines[first]) if lines else None
    if match is None:
        mistyped = _ANY_CHAT_CELL.match(lines[first]) if lines else None
        if mistyped is not None and is_mistyped_magic(mistyped[1]):
            return [f"%chat_help --unknown {mistyped[1]}\n"]
        return lines
    options, body = (match["options"] or "").strip(), "".join(lines[first + 1 :]) or "\n"  # IPython refuses ""
    return [f"get_ipython().run_cell_magic({match['name']!r}, {options!r}, {body!r})\n"]


chat_cell.has_side_effects = True  # type: ignore[attr-defined]  # makes a terminal wait for the end of the cell


class ChatLine(EscapedCommand):
    """Makes ``%chat Why?`` a message although IPython reads a final ``?`` as a request for help; ``%chat?`` is one.

    Other chat magics take titles, which are often questions.
    """

    priority = HelpEnd.priority - 1

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Self | None:
        """Return the first line with a chat magic and a text, or ``None``."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in {tokenize.INDENT, tokenize.DEDENT}]
            if _is_chat_magic(tokens) and any(token.string.strip("? \n") for token in tokens[2:]):
                return cls(tokens[0].start)
        return None


class AssignedChat(MagicAssign):
    """Makes ``r = %chat Why?`` a message as well, whose response is the value of ``r``."""

    priority = HelpEnd.priority - 1
    _column = 0

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Self | None:
        """Return the first assignment of a ``%chat`` line, or ``None``."""
        for line in tokens_by_line:
            sign = next((at for at, token in enumerate(line) if token.string == "="), len(line))
            tokens = line[sign + 1 :]
            if _is_chat_magic(tokens) and tokens[1].string == "chat":
                found = cls((tokens[0].start[0], 0))  # the beginning of the line, to come before the help
                found._column = tokens[0].start[1]
                return found
        return None

    def transform(self, lines: list[str]) -> list[str]:
        """Replace the line by a call that returns the response."""
        line, column = self.start_line, self._column
        self.start_col = column
        asking = lines[line][column:].replace("%chat", f"%chat {RETURNED}", 1)
        changed = [*lines[:line], lines[line][:column] + asking, *lines[line + 1 :]]
        return cast("list[str]", super().transform(changed))  # IPython's has no types


class MistypedChat(EscapedCommand):
    """Makes a line such as ``%chat_hist`` an error that names the near magic."""

    priority = EscapedCommand.priority - 1

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Self | None:
        """Return the first line with a magic whose name begins with ``chat`` and is unknown, or ``None``."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in {tokenize.INDENT, tokenize.DEDENT}][:2]
            names = [token.string for token in tokens]
            if names[:1] == ["%"] and tokens[0].end == tokens[1].start and is_mistyped_magic(names[1]):
                return cls(tokens[0].start)
        return None

    def transform(self, lines: list[str]) -> list[str]:
        """Replace the line by one that raises the error."""
        at, line = self.start_line, lines[self.start_line]
        name = line[self.start_col + 1 :].split()[0]
        return [*lines[:at], f"{line[: self.start_col]}%chat_help --unknown {name}\n", *lines[at + 1 :]]


def is_mistyped_magic(name: str) -> bool:
    """Return whether a name begins like those of the chat magics, but no magic has it."""
    shell = running_shell()
    if shell is None or not name.startswith("chat") or not name.isidentifier():
        return False
    magics = shell.magics_manager.magics
    return name not in magics["line"] and name not in magics["cell"]


def _is_chat_magic(tokens: list[tokenize.TokenInfo]) -> bool:
    """Return whether a line begins with one of the chat magics."""
    names = [token.string for token in tokens[:2]]
    is_magic = names[:1] == ["%"] and tokens[0].end == tokens[1].start
    return is_magic and names[1].startswith("chat") and not is_mistyped_magic(names[1])


P = ParamSpec("P")
R = TypeVar("R")


class HelpAsked(Exception):  # noqa: N818 - no error: the line has --help
    """The line asks for help instead of running the magic."""


def fails_in_one_line(magic: Callable[P, R]) -> Callable[P, R]:
    """Decorate a magic to show this package's errors as one line instead of a traceback, and its help for --help."""

    @wraps(magic)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        before = TYPED_IN.set("cell")
        try:
            return magic(*args, **kwargs)
        except PromptKitError as error:
            line = one_line(f"{type(error).__name__}: {error}")
            error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
            raise
        except HelpAsked:
            print(cleandoc(run.__doc__ or "").removeprefix("::\n\n"))  # noqa: T201 - output of a magic
            return cast("R", None)
        except KeyboardInterrupt as stop:
            from promptkit_nb.notebook.display import StoppedByUser  # noqa: PLC0415 - not for %load_ext

            raise stop if isinstance(stop, StoppedByUser) else StoppedByUser("Stopped.") from None
        finally:
            TYPED_IN.reset(before)

    return run


def chat_line_magic(method: Callable[P, R]) -> Callable[P, R]:
    """Register a method as a line magic whose line is not expanded and whose errors are one line."""
    return cast("Callable[P, R]", no_var_expand(line_magic(fails_in_one_line(method))))


def parse_options(magic: Any, line: str) -> Namespace:
    """Parse a line of options, whose values may be in quotes and may have ``{{ expressions }}``.

    Errors name an unknown option without its value, which may be a key.
    """
    return split_options(magic, line, has_text=False)[0]


def split_options(magic: Any, line: str, *, has_text: bool = True) -> tuple[Namespace, str]:
    """Parse the options at the beginning of a line; return them and the text after them, as typed.

    Text begins at the first word that is not an option: ``-x`` that is none, a dash before a blank or a digit. ``--``
    ends the options. An unknown ``--word`` is an error. If a line has no text, other words are arguments.
    """
    actions = _actions(magic)
    namespace = magic.__self__.shell.user_ns
    arguments: list[str] = []
    words: list[str] = []
    at = 0
    while (word := _WORD.match(line, at)) is not None:
        name = word["name"] or ""
        action = actions.get(name)
        if name == "--help":
            raise HelpAsked
        if action is not None:
            value, at = _value_of(action, word, actions)
            filled_in = None if value is None else _value(value, magic, namespace)
            arguments.append(action.option_strings[-1] + ("" if filled_in is None else f"={filled_in}"))
            continue
        if name.startswith("--") or (name and not has_text):
            raise InvalidArgumentError(_unknown_word(magic, name))
        if word["value"] == "--" or not has_text:
            at = word.end()
        if has_text:
            break
        if word["value"] != "--":
            words.append(_value(word["value"], magic, namespace))
    return _parsed(magic, [*arguments, "--", *words]), line[at:].lstrip() if at else line


def options_and_name(magic: Any, line: str) -> tuple[Namespace, str]:
    """Parse the options at the beginning and at the end of a line; return them and the id or title, as typed.

    Options with a value have to come first.
    """
    flags = {name for name, action in _actions(magic).items() if action.nargs == 0}
    name, blank, last = line.strip().rpartition(" ")
    while blank and last in flags:
        line = f"{last} {name}"
        name, blank, last = name.strip().rpartition(" ")
    return split_options(magic, line)


def _actions(magic: Any) -> dict[str, Action]:
    """Return what the options of a magic do, by name."""
    return {name: action for action in magic.parser._actions for name in action.option_strings}  # noqa: SLF001 - argparse has no public way to list them


def _value_of(action: Action, word: re.Match[str], options: Mapping[str, object]) -> tuple[str | None, int]:
    """Return the value of an option as typed, after an equals sign or a blank, and where the rest begins."""
    if action.nargs == 0 or word["assigned"] is not None:
        return word["assigned"], word.end()
    value = _VALUE.match(word.string, word.end())
    if value is None or value[1].partition("=")[0] in options:
        return None, word.end()
    return value[1], value.end()


def _parsed(magic: Any, arguments: list[str]) -> Namespace:
    options: Namespace
    try:
        options, unknown = magic.parser.parse_known_args(arguments)
    except UsageError as error:
        raise InvalidArgumentError(f"{error}. %{magic.__name__}? lists the options.") from error
    unknown = [word for word in unknown if word != "--"]
    if unknown:
        raise InvalidArgumentError(_unknown_word(magic, unknown[0]))
    return options


def _value(typed: str, magic: Any, namespace: Mapping[str, object]) -> str:
    """Return the value of an option, without its quotes and with its expressions filled in."""
    value = unquoted(typed)
    if value == typed and typed[:1] in ("'", '"'):
        raise InvalidArgumentError(f"A quote in the options of %{magic.__name__} is not closed.")
    return filled(value, namespace)


def filled(value: str, namespace: Mapping[str, object]) -> str:
    """Return an id or the value of an option with its ``{{ expressions }}`` filled in.

    Raises ``InvalidArgumentError`` for ``{name}`` and ``$name``, with which other magics insert values.
    """
    if "{{" in value:
        return filled_text(value, namespace)
    other = _OTHER_EXPANSION.search(value)
    if other is not None:
        name = other["braced"] or other["dollar"]
        raise InvalidArgumentError(f"{value!r} is not filled in: write {{{{ {name} }}}} for the value of {name}.")
    return value


def _unknown_word(magic: Any, word: str) -> str:
    name = magic.__name__
    if not word.startswith("-"):
        if name == "chat":
            return "The %%chat line takes only options: write the message below it, and quote values with spaces."
        return f"%{name} takes only options, as in %chat_setup --provider demo; quote values with spaces."
    option = word.partition("=")[0]
    if option == "--max-tokens":
        return (
            "--max-tokens is ambiguous: --context-tokens N limits what is sent, --max-output-tokens N of %%chat limits "
            "the answer."
        )
    if "key" in option:
        return f"Unknown option {option}. Set OPENAI_API_KEY before the kernel starts, so that no notebook has the key."
    near = similar_names(option, [known for known in _actions(magic) if known != RETURNED], least=0.7)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown option {option}.{hint} %{name}? lists the options."


def filled_text(text: str, namespace: Mapping[str, object]) -> str:
    """Return a text with its ``{{ expressions }}`` filled in; a picture is an error."""
    from promptkit_nb.text.cell_text import fill  # noqa: PLC0415 - imported when used

    return fill(text, namespace, images=False).text


def parse_id(line: str, namespace: Mapping[str, object]) -> str | None:
    """Return the id on a line, with its ``{{ expressions }}`` filled in, or ``None``.

    An unquoted dash at the beginning is taken for a mistyped option.
    """
    if line.strip() == "--help":
        raise HelpAsked
    found = filled(unquoted(line), namespace)
    if line.strip().startswith("-"):
        raise InvalidArgumentError(f"Expected an id, not an option: {found}. Quote an id that begins with a dash.")
    return found or None


def unquoted(text: str) -> str:
    """Return a text without blanks and quotes around it."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        return stripped[1:-1]
    return stripped
