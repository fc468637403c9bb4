# ruff: noqa: I001 - one import for each module
#
# The public names, each with the module that defines it. Type checkers read this file, and so does __init__.py, which
# imports a name when it is first used: a public name is added or removed here, and nowhere else in the package.

from IPython.core.interactiveshell import InteractiveShell

from .chat.budgets import Budget as Budget
from .conversation import Conversation as Conversation
from .errors import (
    AuthenticationError as AuthenticationError,
    BadRequestError as BadRequestError,
    BudgetExceededError as BudgetExceededError,
    ContentFilteredError as ContentFilteredError,
    ContextWindowExceededError as ContextWindowExceededError,
    ConversationChangedError as ConversationChangedError,
    ConversationExistsError as ConversationExistsError,
    ConversationNotFoundError as ConversationNotFoundError,
    ImportSourceError as ImportSourceError,
    InvalidArgumentError as InvalidArgumentError,
    InvalidConversationIdError as InvalidConversationIdError,
    MissingDependencyError as MissingDependencyError,
    MissingVariableError as MissingVariableError,
    PackError as PackError,
    PackNotFoundError as PackNotFoundError,
    PackValidationError as PackValidationError,
    PromptKitError as PromptKitError,
    PromptNotFoundError as PromptNotFoundError,
    ProviderError as ProviderError,
    ProviderTimeoutError as ProviderTimeoutError,
    ProviderUnavailableError as ProviderUnavailableError,
    RateLimitError as RateLimitError,
    ReplayMissError as ReplayMissError,
    SchemaError as SchemaError,
    StoreCorruptedError as StoreCorruptedError,
    StoreError as StoreError,
    StoreUnavailableError as StoreUnavailableError,
    ToolError as ToolError,
)
from .exports.archives import export_store as export_store, import_store as import_store
from .ids import scoped_id as scoped_id
from .imports.chats import import_chats as import_chats
from .imports.report import ImportReport as ImportReport
from .manager import ConversationManager as ConversationManager
from .packs.pack import Pack as Pack, Prompt as Prompt, load_pack as load_pack
from .packs.validation import validate_pack as validate_pack
from .panel.widget import ChatPanel as ChatPanel
from .pricing import Price as Price
from .providers.demo import DemoProvider as DemoProvider
from .providers.openai import OpenAIProvider as OpenAIProvider
from .rendering.responses import Response as Response
from .rows.asking import ask_rows as ask_rows
from .state import ConversationState as ConversationState, Head as Head, Summary as Summary
from .stores.base import StateStore as StateStore
from .stores.disk import DiskStore as DiskStore
from .stores.memory import MemoryStore as MemoryStore
from .stores.redis import RedisStore as RedisStore
from .turns import ContentPart as ContentPart, Message as Message, Turn as Turn, Usage as Usage
from .views.conversations import conversations_df as conversations_df
from .views.dashboard import usage_dashboard as usage_dashboard
from .views.messages import search as search
from .views.messages import messages_df as messages_df
from .views.parquet import export_parquet as export_parquet
from .views.plots import plot_cost as plot_cost, plot_tokens as plot_tokens
from .views.turns import turns_df as turns_df
from .views.usage import usage_df as usage_df

__all__: list[str]  # noqa: PYI035 - the names imported above, sorted
__version__: str

def load_ipython_extension(shell: InteractiveShell) -> None: ...
def unload_ipython_extension(shell: InteractiveShell) -> None: ...
