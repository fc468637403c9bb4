"""The conversation of a run, ``rows:NAME``: it is asked row by row, and its stored answers are read in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptkit_nb.chat.stored_conversation import Snapshot
from promptkit_nb.context_hash import EMPTY_HASH
from promptkit_nb.conversation import Conversation, ConversationFactory
from promptkit_nb.endings import is_replayable
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError, InvalidArgumentError
from promptkit_nb.providers.openai_client import RetryPolicy
from promptkit_nb.rows.machine_lock import MachineLock
from promptkit_nb.state import ConversationState, Settings
from promptkit_nb.stores.row_reader import RowReader
from promptkit_nb.stores.row_store import RowStore
from promptkit_nb.text.plain_text import preview
from promptkit_nb.tools.answer_types import AnswerType
from promptkit_nb.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from promptkit_nb.chat.options import CallOptions
    from promptkit_nb.chat.request import RequestSettings
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.manager import ConversationManager
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.state import Head
    from promptkit_nb.text.cell_text import CellText
    from promptkit_nb.turns import Message, Turn

PREFIX = "rows:"
"""The ids of runs begin with this."""

ASKED = "rows"
"""The key in the metadata of a run for what was asked last."""

_READ_AT_ONCE = 1000


class RowConversation(Conversation):
    """A run's conversation. Each row is asked with the system prompt alone, whatever was stored before."""

    def __init__(self, state: ConversationState, factory: ConversationFactory, options: CallOptions) -> None:
        """Ask with these options; ``state`` has no turns."""
        super().__init__(state, factory)
        self._without_turns = Snapshot.of(state)
        answer_type = None if options.schema is None else AnswerType.of(options.schema)
        toolbox = None if answer_type is None else Toolbox.of((), {})
        self._options = replace(options, schema=None, tools=(), toolbox=toolbox, answer_type=answer_type)
        self.settings: RequestSettings = self._services.settings(state, self._options)

    @classmethod
    def of(
        cls,
        manager: ConversationManager,
        name: str,
        *,
        system_prompt: str | None,
        options: CallOptions,
    ) -> RowConversation:
        """Return the conversation of a name, which need not be stored yet.

        Its provider does not wait by itself if the server limits the rate: the run's workers wait together.
        """
        state = ConversationState(
            conversation_id=f"{PREFIX}{name}",
            user_id=getattr(manager.store, "user_id", None) or "default",
            system_prompt=system_prompt,
            settings=Settings(kind="rows"),
        )
        factory = replace(manager.factory, provider=_patient(manager.provider), replay="off", recording=(), tools={})
        return cls(state, factory, options)

    @property
    def answer_type(self) -> AnswerType | None:
        """What an answer must be."""
        return self._options.answer_type

    @property
    def asked(self) -> dict[str, Any]:
        """What the answers depend on, besides the template."""
        settings = self.settings
        return {
            "system_prompt": settings.system_prompt,
            "schema": None if self.answer_type is None else self.answer_type.schema,
            "model": settings.model,
            "parameters": dict(settings.parameters),
            "max_output_tokens": settings.max_output_tokens,
        }

    def question_of(self, text: CellText) -> Message:
        """Return the message of a row."""
        return self._question(text.text, text.parts)

    def key_of(self, text: CellText) -> bytes:
        """Return what identifies the request of a row: the first half of its replay key."""
        return _short(self.settings.hashes(self.question_of(text), EMPTY_HASH)[1])

    def ask_row(self, text: CellText, row_index: str) -> ResponseStream:
        """Return the answer to a row as it will arrive; it is stored at its end."""
        options = replace(self._options, parts=text.parts, row_index=row_index)
        return self.ask(text.text, options, snapshot=self._without_turns)

    def stored_head(self) -> Head | None:
        """Return the head; ``None`` if nothing is stored. Raises ``InvalidArgumentError`` if another use has the id."""
        try:
            head = self.store.head(self.id)
        except ConversationNotFoundError:
            return None
        if head.kind == "rows" and head.user_id == self.user_id:
            return head
        raise InvalidArgumentError(
            f"The conversation {self.id!r} is not a run of yours over rows: choose another name=."
        )

    def start(self, template: str) -> None:
        """Store the conversation if it is new, and what is asked from now on."""
        asked = self._asked_with(template)
        try:
            self.store.create(replace(self._without_turns.state, metadata={ASKED: asked}))
        except ConversationExistsError:
            head = self.stored_head()
            if head is None:  # another user's
                raise
        else:
            return
        known = head.metadata.get(ASKED)
        if known == asked:
            return
        self.store.update_metadata(self.id, **{ASKED: asked})
        if not isinstance(known, Mapping) or known.get("system_prompt") != self.settings.system_prompt:
            self.store.update_settings(self.id, Settings(kind="rows"), system_prompt=self.settings.system_prompt)

    def machine_lock(self) -> MachineLock:
        """Return the lock of this run on this machine; two stores may have runs of the same name."""
        head = self.store.head(self.id)
        return MachineLock(f"{self.id} {self.user_id} {head.created_at.isoformat()}")

    def changes(self, template: str, head: Head | None) -> list[str]:
        """Return what is asked differently from the last time, in words."""
        known = None if head is None else head.metadata.get(ASKED)
        if not isinstance(known, Mapping):
            return []
        asked = self._asked_with(template)
        return [_change(name, known.get(name), now) for name, now in asked.items() if known.get(name) != now]

    def _asked_with(self, template: str) -> dict[str, Any]:
        """Return all that the answers depend on, as the store returns it."""
        found: dict[str, Any] = json.loads(json.dumps({"template": template, **self.asked}))
        return found

    def stored_answers(self) -> Iterator[tuple[bytes, Turn]]:
        """Yield the stored answers that can be replayed, with their keys, without holding all of them at once."""
        return replayable_answers(self._stored_turns())

    def _stored_turns(self) -> Iterator[Turn]:
        if isinstance(self.store, RowStore):
            return RowReader(self.store).turns_of(self.id, self.user_id, at_once=_READ_AT_ONCE)
        with suppress(ConversationNotFoundError):
            return iter([*self.store.get(self.id).stored_turns])
        return iter(())


def replayable_answers(turns: Iterable[Turn]) -> Iterator[tuple[bytes, Turn]]:
    """Yield the turns that can be replayed, with what identifies their requests."""
    for turn in turns:
        if turn.replay_key is not None and is_replayable(turn.finish_reason):
            yield _short(turn.replay_key), turn


def _short(replay_key: str) -> bytes:
    return bytes.fromhex(replay_key[:32])


def _patient(provider: Provider) -> Provider:
    """Return a provider that raises at once if a request fails, instead of waiting in silence and trying again."""
    if not isinstance(getattr(provider, "retries", None), RetryPolicy):
        return provider
    patient: Any = copy(provider)
    patient.retries = replace(patient.retries, max_retries=0)
    return patient  # type: ignore[no-any-return]  # a copy


def _change(name: str, before: object, now: object) -> str:
    if name == "schema":
        return "another schema"
    return f"{name} {preview(json.dumps(before, ensure_ascii=False))} → {preview(json.dumps(now, ensure_ascii=False))}"
