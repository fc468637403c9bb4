"""What the magics talk to: it answers cells, and remembers which turn is which cell's."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from promptkit_nb.chat.budgets import Spending
from promptkit_nb.errors import ConversationExistsError, ConversationNotFoundError
from promptkit_nb.frontend import is_batch
from promptkit_nb.notebook.active_conversations import ActiveConversations
from promptkit_nb.notebook.cells import CellMatching
from promptkit_nb.notebook.display import AnswerDisplay
from promptkit_nb.notebook.settings import Chosen
from promptkit_nb.notebook.talk import Talk
from promptkit_nb.rendering.conversations import HeadTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptkit_nb.chat.options import CellCall, Target
    from promptkit_nb.chat.preview import DryRun
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.notebook.options import PromptKit
    from promptkit_nb.panel.widget import ChatPanel
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.turns import ContentPart


class ChatSession:
    """One notebook's talk: ``chosen`` follows its options, ``conversations`` are those that it is in."""

    def __init__(self, options: PromptKit) -> None:
        """Open nothing yet."""
        self.chosen = Chosen(options)
        self.conversations = ActiveConversations(self.chosen)
        self._matching = CellMatching()

    def answer(
        self, text: str, next_call: Callable[[], CellCall], talk: Talk, parts: Sequence[ContentPart] = ()
    ) -> Response | None:
        """Say something, show the answer as it comes, and return it."""
        self.conversations.check_provider(talk)
        conversation, opened = self.conversations.to_talk_in(talk)
        display = AnswerDisplay(quiet=talk.quiet)
        display.note(self.conversations.repeatable(opened, conversation))
        call = next_call()
        stream = conversation.stream(
            text,
            model=talk.model or self.chosen.options.model or None,
            parameters=talk.parameters,
            max_tokens=self.chosen.max_tokens if talk.max_tokens is None else talk.max_tokens,
            max_output_tokens=talk.max_output_tokens,
            fresh=talk.fresh,
            parts=parts,
            place=self._place_of(call, conversation),
            cell=call,
            on_waiting=display.waiting,
        )
        try:
            display.follow(stream, conversation.id)
        finally:
            if stream.response is not None:
                self._matching.answered(conversation.id, stream.response.turn)
        return stream.response

    def dry_run(
        self, text: str, next_call: Callable[[], CellCall], talk: Talk, parts: Sequence[ContentPart] = ()
    ) -> DryRun:
        """Return what would be sent and what it may cost; nothing is sent, and no conversation begun."""
        user_id = talk.user_id or self.chosen.user_id
        conversation = self.conversations.current(user_id)
        if talk.conversation_id is not None:
            conversation = None
            with suppress(ConversationNotFoundError):
                conversation = self.conversations.reading(talk.conversation_id, user_id=user_id)
        stored, conversation = conversation, self.conversations.scratch(conversation, talk)
        shown = conversation.dry_run(
            text,
            model=talk.model or self.chosen.options.model or None,
            parameters=talk.parameters,
            max_tokens=self.chosen.max_tokens if talk.max_tokens is None else talk.max_tokens,
            max_output_tokens=talk.max_output_tokens,
            parts=parts,
            place=self._place_of(next_call(), conversation),
        )
        return shown if conversation is stored else replace(shown, budgets=self.budget_lines())

    def panel(self) -> ChatPanel:
        """Return a panel of the conversation that the notebook is in, begun if it is not there yet."""
        from promptkit_nb.panel.widget import ChatPanel  # noqa: PLC0415 - anywidget, imported when used

        talk = Talk()
        self.conversations.check_provider(talk)
        conversation, opened = self.conversations.to_talk_in(talk)
        AnswerDisplay().note(opened)
        return ChatPanel(conversation, model=self.chosen.options.model or None)

    def budget_lines(self) -> tuple[str, ...]:
        """Return one line for each budget of the options, going by the conversation that the notebook is in."""
        conversation = self.conversations.current(self.chosen.user_id)
        if conversation is not None:
            return conversation.budget_lines()
        return Spending(self.chosen.store, self.chosen.manager.budgets).lines("", self.chosen.user_id)

    def fork(self, new_id: str, *, user_id: str) -> str:
        """Go on in a copy of the conversation; where it was copied to this id before, in that copy."""
        current = self.conversations.current(user_id)
        if current is None:
            return "nothing to fork yet"
        if current.id == new_id:
            return f"this is {new_id!r} already"
        try:
            copy, line = current.fork(new_id), f"forked {current.id!r} to {new_id!r}"
        except ConversationExistsError:
            copy = self.chosen.manager.for_user(user_id).get_conversation(new_id)
            if copy.forked_from != current.id:
                raise
            line = f"resumed {new_id!r}, a fork of {current.id!r}"
        forked = self.chosen.manager.get_conversation(copy.id)
        self._matching.forked(forked.id, forked.turns)
        self.conversations.go_on_in(forked, user_id)
        return self.conversations.repeatable(line, forked)

    def last_turn(self, conversation: Conversation) -> str | None:
        """Return the id of the turn that a cell of this kernel had last in a conversation."""
        return self._matching.last_turn(conversation.id)

    def undo(self, conversation: Conversation) -> int:
        """Take the newest turn back, unless the one that this kernel had last left already; return how many left."""
        left = conversation.undo(as_of=self.last_turn(conversation))
        if left:
            self._matching.took_back(conversation.id, conversation.turns)
        return left

    def delete(self, conversation_id: str, *, user_id: str) -> bool:
        """Delete the user's conversation of this id for good; return whether it was there."""
        try:
            self.chosen.manager.for_user(user_id).delete_conversation(conversation_id)
        except ConversationNotFoundError:
            return False
        return True

    def listed(self, prefix: str | None) -> HeadTable:
        """Return the user's conversations whose id begins so, newest first."""
        return HeadTable(self.chosen.store.list(prefix=prefix, user_id=self.chosen.user_id))

    def _place_of(self, call: CellCall, conversation: Conversation) -> Target:
        snapshot = conversation.snapshot()
        return self._matching.place_of(call, snapshot, in_batch=is_batch())
