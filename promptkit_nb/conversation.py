"""A conversation to talk in: it reads its state from the store, asks the provider, and keeps each turn whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from promptkit_nb.archives import write_conversation
from promptkit_nb.context_hash import chain_of
from promptkit_nb.errors import ConversationChangedError, InvalidArgumentError
from promptkit_nb.history import History
from promptkit_nb.plain_text import counted
from promptkit_nb.requests import check_text, hashes_of, rendered_prompt, request_for
from promptkit_nb.state import ConversationState
from promptkit_nb.streaming import Origin, ResponseStream
from promptkit_nb.turns import Message, utc_now
from promptkit_nb.variable_values import VariableValues

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from decimal import Decimal
    from pathlib import Path

    from promptkit_nb.prompts import Prompt
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.responses import Response
    from promptkit_nb.running_cell import CellCall
    from promptkit_nb.state import Head, Settings, Summary
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.turns import Turn


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A state as it was read, and the hash of its turns."""

    state: ConversationState
    chain: str

    @classmethod
    def of(cls, state: ConversationState) -> _Snapshot:
        return cls(state, chain_of(state.turns, state.context_hash))

    def is_of(self, head: Head) -> bool:
        """Return whether this is what the head is of, and not of an earlier conversation of the same id."""
        return (self.state.revision, self.state.created_at) == (head.revision, head.created_at)

    def after(self, turn: Turn, head: Head) -> _Snapshot:
        """Return the snapshot with the turn that brought the head about, unless somebody else wrote in between."""
        if head.revision != self.state.revision + 1:
            return self
        turns = (*self.state.turns, turn)
        state = replace(self.state, turns=turns, updated_at=head.updated_at, revision=head.revision)
        return _Snapshot(state, chain_of([turn], self.chain))


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
        self._snapshot = _Snapshot.of(state)
        self._changing = threading.Lock()
        self._sending = threading.RLock()

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._snapshot.state.conversation_id

    @property
    def user_id(self) -> str:
        """Whose conversation it is."""
        return self._snapshot.state.user_id

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The current turns, oldest first."""
        return self._fresh().state.turns

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message first, if there is one, then those of the turns."""
        return self._fresh().state.messages

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The summaries that were made of earlier turns."""
        return self._fresh().state.summaries

    @property
    def metadata(self) -> Mapping[str, object]:
        """JSON values that belong to the conversation; ``store.update_metadata(id, …)`` changes them."""
        return MappingProxyType(dict(self._store.head(self.id).metadata))

    @property
    def variables(self) -> VariableValues:
        """The values of the prompt's variables; a change is stored at once and effective at the next send."""
        return VariableValues(lambda: self._fresh().state.settings, self._change_settings)

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
        return History.of(self._fresh().state.messages, self._store.head(self.id))

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
        check_text(text)
        snapshot = self._fresh()
        settings = snapshot.state.settings
        question = Message("user", text, timestamp=self._clock())
        request = request_for(
            snapshot.state,
            question,
            model=model or settings.model or self._provider.model,
            parameters=parameters,
            max_output_tokens=max_output_tokens,
        )
        context_hash, replay_key = hashes_of(request, settings, snapshot.chain)
        return ResponseStream(
            self._provider,
            request,
            question,
            Origin(conversation_id=self.id, context_hash=context_hash, replay_key=replay_key, cell=cell),
            keep=self._keep,
            clock=self._clock,
            on_waiting=on_waiting,
        )

    def use_prompt(self, prompt: Prompt) -> None:
        """Talk with this prompt of a pack from the next request on."""
        chosen = prompt.snapshot()
        if chosen != self._fresh().state.settings.prompt:
            self._change_settings(lambda settings: replace(settings, prompt=chosen))

    def fork(self, new_id: str) -> Conversation:
        """Copy the conversation and go on in the copy, which is independent from then on.

        The copied turns are ``inherited``: in no total of the copy. Raises ``ConversationExistsError`` if the id is
        taken; nothing is overwritten.
        """
        self._store.fork(self.id, new_id)
        return Conversation(self._store.get(new_id), self._store, self._provider, clock=self._clock)

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
        count = len(self._snapshot.state.turns)
        return f"<Conversation {self.id!r} of {self.user_id!r}, {counted(count, 'turn')}>"

    def _repr_html_(self) -> str:
        return self.history()._repr_html_()

    def _fresh(self) -> _Snapshot:
        """Return what the store holds now, read again only where somebody else wrote it."""
        head = self._store.head(self.id)
        with self._changing:
            if not self._snapshot.is_of(head):
                self._snapshot = _Snapshot.of(self._store.get(self.id))
            return self._snapshot

    def _keep(self, turn: Turn) -> None:
        head = self._store.append(self.id, turn, create=False)
        with self._changing:
            self._snapshot = self._snapshot.after(turn, head)

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
