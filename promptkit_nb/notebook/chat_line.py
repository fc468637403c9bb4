"""What stands in a chat cell or line is for the model: IPython neither answers its questions nor tidies it up."""

from __future__ import annotations

import re
import tokenize
from typing import TYPE_CHECKING

from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd

if TYPE_CHECKING:
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
