r"""Receipts and other small lines below an answer: what it used and cost, as text and as HTML.

In HTML they are escaped and out of MathJax's reach: JupyterLab typesets ``$…$`` in outputs, and MathJax's ``\href``
makes ``javascript:`` links. The ids, model names and warnings in these lines come from models, servers and files.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

from promptkit_nb.endings import USUAL_REASONS, ending_words
from promptkit_nb.frontend import is_batch
from promptkit_nb.text.plain_text import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.turns import Turn, Usage

MATH_OFF_CLASSES = "mathjax_ignore tex2jax_ignore"
MATH_OFF = f'class="{MATH_OFF_CLASSES}"'
SMALL_STYLE = "color:var(--jp-ui-font-color2,#767676);font-size:12px"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The line below an answer: ``short`` on a page, with all of ``text`` in its tooltip; ``text`` elsewhere."""

    short: str
    text: str

    @classmethod
    def of(cls, response: Response, conversation_id: str, *, turns_below: int = 0) -> Receipt:
        """Return the receipt of an answer."""
        short = " · ".join([short_receipt_of(response), *_remarks(response, turns_below)])
        return cls(short, receipt_of(response, conversation_id, turns_below=turns_below))

    @classmethod
    def line(cls, text: str) -> Receipt:
        """Return a line that is the same everywhere."""
        return cls(text, text)

    def plus(self, remark: str) -> Receipt:
        """Return the receipt with a remark at its end."""
        return Receipt(f"{self.short} · {remark}", f"{self.text} · {remark}")

    def html(self) -> str:
        """Return the line as HTML."""
        title = "" if self.short == self.text else self.text
        return note_html(self.short, "margin-top:2px", title=title)


def note_html(line: str, style: str = "", *, title: str = "") -> str:
    """Return a line as a small gray ``<div>`` with a tooltip; ``style`` is added to its style."""
    tooltip = f' title="{escape(title)}"' if title else ""
    return f'<div {MATH_OFF} style="{SMALL_STYLE}{style and ";" + style}"{tooltip}>{escape(line)}</div>'


_BAR_STYLE = (
    "height:4px;max-width:24em;margin:4px 0;border-radius:2px;background-color:rgba(128,128,128,.2);overflow:hidden"
)
_FILL_STYLE = "height:100%;background-color:var(--jp-brand-color1,#1976d2)"


def bar_html(percent: int, words: str) -> str:
    """Return a thin bar that is filled to this part, with words for those who do not see it."""
    fill = f'<div style="{_FILL_STYLE};width:{min(100, max(0, percent))}%"></div>'
    return f'<div style="{_BAR_STYLE}" role="img" aria-label="{escape(words)}" title="{escape(words)}">{fill}</div>'


_CENT_DIGITS = 4
_LEAST_USD = Decimal("0.0001")


def usd_text(cost: Decimal | None) -> str:
    """Return US dollars to read: four decimals, or two significant digits for smaller amounts.

    >>> from decimal import Decimal
    >>> [usd_text(Decimal(text)) for text in ("0", "0.0019", "0.000045", "12.5")]
    ['$0.00', '$0.0019', '$0.000045', '$12.50']
    >>> usd_text(None)
    'price unknown'
    """
    if cost is None:
        return "price unknown"
    if cost == 0:
        return "$0.00"
    if abs(cost) >= 1:
        return f"${cost:.2f}"
    return f"${cost:.{max(_CENT_DIGITS, 1 - cost.adjusted())}f}"


def amount_text(usd: Decimal) -> str:
    """Return US dollars of a budget: like ``usd_text``, but with four decimals at any size and no trailing zeros.

    >>> from decimal import Decimal
    >>> [amount_text(Decimal(text)) for text in ("1", "0.42", "0.0310", "4.9963", "0.000045")]
    ['$1.00', '$0.42', '$0.031', '$4.9963', '$0.000045']
    """
    digits = f"{usd:.4f}" if usd >= 1 else usd_text(usd).removeprefix("$")
    whole, _, fraction = digits.partition(".")
    return f"${whole}.{fraction.rstrip('0'):0<2}"


def total_text(
    cost: Decimal | None, unpriced_turns: int, *, text_of: Callable[[Decimal | None], str] = usd_text
) -> str:
    """Return a sum of costs to read, as ``text_of`` writes it, with the number of turns it does not include.

    >>> from decimal import Decimal
    >>> total_text(Decimal("0.12"), 3)
    '$0.1200 + 3 turns without a price'
    """
    if cost is None:
        return "price unknown"
    if not unpriced_turns:
        return text_of(cost)
    return f"{text_of(cost)} + {counted(unpriced_turns, 'turn')} without a price"


