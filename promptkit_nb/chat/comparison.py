"""One question for several models: the first answer becomes the turn, the others are its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptkit_nb.chat.options import check_model
from promptkit_nb.chat.stream import ResponseStream
from promptkit_nb.errors import InvalidArgumentError, PromptKitError, StoreError
from promptkit_nb.frontend import typed
from promptkit_nb.rendering.comparisons import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from promptkit_nb.chat.pending_turn import PendingTurn
    from promptkit_nb.rendering.responses import Response
    from promptkit_nb.turns import Turn


class ModelComparison:
    """Asks several models in the same context, one after the other.

    Answers that are stored as this turn or as versions of it are not asked or written again. An answer that was picked
    among versions stays the turn, also if another model is asked.
    """

    def __init__(self, models: Sequence[str], ask: Callable[[str], PendingTurn]) -> None:
        """Reserve what all requests may cost, before the first is sent; ``ask`` returns the question for a model."""
        self._pending: dict[str, PendingTurn] = {}
        self.turn: Turn | None = None
        """The turn, once a model has answered."""
        try:
            for model in _checked(models):
                pending = self._pending[model] = ask(model)
                if pending.recorded is None:
                    pending.prepare()
        except BaseException:
            self._release()
            raise
        pending_turns = tuple(self._pending.values())
        if all(each.is_here for each in pending_turns):
            self.turn = pending_turns[0].own
        else:
            self.turn = next((each.own for each in pending_turns if each.is_picked), None)

    def answers(self, follow: Callable[[str, ResponseStream], object]) -> Comparison:
        """Ask the models; ``follow`` reads the stream of each to its end.

        A model that fails has its error in ``errors``. If all fail, the first error is raised.
        """
        responses: dict[str, Response] = {}
        errors: dict[str, PromptKitError] = {}
        for model, stream in self._streams():
            try:
                follow(model, stream)
            except StoreError:  # it concerns all of them
                raise
            except PromptKitError as error:
                errors[model] = error
            finally:
                if stream.response is not None:
                    responses[model] = stream.response
                    self.turn = self.turn or stream.response.turn
        if not responses:
            raise next(iter(errors.values()), InvalidArgumentError("No model answered."))
        return Comparison(
            tuple(responses.values()), tuple(self._pending), errors, "" if self.turn is None else self.turn.id
        )

    def _streams(self) -> Iterator[tuple[str, ResponseStream]]:
        """Yield each model with its answer, which has to be read before the next."""
        try:
            for model, pending in self._pending.items():
                if self.turn is not None:
                    pending.become_version_of(self.turn)
                yield model, ResponseStream(pending)
        finally:
            self._release()

    def _release(self) -> None:
        """Release what is reserved for requests that were not sent."""
        for pending in self._pending.values():
            pending.end("stopped")


def _checked(models: Sequence[str]) -> list[str]:
    """Return the names of the models, or raise ``InvalidArgumentError``."""
    if isinstance(models, str) or not models:
        raise InvalidArgumentError(f'models={models!r:.80} is not a list of models: give models=["a", "b"].')
    names = [name for each in models if (name := check_model(each)) is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgumentError(f"{typed('model')} names {twice!r} twice: name each model once.")
    return names
