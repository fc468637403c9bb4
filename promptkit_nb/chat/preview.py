"""A preview of the next request and its cost; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Literal

from promptkit_nb.characters import terminal_text
from promptkit_nb.chat.token_estimates import TokenEstimator, token_estimator_for
from promptkit_nb.chat.window import Window, sent_messages, window_of
from promptkit_nb.pricing import CostRange
from promptkit_nb.rendering.markdown import answer_style, to_html
from promptkit_nb.text.plain_text import PREVIEW_CHARACTERS, counted, preview
from promptkit_nb.text.receipts import MATH_OFF, bar_html, note_html
from promptkit_nb.turns import Message, Turn

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CallOptions
    from promptkit_nb.chat.pending_turn import ChatServices

Kind = Literal["system", "summary", "turn", "question"]

_WHO = {"system": "System", "summary": "Summary", "user": "You", "assistant": "Answer", "tool": "Tool"}
_LINE_STYLE = "font-size:13px;border-bottom:1px solid rgba(128,128,128,.28)"
_ROW_STYLE = "padding:4px 0;white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
_TOKENS_STYLE = "display:inline-block;min-width:4.5em;text-align:right;font-variant-numeric:tabular-nums"
_WHO_STYLE = "display:inline-block;min-width:5.5em;margin-left:1em;color:var(--jp-ui-font-color2,#767676)"


@dataclass(frozen=True, slots=True)
class ContextLine:
    """One message of the request; ``turn`` is the index of its turn in the conversation, ``None`` outside of turns.

    A system message that contains a summary has the kind ``summary``; ``prompt`` is the system prompt in front of it.
    """

    role: str
    kind: Kind
    content: str
    tokens: int
    turn: int | None = None
    prompt: str = ""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The rows to show, each a label and a text: two if the message has both a prompt and a summary, else one."""
        if self.kind != "summary":
            return [(self.role, self.content)]
        summary = ("summary", self.content.removeprefix(self.prompt).strip())
        return [(self.role, self.prompt), summary] if self.prompt else [summary]


