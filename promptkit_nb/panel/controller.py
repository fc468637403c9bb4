"""Runs the commands of a panel's pages and shows what the conversation holds.

Jupyter calls widget callbacks on changing threads, and late while a cell runs, so they only post commands. One worker
thread runs the commands in order; each answer streams on a separate thread.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from promptkit_nb.chat.options import AT_THE_END, CallOptions, Target, check_model
from promptkit_nb.errors import ConversationNotFoundError, InvalidArgumentError, PromptKitError
from promptkit_nb.frontend import TYPED_IN, kernel_loop
from promptkit_nb.panel import conversation_list
from promptkit_nb.panel.search_thread import Search, SearchThread
from promptkit_nb.panel.threads import AnswerThread, Worker
from promptkit_nb.panel.view import UPDATE_INTERVAL_S, PanelView, Screen
from promptkit_nb.providers.base import offered_models
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.text.values import with_attachments
from promptkit_nb.turns import ContentPart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptkit_nb.chat.stored_conversation import Snapshot
    from promptkit_nb.chat.stream import ResponseStream
    from promptkit_nb.conversation import Conversation
    from promptkit_nb.panel.panel_tools import PanelToolHost
    from promptkit_nb.providers.base import Provider
    from promptkit_nb.rendering.responses import ThinkingMode
    from promptkit_nb.tools.tool import Tool

POLL_INTERVAL_S = 0.5
MAX_PICTURE_BYTES = 5_000_000

Command = dict[str, str]


class FilledText(Protocol):
    """A message with its values; ``parts``, if any, are what the model receives."""

    @property
    def text(self) -> str:
        """The text."""
        ...

    @property
    def parts(self) -> tuple[ContentPart, ...]:
        """The text and the images, if there are images."""
        ...


class PanelValues(Protocol):
    """What a message takes from the notebook: the values of ``{{ name }}``, and functions as tools."""

    def fill(self, text: str) -> FilledText:
        """Return the message with its values; raise ``InvalidArgumentError`` for an unknown name."""
        ...

    def names(self, text: str) -> list[dict[str, object]]:
        """Return ``{"name", "kind", "known"}`` for each expression."""
        ...

    def tools(self) -> Sequence[Callable[..., object] | Tool] | None:
        """Return the functions that the model may call, ``None`` for those registered with the manager."""
        ...


class PanelController:
    """Controls one panel, on a thread that starts with the first command."""

    def __init__(
        self, conversation: Conversation, screen: Screen, *, model: str | None = None, thinking: ThinkingMode = "fold"
    ) -> None:
        """Show the conversation; every call uses ``model``, and ``thinking`` is how to show the model's thinking."""
        self.conversation = conversation
        self._model = model
        self.values: PanelValues | None = None
        self._context = copy_context()  # of the panel's cell, which shows what tools print
        self._answers: dict[str, AnswerThread] = {}  # by conversation id: they continue while another one is shown
        self._open_pages: set[str] = set()
        self._pictures: list[bytes] = []  # of the command that runs
        self._search = Search()
        self._searches = SearchThread(
            lambda search: self._worker.post(lambda: self._show_found(search)),
            lambda error: self._worker.post(lambda: self._view.show_error(error)),
        )
        self._next_poll_at = 0.0
        self._read_error = ""
        self._models_of: Provider | None = None
        self._has_listed_models = False
        self._commands: dict[str, Callable[[Command], None]] = {
            "open": self._open_page,
            "close": self._close_page,
            "send": self._send,
            "retry": self._retry,
            "edit": self._edit,
            "edit_reply": self._edit_reply,
            "restore": self._restore,
            "stop": self._stop,
            "decide": self._decide,
            "older": self._fetch_older,
            "search": self._begin_search,
            "use": self._use,
            "new": self._new,
            "rename": self._rename,
            "fork": self._fork,
            "delete": self._delete,
            "names": self._describe_names,
            "models": self._list_models,
            "model": self._choose_model,
        }
        self._view = PanelView(screen, conversation.snapshot(), thinking=thinking)
        self._worker = Worker(poll=self._poll, poll_interval_s=self._poll_interval_s, on_error=self._view.show_error)

    def post(self, command: Command, pictures: Sequence[bytes] = ()) -> None:
        """Queue a command, with the pictures of a message, and return at once; call it from any thread.

        The command runs in the caller's context, from which Jupyter knows which message its updates answer.
        """
        self._worker.post(lambda: self._run(command, pictures), copy_context())

    def follow(self, conversation: Conversation, *, model: str | None, thinking: ThinkingMode) -> None:
        """Use this conversation for the next call, unless the panel shows another one; callable from any thread."""

        def follow() -> None:
            if conversation.id == self.conversation.id:
                self.conversation, self._model = conversation, model
                self._view.thinking = thinking
                if self._has_listed_models:
                    self._list_models({})
                self._refresh(report_error=False)

        self._worker.post(follow, copy_context())

    def close(self) -> None:
        """End the thread. An answer that is still streaming continues and is stored."""
        self._worker.close()

    def _poll_interval_s(self) -> float | None:
        """Return how long the worker may wait for a command before it polls; None if it need not poll."""
        if self._answer is not None:
            return UPDATE_INTERVAL_S / 2
        return POLL_INTERVAL_S / 2 if self._open_pages else None

    def _run(self, command: Command, pictures: Sequence[bytes]) -> None:
        run = self._commands.get(command.get("do", ""))
        if run is None:
            raise InvalidArgumentError(f"The panel has no command {command.get('do')!r:.40}: reload the page.")
        TYPED_IN.set("panel")  # in the context of this command
        try:
            self._pictures = _checked_pictures(pictures)
            run(command)
        except PromptKitError as error:
            self._view.show_error(error, unsent=command.get("text", ""), page=command.get("page", ""))

    # Showing the conversation.

    @property
    def _answer(self) -> AnswerThread | None:
        return self._answers.get(self.conversation.id)

    def _poll(self) -> None:
        if self._answer is not None:
            self._view.show_progress(self._answer)
        now = time.monotonic()
        if self._open_pages and now >= self._next_poll_at:
            self._next_poll_at = now + POLL_INTERVAL_S
            snapshot = self._read()
            if snapshot is not self._view.snapshot:  # a cell, another panel or another process wrote
                self._show(snapshot)

    def _refresh(self, *, report_error: bool = True) -> None:
        self._show(self._read(report_error=report_error))

    def _show(self, snapshot: Snapshot) -> None:
        self._view.show_conversation(snapshot, self._answer)
        if not self._read_error:
            self._view.show_details(self.conversation, search=self._search, model=self._model)

    def _read(self, *, report_error: bool = True) -> Snapshot:
        """Return the conversation, or what is on the screen if it cannot be read.

        The same error is reported once, not at every poll. Without ``report_error`` it is not reported at all: the
        screen already shows an error that says more.
        """
        try:
            snapshot = self.conversation.snapshot()
        except PromptKitError as error:
            if str(error) != self._read_error and report_error:
                self._view.show_error(error)
            self._read_error = str(error)
            return self._view.snapshot
        self._read_error = ""
        return snapshot

    # The commands.

    def _open_page(self, command: Command) -> None:
        self._open_pages.add(command["page"])
        self._refresh()

    def _close_page(self, command: Command) -> None:
        self._open_pages.discard(command["page"])

    def _send(self, command: Command) -> None:
        self._ask_filled(command, AT_THE_END, {})

    def _retry(self, command: Command) -> None:
        snapshot = self.conversation.snapshot()
        turn = snapshot.state.turns[snapshot.position_of(command["turn"])]
        question = next((message for message in turn.messages if message.role == "user"), None)
        self._ask(
            {**command, "text": ""},
            turn.user_text,
            Target(in_place_of=turn),
            {"replaces_turn": turn.id},
            fresh=True,
            parts=() if question is None else question.parts,
        )

    def _edit(self, command: Command) -> None:
        start = self.conversation.snapshot().position_of(command["turn"])
        self._ask_filled(command, Target(branch_from=start), {"replaces_from": start})

    def _edit_reply(self, command: Command) -> None:
        self._check_idle()
        self.conversation.edit_reply(command["turn"], command["text"])
        self._view.clear_error()
        self._refresh()

    def _restore(self, command: Command) -> None:
        self._check_idle()
        self.conversation.restore(command["id"])
        self._view.clear_error()
        self._refresh()

    def _check_idle(self) -> None:
        if self._answer is not None:
            raise InvalidArgumentError("An answer is still streaming: wait for it or stop it, then send this again.")

    def _ask_filled(self, command: Command, target: Target, replaces: dict[str, object]) -> None:
        """Ask with the values of ``{{ name }}``; the panel goes on showing what was typed."""
        text, parts = command["text"], tuple[ContentPart, ...]()
        if self.values is not None and "{{" in text:
            filled = self.values.fill(text)
            text, parts = filled.text, filled.parts
        if self._pictures:
            attached = with_attachments(text, self._pictures)
            parts = (*(parts or attached[:1]), *attached[1:])
        self._ask(command, text, target, replaces, parts=parts)

    def _describe_names(self, command: Command) -> None:
        names = [] if self.values is None else self.values.names(command["text"])
        self._view.send_names(names, command.get("page", ""))

    def _ask(
        self,
        command: Command,
        question: str,
        target: Target,
        replaces: dict[str, object],
        *,
        fresh: bool = False,
        parts: tuple[ContentPart, ...] = (),
    ) -> None:
        self._check_idle()
        conversation, host = self.conversation, self._tool_host()
        options = CallOptions(model=self._model, target=target, fresh=fresh, parts=parts, tools=())
        if host is not None:
            functions = None if self.values is None else self.values.tools()
            options = replace(options, tools=functions, on_tool=host.show, tool_host=host)

        def stream(on_waiting: Callable[[float, str], None]) -> ResponseStream:
            return conversation.ask(question, replace(options, on_waiting=on_waiting))

        answer = AnswerThread(
            stream,
            lambda answer: self._worker.post(lambda: self._finish(answer)),
            conversation_id=conversation.id,
            question=command["text"] or question,
            unsent=command["text"],
            replaces=replaces,
            page=command.get("page", ""),
            tools=host,
        )
        self._answers[conversation.id] = answer
        self._view.show_question(answer)
        answer.start()

    def _tool_host(self) -> PanelToolHost | None:
        """Return what runs the tools of an answer, or None if no kernel has a main thread to run them in."""
        loop = kernel_loop()
        if loop is None:
            return None
        from promptkit_nb.panel.panel_tools import PanelToolHost  # noqa: PLC0415 - imported when a kernel runs

        return PanelToolHost(loop, self._context)

    def _decide(self, command: Command) -> None:
        """Take the reader's decision about a tool call."""
        answer = self._answer
        if answer is not None and answer.tools is not None:
            is_allowed = command["verdict"] == "allow"
            answer.tools.decide(command["id"], is_allowed=is_allowed, reason=command.get("text", ""))

    def _stop(self, command: Command) -> None:  # noqa: ARG002 - stops any answer
        answer = self._answers.pop(self.conversation.id, None)
        if answer is None:
            return
        try:
            answer.stop()
        except PromptKitError as error:
            self._view.show_error(error, unsent=answer.unsent, page=answer.page)
            self._refresh(report_error=False)
            return
        self._show_stopped(answer)

    def _show_stopped(self, answer: AnswerThread) -> None:
        self._view.remember(answer)
        self._refresh()
        if answer.is_stored:
            self._view.show_status("Stopped; the partial answer is kept.")
        else:
            self._view.return_text(answer)
            self._view.show_status("Stopped before any text arrived; the conversation is unchanged.")

    def _finish(self, answer: AnswerThread) -> None:
        """Show how an answer ended, unless it was stopped before."""
        if self._answers.get(answer.conversation_id) is not answer:
            return
        del self._answers[answer.conversation_id]
        if answer.is_interrupted:
            self._show_stopped(answer)
            return
        self._view.remember(answer)
        if answer.error is not None:
            unsent = "" if answer.is_stored else answer.unsent
            self._view.show_error(answer.error, unsent=unsent, page=answer.page)
        self._refresh(report_error=answer.error is None)

    def _fetch_older(self, command: Command) -> None:
        self._view.send_older(int(command["before"]), command.get("page", ""))

    def _begin_search(self, command: Command) -> None:
        """List the conversations whose titles match; those in which the words were said follow."""
        self._search = Search(command["text"].strip())
        self._view.show_search(self.conversation, self._search, self._answer)
        if self._search.text:
            self._searches.start(self.conversation, self._search)

    def _show_found(self, search: Search) -> None:
        if search.text == self._search.text:  # it has not been changed since
            self._search = search
            self._view.show_search(self.conversation, search, self._answer)

    def _use(self, command: Command) -> None:
        self._switch_to(self.conversation.neighbor(command["id"]))

    def _new(self, command: Command) -> None:  # noqa: ARG002 - uses the shown conversation only
        self._switch_to(self._start_conversation())

    def _fork(self, command: Command) -> None:  # noqa: ARG002 - as above
        self._switch_to(conversation_list.fork(self.conversation))

    def _list_models(self, command: Command) -> None:  # noqa: ARG002 - as above
        """Ask the provider for its models, on a thread of its own: a server may take its time."""
        provider, self._has_listed_models = self.conversation.provider, True
        if provider is not self._models_of:
            self._models_of = provider
            context = copy_context()
            ask = partial(context.run, self._fetch_models, provider)
            threading.Thread(target=ask, name="promptkit-models", daemon=True).start()

    def _fetch_models(self, provider: Provider) -> None:
        names: list[str] = []
        try:
            names = offered_models(provider)
            note = "" if names else "The server lists no models."
        except Exception as error:  # noqa: BLE001 - also of a provider that is not ours
            note = one_line(str(error))
        self._worker.post(partial(self._show_models, provider, names, note))

    def _show_models(self, provider: Provider, names: list[str], note: str) -> None:
        if provider is not self._models_of:  # another one is in use by now
            return
        if not names:
            self._models_of = None  # asked again next time
        self._view.show_models(names, note)

    def _choose_model(self, command: Command) -> None:
        self._model = check_model(command["name"])
        self._refresh()

    def _rename(self, command: Command) -> None:
        renamed = self.conversation
        own_store = renamed.store.for_user(renamed.user_id)  # another user may have the id now
        own_store.update_metadata(renamed.id, title=one_line(command["text"]) or None)
        self._refresh()

    def _delete(self, command: Command) -> None:
        deleted = self.conversation
        if command["id"] != deleted.id:
            raise InvalidArgumentError("The panel now shows another conversation: delete that one, or switch back.")
        following = conversation_list.newest_other(deleted) or self._start_conversation()
        answer = self._answers.pop(deleted.id, None)
        with suppress(ConversationNotFoundError):  # already deleted elsewhere
            if answer is not None:
                answer.stop()
            deleted.store.for_user(deleted.user_id).delete(deleted.id)
        self._switch_to(following)

    def _start_conversation(self) -> Conversation:
        return conversation_list.start(self.conversation, self._view.snapshot.state)

    def _switch_to(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._search = Search()
        self._read_error = ""
        self._view.clear()
        self._show(conversation.snapshot())


def _checked_pictures(pictures: Sequence[bytes]) -> list[bytes]:
    """Return the pictures that a page sent; what they are is read from their first bytes when they are attached."""
    for picture in pictures:
        if len(picture) > MAX_PICTURE_BYTES:
            raise InvalidArgumentError(
                f"A picture is larger than {MAX_PICTURE_BYTES // 1_000_000} MB: make it smaller."
            )
    return [bytes(picture) for picture in pictures]
