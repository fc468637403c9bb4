"""The lines below a panel: turns, tokens, cost, how full the context window is, and the budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.errors import PromptKitError
from promptkit_nb.rendering.plain_text import counted, one_line
from promptkit_nb.rendering.receipts import total_text

if TYPE_CHECKING:
    from promptkit_nb.conversation import Conversation


def footer_of(conversation: Conversation, *, model: str | None = None) -> list[str]:
    """Return the lines, the totals first."""
    head = conversation.store.head(conversation.id)
    totals = " · ".join(
        [
            counted(head.turn_count, "turn"),
            f"{head.token_count:,} tokens",
            total_text(head.total_cost, head.unpriced_turns),
        ]
    )
    return [totals, _context_line(conversation, model), *map(one_line, conversation.budget_lines())]


def _context_line(conversation: Conversation, model: str | None) -> str:
    try:
        context = conversation.context(model=model)
    except PromptKitError as error:  # such as: a variable of the prompt has no value yet
        return one_line(f"The next request cannot be made yet: {error}")
    about = "~" if context.estimated else ""
    if context.max_tokens is None:
        return f"context {about}{context.token_count:,} tokens"
    percent = round(100 * context.token_count / context.max_tokens)
    left_out = f", {counted(len(context.left_out), 'turn')} left out" if context.left_out else ""
    return f"context {about}{context.token_count:,} of {context.max_tokens:,} tokens ({percent} %{left_out})"