@dataclass(frozen=True, slots=True)
class Context(Sequence["ContextLine"]):
    """The messages of the next request, in order.

    ``token_count`` is the size of the whole request, including the opening of the answer; ``left_out`` are turns that
    are neither sent nor summarized. ``estimated`` says that the model's tokenizer is unknown; the server may then count
    up to ``most_tokens``, and the window is filled accordingly.
    """

    lines: tuple[ContextLine, ...]
    token_count: int
    most_tokens: int
    max_tokens: int | None = None
    left_out: tuple[Turn, ...] = ()
    estimated: bool = False

    @classmethod
    def of(
        cls,
        window: Window,
        turns: Sequence[Turn],
        *,
        estimator: TokenEstimator,
        has_question: bool = False,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> Context:
        """Return the content of a window; ``turns`` are those it was chosen from.

        ``has_question`` says that the last message is the question; ``tools`` are sent with each request.
        """
        positions = {turn.id: at for at, turn in enumerate(turns)}
        history = [(message, positions[turn.id]) for turn in window.turns for message in sent_messages(turn)]
        asked = window.messages[-1:] if has_question else ()
        before = len(window.messages) - len(asked) - len(history)
        lines = (
            *(_system_line(message, window, estimator) for message in window.messages[:before]),
            *(_line(message, "turn", estimator, at) for message, at in history),
            *(_line(message, "question", estimator) for message in asked),
        )
        size = estimator.of_frame(tools) + estimator.of_messages(window.messages)
        most = size.expected if window.token_count is None else window.token_count
        return cls(lines, size.likely, most, window.max_tokens, window.left_out, not estimator.is_trusted)

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.lines)

    def __getitem__(self, index: int | slice) -> ContextLine | tuple[ContextLine, ...]:  # type: ignore[override]  # a slice is a tuple
        """Return one line, or several."""
        return self.lines[index]

    def __iter__(self) -> Iterator[ContextLine]:
        """Yield the lines."""
        return iter(self.lines)

    def __str__(self) -> str:
        """Return one line per message, two for a system message with a summary, then the total."""
        width = max((len(f"{line.tokens:,}") for line in self.lines), default=0)
        rows = [
            f"{label:<9}  {preview(text):<{PREVIEW_CHARACTERS}}  {tokens:>{width}}".rstrip()
            for line in self.lines
            for (label, text), tokens in zip(line.rows, ["", f"{line.tokens:,}"][-len(line.rows) :], strict=True)
        ]
        return terminal_text("\n".join([*rows, self._total()]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join([answer_style(), note_html(self._total()), self._bar(), *map(_line_html, self.lines)])

    def _bar(self) -> str:
        if self.max_tokens is None:
            return ""
        percent = round(100 * self.token_count / self.max_tokens)
        return bar_html(percent, f"{percent} % of the context window")

    def _total(self) -> str:
        of = "" if self.max_tokens is None else f" of {self.max_tokens:,}"
        parts = [f"{self.token_count:,}{of} tokens"]
        if self.left_out:
            parts.append(f"{counted(len(self.left_out), 'turn')} left out")
        return " · ".join(parts) + self._estimate_note()

    def _estimate_note(self) -> str:
        if not self.estimated:
            return ""
        return " (estimate)" if self.most_tokens <= self.token_count else f" (estimate, {self.most_tokens:,} at most)"


def context_and_cost(
    services: ChatServices, question: Message | None, options: CallOptions
) -> tuple[Context, CostRange]:
    """Return what a request with these options would carry, and what it may cost.

    What the policy "error" would refuse is shown as left out.
    """
    snapshot = services.stored.refresh()
    state, position = snapshot.state, snapshot.target_position(options.target)
    turns, hashes = state.turns[:position], snapshot.context_hashes[: position + 1]
    settings = replace(services.settings(state, options), context_policy="truncate")
    estimator = token_estimator_for(settings.model, state.turns, settings.system_prompt)
    window = window_of(state, turns, question, settings, estimator=estimator, context_hashes=hashes)
    has_question = question is not None
    context = Context.of(window, turns, estimator=estimator, has_question=has_question, tools=settings.tools)
    return context, services.cost_of(settings, state.turns, window, estimator)


def _line(message: Message, kind: Kind, estimator: TokenEstimator, turn: int | None = None) -> ContextLine:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    content = message.text or "\n\n".join(part.text for part in message.parts if part.text)
    text = "\n\n".join(part for part in (content, *calls) if part)
    return ContextLine(message.role, kind, text, estimator.of_message(message).likely, turn)


def _system_line(message: Message, window: Window, estimator: TokenEstimator) -> ContextLine:
    line = _line(message, "summary" if window.applied_summaries else "system", estimator)
    if not window.applied_summaries:
        return line
    notes = "\n\n".join(applied.note.content for applied in window.applied_summaries)
    return replace(line, prompt=message.content.removesuffix(notes).strip())


def _line_html(line: ContextLine) -> str:
    _, text = line.rows[-1]
    who = " and ".join(_WHO.get(label, label) for label, _ in line.rows)
    spans = zip((f"{line.tokens:,}", who, preview(text)), (_TOKENS_STYLE, _WHO_STYLE, ""), strict=True)
    head = "".join(f'<span style="{style}">{escape(each)}</span>' for each, style in spans)
    summary = f'<summary {MATH_OFF} style="{_ROW_STYLE}">{head}</summary>'
    return f'<details style="{_LINE_STYLE}">{summary}{to_html(line.content)}</details>'


@dataclass(frozen=True, slots=True)
class DryRun:
    """The whole request with its tokens, its possible cost in US dollars, the state of each budget, and its tools.

    Each round of tool calls is one more request, which the cost does not contain. ``by_model`` has the cost of each
    model if several are compared.
    """

    context: Context
    cost: CostRange
    budgets: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    by_model: tuple[tuple[str, CostRange], ...] = ()

    def __str__(self) -> str:
        """Return the request line by line, the cost, and a line per budget."""
        return terminal_text("\n".join([str(self.context), *self._footer()]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.context._repr_html_() + "".join(map(note_html, self._footer()))

    def _footer(self) -> list[str]:
        tools = [f"tools: {', '.join(self.tools)} (each round of calls is one more request)"] if self.tools else []
        costs = [f"{model} · {cost}" for model, cost in self.by_model] or [str(self.cost)]
        return [*(f"dry run, nothing was sent · {cost}" for cost in costs), *tools, *self.budgets]
