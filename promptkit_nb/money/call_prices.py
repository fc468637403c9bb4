"""What a call did cost, of all who may know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.money.pricing import Price

if TYPE_CHECKING:
    from datetime import datetime

    from promptkit_nb.providers.base import Completion, Provider
    from promptkit_nb.turns import Usage


def price_of_call(provider: Provider, model: str, completion: Completion | None, usage: Usage, at: datetime) -> Price:
    """Return the price: the provider's own figure, else by the model asked for, or the one that answered."""
    if completion is not None and completion.cost_usd is not None:
        return Price(completion.cost_usd, provider.name)
    asked = provider.price(model, usage, at)
    if completion is None or completion.model == model or asked.source == "user":
        return asked
    answered = provider.price(completion.model, usage, at)
    return asked if answered.usd is None else answered
