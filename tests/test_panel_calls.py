"""How a panel's tools reach the main thread and its reader, without a browser."""

from __future__ import annotations

import signal
import threading
import time
from contextvars import copy_context

import pytest

from panel_page import PanelPage
from promptkit_nb import ConversationManager, DemoProvider, InvalidArgumentError, ToolError
from promptkit_nb.notebook.panel_values import NotebookValues
from promptkit_nb.panel.main_thread import MainThreadCall
from promptkit_nb.panel.panel_tools import PanelToolHost
from promptkit_nb.tools.tool import Tool
from promptkit_nb.turns import ToolCall

TIMEOUT_S = 60.0


def sleeps() -> None:
    """Sleep."""
    time.sleep(600)


def refuses() -> None:
    """Fail."""
    raise ValueError("refused")


class TestMainThread:
    """Work that another thread waits for."""

    def test_result(self) -> None:
        """The thread gets what the work returned."""
        call = MainThreadCall(threading.current_thread)
        call()
        assert call.wait() is threading.main_thread()

    def test_error(self) -> None:
        """The thread gets the work's own error."""
        call = MainThreadCall(refuses)
        call()
        with pytest.raises(ValueError, match="refused"):
            call.wait()

    def test_work_that_was_stopped_before_it_began_never_runs(self) -> None:
        """The thread goes on at once."""
        ran: list[str] = []
        call = MainThreadCall(lambda: ran.append("ran"))
        call.stop()
        with pytest.raises(KeyboardInterrupt):
            call.wait()
        call()
        assert ran == []

    def test_stop_ends_running_work(self) -> None:
        """Even in a sleep; the handler of the signal is what it was before."""
        before = signal.getsignal(signal.SIGINT)
        begun = threading.Event()

        def work() -> None:
            begun.set()
            time.sleep(600)

        def stop_once_begun() -> None:
            begun.wait(TIMEOUT_S)
            call.stop()

        call = MainThreadCall(work)
        stop = threading.Thread(target=stop_once_begun)
        stop.start()
        call()
        stop.join(TIMEOUT_S)
        with pytest.raises(KeyboardInterrupt):
            call.wait()
        assert signal.getsignal(signal.SIGINT) is before

    def test_interrupt_of_the_kernel_ends_running_work(self) -> None:
        """As in a cell, although Jupyter ignores interrupts between cells."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            call = MainThreadCall(lambda: signal.raise_signal(signal.SIGINT))
            call()
            with pytest.raises(KeyboardInterrupt):
                call.wait()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)

    def test_work_in_a_kernel_whose_loop_is_in_another_thread(self) -> None:
        """The thread that waits gets an error that says what to do; nothing runs."""
        ran: list[str] = []
        call = MainThreadCall(lambda: ran.append("ran"))
        loop = threading.Thread(target=call)
        loop.start()
        loop.join(TIMEOUT_S)
        call.stop()  # so that nothing waits forever if the call did not end
        with pytest.raises((ToolError, KeyboardInterrupt), match="event loop is in another one: ask in a cell, with"):
            call.wait()
        assert ran == []

    def test_handler_that_python_did_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The work ends with its result; afterwards the handler is Python's own."""
        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(signal, "getsignal", lambda _: None)
        call = MainThreadCall(lambda: 7)
        try:
            call()
            assert call.wait() == 7
        finally:
            after = signal.signal(signal.SIGINT, before)
        assert after is signal.default_int_handler

    def test_stop_after_the_end_interrupts_nothing(self) -> None:
        """The next cell goes on."""
        call = MainThreadCall(lambda: 7)
        call()
        call.stop()
        assert call.wait() == 7


class TestQuestions:
    """Questions whether a tool may run."""

    @pytest.fixture
    def asking(self) -> tuple[PanelToolHost, threading.Thread, list[object]]:
        """A host whose thread waits for the reader's decision about a call."""
        host, verdicts = PanelToolHost(None, copy_context()), list[object]()

        def ask() -> None:
            try:
                verdicts.append(host.ask(Tool.of(sleeps, approve="ask"), ToolCall("1", "sleeps", '{"x": "\\u202e"}')))
            except KeyboardInterrupt:
                verdicts.append("stopped")

        thread = threading.Thread(target=ask)
        thread.start()
        deadline = time.monotonic() + TIMEOUT_S
        while not host.question:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return host, thread, verdicts

    @pytest.mark.parametrize(
        ("is_allowed", "reason", "verdict"), [(True, "", True), (False, "", ""), (False, " not\n now ", "not now")]
    )
    def test_decision(
        self,
        asking: tuple[PanelToolHost, threading.Thread, list[object]],
        *,
        is_allowed: bool,
        reason: str,
        verdict: object,
    ) -> None:
        """It ends the question; a reason is one line of text."""
        host, thread, verdicts = asking
        assert host.question["arguments"] == '{"x": "\\u202e"}'
        host.decide(host.question["id"], is_allowed=is_allowed, reason=reason)
        thread.join(TIMEOUT_S)
        assert (verdicts, host.question) == ([verdict], {})

    def test_decision_about_another_question(
        self, asking: tuple[PanelToolHost, threading.Thread, list[object]]
    ) -> None:
        """It changes nothing: a second click does not decide about the next call."""
        host, thread, verdicts = asking
        host.decide("another", is_allowed=True, reason="")
        assert (verdicts, thread.is_alive()) == ([], True)
        host.stop()
        thread.join(TIMEOUT_S)
        assert verdicts == ["stopped"]

    def test_nothing_runs_after_stop(self) -> None:
        """Neither the other calls of the answer nor their questions."""
        host = PanelToolHost(None, copy_context())
        host.stop()
        with pytest.raises(KeyboardInterrupt):
            host.run(sleeps)
        with pytest.raises(KeyboardInterrupt):
            host.ask(Tool.of(sleeps), ToolCall("1", "sleeps", "{}"))


class TestNamedFunctions:
    """``%chat_panel --tools NAMES``."""

    def test_functions_are_those_of_the_moment(self) -> None:
        """A cell that defines a function again changes the tool."""
        namespace: dict[str, object] = {"work": sleeps}
        values = NotebookValues(namespace, "work")
        namespace["work"] = refuses
        assert values.tools() == (refuses,)

    def test_without_names_the_managers_tools_are_used(self) -> None:
        """None stands for them."""
        assert NotebookValues({}).tools() is None

    def test_unknown_name(self) -> None:
        """The panel is not opened."""
        with pytest.raises(InvalidArgumentError, match="there is no function of this name"):
            NotebookValues({}, "work")


def test_a_panel_without_a_kernel_offers_no_tools() -> None:
    """They would run on the panel's thread."""
    manager = ConversationManager(DemoProvider())
    manager.register_tool(sleeps)
    page = PanelPage(manager.new_conversation())
    page.say("Please sleeps()")
    assert page.controller.conversation.turns[0].has_tool_calls is False
