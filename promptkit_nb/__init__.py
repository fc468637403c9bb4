"""Talk to language models in Jupyter, close the kernel, come back and go on.

>>> from promptkit_nb import ConversationManager, DemoProvider
>>> manager = ConversationManager(provider=DemoProvider())
>>> conv = manager.new_conversation(conversation_id="hello")
>>> conv.send("My name is Alice").finish_reason
'stop'

In a notebook: ``%load_ext promptkit_nb``, then ``%%chat``. Importing this package loads nothing but this file; each
name is imported when it is first used. For a store of your own there is ``promptkit_nb.testing``, for a provider
``promptkit_nb.providers.base``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from promptkit_nb.chat.budgets import Budget
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.errors import (
        AuthenticationError,
        BadRequestError,
        BudgetExceededError,
        ContextWindowExceededError,
        ConversationChangedError,
        ConversationExistsError,
        ConversationNotFoundError,
        InvalidArgumentError,
        InvalidConversationIdError,
        MissingDependencyError,
        MissingVariableError,
        PackError,
        PackNotFoundError,
        PackValidationError,
        PromptKitError,
        PromptNotFoundError,
        ProviderError,
        ProviderTimeoutError,
        ProviderUnavailableError,
        RateLimitError,
        ReplayMissError,
        StoreCorruptedError,
        StoreError,
        StoreUnavailableError,
    )
    from promptkit_nb.exports.archives import export_store, import_store
    from promptkit_nb.ids import scoped_id
    from promptkit_nb.manager import ConversationManager
    from promptkit_nb.packs.pack import Pack, Prompt, load_pack
    from promptkit_nb.packs.validation import validate_pack
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.providers.demo import DemoProvider
    from promptkit_nb.providers.openai import OpenAIProvider
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.state import ConversationState, Head, Summary
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.stores.disk import DiskStore
    from promptkit_nb.stores.memory import MemoryStore
    from promptkit_nb.stores.redis import RedisStore
    from promptkit_nb.turns import Message, Turn, Usage
    from promptkit_nb.views.conversations import conversations_df
    from promptkit_nb.views.dashboard import usage_dashboard
    from promptkit_nb.views.message_search import search
    from promptkit_nb.views.messages import messages_df
    from promptkit_nb.views.plots import plot_cost, plot_tokens
    from promptkit_nb.views.turns import turns_df
    from promptkit_nb.views.usage import usage_df

__version__ = "0.1.0"

_ERRORS = "promptkit_nb.errors"

_HOMES = {
    "AuthenticationError": _ERRORS,
    "BadRequestError": _ERRORS,
    "Budget": "promptkit_nb.chat.budgets",
    "BudgetExceededError": _ERRORS,
    "ChatPanel": "promptkit_nb.panel.widget",
    "ContextWindowExceededError": _ERRORS,
    "Conversation": "promptkit_nb.conversation",
    "ConversationChangedError": _ERRORS,
    "ConversationExistsError": _ERRORS,
    "ConversationManager": "promptkit_nb.manager",
    "ConversationNotFoundError": _ERRORS,
    "ConversationState": "promptkit_nb.state",
    "DemoProvider": "promptkit_nb.providers.demo",
    "DiskStore": "promptkit_nb.stores.disk",
    "Head": "promptkit_nb.state",
    "InvalidArgumentError": _ERRORS,
    "InvalidConversationIdError": _ERRORS,
    "MemoryStore": "promptkit_nb.stores.memory",
    "Message": "promptkit_nb.turns",
    "MissingDependencyError": _ERRORS,
    "MissingVariableError": _ERRORS,
    "OpenAIProvider": "promptkit_nb.providers.openai",
    "Pack": "promptkit_nb.packs.pack",
    "PackError": _ERRORS,
    "PackNotFoundError": _ERRORS,
    "PackValidationError": _ERRORS,
    "Prompt": "promptkit_nb.packs.pack",
    "PromptKitError": _ERRORS,
    "PromptNotFoundError": _ERRORS,
    "ProviderError": _ERRORS,
    "ProviderTimeoutError": _ERRORS,
    "ProviderUnavailableError": _ERRORS,
    "RateLimitError": _ERRORS,
    "ReplayMissError": _ERRORS,
    "RedisStore": "promptkit_nb.stores.redis",
    "Response": "promptkit_nb.rendering.responses",
    "StateStore": "promptkit_nb.stores.base",
    "StoreCorruptedError": _ERRORS,
    "StoreError": _ERRORS,
    "StoreUnavailableError": _ERRORS,
    "Summary": "promptkit_nb.state",
    "Turn": "promptkit_nb.turns",
    "Usage": "promptkit_nb.turns",
    "conversations_df": "promptkit_nb.views.conversations",
    "export_store": "promptkit_nb.exports.archives",
    "import_store": "promptkit_nb.exports.archives",
    "load_pack": "promptkit_nb.packs.pack",
    "messages_df": "promptkit_nb.views.messages",
    "plot_cost": "promptkit_nb.views.plots",
    "plot_tokens": "promptkit_nb.views.plots",
    "scoped_id": "promptkit_nb.ids",
    "search": "promptkit_nb.views.message_search",
    "turns_df": "promptkit_nb.views.turns",
    "usage_dashboard": "promptkit_nb.views.dashboard",
    "usage_df": "promptkit_nb.views.usage",
    "validate_pack": "promptkit_nb.packs.validation",
}

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "Budget",
    "BudgetExceededError",
    "ChatPanel",
    "ContextWindowExceededError",
    "Conversation",
    "ConversationChangedError",
    "ConversationExistsError",
    "ConversationManager",
    "ConversationNotFoundError",
    "ConversationState",
    "DemoProvider",
    "DiskStore",
    "Head",
    "InvalidArgumentError",
    "InvalidConversationIdError",
    "MemoryStore",
    "Message",
    "MissingDependencyError",
    "MissingVariableError",
    "OpenAIProvider",
    "Pack",
    "PackError",
    "PackNotFoundError",
    "PackValidationError",
    "Prompt",
    "PromptKitError",
    "PromptNotFoundError",
    "ProviderError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "RateLimitError",
    "RedisStore",
    "ReplayMissError",
    "Response",
    "StateStore",
    "StoreCorruptedError",
    "StoreError",
    "StoreUnavailableError",
    "Summary",
    "Turn",
    "Usage",
    "conversations_df",
    "export_store",
    "import_store",
    "load_pack",
    "messages_df",
    "plot_cost",
    "plot_tokens",
    "scoped_id",
    "search",
    "turns_df",
    "usage_dashboard",
    "usage_df",
    "validate_pack",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics: ``%load_ext promptkit_nb``."""
    import_module("promptkit_nb.notebook.extension").load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics away again: ``%unload_ext promptkit_nb``."""
    import_module("promptkit_nb.notebook.extension").unload(shell)
