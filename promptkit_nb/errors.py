"""The family of errors: one root, each message says what happened, with which value, and what to do.

::

    PromptKitError
    ├── PackError
    │   ├── PackNotFoundError
    │   ├── PackValidationError
    │   ├── PromptNotFoundError
    │   └── MissingVariableError
    ├── StoreError
    │   ├── ConversationNotFoundError
    │   ├── ConversationExistsError
    │   ├── ConversationChangedError
    │   ├── InvalidConversationIdError
    │   ├── StoreCorruptedError
    │   └── StoreUnavailableError
    ├── ProviderError
    │   ├── AuthenticationError
    │   ├── RateLimitError
    │   ├── ProviderTimeoutError
    │   ├── ProviderUnavailableError
    │   └── BadRequestError
    ├── ContextWindowExceededError
    ├── BudgetExceededError
    ├── ReplayMissError
    ├── InvalidArgumentError      (also a ValueError)
    └── MissingDependencyError    (also an ImportError)

Errors of other libraries are mapped into this family with ``raise … from``, so the cause is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptkit_nb.packs.findings import Finding
    from promptkit_nb.rendering.responses import Response


class PromptKitError(Exception):
    """The root of everything this package raises on purpose."""


class PackError(PromptKitError):
    """A PromptPack, or a prompt of it, cannot be used."""


class PackNotFoundError(PackError):
    """There is no pack file at this path."""


class PackValidationError(PackError):
    """The pack does not follow the PromptPack format.

    ``findings`` are what is wrong with the pack, in the order of its file: all that is, where it was loaded strictly.
    Empty where a value given for a variable is to blame.
    """

    def __init__(self, message: str, *, findings: Sequence[Finding] = ()) -> None:
        """Keep the findings beside the message."""
        super().__init__(message)
        self.findings = findings

    def _repr_html_(self) -> str | None:
        return getattr(self.findings, "_repr_html_", lambda: None)()  # the table, where there is one


class PromptNotFoundError(PackError):
    """The pack has no prompt of this name."""


class MissingVariableError(PackError):
    """A variable that the system prompt needs has no value."""


class StoreError(PromptKitError):
    """A conversation could not be read or written.

    ``response`` is the answer that was already paid for when storing it failed, else ``None``.
    """

    response: Response | None = None


class ConversationNotFoundError(StoreError):
    """No conversation has this id (any more)."""


class ConversationExistsError(StoreError):
    """The id is taken; nothing was overwritten."""


class ConversationChangedError(StoreError):
    """Somebody else wrote the conversation since it was read."""


class InvalidConversationIdError(StoreError):
    """The text cannot serve as a conversation id."""


class StoreCorruptedError(StoreError):
    """What is stored cannot be read back as what was written."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, opened or written at present."""


class ProviderError(PromptKitError):
    """The model could not answer.

    ``partial`` is the text that had arrived before the failure (``""`` if none), and ``unsent`` the
    user's message, so that trying again is one call.
    """

    partial: str = ""
    unsent: str | None = None

    def __init__(self, message: str, *, partial: str = "") -> None:
        """Keep the partial text beside the message."""
        super().__init__(message)
        self.partial = partial


class AuthenticationError(ProviderError):
    """The provider refused the key, or there is none."""


class RateLimitError(ProviderError):
    """Too many requests, or the quota is used up.

    ``retry_after_s`` is what the server asked to wait, in seconds, or ``None``.
    """

    retry_after_s: float | None = None


class ProviderTimeoutError(ProviderError):
    """No answer within the timeout."""


class ProviderUnavailableError(ProviderError):
    """The provider cannot be reached, failed on its side, or broke off in mid-answer."""


class BadRequestError(ProviderError):
    """The provider understood the request and refused it."""


class ContextWindowExceededError(PromptKitError):
    """The request does not fit the context window: ``max_tokens``, or the model's own.

    ``limit_tokens`` is the window and ``request_tokens`` the request, as far as they are known. ``partial`` and
    ``unsent`` are as in ``ProviderError``.
    """

    partial: str = ""
    unsent: str | None = None

    def __init__(
        self,
        message: str,
        *,
        limit_tokens: int | None = None,
        request_tokens: int | None = None,
        partial: str = "",
    ) -> None:
        """Keep the figures and the partial text beside the message."""
        super().__init__(message)
        self.partial = partial
        self.limit_tokens = limit_tokens
        self.request_tokens = request_tokens


class BudgetExceededError(PromptKitError):
    """The call would pass the budget; nothing was sent."""


class ReplayMissError(PromptKitError):
    """Strict replay found no recorded answer to this request; nothing was sent."""


class InvalidArgumentError(PromptKitError, ValueError):
    """An argument is out of range or of the wrong kind."""


class MissingDependencyError(PromptKitError, ImportError):
    """An optional package is not installed."""