def receipt_of(response: Response, conversation_id: str, *, turns_below: int = 0) -> str:
    """Return all of the receipt: ``model · in/out tokens · cost · seconds · conversation``.

    A replayed answer adds what it saved, and one that made later turns stale adds their number. A batch run leaves out
    the seconds and the conversation, so that the same run gives the same output. An empty id is left out, too.
    ``turns_below`` is the number of turns that come before this one although their cells are below.
    """
    parts = [
        response.model,
        tokens_text(response.usage),
        *_tool_words(response.turn),
        *_cost_words(response),
    ]
    if not is_batch():
        parts += [_seconds(response), *filter(None, [conversation_id])]
    return one_line(" · ".join([*parts, *_remarks(response, turns_below)]))


def short_receipt_of(response: Response) -> str:
    """Return ``model · cost · seconds``, or what a replayed answer saved; a batch run leaves out the seconds."""
    if response.replayed:
        saved = [f"saved {small_usd_text(response.saved)}"] if response.saved else []
        not_run = ["tools not run"] if _tool_words(response.turn) else []
        return one_line(" · ".join([response.model, "stored answer", *not_run, *saved]))
    seconds = [] if is_batch() else [_seconds(response)]
    calls = _tool_words(response.turn)
    return one_line(" · ".join([response.model, *calls, small_usd_text(response.cost), *seconds]))


def small_usd_text(cost: Decimal | None) -> str:
    """Return ``usd_text``, or ``<$0.0001`` for less than a hundredth of a cent.

    >>> from decimal import Decimal
    >>> small_usd_text(Decimal("0.0019")), small_usd_text(Decimal("0.000045"))
    ('$0.0019', '<$0.0001')
    """
    return "<$0.0001" if cost is not None and 0 < cost < _LEAST_USD else usd_text(cost)


def _seconds(response: Response) -> str:
    return f"{response.latency_ms / 1000:.1f} s"


def _remarks(response: Response, turns_below: int) -> Iterator[str]:
    """Yield remarks on unusual answers: their ending, turns left out, stale turns, and turns of cells below."""
    if response.finish_reason not in USUAL_REASONS:
        yield from filter(None, [one_line(ending_words(response.finish_reason))])
    if response.truncated:
        yield f"{counted(response.truncated, 'turn')} left out"
    if response.stale_turns:
        verb = "was" if response.stale_turns == 1 else "were"
        yield f"{counted(response.stale_turns, 'later turn')} {verb} answered before this change"
    if turns_below:
        yield f"comes after {counted(turns_below, 'turn')} of cells below"


def tokens_text(usage: Usage) -> str:
    """Return the input and output tokens of a call, and how much input was cached or written to the cache.

    >>> from promptkit_nb.turns import Usage
    >>> tokens_text(Usage(2600, 300, cached_tokens=2000, cache_write_tokens=400))
    '2,600/300 tokens (2,000 cached, 400 written to the cache)'
    """
    if usage.unknown:
        return "tokens unknown"
    kinds = {"cached": usage.cached_tokens, "written to the cache": usage.cache_write_tokens}
    of_input = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    tokens = f"{'~' if usage.estimated else ''}{usage.input_tokens:,}/{usage.output_tokens:,} tokens"
    return f"{tokens} ({of_input})" if of_input else tokens


def thinking_words(response: Response) -> str:
    """Return ``thought 12 s · 1,204 tokens``, as far as both are known; a batch run leaves out the seconds."""
    seconds = "" if response.thinking_ms is None or is_batch() else f" {seconds_text(response.thinking_ms / 1000)}"
    tokens = response.usage.reasoning_tokens
    about = "~" if response.usage.estimated else ""
    return f"thought{seconds}" + (f" · {about}{tokens:,} tokens" if tokens else "")


def seconds_text(seconds: float) -> str:
    """Return a readable duration: whole seconds, or one decimal below ten.

    >>> seconds_text(0.42), seconds_text(12.3)
    ('0.4 s', '12 s')
    """
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"  # noqa: PLR2004 - rounds to ten


def _cost_words(response: Response) -> list[str]:
    if not response.replayed:
        return [usd_text(response.cost)]
    saved = f" (saved {usd_text(response.saved)})" if response.saved else ""
    not_run = ["tools not run"] if _tool_words(response.turn) else []
    return ["replayed", *not_run, f"{usd_text(response.cost)}{saved}"]


def _tool_words(turn: Turn) -> list[str]:
    """Return how many requests and tool calls a turn took; nothing if the model called no tools."""
    calls = sum(message.role == "tool" for message in turn.messages)
    requests = sum(message.role == "assistant" for message in turn.messages)
    return [counted(requests, "request"), counted(calls, "tool call")] if calls else []
