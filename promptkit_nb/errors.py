"""The exceptions of the package. Each message says what happened, with which value, and what to do.

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
    │   ├── BadRequestError
    │   └── ContentFilteredError
    ├── ContextWindowExceededError
    ├── BudgetExceededError
    ├── ReplayMissError
    ├── SchemaError
    ├── ToolError
    ├── ImportSourceError
    ├── InvalidArgumentError      (also a ValueError)
    └── MissingDependencyError    (also an ImportError)

Exceptions of other libraries are mapped to these with ``raise … from``, which keeps the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.characters import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from promptkit_nb.packs.findings import Finding
    from promptkit_nb.providers.base import Completion
    from promptkit_nb.rendering.responses import Response


class PromptKitError(Exception):
    """Base class of all exceptions that this package raises.

    ``frame`` is what ``ask_rows`` had answered before this error stopped it, else ``None``.

    >>> from promptkit_nb import ConversationManager, DemoProvider, PromptKitError
    >>> try:
    ...     ConversationManager(DemoProvider()).get_conversation("no-such-chat")
    ... except PromptKitError as error:
    ...     print(type(error).__name__)
    ConversationNotFoundError
    """

    frame: pd.DataFrame | None = None

    def __str__(self) -> str:
        """Return the message, in a form that is safe to print in a terminal."""
        return printable(super().__str__())


class PackError(PromptKitError):
    """A PromptPack, or one of its prompts, cannot be used.

    >>> from promptkit_nb import PackError, load_pack
    >>> try:
    ...     load_pack("no-such.pack.json")
    ... except PackError as error:
    ...     print(type(error).__name__)
    PackNotFoundError
    """


class PackNotFoundError(PackError):
    """No pack file exists at this path.

    >>> from promptkit_nb import load_pack
    >>> load_pack("/no/such.pack.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.PackNotFoundError: There is no pack file at /no/such.pack.json. ...
    """


class PackValidationError(PackError):
    """The pack does not follow the PromptPack format.

    ``findings`` lists the problems in the order of the file: all of them if the pack was loaded with ``strict=True``.
    It is empty if the value of a variable caused the error.

    >>> from promptkit_nb import load_pack
    >>> load_pack({"id": "mine", "prompts": {}})
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.PackValidationError: The pack is not a valid pack: at /prompts, it needs at least one prompt.
    """

    def __init__(self, message: str, *, findings: Sequence[Finding] = ()) -> None:
        """Store the findings."""
        super().__init__(message)
        self.findings = findings

    def _repr_html_(self) -> str | None:
        return getattr(self.findings, "_repr_html_", lambda: None)()  # a table, if the findings have one


class PromptNotFoundError(PackError):
    """The pack has no prompt of this name.

    >>> from promptkit_nb import load_pack
    >>> load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach."}}}).prompt("tuto")
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.PromptNotFoundError: Pack 'mine' has no prompt 'tuto', only tutor. Did you mean 'tutor'?
    """


class MissingVariableError(PackError):
    """A variable required by the system prompt has no value.

    >>> from promptkit_nb import Prompt
    >>> Prompt("tutor", {"system_template": "You teach {{subject}}."}).render({})
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.MissingVariableError: Prompt 'tutor' has no value for 'subject'. Give it in variables={...}.
    """


class StoreError(PromptKitError):
    """Reading or writing a conversation failed.

    ``response`` is the paid answer if storing it failed, else ``None``.

    >>> from promptkit_nb import MemoryStore, StoreError
    >>> try:
    ...     MemoryStore().get("no-such-chat")
    ... except StoreError as error:
    ...     print(type(error).__name__, error.response)
    ConversationNotFoundError None
    """

    response: Response | None = None


class ConversationNotFoundError(StoreError):
    """No conversation has this id, or it was deleted.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> manager = ConversationManager(DemoProvider())
    >>> conv = manager.new_conversation(conversation_id="first-chat")
    >>> manager.get_conversation("first-chad")
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.ConversationNotFoundError: There is no conversation 'first-chad'. Did you mean 'first-chat'?
    """


class ConversationExistsError(StoreError):
    """A conversation with this id already exists; nothing was overwritten.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> manager = ConversationManager(DemoProvider())
    >>> conv = manager.new_conversation(conversation_id="hello")
    >>> manager.new_conversation(conversation_id="hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.ConversationExistsError: The conversation 'hello' exists already; nothing was changed. ...
    """


class ConversationChangedError(StoreError):
    """Another process changed the conversation after it was read.

    >>> from promptkit_nb import ConversationState, MemoryStore, Turn
    >>> store = MemoryStore()
    >>> read = store.create(ConversationState("hello")).revision
    >>> _ = store.append("hello", Turn(messages=()))  # by another process
    >>> store.set(ConversationState("hello"), expected_revision=read)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.ConversationChangedError: The conversation 'hello' is at revision 2, not 1: ...
    """


class InvalidConversationIdError(StoreError):
    """The text is not a valid conversation id.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> ConversationManager(DemoProvider()).new_conversation(conversation_id=" ")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.InvalidConversationIdError: ' ' cannot be a conversation id: it is blank. Use any text, ...
    """


class StoreCorruptedError(StoreError):
    """Stored data is damaged.

    ``export_store(store, path, on_damaged=print)`` saves whatever can still be read.

    >>> from promptkit_nb import ConversationState, MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.create(ConversationState("hello"))
    >>> store.backend.put_frame("hello", b"something else")  # as in a damaged file
    >>> store.get("hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.StoreCorruptedError: ...
    """


class StoreUnavailableError(StoreError):
    """The store cannot be reached, opened or written to.

    >>> from promptkit_nb import MemoryStore
    >>> store = MemoryStore()
    >>> store.close()
    >>> store.list()
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.StoreUnavailableError: This MemoryStore is closed; make a new one.
    """


class ProviderError(PromptKitError):
    """The provider failed to answer.

    ``partial`` is the text received before the failure (``""`` if none). ``unsent`` is the user's message, ready to be
    sent again. ``completion`` is what the server reported about the failed answer, such as its usage, or ``None``.

    >>> from promptkit_nb import ConversationManager, OpenAIProvider, ProviderError
    >>> provider = OpenAIProvider("any", base_url="http://127.0.0.1:1/v1", max_retries=0)  # nothing listens there
    >>> conv = ConversationManager(provider).new_conversation()
    >>> try:
    ...     conv.send("Hello")
    ... except ProviderError as error:
    ...     print(type(error).__name__, "· unsent:", error.unsent, "· turns:", len(conv.turns))
    ProviderUnavailableError · unsent: Hello · turns: 0
    """

    partial: str = ""
    unsent: str | None = None
    completion: Completion | None = None

    def __init__(self, message: str, *, partial: str = "") -> None:
        """Store the partial text."""
        super().__init__(message)
        self.partial = partial


class AuthenticationError(ProviderError):
    """The provider rejected the API key, or no key is set.

    >>> from promptkit_nb import ConversationManager, OpenAIProvider
    >>> keyless = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key=""))
    >>> keyless.new_conversation().send("Hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.AuthenticationError: There is no API key for OpenAI. Set OPENAI_API_KEY ...
    """


class RateLimitError(ProviderError):
    """Too many requests, or the quota is exhausted.

    ``retry_after_s`` is the delay that the server asked for, in seconds, or ``None``. ``is_quota_exhausted`` says that
    waiting does not help, because the quota is used up.

    >>> from promptkit_nb import ConversationManager, DemoProvider, RateLimitError
    >>> class BusyProvider(DemoProvider):
    ...     def stream(self, request):
    ...         raise RateLimitError("Too many questions; ask again later.")
    >>> conv = ConversationManager(BusyProvider()).new_conversation()
    >>> try:
    ...     conv.send("Hello")
    ... except RateLimitError as error:
    ...     print(error, error.retry_after_s)
    Too many questions; ask again later. None
    """

    retry_after_s: float | None = None
    is_quota_exhausted: bool = False


class ProviderTimeoutError(ProviderError):
    """The provider did not answer within the timeout.

    >>> import socket
    >>> from promptkit_nb import ConversationManager, OpenAIProvider, ProviderTimeoutError
    >>> with socket.create_server(("127.0.0.1", 0)) as silent:
    ...     url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
    ...     conv = ConversationManager(OpenAIProvider("any", base_url=url, timeout=0.1)).new_conversation()
    ...     try:
    ...         conv.send("Hello")
    ...     except ProviderTimeoutError as error:
    ...         print("unsent:", error.unsent)
    unsent: Hello
    """


class ProviderUnavailableError(ProviderError):
    """The provider cannot be reached, had an internal error, or broke off in the middle of an answer.

    >>> from promptkit_nb import ConversationManager, OpenAIProvider
    >>> provider = OpenAIProvider("any", base_url="http://127.0.0.1:1/v1", max_retries=0)  # nothing listens there
    >>> ConversationManager(provider).new_conversation().send("Hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.ProviderUnavailableError: 127.0.0.1:1 cannot be reached (...). Check the network ...
    """


class BadRequestError(ProviderError):
    """The provider rejected the request as invalid.

    >>> from promptkit_nb import BadRequestError, ConversationManager, DemoProvider
    >>> class PoliteProvider(DemoProvider):
    ...     def stream(self, request):
    ...         raise BadRequestError("Please ask a question.")
    >>> ConversationManager(PoliteProvider()).new_conversation().send("Hello")
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.BadRequestError: Please ask a question.
    """


class ContentFilteredError(ProviderError):
    """The provider's content filter refused the request or its answer; nothing is stored.

    >>> from promptkit_nb import ContentFilteredError, ConversationManager, DemoProvider
    >>> class StrictProvider(DemoProvider):
    ...     def stream(self, request):
    ...         raise ContentFilteredError("The provider's filter refused this answer. Rephrase the message.")
    >>> conv = ConversationManager(StrictProvider()).new_conversation()
    >>> try:
    ...     conv.send("Hello")
    ... except ContentFilteredError as error:
    ...     print("turns:", len(conv.turns), "· unsent:", error.unsent)
    turns: 0 · unsent: Hello
    """


class ContextWindowExceededError(PromptKitError):
    """The request does not fit into the context window: ``max_tokens``, or the model's own.

    ``limit_tokens`` is the size of the window and ``request_tokens`` that of the request, each ``None`` if unknown.
    ``partial``, ``unsent`` and ``completion`` are as in ``ProviderError``.

    >>> from promptkit_nb import ContextWindowExceededError, ConversationManager, DemoProvider
    >>> conv = ConversationManager(DemoProvider()).new_conversation(max_tokens=12)
    >>> try:
    ...     conv.send("My name is Alice, and I have a long story to tell")
    ... except ContextWindowExceededError as error:
    ...     print(error.request_tokens, "tokens, more than", error.limit_tokens)
    20 tokens, more than 12
    """

    partial: str = ""
    unsent: str | None = None
    completion: Completion | None = None

    def __init__(
        self, message: str, *, limit_tokens: int | None = None, request_tokens: int | None = None, partial: str = ""
    ) -> None:
        """Store the sizes and the partial text."""
        super().__init__(message)
        self.partial = partial
        self.limit_tokens = limit_tokens
        self.request_tokens = request_tokens


class BudgetExceededError(PromptKitError):
    """The call would exceed the budget and was not sent.

    >>> from promptkit_nb import Budget, ConversationManager, OpenAIProvider
    >>> manager = ConversationManager(OpenAIProvider("gpt-4o", api_key="unused"), budget=Budget("0.001"))
    >>> manager.new_conversation().send("Hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.BudgetExceededError: The budget of $0.001 in this conversation would be exceeded: ...
    """


class ReplayMissError(PromptKitError):
    """Strict replay found no recorded answer for this request; nothing was sent.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> ConversationManager(DemoProvider(), replay="strict").new_conversation().send("Hello")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.ReplayMissError: No recorded answer to 'Hello' by 'demo': ...
    """


class SchemaError(PromptKitError):
    """The model gave no valid typed answer, although it was asked twice; nothing is stored.

    >>> from promptkit_nb import SchemaError
    >>> issubclass(SchemaError, Exception)
    True
    """


class ToolError(PromptKitError):
    """The model called tools without coming to an answer, so the turn was ended; nothing is stored.

    What a tool itself raises is not an error of the call: the model is told, and goes on.

    >>> from promptkit_nb import ToolError
    >>> issubclass(ToolError, Exception)
    True
    """


class ImportSourceError(PromptKitError):
    """``import_chats`` cannot read a source: it is not in a supported format, or cannot be accessed.

    >>> import tempfile
    >>> from promptkit_nb import ImportSourceError, MemoryStore, import_chats
    >>> try:
    ...     import_chats(tempfile.mkdtemp(), MemoryStore())
    ... except ImportSourceError as error:
    ...     print(type(error).__name__)
    ImportSourceError
    """


class InvalidArgumentError(PromptKitError, ValueError):
    """An argument is out of range or of the wrong type.

    >>> from promptkit_nb import MemoryStore
    >>> MemoryStore().list(limit=-1)
    Traceback (most recent call last):
        ...
    promptkit_nb.errors.InvalidArgumentError: limit=-1 is out of range; give a whole number from 0.
    """


class MissingDependencyError(PromptKitError, ImportError):
    """An optional package is not installed.

    >>> from promptkit_nb import MissingDependencyError
    >>> try:
    ...     raise MissingDependencyError("RedisStore needs redis: pip install 'promptkit-nb[redis]'")
    ... except ImportError as error:
    ...     print(error)
    RedisStore needs redis: pip install 'promptkit-nb[redis]'
    """
