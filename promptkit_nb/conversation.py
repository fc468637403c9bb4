"""A conversation to talk in: it reads its state from the store, asks the provider, and keeps each turn whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from promptkit_nb.archives import write_conversation
from promptkit_nb.codec import json_copy
from promptkit_nb.context_hash import chain_of, context_hash_of, replay_key_of
from promptkit_nb.errors import ConversationChangedError, InvalidArgumentError, MissingVariableError
from promptkit_nb.history import History
from promptkit_nb.packs import Prompt
from promptkit_nb.providers.base import ChatRequest
from promptkit_nb.streaming import Origin, ResponseStream
from promptkit_nb.turns import Message, utc_now

if TYPE_CHECKING:
    import os
    from datetime import datetime
    from decimal import Decimal
    from pathlib import Path

    from promptkit_nb.providers.base import Provider
    from promptkit_nb.responses import Response
    from promptkit_nb.running_cell import CellCall
    from promptkit_nb.state import ConversationState, Settings, Summary
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn


class Conversation:
    """One user's conversation; got from a ``ConversationManager``.

    Everything it tells is what the store holds now, whoever wrote it. A handle may be used by several threads: their
    ``send`` calls follow each other.
    """

    def __init__(
        self,
        state: ConversationState,
        store: StateStore,
        provider: Provider,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Stand for a conversation that the store holds."""
        self._store = store
        self._provider = provider
        self._clock = clock
        self._state = state
        self._chain = chain_of(state.turns, state.context_hash)
        self._sending = threading.RLock()

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._state.conversation_id

    @property
    def user_id(self) -> str:
        """Whose conversation it is."""
        return self._state.user_id

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The current turns, oldest first."""
        return self._fresh().turns

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message first, if there is one, then those of the turns."""
        return self._fresh().messages

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The summaries that were made of earlier turns."""
        return self._fresh().summaries

    @property
    def metadata(self) -> Mapping[str, object]:
        """JSON values that belong to the conversation; ``store.update_metadata(id, …)`` changes them."""
        return MappingProxyType(dict(self._store.head(self.id).metadata))

    @property
    def variables(self) -> Variables:
        """The values of the prompt's variables; a change is stored at once and effective at the next send."""
        return Variables(self)

    @property
    def token_count(self) -> int:
        """All tokens ever spent here; it never falls."""
        return self._store.head(self.id).token_count

    @property
    def total_cost(self) -> Decimal | None:
        """All known costs ever spent here in US dollars; ``None`` if no turn has a price."""
        return self._store.head(self.id).total_cost

    @property
    def unpriced_turns(self) -> int:
        """How many turns are missing in ``total_cost``, because their price is unknown."""
        return self._store.head(self.id).unpriced_turns

    def history(self) -> History:
        """Return what was said: rich in a notebook; in text the role, the first 60 characters, and the totals."""
        return History.of(self._fresh().messages, self._store.head(self.id))

    def send(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
    ) -> Response:
        """Say something, wait for the answer, and keep both as a turn.

        A failed call raises a ``ProviderError`` and stores nothing. Ctrl-C after some text keeps the partial answer.

        Args:
            text: What the user says; it is never treated as a template.
            model: The model of this call; else the conversation's, else the provider's.
            parameters: Such as ``{"temperature": 0.2}``, over those of the conversation and its prompt.
            max_output_tokens: The most the answer may have, in tokens.
        """
        with self._sending:
            stream = self.stream(text, model=model, parameters=parameters, max_output_tokens=max_output_tokens)
            for _ in stream:
                pass
        if stream.response is None:  # a provider of somebody's own ended without saying so
            raise InvalidArgumentError(
                f"The provider {self._provider.name!r} ended its stream without a Completion; nothing was stored."
            )
        return stream.response

    def stream(
        self,
        text: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
        cell: CellCall | None = None,
        on_waiting: Callable[[float, str], None] | None = None,
    ) -> ResponseStream:
        """Say something and iterate over the answer as it comes; the arguments are those of ``send``.

        ``cell`` is the notebook cell that asks. ``on_waiting`` is called with seconds and a reason whenever the
        provider waits before trying again.
        """
        _check_text(text)
        state = self._fresh()
        question = Message("user", text, timestamp=self._clock())
        request = self._request(
            state, question, model=model, parameters=parameters, max_output_tokens=max_output_tokens
        )
        return ResponseStream(
            self._provider,
            request,
            question,
            self._origin(state, request, question, cell),
            keep=self._keep,
            clock=self._clock,
            on_waiting=on_waiting,
        )

    def use_prompt(self, prompt: Prompt) -> None:
        """Talk with this prompt of a pack from the next request on."""
        chosen = prompt.snapshot()
        if chosen != self._fresh().settings.prompt:
            self._change_settings(lambda settings: replace(settings, prompt=chosen))

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the conversation, with versions, branches and summaries, to a JSON file; return its absolute path.

        Raises ``StoreUnavailableError`` where the file cannot be written; what stood there before stays.
        """
        return write_conversation(self._store.get(self.id), path)

    def is_served_by(self, provider: Provider, store: StateStore) -> bool:
        """Return whether this handle talks to this provider and this store."""
        return self._provider is provider and self._store is store

    def __repr__(self) -> str:
        """Say which conversation it is."""
        count = len(self._state.turns)
        return f"<Conversation {self.id!r} of {self.user_id!r}, {count} {'turn' if count == 1 else 'turns'}>"

    def _repr_html_(self) -> str:
        return self.history()._repr_html_()

    def _request(
        self,
        state: ConversationState,
        question: Message,
        *,
        model: str | None,
        parameters: Mapping[str, object] | None,
        max_output_tokens: int | None,
    ) -> ChatRequest:
        chosen_model = model or state.settings.model or self._provider.model
        prompt = _prompt_of(state.settings)
        merged = {
            **({} if prompt is None else prompt.parameters_for(chosen_model)),
            **state.settings.parameters,
            **_without_none(parameters or {}),
        }
        # In a pack, as in OpenAI's older requests, `max_tokens` among the parameters bounds the answer.
        longest = merged.pop("max_tokens", None) if max_output_tokens is None else max_output_tokens
        merged.pop("max_tokens", None)
        system_prompt = _system_prompt_of(state, prompt, chosen_model)
        system = () if system_prompt is None else (Message("system", system_prompt),)
        said = [message for turn in state.turns for message in turn.messages]
        return ChatRequest(
            model=chosen_model,
            messages=[*system, *said, question],
            parameters=merged,
            max_output_tokens=_checked_limit(longest),
        )

    def _origin(
        self, state: ConversationState, request: ChatRequest, question: Message, cell: CellCall | None
    ) -> Origin:
        first = request.messages[0]
        context_hash = context_hash_of(first.content if first.role == "system" else None, self._chain)
        replay_key = replay_key_of(
            context_hash,
            question,
            model=request.model,
            parameters=request.parameters,
            max_output_tokens=request.max_output_tokens,
            tools=request.tools,
            max_tokens=state.settings.max_tokens,
            context_policy=state.settings.context_policy,
        )
        return Origin(conversation_id=self.id, context_hash=context_hash, replay_key=replay_key, cell=cell)

    def _fresh(self) -> ConversationState:
        """Return the state as the store holds it now, read again only where somebody else wrote it."""
        if self._store.head(self.id).revision != self._state.revision:
            self._state = self._store.get(self.id)
            self._chain = chain_of(self._state.turns, self._state.context_hash)
        return self._state

    def _keep(self, turn: Turn) -> None:
        head = self._store.append(self.id, turn, create=False)
        if head.revision == self._state.revision + 1:  # nobody else wrote in between
            self._chain = chain_of([turn], self._chain)
            self._state = replace(
                self._state,
                turns=(*self._state.turns, turn),
                updated_at=head.updated_at,
                revision=head.revision,
            )

    def _change_settings(self, change: Callable[[Settings], Settings]) -> None:
        while True:
            state = self._store.get(self.id)
            settings = change(state.settings)
            system_prompt = state.system_prompt if settings.prompt is None else rendered_prompt(settings)
            changed = replace(state, settings=settings, system_prompt=system_prompt)
            try:
                self._store.set(changed, expected_revision=state.revision)
            except ConversationChangedError:
                continue  # a turn landed meanwhile: begin again with it
            return


class Variables(MutableMapping[str, object]):
    """The values of a prompt's variables, as the store holds them."""

    def __init__(self, conversation: Conversation) -> None:
        """Look at the variables of a conversation."""
        self._conversation = conversation

    def __getitem__(self, name: str) -> object:
        """Return the value of one variable."""
        return self._values()[name]

    def __setitem__(self, name: str, value: object) -> None:
        """Set one variable: stored at once, effective at the next send."""
        self.update({name: value})

    def update(self, *changes: Mapping[str, object], **more: object) -> None:  # type: ignore[override]  # mappings only
        """Set several variables at once."""
        changed = json_copy({key: value for each in (*changes, more) for key, value in each.items()}, "variables")
        self._change(lambda values: {**values, **changed})

    def __delitem__(self, name: str) -> None:
        """Let a variable fall back to its default."""
        if name not in self._values():
            raise KeyError(name)
        self._change(lambda values: {key: value for key, value in values.items() if key != name})

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._values())

    def __len__(self) -> int:
        """Return how many are set."""
        return len(self._values())

    def __repr__(self) -> str:
        """Show them as a dict."""
        return repr(dict(self._values()))

    def _values(self) -> Mapping[str, object]:
        return self._conversation._fresh().settings.variables  # noqa: SLF001 - a part of the conversation

    def _change(self, change: Callable[[Mapping[str, object]], Mapping[str, object]]) -> None:
        self._conversation._change_settings(  # noqa: SLF001 - a part of the conversation
            lambda settings: replace(settings, variables=change(settings.variables))
        )


