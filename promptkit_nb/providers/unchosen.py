"""Stands in until a provider is chosen, so that conversations can be opened and read without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.errors import AuthenticationError
from promptkit_nb.money.pricing import Price

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from promptkit_nb.providers.base import ChatRequest, StreamEvent
    from promptkit_nb.turns import Usage

TWO_WAYS_ON = (
    "No model is chosen, and there is no key. Two ways to go on: set OPENAI_API_KEY (and OPENAI_BASE_URL for a server "
    "of your own) before the kernel starts, or chat with the built-in demo: %chat_setup --provider demo"
)


class UnchosenProvider:
    """Answers nothing: asking it raises an ``AuthenticationError`` that names the two ways to go on."""

    name = "unchosen"
    model = ""

    def __repr__(self) -> str:
        """Show the call that makes one."""
        return "UnchosenProvider()"

    def stream(self, request: ChatRequest) -> Iterator[StreamEvent]:  # noqa: ARG002 - nothing is asked
        """Raise ``AuthenticationError``."""
        raise AuthenticationError(TWO_WAYS_ON)

    def price(self, model: str, usage: Usage, at: datetime) -> Price:  # noqa: ARG002 - nothing is answered
        """Return no price."""
        return Price(None, None)
