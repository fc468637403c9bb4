"""Where and how one chat call talks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Where and how one chat call talks; ``None`` means as the notebook does."""

    conversation_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    pack: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    fresh: bool = False
    quiet: bool = False

    @property
    def parameters(self) -> dict[str, object]:
        """What goes over the conversation's own parameters."""
        return {} if self.temperature is None else {"temperature": self.temperature}
