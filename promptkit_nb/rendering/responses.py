"""The answer to one call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from promptkit_nb.characters import terminal_text
from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.text.receipts import MATH_OFF, SMALL_STYLE, Receipt, note_html, thinking_words
from promptkit_nb.turns import Turn, Usage

if TYPE_CHECKING:
    import pandas as pd

    from promptkit_nb.tools.calls import ToolRun  # noqa: TC004 - tools are above, and imported when they are used

ThinkingMode = Literal["fold", "show", "hide"]

_THINKING_STYLE = f"{SMALL_STYLE};margin:0 0 0.4em"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer, shown as sanitized HTML with a receipt in a notebook and as its text elsewhere.

    ``content`` is the text; ``reasoning`` is the model's thinking, or ``None`` if it is not shown by the model.
    ``cost`` is in US dollars, or ``None`` if the price is unknown; ``saved`` is the original cost of a replayed
    answer. ``truncated`` is the number of turns left out of the request, ``turn`` the turn that was stored, and
    ``stale_turns`` the number of later turns that were answered before this change. ``value`` is the typed answer
    of a call with ``schema=``. ``tool_calls`` and ``tool_results`` are the tools that the model called.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> conv = ConversationManager(DemoProvider(), replay="auto").new_conversation(conversation_id="hello")
    >>> answer = conv.send("My name is Alice")
    >>> answer.usage.input_tokens, answer.usage.output_tokens, answer.cost, answer.replayed
    (11, 27, Decimal('0'), False)
    >>> conv.rerun(0).replayed
    True
    """

    turn: Turn
    conversation_id: str
    content: str
    reasoning: str | None = None
    usage: Usage
    cost: Decimal | None
    model: str
    finish_reason: str
    latency_ms: float
    thinking_ms: float | None = None
    saved: Decimal | None = None
    truncated: int = 0
    replayed: bool = False
    stale_turns: int = 0
    warnings: tuple[str, ...] = field(default=())
    value: Any = None
    tool_runs: tuple[ToolRun, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, turn: Turn, conversation_id: str) -> Response:
        """Return the answer that a turn holds."""
        return cls(
            turn=turn,
            conversation_id=conversation_id,
            content=turn.text,
            reasoning=turn.reasoning,
            usage=turn.usage,
            cost=turn.cost,
            model=turn.model,
            finish_reason=turn.finish_reason or "stop",
            latency_ms=turn.latency_ms or 0.0,
            thinking_ms=turn.thinking_ms,
            truncated=turn.truncated,
            replayed=turn.replayed,
            warnings=turn.warnings,
        )

    @classmethod
    def replay_of(cls, turn: Turn, conversation_id: str, *, stale_turns: int = 0) -> Response:
        """Return the answer of a stored turn as a replay, which costs nothing."""
        answer = cls.of(turn, conversation_id)
        return replace(answer, cost=Decimal(0), saved=turn.first_cost, replayed=True, stale_turns=stale_turns)

    @property
    def tool_calls(self) -> pd.DataFrame:
        """The tool calls of the turn, one row each: round, tool, arguments, result, seconds, error.

        ``result`` and ``error`` are what the model was told. A turn that was answered before has no ``seconds``.
        """
        from promptkit_nb.rendering.tool_calls import tool_calls_df  # noqa: PLC0415 - pandas, imported when used

        return tool_calls_df(self.turn, self.tool_runs)

    @property
    def tool_results(self) -> tuple[object, ...]:
        """What the tools returned, in the order of the calls; only in the kernel that ran them, and never stored."""
        return tuple(run.value for run in self.tool_runs)

    def __str__(self) -> str:
        """Return the text."""
        return self.content

    def __repr__(self) -> str:
        """Return the text, without control characters."""
        return terminal_text(self.content)

    def _repr_html_(self) -> str:
        receipt = Receipt.of(self, self.conversation_id)
        reasoning = self.reasoning or "", thinking_words(self)
        text, above = self.content, self._tools_html()
        if self.value is not None:
            from promptkit_nb.rendering.typed_values import value_table  # noqa: PLC0415 - of typed answers

            text, above = "", above + value_table(self.value)[1]
        return answer_html(text, receipt, self.warnings, reasoning, calls=above)

    def _tools_html(self) -> str:
        if not self.turn.has_tool_calls:
            return ""
        from promptkit_nb.rendering.tool_lines import lines_of, tool_lines_html  # noqa: PLC0415 - of turns with tools

        return tool_lines_html([run.shown for run in self.tool_runs] or lines_of(self.turn))


def answer_html(
    text: str,
    receipt: Receipt | None,
    warnings: tuple[str, ...] = (),
    reasoning: tuple[str, str] = ("", ""),
    thinking: ThinkingMode = "fold",
    *,
    calls: str = "",
) -> str:
    """Return a model's text with its warnings and receipt as HTML that cannot execute or fetch anything.

    ``reasoning`` is what the model thought, and the words on its fold; ``thinking`` is how to show it. ``calls`` is the
    HTML of tool calls and of a typed answer, which come before the text.
    """
    above = thinking_html(*reasoning, thinking)
    style = answer_style() if text or above or calls else ""
    below = "".join(note_html(f"⚠ {warning}", "margin-top:2px") for warning in warnings)
    return f"{style}{above}{calls}{to_html(text) if text else ''}{below}{receipt.html() if receipt else ''}"


def check_thinking(mode: object) -> ThinkingMode:
    """Return the mode, or raise ``InvalidArgumentError`` if it is unknown.

    >>> check_thinking("fold")
    'fold'
    """
    if mode not in get_args(ThinkingMode):
        raise InvalidArgumentError(f"thinking={mode!r:.80} is unknown: use 'fold', 'show' or 'hide'.")
    return cast("ThinkingMode", mode)


def thinking_html(reasoning: str, words: str, mode: ThinkingMode = "fold") -> str:
    """Return the model's thinking as one line that unfolds; empty if it is unknown or hidden."""
    if mode == "hide" or not reasoning.strip():
        return ""
    opened = " open" if mode == "show" else ""
    return (
        f'<details class="promptkit-thinking" style="{_THINKING_STYLE}"{opened}>'
        f"<summary {MATH_OFF}>{escape(words)}</summary>{to_html(reasoning)}</details>"
    )
