"""The manager: starts, opens, lists and deletes the conversations of one store, answered by one provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from itertools import count
from typing import TYPE_CHECKING, TypeVar, Unpack, cast, get_args

from promptkit_nb.characters import terminal_text
from promptkit_nb.chat.budgets import Budget
from promptkit_nb.chat.options import ReplayMode, check_model, check_replay, check_tokens
from promptkit_nb.chat.request import rendered_prompt
from promptkit_nb.conversation import Conversation, ConversationFactory
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.exports.archives import read_conversation
from promptkit_nb.ids import is_same_id, new_conversation_id
from promptkit_nb.json_values import json_copy
from promptkit_nb.packs.pack import Pack, Prompt, load_pack
from promptkit_nb.plain import plain
from promptkit_nb.rendering.conversations import MAX_SHOWN_HEADS, HeadTable
from promptkit_nb.state import ContextPolicy, ConversationState, Settings
from promptkit_nb.stores.base import clock_of
from promptkit_nb.stores.checks import check_store
from promptkit_nb.stores.memory import MemoryStore
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.text.near_names import similar_names
from promptkit_nb.turns import Turn, utc_now

if TYPE_CHECKING:
    import os
    from datetime import datetime

    import pandas as pd

    from promptkit_nb.providers.base import Provider
    from promptkit_nb.state import Head
    from promptkit_nb.stores.base import SortKey, StateStore
    from promptkit_nb.tools.tool import Approval, Tool
    from promptkit_nb.views.filters import FrameArguments, RowFrameArguments


F = TypeVar("F", bound="Callable[..., object]")

LISTED_AT_ONCE = 60
"""How many conversations are read at once to show the newest: a few more than are shown."""


class ConversationManager:
    """Starts, opens, lists and deletes conversations.

    Args:
        provider: The provider, such as ``OpenAIProvider("gpt-4o-mini")`` or ``DemoProvider()``.
        store: Where conversations are stored; by default in this process's memory (``MemoryStore()``).
        budget: What may be spent, such as ``Budget(5, per="day")``, or a list of budgets.
        replay: Whether to replay stored answers: ``"off"``, ``"auto"`` or ``"strict"``, as in ``Conversation.send``.
        recording: Turns from elsewhere that may be replayed, too.
        clock: Returns the time; tests set it.

    >>> from promptkit_nb import ConversationManager, DemoProvider
    >>> manager = ConversationManager(provider=DemoProvider())
    >>> conv = manager.new_conversation(system_prompt="You help.", user_id="alice", conversation_id="first")
    >>> conv.send("My name is Alice").cost
    Decimal('0')
    >>> manager.get_conversation("first").turns[0].user_text
    'My name is Alice'
    """

    def __init__(
        self,
        provider: Provider,
        store: StateStore | None = None,
        *,
        budget: Budget | Sequence[Budget] | None = None,
        replay: ReplayMode = "off",
        recording: Sequence[Turn] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Combine a provider and a store."""
        if not (callable(getattr(provider, "stream", None)) and callable(getattr(provider, "price", None))):
            raise InvalidArgumentError(
                f"provider={provider!r:.80} is not a provider: give OpenAIProvider(…), DemoProvider() or your own."
            )
        if store is not None:
            check_store(store)
        self.provider = provider
        self.store: StateStore = MemoryStore() if store is None else store
        self.budgets = _budgets_of(budget)
        self._replay = check_replay(replay)
        self._recording = tuple(recording)
        self._clock = clock
        self._tools: dict[str, Tool] = {}

    def for_user(self, user_id: str) -> ConversationManager:
        """Return the same manager, narrowed to one user, its ``store`` too.

        It creates, lists, reads, forks and deletes that user's conversations only. Another user's id raises
        ``ConversationNotFoundError``, as if it did not exist; creating it raises ``ConversationExistsError``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation(user_id="bob")
        >>> alice = manager.for_user("alice")
        >>> alice.new_conversation().user_id, len(alice.list_conversations()), len(manager.list_conversations())
        ('alice', 1, 2)
        """
        if not callable(getattr(self.store, "for_user", None)):
            raise InvalidArgumentError(
                f"store={self.store!r:.80} has no for_user(), so it cannot be narrowed to {user_id!r}; derive its "
                "class from StateStore, and honor self.user_id in every call."
            )
        store = self.store.for_user(user_id)
        if store is self.store:
            return self
        narrowed = copy(self)
        narrowed.store, narrowed._tools = store, self._tools  # noqa: SLF001 - of its own class
        return narrowed

    def load_pack(self, path: str | os.PathLike[str] | Mapping[str, object], *, strict: bool = False) -> Pack:
        """Read a PromptPack, from a file or as parsed JSON; the same as ``promptkit_nb.load_pack``.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> manager.load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "You teach."}}}).prompts.keys()
        dict_keys(['tutor'])
        """
        return load_pack(path, strict=strict)

    def register_tool(
        self,
        function: F,
        *,
        name: str | None = None,
        timeout: float | None = None,
        approve: Approval = "never",
    ) -> F:
        """Let the model call a function in all conversations of this manager; return the function.

        Its schema comes from its signature, type hints and docstring. In a conversation with a pack's prompt, only the
        tools that the prompt lists are offered; a function with the name of a pack's tool gets the pack's description
        and schema. Registering a name again replaces its tool.

        Args:
            function: What to call. It runs in the thread that asks, and what it raises is told to the model.
            name: The name that the model uses; by default the function's.
            timeout: The longest run in seconds, if it is called in the main thread.
            approve: ``"never"`` runs every call without asking, ``"ask"`` asks the user, and a function of the name and
                the arguments returns whether to run it, or a text with the reason not to.

        Raises ``InvalidArgumentError`` for a function that a model cannot call, and says what to change.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> @manager.register_tool
        ... def add(a: int, b: int) -> int:
        ...     "Add two numbers."
        ...     return a + b
        >>> manager.new_conversation().send("What is add(a=2, b=3)?").tool_results
        (5,)
        """
        from promptkit_nb.tools.tool import Tool  # noqa: PLC0415 - pydantic, imported when tools are used

        tool = Tool.of(function, name=name, timeout=timeout, approve=approve)
        self._tools[tool.name] = tool
        return function

    def new_conversation(
        self,
        pack: Pack | None = None,
        *,
        prompt_name: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        system_prompt: str | None = None,
        variables: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        context_policy: ContextPolicy = "truncate",
        metadata: Mapping[str, object] | None = None,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Conversation:
        """Start a conversation; it is stored, and listed, at once.

        Args:
            pack: The pack with the system prompt, or ``None``.
            prompt_name: Which of its prompts; optional if the pack has only one.
            user_id: The user it belongs to; by default the manager's user, else ``"default"``.
            conversation_id: Any text; by default a new id that sorts by time.
            system_prompt: The system prompt without a pack; it is sent unchanged, not rendered as a template.
            variables: Values of the prompt's variables; they may also be set later.
            max_tokens: The context window: the most tokens of a whole request.
            context_policy: What happens beyond it: ``"truncate"`` leaves the oldest turns out of the request,
                ``"summarize"`` lets the model summarize them, ``"error"`` raises ``ContextWindowExceededError``. The
                store keeps the whole history.
            metadata: JSON values to store with the conversation.
            model: The conversation's model; by default each call uses the provider's.
            parameters: Such as ``{"temperature": 0.2}``; they override those of the prompt.

        Raises ``ConversationExistsError`` if the id is taken; nothing is ever overwritten.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> pack = manager.load_pack({"id": "mine", "prompts": {"tutor": {"system_template": "Teach {{subject}}."}}})
        >>> manager.new_conversation(pack, variables={"subject": "algebra"}, user_id="alice").messages[0].content
        'Teach algebra.'
        """
        if pack is None and prompt_name is not None:
            raise _no_pack("new_conversation(pack, …)", prompt_name)
        if pack is not None and system_prompt is not None:
            raise InvalidArgumentError(
                "Give a pack or a system_prompt, not both: the pack's prompt is the system prompt."
            )
        settings = Settings(
            model=check_model(model),
            parameters=_json_of(parameters, "parameters"),
            max_tokens=check_tokens("max_tokens", max_tokens),
            context_policy=_checked_policy(context_policy),
            prompt=None if pack is None else _prompt_in(pack, prompt_name).snapshot(),
            variables=_json_of(variables, "variables"),
        )
        now = clock_of(self.store, self._clock)()
        state = ConversationState(
            conversation_id=new_conversation_id(now) if conversation_id is None else conversation_id,
            user_id=(getattr(self.store, "user_id", None) or "default") if user_id is None else user_id,
            system_prompt=system_prompt if pack is None else rendered_prompt(settings),
            settings=settings,
            metadata=_json_of(metadata, "metadata"),
            created_at=now,
            updated_at=now,
        )
        self.store.create(state)
        return self._opened(state.conversation_id)

    def get_conversation(
        self, conversation_id: str, *, pack: Pack | None = None, prompt_name: str | None = None
    ) -> Conversation:
        """Resume a conversation with its stored system prompt, variables and settings.

        A pack given here replaces the stored prompt from the next request on; otherwise the pack's file may be gone.
        Raises ``ConversationNotFoundError`` for an unknown id, naming near matches.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation(conversation_id="persistent-chat").send("My name is Alice")
        >>> manager.get_conversation("persistent-chat").send("What's my name?").content
        '[demo] Your name is Alice.'
        """
        if pack is None and prompt_name is not None:
            raise _no_pack("get_conversation(id, pack=pack, …)", prompt_name)
        try:
            conversation = self._opened(conversation_id)
        except ConversationNotFoundError as error:
            raise self._with_near_matches(error, conversation_id) from None
        if pack is not None:
            conversation.use_prompt(_prompt_in(pack, prompt_name))
        return conversation

    def open_conversation(
        self,
        pack: Pack | None = None,
        *,
        conversation_id: str,
        prompt_name: str | None = None,
        user_id: str | None = None,
        system_prompt: str | None = None,
        variables: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        context_policy: ContextPolicy = "truncate",
        metadata: Mapping[str, object] | None = None,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Conversation:
        """Resume the conversation with this id, or start it; the arguments are those of ``new_conversation``.

        Raises ``ConversationExistsError`` if ``user_id`` is given and the id belongs to another user.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> for _ in range(2):
        ...     print(manager.open_conversation(conversation_id="daily").send("Hello").turn.user_text)
        Hello
        Hello
        >>> len(manager.get_conversation("daily").turns)
        2
        """
        try:
            return self.new_conversation(
                pack,
                prompt_name=prompt_name,
                user_id=user_id,
                conversation_id=conversation_id,
                system_prompt=system_prompt,
                variables=variables,
                max_tokens=max_tokens,
                context_policy=context_policy,
                metadata=metadata,
                model=model,
                parameters=parameters,
            )
        except ConversationExistsError:
            with suppress(ConversationNotFoundError):
                if user_id is None or is_same_id(user_id, self.store.head(conversation_id).user_id):
                    return self.get_conversation(conversation_id, pack=pack, prompt_name=prompt_name)
            raise

    def list_conversations(  # noqa: PLR0917 - as in the store's list()
        self,
        prefix: str | None = None,
        user_id: str | None = None,
        sort_by: SortKey = "updated_at",
        descending: bool = True,  # noqa: FBT001, FBT002 - as above
        limit: int | None = None,
        offset: int = 0,
    ) -> HeadTable:
        """Return the heads of the conversations whose id begins with ``prefix``, of one user or all, newest first.

        The list is shown as a table.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation(conversation_id="user:alice:1", user_id="alice")
        >>> [head.conversation_id for head in manager.list_conversations(prefix="user:alice:")]
        ['user:alice:1']
        """
        return HeadTable(self.store.list(prefix, user_id, sort_by, descending=descending, limit=limit, offset=offset))

    def newest_conversations(
        self, prefix: str | None = None, user_id: str | None = None, *, imported: bool = True
    ) -> HeadTable:
        """Return the newest 50 of what ``list_conversations`` returns; the table says how many that has.

        With ``imported=False``, conversations of other tools are left out.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = [manager.new_conversation(conversation_id=f"chat-{number}") for number in range(60)]
        >>> repr(manager.newest_conversations()).splitlines()[-1]
        '50 of 60 conversations'
        """
        if not isinstance(self.store, RowStore):
            listed = self.list_conversations(prefix, user_id)
            return HeadTable(each for each in listed if imported or each.kind != "imported")
        heads: list[Head] = []
        for offset in count(0, LISTED_AT_ONCE):
            page = self.store.list(prefix, user_id, limit=LISTED_AT_ONCE, offset=offset)
            heads += [each for each in page if imported or each.kind != "imported"]
            if len(heads) >= MAX_SHOWN_HEADS:
                return HeadTable(heads[:MAX_SHOWN_HEADS], count=self.store.count(prefix, user_id))
            if len(page) < LISTED_AT_ONCE:
                return HeadTable(heads)
        raise AssertionError

    def delete_conversation(self, conversation_id: str, *, keep_spending: bool = True) -> None:
        """Delete a conversation permanently; raise ``ConversationNotFoundError`` if it does not exist.

        ``usage_df`` still counts what it cost, without its id, unless ``keep_spending`` is false.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> conv = manager.new_conversation(conversation_id="hello")
        >>> manager.delete_conversation("hello")
        >>> manager.list_conversations()
        no conversations
        """
        if keep_spending:  # the default, which custom stores may not have
            self.store.delete(conversation_id)
        else:
            self.store.delete(conversation_id, keep_spending=False)

    def import_conversation(self, path: str | os.PathLike[str]) -> Conversation:
        """Create the conversation that ``Conversation.export`` wrote, with its versions, branches and summaries.

        Raises ``ConversationExistsError`` if its id is taken, ``InvalidArgumentError`` if the file is not an export.

        >>> import tempfile
        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> path = manager.new_conversation(conversation_id="hello").export(f"{tempfile.mkdtemp()}/hello.json")
        >>> ConversationManager(DemoProvider()).import_conversation(path).id
        'hello'
        """
        state = read_conversation(path)
        self.store.create(state)
        return self._opened(state.conversation_id)

    def conversations_df(self, **filters: Unpack[FrameArguments]) -> pd.DataFrame:
        """Return one row per conversation; ``promptkit_nb.conversations_df`` lists the columns and filters.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation(conversation_id="hello")
        >>> list(manager.conversations_df()["conversation_id"])
        ['hello']
        """
        from promptkit_nb.views.conversations import conversations_df  # noqa: PLC0415 - pandas, half a second

        return conversations_df(self.store, **filters)

    def turns_df(self, **filters: Unpack[RowFrameArguments]) -> pd.DataFrame:
        """Return one row per turn; ``promptkit_nb.turns_df`` lists the columns and filters.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation().send("My name is Alice")
        >>> list(manager.turns_df()["user_text"])
        ['My name is Alice']
        """
        from promptkit_nb.views.turns import turns_df  # noqa: PLC0415 - pandas, half a second

        return turns_df(self.store, **filters)

    def messages_df(self, **filters: Unpack[RowFrameArguments]) -> pd.DataFrame:
        """Return one row per message; ``promptkit_nb.messages_df`` lists the columns and filters.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation().send("My name is Alice")
        >>> list(manager.messages_df()["role"])
        ['user', 'assistant']
        """
        from promptkit_nb.views.messages import messages_df  # noqa: PLC0415 - pandas, half a second

        return messages_df(self.store, **filters)

    def usage_df(self, by: str | Sequence[str] = ("day", "model"), **filters: Unpack[FrameArguments]) -> pd.DataFrame:
        """Return tokens and cost; ``promptkit_nb.usage_df`` lists the groupings and filters.

        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> manager = ConversationManager(DemoProvider())
        >>> _ = manager.new_conversation().send("My name is Alice")
        >>> manager.usage_df(by="model")["total_tokens"].to_list()
        [38]
        """
        from promptkit_nb.views.usage import usage_df  # noqa: PLC0415 - pandas, half a second

        return usage_df(self.store, by, **filters)

    def __repr__(self) -> str:
        """Return the provider and the store."""
        return terminal_text(f"<ConversationManager: {self.provider!r}, {self.store!r}>")

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy or a pickle has; another process has no tools, which are functions of this one."""
        return vars(self) | {"_tools": {}}

    def _opened(self, conversation_id: str) -> Conversation:
        return self.factory.open(conversation_id)

    @property
    def factory(self) -> ConversationFactory:
        """What opens the conversations of this manager."""
        return ConversationFactory(
            provider=self.provider,
            store=self.store,
            budgets=self.budgets,
            replay=self._replay,
            recording=self._recording,
            clock=self._clock,
            tools=self._tools,
        )

    def _with_near_matches(self, error: ConversationNotFoundError, conversation_id: str) -> ConversationNotFoundError:
        near = similar_names(conversation_id, _ids_in(self.store))
        if not near:
            return error
        return ConversationNotFoundError(
            f"There is no conversation {conversation_id!r}. Did you mean {' or '.join(map(repr, near))}?"
        )


def _ids_in(store: StateStore) -> Iterable[str]:
    """Return all ids; stores of this package do not read the conversations for that."""
    return store.conversation_ids() if isinstance(store, RowStore) else (each.conversation_id for each in store.list())


def _no_pack(remedy: str, prompt_name: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"prompt_name={prompt_name!r} needs a pack: {remedy}.")


def _budgets_of(budget: Budget | Sequence[Budget] | None) -> tuple[Budget, ...]:
    budgets = () if budget is None else (budget,) if isinstance(budget, Budget) else budget
    if isinstance(budgets, (list, tuple)) and all(isinstance(each, Budget) for each in budgets):
        return tuple(budgets)
    raise InvalidArgumentError(f'budget={budget!r:.80} is not a budget: give Budget(5, per="day"), or a list of these.')


def _checked_policy(policy: object) -> ContextPolicy:
    if policy in get_args(ContextPolicy):
        return cast("ContextPolicy", plain(policy))
    near = similar_names(str(policy), get_args(ContextPolicy))
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InvalidArgumentError(
        f"context_policy={policy!r:.80} is unknown: use {', '.join(map(repr, get_args(ContextPolicy)))}.{hint}"
    )


def _json_of(values: Mapping[str, object] | None, name: str) -> dict[str, object]:
    if values is not None and not isinstance(values, Mapping):
        raise InvalidArgumentError(f"{name}={values!r:.80} is not a dict: give names and values, as in {{'name': 1}}.")
    copied: dict[str, object] = json_copy(values or {}, name)
    return copied


def _prompt_in(pack: Pack, name: str | None) -> Prompt:
    if not isinstance(pack, Pack):
        raise InvalidArgumentError(f"pack={pack!r:.80} is not a pack: load it first, with load_pack(path).")
    return pack.prompt(name)
