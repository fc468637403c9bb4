"""What a run will send, and what that may cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from promptkit_nb.chat.token_estimates import token_estimator_for
from promptkit_nb.pricing import USUAL_OUTPUT_TOKENS, expected_usd
from promptkit_nb.text.plain_text import counted
from promptkit_nb.text.receipts import amount_text
from promptkit_nb.tokens import count_tokens
from promptkit_nb.turns import Message, Usage, utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.rows.plan import RowAnswers
    from promptkit_nb.rows.stored_rows import RowConversation
    from promptkit_nb.rows.template import RowTemplate
    from promptkit_nb.turns import Turn

MOST_COUNTED = 300
"""The tokens of so many questions are counted; the others are assumed to be like these."""

RECENT_ANSWERS = 50
_ENOUGH_ANSWERS = 5
_LOW, _HIGH = 0.8, 1.25  # of the length of earlier answers of the run
_JSON_TOKENS = 10  # around a label


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsEstimate:
    """What a run will send, and its cost in US dollars, ``None`` if the price is unknown.

    ``rows`` have ``distinct_texts`` different questions, of which ``to_send`` are not answered yet. Tokens and dollars
    are those of what is to be sent.
    """

    name: str
    rows: int
    distinct_texts: int
    to_send: int
    input_tokens: int
    low_usd: Decimal | None
    high_usd: Decimal | None

    def __str__(self) -> str:
        """Return all of it in one line."""
        answered = self.distinct_texts - self.to_send
        parts = [f"{self.name}: {counted(self.rows, 'row', grouped=True)}"]
        parts.append(counted(self.distinct_texts, "distinct text", grouped=True))
        parts += [f"{answered:,} answered already"] if answered else []
        parts.append(f"{self.to_send:,} to send")
        if self.to_send:
            parts += [f"about {self.input_tokens:,} tokens in", self.cost_text]
        return " · ".join(parts)

    __repr__ = __str__

    @property
    def cost_text(self) -> str:
        """The cost in words."""
        if self.low_usd is None or self.high_usd is None:
            return "price unknown"
        low, high = amount_text(self.low_usd), amount_text(self.high_usd)
        return low if low == high else f"{low} to {high}"


def estimate_of(
    name: str,
    answers: RowAnswers,
    conversation: RowConversation,
    template: RowTemplate,
    recent: Sequence[Turn] = (),
) -> RowsEstimate:
    """Return the estimate of what is missing; ``recent`` are earlier turns of the run, which show what answers take."""
    plan, missing = answers.plan, answers.missing
    settings, model = conversation.settings, conversation.settings.model
    estimator = token_estimator_for(model, recent, settings.system_prompt)
    step = max(1, ceil(len(missing) / MOST_COUNTED))
    sample = [conversation.question_of(template.text_of(plan.first_rows[number])) for number in missing[::step]]
    frame = estimator.of_frame().likely + _schema_tokens(conversation)
    if settings.system_prompt:
        frame += estimator.of_message(Message("system", settings.system_prompt)).likely
    each = sum(estimator.of_message(question).likely for question in sample) / max(1, len(sample)) + frame
    low_tokens, high_tokens = _output_tokens(conversation, recent)
    at = utc_now()
    low_usd = expected_usd(conversation.provider, model, Usage(round(each), low_tokens), at)
    high_usd = expected_usd(conversation.provider, model, Usage(round(each), high_tokens), at)
    return RowsEstimate(
        name=name,
        rows=len(plan.questions),
        distinct_texts=len(plan),
        to_send=len(missing),
        input_tokens=round(each * len(missing)),
        low_usd=None if low_usd is None else low_usd * len(missing),
        high_usd=None if high_usd is None else high_usd * len(missing),
    )


def _schema_tokens(conversation: RowConversation) -> int:
    if conversation.answer_type is None:
        return 0
    return count_tokens(json.dumps(conversation.answer_type.schema), conversation.settings.model)


def _output_tokens(conversation: RowConversation, recent: Sequence[Turn]) -> tuple[int, int]:
    """Return how many tokens an answer may take: as earlier ones, a label, or anything up to the limit."""
    model, limit = conversation.settings.model, conversation.settings.max_output_tokens
    same = [turn.usage.output_tokens for turn in recent if model in (turn.requested_model, turn.model)]
    kind = conversation.answer_type
    if len(same) >= _ENOUGH_ANSWERS:
        mean = sum(same) / len(same)
        low, high = round(mean * _LOW), round(mean * _HIGH)
    elif kind is not None and kind.labels:
        low, high = 1, _JSON_TOKENS + max(count_tokens(label, model) for label in kind.labels)
    else:
        low, high = 1, USUAL_OUTPUT_TOKENS
    return max(1, low), max(1, high if limit is None else min(high, limit))
