"""Matching cells with turns: by cell id, and in a batch run by the order of the cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, error_reply
from promptkit_nb import (
    BadRequestError,
    Conversation,
    ConversationManager,
    DiskStore,
    OpenAIProvider,
    ReplayMissError,
    StateStore,
)
from promptkit_nb.chat.options import CellCall
from promptkit_nb.notebook.cells import CellMatching, without_keys
from storing import said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.rendering.responses import Response

KEY = "sk-proj-0123456789abcdefSECRET"


@dataclass
class Kernel:
    """A kernel that runs chat cells like the magics do; a new one knows only what is stored."""

    conversation: Conversation
    in_batch: bool = False
    matching: CellMatching = field(default_factory=CellMatching)

    def cell(self, source: str, *, cell_id: str | None = None, calls: int = 1, fresh: bool = False) -> Response:
        """Run a cell with this many chat calls, each with the source as its message; return the last answer."""
        for call in range(calls):
            asks = CellCall(cell_id=cell_id, cell_call=call, cell_source=without_keys(source))
            text = source if calls == 1 else f"{source}{call}"
            target = self.matching.target_of(asks, text, self.conversation.snapshot(), in_batch=self.in_batch)
            stream = self.conversation.stream(text, target=target, cell=asks, fresh=fresh)
            try:
                for _ in stream:
                    pass
            finally:
                if stream.response is not None:
                    self.matching.answered(self.conversation.id, stream.response.turn, asks)
        assert stream.response is not None
        return stream.response

    def cells(self, sources: str) -> None:
        """Run one-letter cells; if the front end provides cell ids, the letter is the id."""
        for letter in sources:
            self.cell(letter, cell_id=None if self.in_batch else letter)

    @property
    def now(self) -> str:
        """The messages of the current turns."""
        return "".join(turn.user_text for turn in self.conversation.turns)

    @property
    def branches(self) -> list[str]:
        """The messages of each branch."""
        return ["".join(turn.user_text for turn in branch.turns) for branch in self.conversation.branches()]

    @property
    def stale(self) -> str:
        """The messages of the stale turns."""
        return "".join(turn.user_text for turn in self.conversation.stale_turns)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """A store on disk."""
    return DiskStore(tmp_path / "store")


@pytest.fixture
def notebook(store: StateStore, chat_server: ChatServer) -> Kernel:
    """A kernel whose front end provides cell ids."""
    return Kernel(manager_for(store, chat_server).new_conversation(conversation_id="talk"))


@pytest.fixture
def batch(notebook: Kernel) -> Kernel:
    """A kernel in a batch run, without cell ids."""
    notebook.in_batch = True
    return notebook


def restarted(kernel: Kernel) -> Kernel:
    """Return a restarted kernel."""
    return Kernel(kernel.conversation, kernel.in_batch)


def manager_for(store: StateStore, server: ChatServer) -> ConversationManager:
    provider = OpenAIProvider("gpt-4o-mini", api_key=KEY, base_url=server.url, max_retries=0)
    return ConversationManager(provider, store, replay="auto")


class TestCellIds:
    def test_running_a_cell_again_never_makes_a_second_copy(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """An unchanged cell is replayed, and nothing is written."""
        notebook.cells("abc")
        before = notebook.conversation.snapshot().state
        answer = notebook.cell("b", cell_id="b")
        assert (answer.replayed, len(chat_server.requests)) == (True, 3)
        assert notebook.conversation.snapshot().state == before

    def test_a_changed_cell_replaces_its_turn(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """In place; the previous turn becomes a version, and later turns stay and become stale."""
        notebook.cells("abc")
        notebook.cell("x", cell_id="b")
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("axc", "c", 4)
        assert [turn.user_text for turn in notebook.conversation.versions(1)] == ["b"]

    def test_running_a_stale_cell_refreshes_it(self, notebook: Kernel) -> None:
        """It is asked again in place."""
        notebook.cells("abc")
        notebook.cell("x", cell_id="b")
        assert not notebook.cell("c", cell_id="c").replayed
        assert (notebook.now, notebook.stale) == ("axc", "")

    def test_the_former_text_restores_the_former_answer(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """If the previous text is typed again, the version is replayed, and later turns are no longer stale."""
        notebook.cells("abc")
        notebook.cell("x", cell_id="b")
        assert notebook.cell("b", cell_id="b").replayed
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("abc", "", 4)

    def test_a_restarted_kernel_knows_the_cells(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Restart & Run All sends and writes nothing."""
        notebook.cells("abc")
        revision = notebook.conversation.snapshot().state.revision
        restarted(notebook).cells("abc")
        assert (notebook.now, len(chat_server.requests)) == ("abc", 3)
        assert notebook.conversation.snapshot().state.revision == revision

    def test_each_call_of_a_cell_has_its_turn(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """A loop and several %chat in a cell make one turn per call, also when run again."""
        for _ in range(2):
            notebook.cell("a", cell_id="a", calls=3)
        assert (notebook.now, len(chat_server.requests)) == ("a0a1a2", 3)

    def test_surplus_turns_stay(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """A loop with fewer iterations keeps the turns of the previous iterations."""
        notebook.cell("a", cell_id="a", calls=3)
        notebook.cell("b", cell_id="b")
        notebook.cell("a", cell_id="a", calls=2)
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("a0a1a2b", "", 4)

    def test_a_longer_loop_adds_at_the_end(self, notebook: Kernel) -> None:
        """The new iterations come after all existing turns."""
        notebook.cell("a", cell_id="a", calls=2)
        notebook.cell("b", cell_id="b")
        notebook.cell("a", cell_id="a", calls=3)
        assert notebook.now == "a0a1ba2"

    def test_moving_cells_changes_nothing(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """The stored order counts, not the order of the cells."""
        notebook.cells("abc")
        restarted(notebook).cells("cab")
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("abc", "", 3)

    def test_deleting_a_cell_changes_nothing(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Its turn stays, and the other turns do not become stale."""
        notebook.cells("abc")
        restarted(notebook).cells("ac")
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("abc", "", 3)

    def test_a_new_cell_is_added_at_the_end(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Wherever it is in the notebook, its turn comes last, and no turn becomes stale."""
        notebook.cells("abc")
        restarted(notebook).cells("anbc")
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("abcn", "", 4)

    def test_a_copied_notebook_answers_the_same_turns(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """It keeps its cell ids: in the same conversation it answers the same turns."""
        notebook.cells("ab")
        copy = restarted(notebook)
        copy.cells("ab")
        copy.cell("x", cell_id="b")
        assert (notebook.now, len(chat_server.requests)) == ("ax", 3)

    def test_a_copied_cell_makes_another_turn(self, notebook: Kernel) -> None:
        """The same text in a cell with another id makes a second turn."""
        notebook.cell("a", cell_id="a")
        notebook.cell("a", cell_id="a-copy")
        assert notebook.now == "aa"

    def test_another_conversation_has_its_own_turns(
        self, notebook: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """In another conversation, the same cells are asked anew."""
        notebook.cells("ab")
        other = Kernel(manager_for(store, chat_server).new_conversation(conversation_id="other"))
        other.cells("ab")
        assert (notebook.now, other.now, len(chat_server.requests)) == ("ab", "ab", 4)

    def test_the_later_of_two_kernels_replaces_the_turn_of_a_cell(
        self, notebook: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """The earlier turn is kept as a version."""
        other = Kernel(manager_for(store, chat_server).get_conversation("talk"))
        cell_while(notebook, lambda: other.cell("a", cell_id="a"), "x", "a")
        assert notebook.now == "x"
        assert [turn.user_text for turn in notebook.conversation.versions(0)] == ["a"]

    def test_a_turn_appended_by_another_kernel_meanwhile_comes_first(
        self, notebook: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """The new turn is added after it and is stale."""
        notebook.cells("a")
        other = Kernel(manager_for(store, chat_server).get_conversation("talk"))
        cell_while(notebook, lambda: other.cell("o", cell_id="o"), "b", "b")
        assert (notebook.now, notebook.stale) == ("aob", "b")

    def test_a_failing_call_changes_nothing(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """The turn of the cell does not change."""
        notebook.cells("ab")
        chat_server.reply(error_reply(400, "no"))
        with pytest.raises(BadRequestError):
            notebook.cell("x", cell_id="a")
        assert (notebook.now, notebook.stale) == ("ab", "")

    def test_without_an_id_calls_append(self, notebook: Kernel) -> None:
        """A console has no cell ids: each call adds a turn."""
        for _ in range(2):
            notebook.cell("a")
        assert notebook.now == "aa"


class TestRemovedTurns:
    """Cells whose turns are on a branch."""

    def test_truncated_turns_are_replayed(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Run All after ``truncate`` sends and writes nothing."""
        notebook.cells("abc")
        notebook.conversation.truncate(keep_last=2)
        notebook.cells("d")
        revision = notebook.conversation.snapshot().state.revision
        restarted(notebook).cells("abcd")
        assert (notebook.now, notebook.stale, len(chat_server.requests)) == ("cd", "", 4)
        assert notebook.conversation.snapshot().state.revision == revision

    def test_truncated_twice(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Turns that were removed early and late answer alike."""
        notebook.cells("abc")
        notebook.conversation.truncate(keep_last=4)
        notebook.cells("d")
        notebook.conversation.truncate(keep_last=2)
        restarted(notebook).cells("abcd")
        assert (notebook.now, notebook.branches, len(chat_server.requests)) == ("d", ["a", "bc"], 4)

    def test_an_undone_turn_is_replayed(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """Its context still exists: the answer is shown, and the turn is not restored."""
        notebook.cells("ab")
        notebook.conversation.undo()
        notebook.cells("c")
        restarted(notebook).cells("abc")
        assert (notebook.now, notebook.branches, len(chat_server.requests)) == ("ac", ["b"], 3)

    def test_undone_and_truncated(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """The turn before the undone turn is on a branch itself and is found there."""
        notebook.cells("ab")
        notebook.conversation.undo()
        notebook.cells("cd")
        notebook.conversation.truncate(keep_last=2)
        restarted(notebook).cells("abcd")
        assert (notebook.now, notebook.branches, len(chat_server.requests)) == ("d", ["b", "ac"], 4)

    def test_the_last_undone_turn_is_added_again(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """If no turn followed, running the cell adds it again without a request."""
        notebook.cells("ab")
        notebook.conversation.undo()
        assert notebook.cell("b", cell_id="b").replayed
        assert (notebook.now, len(chat_server.requests)) == ("ab", 2)

    def test_a_changed_cell_whose_turn_was_removed_is_added(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """The turn on the branch answers another question."""
        notebook.cells("abc")
        notebook.conversation.truncate(keep_last=2)
        notebook.cell("x", cell_id="a")
        assert (notebook.now, notebook.branches, len(chat_server.requests)) == ("cx", ["ab"], 4)

    def test_a_branch_with_another_context_is_not_replayed(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """An earlier turn changed: the cell is asked at the end."""
        notebook.cells("ab")
        notebook.conversation.undo()
        notebook.cells("c")
        notebook.cell("x", cell_id="a")
        notebook.cell("b", cell_id="b")
        assert (notebook.now, len(chat_server.requests)) == ("xcb", 5)

    def test_in_a_batch_run_too(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Turns of the truncated beginning are matched before the current ones."""
        batch.cells("abc")
        batch.conversation.truncate(keep_last=2)
        batch.cells("d")
        revision = batch.conversation.snapshot().state.revision
        restarted(batch).cells("abcd")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("cd", ["ab"], 4)
        assert batch.conversation.snapshot().state.revision == revision


class TestBatch:
    """Without cell ids, in a batch run."""

    def test_equal_cells_are_run_again_in_place(self, batch: Kernel, chat_server: ChatServer) -> None:
        """The second run sends and writes nothing."""
        batch.cells("abc")
        revision = batch.conversation.snapshot().state.revision
        restarted(batch).cells("abc")
        assert (batch.now, len(chat_server.requests)) == ("abc", 3)
        assert batch.conversation.snapshot().state.revision == revision

    def test_past_the_last_calls_append(self, batch: Kernel, chat_server: ChatServer) -> None:
        """A notebook with more cells adds their turns."""
        batch.cells("ab")
        restarted(batch).cells("abcd")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("abcd", [], 4)

    def test_the_first_difference_after_a_match_makes_the_tail_a_branch(
        self, batch: Kernel, chat_server: ChatServer
    ) -> None:
        """From there on calls append, even if later cells are equal again."""
        batch.cells("abcd")
        restarted(batch).cells("axcd")
        assert (batch.now, batch.branches, batch.stale) == ("axcd", ["bcd"], "")
        assert len(chat_server.requests) == 7

    def test_the_former_notebook_replays_its_answers(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Turns on the branch are replayed at the end of the matched turns."""
        batch.cells("abcd")
        restarted(batch).cells("axcd")
        restarted(batch).cells("abcd")
        assert (batch.now, len(chat_server.requests)) == ("abcd", 7)

    def test_a_cell_that_was_deleted_is_a_difference(self, batch: Kernel) -> None:
        """The changed cell begins the new tail."""
        batch.cells("abc")
        restarted(batch).cells("ac")
        assert (batch.now, batch.branches) == ("ac", ["bc"])

    def test_a_first_difference_before_any_match_appends(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Matching ends for this kernel: no turn is removed, and equal cells append, too."""
        batch.cells("ab")
        restarted(batch).cells("xab")
        assert (batch.now, batch.branches) == ("abxab", [])
        assert len(chat_server.requests) == 5

    def test_calls_of_one_cell_are_matched_one_by_one(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Their source is the same."""
        for kernel in (batch, restarted(batch)):
            kernel.cell("a", calls=3)
            kernel.cell("b")
        assert (batch.now, len(chat_server.requests)) == ("a0a1a2b", 4)

    def test_a_changed_value_in_an_unchanged_cell_is_asked_in_place(
        self, batch: Kernel, chat_server: ChatServer
    ) -> None:
        """The source is compared, not the message: the same cell with other data replaces its turn."""
        batch.cells("abc")
        second = restarted(batch)
        second.cell("a")
        asks = CellCall(cell_id=None, cell_source="b")
        target = second.matching.target_of(asks, "b of today", second.conversation.snapshot(), in_batch=True)
        stream = second.conversation.stream("b of today", target=target, cell=asks)
        assert "".join(stream) == "You said: b of today"
        assert stream.response is not None
        second.matching.answered("talk", stream.response.turn)
        second.cell("c")
        assert [turn.user_text for turn in batch.conversation.turns] == ["a", "b of today", "c"]
        assert (batch.branches, batch.stale, len(chat_server.requests)) == ([], "", 5)

    def test_turns_of_panels_and_python_are_skipped(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Only turns made by cells are compared; other turns stay where they are."""
        batch.cells("a")
        batch.conversation.send("p")
        batch.cells("b")
        restarted(batch).cells("ab")
        assert (batch.now, len(chat_server.requests)) == ("apb", 3)

    def test_turns_of_a_front_end_with_ids_are_matched(self, notebook: Kernel, chat_server: ChatServer) -> None:
        """A notebook that was run in JupyterLab is run by nbclient without a request."""
        notebook.cells("abc")
        Kernel(notebook.conversation, in_batch=True).cells("abc")
        assert (notebook.now, len(chat_server.requests)) == ("abc", 3)
        assert [turn.cell_id for turn in notebook.conversation.turns] == ["a", "b", "c"]

    def test_a_failing_call_does_not_advance(self, batch: Kernel, chat_server: ChatServer) -> None:
        """The next cell is compared with the same turn; the failed call removed nothing."""
        batch.cells("abc")
        second = restarted(batch)
        second.cells("a")
        chat_server.reply(error_reply(400, "no"))
        with pytest.raises(BadRequestError):
            second.cell("x")
        second.cells("bc")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("abc", [], 4)

    def test_a_failing_first_call_does_not_end_the_matching(self, batch: Kernel, chat_server: ChatServer) -> None:
        """A changed cell that failed does not count as a difference."""
        batch.cells("ab")
        second = restarted(batch)
        chat_server.reply(error_reply(400, "no"))
        with pytest.raises(BadRequestError):
            second.cell("x")
        second.cells("ab")
        assert (batch.now, len(chat_server.requests)) == ("ab", 3)

    def test_keys_in_the_source_do_not_break_the_comparison(
        self, batch: Kernel, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The keys are not stored, and the cell is matched again."""
        monkeypatch.setenv("OPENAI_API_KEY", "my-own-key")
        cell = f"%env OPENAI_API_KEY={KEY}\nother = 'my-own-key'\n%chat a"
        for kernel in (batch, restarted(batch)):
            kernel.cell(cell)
            kernel.cell("b")
        assert [turn.cell_source for turn in batch.conversation.turns] == [
            "%env OPENAI_API_KEY=[key]\nother = '[key]'\n%chat a",
            "b",
        ]
        assert len(chat_server.requests) == 2

    def test_an_undone_turn_is_not_expected(self, batch: Kernel, chat_server: ChatServer) -> None:
        """Within one run the next cell follows the remaining turns, and matching continues."""
        batch.cells("ab")
        batch.conversation.undo()
        batch.cells("c")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("ac", ["b"], 3)

    def test_an_undone_turn_is_not_a_difference(self, batch: Kernel, chat_server: ChatServer) -> None:
        """The next run replays it from its branch and the next cell in place; nothing is written."""
        batch.cells("ab")
        batch.conversation.undo()
        batch.cells("c")
        revision = batch.conversation.snapshot().state.revision
        restarted(batch).cells("abc")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("ac", ["b"], 3)
        assert batch.conversation.snapshot().state.revision == revision

    def test_matching_in_a_fork_begins_after_the_inherited_turns(
        self, batch: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """The earlier cells match turns of the original conversation."""
        batch.cells("ab")
        batch.conversation.fork("fork")
        for kernel in (restarted(batch), restarted(batch)):
            kernel.cells("ab")
            fork = Kernel(
                manager_for(store, chat_server).get_conversation("fork"), in_batch=True, matching=kernel.matching
            )
            fork.matching.forked("fork", fork.conversation.turns)
            fork.cells("c")
        assert (fork.now, fork.branches, len(chat_server.requests)) == ("abc", [], 3)

    def test_a_turn_replaced_by_another_kernel_counts_as_matched(self, batch: Kernel, chat_server: ChatServer) -> None:
        """The next cell is compared with the next turn."""
        batch.cells("abc")
        second = restarted(batch)
        second.cells("a")
        batch.conversation.rerun(0, fresh=True)
        second.cells("bc")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("abc", [], 4)

    def test_an_interrupted_turn_is_asked_again_in_place(
        self, batch: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """It is not an answer, and it is not copied."""
        batch.cells("a")
        store.append("talk", said("b", cell_source="b", finish_reason="interrupted"))
        restarted(batch).cells("ab")
        assert (batch.now, len(chat_server.requests)) == ("ab", 2)

    def test_strict_replay_fails_before_anything_is_sent(
        self, batch: Kernel, store: StateStore, chat_server: ChatServer
    ) -> None:
        """A changed cell is a miss and does not change the conversation."""
        batch.cells("abc")
        strict = ConversationManager(OpenAIProvider("gpt-4o-mini", api_key=KEY), store, replay="strict")
        kernel = Kernel(strict.get_conversation("talk"), in_batch=True)
        kernel.cells("a")
        with pytest.raises(ReplayMissError):
            kernel.cell("x")
        assert (batch.now, batch.branches, len(chat_server.requests)) == ("abc", [], 3)


def cell_while(kernel: Kernel, act: Callable[[], object], text: str, cell_id: str) -> None:
    """Run a cell, and call ``act`` when the first piece of the answer arrives."""
    asks = CellCall(cell_id=cell_id, cell_source=text)
    target = kernel.matching.target_of(asks, text, kernel.conversation.snapshot(), in_batch=False)
    stream = kernel.conversation.stream(text, target=target, cell=asks)
    pieces = iter(stream)
    next(pieces)
    act()
    for _ in pieces:
        pass
