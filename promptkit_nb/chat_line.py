"""``%chat What's my name?`` is a question to the model, not to IPython's help on ``name``."""

from __future__ import annotations

import tokenize
from typing import TYPE_CHECKING

from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd

if TYPE_CHECKING:
    from typing import Self


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
