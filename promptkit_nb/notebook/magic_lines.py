"""The lines of magics: input transformation, option parsing, and one-line errors."""

from __future__ import annotations

import re
import tokenize
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd
from IPython.core.magic import line_magic, no_var_expand
from IPython.utils.process import arg_split  # type: ignore[attr-defined]  # exported, but not in its __all__

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
    r"""Turn a ``%%chat`` cell into a magic call with its body as typed; leave other cells alone.

    Otherwise, IPython would remove prompts such as ``>>>`` and the whitespace of blank lines from the body.

    >>> chat_cell(["%%chat -q\n", ">>> 1 + 1\n"])
    ["get_ipython().run_cell_magic('chat', '-q', '>>> 1 + 1\\n')\n"]
    """
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    match = _CHAT_CELL.fullmatch(lines[first]) if lines else None
    if match is None:
        return lines
    options, body = (match["options"] or "").strip(), "".join(lines[first + 1 :])
    return [f"get_ipython().run_cell_magic('chat', {options!r}, {body!r})\n"]


chat_cell.has_side_effects = True  # type: ignore[attr-defined]  # makes a terminal wait for the end of the cell


class ChatLine(EscapedCommand):
    """Makes ``%chat Why?`` a message although IPython reads a final ``?`` as a request for help; ``%chat?`` is one."""

    priority = HelpEnd.priority - 1

    @classmethod
    def find(cls, tokens_by_line: list[list[tokenize.TokenInfo]]) -> Self | None:
        """Return the first ``%chat`` line with a message, or ``None``."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in {tokenize.INDENT, tokenize.DEDENT}]
            is_chat = [token.string for token in tokens[:2]] == ["%", "chat"] and tokens[0].end == tokens[1].start
            if is_chat and any(token.string.strip("? \n") for token in tokens[2:]):
                return cls(tokens[0].start)
        return None


P = ParamSpec("P")
R = TypeVar("R")


def fails_in_one_line(magic: Callable[P, R]) -> Callable[P, R]:
    """Decorate a magic to show this package's errors as one line instead of a traceback."""

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


def chat_line_magic(method: Callable[P, R]) -> Callable[P, R]:
    """Register a method as a line magic whose line is not expanded and whose errors are one line."""
    return cast("Callable[P, R]", no_var_expand(line_magic(fails_in_one_line(method))))


def parse_options(magic: Any, line: str) -> Namespace:
    """Parse the options of a line and remove the quotes that IPython's splitting keeps.

    Errors name an unknown option without its value, which may be a key.
    """
    options: Namespace
    try:
        options, unknown = magic.parser.parse_known_args(arg_split(line))
    except UsageError as error:
        raise InvalidArgumentError(f"{error}. %{magic.__name__}? lists the options.") from error
    except ValueError as error:
        raise InvalidArgumentError(f"A quote in the options of %{magic.__name__} is not closed.") from error
    if unknown:
        raise InvalidArgumentError(_unknown_word(magic, unknown[0]))
    for name, value in vars(options).items():
        if isinstance(value, str):
            setattr(options, name, _unquoted(value))
        elif isinstance(value, list):
            setattr(options, name, [_unquoted(each) for each in value])
    return options


def _unknown_word(magic: Any, word: str) -> str:
    name = magic.__name__
    if not word.startswith("-"):
        if name == "chat":
            return "The %%chat line takes only options: write the message below it, and quote values with spaces."
        return f"%{name} takes only options, as in %chat_setup --provider demo; quote values with spaces."
    option = word.partition("=")[0]
    if "key" in option:
        return f"Unknown option {option}. Set OPENAI_API_KEY before the kernel starts, so that no notebook has the key."
    known = [known for action in magic.parser._actions for known in action.option_strings]  # noqa: SLF001 - not public
    near = similar_names(option, known, least=0.7)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"Unknown option {option}.{hint} %{name}? lists the options."


def parse_id(line: str) -> str | None:
    """Return the id on a line, or ``None``; an unquoted dash at the beginning is taken for a mistyped option."""
    found = _unquoted(line)
    if line.strip().startswith("-"):
        raise InvalidArgumentError(f"Expected an id, not an option: {found}. Quote an id that begins with a dash.")
    return found or None


def _unquoted(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        return stripped[1:-1]
    return stripped
