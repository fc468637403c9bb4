"""What works for a panel: it takes what the page asks for, and tells the page what there is to show.

A widget's callbacks come on changing threads, and while a cell runs perhaps late: they only post what was asked. All
else happens on one thread, one thing after the other; only whoever waits for a model has a thread of his own.
"""

from __future__ import annotations

import time
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

from promptkit_nb.chat.options import AT_THE_END, Target
from promptkit_nb.errors import ConversationNotFoundError, InvalidArgumentError, PromptKitError
from promptkit_nb.panel import conversation_list
from promptkit_nb.panel.threads import AnswerThread, Worker
from promptkit_nb.panel.view import UPDATE_EVERY_S, PanelView
from promptkit_nb.text.plain_text import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.chat.snapshot import Snapshot
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.view import Screen
    from promptkit_nb.turns import ContentPart

LOOK_EVERY_S = 0.5

Command = dict[str, str]


class PanelController:
    """Works for one panel, on a thread that begins with the first command."""

    def __init__(self, conversation: Conversation, screen: Screen, *, model: str | None = None) -> None:
        """Show what there is; ``model`` is that of every call."""
        self.conversation = conversation
        self._screen = screen
        self._model = model
        self._answers: dict[str, AnswerThread] = {}  # by conversation: one goes on while another one is looked at
        self._views: set[str] = set()
        self._search = ""
        self._next_look_at = 0.0
        self._last_trouble = ""
        self._commands: dict[str, Callable[[Command], None]] = {
            "open": self._open,
            "gone": self._gone,
            "send": self._send,
            "retry": self._retry,
            "edit": self._edit,
            "stop": self._stop,
            "older": self._older,
            "search": self._look_for,
            "use": self._use,
            "new": self._new,
            "rename": self._rename,
            "fork": self._fork,
            "delete": self._delete,
        }
        self._view = PanelView(screen, conversation.snapshot())
        self._worker = Worker(look=self._look, patience_s=self._patience_s, failed=self._view.fail)

    def post(self, command: Command) -> None:
        """Have a command done, from any thread; it returns at once.

        What is shown for it is sent in the caller's context: by that Jupyter knows which message is answered, and
        which thread is to read the next ones.
        """
        self._worker.post(lambda: self._obey(command), copy_context())

    def close(self) -> None:
        """End the thread; an answer under way goes on, and is stored."""
        self._worker.close()

    def _patience_s(self) -> float | None:
        """Return how long nothing needs to be done unasked, in seconds."""
        if self._answer is not None:
            return UPDATE_EVERY_S / 2
        return LOOK_EVERY_S / 2 if self._views else None

    def _obey(self, command: Command) -> None:
        do = self._commands.get(command.get("do", ""))
        if do is None:
            raise InvalidArgumentError(f"The panel knows no {command.get('do')!r:.40}: reload the page.")
        try:
            do(command)
        except PromptKitError as error:
            self._view.fail(error, unsent=command.get("text", ""), view=command.get("view", ""))

    # What is there to show.

    @property
    def _answer(self) -> AnswerThread | None:
        return self._answers.get(self.conversation.id)

    def _look(self) -> None:
        if self._answer is not None:
            self._view.grow(self._answer)
        now = time.monotonic()
        if self._views and now >= self._next_look_at:
            self._next_look_at = now + LOOK_EVERY_S
            snapshot = self._read()
            if snapshot is not self._view.pages.snapshot:  # somebody else wrote
                self._turn_to(snapshot)

    def _refresh(self, *, is_told: bool = False) -> None:
        self._turn_to(self._read(is_told=is_told))

    def _turn_to(self, snapshot: Snapshot) -> None:
        self._view.turn_to(snapshot, self._answer)
        if not self._last_trouble:
            self._view.show_surroundings(self.conversation, search=self._search, model=self._model)

    def _read(self, *, is_told: bool = False) -> Snapshot:
        """Return what there is; where that cannot be read, what there was, and say why: once, and not twice a second.

        With ``is_told`` there is an error on the screen already that says more.
        """
        try:
            snapshot = self.conversation.snapshot()
        except PromptKitError as error:
            if str(error) != self._last_trouble and not is_told:
                self._view.fail(error)
            self._last_trouble = str(error)
            return self._view.pages.snapshot
        self._last_trouble = ""
        return snapshot

    # What the page asks for.

    def _open(self, command: Command) -> None:
        self._views.add(command["view"])
        self._refresh()

    def _gone(self, command: Command) -> None:
        self._views.discard(command["view"])

    def _send(self, command: Command) -> None:
        self._ask(command, command["text"], AT_THE_END, {})

    def _retry(self, command: Command) -> None:
        snapshot = self.conversation.snapshot()
        turn = snapshot.state.turns[snapshot.place_of(command["turn"])]
        asked = next((message for message in turn.messages if message.role == "user"), None)
        parts = () if asked is None else asked.parts
        place = Target(in_place_of=turn)
        self._ask({**command, "text": ""}, turn.user_text, place, {"instead_of": turn.id}, fresh=True, parts=parts)

    def _edit(self, command: Command) -> None:
        start = self.conversation.snapshot().place_of(command["turn"])
        self._ask(command, command["text"], Target(branch_from=start), {"from": start})

    def _ask(
        self,
        command: Command,
        question: str,
        place: Target,
        shown_place: dict[str, object],
        *,
        fresh: bool = False,
        parts: tuple[ContentPart, ...] = (),
    ) -> None:
        if self._answer is not None:
            raise InvalidArgumentError("An answer is under way: wait for it, or stop it, then send this.")
        conversation = self.conversation

        def start(on_waiting: Callable[[float, str], None]) -> ResponseStream:
            return conversation.stream(
                question, model=self._model, place=place, fresh=fresh, parts=parts, on_waiting=on_waiting
            )

        answer = AnswerThread(
            start,
            lambda answer: self._worker.post(lambda: self._end(answer)),
            conversation_id=conversation.id,
            question=question,
            unsent=command["text"],
            place=shown_place,
            view=command.get("view", ""),
        )
        self._answers[conversation.id] = answer
        self._view.begin(answer)
        answer.begin()

    def _stop(self, command: Command) -> None:  # noqa: ARG002 - there is nothing to say about it
        answer = self._answers.pop(self.conversation.id, None)
        if answer is None:
            return
        try:
            answer.stop()
        except PromptKitError as error:
            self._view.fail(error, unsent=answer.unsent, view=answer.view)
            self._refresh(is_told=True)
            return
        self._refresh()
        if answer.is_unanswered:
            self._screen.tell({"unsent": answer.unsent, "view": answer.view})
            self._screen.show(status="Stopped before any text came; the conversation is as it was.")
        else:
            self._screen.show(status="Stopped; the partial answer is kept.")

    def _end(self, answer: AnswerThread) -> None:
        """Show what became of an answer, unless it was stopped before."""
        if self._answers.get(answer.conversation_id) is not answer:
            return
        del self._answers[answer.conversation_id]
        if answer.error is not None:
            unsent = answer.unsent if answer.is_unanswered else ""
            self._view.fail(answer.error, unsent=unsent, view=answer.view)
        self._refresh(is_told=answer.error is not None)

    def _older(self, command: Command) -> None:
        page = self._view.pages.before(int(command["before"]))
        self._screen.tell({**page, "view": command.get("view", "")})

    def _look_for(self, command: Command) -> None:
        self._search = command["text"]
        found = conversation_list.listed(self.conversation, self._search)
        self._screen.show(conversations=found)
        if self._answer is None:
            told = f"{counted(len(found), 'conversation')} found: choose in the list beside the search box."
            self._screen.show(status=told if self._search.strip() else "")

    def _use(self, command: Command) -> None:
        self._go_on_in(self.conversation.neighbour(command["id"]))

    def _new(self, command: Command) -> None:  # noqa: ARG002 - as above
        self._go_on_in(self._begun_beside())

    def _fork(self, command: Command) -> None:  # noqa: ARG002 - as above
        self._go_on_in(conversation_list.copied(self.conversation))

    def _rename(self, command: Command) -> None:
        title = one_line(command["text"])
        self.conversation.store.update_metadata(self.conversation.id, title=title or None)
        self._refresh()

    def _delete(self, command: Command) -> None:
        if command["id"] != self.conversation.id:
            raise InvalidArgumentError("Another conversation is shown by now: delete that one, or go back.")
        gone = self.conversation
        following = conversation_list.left_beside(gone) or self._begun_beside()
        answer = self._answers.pop(gone.id, None)
        with suppress(ConversationNotFoundError):  # somebody else was faster
            if answer is not None:
                answer.stop()
            gone.store.delete(gone.id)
        self._go_on_in(following)

    def _begun_beside(self) -> Conversation:
        return conversation_list.begun_beside(self.conversation, self._view.pages.snapshot.state)

    def _go_on_in(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._search = ""
        self._last_trouble = ""
        self._screen.show(problem={}, footer=[])
        self._turn_to(conversation.snapshot())
