"""Follows the workers of a run, in the thread that called it, until they have ended."""

from __future__ import annotations

from queue import Empty
from typing import TYPE_CHECKING

from promptkit_nb.rows.progress import show
from promptkit_nb.rows.workers import Answered, Ended, Failed, Paused, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptkit_nb.rows.plan import RowAnswers
    from promptkit_nb.rows.progress import Progress
    from promptkit_nb.rows.workers import WorkerEvent, Workers

_LOOK_EVERY_S = 0.25


class Following:
    """Takes what the workers answer, and shows the progress.

    Ctrl-C lets the answers under way arrive, because they are paid for; a second one stores what has arrived of them.
    """

    def __init__(self, workers: Workers, answers: RowAnswers, progress: Progress) -> None:
        """Follow these workers."""
        self.unpriced = 0
        self.failed = 0
        self.stopped_by: BaseException | None = None
        self._workers = workers
        self._answers = answers
        self._progress = progress
        self._running = workers.count
        self._take: dict[type[WorkerEvent], Callable[..., None]] = {
            Answered: self._answered,
            Failed: self._failed,
            Paused: self._paused,
            Stopped: self._stopped,
            Ended: self._ended,
        }

    def to_the_end(self) -> None:
        """Return once all workers have ended; ``stopped_by`` is the error that stopped them, if any."""
        try:
            self._follow()
        except KeyboardInterrupt:
            self._workers.gate.stop()
            count = self._workers.gate.under_way
            if count:
                arrived = "answer under way has arrived" if count == 1 else "answers under way have arrived"
                show(f"stopping when the {count} {arrived}; interrupt again to stop now")
            try:
                self._follow()
            except KeyboardInterrupt:
                self._workers.abandon()
            raise
        except BaseException:
            self._workers.gate.stop()
            raise

    def _follow(self) -> None:
        """Take events until all workers have ended; an interrupt may have lost the event that says so."""
        while self._running:
            are_alive = self._workers.are_alive  # before the queue is read, so that no last event is missed
            try:
                event = self._workers.events.get(timeout=_LOOK_EVERY_S)
            except Empty:
                if not are_alive:
                    return
            else:
                self._take[type(event)](event)

    def _answered(self, event: Answered) -> None:
        self._answers.take(event.number, event.response)
        self.unpriced += event.response.cost is None
        self._progress.answered(event.response.cost)

    def _failed(self, event: Failed) -> None:
        self._answers.fail(event.number, event.error)
        self.failed += 1
        self._progress.failed()

    def _paused(self, event: Paused) -> None:
        self._progress.say(event.text)

    def _stopped(self, event: Stopped) -> None:
        self.stopped_by = self.stopped_by or event.error

    def _ended(self, event: Ended) -> None:  # noqa: ARG002 - as the others
        self._running -= 1
