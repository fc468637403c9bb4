"""What a call took and did cost, of all who may know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.money.pricing import Price
from promptkit_nb.turns import Usage
from promptkit_nb.window.tokens import count_message_tokens, count_tokens

if TYPE_CHECKING:
    from datetime import datetime

    from promptkit_nb.providers.base import ChatRequest, Completion, Provider


def usage_of_call(request: ChatRequest, text: str, completion: Completion | None) -> Usage:
    """Return what the provider reported, else what is counted of the request and the text that came."""
    if completion is not None and completion.usage is not None:
        return completion.usage
    return Usage(
        input_tokens=count_message_tokens(request.messages, request.model),
        output_tokens=count_tokens(text, request.model),
        estimated=True,
    )


def price_of_call(provider: Provider, model: str, completion: Completion | None, usage: Usage, at: datetime) -> Price:
    """Return the price: the provider's own figure, else by the model asked for, or the one that answered."""
    if completion is not None and completion.cost_usd is not None:
        return Price(completion.cost_usd, provider.name)
    asked = provider.price(model, usage, at)
    if completion is None or completion.model == model or asked.source == "user":
        return asked
    answered = provider.price(completion.model, usage, at)
    return asked if answered.usd is None else answered
