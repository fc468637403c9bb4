"""The line of a magic: what IPython makes of it, its options, and how it fails."""

from __future__ import annotations

import re
import tokenize
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd
from IPython.utils.process import arg_split  # type: ignore[attr-defined]  # it exports it without saying so

from promptkit_nb.errors import InvalidArgumentError, PromptKitError
from promptkit_nb.notebook.display import StoppedByUser
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.text.plain_text import one_line

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Self

_CHAT_CELL = re.compile(r"%%chat(?: (?P<options>.*))?\s*")


def chat_cell(lines: list[str]) -> list[str]:
    r"""Return the call that a ``%%chat`` cell is, its body as it was typed; other cells as they are.

    Left to itself, IPython takes prompts such as ``>>>`` out of the body, and the blanks of empty lines.

    >>> chat_cell(["%%chat -q\n", ">>> 1 + 1\n"])
    ["get_ipython().run_cell_magic('chat', '-q', '>>> 1 + 1\\n')\n"]
    """
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    found = _CHAT_CELL.fullmatch(lines[first]) if lines else None
    if found is None:
        return lines
    options, body = (found["options"] or "").strip(), "".join(lines[first + 1 :])
    return [f"get_ipython().run_cell_magic('chat', {options!r}, {body!r})\n"]


chat_cell.has_side_effects = True  # type: ignore[attr-defined]  # a terminal then still waits for the end of the cell


class ChatLine(EscapedCommand):
    """Comes before IPython's rule that a line which ends with ``?`` asks for help; ``%chat?`` still does."""

    priority = HelpEnd.priority - 1

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Self | None:
        """Return the first ``%chat`` line that says something, if there is one."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in {tokenize.INDENT, tokenize.DEDENT}]
            is_chat = [token.string for token in tokens[:2]] == ["%", "chat"] and tokens[0].end == tokens[1].start
            if is_chat and any(token.string.strip("? \n") for token in tokens[2:]):
                return cls(tokens[0].start)
        return None


P = ParamSpec("P")
R = TypeVar("R")


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


def options_in(magic: Any, line: str) -> Namespace:
    """Return the options of a line, without the quotes that IPython's splitting keeps.

    What is not understood is named without its value: it may be a key.
    """
    options: Namespace
    try:
        options, unknown = magic.parser.parse_known_args(arg_split(line))
    except UsageError as error:
        raise InvalidArgumentError(f"{error}; %{magic.__name__}? lists the options.") from error
    except ValueError as error:
        raise InvalidArgumentError(f"A quote in the options of %{magic.__name__} is not closed.") from error
    if unknown:
        raise InvalidArgumentError(_not_understood(magic, unknown[0]))
    for name, value in vars(options).items():
        if isinstance(value, str):
            setattr(options, name, _unquoted(value))
    return options


def _not_understood(magic: Any, word: str) -> str:
    name = magic.__name__
    if not word.startswith("-"):
        if name == "chat":
            return "The %%chat line takes options only: write the message below it, and quote a value that has blanks."
        return f"%{name} takes options only, as in %chat_setup --provider demo; quote a value that has blanks."
    option = word.partition("=")[0]
    if "key" in option:
        return (
            f"There is no option {option}: set OPENAI_API_KEY before the kernel starts, so that no notebook holds it."
        )
    known = [known for action in magic.parser._actions for known in action.option_strings]  # noqa: SLF001 - no other way
    near = similar_names(option, known, least=0.7)
    return f"There is no option {option}{f', did you mean {near[0]}' if near else ''}? %{name}? lists them."


def id_in(line: str) -> str | None:
    """Return the id on a line, ``None`` if there is none; one that begins with a dash is a mistyped option."""
    found = _unquoted(line)
    if line.strip().startswith("-"):
        raise InvalidArgumentError(f"This takes an id and no options: {found}. An id with a dash in front is quoted.")
    return found or None


def _unquoted(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        return stripped[1:-1]
    return stripped