def rendered_prompt(settings: Settings) -> str | None:
    """Return the system prompt that the settings give; ``None`` without a prompt, or while a variable is missing."""
    prompt = _prompt_of(settings)
    if prompt is None:
        return None
    try:
        return prompt.render(settings.variables, model=settings.model)
    except MissingVariableError:
        return None  # it may be set before the first send, which renders again and raises


def _prompt_of(settings: Settings) -> Prompt | None:
    return None if settings.prompt is None else Prompt.from_snapshot(settings.prompt)


def _system_prompt_of(state: ConversationState, prompt: Prompt | None, model: str) -> str | None:
    return state.system_prompt if prompt is None else prompt.render(state.settings.variables, model=model)


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise InvalidArgumentError(f"A message is text, not {type(text).__name__}: {text!r:.60}.")
    if not text.strip():
        raise InvalidArgumentError("The message is empty: say something.")


def _checked_limit(tokens: object) -> int | None:
    if tokens is None or (isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1):
        return tokens
    raise InvalidArgumentError(f"max_output_tokens={tokens!r} is out of range: give a whole number from 1.")


def _without_none(parameters: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(parameters, Mapping):
        raise InvalidArgumentError(f'parameters={parameters!r} is no dict, such as {{"temperature": 0.2}}.')
    return {name: value for name, value in parameters.items() if value is not None}
