"""What stands on the line of a magic: options or an id; a mistype is told in one line that says what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.utils.process import arg_split  # type: ignore[attr-defined]  # it exports it without saying so

from promptkit_nb.errors import InvalidArgumentError

if TYPE_CHECKING:
    from argparse import Namespace


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
    near = get_close_matches(option, known, n=1, cutoff=0.7)
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
